//! What a holder says about a task, and what it is answered.
//!
//! A report names both fences. Its receiver answers with a [`Verdict`]; only `Accepted` and `Duplicate` close the
//! report, and a `success: false` is never mistaken for a delivery.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::artifact::Artifact;
use super::byte_text;
use super::ids::{Lease, TaskRef, Try};

/// One report, numbered by its sender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskReport {
    /// Number of the report, from 1 per incarnation; resending keeps it.
    pub seq: u64,
    /// The store's row id.
    pub task_id: i64,
    /// The name users see.
    pub task_uuid: Uuid,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    #[serde(rename = "try")]
    pub try_no: Try,
    /// What happened.
    pub op: ReportTaskOp,
}

impl TaskReport {
    /// Both names of the task.
    #[must_use]
    pub fn task(&self) -> TaskRef {
        TaskRef {
            id: self.task_id,
            uuid: self.task_uuid,
        }
    }
}

/// What happened to the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub enum ReportTaskOp {
    /// An execution has begun.
    Started {
        /// Microseconds since the Unix epoch.
        at_us: i64,
    },
    /// It exited with code 0.
    Completed(TaskResult),
    /// It ended in any other way, or could not start.
    Failed(TaskResult),
    /// It was ended, or not started, at a user's wish.
    Cancelled(TaskResult),
    /// Handed back without an end: somebody else may run it.
    Released {
        /// Why, for the record.
        reason: String,
    },
}

impl ReportTaskOp {
    /// The op that reports `result`.
    #[must_use]
    pub fn ended(result: TaskResult) -> Self {
        match Self::outcome_of(&result) {
            Outcome::Completed => Self::Completed(result),
            Outcome::Cancelled => Self::Cancelled(result),
            Outcome::Failed => Self::Failed(result),
        }
    }

    /// How a task with this result ended.
    #[must_use]
    pub fn outcome_of(result: &TaskResult) -> Outcome {
        match result.reason {
            Reason::Exit if result.exit_code == Some(0) => Outcome::Completed,
            Reason::Cancelled => Outcome::Cancelled,
            _ => Outcome::Failed,
        }
    }

    /// The result, if this op ends the task.
    #[must_use]
    pub fn result(&self) -> Option<(Outcome, &TaskResult)> {
        match self {
            Self::Completed(result) => Some((Outcome::Completed, result)),
            Self::Failed(result) => Some((Outcome::Failed, result)),
            Self::Cancelled(result) => Some((Outcome::Cancelled, result)),
            Self::Started { .. } | Self::Released { .. } => None,
        }
    }

    /// Notes when the task was handed to the worker that ended it.
    pub fn set_handed_over(&mut self, at_us: i64) {
        if let Self::Completed(result) | Self::Failed(result) | Self::Cancelled(result) = self {
            result.handed_over_at_us = Some(at_us);
        }
    }

    /// True when the holder is through with the task.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Started { .. })
    }
}

