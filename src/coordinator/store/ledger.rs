//! The life of one task as a pure state machine: every fence, retry and requeue decision is made here.
//!
//! An implementation of [`super::Store`] reads [`Record`]s under a write lock, applies the methods below, and writes
//! the records and the collected [`Effects`] back in the same transaction. There is no I/O and no clock in here.
//!
//! ```text
//!   pending --due, upstream met--> ready --grant--> assigned --Started--> running
//!    ^   |                           ^                  |                    |
//!    |   |                           +-- taken back ----+--------------------+   (lease ran out, released, holder left)
//!    +---|---- failed, attempts left -------------------+--------------------+
//!        |                                              +--------------------+--> completed | failed | cancelled
//!        +-- upstream ended otherwise --> failed | cancelled                                       (never left)
//! ```
//!
//! What ends mean for tasks that wait for them is in [`chain`].
//!
//! A lease is *settled* once a final report was accepted under it; the same report then is a duplicate, any other is
//! stale. A lease that was taken back is not settled: its result is still welcome while no newer lease exists.

use std::time::Duration;

use uuid::Uuid;

use super::clock::whole_us;
use super::model::{CancelWish, HolderId, ReclaimCause, Reclaimed};
use crate::protocol::ids::{Lease, TaskRef, Try};
use crate::protocol::report::Reason;
use crate::protocol::session::{Commit, HeldLease, LostTry};
use crate::protocol::task::Backoff;
use crate::protocol::{Outcome, ReportTaskOp, TaskResult, TaskState, Verdict};

pub mod chain;

/// When the execution began that a report is about, if it says so.
fn begun_at(op: &ReportTaskOp) -> Option<i64> {
    match op {
        ReportTaskOp::Started { at_us } => Some(*at_us),
        ReportTaskOp::Completed(result)
        | ReportTaskOp::Failed(result)
        | ReportTaskOp::Cancelled(result) => result.started_at_us,
        ReportTaskOp::Released { .. } => None,
    }
}

#[cfg(test)]
mod tests;

/// The final report that was accepted under a task's last lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Settled {
    /// None yet.
    #[default]
    Open,
    /// A result.
    Ended(Outcome),
    /// The task was handed back.
    Released,
}

/// One task: what decisions depend on and what they change.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Both names.
    pub task: TaskRef,
    /// The suite's row id.
    pub suite: i64,
    /// The suite's name.
    pub suite_uuid: Uuid,
    /// Row id of the demand that claims are matched by.
    pub demand: i64,
    /// Where the task stands.
    pub state: TaskState,
    /// The last lease; 0 when none was granted.
    pub lease: Lease,
    /// The final report accepted under it.
    pub settled: Settled,
    /// Who has the task now.
    pub holder: Option<HolderId>,
    /// Who had it last: the only one whose reports count.
    pub last_holder: Option<HolderId>,
    /// A cancel that was asked for.
    pub cancel: Option<CancelWish>,
    /// Highest number of an execution.
    pub attempts: u32,
    /// Executions that failed, and starts that failed.
    pub failures: u32,
    /// How many may fail.
    pub max_attempts: u32,
    /// Pause between failures.
    pub backoff: Option<Backoff>,
    /// Failures that are tried again; `None` for every kind that may be.
    pub retry_on: Option<Vec<Reason>>,
    /// Upstream tasks whose end is still awaited.
    pub waits: u32,
    /// The execution begun under the last lease; 0 when none was.
    pub open_attempt: u32,
    /// Since when the task waits in the queue: acceptance, the end of its back-off (also while that is to come), or the
    /// end of its last lease. Microseconds since the epoch.
    pub queued_us: i64,
    /// When the last lease was granted.
    pub claimed_us: Option<i64>,
    /// When the last execution began.
    pub started_us: Option<i64>,
    /// When the terminal state was stored.
    pub finished_us: Option<i64>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Exit code of the end.
    pub exit_code: Option<i32>,
    /// Why the task waits again, or waited before its last grant.
    pub requeue_cause: Option<String>,
}

/// A row of the attempts table: inserted, or its end brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptWrite {
    /// The task.
    pub task_id: i64,
    /// Number of the execution.
    pub attempt: u32,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    pub try_no: Try,
    /// Who executed it.
    pub holder: Option<HolderId>,
    /// When it began.
    pub started_us: i64,
    /// When its end was stored.
    pub ended_us: Option<i64>,
    /// How it ended.
    pub end: Option<String>,
    /// Why it was not the first execution.
    pub cause: Option<String>,
}

/// A task that reached its terminal state.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The task.
    pub task: TaskRef,
    /// Its suite.
    pub suite_uuid: Uuid,
    /// How.
    pub outcome: Outcome,
    /// Executions begun.
    pub attempts: u32,
    /// Details.
    pub result: TaskResult,
}

