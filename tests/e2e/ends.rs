//! Ways in which a task ends, each between two neighbours that must not notice: DESIGN's states and reasons.

use serde_json::{Value, json};

use crate::support::{Sandbox, Task, tasks};

/// Runs a task between two that complete, and returns what is known about it.
#[track_caller]
pub(crate) fn ended(sandbox: &Sandbox, spec: &Value) -> Task {
    let before = json!({"args": ["echo", "before"]});
    let after = json!({"args": ["echo", "after"]});
    let list = [&before, spec, &after].map(Value::to_string).join("\n");
    sandbox.file("list.jsonl", list);
    let call = [
        "run",
        "list.jsonl",
        "--output-dir",
        "out",
        "--state-dir",
        "kept",
    ];
    let ran = sandbox.run(call);
    assert_eq!(sandbox.text("out/1.out"), "before\n");
    assert_eq!(sandbox.text("out/3.out"), "after\n");
    let all = tasks::list(sandbox, &sandbox.path("kept"));
    let [first, task, third] = &all[..] else {
        panic!("not three tasks: {all:?}");
    };
    assert_eq!([first.state(), third.state()], ["completed", "completed"]);
    ran.code(if task.state() == "completed" { 0 } else { 1 });
    tasks::show(sandbox, &sandbox.path("kept"), &task.uuid())
}

#[track_caller]
pub(crate) fn check(task: &Task, state: &str, reason: &str) {
    let found = (task.state(), task.reason());
    assert_eq!(found, (state.to_owned(), reason.to_owned()), "{:#}", task.0);
    assert_eq!(task.text("/result/reason"), reason, "{:#}", task.0);
}

/// Wall time of the execution in seconds.
fn seconds(task: &Task) -> f64 {
    let at = |pointer| task.number(pointer).expect("a time") as f64;
    (at("/result/ended_at_us") - at("/result/started_at_us")) / 1e6
}

#[test]
fn a_task_with_a_bad_exit_code_has_failed() {
    let sandbox = Sandbox::new();
    let task = ended(
        &sandbox,
        &json!({"args": ["sh", "-c", "echo why >&2; exit 3"]}),
    );
    check(&task, "failed", "exit");
    assert_eq!(task.number("/result/exit_code"), Some(3));
    assert_eq!(task.text("/result/stderr/tail"), "why\n");
    assert_eq!(sandbox.text("out/2.err"), "why\n");
}

#[test]
fn a_task_that_a_signal_ends_has_failed_with_its_number() {
    let sandbox = Sandbox::new();
    let task = ended(&sandbox, &json!({"args": ["sh", "-c", "kill -SEGV $$"]}));
    check(&task, "failed", "signal");
    assert_eq!(task.number("/result/signal"), Some(11));
    assert_eq!(task.number("/result/exit_code"), None);
}

#[test]
fn a_task_beyond_its_time_limit_is_asked_to_end_and_has_failed() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";
    let task = ended(
        &sandbox,
        &json!({"args": ["sh", "-c", script], "timeout": "500ms"}),
    );
    check(&task, "failed", "timeout");
    assert_eq!(sandbox.text("out/2.out"), "asked\n");
    assert!(seconds(&task) >= 0.5, "{}", seconds(&task));
}

#[test]
fn a_task_that_ignores_term_is_killed_with_its_grandchildren() {
    let sandbox = Sandbox::new();
    // One grandchild in the group, one in a session of its own, one with its parent gone.
    let script = "trap '' TERM; sleep 1001 & setsid sleep 1002 & (setsid sleep 1003 &) & echo up; sleep 1004";
    let spec = json!({"args": ["sh", "-c", script], "timeout": "1s", "grace": "1s"});
    let task = ended(&sandbox, &spec);
    check(&task, "failed", "timeout");
    assert_eq!(task.number("/result/signal"), Some(9), "{:#}", task.0);
    assert_eq!(sandbox.text("out/2.out"), "up\n");
    let took = seconds(&task);
    assert!((2.0..1.0 + 1.0 + 2.0).contains(&took), "took {took} s");
    sandbox.assert_nothing_left();
}

#[test]
fn what_a_completed_task_leaves_behind_is_ended() {
    let sandbox = Sandbox::new();
    let script = "setsid sleep 1001 & sleep 1002 & echo done";
    let task = ended(&sandbox, &json!({"args": ["sh", "-c", script]}));
    check(&task, "completed", "exit");
    sandbox.assert_nothing_left();
}

