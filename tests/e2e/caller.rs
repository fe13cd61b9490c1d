//! What a task gets from whoever called `mitosis run`: limits, signals, priority, masks, and no terminal.

use std::path::Path;
use std::process::Stdio;

use crate::support::Sandbox;
use crate::support::terminal::Terminal;

/// What `run` shows of a task that says `look`, when it is called by a shell that has done `before`.
fn seen(sandbox: &Sandbox, before: &str, look: &str) -> String {
    let program = env!("CARGO_BIN_EXE_mitosis");
    let script = format!("{before}; exec {program} run -q -w 4 -- sh -c '{look}'");
    let mut command = sandbox.command_of(Path::new("/bin/sh"), ["-c", &script]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.expect("a shell starts");
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// What the shell itself would show there.
fn expected(sandbox: &Sandbox, before: &str, look: &str) -> String {
    let script = format!("{before}; {look}");
    let mut command = sandbox.command_of(Path::new("/bin/sh"), ["-c", &script]);
    let output = command.output().expect("a shell starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_task_has_limits_priority_and_masks_of_the_caller_whatever_the_number_of_workers() {
    let sandbox = Sandbox::new();
    // Fewer files than four workers need: the program raises its own limit.
    for before in [
        "ulimit -Sn 200",
        "umask 027",
        "ulimit -Sc 0; ulimit -Ss 4096",
    ] {
        let look = "ulimit -a; umask; nice";
        let wanted = expected(&sandbox, before, look);
        assert_eq!(seen(&sandbox, before, look), wanted, "{before}");
    }
}

#[test]
fn signals_that_the_caller_ignores_stay_ignored_and_no_others() {
    let sandbox = Sandbox::new();
    let look = "exec grep SigIgn /proc/self/status";
    // Without 32 and 33, which are the C library's own business.
    let set = |text: &str| {
        let (_, set) = text.trim().split_once('\t').expect("a set");
        u64::from_str_radix(set, 16).unwrap() & !(3 << 31)
    };
    for (before, ignored) in [("trap \"\" HUP QUIT", 5), (":", 0)] {
        let wanted = set(&expected(&sandbox, before, look));
        assert_eq!(
            (set(&seen(&sandbox, before, look)), wanted),
            (ignored, ignored),
            "{before}"
        );
    }
}

#[test]
fn a_task_that_wants_the_terminal_fails_and_does_not_wait_for_ever() {
    let sandbox = Sandbox::new();
    let call = ["run", "--", "sh", "-c", "stty -echo </dev/tty"];
    let terminal = Terminal::start(&sandbox, 100, &call, &[]);
    let (status, screen, _) = terminal.finish();
    assert_eq!(status.code(), Some(2), "{screen}");
    assert!(screen.contains("/dev/tty"), "{screen}");
}
