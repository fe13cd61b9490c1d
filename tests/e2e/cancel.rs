//! Cancelling a task at different moments of its life: it ends as cancelled, unless it had ended before.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::support::{Sandbox, Service, wait};

/// Grace of the tasks below, in seconds.
const GRACE: u64 = 1;

fn spec(script: &str) -> String {
    let args = serde_json::json!(["sh", "-c", script]);
    format!(r#"{{"args": {args}, "grace": "{GRACE}s"}}"#)
}

#[track_caller]
fn submit(service: &Service<'_>, sandbox: &Sandbox, scripts: &[&str]) -> Vec<String> {
    let list: Vec<String> = scripts.iter().map(|script| spec(script)).collect();
    let file = sandbox.file("submitted.jsonl", list.join("\n"));
    let uuids = service.submit_file(&file);
    assert_eq!(uuids.len(), scripts.len());
    uuids
}

#[track_caller]
fn until_begun(sandbox: &Sandbox, service: &mut Service<'_>, mark: &str) {
    service.program.until("the task to begin", || {
        let there = sandbox.path(mark).exists();
        there.then_some(()).ok_or_else(|| format!("no {mark}"))
    });
}

fn touch(sandbox: &Sandbox, name: &str) -> String {
    format!("touch {}", sandbox.path(name).display())
}

#[test]
fn a_queued_task_is_cancelled_without_being_run() {
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 1);
    let block = format!("{}; sleep 1000", touch(&sandbox, "begun"));
    let blocker = submit(&service, &sandbox, &[&block]).remove(0);
    until_begun(&sandbox, &mut service, "begun");
    // One is in the manager's buffer, the last ones are in the store.
    let scripts = vec![touch(&sandbox, "it-ran"); 20];
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let queued = submit(&service, &sandbox, &scripts);
    for uuid in &queued {
        service.client(&["cancel", uuid]).code(0);
    }
    for uuid in &queued {
        let task = service.until_state(uuid, "cancelled");
        assert_eq!(task.attempts(), 0, "{:#}", task.0);
    }
    service.client(&["cancel", "--now", &blocker]).code(0);
    service.until_state(&blocker, "cancelled");
    assert!(!sandbox.path("it-ran").exists());
    service.stop().code(0);
}

#[test]
fn a_running_task_is_asked_to_end() {
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 1);
    let script = format!(
        "trap 'echo asked; exit 0' TERM; {}; while :; do sleep 0.05; done",
        touch(&sandbox, "begun")
    );
    let uuid = submit(&service, &sandbox, &[&script]).remove(0);
    until_begun(&sandbox, &mut service, "begun");
    service.client(&["cancel", &uuid]).code(0);
    let task = service.until_state(&uuid, "cancelled");
    assert_eq!(task.reason(), "cancelled");
    assert_eq!(task.text("/result/stdout/tail"), "asked\n", "{:#}", task.0);
    service.stop().code(0);
}

#[test]
fn a_running_task_that_does_not_listen_is_killed_after_its_grace() {
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 1);
    let script = format!(
        "trap '' TERM; setsid sleep 1001 & {}; sleep 1002",
        touch(&sandbox, "begun")
    );
    let uuid = submit(&service, &sandbox, &[&script]).remove(0);
    until_begun(&sandbox, &mut service, "begun");
    let began = Instant::now();
    service.client(&["cancel", &uuid]).code(0);
    service.until_state(&uuid, "cancelled");
    let took = began.elapsed().as_secs_f64();
    assert!(took < (GRACE + 2) as f64 + 1.0, "took {took} s");
    let left = sandbox
        .processes()
        .into_iter()
        .find(|process| process.command.starts_with("sleep"));
    assert!(left.is_none(), "{left:?}");
    // The worker is free again.
    let next = service.submit("echo next");
    service.until_state(&next, "completed");
    service.stop().code(0);
}

#[test]
fn an_immediate_cancel_does_not_wait_for_the_grace() {
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 1);
    let script = format!(
        "trap '' TERM; {}; while :; do sleep 0.05; done",
        touch(&sandbox, "begun")
    );
    let args = serde_json::json!(["sh", "-c", script]);
    let file = sandbox.file(
        "list.jsonl",
        format!(r#"{{"args": {args}, "grace": "1h"}}"#),
    );
    let uuid = service.submit_file(&file).remove(0);
    until_begun(&sandbox, &mut service, "begun");
    service.client(&["cancel", "--now", &uuid]).code(0);
    service.until_state(&uuid, "cancelled");
    service.stop().code(0);
}

