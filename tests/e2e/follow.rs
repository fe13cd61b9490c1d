//! `logs -f` and `logs` of tasks that run: on this machine and on another, through deaths and limits, read slowly or not at
//! all.

use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Running, Sandbox, Service, processes, wait};

/// A script that writes `first`, waits for a file of this name, and writes `last`.
fn in_two_parts(sandbox: &Sandbox, name: &str) -> String {
    let gate = sandbox.path(name);
    let gate = gate.display();
    format!(
        "echo first; echo aside >&2; until [ -e {gate} ]; do sleep 0.02; done; echo last; echo end >&2"
    )
}

#[track_caller]
fn until_read(follower: &mut Running<'_>, text: &str) {
    let stdout = follower.stdout_path();
    follower.until(&format!("`{text}` to be read"), || {
        let read = std::fs::read(&stdout).unwrap_or_default();
        let read = String::from_utf8_lossy(&read).into_owned();
        if read.contains(text) {
            Ok(())
        } else {
            Err(read)
        }
    });
}

/// One task with a limit of its output.
#[track_caller]
fn submit_limited(sandbox: &Sandbox, service: &Service<'_>, script: &str, limit: u64) -> String {
    let spec = json!({"args": ["sh", "-c", script], "capture": {"limit_bytes": limit}});
    let file = sandbox.file("limited.jsonl", spec.to_string());
    service.submit_file(&file).remove(0)
}

/// Follows a task in two parts; looks at it without following in between.
#[track_caller]
fn follow_to_the_end(sandbox: &Sandbox, service: &Service<'_>) {
    let uuid = service.submit(&in_two_parts(sandbox, "go"));
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    until_read(&mut follower, "first\n");
    // The store may not have heard of the start yet.
    assert!(!service.task(&uuid).is_terminal());
    let so_far = service.client(&["logs", &uuid]).code(0);
    assert_eq!(so_far.out(), "first\n");
    let so_far = so_far.says(&["aside\n", "is running", "-f"]);
    assert_eq!(so_far.stderr.matches("is running").count(), 1);
    let aside = service.client(&["logs", "--stream", "stderr", "--quiet", &uuid]);
    assert_eq!(aside.code(0).out(), "aside\n");
    sandbox.file("go", "");
    let followed = follower.finish().code(0);
    assert_eq!(followed.out(), "first\nlast\n");
    assert_eq!(followed.stderr, "aside\nend\n");
    // The same once more, when there is nothing to wait for.
    let again = service.client(&["logs", "-f", &uuid]).code(0);
    assert_eq!(again.out(), "first\nlast\n");
    assert_eq!(again.stderr, "aside\nend\n");
}

#[test]
fn a_running_task_is_followed_to_its_end() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    follow_to_the_end(&sandbox, &service);
    service.stop().code(0);
}

#[test]
fn a_task_of_another_manager_is_followed_to_its_end() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    follow_to_the_end(&sandbox, &service);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_follower_waits_for_a_task_that_has_not_begun() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let uuid = service.submit("echo done; exit 3");
    let now = service.client(&["logs", &uuid]).code(0);
    assert_eq!(now.says(&["has not begun", "-f"]).out(), "");
    let follower = service.begin(&["logs", "-f", &uuid]);
    let manager = service.manager(1, &[]);
    let followed = follower.finish().code(1);
    assert_eq!(followed.out(), "done\n");
    followed.says(&["failed", "exit code 3"]);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_task_that_will_never_begin_is_told_at_once() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let list = [
        json!({"id": "a", "args": ["true"]}),
        json!({"args": ["echo", "never"], "upstream": ["a"]}),
    ];
    let list = list.map(|spec| spec.to_string()).join("\n");
    let uuids = service.submit_file(&sandbox.file("chain.jsonl", list));
    let follower = service.begin(&["logs", "-f", &uuids[1]]);
    service.client(&["cancel", &uuids[0]]).code(0);
    let followed = follower.finish().code(1);
    let followed = followed.says(&["without being run", "upstream_failed"]);
    assert_eq!(followed.out(), "");
    let unknown = "00000000-0000-0000-0000-000000000000";
    let refused = service.client(&["logs", "-f", unknown]).code(2);
    refused.says(&[unknown]);
    service.stop().code(0);
}

