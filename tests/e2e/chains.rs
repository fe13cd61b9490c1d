//! Tasks that wait for others: what runs when, what does not run, and that a graph survives what its tasks survive.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Sandbox, Service, wait};

/// A task that notes its name when it runs.
fn task(name: &str, exit: i32, upstream: &Value) -> String {
    let line = format!("echo {name} >> log; exit {exit}");
    format!(
        "{}\n",
        json!({"id": name, "args": [line], "shell": true, "upstream": upstream})
    )
}

/// `build`, `test` after it, `rescue` should it fail, and `report` after both, however they end.
fn graph(sandbox: &Sandbox, build_exit: i32) {
    let wants = |task: &str, when: &str| json!({"task": task, "when": when});
    let tasks = [
        task(
            "report",
            0,
            &json!([wants("test", "any"), wants("rescue", "any")]),
        ),
        task("rescue", 0, &json!([wants("build", "failed")])),
        task("test", 0, &json!(["build"])),
        task("build", build_exit, &json!([])),
    ];
    sandbox.file("graph.jsonl", tasks.concat());
}

#[test]
fn a_graph_runs_in_its_order_and_what_is_not_needed_is_no_failure() {
    let sandbox = Sandbox::new();
    graph(&sandbox, 0);
    let run = sandbox.run(["run", "--json", "graph.jsonl"]).code(0);
    assert_eq!(sandbox.lines("log"), ["build", "test", "report"]);
    let tasks = &run.json()["tasks"];
    assert_eq!(
        (&tasks["completed"], &tasks["skipped"]),
        (&json!(3), &json!(1))
    );
}

#[test]
fn after_a_failure_runs_what_waits_for_one_and_a_retry_repeats_the_graph() {
    let sandbox = Sandbox::new();
    sandbox.file("broken", "");
    let build = "test ! -e broken && echo build >> log";
    let line = |id: &str, line: &str, upstream: Value| {
        json!({"id": id, "args": [line], "shell": true, "upstream": upstream}).to_string() + "\n"
    };
    let tasks = [
        line("test", "echo test >> log", json!(["build"])),
        line("deploy", "echo deploy >> log", json!(["test"])),
        line(
            "rescue",
            "echo rescue >> log",
            json!([{"task": "build", "when": "failed"}]),
        ),
        line(
            "always",
            "echo always >> log",
            json!([{"task": "deploy", "when": "any"}]),
        ),
        line("build", build, json!([])),
    ];
    sandbox.file("graph.jsonl", tasks.concat());
    let run = ["run", "--state-dir", "kept", "--workers", "1"];
    let failed = sandbox.run([&run[..], &["graph.jsonl"]].concat()).code(1);
    failed.says(&[
        "its upstream task `build` failed",
        "its upstream task `test` failed",
    ]);
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["always", "rescue"]);
    std::fs::remove_file(sandbox.path("broken")).unwrap();
    sandbox
        .run([&run[..], &["--retry-failed"]].concat())
        .code(0);
    assert_eq!(sandbox.lines("log")[2..], ["build", "test", "deploy"]);
}

#[test]
fn an_interrupted_graph_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let slow = json!({"id": "slow", "args": ["echo slow >> log; while [ ! -e go ]; do sleep 0.02; done"],
        "shell": true});
    let tasks = format!(
        "{slow}\n{}{}",
        task("next", 0, &json!(["slow"])),
        task("last", 0, &json!(["next"])),
    );
    sandbox.file("graph.jsonl", tasks);
    let run = ["run", "--state-dir", "kept", "graph.jsonl"];
    let mut first = sandbox.start(run);
    first.until("the first task to run", || {
        let log = sandbox.lines("log");
        (log == ["slow"])
            .then_some(())
            .ok_or_else(|| format!("{log:?}"))
    });
    first.kill();
    sandbox.file("go", "");
    sandbox.run(["run", "--state-dir", "kept"]).code(0);
    assert_eq!(sandbox.lines("log"), ["slow", "slow", "next", "last"]);
}