/// The three ends of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Any other end.
    Failed,
    /// Ended at a user's wish.
    Cancelled,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Cancelled];

    /// The word used as a metric label and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a task ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The program exited; see the exit code.
    Exit,
    /// A signal that nobody here sent ended it.
    Signal,
    /// It ran longer than its time limit.
    Timeout,
    /// The memory limit ended it.
    Oom,
    /// A user cancelled it.
    Cancelled,
    /// Its machine is needed for something else.
    Preempted,
    /// The program could not be started.
    SpawnFailed,
    /// An input file is missing or differs.
    InputMissing,
    /// A task it depends on did not end as required.
    UpstreamFailed,
    /// Another task of its suite failed and the suite stops at the first failure.
    FailFast,
    /// Its worker or manager was lost and no attempt is left.
    WorkerLost,
    /// It took too many workers down with it.
    Strikes,
    /// It left processes behind, which was to be a failure.
    Leftovers,
    /// It ended well, and what it wrote could not be kept.
    OutputLost,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Exit,
        Self::Signal,
        Self::Timeout,
        Self::Oom,
        Self::Cancelled,
        Self::Preempted,
        Self::SpawnFailed,
        Self::InputMissing,
        Self::UpstreamFailed,
        Self::FailFast,
        Self::WorkerLost,
        Self::Strikes,
        Self::Leftovers,
        Self::OutputLost,
    ];

    /// True for failures that a further attempt may not have. The others say that there is nothing to try (cancelled,
    /// upstream, fail-fast) or that trying has been given up already (lost, strikes).
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Exit
            | Self::Signal
            | Self::Timeout
            | Self::Oom
            | Self::Preempted
            | Self::SpawnFailed
            | Self::InputMissing
            | Self::Leftovers
            | Self::OutputLost => true,
            Self::Cancelled
            | Self::UpstreamFailed
            | Self::FailFast
            | Self::WorkerLost
            | Self::Strikes => false,
        }
    }

    /// The word used in the API, as a metric label and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Oom => "oom",
            Self::Cancelled => "cancelled",
            Self::Preempted => "preempted",
            Self::SpawnFailed => "spawn_failed",
            Self::InputMissing => "input_missing",
            Self::UpstreamFailed => "upstream_failed",
            Self::FailFast => "fail_fast",
            Self::WorkerLost => "worker_lost",
            Self::Strikes => "strikes",
            Self::Leftovers => "leftovers",
            Self::OutputLost => "output_lost",
        }
    }
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskResult {
    /// Why.
    pub reason: Reason,
    /// Exit code, when the program exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal number, when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// A sentence for people, where the reason alone does not say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When its manager handed it to the worker, in microseconds since the Unix epoch; absent without a manager, and
    /// where nobody got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_at_us: Option<i64>,
    /// When the spawn call returned, in microseconds since the Unix epoch; absent when nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_us: Option<i64>,
    /// When the end was seen, in microseconds since the Unix epoch.
    pub ended_at_us: i64,
    /// CPU time of the child and its waited-for descendants in user mode, in microseconds.
    #[serde(default)]
    pub cpu_user_us: u64,
    /// The same in system mode.
    #[serde(default)]
    pub cpu_system_us: u64,
    /// Peak resident memory of the largest process, in bytes.
    #[serde(default)]
    pub max_rss_bytes: u64,
    /// Standard output.
    #[serde(default)]
    pub stdout: Output,
    /// Standard error.
    #[serde(default)]
    pub stderr: Output,
    /// What it submitted through `MITO_NEW_TASK`, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_ups: Option<Box<FollowUps>>,
    /// What the task left beside its output. The bytes follow, or have followed, by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What it wrote to `result.json` in its result directory, at most [`MAX_VALUE_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Box<serde_json::Value>>,
    /// Processes that it left behind, which were ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<Box<Leftovers>>,
    /// True for a shell line that was executed without a shell, because it needed none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

/// What a task that ended by itself had still running then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Leftovers {
    /// Processes that were killed.
    pub killed: u32,
    /// The names of some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = if self.killed == 1 {
            "process"
        } else {
            "processes"
        };
        write!(f, "{} {processes} left behind and killed", self.killed)?;
        if !self.names.is_empty() {
            write!(f, ": {}", self.names.join(", "))?;
        }
        Ok(())
    }
}

/// Most bytes of a `result.json`.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Most bytes of follow-up tasks of one task.
pub const MAX_FOLLOW_UP_BYTES: usize = 1 << 20;
/// Most follow-up tasks of one task.
pub const MAX_FOLLOW_UPS: usize = 1000;
/// Refused lines that are told one by one.
const TOLD_PROBLEMS: usize = 10;
/// Most bytes that are told of one of them.
const PROBLEM_BYTES: usize = 1000;

/// What a task submitted through `MITO_NEW_TASK`, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct FollowUps {
    /// The lines as the task wrote them, on their way to the coordinator; it takes them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<String>,
    /// Tasks that were accepted.
    pub accepted: u32,
    /// Lines that were refused.
    pub rejected: u32,
    /// Why, line by line; the first ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl FollowUps {
    /// Lines to be looked at by the coordinator.
    #[must_use]
    pub fn written(lines: String) -> Self {
        Self {
            lines: Some(lines),
            ..Self::default()
        }
    }

    /// Notes a refused line, or a refused file. Words that quote a whole line are cut.
    pub fn reject(&mut self, mut why: String) {
        self.rejected += 1;
        if self.problems.len() < TOLD_PROBLEMS {
            if why.len() > PROBLEM_BYTES {
                let cut = (0..=PROBLEM_BYTES)
                    .rev()
                    .find(|at| why.is_char_boundary(*at));
                why.truncate(cut.unwrap_or(0));
                why.push('…');
            }
            self.problems.push(why);
        }
    }

    /// Takes back what was accepted, all for one reason.
    pub fn reject_all(&mut self, why: &str) {
        self.rejected += std::mem::take(&mut self.accepted);
        self.problems.insert(0, why.to_owned());
    }
}

impl TaskResult {
    /// A result of a task that was never started.
    #[must_use]
    pub fn not_started(reason: Reason, message: impl Into<String>, ended_at_us: i64) -> Self {
        Self {
            reason,
            exit_code: None,
            signal: None,
            message: Some(message.into()),
            handed_over_at_us: None,
            started_at_us: None,
            ended_at_us,
            cpu_user_us: 0,
            cpu_system_us: 0,
            max_rss_bytes: 0,
            stdout: Output::default(),
            stderr: Output::default(),
            follow_ups: None,
            artifacts: Vec::new(),
            value: None,
            leftovers: None,
            direct: false,
        }
    }

    /// Adds a sentence for people to what is said already.
    pub fn note(&mut self, text: &str) {
        let message = self.message.get_or_insert_default();
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(text);
    }

    /// Wall time of the execution in microseconds; 0 when nothing was started.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        self.started_at_us
            .map_or(0, |started| (self.ended_at_us - started).max(0))
    }
}

