//! Files of tasks from outside: inputs that are there or not, and what tasks leave, through a service and through `run`.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Sandbox, Service, Task, processes, wait, web};

/// Submits one JSON task and waits for its end.
#[track_caller]
fn ended(sandbox: &Sandbox, service: &Service<'_>, spec: &Value) -> Task {
    let file = sandbox.file("spec.jsonl", spec.to_string());
    let uuids = service.submit_file(&file);
    service.until_all_ended();
    service.task(&uuids[0])
}

/// Waits until the coordinator keeps everything that the task left.
#[track_caller]
fn arrived(service: &Service<'_>, uuid: &str, count: usize) -> Task {
    wait::until("the artifacts to arrive", wait::LONG, || {
        let task = service.task(uuid);
        let stored = task.0["artifacts"].as_array().map_or(0, Vec::len);
        if stored == count {
            Ok(task)
        } else {
            Err(format!("{:#}", task.0))
        }
    })
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
const GONE: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn what_a_task_leaves_is_fetched_from_a_service() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit(
        "echo r > $MITO_RESULT_DIR/r; ln -s . $MITO_RESULT_DIR/loop; echo w > $MITO_EXEC_DIR/w; seq 20000",
    );
    service.until_all_ended();
    let task = arrived(&service, &uuid, 2);
    assert_eq!(task.text("/artifacts/0/kind"), "exec");
    let dir = sandbox.path("got");
    let dir = dir.to_str().unwrap();
    let fetch = ["task", &uuid, "--artifacts", dir];
    let made = service.client(&fetch).code(0).out();
    assert!(
        made.lines().any(|line| line.ends_with("got/result")),
        "{made}"
    );
    assert_eq!(sandbox.text("got/result/r"), "r\n");
    assert_eq!(sandbox.text("got/exec/w"), "w\n");
    assert!(sandbox.path("got/result/loop").is_symlink());
    assert_eq!(sandbox.lines("got/stdout").len(), 20000);
    // Nothing is overwritten.
    service.client(&fetch).code(2).says(&["another directory"]);
    service.stop().code(0);
}

#[test]
fn a_run_keeps_what_tasks_left_for_later() {
    let sandbox = Sandbox::new();
    let lines = "echo one > $MITO_RESULT_DIR/f\ntrue\n";
    sandbox.file("list.txt", lines);
    let ran = sandbox.run(["run", "list.txt"]).code(0);
    ran.says(&["--artifacts DIR"]);
    let named = sandbox.run(["run", "list.txt", "--state-dir", "kept"]);
    named.code(0);
    let fetch = ["task", "1", "--state-dir", "kept", "--artifacts", "got"];
    sandbox.run(fetch).code(0);
    assert_eq!(sandbox.text("got/result/f"), "one\n");
}

#[test]
fn pipes_and_loops_in_a_result_directory_are_a_note() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid =
        service.submit("cd $MITO_RESULT_DIR; ln -s loop loop; mkfifo pipe; echo kept > file");
    service.until_all_ended();
    let task = arrived(&service, &uuid, 1);
    assert_eq!(task.state(), "completed");
    let message = task.text("/result/message");
    assert!(message.contains("pipe"), "{message}");
    service.stop().code(0);
}

#[test]
fn the_artifact_of_one_task_is_the_input_of_another() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let first = service.submit("echo made > $MITO_RESULT_DIR/f");
    service.until_all_ended();
    arrived(&service, &first, 1);
    let input = json!({"url": format!("artifact:{first}/result"), "path": "made.tar.zst"});
    let check = "test \"$(od -An -tx4 -N4 $MITO_RESOURCE_DIR/made.tar.zst)\" = ' fd2fb528'";
    let spec = json!({"args": ["sh", "-c", check], "inputs": [input]});
    let task = ended(&sandbox, &service, &spec);
    assert_eq!(task.state(), "completed", "{:#}", task.0);
    service.stop().code(0);
}

