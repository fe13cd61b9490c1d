//! One table row per rule of the worker's command line, parsed by clap and judged as in a real start.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    worker: WorkerArgs,
}

const UUID: &str = "0199c2a4-5b2e-7c60-9a51-0d9f3c8e7b11";

fn judge(line: &str, environment: Environment) -> Result<WorkerMode, String> {
    let words = std::iter::once("mitosis-worker").chain(line.split_whitespace());
    let parsed = Line::try_parse_from(words).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    })?;
    parsed
        .worker
        .validate(environment)
        .map_err(|error| error.to_string())
}

fn nothing() -> Environment {
    Environment::default()
}

fn everything() -> Environment {
    Environment {
        coordinator_url: Some("http://127.0.0.1:5000".into()),
        worker_uuid: Some(UUID.into()),
        token: Some(SecretString::from("s3cr3t")),
    }
}

#[track_caller]
fn refused(line: &str, environment: Environment, part: &str) {
    let line = line.replace("UUID", UUID);
    let text = judge(&line, environment).expect_err(&line);
    assert!(text.contains(part), "`{text}` lacks `{part}`");
}

#[track_caller]
fn independent(line: &str, environment: Environment) -> Independent {
    match judge(&line.replace("UUID", UUID), environment) {
        Ok(WorkerMode::Independent(independent)) => *independent,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_managed_worker_is_named_by_manager_and_slot() {
    for (text, id) in [("0", 0), ("17", 17), ("255", 255)] {
        for flag in ["--worker-local-id", "--worker-id"] {
            let line = format!("--managed --manager-uuid {UUID} {flag} {text}");
            match judge(&line, nothing()) {
                Ok(WorkerMode::Managed { manager, local_id }) => {
                    assert_eq!(
                        (manager.to_string().as_str(), local_id),
                        (UUID, LocalId(id))
                    );
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_managed_worker_needs_both_names() {
    refused("--managed", nothing(), "--manager-uuid");
    refused("--managed --worker-local-id 1", nothing(), "--manager-uuid");
    refused(
        "--managed --manager-uuid UUID",
        nothing(),
        "--worker-local-id",
    );
}

#[test]
fn a_slot_is_a_number_from_0_to_255() {
    for bad in ["256", "-1", "x", "1.5", "4294967296"] {
        let line = format!("--managed --manager-uuid UUID --worker-local-id={bad}");
        refused(&line, nothing(), "--worker-local-id");
    }
}

#[test]
fn a_manager_uuid_is_a_uuid() {
    refused(
        "--managed --manager-uuid 7 --worker-local-id 1",
        nothing(),
        "--manager-uuid",
    );
}

#[test]
fn a_managed_worker_takes_no_flag_of_an_independent_one() {
    for flag in [
        "--coordinator-url http://127.0.0.1:1",
        "--worker-uuid UUID",
        "--tags a",
        "--label a=b",
        "--token-file f",
        "--state-dir d",
    ] {
        let line = format!("--managed --manager-uuid UUID --worker-local-id 1 {flag}");
        let name = flag.split(' ').next().unwrap_or_default();
        refused(&line, nothing(), name);
        refused(&line, nothing(), "--managed");
    }
}

#[test]
fn the_environment_does_not_disturb_a_managed_worker() {
    let line = format!("--managed --manager-uuid {UUID} --worker-local-id 1");
    let environment = Environment {
        coordinator_url: Some("no address".into()),
        worker_uuid: Some("no uuid".into()),
        token: Some(SecretString::from("s3cr3t")),
    };
    assert!(matches!(
        judge(&line, environment),
        Ok(WorkerMode::Managed { .. })
    ));
}

#[test]
fn the_environment_does_not_make_up_for_missing_managed_flags() {
    refused("--managed", everything(), "--manager-uuid");
}

#[test]
fn an_independent_worker_names_no_slot() {
    refused("--manager-uuid UUID", everything(), "--manager-uuid");
    refused("--worker-local-id 3", everything(), "--worker-local-id");
}

#[test]
fn an_independent_worker_needs_a_coordinator() {
    refused("", nothing(), "--coordinator-url");
    let empty = Environment {
        coordinator_url: Some(OsString::new()),
        ..everything()
    };
    refused("", empty, "--coordinator-url");
}

#[test]
fn a_coordinator_is_an_http_address_without_a_password() {
    for bad in [
        "127.0.0.1:5000",
        "ftp://host",
        "http://",
        "unix:/run/x",
        "localhost:5000",
    ] {
        refused(
            &format!("--coordinator-url {bad}"),
            everything(),
            "--coordinator-url",
        );
    }
    let line = "--coordinator-url http://me:hunter2@host:1";
    refused(line, everything(), "--coordinator-url");
    let text = judge(line, everything()).expect_err("refused");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn flags_win_over_the_environment() {
    let other = "0199c2a4-5b2e-7c60-9a51-0d9f3c8e7b12";
    let line = format!("--coordinator-url https://host --worker-uuid {other} --token-file f");
    let worker = independent(&line, everything());
    assert_eq!(worker.coordinator.as_str(), "https://host/");
    assert_eq!(
        worker.worker.map(|uuid| uuid.to_string()).as_deref(),
        Some(other)
    );
    assert!(matches!(worker.token, TokenSource::File(_)));
}

#[test]
fn the_environment_alone_makes_an_independent_worker() {
    let worker = independent("", everything());
    assert_eq!(worker.coordinator.as_str(), "http://127.0.0.1:5000/");
    assert_eq!(
        worker.worker.map(|uuid| uuid.to_string()).as_deref(),
        Some(UUID)
    );
    assert!(matches!(worker.token, TokenSource::Given(_)));
}

#[test]
fn a_bad_worker_uuid_names_where_it_came_from() {
    let environment = || Environment {
        worker_uuid: Some("seven".into()),
        ..everything()
    };
    refused("", environment(), WORKER_UUID);
    refused("--worker-uuid seven", everything(), "--worker-uuid");
    assert!(
        independent("--worker-uuid UUID", environment())
            .worker
            .is_some()
    );
    let empty = Environment {
        worker_uuid: Some(OsString::new()),
        ..everything()
    };
    assert!(independent("", empty).worker.is_none());
}

#[test]
fn an_independent_worker_needs_a_token_and_takes_none_as_an_argument() {
    refused("--coordinator-url http://h", nothing(), "MITOSIS_TOKEN");
    refused("--coordinator-url http://h", nothing(), "--token-file");
    refused(
        "--coordinator-url http://h --token abc",
        nothing(),
        "--token",
    );
}

#[test]
fn tags_and_labels_are_split_and_checked() {
    let worker = independent(
        "--tags gpu,big --tags fast --label a=b --label c=d=e",
        everything(),
    );
    assert_eq!(worker.tags, ["gpu", "big", "fast"]);
    assert_eq!(worker.labels.get("c").map(String::as_str), Some("d=e"));
    refused("--tags a,,b", everything(), "--tags");
    refused("--label nothing", everything(), "--label");
    refused("--label =x", everything(), "--label");
}

#[test]
fn the_deadline_after_a_signal_is_a_duration() {
    refused(
        "--shutdown-deadline soon",
        everything(),
        "--shutdown-deadline",
    );
    let words = ["mitosis-worker", "--shutdown-deadline", "1500ms"];
    let parsed = Line::try_parse_from(words).expect("a duration");
    assert_eq!(
        parsed.worker.shutdown_deadline(),
        Duration::from_millis(1500)
    );
    assert_eq!(
        WorkerArgs::default().shutdown_deadline(),
        DEFAULT_SHUTDOWN_DEADLINE
    );
}

#[test]
fn neither_debug_nor_help_shows_a_token() {
    let shown = format!("{:?} {:?}", everything(), independent("", everything()));
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let help = Line::try_parse_from(["mitosis-worker", "--help"]).expect_err("help");
    assert!(help.to_string().contains(COORDINATOR_URL));
}
