//! Directories that are somebody else's, and what a task leaves in its own: with a second real user, which root can become.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Running, Sandbox};

/// Two users that no machine has.
const ALICE: u32 = 61_001;
const MALLORY: u32 = 61_002;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("only root can become another user: nothing tested");
    }
    root
}

/// Gives the whole sandbox to a user.
fn give(sandbox: &Sandbox, user: u32) {
    let mut given = Command::new("chown");
    given
        .args(["-R", &format!("{user}:{user}")])
        .arg(sandbox.root());
    assert!(given.status().expect("chown").success());
    // Programs are executed from a directory that the user may not search: a copy is at hand.
    std::fs::copy(crate::support::PROGRAM, sandbox.path("mitosis")).expect("a copy");
}

/// The program as this user.
fn command_as(sandbox: &Sandbox, user: u32, args: &[&str]) -> Command {
    let plain = sandbox.command(args);
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "--"])
        .arg(sandbox.path("mitosis"))
        .args(plain.get_args())
        .env_clear()
        .current_dir(sandbox.path("."));
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

fn private_dir(path: &Path, owner: u32) {
    std::fs::create_dir(path).expect("a directory");
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).expect("its mode");
    chown(path, Some(owner), Some(owner)).expect("root may");
}

#[test]
fn a_state_directory_of_another_user_is_refused_by_every_role() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let theirs = sandbox.path("theirs");
    private_dir(&theirs, MALLORY);
    let dir = theirs.to_str().expect("a path in UTF-8");
    let below = theirs.join("below");
    private_dir(&below, 0);
    let below = below.to_str().expect("a path in UTF-8");
    for dir in [dir, below] {
        for role in ["up", "coordinator"] {
            let refused = sandbox.run([role, "--state-dir", dir]).code(2);
            refused.says(&["belongs to user 61002", "--state-dir"]);
        }
        let refused = sandbox
            .run(["run", "--state-dir", dir, "--", "true"])
            .code(2);
        refused.says(&["belongs to user 61002", "--state-dir"]);
    }
    let entries = std::fs::read_dir(&theirs).expect("root may").count();
    assert_eq!(entries, 1, "nothing was made there");
}

#[test]
fn a_state_directory_that_is_a_link_or_open_to_others_is_refused_with_the_remedy() {
    let sandbox = Sandbox::new();
    let (real, link) = (sandbox.path("real"), sandbox.path("link"));
    std::fs::create_dir(&real).expect("a directory");
    symlink(&real, &link).expect("a link");
    let link = link.to_str().expect("a path in UTF-8");
    let refused = sandbox.run(["run", "--state-dir", link, "--", "true"]);
    refused.code(2).says(&["symbolic link"]);
    std::fs::write(real.join("mine"), "").expect("a file");
    std::fs::set_permissions(&real, Permissions::from_mode(0o755)).expect("its mode");
    let real = real.to_str().expect("a path in UTF-8");
    let refused = sandbox.run(["run", "--state-dir", real, "--", "true"]);
    refused.code(2).says(&["chmod go-rwx"]);
}

#[test]
fn names_that_another_user_has_taken_are_stepped_round() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    give(&sandbox, ALICE);
    let shared = sandbox.path("shared");
    private_dir(&shared, 0);
    std::fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("its mode");
    let taken = shared.join(format!("mitosis-{ALICE}"));
    private_dir(&taken, MALLORY);
    std::fs::set_permissions(&taken, Permissions::from_mode(0o777)).expect("its mode");
    let mut command = command_as(&sandbox, ALICE, &["run", "-v", "--", "echo", "fine"]);
    command
        .env("TMPDIR", &shared)
        .env("XDG_RUNTIME_DIR", &taken)
        .env("XDG_STATE_HOME", &taken)
        .env_remove("HOME");
    let ran = Running::start(&sandbox, command).finish().code(0);
    assert_eq!(ran.out(), "fine\n", "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&taken).expect("root may").count(), 0);
    ran.says(&["belongs to user 61002", "instead"]);
}

#[test]
fn a_locked_directory_that_a_task_left_keeps_nobody_from_starting_again() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    give(&sandbox, ALICE);
    let script = "mkdir -p $MITO_RESULT_DIR/a/b && chmod 0555 $MITO_RESULT_DIR/a/b $MITO_RESULT_DIR/a && touch left && exec sleep 600";
    let args = ["run", "--state-dir", "state", "--", "sh", "-c", script];
    let mut first = Running::start(&sandbox, command_as(&sandbox, ALICE, &args));
    let left = sandbox.path("left");
    first.until("the task to leave something", || match left.exists() {
        true => Ok(()),
        false => Err("nothing".to_owned()),
    });
    for process in sandbox.processes() {
        crate::support::processes::send(process.pid, Signal::KILL);
    }
    first.finish();
    let args = ["run", "--state-dir", "state", "--", "echo", "again"];
    let ran = Running::start(&sandbox, command_as(&sandbox, ALICE, &args)).finish();
    assert_eq!(ran.code(0).out(), "again\n");
}

#[test]
fn nothing_that_a_task_leaves_in_its_slot_is_seen_by_the_next() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "list.txt",
        "mv $MITO_EXEC_DIR $MITO_EXEC_DIR/../other && touch $MITO_RESULT_DIR/../secret\nls $MITO_EXEC_DIR/..\n",
    );
    let ran = sandbox
        .run(["run", "-k", "--workers", "1", "list.txt"])
        .code(0);
    let seen = ran.out();
    assert!(seen.contains("exec") && seen.contains("result"), "{seen}");
    assert!(
        !seen.contains("other") && !seen.contains("secret"),
        "{seen}"
    );
}
