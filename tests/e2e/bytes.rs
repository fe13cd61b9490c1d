//! Lines, arguments, paths and variables that are no UTF-8, from the file to the program and back to the user.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{Running, Sandbox, Service};

/// `caf` and a byte that is no UTF-8.
const ODD: &[u8] = b"caf\xe9";
const SHOWN: &str = "caf\\xE9";

fn odd() -> &'static OsStr {
    OsStr::from_bytes(ODD)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A directory of an odd name in the sandbox.
fn odd_dir(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("x").with_file_name(odd());
    std::fs::create_dir(&dir).expect("a directory");
    dir
}

#[test]
fn a_list_may_hold_any_bytes_and_its_tasks_get_them() {
    let sandbox = Sandbox::new();
    let list = [b"printf '%s\\n' '", ODD, b"'\n/bin/echo ", ODD, b"\n"].concat();
    sandbox.file("list.txt", list);
    let ran = sandbox.run(["run", "list.txt"]).code(0);
    assert_eq!(ran.stdout.iter().filter(|byte| **byte == 0xe9).count(), 2);
    assert!(contains(&ran.stdout, ODD), "{:?}", ran.out());
}

#[test]
fn arguments_of_any_bytes_come_from_words_and_from_pipes() {
    let sandbox = Sandbox::new();
    let words = ["run", "/bin/echo", "{.}", ":::"].map(OsString::from);
    let name = OsString::from_vec([ODD, b".txt"].concat());
    let ran = sandbox.run(words.into_iter().chain([name])).code(0);
    assert_eq!(ran.stdout, [ODD, b"\n"].concat());

    let mut command = sandbox.command(["run", "-0", "/bin/echo"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(&[ODD, b"\0"].concat()).expect("it is read");
    drop(pipe);
    let ran = child.wait_with_output().expect("it ends");
    assert_eq!(ran.stdout, [ODD, b"\n"].concat());
}

#[test]
fn every_directory_may_have_a_name_of_any_bytes() {
    let sandbox = Sandbox::new();
    let dir = odd_dir(&sandbox);
    let mut command = sandbox.command([
        "run",
        "-v",
        "--",
        "sh",
        "-c",
        "pwd; head -c 20000 /dev/zero",
    ]);
    command
        .current_dir(&dir)
        .env("HOME", &dir)
        .env("XDG_STATE_HOME", &dir)
        .env("XDG_RUNTIME_DIR", &dir)
        .env("TMPDIR", &dir);
    let ran = Running::start(&sandbox, command).finish().code(0);
    assert!(contains(&ran.stdout, ODD), "{}", ran.stderr);
    assert!(ran.stdout.len() > 20_000);

    let state = dir.join("state");
    let mut command = sandbox.command(["run", "--json", "--state-dir"]);
    command.arg(&state).args(["--", "sh", "-c", "exit 3"]);
    let ran = Running::start(&sandbox, command).finish().code(3);
    let told = ran.json()["state_dir"].to_string();
    assert!(told.contains("caf\u{10FFE9}"), "{told}");
    let mut command = sandbox.command(["run", "--state-dir"]);
    command.arg(&state).arg("--output-dir").arg(dir.join("out"));
    command.args(["--", "echo", "fine"]);
    Running::start(&sandbox, command).finish().code(0);
    assert_eq!(
        std::fs::read(dir.join("out/1.out")).expect("its output"),
        b"fine\n"
    );
}

#[test]
fn variables_of_any_bytes_reach_tasks() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(["run", "--", "printenv", "ODD"]);
    command.env("ODD", odd());
    let ran = Running::start(&sandbox, command).finish().code(0);
    assert_eq!(ran.stdout, [ODD, b"\n"].concat());
}

#[test]
fn they_are_shown_escaped_and_what_is_shown_to_be_pasted_can_be() {
    let sandbox = Sandbox::new();
    let words = ["run", "--dry-run", "/bin/echo", ":::"].map(OsString::from);
    let ran = sandbox
        .run(words.into_iter().chain([odd().to_owned()]))
        .code(0);
    assert_eq!(ran.out(), "/bin/echo $'caf\\351'\n");

    let words = ["run", "--tag", "false", ":::"].map(OsString::from);
    let ran = sandbox
        .run(words.into_iter().chain([odd().to_owned()]))
        .code(1);
    let said = ran.stderr;
    assert!(said.contains("caf\\351") || said.contains(SHOWN), "{said}");
}

#[test]
fn a_service_takes_keeps_and_shows_them() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // In JSON a byte has a form of its own; a list of lines has it as it is.
    let list = sandbox.file("tasks.jsonl", r#"{"args":["/bin/echo","caf\udbff\udfe9"]}"#);
    let uuid = &service.submit_file(&list)[0];
    service.until_state(uuid, "completed");
    let logs = service.client(&["logs", uuid]).code(0);
    assert_eq!(logs.stdout, [ODD, b"\n"].concat());
    let told = service.client(&["task", uuid, "--json"]).code(0).json();
    assert!(told.to_string().contains("caf\u{10FFE9}"), "{told}");
    let list = sandbox.file("list.txt", [b"/bin/echo ", ODD].concat());
    let uuid = &service.submit_file(&list)[0];
    service.until_state(uuid, "completed");
    let logs = service.client(&["logs", uuid]).code(0);
    assert_eq!(logs.stdout, [ODD, b"\n"].concat());
    let shown = service.client(&["tasks"]).code(0).out();
    assert!(shown.contains(SHOWN), "{shown}");
    service.stop();
}
