//! What a run knows about its tasks: which of them count, how they ended, what that means.
//!
//! Pure: the session loop feeds ends in and acts on what comes out. A task counts when it is in the input of this
//! run; ends of other tasks of the same state directory pass by. An end that is told twice is counted once.

use std::collections::HashMap;
use std::fmt;

use uuid::Uuid;

use super::halt::Tally;
use super::summary::{Failure, Spread};
use crate::protocol::api::TaskEnd;
use crate::protocol::report::Reason;
use crate::protocol::{Outcome, TaskResult};

/// Failures kept for the summary.
const KEPT_FAILURES: usize = 100;

/// Where a task of a run comes from, and the stem of its output files: `7`, or `7.2` for the second follow-up that comes
/// from line 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line of the input.
    pub line: u64,
    /// Which of its follow-ups, from 1; 0 for the line itself.
    pub follow_up: u32,
}

impl Place {
    /// The place of a line itself.
    #[must_use]
    pub fn line(line: u64) -> Self {
        Self { line, follow_up: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.follow_up {
            0 => self.line.fmt(f),
            number => write!(f, "{}.{number}", self.line),
        }
    }
}

/// One task of the run.
#[derive(Debug, Clone, Copy)]
struct Entry {
    place: Place,
    ended: bool,
}

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// Tasks of the input, and what they submitted.
    pub total: u64,
    /// Exit code 0.
    pub completed: u64,
    /// Any other end.
    pub failed: u64,
    /// Ended, or not begun, at a wish.
    pub cancelled: u64,
    /// Not begun: the end that they waited for cannot come, and nothing that they need has failed.
    pub skipped: u64,
    /// Not ended: an interrupt was faster.
    pub unfinished: u64,
    /// Of all these, ended in an earlier run on the same state directory.
    pub earlier: u64,
    /// Of all these, submitted by tasks.
    pub follow_ups: u64,
}

/// What a recorded end means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Not a task of this run, or known before.
    Ignored,
    /// The task of this place has ended.
    Ended {
        /// Its place.
        place: Place,
        /// Places of what it submitted.
        follow_ups: Vec<Place>,
    },
}

/// The tasks of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<Uuid, Entry>,
    counts: Counts,
    completed_now: u64,
    failed_now: u64,
    accepted_at_us: i64,
    queue_wait: Spread,
    run: Spread,
    failures: Vec<Failure>,
    /// Follow-ups by line.
    submitted: HashMap<u64, u32>,
    single: Option<TaskResult>,
}

impl Ledger {
    /// A ledger of these tasks, `(line, uuid)`, accepted at a time in microseconds since the Unix epoch.
    #[must_use]
    pub fn new(tasks: impl IntoIterator<Item = (u64, Uuid)>, accepted_at_us: i64) -> Self {
        let entries: HashMap<_, _> = tasks
            .into_iter()
            .map(|(line, uuid)| {
                let place = Place::line(line);
                (
                    uuid,
                    Entry {
                        place,
                        ended: false,
                    },
                )
            })
            .collect();
        let total = entries.len() as u64;
        Self {
            entries,
            counts: Counts {
                total,
                unfinished: total,
                ..Counts::default()
            },
            accepted_at_us,
            ..Self::default()
        }
    }

    /// Adds a task that a task of this line submitted; returns its place.
    pub fn add_follow_up(&mut self, line: u64, uuid: Uuid) -> Place {
        let number = self.submitted.entry(line).or_default();
        *number += 1;
        let place = Place {
            line,
            follow_up: *number,
        };
        self.entries.insert(
            uuid,
            Entry {
                place,
                ended: false,
            },
        );
        self.counts.total += 1;
        self.counts.unfinished += 1;
        self.counts.follow_ups += 1;
        place
    }

