//! Bad input: refused with exit code 2 (or the code of its kind), in words that say what to change, before anything runs.

use crate::support::{Running, Sandbox, Service};

/// A line that would be seen if it ran.
const TRACE: &str = "touch it-ran";

#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], parts: &[&str]) {
    sandbox.run(args).code(2).says(parts);
    assert!(!sandbox.path("it-ran").exists(), "something was run");
}

#[test]
fn a_list_without_tasks_is_told_and_is_no_error() {
    let sandbox = Sandbox::new();
    for content in ["", "# nothing\n\n  \n"] {
        sandbox.file("list.txt", content);
        sandbox
            .run(["run", "list.txt"])
            .code(0)
            .says(&["list.txt", "no tasks"]);
    }
    let summary = sandbox.run(["run", "list.txt", "--json"]).code(0).json();
    assert_eq!(summary["tasks"]["total"], 0, "{summary:#}");
    // Nothing at all was named, and there is nothing to go on with.
    sandbox.run(["run"]).code(2).says(&["no tasks", "file"]);
}

#[test]
fn a_missing_file_is_named() {
    let sandbox = Sandbox::new();
    refused(
        &sandbox,
        &["run", "no-such-file.txt"],
        &["no-such-file.txt"],
    );
    refused(&sandbox, &["run", "."], &["directory"]);
}

#[test]
fn a_malformed_json_line_is_told_with_line_and_column_and_nothing_runs() {
    let sandbox = Sandbox::new();
    let good = r#"{"args": ["touch", "it-ran"]}"#;
    sandbox.file(
        "list.jsonl",
        format!("{good}\n\n{{\"args\": [\"true\" \"x\"]}}\n{good}\n"),
    );
    refused(&sandbox, &["run", "list.jsonl"], &["line 3", "column 18"]);
    sandbox.file("list.jsonl", format!("{good}\n{{\"argv\": [\"true\"]}}\n"));
    refused(&sandbox, &["run", "list.jsonl"], &["line 2", "argv"]);
    sandbox.file("list.jsonl", format!("{good}\n{{\"args\": []}}\n"));
    refused(&sandbox, &["run", "list.jsonl"], &["line 2", "args"]);
    sandbox.file(
        "list.jsonl",
        format!("{good}\n{{\"args\": [\"a\"], \"timeout\": \"soon\"}}\n"),
    );
    refused(&sandbox, &["run", "list.jsonl"], &["line 2", "soon"]);
}

#[test]
fn a_line_that_no_program_can_be_given_is_refused() {
    let sandbox = Sandbox::new();
    let good = r#"{"args": ["touch", "it-ran"]}"#;
    sandbox.file("list.jsonl", [good.as_bytes(), b"\n{\"\xff"].concat());
    refused(
        &sandbox,
        &["run", "list.jsonl"],
        &["line 2", "byte 3", "UTF-8", "\\udbff\\udfff"],
    );
    sandbox.file("list.txt", b"touch it-ran\necho \0\n");
    refused(&sandbox, &["run", "list.txt"], &["line 2", "NUL"]);
    let long = format!("{TRACE}\n: {}\n", "x".repeat(128 * 1024));
    sandbox.file("list.txt", long);
    refused(&sandbox, &["run", "list.txt"], &["line 2", "longest"]);
}

#[test]
fn the_longest_line_runs() {
    let sandbox = Sandbox::new();
    let line = format!("echo {}", "x".repeat(128 * 1024 - 1 - 5));
    sandbox.file("list.txt", &line);
    let out = sandbox.run(["run", "list.txt"]).code(0).out();
    assert_eq!(out.len(), line.len() - 5 + 1);
}

#[test]
fn a_number_of_workers_outside_1_to_256_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", TRACE);
    for number in ["0", "257", "+", "many"] {
        let option = format!("--workers={number}");
        refused(
            &sandbox,
            &["run", "list.txt", &option],
            &["workers", number],
        );
    }
}

