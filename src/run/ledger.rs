//! What a run knows about its tasks: which of them count, how they ended, what that means.
//!
//! Pure: the session loop feeds ends in and acts on what comes out. A task counts when it is in the input of this
//! run; ends of other tasks of the same state directory pass by. An end that is told twice is counted once. What is kept of
//! a task is its place and one bit ([`Places`]): the rest lies in the store.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use uuid::Uuid;

use super::halt::Tally;
use super::places::Places;
use super::summary::{Failure, Spread};
use crate::protocol::api::TaskEnd;
use crate::protocol::report::Reason;
use crate::protocol::{Outcome, TaskResult};

/// Tasks with several attempts that are named.
const LISTED_RETRIES: usize = 10;
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
    /// Of all these, ended in this run after more than one attempt.
    pub retried: u64,
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
    places: Places,
    /// Tasks that tasks submitted, until they end: the ends of those who submit name them by uuid.
    follow_ups: HashMap<Uuid, Place>,
    /// Tasks of the input that have been accepted.
    accepted: u64,
    /// Tasks of the input, if that is known before all have been accepted.
    announced: u64,
    /// Of these, given up.
    forgone: u64,
    /// True once nothing more comes.
    closed: bool,
    /// When tasks were accepted: from this row id on, in microseconds since the Unix epoch.
    accepted_at: BTreeMap<i64, i64>,
    counts: Counts,
    completed_now: u64,
    failed_now: u64,
    queue_wait: Spread,
    run: Spread,
    failures: Vec<Failure>,
    retried: Vec<(Place, u32)>,
    /// Follow-ups by line.
    submitted: HashMap<u64, u32>,
    single: Option<TaskResult>,
}

/// How a task ended before this run heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// How.
    pub outcome: Outcome,
    /// True when it was cancelled because of a task that it waited for.
    pub for_upstream: bool,
    /// What is told when it failed.
    pub failure: Failure,
}

impl Ledger {
    /// Says how many tasks the input has, where that is known before they come.
    pub fn announce(&mut self, tasks: u64) {
        self.announced = tasks;
        self.recount();
    }

    /// Adds a task of the input by its row id, accepted at a time in microseconds since the Unix epoch. False when it is
    /// known already.
    pub fn add(&mut self, line: u64, id: i64, at_us: i64) -> bool {
        if !self.places.add(id, line) {
            return false;
        }
        if self
            .accepted_at
            .last_key_value()
            .is_none_or(|(_, last)| *last != at_us)
        {
            self.accepted_at.insert(id, at_us);
        }
        self.accepted += 1;
        self.recount();
        true
    }

    /// The line of a task of the input.
    #[must_use]
    pub fn line_of(&self, id: i64) -> Option<u64> {
        self.places.line(id)
    }

    /// True for a task that a task submitted and that has not ended.
    #[must_use]
    pub fn awaits_follow_up(&self, uuid: Uuid) -> bool {
        self.follow_ups.contains_key(&uuid)
    }

    /// Nothing more comes.
    pub fn close(&mut self) {
        self.closed = true;
        self.recount();
    }