#[test]
fn fifty_megabytes_of_output_are_cut_in_the_middle() {
    let sandbox = Sandbox::new();
    let script = "echo first; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last";
    let spec = json!({"args": ["sh", "-c", script], "capture": {"limit_bytes": 16 << 20}});
    let task = ended(&sandbox, &spec);
    check(&task, "completed", "exit");
    assert_eq!(
        task.number("/result/stdout/bytes"),
        Some(50_000_012),
        "{:#}",
        task.0
    );
    assert_eq!(task.0["result"]["stdout"]["truncated"], true);
    let kept = std::fs::read(sandbox.path("out/2.out")).unwrap();
    assert_eq!(kept.len(), 16 << 20);
    assert!(kept.starts_with(b"first\nxxx") && kept.ends_with(b"xxx\nlast\n"));
}

#[test]
fn output_that_is_not_text_is_kept_byte_by_byte() {
    let sandbox = Sandbox::new();
    let task = ended(
        &sandbox,
        &json!({"args": ["printf", "\\377\\376 \\000 ok\\n"]}),
    );
    check(&task, "completed", "exit");
    let kept = std::fs::read(sandbox.path("out/2.out")).unwrap();
    assert_eq!(kept, b"\xff\xfe \0 ok\n");
    assert!(task.text("/result/stdout/tail").ends_with(" ok\n"));
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let sandbox = Sandbox::new();
    let task = ended(&sandbox, &json!({"args": ["no-such-program-at-all", "x"]}));
    check(&task, "failed", "spawn_failed");
    let message = task.text("/result/message");
    assert!(message.contains("no-such-program-at-all"), "{message}");
    assert_eq!(task.number("/result/started_at_us"), None);
}

#[test]
fn a_file_that_is_not_executable_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("data", "no program");
    let task = ended(&sandbox, &json!({"args": [file.to_str().unwrap()]}));
    check(&task, "failed", "spawn_failed");
    let message = task.text("/result/message");
    assert!(message.contains("data"), "{message}");
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let sandbox = Sandbox::new();
    let task = ended(&sandbox, &json!({"args": ["pwd"], "cwd": "/no/such/place"}));
    check(&task, "failed", "spawn_failed");
    let message = task.text("/result/message");
    assert!(message.contains("/no/such/place"), "{message}");
}

#[test]
fn a_failed_task_is_tried_again_as_often_as_asked() {
    let sandbox = Sandbox::new();
    let script = "echo $MITO_ATTEMPT >> tries; [ $MITO_ATTEMPT -ge 3 ]";
    let backoff = json!({"initial": "10ms", "max": "20ms"});
    let spec = json!({"args": ["sh", "-c", script], "max_attempts": 3, "backoff": backoff});
    let task = ended(&sandbox, &spec);
    check(&task, "completed", "exit");
    assert_eq!(task.attempts(), 3);
    assert_eq!(sandbox.lines("tries"), ["1", "2", "3"]);
    let history = task.0["history"].as_array().expect("a history").clone();
    let ends: Vec<&str> = history
        .iter()
        .filter_map(|one| one["end"].as_str())
        .collect();
    assert_eq!(ends.len(), 3, "{history:?}");
    assert!(
        ends[..2].iter().all(|end| end.starts_with("failed")),
        "{ends:?}"
    );
}

#[test]
fn the_option_for_retries_counts_repetitions() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo x >> tries; false\n");
    sandbox.run(["run", "list.txt", "--retries", "1"]).code(1);
    assert_eq!(sandbox.lines("tries").len(), 2);
}

#[test]
fn the_option_for_a_time_limit_holds_for_every_task() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "sleep 1000\necho quick\nsleep 1000\n");
    let call = [
        "run",
        "list.txt",
        "--timeout",
        "1s",
        "--output-dir",
        "out",
        "--json",
    ];
    let summary = sandbox.run(call).code(1).json();
    assert_eq!(summary["tasks"]["completed"], 1);
    let reasons: Vec<&str> = (0..2)
        .filter_map(|n| summary["failures"][n]["reason"].as_str())
        .collect();
    assert_eq!(reasons, ["timeout", "timeout"]);
}

#[test]
fn fail_fast_cancels_what_has_not_ended_at_the_first_failure() {
    let sandbox = Sandbox::new();
    let mut lines = vec!["echo x >> begun".to_owned(), "false".to_owned()];
    lines.extend((0..200).map(|_| "echo x >> begun; sleep 0.05".to_owned()));
    sandbox.file("list.txt", lines.join("\n"));
    let call = ["run", "list.txt", "--fail-fast", "--workers", "1", "--json"];
    let summary = sandbox.run(call).code(1).json();
    assert_eq!(summary["tasks"]["failed"], 1, "{summary:#}");
    assert!(
        summary["tasks"]["cancelled"].as_u64() > Some(100),
        "{summary:#}"
    );
    assert_eq!(summary["tasks"]["unfinished"], 0, "{summary:#}");
    assert!(
        sandbox.lines("begun").len() < 100,
        "it went on for too long"
    );
}
