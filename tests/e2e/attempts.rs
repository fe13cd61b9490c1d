//! Attempts that failed stay visible: what each of them wrote, also when a later one succeeded.

use serde_json::json;

use crate::support::{Sandbox, Service};

/// Fails once; the first attempt writes more than travels with a result.
const SCRIPT: &str = "echo try $MITO_ATTEMPT; echo aside $MITO_ATTEMPT >&2; [ $MITO_ATTEMPT = 2 ] || seq 5000; \
                      [ $MITO_ATTEMPT = 2 ]";

fn spec() -> String {
    json!({"args": ["sh", "-c", SCRIPT], "max_attempts": 2, "backoff": {"initial": "0s"}})
        .to_string()
}

fn first_attempt() -> String {
    let numbers: String = (1..=5000).map(|number| format!("{number}\n")).collect();
    format!("try 1\n{numbers}")
}

#[test]
fn the_output_of_each_attempt_is_kept() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service
        .submit_file(&sandbox.file("twice.jsonl", spec()))
        .remove(0);
    service.until_state(&uuid, "completed");
    let dir = service.state_dir.clone();
    let check = |logs: &dyn Fn(&[&str]) -> crate::support::program::Finished| {
        let first = logs(&["--attempt", "1", &uuid]).code(0);
        assert_eq!(first.out(), first_attempt());
        assert_eq!(first.stderr, "aside 1\n");
        let second = logs(&["--attempt", "2", &uuid]).code(0);
        assert_eq!((&*second.out(), &*second.stderr), ("try 2\n", "aside 2\n"));
        assert_eq!(logs(&[&uuid]).code(0).out(), "try 2\n");
        logs(&["--attempt", "3", &uuid])
            .code(2)
            .says(&["there were 2"]);
    };
    check(&|options| service.client(&[&["logs"], options].concat()));
    service.client(&["logs", "--attempt", "0", &uuid]).code(2);
    service
        .client(&["logs", "-f", "--attempt", "1", &uuid])
        .code(2);
    let waiting = service.submit("sleep 600");
    service.until_state(&waiting, "running");
    service
        .client(&["logs", "--attempt", "1", &waiting])
        .code(2)
        .says(&["it has not ended"]);
    service.client(&["cancel", &waiting]).code(0);
    service.until_state(&waiting, "cancelled");
    service.stop().code(0);
    // With nobody running the store is read.
    let dir = dir.to_str().unwrap();
    check(&|options| sandbox.run([&["logs", "--state-dir", dir], options].concat()));
}

#[test]
fn of_an_attempt_elsewhere_the_end_is_kept_and_the_rest_is_told() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let uuid = service
        .submit_file(&sandbox.file("twice.jsonl", spec()))
        .remove(0);
    service.until_state(&uuid, "completed");
    let first = service.client(&["logs", "--attempt", "1", &uuid]).code(0);
    assert!(first.out().ends_with("4999\n5000\n"), "{}", first.out());
    let missing = first_attempt().len() - first.out().len();
    if missing > 0 {
        first.says(&[&format!("{missing} bytes")]);
    }
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_run_names_what_was_retried_and_keeps_what_it_wrote() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("twice.jsonl", spec());
    let run = ["run", "--state-dir", "kept", file.to_str().unwrap()];
    let ran = sandbox.run(run).code(0);
    assert_eq!(ran.out(), "try 2\n");
    ran.says(&["1 retried"]);
    let logs = ["logs", "--state-dir", "kept", "--attempt", "1", "last"];
    assert_eq!(sandbox.run(logs).code(0).out(), first_attempt());
}