    /// True once nothing more comes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tasks of the input that were announced and will not be accepted any more.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.announced.saturating_sub(self.accepted)
    }

    /// Counts what will not be accepted any more as cancelled: the run was ended by its own rule.
    pub fn forgo_missing(&mut self) {
        let missing = self.missing() - self.forgone;
        self.forgone += missing;
        self.counts.cancelled += missing;
        self.closed = true;
        self.recount();
    }

    fn recount(&mut self) {
        self.counts.total = self.accepted.max(self.announced) + self.counts.follow_ups;
        self.counts.unfinished = self.counts.total.saturating_sub(self.ended());
    }

    fn ended(&self) -> u64 {
        let counts = &self.counts;
        counts.completed + counts.failed + counts.cancelled + counts.skipped
    }

    /// Adds a task that a task of this line submitted; returns its place.
    pub fn add_follow_up(&mut self, line: u64, uuid: Uuid) -> Place {
        let number = self.submitted.entry(line).or_default();
        *number += 1;
        let place = Place {
            line,
            follow_up: *number,
        };
        self.follow_ups.insert(uuid, place);
        self.counts.follow_ups += 1;
        self.recount();
        place
    }

    /// Takes note of an end that an earlier run brought about, or one that came before its task was known here.
    pub fn ended_earlier(&mut self, id: i64, uuid: Uuid, past: &Past) {
        if self.take(id, uuid).is_none() {
            return;
        }
        self.counts.earlier += 1;
        self.count(past.outcome, past.for_upstream);
        if past.outcome == Outcome::Failed && self.failures.len() < KEPT_FAILURES {
            self.failures.push(past.failure.clone());
        }
    }

    /// The place of a task that has not ended before; it has now.
    fn take(&mut self, id: i64, uuid: Uuid) -> Option<Place> {
        let follow_up = self.follow_ups.remove(&uuid);
        follow_up.or_else(|| self.places.end(id).map(Place::line))
    }

    /// Takes note of an end.
    pub fn record(&mut self, end: &TaskEnd) -> Recorded {
        let Some(place) = self.take(end.id, end.uuid) else {
            return Recorded::Ignored;
        };
        let submitted = end.follow_ups.iter();
        let follow_ups = submitted
            .map(|uuid| self.add_follow_up(place.line, *uuid))
            .collect();
        self.count(end.outcome, end.result.reason == Reason::UpstreamFailed);
        self.counts.retried += u64::from(end.attempts > 1);
        if end.attempts > 1 && self.retried.len() < LISTED_RETRIES {
            self.retried.push((place, end.attempts));
        }
        self.sample(end.id, &end.result);
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
        match outcome {
            Outcome::Completed => self.counts.completed += 1,
            Outcome::Failed => self.counts.failed += 1,
            Outcome::Cancelled if for_upstream => self.counts.skipped += 1,
            Outcome::Cancelled => self.counts.cancelled += 1,
        }
        self.recount();
    }

    fn sample(&mut self, id: i64, result: &TaskResult) {
        let accepted = self.accepted_at.range(..=id).next_back();
        if let (Some(started), Some((_, accepted))) = (result.started_at_us, accepted) {
            self.queue_wait.add_us(started - accepted);
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
            is_whole: self.closed || self.announced > 0,
            completed: self.completed_now,
            failed: self.failed_now,
        }
    }

    /// True when every task that was accepted has ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outstanding() == 0
    }

    /// Accepted tasks that have not ended.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        let taken = self.accepted + self.counts.follow_ups + self.forgone;
        taken.saturating_sub(self.ended())
    }

    /// True when every task has ended and nothing more comes.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.closed && self.is_idle()
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

    /// The first tasks that took more than one attempt, with their numbers.
    #[must_use]
    pub fn retried(&self) -> &[(Place, u32)] {
        &self.retried
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
            // Follow-ups have greater ids than every task of the input here, as in a store.
            id: i64::try_from(uuid).unwrap(),
            uuid: Uuid::from_u128(uuid),
            outcome,
            attempts: 1,
            result,
            follow_ups: Vec::new(),
        }
    }

    fn ledger(tasks: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for n in 1..=tasks {
            assert!(ledger.add(n * 10, i64::try_from(n).unwrap(), 1000));
        }
        ledger.close();
        ledger
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
        assert_eq!(ledger.queue_wait().quantile_ns(0.5), Some(500_000));
        assert_eq!(ledger.run_time().quantile_ns(0.5), Some(1_000_000));
    }

    #[test]
    fn what_failed_in_an_earlier_run_is_counted_and_not_of_this_one() {
        let mut ledger = ledger(4);
        let past = Past {
            outcome: Outcome::Failed,
            for_upstream: false,
            failure: Failure {
                line: 10,
                uuid: Uuid::from_u128(1),
                reason: "exit".to_owned(),
                exit_code: Some(1),
                signal: None,
            },
        };
        ledger.ended_earlier(1, Uuid::from_u128(1), &past);
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
    fn a_run_is_done_when_its_input_is_at_its_end_and_not_before() {
        let mut ledger = Ledger::default();
        ledger.announce(3);
        assert_eq!((ledger.counts().total, ledger.counts().unfinished), (3, 3));
        assert!(ledger.add(1, 1, 0) && ledger.add(2, 2, 5) && !ledger.add(7, 2, 5));
        ledger.record(&end(1, Outcome::Completed, 0, 0));
        ledger.record(&end(2, Outcome::Completed, 15, 20));
        assert!(ledger.is_idle() && !ledger.is_done());
        assert_eq!(ledger.queue_wait().quantile_ns(1.0), Some(10_000));
        ledger.forgo_missing();
        ledger.forgo_missing();
        assert!(ledger.is_done());
        let counts = ledger.counts();
        assert_eq!(
            (counts.total, counts.cancelled, counts.unfinished),
            (3, 1, 0)
        );
    }

    #[test]
    fn a_task_that_took_several_attempts_is_named() {
        let mut ledger = ledger(2);
        ledger.record(&end(1, Outcome::Completed, 1000, 1000));
        let mut second = end(2, Outcome::Completed, 1000, 1000);
        second.attempts = 3;
        ledger.record(&second);
        assert_eq!(ledger.counts().retried, 1);
        assert_eq!(ledger.retried(), [(Place::line(20), 3)]);
    }

    #[test]
    fn the_result_of_a_single_task_is_kept() {
        let mut ledger = ledger(1);
        assert!(ledger.single().is_none());
        ledger.record(&end(1, Outcome::Failed, 1000, 1000));
        assert_eq!(ledger.single().and_then(|result| result.exit_code), Some(1));
    }
}