/// Bytes of a stream that are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// How many bytes the task wrote before them.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

impl fmt::Display for Gap {
    /// `OFFSET+BYTES`, as in a header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.bytes)
    }
}

impl Gap {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (offset, bytes) = text.split_once('+')?;
        Some(Self {
            offset: offset.parse().ok()?,
            bytes: bytes.parse().ok()?,
        })
    }

    /// How many bytes the task had written when the last of them was.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// One captured stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Output {
    /// Bytes the task wrote.
    pub bytes: u64,
    /// True when the middle was dropped to keep the capture limit.
    pub truncated: bool,
    /// What was dropped. What is kept has the bytes before and behind it and nothing between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The last bytes, at most [`super::task::OUTPUT_TAIL_BYTES`]. In JSON a string; bytes that are no UTF-8 are
    /// replaced, the file has them unchanged.
    #[serde(with = "tail_bytes")]
    #[schema(value_type = String)]
    pub tail: Vec<u8>,
    /// Where the kept output lies on the machine that ran the task, when it is longer than the tail.
    #[serde(
        with = "byte_text::optional_path",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
}

impl Output {
    /// True when the tail is the whole output.
    #[must_use]
    pub fn tail_is_whole(&self) -> bool {
        self.bytes == self.tail.len() as u64
    }
}

mod tail_bytes {
    //! Bytes as a binary string on the wire and as text in JSON.

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&String::from_utf8_lossy(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer).map(String::into_bytes)
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(serde_bytes::ByteBuf::into_vec)
        }
    }
}

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportTaskResp {
    /// True exactly when the report is closed: accepted now or earlier.
    pub success: bool,
    /// Where to upload artifacts, if any are wanted: a path of the coordinator, or a whole address, with `{kind}` where
    /// the artifact's kind belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What became of the report.
    pub verdict: Verdict,
    /// Every report of the sender up to this number is durable with the receiver.
    #[serde(default)]
    pub acked_through: u64,
}

impl ReportTaskResp {
    /// The answer for `verdict`.
    #[must_use]
    pub fn of(verdict: Verdict, acked_through: u64) -> Self {
        Self {
            success: verdict.closes(),
            url: None,
            verdict,
            acked_through,
        }
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Durable with the receiver. For `Started`: run it.
    Accepted,
    /// The same report was accepted before.
    Duplicate,
    /// For `Started` only: recorded, but a cancel was faster. Do not run it; report `Cancelled`.
    Cancel,
    /// A newer lease or try exists, or the task is terminal: forget it, end what runs.
    Stale,
    /// The task is not the sender's.
    NotOwner,
    /// The report makes no sense; sending it again will not help.
    Invalid {
        /// What is wrong.
        message: String,
    },
    /// Try again after the pause.
    RetryLater {
        /// Pause in milliseconds.
        after_ms: u64,
    },
}

impl Verdict {
    /// True when the report is delivered.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate | Self::Cancel)
    }

    /// True when sending the same report again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::RetryLater { .. })
    }

    /// The word used as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Cancel => "cancel",
            Self::Stale => "stale",
            Self::NotOwner => "not_owner",
            Self::Invalid { .. } => "invalid",
            Self::RetryLater { .. } => "retry_later",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(reason: Reason, exit_code: Option<i32>) -> TaskResult {
        TaskResult {
            exit_code,
            ..TaskResult::not_started(reason, "", 0)
        }
    }

    #[test]
    fn only_exit_code_zero_completes() {
        let outcome = |r| ReportTaskOp::ended(r).result().map(|(outcome, _)| outcome);
        assert_eq!(
            outcome(result(Reason::Exit, Some(0))),
            Some(Outcome::Completed)
        );
        assert_eq!(
            outcome(result(Reason::Exit, Some(3))),
            Some(Outcome::Failed)
        );
        assert_eq!(
            outcome(result(Reason::Timeout, None)),
            Some(Outcome::Failed)
        );
        assert_eq!(
            outcome(result(Reason::Cancelled, None)),
            Some(Outcome::Cancelled)
        );
    }

    #[test]
    fn a_refused_report_is_no_success() {
        for verdict in [
            Verdict::Stale,
            Verdict::NotOwner,
            Verdict::RetryLater { after_ms: 1 },
        ] {
            assert!(!ReportTaskResp::of(verdict, 0).success);
        }
        assert!(ReportTaskResp::of(Verdict::Duplicate, 0).success);
    }

    #[test]
    fn output_that_is_no_text_survives_the_wire_and_is_readable_in_json() {
        let output = Output {
            bytes: 3,
            tail: vec![b'a', 0xff, b'b'],
            ..Output::default()
        };
        let back: Output =
            rmp_serde::from_slice(&rmp_serde::to_vec_named(&output).unwrap()).unwrap();
        assert_eq!(back, output);
        assert!(
            serde_json::to_string(&output)
                .unwrap()
                .contains("a\u{fffd}b")
        );
    }
}