    /// Takes note of an end that an earlier run brought about.
    pub fn ended_earlier(
        &mut self,
        uuid: Uuid,
        outcome: Outcome,
        for_upstream: bool,
        failure: impl FnOnce(u64) -> Failure,
    ) {
        let Some(entry) = self.entries.get_mut(&uuid).filter(|entry| !entry.ended) else {
            return;
        };
        entry.ended = true;
        let line = entry.place.line;
        self.counts.earlier += 1;
        self.count(outcome, for_upstream);
        if outcome == Outcome::Failed && self.failures.len() < KEPT_FAILURES {
            self.failures.push(failure(line));
        }
    }

    /// Takes note of an end.
    pub fn record(&mut self, end: &TaskEnd) -> Recorded {
        let Some(entry) = self.entries.get_mut(&end.uuid).filter(|entry| !entry.ended) else {
            return Recorded::Ignored;
        };
        entry.ended = true;
        let place = entry.place;
        let submitted = end.follow_ups.iter();
        let follow_ups = submitted
            .map(|uuid| self.add_follow_up(place.line, *uuid))
            .collect();
        self.count(end.outcome, end.result.reason == Reason::UpstreamFailed);
        self.sample(&end.result);
        let failed = end.outcome == Outcome::Failed;
        if failed && self.failures.len() < KEPT_FAILURES {
            self.failures.push(Failure::of(place.line, end));
        }
        if self.counts.total == 1 {
            self.single = Some(end.result.clone());
        }
        self.failed_now += u64::from(failed);
        self.completed_now += u64::from(end.outcome == Outcome::Completed);
        Recorded::Ended { place, follow_ups }
    }

    fn count(&mut self, outcome: Outcome, for_upstream: bool) {
        self.counts.unfinished -= 1;
        match outcome {
            Outcome::Completed => self.counts.completed += 1,
            Outcome::Failed => self.counts.failed += 1,
            Outcome::Cancelled if for_upstream => self.counts.skipped += 1,
            Outcome::Cancelled => self.counts.cancelled += 1,
        }
    }

    fn sample(&mut self, result: &TaskResult) {
        if let Some(started) = result.started_at_us {
            self.queue_wait.add_us(started - self.accepted_at_us);
            self.run.add_us(result.wall_us());
        }
    }