/// How an attempt ended that is followed by another one.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedAttempt {
    /// The task's row id.
    pub task_id: i64,
    /// Its number.
    pub attempt: u32,
    /// How it ended, and what it wrote.
    pub result: TaskResult,
}

/// What decisions ask for besides the changed records.
#[derive(Debug, Default)]
pub struct Effects {
    /// Rows of the attempts table, in order.
    pub attempts: Vec<AttemptWrite>,
    /// Tasks that ended, in order.
    pub finished: Vec<Finish>,
    /// Results of attempts that are followed by another one.
    pub failed: Vec<FailedAttempt>,
    /// Leases taken back.
    pub reclaimed: Vec<Reclaimed>,
    /// Holders whose cancel orders changed; may repeat.
    pub cancels: Vec<HolderId>,
    /// Reports refused as stale.
    pub stale: u64,
    /// Earliest end of a back-off.
    pub due_us: Option<i64>,
}

impl Record {
    /// Grants the task under the next lease: above all earlier ones, of the epoch given.
    pub fn grant(&mut self, epoch: u32, holder: HolderId, now_us: i64) -> Lease {
        self.lease = if self.lease.epoch() == epoch {
            Lease(self.lease.0 + 1)
        } else {
            Lease::new(epoch, 1)
        };
        self.state = TaskState::Assigned;
        self.settled = Settled::Open;
        self.holder = Some(holder);
        self.last_holder = Some(holder);
        self.open_attempt = 0;
        self.claimed_us = Some(now_us);
        self.lease
    }

    /// Settles one line of an inventory: true when the lease is the holder's. One that was taken back and not granted
    /// again becomes the holder's again, and so does the execution that was given up with it.
    pub fn keep(&mut self, holder: HolderId, lease: Lease, fx: &mut Effects) -> bool {
        if lease != self.lease
            || self.settled != Settled::Open
            || self.last_holder != Some(holder)
            || self.state.is_terminal()
        {
            return false;
        }
        if self.state == TaskState::Ready {
            self.holder = Some(holder);
            self.state = TaskState::Assigned;
            if self.open_attempt > 0 {
                self.state = TaskState::Running;
                fx.attempts.push(self.open_attempt_row(None, None));
            }
        }
        true
    }

    /// Takes the lease back from its holder. A task whose cancel was asked for ends with it.
    pub fn take_back(&mut self, cause: ReclaimCause, words: &str, now_us: i64, fx: &mut Effects) {
        let Some(holder) = self.holder.take() else {
            return;
        };
        fx.reclaimed.push(Reclaimed {
            holder,
            lease: HeldLease {
                task: self.task,
                lease: self.lease,
            },
            cause,
        });
        if self.open_attempt > 0 {
            let end = match cause {
                ReclaimCause::Released => words.to_owned(),
                _ => format!("lost: {words}"),
            };
            fx.attempts
                .push(self.open_attempt_row(Some(now_us), Some(end)));
        }
        if self.cancel.is_some() {
            fx.cancels.push(holder);
            let began = (self.open_attempt > 0).then_some(self.started_us).flatten();
            self.end_as_cancelled(began, words, now_us, fx);
        } else {
            self.state = TaskState::Ready;
            self.queued_us = now_us;
            self.requeue_cause = Some(words.to_owned());
        }
    }

    /// Asks for the end of the task; at once when nobody has it.
    pub fn ask_cancel(&mut self, wish: CancelWish, now_us: i64, fx: &mut Effects) {
        if self.state.is_terminal() {
            return;
        }
        match self.holder {
            None => self.end_as_cancelled(None, "nobody had it", now_us, fx),
            Some(holder) if self.cancel.is_none_or(|asked| wish > asked) => {
                self.cancel = Some(wish);
                fx.cancels.push(holder);
            }
            Some(_) => {}
        }
    }

    /// Ends the back-off.
    pub fn release_from_backoff(&mut self) {
        if self.state == TaskState::Pending && self.waits == 0 {
            self.state = TaskState::Ready;
        }
    }

    /// Its submission is complete: it waits in the queue from now on.
    pub fn admit(&mut self, now_us: i64) {
        if self.state == TaskState::Pending && self.waits == 0 {
            self.state = TaskState::Ready;
            self.queued_us = now_us;
        }
    }

    /// Applies one report of `sender`.
    pub fn report(
        &mut self,
        sender: HolderId,
        commit: Commit,
        now_us: i64,
        fx: &mut Effects,
    ) -> Verdict {
        let verdict = match self.refusal(sender, &commit) {
            Some(refusal) => refusal,
            None => self.accept(commit, now_us, fx),
        };
        if verdict == Verdict::Stale {
            fx.stale += 1;
        }
        verdict
    }

