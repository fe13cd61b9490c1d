//! Asking about tasks: selectors, lists for programs, and why a task is not running or where its time went.

use crate::support::{Sandbox, Service};

/// The numbers that a list shows as CSV.
#[track_caller]
fn numbers(service: &Service<'_>, selectors: &[&str]) -> Vec<String> {
    let call = [&["tasks", "-o", "csv"], selectors].concat();
    let listed = service.client(&call).code(0);
    let out = listed.out();
    let (header, rows) = out.split_once('\n').expect("a header");
    assert!(
        header.starts_with("id,uuid,suite,state,reason,"),
        "{header}"
    );
    let number = |row: &str| row.split(',').next().unwrap_or_default().to_owned();
    rows.lines().map(number).collect()
}

#[test]
fn selectors_name_tasks_for_every_command() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let file = sandbox.file(
        "tasks.jsonl",
        r#"{"args": ["echo", "one"], "labels": {"kind": "good"}}
           {"args": ["sh", "-c", "echo two >&2; exit 3"], "labels": {"kind": "bad"}}
           {"args": ["echo", "three"], "labels": {"kind": "good"}}
        "#,
    );
    let uuids = service.submit_file(&file);
    service.until_all_ended();
    assert_eq!(numbers(&service, &[]), ["1", "2", "3"]);
    assert_eq!(numbers(&service, &["failed", "3"]), ["2", "3"]);
    assert_eq!(numbers(&service, &["failed", "2-3"]), ["2"]);
    assert_eq!(numbers(&service, &["label:kind=good"]), ["1", "3"]);
    assert_eq!(numbers(&service, &["last:2", "--limit", "1"]), ["2"]);
    assert_eq!(numbers(&service, &["last:2", "--cursor", "2"]), ["3"]);
    assert_eq!(numbers(&service, &["2-9"]), ["2", "3"]);
    assert_eq!(numbers(&service, &["cancelled"]), Vec::<String>::new());

    let logs = service.client(&["logs", "label:kind=good"]).code(0);
    assert_eq!(logs.out(), "one\nthree\n");
    let logs = service.client(&["logs", "last"]).code(0);
    assert_eq!(logs.out(), "three\n");
    let beginning = &uuids[1][..uuids[1].len() - 1];
    let shown = service.client(&["task", beginning, "--json"]).code(0);
    assert_eq!(shown.json()["id"], 2);
    let shown = service.client(&["task", "1-2", "--json"]).code(0);
    assert_eq!(shown.out().lines().count(), 2, "one object per task");
    service.client(&["wait", "label:kind=good"]).code(0);
    service.client(&["wait", "1-3"]).code(1);
    let again = service.client(&["retry", "failed"]).code(0);
    assert_eq!(again.out().lines().count(), 1);
    service.until_all_ended();
    assert_eq!(numbers(&service, &["failed"]), ["2", "4"]);
    // What was repeated already is not repeated again.
    let again = service.client(&["retry", "failed"]).code(0);
    assert_eq!(again.out().lines().count(), 1);
    service.until_all_ended();

    for (wrong, part) in [("9-3", "before it begins"), ("nobody", "label:key=value")] {
        service.client(&["tasks", wrong]).code(2).says(&[part]);
    }
    service
        .client(&["task", "999"])
        .code(2)
        .says(&["there is no task 999"]);
    service.stop().code(0);
}

#[test]
fn cancel_takes_sets_and_an_empty_one_is_no_failure() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    service
        .client(&["task", "last"])
        .code(2)
        .says(&["no task yet"]);
    let first = service.submit("sleep 600");
    service.submit("sleep 600");
    service.until_state(&first, "running");
    let cancelled = service.client(&["cancel", "running", "2"]).code(0);
    assert_eq!(cancelled.out().lines().count(), 2);
    service.until_all_ended();
    let nothing = service.client(&["cancel", "running"]).code(0);
    assert_eq!(nothing.out(), "");
    service.stop().code(0);
}

