//! Waiting for tasks of a service: over restarts of the coordinator, with a time limit, after a retry; and how tasks and
//! suites are named.

use serde_json::json;

use crate::support::{Running, Sandbox, Service, wait};

/// A shell line that ends when a file of this name is there.
fn until_there(sandbox: &Sandbox, name: &str) -> String {
    let gate = sandbox.path(name);
    format!("until [ -e {} ]; do sleep 0.05; done", gate.display())
}

/// Waits until commands have found their service and had the time to ask it.
#[track_caller]
fn until_waiting(service: &Service<'_>, commands: &[Running<'_>]) {
    for command in commands {
        wait::until("a connection", wait::LONG, || {
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", command.pid()));
            let targets = descriptors.into_iter().flatten().flatten();
            let is_socket = |path: std::path::PathBuf| {
                let target = std::fs::read_link(path).unwrap_or_default();
                target.to_string_lossy().starts_with("socket:")
            };
            let found = targets.map(|entry| entry.path()).any(is_socket);
            found.then_some(()).ok_or_else(|| command.stderr())
        });
    }
    service.client(&["wait", "--timeout", "500ms"]).code(4);
}

#[test]
fn a_wait_rides_over_a_restart_of_its_coordinator() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let line = until_there(&sandbox, "go");
    let uuid = service.submit(&line);
    service.until_state(&uuid, "running");
    let mut waits: Vec<Running<'_>> = [
        &["wait", &uuid][..],
        &["wait", "--suite", "unnamed"],
        &["submit", "--wait", "--", "true"],
        &["logs", "-f", &uuid],
    ]
    .into_iter()
    .map(|call| service.begin(call))
    .collect();
    waits[2].until_says("accepted");
    until_waiting(&service, &waits);
    let killed = service.kill();
    for wait in &mut waits[..3] {
        wait.until_says("trying again");
    }
    let service = killed.restart();
    sandbox.file("go", "");
    for wait in waits {
        wait.finish().code(0);
    }
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_wait_finds_a_service_that_came_back_at_another_address() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit(&until_there(&sandbox, "go"));
    service.until_state(&uuid, "running");
    let mut wait = service.begin(&["wait", &uuid]);
    until_waiting(&service, std::slice::from_ref(&wait));
    let killed = service.kill();
    wait.until_says("trying again");
    sandbox.file("go", "");
    let service = killed.restart_elsewhere();
    let waited = wait.finish().code(0);
    waited.says(&["answers again", "1 completed"]);
    service.stop().code(0);
}

#[test]
fn without_patience_a_wait_ends_with_its_coordinator() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let uuid = service.submit("true");
    let wait = service.begin(&["wait", "--reconnect", "0s", &uuid]);
    let other = service.begin(&["logs", "-f", "--reconnect", "0s", &uuid]);
    until_waiting(&service, &[]);
    let killed = service.kill();
    wait.finish().code(3);
    other.finish().code(3);
    killed.restart().stop().code(0);
}

#[test]
fn a_time_limit_of_a_wait_is_no_failure_of_a_task() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit(&until_there(&sandbox, "go"));
    service
        .client(&["wait", "--timeout", "50ms", &uuid])
        .code(4)
        .says(&["the time is over"]);
    let whole = service
        .client(&["wait", "--json", "--timeout", "50ms", "--suite", "unnamed"])
        .code(4);
    assert_eq!(whole.json()["done"], false);
    sandbox.file("go", "");
    service.client(&["wait", "--timeout", "1h", &uuid]).code(0);
    service.stop().code(0);
}

#[test]
fn a_bare_wait_waits_for_all_that_has_not_ended() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let old = service.submit("exit 3");
    service.until_state(&old, "failed");
    service.client(&["wait"]).code(0).says(&["no tasks"]);
    let line = until_there(&sandbox, "go");
    service.submit(&line);
    service.submit(&format!("{line}; exit 1"));
    let wait = service.begin(&["wait", "--json"]);
    service
        .client(&["wait", "--timeout", "200ms"])
        .code(4)
        .says(&["2 "]);
    sandbox.file("go", "");
    let waited = wait.finish().code(1);
    assert_eq!(
        waited.json()["counts"],
        json!({"completed": 1, "failed": 1})
    );
    service.stop().code(0);
}