#[test]
fn a_finished_task_keeps_its_result() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let good = service.submit("echo kept");
    let bad = service.submit("exit 4");
    service.until_state(&good, "completed");
    service.until_state(&bad, "failed");
    for uuid in [&good, &bad] {
        // Asking is no mistake; the answer says what the task is.
        let answer = service.client(&["cancel", uuid]);
        assert!(
            matches!(answer.status.code(), Some(0 | 1)),
            "{:?}",
            answer.status
        );
    }
    assert_eq!(service.task(&good).state(), "completed");
    assert_eq!(service.task(&bad).number("/result/exit_code"), Some(4));
    service.stop().code(0);
}

#[test]
fn a_task_that_nobody_knows_is_refused_in_words() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let unknown = "01900000-0000-7000-8000-000000000000";
    for command in ["cancel", "task", "logs"] {
        let answer = service.client(&[command, unknown]);
        assert!(
            matches!(answer.status.code(), Some(2 | 3)),
            "{command}: {:?}",
            answer.status
        );
        answer.says(&[unknown]);
    }
    service
        .client(&["cancel", "not-a-uuid"])
        .code(2)
        .says(&["not-a-uuid"]);
    service.stop().code(0);
}

#[test]
fn cancels_at_any_moment_of_short_tasks_end_each_in_one_state() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let scripts = vec!["sleep 0.05"; 60];
    let uuids = submit(&service, &sandbox, &scripts);
    // The queue shrinks while this goes on, so the cancels meet tasks in every state.
    for uuid in uuids.iter().step_by(3) {
        service.client(&["cancel", uuid]);
    }
    let tasks = service.until_all_ended();
    assert_eq!(tasks.len(), 60);
    let asked: Vec<&String> = uuids.iter().step_by(3).collect();
    for task in &tasks {
        let wanted = match task.state().as_str() {
            "completed" => "exit",
            "cancelled" if asked.contains(&&task.uuid()) => "cancelled",
            _ => panic!("{:#}", task.0),
        };
        assert_eq!(task.reason(), wanted, "{:#}", task.0);
        assert!(task.attempts() <= 1, "{:#}", task.0);
    }
    service.stop().code(0);
}

/// Tasks by state, of the one suite there is.
fn counts(service: &Service<'_>) -> BTreeMap<String, u64> {
    let suite = service.client(&["suites", "--json"]).code(0).json();
    serde_json::from_value(suite["suites"][0]["counts"].clone()).expect("counts by state")
}

#[test]
fn an_order_for_everything_holds_at_once_however_much_waits() {
    const MANY: usize = 20_000;
    /// What lies in the manager and its workers, and what their way takes.
    const UNDER_WAY: usize = 100;
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 2);
    let log = sandbox.path("log");
    let line = format!("echo x >> {}\n", log.display());
    let list = sandbox.file("list.txt", line.repeat(MANY));
    service.submit_file(&list);
    service.program.until("some tasks to end", || {
        let ended = sandbox.lines("log").len();
        (ended > 10).then_some(()).ok_or_else(|| format!("{ended}"))
    });
    let cancel = ["cancel", "ready", "running", "assigned"];
    service.client(&cancel).code(0);
    let begun = sandbox.lines("log").len();
    assert!(begun < MANY, "all had begun before the order");
    let counts = wait::until("everything to end", wait::LONG, || {
        let counts = counts(&service);
        let open = ["ready", "running", "assigned"];
        let ended = open.iter().all(|state| !counts.contains_key(*state));
        ended
            .then_some(counts.clone())
            .ok_or_else(|| format!("{counts:?}"))
    });
    let later = sandbox.lines("log").len() - begun;
    assert!(later <= UNDER_WAY, "{later} began after the order");
    let completed = counts.get("completed").copied().unwrap_or_default();
    assert_eq!(counts["cancelled"] + completed, MANY as u64, "{counts:?}");
    service.stop().code(0);
}
