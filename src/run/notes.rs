//! Sentences that a run writes to stderr. Pure: facts in, text out.

use std::path::Path;
use std::time::Duration;

use super::halt::Halt;
use super::ledger::Place;
use super::quote::{shell_word, shortened};
use super::summary::{plural, span};
use crate::protocol::TaskResult;
use crate::protocol::byte_text;
use crate::protocol::report::{Output, Reason};

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 100;
/// Lines of standard error that are shown.
const STDERR_LINES: usize = 5;
/// Characters of each.
const STDERR_WIDTH: usize = 200;

/// How a task ended, in a few words, and after which time.
#[must_use]
pub fn how(result: &TaskResult) -> String {
    let after = match result.wall_us() {
        0 => String::new(),
        us => format!(" after {}", span(Duration::from_micros(us.unsigned_abs()))),
    };
    in_words(result, &after)
}

/// How a task ended, in a few words.
#[must_use]
pub fn end(result: &TaskResult) -> String {
    in_words(result, "")
}

fn in_words(result: &TaskResult, after: &str) -> String {
    let what = match (result.reason, result.exit_code, result.signal) {
        (Reason::Exit, Some(code), _) => format!("exit code {code}"),
        (Reason::Signal, _, Some(signal)) => format!("killed by signal {signal}"),
        (Reason::Timeout, _, _) => "time limit".to_owned(),
        (reason, _, _) => reason.as_str().replace('_', " "),
    };
    match &result.message {
        Some(message) if !message.is_empty() => format!("{what}{after}: {message}"),
        _ => format!("{what}{after}"),
    }
}

/// The note about a failed task. The end of its standard error is added where the user does not see it anyway.
#[must_use]
pub fn failure(place: Place, command: &str, result: &TaskResult, show_stderr: bool) -> String {
    let command = shortened(command.trim(), COMMAND_WIDTH);
    let mut note = format!("failed: line {place}, {}: {command}", how(result));
    if show_stderr {
        for line in last_lines(&result.stderr) {
            note.push_str("\n    ");
            note.push_str(&shortened(&line, STDERR_WIDTH));
        }
    }
    note
}

/// The note about follow-up tasks that were refused, if any were.
#[must_use]
pub fn refused_follow_ups(place: Place, result: &TaskResult) -> Option<String> {
    let follow_ups = result.follow_ups.as_ref()?;
    let refused = plural(follow_ups.rejected.into(), "follow-up");
    (follow_ups.rejected > 0).then(|| {
        let mut note = format!("line {place}: {refused} refused:");
        for problem in &follow_ups.problems {
            note.push_str("\n    ");
            note.push_str(&shortened(problem, STDERR_WIDTH));
        }
        note
    })
}

/// The note about processes that a task left behind, if there were any.
#[must_use]
pub fn leftovers(place: Place, result: &TaskResult) -> Option<String> {
    let leftovers = result.leftovers.as_ref()?;
    Some(format!("line {place}: {leftovers}"))
}

/// The last lines of an output that are not blank.
pub(super) fn last_lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.tail);
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(STDERR_LINES)
        .map(str::to_owned)
        .collect();
    lines.reverse();
    lines
}

/// Said when a rule ends the run and `rest` tasks are left.
#[must_use]
pub fn halted(rule: Halt, rest: u64) -> String {
    if rule == Halt::FAIL_FAST {
        format!("mitosis: --fail-fast: cancelling {rest} more")
    } else {
        format!("mitosis: --halt {rule}: cancelling {rest} more")
    }
}

/// Said at the first signal.
#[must_use]
pub fn stopping(running: u64, deadline: Duration) -> String {
    let running = still_running(running, deadline);
    format!("mitosis: stopping: nothing new begins, {running}; interrupt again to stop at once")
}

/// Said when the allocation is about to end.
#[must_use]
pub fn preempted(running: u64, deadline: Duration) -> String {
    let running = still_running(running, deadline);
    format!("mitosis: the Slurm job is about to end: nothing new begins, {running}")
}

fn still_running(running: u64, deadline: Duration) -> String {
    match running {
        0 => "nothing is running".to_owned(),
        count => format!(
            "{} may end within {}",
            plural(count, "running task"),
            humantime::format_duration(Duration::from_secs(deadline.as_secs()))
        ),
    }
}

/// How to go on with what is left in a state directory.
#[must_use]
pub fn resume_command(state_dir: &Path, again: &[String]) -> String {
    let state_dir = byte_text::of_os(state_dir.as_os_str());
    let mut command = format!("mitosis run --state-dir {}", shell_word(&state_dir));
    for word in again {
        command.push(' ');
        command.push_str(&shell_word(word));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> TaskResult {
        TaskResult {
            exit_code: Some(2),
            message: None,
            started_at_us: Some(1_000_000),
            stderr: Output {
                tail: b"one\n\ntwo\n\x1b[31mthree\n".to_vec(),
                ..Output::default()
            },
            ..TaskResult::not_started(Reason::Exit, "", 2_500_000)
        }
    }

    #[test]
    fn a_failure_names_line_end_and_command() {
        assert_eq!(
            failure(Place::line(7), "  false\t&& true", &result(), false),
            "failed: line 7, exit code 2 after 1.50 s: false && true"
        );
        let shown = failure(Place::line(7), "false", &result(), true);
        assert!(
            shown.ends_with("\n    one\n    two\n     [31mthree"),
            "{shown:?}"
        );
    }

    #[test]
    fn a_task_that_never_began_says_why() {
        let result = TaskResult::not_started(Reason::SpawnFailed, "`nope` is not in PATH", 5);
        assert_eq!(how(&result), "spawn failed: `nope` is not in PATH");
    }

    #[test]
    fn the_resume_command_can_be_pasted() {
        let command = resume_command(
            Path::new("/tmp/a b"),
            &["--workers".to_owned(), "2".to_owned()],
        );
        assert_eq!(command, "mitosis run --state-dir '/tmp/a b' --workers 2");
    }

    #[test]
    fn the_first_signal_is_answered_with_what_happens() {
        let text = stopping(2, Duration::from_secs(10));
        assert!(
            text.contains("2 running tasks may end within 10s"),
            "{text}"
        );
        assert!(stopping(0, Duration::ZERO).contains("nothing is running"));
    }
}