    /// Tasks by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What ended in this run.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            total: self.counts.total,
            completed: self.completed_now,
            failed: self.failed_now,
        }
    }

    /// True when every task has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.counts.unfinished == 0
    }

    /// Places and uuids of all tasks, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = (Place, Uuid)> + '_ {
        self.entries
            .iter()
            .map(|(uuid, entry)| (entry.place, *uuid))
    }

    /// Places and uuids of the tasks that have not ended, in no order.
    pub fn unfinished(&self) -> impl Iterator<Item = (Place, Uuid)> + '_ {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.ended)
            .map(|(uuid, entry)| (entry.place, *uuid))
    }

    /// The result of the only task of this run.
    #[must_use]
    pub fn single(&self) -> Option<&TaskResult> {
        self.single.as_ref()
    }

    /// Time from acceptance to the beginning of the execution.
    #[must_use]
    pub fn queue_wait(&self) -> &Spread {
        &self.queue_wait
    }

    /// Time from the beginning of an execution to its end.
    #[must_use]
    pub fn run_time(&self) -> &Spread {
        &self.run
    }

    /// The first failures, in the order in which they were heard of.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(uuid: u128, outcome: Outcome, started_at_us: i64, ended_at_us: i64) -> TaskEnd {
        let mut result = TaskResult::not_started(Reason::Exit, "", ended_at_us);
        result.started_at_us = Some(started_at_us);
        result.exit_code = Some(i32::from(outcome != Outcome::Completed));
        TaskEnd {
            id: 0,
            uuid: Uuid::from_u128(uuid),
            outcome,
            result,
            follow_ups: Vec::new(),
        }
    }

    fn ledger(tasks: u64) -> Ledger {
        Ledger::new(
            (1..=tasks).map(|n| (n * 10, Uuid::from_u128(n.into()))),
            1000,
        )
    }

    #[test]
    fn an_end_counts_once_and_only_if_it_belongs_to_the_run() {
        let mut ledger = ledger(2);
        let one = end(1, Outcome::Completed, 1500, 2500);
        assert_eq!(
            ledger.record(&one),
            Recorded::Ended {
                place: Place::line(10),
                follow_ups: Vec::new()
            }
        );
        assert_eq!(ledger.record(&one), Recorded::Ignored);
        assert_eq!(
            ledger.record(&end(9, Outcome::Failed, 0, 0)),
            Recorded::Ignored
        );
        assert!(!ledger.is_done());
        assert_eq!(
            ledger.unfinished().collect::<Vec<_>>(),
            [(Place::line(20), Uuid::from_u128(2))]
        );
        assert_eq!(ledger.queue_wait().quantile_ns(0.5), Some(500_000));
        assert_eq!(ledger.run_time().quantile_ns(0.5), Some(1_000_000));
    }

    #[test]
    fn what_failed_in_an_earlier_run_is_counted_and_not_of_this_one() {
        let mut ledger = ledger(4);
        ledger.ended_earlier(Uuid::from_u128(1), Outcome::Failed, false, |line| Failure {
            line,
            uuid: Uuid::from_u128(1),
            reason: "exit".to_owned(),
            exit_code: Some(1),
            signal: None,
        });
        assert_eq!(ledger.tally().failed, 0);
        ledger.record(&end(2, Outcome::Cancelled, 1000, 1000));
        ledger.record(&end(3, Outcome::Failed, 1000, 1000));
        ledger.record(&end(4, Outcome::Failed, 1000, 1000));
        let tally = ledger.tally();
        assert_eq!((tally.total, tally.completed, tally.failed), (4, 0, 2));
        assert!(ledger.is_done());
        let counts = ledger.counts();
        assert_eq!((counts.failed, counts.cancelled, counts.earlier), (3, 1, 1));
        assert_eq!(ledger.failures().len(), 3);
    }

    #[test]
    fn a_task_whose_upstream_ended_otherwise_is_skipped_and_not_cancelled() {
        let mut ledger = ledger(2);
        let mut skipped = end(1, Outcome::Cancelled, 1000, 1000);
        skipped.result.reason = Reason::UpstreamFailed;
        ledger.record(&skipped);
        ledger.record(&end(2, Outcome::Cancelled, 1000, 1000));
        let counts = ledger.counts();
        assert_eq!((counts.skipped, counts.cancelled), (1, 1));
    }

    #[test]
    fn follow_ups_are_waited_for_and_numbered_by_their_line() {
        let mut ledger = ledger(1);
        let mut first = end(1, Outcome::Completed, 1000, 1000);
        first.follow_ups = vec![Uuid::from_u128(7), Uuid::from_u128(8)];
        ledger.record(&first);
        ledger.record(&first);
        let counts = ledger.counts();
        assert_eq!(
            (counts.total, counts.unfinished, counts.follow_ups),
            (3, 2, 2)
        );
        let place = |recorded| match recorded {
            Recorded::Ended { place, .. } => place.to_string(),
            Recorded::Ignored => String::new(),
        };
        let mut second = end(8, Outcome::Completed, 1000, 1000);
        second.follow_ups = vec![Uuid::from_u128(9)];
        assert_eq!(place(ledger.record(&second)), "10.2");
        let third = end(9, Outcome::Failed, 1000, 1000);
        assert_eq!(place(ledger.record(&third)), "10.3");
        assert_eq!(ledger.failures()[0].line, 10);
        assert!(!ledger.is_done());
    }

    #[test]
    fn the_result_of_a_single_task_is_kept() {
        let mut ledger = ledger(1);
        assert!(ledger.single().is_none());
        ledger.record(&end(1, Outcome::Failed, 1000, 1000));
        assert_eq!(ledger.single().and_then(|result| result.exit_code), Some(1));
    }
}
