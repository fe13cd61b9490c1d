//! Command lines as they are typed, up to the point where a manager would be needed.

use super::*;

const UUID: &str = "0199c2a4-5b2e-7c60-9a51-0d9f3c8e7b11";

fn exit_of(line: &str) -> Exit {
    main(
        line.replace("UUID", UUID)
            .split_whitespace()
            .map(OsString::from),
    )
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for line in [
        "mitosis-worker --managed",
        "mitosis-worker --managed --manager-uuid UUID",
        "mitosis-worker --managed --manager-uuid UUID --worker-local-id 256",
        "mitosis-worker --managed --manager-uuid UUID --worker-local-id 1 --coordinator-url http://h",
        "mitosis-worker --no-such-flag",
    ] {
        assert_eq!(exit_of(line), Exit::Usage, "{line}");
    }
}

#[test]
fn help_and_version_end_well() {
    assert_eq!(exit_of("mitosis-worker --help"), Exit::Ok);
    assert_eq!(exit_of("mitosis-worker --version"), Exit::Ok);
}

#[test]
fn a_managed_worker_that_no_manager_started_says_that_the_manager_is_gone() {
    let arguments = "--managed --manager-uuid UUID --worker-local-id 7";
    for program in ["mitosis-worker", "mitosis-worker worker"] {
        let exit = exit_of(&format!("{program} {arguments}"));
        assert_eq!(exit, Exit::ManagerGone, "{program}");
    }
}
