//! A run that ends before all of its tasks have, and how much of it runs at a time.

use crate::support::Sandbox;

/// A long list after these lines; each task of it notes that it ran.
fn list(sandbox: &Sandbox, first: &str) {
    let rest = "echo x >> log; sleep 0.02\n".repeat(300);
    sandbox.file("list.txt", format!("{first}\n{rest}"));
}

#[test]
fn the_first_failure_ends_a_run_that_is_to_fail_fast() {
    let sandbox = Sandbox::new();
    for words in [&["--fail-fast"][..], &["--halt", "now,fail=1"]] {
        list(&sandbox, "false\nsleep 600");
        let call = ["run", "list.txt", "--workers", "2", "--state-dir", "kept"];
        let ran = sandbox.run([&call, words].concat());
        ran.code(1)
            .says(&["--fail-fast: cancelling", "--retry-failed"]);
        assert!(sandbox.lines("log").len() < 300);
        std::fs::remove_dir_all(sandbox.path("kept")).unwrap();
    }
}

#[test]
fn with_one_worker_the_line_after_the_failure_never_begins() {
    for rule in [
        &["--fail-fast"][..],
        &["--halt", "soon,fail=1"],
        &["--halt", "now,done=2"],
    ] {
        let sandbox = Sandbox::new();
        std::fs::write(
            sandbox.path("list.txt"),
            "true\nfalse\ntouch begun\ntouch begun\n",
        )
        .unwrap();
        let call = [&["run", "list.txt", "--workers", "1"], rule].concat();
        sandbox.run(call).code(1);
        assert!(!sandbox.path("begun").exists(), "{rule:?}");
    }
}

#[test]
fn a_soft_halt_lets_running_tasks_end_and_begins_none() {
    let sandbox = Sandbox::new();
    let slow =
        "touch slow; while ! test -e failed; do sleep 0.02; done; sleep 0.5; echo end >> slow";
    let fails = "while ! test -e slow; do sleep 0.02; done; touch failed; exit 1";
    list(&sandbox, &format!("{slow}\n{fails}"));
    let call = [
        "run",
        "list.txt",
        "--workers",
        "2",
        "--halt",
        "soon,fail=1",
        "--json",
    ];
    let ran = sandbox.run(call).code(1);
    assert_eq!(sandbox.lines("slow"), ["end"], "it was not let end");
    let summary = ran.json();
    assert_eq!(summary["tasks"]["failed"], 1);
    assert_eq!(summary["tasks"]["unfinished"], 0);
    let cancelled = summary["tasks"]["cancelled"].as_u64().unwrap();
    let ran_too = sandbox.lines("log").len() as u64;
    assert_eq!(cancelled + ran_too, 300);
    // What was in the hands of a worker already may still run; nothing else does.
    assert!(ran_too < 150, "{ran_too} tasks began");
    ran.says(&["--halt soon,fail=1: cancelling"]);
}

#[test]
fn what_was_cancelled_by_a_halt_is_run_by_the_next_start_when_asked() {
    let sandbox = Sandbox::new();
    list(&sandbox, "test -e mended");
    let start = |more: &[&str]| {
        let call = ["run", "list.txt", "--state-dir", "kept", "--workers", "2"];
        sandbox.run([&call, more].concat())
    };
    start(&["--halt", "soon,fail=1"]).code(1);
    sandbox.file("mended", "");
    start(&["--halt", "soon,fail=1", "--retry-failed"]).code(0);
    assert_eq!(sandbox.lines("log").len(), 300);
}

#[test]
fn a_share_of_failures_ends_a_run_and_less_does_not() {
    let sandbox = Sandbox::new();
    sandbox.file("few.txt", "false\ntrue\ntrue\ntrue\n");
    let halted = |list: &str, rule: &str| {
        let ran = sandbox.run(["run", list, "--halt", rule]).code(1);
        ran.stderr.contains("cancelling")
    };
    assert!(!halted("few.txt", "soon,fail=50%"));
    sandbox.file(
        "many.txt",
        format!("{}sleep 600\nsleep 600\n", "false\n".repeat(2)),
    );
    assert!(halted("many.txt", "now,fail=50%"));
}

#[test]
fn enough_successes_are_what_was_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "sleep 600\nfalse\necho found\nsleep 600\n");
    let call = [
        "run",
        "list.txt",
        "--workers",
        "2",
        "--halt",
        "now,success=1",
    ];
    let ran = sandbox.run(call).code(0);
    assert_eq!(ran.out(), "found\n");
}

#[test]
fn rules_that_make_no_sense_are_refused_in_words() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "touch ran\n");
    for (words, said) in [
        (&["--halt", "never"][..], "has no comma"),
        (&["--halt", "now,fail=0"], "N is 1 or more"),
        (&["--halt", "now,fail=101%"], "between 1% and 100%"),
        (&["--halt", "later,fail=1"], "neither now nor soon"),
        (
            &["--halt", "now,fail=1", "--fail-fast"],
            "cannot be used with",
        ),
        (&["--max-parallel", "0"], "0 is not in 1.."),
        (&["--retry-delay", "soon"], "not a duration"),
    ] {
        let call = [&["run", "list.txt"], words].concat();
        sandbox.run(call).code(2).says(&[said]);
    }
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn fewer_tasks_run_at_a_time_than_there_could_be_workers() {
    let sandbox = Sandbox::new();
    let task = "mkdir alone || touch crowd; sleep 0.05; rmdir alone\n";
    sandbox.file("list.txt", task.repeat(10));
    let call = [
        "run",
        "list.txt",
        "--workers",
        "8",
        "--max-parallel",
        "1",
        "--json",
    ];
    let summary = sandbox.run(call).code(0).json();
    assert!(
        !sandbox.path("crowd").exists(),
        "two tasks ran at the same time"
    );
    assert_eq!(summary["workers"], 1);
}

#[test]
fn a_failed_task_is_tried_again_after_the_pause_that_was_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "date +%s%N >> log; test $(wc -l < log) -ge 3\n");
    let call = [
        "run",
        "list.txt",
        "--retries",
        "3",
        "--retry-delay",
        "200ms",
    ];
    sandbox.run(call).code(0);
    let times: Vec<u64> = sandbox
        .lines("log")
        .iter()
        .map(|time| time.parse().expect("nanoseconds"))
        .collect();
    assert_eq!(times.len(), 3);
    // Up to a quarter of a pause is left out at random; it doubles each time.
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses[0] >= 150_000_000 && pauses[1] >= 300_000_000,
        "{pauses:?}"
    );
}