#[test]
fn a_state_directory_in_use_is_refused_and_its_holder_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "holder.txt",
        "touch holder-runs; while [ ! -e let-go ]; do sleep 0.05; done",
    );
    sandbox.file("list.txt", TRACE);
    let mut holder = sandbox.start(["run", "holder.txt", "--state-dir", "kept"]);
    holder.until("the holder's task to run", || {
        let there = sandbox.path("holder-runs").exists();
        there.then_some(()).ok_or_else(String::new)
    });
    let second = sandbox.run(["run", "list.txt", "--state-dir", "kept"]);
    assert!(
        matches!(second.status.code(), Some(2 | 3)),
        "{:?}",
        second.status
    );
    second.says(&["kept", "in use"]);
    let service = sandbox.run(["up", "--state-dir", "kept", "--listen", "127.0.0.1:0"]);
    assert!(
        matches!(service.status.code(), Some(2 | 3)),
        "{:?}",
        service.status
    );
    service.says(&["kept", "in use"]);
    assert!(!sandbox.path("it-ran").exists());
    sandbox.file("let-go", "");
    holder.finish().code(0);
}

#[test]
fn an_unreachable_coordinator_is_named() {
    let sandbox = Sandbox::new();
    // Port 9 of the loopback: nothing listens there, and nothing can that is no root's.
    let url = "http://127.0.0.1:9";
    let mut command = sandbox.command(["tasks", "--coordinator-url", url]);
    command.env("MITOSIS_TOKEN", "x");
    Running::start(&sandbox, command)
        .finish()
        .code(3)
        .says(&[url]);
    let mut command = sandbox.command(["tasks", "--coordinator-url", "ftp://here"]);
    command.env("MITOSIS_TOKEN", "x");
    Running::start(&sandbox, command)
        .finish()
        .code(2)
        .says(&["http"]);
    // With nothing running and nothing stored there is nobody to ask either.
    let alone = sandbox.run(["submit", "--", "true"]);
    assert!(
        matches!(alone.status.code(), Some(2 | 3)),
        "{:?}",
        alone.status
    );
    alone.says(&["mitosis up"]);
}

#[test]
fn a_wrong_token_is_refused_and_not_shown() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let wrong = "forged-token-value";
    for (args, code) in [(["tasks"], 3), (["managers"], 3), (["worker"], 77)] {
        let mut command = sandbox.command(args);
        command
            .args(["--coordinator-url", &service.url])
            .env("MITOSIS_TOKEN", wrong);
        let ended = Running::start(&sandbox, command)
            .finish()
            .code(code)
            .says(&["token"]);
        assert!(!ended.stderr.contains(wrong), "{}", ended.stderr);
    }
    // A token of one scope does not open the other's doors.
    let mut command = sandbox.command(["tasks", "--coordinator-url", &service.url]);
    command.env("MITOSIS_TOKEN", service.token("worker"));
    Running::start(&sandbox, command)
        .finish()
        .code(3)
        .says(&["token"]);
    service.stop().code(0);
}

#[test]
fn the_rules_of_a_workers_arguments_hold() {
    let sandbox = Sandbox::new();
    let uuid = "11111111-2222-4333-8444-555555555555";
    let managed = ["worker", "--managed"];
    let with = |more: &[&'static str]| [&managed[..], more].concat();
    refused(
        &sandbox,
        &with(&["--worker-local-id", "1"]),
        &["--manager-uuid"],
    );
    refused(
        &sandbox,
        &with(&["--manager-uuid", uuid]),
        &["--worker-local-id"],
    );
    let high = with(&["--manager-uuid", uuid, "--worker-local-id", "256"]);
    refused(&sandbox, &high, &["256"]);
    let no_uuid = with(&["--manager-uuid", "me", "--worker-local-id", "1"]);
    refused(&sandbox, &no_uuid, &["me"]);
    refused(&sandbox, &["worker"], &["--coordinator-url"]);
    // Complete, but started by a person: no manager is there.
    let lost = with(&["--manager-uuid", uuid, "--worker-local-id", "1"]);
    sandbox.run(lost).code(69).says(&[uuid, "manager"]);
}

#[test]
fn an_unsupported_field_is_refused_by_a_service_too() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    sandbox.file(
        "list.jsonl",
        r#"{"args": ["touch", "it-ran"], "signal": "USR1@60s"}"#,
    );
    service
        .client(&["submit", "list.jsonl"])
        .code(2)
        .says(&["signal"]);
    assert_eq!(service.tasks().len(), 0);
    service.stop().code(0);
}