#[test]
fn a_chain_survives_the_death_of_its_coordinator_between_any_two_tasks() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let line = |n: usize| {
        let upstream = if n == 0 {
            json!([])
        } else {
            json!([format!("t{}", n - 1)])
        };
        let script = format!("echo {n} >> {}; sleep 0.05", log.display());
        json!({"id": format!("t{n}"), "args": [script], "shell": true, "upstream": upstream})
            .to_string()
            + "\n"
    };
    sandbox.file("chain.jsonl", (0..30).map(line).collect::<String>());
    let mut service = Service::coordinator(&sandbox);
    let mut manager = service.manager(2, &[]);
    service.submit_file(&sandbox.path("chain.jsonl"));
    for done in [5, 15] {
        manager.until("some of the chain to run", || {
            let lines = sandbox.lines("log").len();
            (lines >= done)
                .then_some(())
                .ok_or_else(|| format!("{lines} have"))
        });
        service = service.kill_and_restart();
    }
    let tasks = service.until_all_ended();
    assert!(tasks.iter().all(|task| task.state() == "completed"));
    let expected: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    assert_eq!(sandbox.lines("log"), expected);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_waiting_task_says_for_what_and_goes_with_a_cancelled_one() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let tasks = format!(
        "{}\n{}",
        json!({"id": "slow", "args": ["sleep", "600"]}),
        task("next", 0, &json!(["slow"]))
    );
    sandbox.file("chain.jsonl", tasks);
    let uuids = service.submit_file(&sandbox.path("chain.jsonl"));
    service.until_state(&uuids[0], "running");
    let shown = service.client(&["task", &uuids[1]]).code(0).out();
    assert!(shown.contains("slow (must complete; running)"), "{shown}");
    let listed = service.client(&["tasks"]).code(0).out();
    assert!(listed.contains("waits for 1 task"), "{listed}");
    service.client(&["cancel", "--now", &uuids[0]]).code(0);
    let next = service.until_state(&uuids[1], "cancelled");
    assert_eq!(next.reason(), "upstream_failed");
    service.stop().code(0);
}

#[test]
fn names_that_lead_nowhere_or_in_a_circle_are_refused_with_their_line() {
    let sandbox = Sandbox::new();
    for (tasks, words) in [
        (task("a", 0, &json!(["b"])), "line 1: `upstream` names `b`"),
        (task("a", 0, &json!(["a"])), "this task itself"),
        (
            task("a", 0, &json!(["b"])) + &task("b", 0, &json!(["a"])),
            "in a circle: a -> b -> a",
        ),
    ] {
        sandbox.file("bad.jsonl", tasks);
        sandbox.run(["run", "bad.jsonl"]).code(2).says(&[words]);
    }
    assert!(!sandbox.path("log").exists());
}

/// A shell line that submits these lines.
fn submits(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("'{line}'")).collect();
    format!("printf '%s\\n' {} > $MITO_NEW_TASK", lines.join(" "))
}

