//! Lists that come while they are run, and runs that are killed before the user has everything: nothing waits for the end of
//! a pipe, nothing is run or written twice.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Running, Sandbox};

/// Starts a run whose list is written into the returned pipe.
#[track_caller]
fn fed<'s>(sandbox: &'s Sandbox, args: &[&str]) -> (Running<'s>, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = sandbox.command(args);
    command.stdin(Stdio::from(reader));
    (Running::start(sandbox, command), writer)
}

#[track_caller]
fn until_log_has(sandbox: &Sandbox, run: &mut Running<'_>, count: usize) {
    run.until(&format!("{count} tasks to have run"), || {
        let lines = sandbox.lines("log");
        if lines.len() >= count {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    });
}

#[test]
fn a_list_from_a_pipe_is_begun_before_its_end() {
    let sandbox = Sandbox::new();
    let (mut run, mut list) = fed(&sandbox, &["run", "-w", "2", "--json"]);
    list.write_all(b"echo one >> log\n").expect("the pipe");
    until_log_has(&sandbox, &mut run, 1);
    list.write_all(b"echo two >> log\necho three")
        .expect("the pipe");
    until_log_has(&sandbox, &mut run, 2);
    list.write_all(b" >> log\n").expect("the pipe");
    until_log_has(&sandbox, &mut run, 3);
    drop(list);
    let summary = run.finish().code(0).json();
    assert_eq!(summary["tasks"]["completed"], 3, "{summary:#}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_run_that_waits_for_a_pipe_ends_with_an_interrupt_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let (mut run, mut list) = fed(&sandbox, &["run", "-w", "1"]);
    list.write_all(b"echo one >> log\n").expect("the pipe");
    until_log_has(&sandbox, &mut run, 1);
    run.signal(rustix::process::Signal::INT);
    run.finish().code(130);
    sandbox.assert_nothing_left();
}

#[test]
fn arguments_from_a_pipe_are_begun_before_its_end() {
    let sandbox = Sandbox::new();
    let args = ["run", "-0", "--", "sh", "-c", "echo {} >> log"];
    let (mut run, mut list) = fed(&sandbox, &args);
    list.write_all(b"one\0two\0").expect("the pipe");
    until_log_has(&sandbox, &mut run, 2);
    list.write_all(b"three").expect("the pipe");
    drop(list);
    run.finish().code(0);
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["one", "three", "two"]);
}

#[test]
fn a_bad_line_in_a_pipe_ends_the_reading_and_what_came_before_is_run() {
    let sandbox = Sandbox::new();
    let (mut run, mut list) = fed(&sandbox, &["run", "-w", "1"]);
    list.write_all(b"echo one >> log\n").expect("the pipe");
    until_log_has(&sandbox, &mut run, 1);
    list.write_all(b"echo \0\necho never >> log\n")
        .expect("the pipe");
    drop(list);
    run.finish()
        .code(2)
        .says(&["line 2", "NUL", "read no further"]);
    assert_eq!(sandbox.lines("log"), ["one"]);
}

#[test]
fn a_killed_run_of_a_pipe_is_resumed_without_the_pipe() {
    let sandbox = Sandbox::new();
    let (mut run, mut list) = fed(&sandbox, &["run", "-w", "1", "--state-dir", "kept"]);
    list.write_all(b"echo one >> log\n").expect("the pipe");
    until_log_has(&sandbox, &mut run, 1);
    list.write_all(b"test -e go || sleep 600; echo two >> log\necho three >> log\n")
        .expect("the pipe");
    let kept = sandbox.path("kept");
    run.until("the rest of the list to be accepted", || {
        let notes = std::fs::read_to_string(kept.join("run.tasks")).unwrap_or_default();
        let tasks = sandbox
            .run(["tasks", "--state-dir", "kept", "--json"])
            .out();
        // Where the end of a task is not stored yet, a kill repeats it.
        if notes.lines().count() >= 2 && tasks.contains("\"completed\"") {
            Ok(())
        } else {
            Err(notes)
        }
    });
    run.kill();
    sandbox.file("go", "");
    let resumed = sandbox
        .run(["run", "--state-dir", "kept", "--json"])
        .code(0);
    let summary = resumed.json();
    assert_eq!(summary["tasks"]["completed"], 3, "{summary:#}");
    // What was running is begun again after its loss was recorded, and others may be faster.
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["one", "three", "two"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_run_that_is_killed_while_it_accepts_a_long_list_goes_on_with_the_same_command() {
    let sandbox = Sandbox::new();
    let count = 30_000;
    let mut list = "sleep 600\n".to_owned();
    list.extend((1..count).map(|number| format!("true {number}\n")));
    sandbox.file(
        "list.txt",
        list.replacen("sleep 600", "test -e go || sleep 600", 1),
    );
    let args = [
        "run",
        "list.txt",
        "-w",
        "1",
        "--state-dir",
        "kept",
        "--json",
    ];
    let mut run = sandbox.start(args);
    let kept = sandbox.path("kept");
    run.until("some of the list to be accepted", || {
        let notes = std::fs::read_to_string(kept.join("run.tasks")).unwrap_or_default();
        if notes.is_empty() { Err(notes) } else { Ok(()) }
    });
    run.kill();
    sandbox.file("go", "");
    let short: String = (1..50).map(|number| format!("true {number}\n")).collect();
    sandbox.file("list.txt", "test -e go || sleep 600\n".to_owned() + &short);
    let summary = sandbox.run(args).code(0).json();
    assert_eq!(summary["tasks"]["total"], 50, "{summary:#}");
    assert_eq!(summary["tasks"]["completed"], 50, "{summary:#}");
}

#[test]
fn data_on_standard_input_that_nobody_reads_is_said() {
    let sandbox = Sandbox::new();
    let (run, mut list) = fed(&sandbox, &["run", "--", "echo", "once"]);
    list.write_all(b"1\n2\n3\n").expect("the pipe");
    drop(list);
    let finished = run.finish().code(0).says(&["standard input", "{}"]);
    assert_eq!(finished.stdout, b"once\n");
    let (run, list) = fed(&sandbox, &["run", "--", "echo", "once"]);
    drop(list);
    let finished = run.finish().code(0);
    assert!(
        !finished.stderr.contains("standard input"),
        "{}",
        finished.stderr
    );
}

/// The tasks of lines after the first end and wait for their turn, then everything is killed.
#[track_caller]
fn killed_in_order(sandbox: &Sandbox, args: &[&str]) {
    sandbox.file(
        "list.txt",
        "test -e go || sleep 600; echo one\necho two; touch two\necho three; touch three\n",
    );
    let mut run =
        sandbox.start([&["run", "list.txt", "-w", "2", "--state-dir", "kept"], args].concat());
    let (two, three) = (sandbox.path("two"), sandbox.path("three"));
    let given = sandbox.path("kept").join("run.given");
    let store = || {
        let tasks = sandbox.run(["tasks", "--state-dir", "kept", "--json"]);
        String::from_utf8_lossy(&tasks.stdout)
            .matches("\"completed\"")
            .count()
    };
    run.until("two tasks to have ended", || {
        let record = std::fs::metadata(&given).map_or(0, |record| record.len());
        let written = args.contains(&"-k") || record >= 16;
        match two.exists() && three.exists() && store() >= 2 && written {
            true => Ok(()),
            false => Err(String::new()),
        }
    });
    run.kill();
    sandbox.file("go", "");
}

#[test]
fn outputs_that_waited_for_their_turn_when_a_run_was_killed_are_written_by_the_next() {
    let sandbox = Sandbox::new();
    killed_in_order(&sandbox, &["-k"]);
    let resumed = sandbox
        .run(["run", "list.txt", "-k", "--state-dir", "kept"])
        .code(0);
    assert_eq!(
        String::from_utf8_lossy(&resumed.stdout),
        "one\ntwo\nthree\n"
    );
    let again = sandbox
        .run(["run", "list.txt", "-k", "--state-dir", "kept"])
        .code(0);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "");
    sandbox.assert_nothing_left();
}

#[test]
fn outputs_that_were_written_before_a_run_was_killed_are_not_written_again() {
    let sandbox = Sandbox::new();
    for mode in [&[][..], &["--line-buffer"][..]] {
        let sandbox = match mode {
            [] => &sandbox,
            _ => &Sandbox::new(),
        };
        killed_in_order(sandbox, mode);
        let args = [
            &["run", "list.txt", "--joblog", "jobs", "--state-dir", "kept"],
            mode,
        ]
        .concat();
        let resumed = sandbox.run(args).code(0);
        assert_eq!(
            String::from_utf8_lossy(&resumed.stdout),
            "one\n",
            "{mode:?}"
        );
        assert_eq!(sandbox.lines("jobs").len(), 4, "{}", sandbox.text("jobs"));
    }
}