    /// The verdict on a report that changes nothing.
    fn refusal(&self, sender: HolderId, commit: &Commit) -> Option<Verdict> {
        let report = &commit.report;
        if report.task_uuid != self.task.uuid {
            return Some(Verdict::Invalid {
                message: format!("task {} has another uuid", report.task_id),
            });
        }
        if report.lease > self.lease {
            return Some(Verdict::Invalid {
                message: format!("lease {} was never granted", report.lease),
            });
        }
        if report.lease < self.lease {
            return Some(Verdict::Stale);
        }
        if self.last_holder != Some(sender) {
            return Some(Verdict::NotOwner);
        }
        match self.settled {
            Settled::Open if self.state.is_terminal() => Some(Verdict::Stale),
            Settled::Open => None,
            settled if settled.is_repeated_by(&report.op) => Some(Verdict::Duplicate),
            _ => Some(Verdict::Stale),
        }
    }

    fn accept(&mut self, commit: Commit, now_us: i64, fx: &mut Effects) -> Verdict {
        if matches!(commit.report.op, ReportTaskOp::Started { .. }) && self.holder.is_none() {
            // The lease was taken back: somebody else may start the task at any moment.
            return Verdict::Stale;
        }
        let begun_us = begun_at(&commit.report.op).unwrap_or(now_us).min(now_us);
        let mut tries = commit.lost_tries.into_iter().peekable();
        while let Some(lost) = tries.next() {
            // Whoever is told of it later than it happened knows that it was over when the next one began.
            let next_us = tries.peek().map_or(begun_us, |next| next.started_at_us);
            let ended_us = lost.ended_at_us.unwrap_or(next_us).min(now_us);
            self.record_lost_try(lost, ended_us, fx);
        }
        let execution = Execution {
            number: commit.attempt,
            try_no: commit.report.try_no,
        };
        match commit.report.op {
            ReportTaskOp::Started { at_us } => self.start(execution, at_us, fx),
            ReportTaskOp::Completed(result) => {
                self.finish(execution, Outcome::Completed, result, now_us, fx)
            }
            ReportTaskOp::Failed(result) => {
                self.finish(execution, Outcome::Failed, result, now_us, fx)
            }
            ReportTaskOp::Cancelled(result) => {
                self.finish(execution, Outcome::Cancelled, result, now_us, fx)
            }
            ReportTaskOp::Released { reason } => self.hand_back(&reason, now_us, fx),
        }
    }

    fn start(&mut self, execution: Execution, at_us: i64, fx: &mut Effects) -> Verdict {
        let number = self.number_of(execution);
        let repeated = self.open_attempt == number;
        if !repeated {
            self.begin(number, execution.try_no, at_us, fx);
        }
        match (self.cancel, repeated) {
            (Some(_), _) => Verdict::Cancel,
            (None, true) => Verdict::Duplicate,
            (None, false) => Verdict::Accepted,
        }
    }

    fn begin(&mut self, number: u32, try_no: Try, at_us: i64, fx: &mut Effects) {
        self.state = TaskState::Running;
        self.open_attempt = number;
        self.attempts = self.attempts.max(number);
        self.started_us = Some(at_us);
        fx.attempts.push(AttemptWrite {
            try_no,
            ..self.open_attempt_row(None, None)
        });
    }

    /// The number of an execution; derived for senders that count none, which execute once per lease.
    fn number_of(&self, execution: Execution) -> u32 {
        match (execution.number, self.open_attempt) {
            (0, 0) => self.attempts + 1,
            (0, open) => open,
            (number, _) => number,
        }
    }

    fn record_lost_try(&mut self, lost: LostTry, ended_us: i64, fx: &mut Effects) {
        let end = format!("lost: {}", lost.cause);
        fx.attempts.push(AttemptWrite {
            task_id: self.task.id,
            attempt: lost.attempt,
            lease: self.lease,
            try_no: lost.try_no,
            holder: self.last_holder,
            started_us: lost.started_at_us,
            ended_us: Some(ended_us.max(lost.started_at_us)),
            end: Some(end),
            cause: self.requeue_cause.take(),
        });
        self.attempts = self.attempts.max(lost.attempt);
        if self.open_attempt == lost.attempt {
            self.open_attempt = 0;
        }
        self.requeue_cause = Some(lost.cause);
    }

