//! Tasks that wait for others: what runs when, what does not run, and that a graph survives what its tasks survive.

use serde_json::{Value, json};

use crate::support::{Sandbox, Service};

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