#[test]
fn inputs_that_are_missing_wrong_or_late_fail_their_task_in_words() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let with = |input: Value| json!({"args": ["cat", "in"], "inputs": [input]});
    let (hello, gone, silent) = (
        web::server(Some(HELLO)),
        web::server(Some(GONE)),
        web::server(None),
    );
    let cases = [
        (json!({"url": gone, "path": "in"}), "404"),
        (
            json!({"url": silent, "path": "in", "timeout": "300ms"}),
            "300ms",
        ),
        (
            json!({"url": hello, "path": "in", "sha256": "0".repeat(64)}),
            "SHA-256",
        ),
        (
            json!({"url": hello, "path": "in", "size_bytes": 4}),
            "4 bytes",
        ),
        (json!({"url": "file:///nowhere", "path": "in"}), "/nowhere"),
    ];
    for (input, words) in cases {
        let task = ended(&sandbox, &service, &with(input));
        assert_eq!(task.reason(), "input_missing", "{:#}", task.0);
        let message = task.text("/result/message");
        assert!(message.contains(words), "{message}");
    }
    let refused = with(json!({"url": "ftp://h/x", "path": "../in"}));
    let file = sandbox.file("bad.jsonl", refused.to_string());
    let submit = ["submit", file.to_str().unwrap()];
    service.client(&submit).code(2).says(&["inputs[0]"]);
    service.stop().code(0);
}

#[test]
fn a_cancel_is_heard_while_an_input_is_on_its_way() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let input = json!({"url": web::server(None), "path": "in"});
    let spec = json!({"args": ["true"], "inputs": [input]});
    let file = sandbox.file("spec.jsonl", spec.to_string());
    let uuids = service.submit_file(&file);
    service.until_state(&uuids[0], "running");
    service.client(&["cancel", &uuids[0]]).code(0);
    let task = service.until_state(&uuids[0], "cancelled");
    assert_eq!(task.reason(), "cancelled");
    service.stop().code(0);
}

#[test]
fn a_worker_without_a_manager_brings_artifacts_and_long_output() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let uuid = service.submit("echo r > $MITO_RESULT_DIR/r; seq 20000");
    service.until_all_ended();
    arrived(&service, &uuid, 2);
    let logs = service.client(&["logs", &uuid]).code(0);
    assert_eq!(logs.out().lines().count(), 20000);
    worker.stop().code(0);
    service.stop().code(0);
}

/// Files below a directory, as far as they are names of artifacts.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = |dir: &Path| {
        let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let tasks = entries(dir);
    tasks.iter().flat_map(|task| entries(task)).collect()
}

#[test]
fn a_worker_killed_during_its_upload_costs_the_artifact_and_not_the_result() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    // Incompressible, so that the upload takes a while.
    let line = "head -c 200000000 /dev/urandom > $MITO_RESULT_DIR/f";
    let uuid = service.submit(line);
    let artifacts = service.state_dir.join("artifacts");
    wait::until("the upload to begin", wait::LONG, || {
        let found = files(&artifacts);
        if found.is_empty() {
            Err("no file".to_owned())
        } else {
            Ok(())
        }
    });
    let [worker] = manager.workers(1)[..] else {
        panic!("not one worker");
    };
    processes::send(worker, Signal::KILL);
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.number("/result/exit_code"), Some(0));
    // Whole or not there: an upload that broke off leaves no file, one that was faster than the kill a record.
    wait::until("the upload to end", wait::LONG, || {
        let stored = service.task(&uuid).0["artifacts"]
            .as_array()
            .map_or(0, Vec::len);
        let found = files(&artifacts);
        let is_half = found
            .iter()
            .any(|file| file.to_string_lossy().contains('#'));
        if !is_half && found.len() == stored {
            Ok(())
        } else {
            Err(format!("{found:?}, {stored}"))
        }
    });
    let next = service.submit("echo next");
    service.until_state(&next, "completed");
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn an_artifact_waits_for_a_coordinator_that_is_away() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let [go, done] = ["go", "done"].map(|name| sandbox.path(name));
    let line = format!(
        "until test -e {}; do sleep 0.05; done; echo r > $MITO_RESULT_DIR/r; touch {}",
        go.display(),
        done.display()
    );
    let uuid = service.submit(&line);
    service.until_state(&uuid, "running");
    let killed = service.kill();
    sandbox.file("go", "");
    wait::until("the task to end", wait::LONG, || {
        if done.exists() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        }
    });
    let service = killed.restart();
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.attempts(), 1);
    arrived(&service, &uuid, 1);
    manager.stop().code(0);
    service.stop().code(0);
}