#[test]
fn lists_for_programs_hold_what_is_documented() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit("exit 3");
    service.until_state(&uuid, "failed");
    let document = mitosis::coordinator::openapi::document();
    let document = serde_json::to_value(document).unwrap();
    let properties = |schema: &str| {
        let properties = document["components"]["schemas"][schema]["properties"].clone();
        properties.as_object().expect("a documented type").clone()
    };
    for (list, entries, schema) in [
        ("tasks", "tasks", "TaskSummary"),
        ("suites", "suites", "SuiteSummary"),
        ("managers", "managers", "ManagerSummary"),
    ] {
        let json = service.client(&[list, "--json"]).code(0).json();
        assert_eq!(json, service.client(&[list, "-o", "json"]).code(0).json());
        let entry = json[entries][0].as_object().expect("an entry").clone();
        let documented = properties(schema);
        for key in entry.keys() {
            assert!(documented.contains_key(key), "{schema} has no {key}");
        }
        let csv = service.client(&[list, "-o", "csv"]).code(0).out();
        assert_eq!(csv.lines().count(), 2, "{csv}");
    }
    let why = service
        .client(&["task", "last", "--why", "--json"])
        .code(0)
        .json();
    let documented = properties("TaskWhy");
    assert!(
        why.as_object()
            .unwrap()
            .keys()
            .all(|key| documented.contains_key(key))
    );
    service.client(&["tasks", "--json", "-o", "csv"]).code(2);
    service.stop().code(0);
}

#[test]
fn why_names_what_a_task_waits_for_and_where_its_time_went() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let file = sandbox.file(
        "tasks.jsonl",
        r#"{"id": "build", "args": ["sh", "-c", "sleep 0.3; exit 0"]}
           {"args": ["true"], "upstream": ["build"]}
           {"args": ["true"], "tags": ["arm"]}
        "#,
    );
    let uuids = service.submit_file(&file);
    let why = |task: &str| service.client(&["task", task, "--why"]).code(0).out();
    let first = why("1");
    assert!(
        first.contains("no manager and no worker is connected"),
        "{first}"
    );
    let second = why("2");
    assert!(
        second.contains("build (task 1) is ready and has to end first"),
        "{second}"
    );

    let manager = service.manager(1, &[]);
    service.until_state(&uuids[1], "completed");
    let third = why("3");
    assert!(
        third.contains("nobody connected carries its tags (arm)"),
        "{third}"
    );
    let json = service
        .client(&["task", "3", "--why", "--json"])
        .code(0)
        .json();
    assert_eq!(json["waits_for"][0]["kind"], "tags", "{json:#}");
    let first = service
        .client(&["task", "1", "--why", "--json"])
        .code(0)
        .json();
    let phases = first["phases"].as_array().unwrap();
    let running = phases
        .iter()
        .find(|phase| phase["kind"] == "running")
        .unwrap();
    let took = running["until_us"].as_i64().unwrap() - running["from_us"].as_i64().unwrap();
    // It began some moments before its worker could read the clock.
    assert!(took >= 250_000, "{first:#}");
    let text = why("1");
    assert!(text.lines().count() <= 24, "one screen: {text}");
    assert!(
        text.contains("it completed") && text.contains("in the queue"),
        "{text}"
    );

    service.client(&["pause"]).code(0);
    let uuid = service.submit("true");
    let paused = why(&uuid);
    assert!(
        paused.contains("is paused") && paused.contains("mitosis resume"),
        "{paused}"
    );
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn what_others_wrote_gives_no_orders_to_a_terminal() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // The clipboard, the screen by a C1 control, and a direction of writing.
    let hostile = "\u{1b}]52;c;cm0=\u{7}\u{9b}2J\u{202e}";
    let line = format!("echo '{hostile}'; exit 3");
    let uuid = service.submit(&line);
    service.until_state(&uuid, "failed");
    let missing = service.client(&["submit", "-q", "--cwd", hostile, "--", "true"]);
    let missing = missing.code(0).out().trim().to_owned();
    service.until_state(&missing, "failed");
    for call in [
        &["tasks"][..],
        &["tasks", "-o", "csv"],
        &["tasks", "--json"],
        &["task", &uuid],
        &["task", &uuid, "--json"],
        &["task", &missing],
        &["task", &missing, "--why"],
        &["suites"],
        &["workers"],
    ] {
        let shown = service.client(call).code(0).out();
        let order = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.contains(order), "{call:?}: {shown:?}");
    }
    // In JSON it is still what it was.
    let shown = service.client(&["task", &uuid, "--json"]).code(0).json();
    assert_eq!(shown["spec"]["args"][2], *line);
    // The output itself is the task's, byte by byte.
    let output = service.client(&["logs", &uuid]).code(0).out();
    assert_eq!(output, format!("{hostile}\n"));
    for option in ["--name", "--label"] {
        service
            .client(&["submit", option, hostile, "--", "true"])
            .code(2)
            .says(&["control characters", "\\u{1b}"]);
    }
    service.stop().code(0);
}
