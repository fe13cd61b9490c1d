//! The packages that people without Rust install: built by their scripts, installed, used, removed.
//!
//! Installed into directories of the test and never into the machine. `tests/run` builds the static program beforehand;
//! without that the first of these tests takes some minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::program::Running;
use crate::support::sandbox::Sandbox;

/// Runs a script of `packaging/` and returns the file that it names last.
#[track_caller]
fn build(script: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("packaging").join(script));
    command.stdin(Stdio::null());
    PathBuf::from(succeed(command).lines().last().unwrap_or_default())
}

/// Runs a program that has to succeed and returns what it printed.
#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

fn call(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Holds that an installed program does the main job with worker processes of its own kind.
#[track_caller]
fn assert_it_works(sandbox: &Sandbox, program: &Path) {
    let list = sandbox.file("list.txt", "echo one\necho two >&2\nexit 3\n");
    let list = list.to_str().expect("a UTF-8 path");
    let command = sandbox.command_of(program, ["run", list, "--workers", "2"]);
    let run = Running::start(sandbox, command).finish().code(1);
    assert_eq!(run.stdout, b"one\n");
    assert!(run.stderr.contains("two\n"), "{}", run.stderr);
    assert!(
        run.stderr.contains("2 completed, 1 failed"),
        "{}",
        run.stderr
    );
}

/// `dpkg` on a directory of the test instead of the machine.
fn dpkg(root: &Path, args: &[&str]) -> Command {
    let mut command = call("dpkg", &["--force-not-root", "--force-script-chrootless"]);
    let log = format!("--log={}", root.join("dpkg.log").display());
    command.arg(format!("--root={}", root.display())).arg(log);
    command.args(args);
    command
}

#[test]
fn the_debian_package_is_installed_used_and_removed() {
    let sandbox = Sandbox::new();
    let package = build("deb");
    let root = sandbox.path("root");
    fs::create_dir_all(root.join("var/lib/dpkg/updates")).unwrap();
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    succeed(dpkg(&root, &["--install", package.to_str().unwrap()]));

    assert_it_works(&sandbox, &root.join("usr/bin/mitosis"));
    for file in [
        "usr/share/man/man1/mitosis-run.1.gz",
        "usr/share/bash-completion/completions/mitosis",
        "usr/share/zsh/vendor-completions/_mitosis",
        "usr/share/fish/vendor_completions.d/mitosis.fish",
        "usr/share/doc/mitosis/copyright",
        "etc/mitosis/manager.env",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    assert_units_fit(&sandbox, &root);
    if Command::new("systemd-sysusers")
        .arg("--version")
        .output()
        .is_ok()
    {
        let users = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
        assert!(users.contains("mitosis:"), "{users}");
    }

    succeed(dpkg(&root, &["--purge", "mitosis"]));
    for gone in ["usr/bin/mitosis", "etc/mitosis"] {
        assert!(!root.join(gone).exists(), "{gone} is left");
    }
}

/// Holds that every unit calls a command that the packaged program has, and that systemd, where it is there,
/// understands the unit.
#[track_caller]
fn assert_units_fit(sandbox: &Sandbox, root: &Path) {
    for (place, name, role) in [
        ("system", "mitosis-coordinator.service", "coordinator"),
        ("system", "mitosis-manager.service", "manager"),
        ("user", "mitosis-up.service", "up"),
    ] {
        let unit = root.join("usr/lib/systemd").join(place).join(name);
        let text = fs::read_to_string(&unit).expect("an installed unit");
        let started = format!("ExecStart=/usr/bin/mitosis {role}\n");
        assert!(text.contains(&started), "{name}: {text}");
        let help = sandbox.command_of(&root.join("usr/bin/mitosis"), [role, "--help"]);
        let help = Running::start(sandbox, help).finish().code(0);
        for variable in settings(root, &text) {
            let shown = String::from_utf8_lossy(&help.stdout);
            assert!(shown.contains(&variable), "{role} does not know {variable}");
        }
        if has_systemd() {
            verify(sandbox, root, place, name, &text);
        }
    }
}

fn has_systemd() -> bool {
    let version = Command::new("systemd-analyze").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Has systemd read a unit.
#[track_caller]
fn verify(sandbox: &Sandbox, root: &Path, place: &str, name: &str, unit: &str) {
    // The unit names the program where the package puts it, which is not where this test put it.
    let program = root.join("usr/bin/mitosis");
    let unit = unit.replace("/usr/bin/mitosis", program.to_str().expect("a UTF-8 path"));
    let mut verify = call(
        "systemd-analyze",
        &["verify", "--man=no", "--recursive-errors=no"],
    );
    verify.arg(format!("--{place}"));
    verify.arg(sandbox.file(name, unit));
    verify.env("XDG_RUNTIME_DIR", sandbox.root().join("run"));
    succeed(verify);
}

/// The variables of ours that a unit or its environment file names, commented out or not.
fn settings(root: &Path, unit: &str) -> Vec<String> {
    let file = unit
        .lines()
        .find_map(|line| line.strip_prefix("EnvironmentFile=-/etc/"));
    let file = file
        .map(|path| fs::read_to_string(root.join("etc").join(path)).expect("an installed file"));
    let texts = [unit.to_owned(), file.unwrap_or_default()];
    let words = texts
        .iter()
        .flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let ours = words.filter(|word| word.starts_with("MITOSIS_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn the_wheel_is_installed_by_pip_and_carries_only_the_program() {
    let sandbox = Sandbox::new();
    let wheel = build("wheel");
    let environment = sandbox.path("venv");
    let environment = environment.to_str().unwrap();
    succeed(call("python3", &["-m", "venv", environment]));
    let pip = format!("{environment}/bin/pip");
    let wheel = wheel.to_str().unwrap();
    succeed(call(&pip, &["install", "--quiet", "--no-index", wheel]));
    assert_it_works(&sandbox, &Path::new(environment).join("bin/mitosis"));

    let listed = succeed(call(&pip, &["show", "--files", "mitosis-run"]));
    let files = listed.split("Files:").nth(1).unwrap_or_default();
    let other = files
        .split_whitespace()
        .find(|file| !file.ends_with("bin/mitosis") && !file.contains(".dist-info/"));
    assert_eq!(other, None, "{listed}");
    succeed(call(
        &pip,
        &["uninstall", "--quiet", "--yes", "mitosis-run"],
    ));
    assert!(!Path::new(environment).join("bin/mitosis").exists());
}

#[test]
fn the_tarball_holds_a_static_program_with_its_manual() {
    let sandbox = Sandbox::new();
    let tarball = build("tarball");
    let root = sandbox.path("unpacked");
    fs::create_dir(&root).unwrap();
    let (tarball, into) = (tarball.to_str().unwrap(), root.to_str().unwrap());
    succeed(call(
        "tar",
        &["-xzf", tarball, "-C", into, "--strip-components=1"],
    ));
    let program = root.join("mitosis");
    let headers = succeed(call(
        "readelf",
        &["--program-headers", program.to_str().unwrap()],
    ));
    assert!(!headers.contains("INTERP"), "it needs a loader: {headers}");
    assert_it_works(&sandbox, &program);
    for file in [
        "share/man1/mitosis-run.1",
        "share/mitosis.bash",
        "LICENSE-MIT",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    succeed(call(
        "bash",
        &["-n", root.join("share/mitosis.bash").to_str().unwrap()],
    ));
}
