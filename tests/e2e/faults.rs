//! Ends of our own processes that nobody wished: each says a sentence, none is a hang.

use std::process::Command;

use rustix::process::Signal;

use crate::places::inside;
use crate::support::{Running, Sandbox};

#[test]
fn a_lost_page_of_memory_is_told_before_the_process_dies() {
    let sandbox = Sandbox::new();
    let run = sandbox.start(["run", "--", "sleep", "600"]);
    run.workers(1);
    run.signal(Signal::BUS);
    let ended = run.finish();
    assert!(
        ended.stderr.contains("killed by SIGBUS"),
        "{}",
        ended.stderr
    );
    sandbox.assert_nothing_left();
}

#[test]
fn too_few_threads_are_a_sentence() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "the limit of processes is tried as another user, which root alone can become: nothing tested"
        );
        return;
    }
    let sandbox = Sandbox::new();
    std::fs::copy(crate::support::PROGRAM, sandbox.path("mitosis")).expect("a copy");
    let owner = "61003:61003";
    let given = Command::new("chown")
        .args(["-R", owner])
        .arg(sandbox.root())
        .status();
    assert!(given.expect("chown").success());
    let plain = sandbox.command(["run", "--", "true"]);
    for processes in 1..6 {
        let script = format!("ulimit -u {processes}; exec ./mitosis run -- true");
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=61003",
                "--regid=61003",
                "--clear-groups",
                "--",
                "sh",
                "-c",
            ])
            .arg(script)
            .env_clear()
            .current_dir(sandbox.path("."));
        for (name, value) in plain.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let ended = Running::start(&sandbox, command).finish();
        let said = ended.stderr;
        let in_words = said.contains("ulimit -u") || ended.status.success();
        assert!(
            in_words && !said.contains("panicked"),
            "{processes}: {:?} {said}",
            ended.status
        );
    }
}

#[test]
fn sixty_four_mebibytes_of_shared_memory_carry_as_many_workers_as_fit() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo one\necho two\n");
    let command = sandbox.command(["run", "--workers", "56", "list.txt"]);
    if let Some(command) = inside(&command, "mount -t tmpfs -o size=64m tmpfs /dev/shm") {
        Running::start(&sandbox, command).finish().code(0);
    }
}
