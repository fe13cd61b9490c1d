//! What a run's end means for the exit code. Pure.
//!
//! A single command lends its own code, in the way shells and `timeout` write it; everything else follows the table
//! of [`crate::exit_code`].

use super::halt::{Halt, What};
use super::ledger::Counts;
use crate::exit_code::Exit;
use crate::protocol::TaskResult;
use crate::protocol::report::Reason;

/// As `timeout` says it.
const TIMED_OUT: u8 = 124;
/// As shells say it when a program is there but cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// As shells say it when there is no such program.
const NOT_FOUND: u8 = 127;
/// Shells add the number of the signal.
const SIGNAL_BASE: i32 = 128;

/// The exit code of a run.
///
/// `single` is the result of the only task where the run was one command. A run that its own rule ended has what it
/// was asked for: enough successes, or, without a failure, enough ends; what was cancelled for it is no failure. A skipped task is no failure: what it needed
/// either ended in another way than it waits for, or was cancelled, and counts itself.
#[must_use]
pub fn exit(
    counts: Counts,
    interrupted: bool,
    halted: Option<Halt>,
    single: Option<&TaskResult>,
) -> Exit {
    if counts.unfinished > 0 {
        return if interrupted {
            Exit::Interrupted
        } else {
            Exit::System
        };
    }
    if let Some(result) = single {
        return of_command(result);
    }
    let bad = match halted.map(|rule| rule.what) {
        Some(What::Success) => 0,
        Some(What::Done) => counts.failed,
        Some(What::Fail) | None => counts.failed + counts.cancelled,
    };
    if bad > 0 { Exit::TaskFailed } else { Exit::Ok }
}

fn of_command(result: &TaskResult) -> Exit {
    let code = match (result.reason, result.exit_code, result.signal) {
        (Reason::Timeout, _, _) => Some(TIMED_OUT),
        (Reason::SpawnFailed, _, _) => Some(of_spawn_failure(result)),
        // Its own code may be that of success.
        (Reason::Leftovers, _, _) => None,
        (_, Some(code), _) => u8::try_from(code).ok(),
        (_, None, Some(signal)) => u8::try_from(SIGNAL_BASE + signal).ok(),
        (_, None, None) => None,
    };
    match code {
        Some(0) => Exit::Ok,
        Some(code) => Exit::Command(code),
        None => Exit::TaskFailed,
    }
}

/// The message is all that tells the two apart.
fn of_spawn_failure(result: &TaskResult) -> u8 {
    let message = result.message.as_deref().unwrap_or_default();
    if message.contains("not executable") || message.contains("ermission denied") {
        NOT_EXECUTABLE
    } else {
        NOT_FOUND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(completed: u64, failed: u64, cancelled: u64, unfinished: u64) -> Counts {
        Counts {
            total: completed + failed + cancelled + unfinished,
            completed,
            failed,
            cancelled,
            unfinished,
            ..Counts::default()
        }
    }

    fn result(reason: Reason, exit_code: Option<i32>, signal: Option<i32>) -> TaskResult {
        TaskResult {
            exit_code,
            signal,
            ..TaskResult::not_started(reason, "no such program", 0)
        }
    }

    #[test]
    fn many_tasks_follow_the_table() {
        assert_eq!(exit(counts(3, 0, 0, 0), false, None, None), Exit::Ok);
        assert_eq!(
            exit(counts(2, 1, 0, 0), false, None, None),
            Exit::TaskFailed
        );
        assert_eq!(
            exit(counts(2, 0, 1, 0), false, None, None),
            Exit::TaskFailed
        );
        assert_eq!(
            exit(counts(2, 1, 0, 1), true, None, None),
            Exit::Interrupted
        );
        assert_eq!(exit(counts(2, 0, 0, 1), false, None, None), Exit::System);
        let skipped = Counts {
            skipped: 1,
            ..counts(3, 0, 0, 0)
        };
        assert_eq!(exit(skipped, false, None, None), Exit::Ok);
        // The signal came when everything was done.
        assert_eq!(exit(counts(3, 0, 0, 0), true, None, None), Exit::Ok);
    }

    #[test]
    fn a_run_that_its_rule_ended_has_what_it_was_asked_for() {
        let code = |rule: &str, counts| exit(counts, false, Some(rule.parse().unwrap()), None);
        assert_eq!(code("now,success=1", counts(1, 2, 3, 0)), Exit::Ok);
        assert_eq!(code("now,done=3", counts(3, 0, 3, 0)), Exit::Ok);
        assert_eq!(code("now,done=3", counts(2, 1, 3, 0)), Exit::TaskFailed);
        assert_eq!(code("now,fail=1", counts(2, 1, 3, 0)), Exit::TaskFailed);
    }

    #[test]
    fn a_single_command_lends_its_code() {
        let code = |result: TaskResult| exit(counts(0, 1, 0, 0), false, None, Some(&result)).code();
        assert_eq!(code(result(Reason::Exit, Some(0), None)), 0);
        assert_eq!(code(result(Reason::Exit, Some(42), None)), 42);
        assert_eq!(code(result(Reason::Signal, None, Some(9))), 137);
        assert_eq!(code(result(Reason::Timeout, None, Some(15))), 124);
        assert_eq!(code(result(Reason::SpawnFailed, None, None)), 127);
        assert_eq!(code(result(Reason::Strikes, None, None)), 1);
        let denied = TaskResult {
            message: Some("./x is not executable".to_owned()),
            ..result(Reason::SpawnFailed, None, None)
        };
        assert_eq!(code(denied), 126);
    }
}
