//! One ended task as the files about a run tell of it: joblog, JUnit report, results. Pure.

use std::time::{Duration, UNIX_EPOCH};

use super::ledger::Place;
use super::plan::command_text;
use crate::protocol::api::TaskDetail;
use crate::protocol::{Outcome, TaskResult};

/// An ended task.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place in the run.
    pub place: Place,
    /// Its command as people write it.
    pub command: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// What was put into its command.
    pub arguments: Vec<String>,
    /// Value of `MITO_ARRAY_INDEX`.
    pub array_index: Option<i64>,
    /// Executions begun.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Details.
    pub result: TaskResult,
}

impl Row {
    /// The row of a task whose end is known.
    #[must_use]
    pub fn of(place: Place, detail: &TaskDetail, outcome: Outcome, result: TaskResult) -> Self {
        Self {
            place,
            command: command_text(&detail.spec),
            args: detail.spec.args.clone(),
            arguments: detail.spec.arguments.clone(),
            array_index: detail.spec.array_index,
            attempts: detail.summary.attempts,
            outcome,
            result,
        }
    }

    /// When it began, in words of RFC 3339; `None` when it did not.
    #[must_use]
    pub fn started_at(&self) -> Option<String> {
        let us = u64::try_from(self.result.started_at_us?).ok()?;
        let at = UNIX_EPOCH + Duration::from_micros(us);
        Some(humantime::format_rfc3339_micros(at).to_string())
    }

    /// How long it ran.
    #[must_use]
    pub fn wall(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.result.wall_us()).unwrap_or(0))
    }

    /// CPU time of it and its descendants.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_micros(self.result.cpu_user_us + self.result.cpu_system_us)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::protocol::report::Reason;

    /// A task that ran for 1.5 s from a well-known second on and exited with `code`.
    pub(crate) fn row(line: u64, command: &str, code: i32) -> Row {
        Row {
            place: Place::line(line),
            command: command.to_owned(),
            args: vec![command.to_owned()],
            arguments: Vec::new(),
            array_index: None,
            attempts: 1,
            outcome: match code {
                0 => Outcome::Completed,
                _ => Outcome::Failed,
            },
            result: TaskResult {
                exit_code: Some(code),
                message: None,
                started_at_us: Some(1_700_000_000_250_000),
                cpu_user_us: 500_000,
                max_rss_bytes: 1 << 20,
                ..TaskResult::not_started(Reason::Exit, "", 1_700_000_001_750_000)
            },
        }
    }

    #[test]
    fn times_are_those_of_the_execution() {
        let mut row = row(1, "true", 0);
        assert_eq!(row.started_at().unwrap(), "2023-11-14T22:13:20.250000Z");
        assert_eq!(row.wall(), Duration::from_millis(1500));
        assert_eq!(row.cpu(), Duration::from_millis(500));
        row.result.started_at_us = None;
        assert_eq!((row.started_at(), row.wall()), (None, Duration::ZERO));
    }
}