    fn finish(
        &mut self,
        execution: Execution,
        outcome: Outcome,
        mut result: TaskResult,
        now_us: i64,
        fx: &mut Effects,
    ) -> Verdict {
        if let (Some(_), Some(follow_ups)) = (self.cancel, &mut result.follow_ups)
            && follow_ups.accepted > 0
        {
            follow_ups.reject_all("not accepted, because a cancel of the task was asked for");
        }
        let end = match outcome {
            Outcome::Failed => format!("failed: {}", result.reason.as_str()),
            other => other.as_str().to_owned(),
        };
        if let Some(started_us) = result.started_at_us {
            let number = self.number_of(execution);
            self.open_attempt = number;
            self.attempts = self.attempts.max(number);
            self.started_us = Some(started_us);
        }
        if self.open_attempt > 0 {
            fx.attempts.push(AttemptWrite {
                try_no: execution.try_no,
                ..self.open_attempt_row(Some(now_us), Some(end.clone()))
            });
        }
        self.settled = Settled::Ended(outcome);
        if let (Some(_), Some(holder)) = (self.cancel, self.holder) {
            fx.cancels.push(holder);
        }
        self.holder = None;
        self.failures += u32::from(outcome == Outcome::Failed);
        if outcome == Outcome::Failed && self.may_run_again(result.reason) {
            if self.open_attempt > 0 {
                fx.failed.push(FailedAttempt {
                    task_id: self.task.id,
                    attempt: self.open_attempt,
                    result,
                });
            }
            self.back_off(end, now_us, fx);
        } else {
            self.end(outcome, result, now_us, fx);
        }
        Verdict::Accepted
    }

    fn may_run_again(&self, reason: Reason) -> bool {
        let is_wanted = self
            .retry_on
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&reason));
        reason.is_retryable()
            && is_wanted
            && self.cancel.is_none()
            && self.failures < self.max_attempts
    }

    fn back_off(&mut self, cause: String, now_us: i64, fx: &mut Effects) {
        let backoff = self.backoff.clone().unwrap_or_default();
        let delay = backoff.pause(self.failures, self.task.uuid);
        self.requeue_cause = Some(cause);
        self.queued_us = now_us.saturating_add(whole_us(delay));
        if delay == Duration::ZERO {
            self.state = TaskState::Ready;
        } else {
            self.state = TaskState::Pending;
            fx.due_us = Some(
                fx.due_us
                    .map_or(self.queued_us, |due| due.min(self.queued_us)),
            );
        }
    }

    fn hand_back(&mut self, reason: &str, now_us: i64, fx: &mut Effects) -> Verdict {
        self.take_back(
            ReclaimCause::Released,
            &format!("released: {reason}"),
            now_us,
            fx,
        );
        self.settled = Settled::Released;
        Verdict::Accepted
    }

    fn end_as_cancelled(&mut self, began: Option<i64>, words: &str, now_us: i64, fx: &mut Effects) {
        let message = match began {
            None => format!("cancelled before it was started ({words})"),
            Some(_) => format!("cancelled while it was running ({words})"),
        };
        let result = TaskResult {
            started_at_us: began,
            ..TaskResult::not_started(Reason::Cancelled, message, now_us)
        };
        self.end(Outcome::Cancelled, result, now_us, fx);
    }

    fn end(&mut self, outcome: Outcome, result: TaskResult, now_us: i64, fx: &mut Effects) {
        self.state = match outcome {
            Outcome::Completed => TaskState::Completed,
            Outcome::Failed => TaskState::Failed,
            Outcome::Cancelled => TaskState::Cancelled,
        };
        self.holder = None;
        self.finished_us = Some(now_us);
        self.reason = Some(result.reason);
        self.exit_code = result.exit_code;
        fx.finished.push(Finish {
            task: self.task,
            suite_uuid: self.suite_uuid,
            attempts: self.attempts,
            outcome,
            result,
        });
    }

    /// The row of the execution that is open, with this end.
    fn open_attempt_row(&self, ended_us: Option<i64>, end: Option<String>) -> AttemptWrite {
        AttemptWrite {
            task_id: self.task.id,
            attempt: self.open_attempt,
            lease: self.lease,
            try_no: Try(0),
            holder: self.last_holder,
            started_us: self.started_us.unwrap_or_default(),
            ended_us,
            end,
            cause: self.requeue_cause.clone(),
        }
    }
}

impl Settled {
    /// True when `op` says again what settled the lease. A repeated `Started` comes before its repeated end.
    fn is_repeated_by(self, op: &ReportTaskOp) -> bool {
        match (self, op) {
            (Self::Open, _) => false,
            (_, ReportTaskOp::Started { .. }) => true,
            (Self::Released, op) => matches!(op, ReportTaskOp::Released { .. }),
            (Self::Ended(settled), op) => {
                op.result().is_some_and(|(outcome, _)| outcome == settled)
            }
        }
    }
}

/// Which execution a report is about.
#[derive(Debug, Clone, Copy)]
struct Execution {
    /// 0 when the sender counts none.
    number: u32,
    try_no: Try,
}