#[test]
fn the_next_attempt_after_a_killed_worker_is_followed_and_noted() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let uuid = service.submit("echo attempt $MITO_ATTEMPT; [ $MITO_ATTEMPT = 2 ] || sleep 1000");
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    until_read(&mut follower, "attempt 1\n");
    processes::send(manager.workers(1)[0], Signal::KILL);
    let followed = follower.finish().code(0);
    assert_eq!(followed.out(), "attempt 1\nattempt 2\n");
    let followed = followed.says(&["attempt 1 is over", "attempt 2 follows"]);
    assert_eq!(followed.stderr.matches("follows").count(), 1);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn every_attempt_of_a_task_that_fails_is_read_to_its_last_word() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let gate = sandbox.path("go");
    // What it says last it says the moment before it ends.
    let script = format!(
        "echo attempt $MITO_ATTEMPT; until [ -e {} ]; do sleep 0.02; done; echo bad >&2; echo bye; exit $((2 - MITO_ATTEMPT))",
        gate.display()
    );
    let spec = json!({
        "args": ["sh", "-c", script], "max_attempts": 2, "backoff": {"initial": "100ms"},
    });
    let file = sandbox.file("spec.jsonl", spec.to_string());
    let uuid = service.submit_file(&file).remove(0);
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    until_read(&mut follower, "attempt 1\n");
    sandbox.file("go", "");
    let followed = follower.finish().code(0);
    assert_eq!(followed.out(), "attempt 1\nbye\nattempt 2\nbye\n");
    assert_eq!(followed.stderr.matches("bad\n").count(), 2);
    followed.says(&["attempt 1 is over (failed: exit); attempt 2 follows"]);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_follower_goes_on_when_its_coordinator_was_killed() {
    let sandbox = Sandbox::new();
    let mut service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let uuid = service.submit(&in_two_parts(&sandbox, "go"));
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    until_read(&mut follower, "first\n");
    service = service.kill_and_restart();
    sandbox.file("go", "");
    let followed = follower.finish().code(0);
    assert_eq!(followed.out(), "first\nlast\n");
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_follower_that_stands_still_holds_up_nothing_and_misses_nothing() {
    /// What the task writes, and what the coordinator and manager may grow by: far less than that.
    const WRITTEN: usize = 100 << 20;
    const GROWTH_KIB: u64 = 32 << 10;
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let gate = sandbox.path("go");
    let script = format!(
        "echo first; until [ -e {} ]; do sleep 0.02; done; yes 0123456 | head -c {WRITTEN}",
        gate.display()
    );
    let uuid = submit_limited(&sandbox, &service, &script, 2 * WRITTEN as u64);
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    until_read(&mut follower, "first\n");
    let before = processes::resident_kib(service.program.pid());
    follower.signal(Signal::STOP);
    sandbox.file("go", "");
    let task = service.until_state(&uuid, "completed");
    let after = processes::resident_kib(service.program.pid());
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after}");
    let written = task.number("/result/stdout/bytes").unwrap();
    assert_eq!(usize::try_from(written).unwrap(), WRITTEN + 6);
    follower.signal(Signal::CONT);
    let followed = follower.finish().code(0);
    let rest = followed.stdout.strip_prefix(b"first\n").unwrap();
    assert_eq!(rest.len(), WRITTEN);
    assert!(rest.chunks(8).all(|line| line == b"0123456\n"));
    service.stop().code(0);
}

#[test]
fn what_is_dropped_of_a_followed_task_is_counted_in_words() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let script = "seq 300000; sleep 0.5; seq 300001 600000";
    let uuid = submit_limited(&sandbox, &service, script, 64 << 10);
    let followed = service.client(&["logs", "-f", &uuid]).code(0);
    let task = service.task(&uuid);
    let written = task.number("/result/stdout/bytes").unwrap();
    let out = followed.out();
    assert!(out.starts_with("1\n2\n3\n") && out.ends_with("\n599999\n600000\n"));
    let notes = followed.stderr.lines().filter_map(|line| {
        let (count, _) = line
            .strip_prefix("mitosis: ")?
            .split_once(" bytes of its stdout are not kept")?;
        count.parse::<i64>().ok()
    });
    let dropped: Vec<i64> = notes.collect();
    assert!(
        !dropped.is_empty(),
        "nothing was dropped of {written} bytes"
    );
    let read = i64::try_from(out.len()).unwrap();
    assert_eq!(read + dropped.iter().sum::<i64>(), written, "{dropped:?}");
    assert!(!out.contains("mitosis"));
    service.stop().code(0);
}

#[test]
fn an_interrupt_ends_the_follower_alone_also_when_its_output_is_not_read() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit("yes | head -c 1000000; sleep 1000");
    let mut command = sandbox.command(["logs", "-f", "--state-dir"]);
    command.arg(&service.state_dir).arg(&uuid);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = follower.stdout.take().unwrap();
    wait::until("the pipe to be full", wait::LONG, || {
        let waiting = rustix::io::ioctl_fionread(&pipe).unwrap();
        if waiting >= 60 << 10 {
            Ok(())
        } else {
            Err(format!("{waiting} bytes"))
        }
    });
    processes::send(follower.id(), Signal::INT);
    let status = wait::until("the follower to end", wait::LONG, || {
        let ended = follower.try_wait().unwrap();
        ended.ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(130));
    let mut read = Vec::new();
    pipe.read_to_end(&mut read).unwrap();
    assert!(!service.task(&uuid).is_terminal());
    // A reader that has seen enough is no failure.
    let mut follower = sandbox.command(["logs", "-f", "--state-dir"]);
    follower.arg(&service.state_dir).arg(&uuid);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    drop(follower.stdout.take());
    let status = wait::until("the follower to end", wait::LONG, || {
        let ended = follower.try_wait().unwrap();
        ended.ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(0));
    service.client(&["cancel", "--now", &uuid]).code(0);
    service.until_state(&uuid, "cancelled");
    service.stop().code(0);
}

#[test]
fn the_output_of_a_worker_without_a_manager_comes_when_its_task_has_ended() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let uuid = service.submit(&in_two_parts(&sandbox, "go"));
    service.until_state(&uuid, "running");
    let now = service.client(&["logs", &uuid]).code(2);
    now.says(&["independent worker", "when the task has ended"]);
    let mut follower = service.begin(&["logs", "-f", &uuid]);
    follower.until_says("independent worker");
    sandbox.file("go", "");
    let followed = follower.finish().code(0);
    assert_eq!(followed.out(), "first\nlast\n");
    worker.stop().code(0);
    service.stop().code(0);
}