#[test]
fn a_run_waits_for_what_its_tasks_submit_and_tells_what_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.file("nested.jsonl", "{\"args\":[\"true\"]}\n");
    let nested =
        "{\"args\":[\"sh\",\"-c\",\"echo nested >> log; cp nested.jsonl $MITO_NEW_TASK\"]}";
    let line = submits(&[
        "{\"id\":\"a\",\"args\":[\"sh\",\"-c\",\"echo a >> log\"]}",
        "{\"args\": [}",
        "{\"args\":[\"sh\",\"-c\",\"echo b >> log; echo out\"],\"upstream\":[\"a\"]}",
        nested,
    ]);
    sandbox.file("list.txt", format!("# the first line\n{line}\n"));
    let run = [
        "run",
        "--state-dir",
        "kept",
        "--output-dir",
        "out",
        "--json",
        "list.txt",
    ];
    let finished = sandbox.run(run).code(0).says(&[
        "line 2: 1 follow-up refused:",
        "line 2, column 11: expected value",
    ]);
    let tasks = &finished.json()["tasks"];
    assert_eq!(
        (&tasks["total"], &tasks["completed"], &tasks["follow_ups"]),
        (&json!(5), &json!(5), &json!(4))
    );
    let mut log = sandbox.lines("log");
    let place = |name: &str| log.iter().position(|line| line == name).unwrap();
    assert!(place("a") < place("b"));
    log.sort();
    assert_eq!(log, ["a", "b", "nested"]);
    assert_eq!(sandbox.text("out/2.2.out"), "out\n");
    // A second start knows them all.
    let again = sandbox.run(run).code(0).json();
    assert_eq!(
        (&again["tasks"]["total"], &again["tasks"]["earlier"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(sandbox.lines("log").len(), 3);
}

#[test]
fn follow_ups_of_a_killed_run_are_run_by_the_next_and_a_failed_one_is_repeated() {
    let sandbox = Sandbox::new();
    let line = submits(&[
        "{\"args\":[\"sh\",\"-c\",\"echo slow >> log; while [ ! -e go ]; do sleep 0.02; done\"]}",
        "{\"args\":[\"sh\",\"-c\",\"echo last >> log; test -e good\"]}",
    ]);
    sandbox.file("list.txt", line);
    let run = ["run", "--state-dir", "kept", "--workers", "1"];
    let mut first = sandbox.start([&run[..], &["list.txt"]].concat());
    first.until("the first follow-up to run", || {
        let log = sandbox.lines("log");
        (log == ["slow"])
            .then_some(())
            .ok_or_else(|| format!("{log:?}"))
    });
    first.kill();
    sandbox.file("go", "");
    sandbox.run(run).code(1);
    let mut log = sandbox.lines("log");
    log.sort();
    assert_eq!(log, ["last", "slow", "slow"]);
    sandbox.file("good", "");
    sandbox
        .run([&run[..], &["--retry-failed"]].concat())
        .code(0);
    assert_eq!(sandbox.lines("log")[3..], ["last"]);
}

#[test]
fn a_service_stores_follow_ups_of_managed_and_independent_workers() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let padding = "x".repeat(200_000);
    let big = format!("{{\"args\":[\"true\"],\"labels\":{{\"big\":\"{padding}\"}}}}");
    sandbox.file("big.jsonl", big.clone() + "\n" + &big + "\n");
    let line = format!(
        "cat {} > $MITO_NEW_TASK",
        sandbox.path("big.jsonl").display()
    );
    let submitted = service.submit(&line);
    let manager = service.manager(1, &[]);
    assert_eq!(service.until_all_ended().len(), 3);
    manager.stop().code(0);
    let worker = service.worker();
    let second = service.submit(&line);
    assert_eq!(service.until_all_ended().len(), 6);
    for uuid in [submitted, second] {
        let task = service.task(&uuid);
        assert_eq!(task.number("/result/follow_ups/accepted"), Some(2));
        let children = service.tasks();
        let own = children
            .iter()
            .filter(|task| task.text("/follow_up_of") == uuid);
        assert_eq!(own.count(), 2);
    }
    worker.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_paused_service_begins_nothing_and_failed_tasks_are_repeated_together() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    service.client(&["pause"]).code(0);
    let log = sandbox.path("log");
    let good = sandbox.path("good");
    let line = |id: &str, script: String, upstream: Value| {
        json!({"id": id, "args": [script], "shell": true, "upstream": upstream}).to_string() + "\n"
    };
    let tasks = [
        line(
            "next",
            format!("echo next >> {}", log.display()),
            json!(["first"]),
        ),
        line("first", format!("test -e {}", good.display()), json!([])),
    ];
    sandbox.file("chain.jsonl", tasks.concat());
    let uuids = service.submit_file(&sandbox.path("chain.jsonl"));
    let held = || {
        let state = service.task(&uuids[1]).state();
        (state == "ready").then_some(()).ok_or(state)
    };
    wait::holds("the pause", Duration::from_secs(1), held);
    service.client(&["resume"]).code(0);
    service.until_all_ended();
    assert_eq!(service.task(&uuids[0]).reason(), "upstream_failed");
    sandbox.file("good", "");
    let new = service.client(&["retry", "--failed"]).code(0).out();
    assert_eq!(new.lines().count(), 2);
    service.until_all_ended();
    assert_eq!(sandbox.lines("log"), ["next"]);
    // Nothing is left that has not been repeated.
    assert_eq!(service.client(&["retry", "--failed"]).code(0).out(), "");
    service.stop().code(0);
}

#[test]
fn a_drained_manager_ends_what_runs_and_leaves() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let log = sandbox.path("log");
    let running = service.submit(&format!("sleep 0.5; echo ended >> {}", log.display()));
    let waiting = service.submit("true");
    service.until_state(&running, "running");
    service.client(&["drain"]).code(0);
    manager.finish().code(0);
    assert_eq!(sandbox.lines("log"), ["ended"]);
    assert_eq!(service.task(&running).state(), "completed");
    assert_eq!(service.task(&waiting).state(), "ready");
    service.stop().code(0);
}
