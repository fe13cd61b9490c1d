//! Interrupting a run and starting it again on its state directory: only the rest is run, nothing twice.

use rustix::process::Signal;

use crate::support::{Sandbox, tasks};

/// A list of which each task notes its number when it has run.
fn list(sandbox: &Sandbox, count: usize) {
    let line = |n| format!("sleep 0.02; echo {n} >> log\n");
    sandbox.file("list.txt", (0..count).map(line).collect::<String>());
}

/// Starts the list and waits until some of it has run.
#[track_caller]
fn half_way<'s>(sandbox: &'s Sandbox, args: &[&str]) -> crate::support::Running<'s> {
    let mut run = sandbox.start([&["run", "--state-dir", "kept", "--workers", "2"], args].concat());
    run.until("some tasks to have run", || {
        let done = sandbox.lines("log").len();
        if done >= 20 {
            Ok(())
        } else {
            Err(format!("{done} have"))
        }
    });
    run
}

#[track_caller]
fn assert_each_ran_once(sandbox: &Sandbox, count: usize) {
    let mut log: Vec<usize> = sandbox
        .lines("log")
        .iter()
        .map(|n| n.parse().expect("a number"))
        .collect();
    log.sort_unstable();
    assert_eq!(log, (0..count).collect::<Vec<_>>());
}

#[test]
fn after_one_interrupt_a_run_ends_cleanly_and_its_next_start_runs_the_rest() {
    let sandbox = Sandbox::new();
    list(&sandbox, 200);
    let run = half_way(&sandbox, &["list.txt"]);
    run.signal(Signal::INT);
    run.finish().code(130).says(&["--state-dir", "kept"]);
    let done = sandbox.lines("log").len();
    assert!((20..200).contains(&done), "{done}");
    sandbox.assert_nothing_left();
    let again = ["run", "list.txt", "--state-dir", "kept", "--json"];
    let summary = sandbox.run(again).code(0).json();
    assert_eq!(summary["tasks"]["completed"], 200, "{summary:#}");
    assert_eq!(summary["tasks"]["earlier"], done, "{summary:#}");
    assert_each_ran_once(&sandbox, 200);
    assert_eq!(
        tasks::assert_all_completed(&sandbox, &sandbox.path("kept"), 200),
        0
    );
    // A third start has nothing to do.
    sandbox
        .run(["run", "list.txt", "--state-dir", "kept"])
        .code(0);
    assert_each_ran_once(&sandbox, 200);
}

#[test]
fn without_a_file_a_run_resumes_what_its_directory_holds() {
    let sandbox = Sandbox::new();
    list(&sandbox, 100);
    let run = half_way(&sandbox, &["list.txt"]);
    run.stop().code(130);
    sandbox.run(["run", "--state-dir", "kept"]).code(0);
    assert_each_ran_once(&sandbox, 100);
}

#[test]
fn a_second_interrupt_ends_everything_at_once() {
    let sandbox = Sandbox::new();
    // The first interrupt alone would wait for this task's deadline, and TERM alone for its grace.
    let script = "trap '' TERM; echo $$ >> log; while :; do sleep 0.05; done";
    sandbox.file("list.txt", script);
    let mut run = sandbox.start(["run", "list.txt", "--state-dir", "kept"]);
    run.until("the task to run", || {
        let begun = !sandbox.lines("log").is_empty();
        begun.then_some(()).ok_or_else(String::new)
    });
    run.signal(Signal::INT);
    run.until("the first interrupt to be answered", || {
        let text = sandbox.all_stderr();
        text.contains("interrupt again").then_some(()).ok_or(text)
    });
    let answered = std::time::Instant::now();
    run.until("signals to be two wishes and not one", || {
        let apart = answered.elapsed() > std::time::Duration::from_millis(50);
        apart.then_some(()).ok_or_else(String::new)
    });
    let began = std::time::Instant::now();
    run.signal(Signal::INT);
    run.finish().code(130);
    assert!(began.elapsed().as_secs() < 5, "took {:?}", began.elapsed());
    sandbox.assert_nothing_left();
}

#[test]
fn a_changed_line_is_a_new_task_and_the_others_stay() {
    let sandbox = Sandbox::new();
    let start = |content: &str| {
        sandbox.file("list.txt", content);
        sandbox
            .run(["run", "list.txt", "--state-dir", "kept"])
            .code(0);
    };
    start("echo a >> log\necho b >> log\necho b >> log\n");
    start("echo b >> log\necho a >> log\necho c >> log\necho b >> log\n");
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["a", "b", "b", "c"]);
    // A third `b` is one more occurrence.
    start("echo b >> log\necho b >> log\necho b >> log\n");
    assert_eq!(sandbox.lines("log").len(), 5);
}

#[test]
fn failed_tasks_run_again_only_when_asked() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo x >> log; test -e mended\necho y >> log\n");
    let start =
        |more: &[&str]| sandbox.run([&["run", "list.txt", "--state-dir", "kept"], more].concat());
    start(&[]).code(1);
    start(&[]).code(1);
    assert_eq!(sandbox.lines("log").len(), 2, "a failed task is terminal");
    let again = sandbox.run(["run", "--state-dir", "kept", "--retry-failed"]);
    again.code(1).says(&["failed: line 1", "test -e mended"]);
    sandbox.file("mended", "");
    start(&["--retry-failed"]).code(0);
    start(&[]).code(0);
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["x", "x", "x", "y"]);
}

#[test]
fn a_killed_run_leaves_nothing_running_and_resumes() {
    let sandbox = Sandbox::new();
    list(&sandbox, 200);
    half_way(&sandbox, &["list.txt"]).kill();
    // With the manager gone its workers end their tasks at once.
    crate::support::wait::until("the workers to be gone", crate::support::wait::LONG, || {
        let left = sandbox.processes();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    });
    sandbox
        .run(["run", "list.txt", "--state-dir", "kept"])
        .code(0);
    // Two tasks at most were running when the kill came; they ran again, with a cause.
    let again = tasks::assert_all_completed(&sandbox, &sandbox.path("kept"), 200);
    assert!(again <= 2, "{again} tasks were executed again");
    let mut log = sandbox.lines("log");
    log.sort();
    log.dedup();
    assert_eq!(log.len(), 200);
}
