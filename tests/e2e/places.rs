//! Small and odd places: where the transport lives when the usual directories are missing, somebody else's, too long, not
//! plain or small, and how many workers start there.

use std::process::{Command, Output};

use crate::support::Sandbox;

/// As `command`, in a mount namespace of its own in which `script` was run. `None` where the system does not let us.
pub(crate) fn inside(command: &Command, script: &str) -> Option<Command> {
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("not allowed to mount a file system here: nothing tested");
        return None;
    }
    let mut wrapped = Command::new("unshare");
    let script = format!("{script} && exec \"$0\" \"$@\"");
    wrapped.args(["-m", "sh", "-c", &script]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    Some(wrapped)
}

#[track_caller]
fn says(mut command: Command, wanted: &[&str]) -> Output {
    let output = command.output().expect("the program starts");
    let all = [&output.stdout[..], &output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    for words in wanted {
        assert!(all.contains(words), "no `{words}` in:\n{all}");
    }
    output
}

fn two_lines(sandbox: &Sandbox, more: &[&str]) -> Command {
    sandbox.file("list.txt", "echo one\necho two\n");
    sandbox.command(["run", "list.txt"].iter().chain(more))
}

#[test]
fn a_run_needs_no_usable_temporary_or_runtime_directory() {
    let sandbox = Sandbox::new();
    let odd = sandbox.path("ü");
    std::fs::create_dir(&odd).expect("a directory");
    let long = sandbox.path(&"x".repeat(60));
    std::fs::create_dir(&long).expect("a directory");
    for place in [odd, long, sandbox.path("missing"), "/proc".into()] {
        let mut command = two_lines(&sandbox, &[]);
        command.env("TMPDIR", &place).env("XDG_RUNTIME_DIR", &place);
        let ran = says(command, &["one", "two"]);
        assert!(ran.status.success(), "{place:?}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn sixteen_mebibytes_of_shared_memory_carry_two_workers() {
    let sandbox = Sandbox::new();
    let command = two_lines(&sandbox, &["--workers", "2"]);
    let mount = "mount -t tmpfs -o size=16m tmpfs /dev/shm";
    if let Some(command) = inside(&command, mount) {
        assert!(says(command, &["one", "two", "2 workers"]).status.success());
    }
}

#[test]
fn where_few_workers_fit_fewer_are_started_and_it_is_said() {
    let sandbox = Sandbox::new();
    let mount = "mount -t tmpfs -o size=2m tmpfs /dev/shm";
    if std::thread::available_parallelism().map_or(1, usize::from) == 1 {
        eprintln!("one core has one worker: nothing tested");
        return;
    }
    if let Some(command) = inside(&two_lines(&sandbox, &[]), mount) {
        let ran = says(
            command,
            &["one", "two", "1 worker ", "starting fewer workers"],
        );
        assert!(ran.status.success());
    }
    // A number that was asked for is not cut silently.
    if let Some(command) = inside(&two_lines(&sandbox, &["--workers", "64"]), mount) {
        let ran = says(
            command,
            &["64 workers need", "/dev/shm", "start fewer workers"],
        );
        assert_eq!(ran.status.code(), Some(3));
    }
}

#[test]
fn few_descriptors_carry_two_workers() {
    let sandbox = Sandbox::new();
    let command = two_lines(&sandbox, &["--workers", "2"]);
    if let Some(command) = inside(&command, "ulimit -n 256") {
        assert!(says(command, &["one", "two"]).status.success());
    }
}

#[test]
fn a_start_that_is_refused_leaves_no_state_directory() {
    let sandbox = Sandbox::new();
    let runs = sandbox.root().join("state/mitosis/runs");
    let left = || std::fs::read_dir(&runs).map_or(0, Iterator::count);
    let mount = "mount -t tmpfs -o size=2m tmpfs /dev/shm";
    let state = sandbox.path("named");
    let named = state.to_str().expect("a path in UTF-8");
    for more in [
        &["--workers", "64"][..],
        &["--workers", "64", "--state-dir", named],
    ] {
        if let Some(command) = inside(&two_lines(&sandbox, more), mount) {
            let ran = says(command, &["64 workers need"]);
            assert_eq!(ran.status.code(), Some(3));
            assert!(left() == 0 && !state.exists(), "{more:?}");
        }
    }
    let unfit = ["run", "--total-cpus", "1", "--cpus", "64", "--", "true"];
    sandbox.run(unfit).code(2);
    assert_eq!(left(), 0);
}

#[test]
fn what_runs_left_long_ago_is_removed_by_a_later_one() {
    let sandbox = Sandbox::new();
    sandbox
        .run(["run", "--", "sh", "-c", "kill -9 $$"])
        .code(137);
    sandbox.run(["run", "--keep-state", "--", "true"]).code(0);
    let runs = sandbox.root().join("state/mitosis/runs");
    let left = || {
        let entries = std::fs::read_dir(&runs).expect("the runs");
        entries
            .map(|entry| entry.expect("a run").path())
            .collect::<Vec<_>>()
    };
    assert_eq!(left().len(), 2);
    sandbox.run(["run", "--", "true"]).code(0);
    assert_eq!(left().len(), 2, "they are young");
    for run in left() {
        for path in [run.join("store.db"), run.join("store.db-wal"), run] {
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 24 * 3600);
            if let Ok(file) = std::fs::File::open(path) {
                file.set_modified(old).expect("its owner may");
            }
        }
    }
    sandbox.run(["run", "--", "true"]).code(0);
    assert_eq!(left().len(), 1, "the one that was to be kept");
}