#[test]
fn a_task_that_was_repeated_counts_by_its_last_life() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let list = sandbox.file("list", "[ -e good ]\n[ -e good ]\ntrue\n");
    let list = list.to_str().unwrap();
    let submit = ["submit", "--quiet", "--name", "sweep", list];
    let uuids = service.client(&submit).code(0).out();
    let first = uuids.lines().next().unwrap().to_owned();
    service.client(&["wait", "--suite", "sweep"]).code(1);
    let again = service.client(&["retry", "--suite", "sweep"]).code(0);
    assert_eq!(again.out().lines().count(), 2);
    service.client(&["wait", "--suite", "sweep"]).code(1);
    sandbox.file("good", "");
    service.client(&["retry", "--suite", "sweep"]).code(0);
    service.client(&["wait", "--suite", "sweep"]).code(0);
    let whole = service.client(&["wait", "--json", "--suite", "sweep"]);
    assert_eq!(whole.code(0).json()["counts"], json!({"completed": 3}));
    let suites = service.client(&["suites", "--json"]).code(0).json();
    assert_eq!(suites["suites"][0]["counts"], json!({"completed": 3}));
    // Also where the first life is named, beside the last.
    let named = service.client(&["wait", "--json", &first, "1-7"]).code(0);
    assert_eq!(named.json()["counts"], json!({"completed": 3}));
    service.stop().code(0);
}

#[test]
fn suites_are_named_by_uuid_name_and_beginning_everywhere() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let submit = |name: &str| {
        let call = ["submit", "--json", "--name", name, "--", "false"];
        let answer = service.client(&call).code(0).json();
        answer["suite"].as_str().unwrap().to_owned()
    };
    let sweep = submit("sweep");
    submit("sweep-2");
    submit("twice");
    submit("twice");
    let beginning = &sweep[..sweep.len() - 2];
    for name in [&*sweep, beginning, "sweep"] {
        service.client(&["wait", "--suite", name]).code(1);
        let listed = service.client(&["tasks", "--json", "--suite", name]);
        let listed = listed.code(0).json();
        assert_eq!(listed["tasks"][0]["suite"], *sweep, "{name}");
        service.client(&["cancel", "--suite", name]).code(0);
    }
    service.client(&["wait", "--suite", "sweep-"]).code(1);
    service
        .client(&["submit", "--wait", "--suite", "sweep-", "--", "true"])
        .code(0);
    let again = service.client(&["retry", "--suite", "sweep"]).code(0);
    assert_eq!(again.out().lines().count(), 1);
    for (name, part) in [
        ("twice", "names several suites"),
        ("tw", "names several suites"),
        ("nobody", "there is no suite `nobody`"),
        ("", "names several suites"),
    ] {
        service
            .client(&["tasks", "--suite", name])
            .code(2)
            .says(&[part]);
    }
    service.until_all_ended();
    let state_dir = service.state_dir.clone();
    service.stop().code(0);
    // With nobody running the store is read.
    let dir = state_dir.to_str().unwrap();
    let listed = sandbox.run(["tasks", "--json", "--state-dir", dir, "--suite", "sweep-2"]);
    assert_eq!(listed.code(0).json()["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn selectors_of_several_kinds_restrict_each_other() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let file = sandbox.file(
        "tasks.jsonl",
        r#"{"args": ["false"], "labels": {"sweep": "a", "day": "1"}}
           {"args": ["true"], "labels": {"sweep": "a"}}
           {"args": ["false"], "labels": {"sweep": "b", "day": "1"}}
           {"args": ["false"]}
        "#,
    );
    service.submit_file(&file);
    service.until_all_ended();
    let numbers = |selectors: &[&str]| -> Vec<i64> {
        let call = [&["tasks", "--json"], selectors].concat();
        let listed = service.client(&call).code(0).json();
        let tasks = listed["tasks"].as_array().unwrap().clone();
        tasks
            .iter()
            .map(|task| task["id"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&["label:sweep=a", "failed"]), [1]);
    assert_eq!(numbers(&["failed", "label:sweep"]), [1, 3]);
    assert_eq!(
        numbers(&["label:sweep=a", "label:sweep=b", "failed"]),
        [1, 3]
    );
    assert_eq!(numbers(&["label:sweep=a", "label:day"]), [1]);
    assert_eq!(numbers(&["failed", "completed", "last:2", "1"]), [1, 3, 4]);
    assert_eq!(numbers(&["completed", "1", "3-4"]), [1]);
    assert_eq!(numbers(&["completed", "3-4"]), Vec::<i64>::new());
    service
        .client(&["wait", "label:sweep=a", "completed"])
        .code(0);
    // What was repeated is left out where a state is named.
    let retry = ["retry", "label:sweep=a", "failed"];
    assert_eq!(service.client(&retry).code(0).out().lines().count(), 1);
    service.until_all_ended();
    assert_eq!(service.client(&retry).code(0).out().lines().count(), 1);
    service.until_all_ended();
    // A name has to be there whatever else is said.
    service.client(&["wait", "999", "failed"]).code(2);
    service.stop().code(0);
}
