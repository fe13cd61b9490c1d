//! Numbers about a manager: what the summary of a run and an operator's screen are made of.
//!
//! [`Counts`] is kept by the reactor; [`ManagerStats`] is the snapshot that leaves the manager, with the workers' and the
//! poller's own numbers added. Prometheus gets the same numbers through [`super::metrics`].

use std::time::Duration;

use mitosis_bridge::stats::PollerStats;
use mitosis_bridge::status::{BOUNDS_NS, BUCKETS, HistogramSnapshot};

use crate::file_system::Unwritable;
use crate::protocol::report::ReportTaskOp;
use crate::protocol::session::ManagerStatus;
use crate::protocol::{Outcome, Verdict};
use crate::telemetry::names;

/// A moment's numbers. Counters grow for the life of the manager.
#[derive(Debug, Clone, Default)]
pub struct ManagerStats {
    /// What the coordinator is told as well.
    pub status: ManagerStatus,
    /// Worker processes alive, ready or not.
    pub workers_alive: u32,
    /// Worker processes started.
    pub worker_starts: u64,
    /// Worker processes that ended, by reason: asked, exit, signal, startup, unresponsive.
    pub worker_exits: Vec<(&'static str, u64)>,
    /// Tasks that ended here, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; 3],
    /// Tasks handed back to the coordinator.
    pub released: u64,
    /// Executions begun.
    pub executions: u64,
    /// Strikes given.
    pub strikes: u64,
    /// Reports refused as stale.
    pub stale_reports: u64,
    /// True while the session with the coordinator is open.
    pub connected: bool,
    /// Why reports cannot be kept; tasks wait meanwhile.
    pub unwritable: Option<Unwritable>,
    /// Round trip of a fetch as the workers saw it, parked time excluded.
    pub fetch_round_trip: HistogramSnapshot,
    /// Round trip of a report as the workers saw it.
    pub report_round_trip: HistogramSnapshot,
    /// From claim to hand-over.
    pub queue_wait: HistogramSnapshot,
    /// From hand-over to the news that the execution began.
    pub start: HistogramSnapshot,
    /// From the spawn of a task to its end.
    pub run_time: HistogramSnapshot,
    /// From the end of a task to its commit in the store.
    pub commit: HistogramSnapshot,
    /// Steps of the shutdown that were taken because a deadline had passed, and not because something had happened.
    pub timed_steps: u64,
    /// The poller's own numbers.
    pub poller: Option<PollerStats>,
}

/// What the reactor counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) outcomes: [u64; 3],
    pub(crate) released: u64,
    pub(crate) executions: u64,
    pub(crate) strikes: u64,
    pub(crate) stale: u64,
    pub(crate) queue_wait: HistogramSnapshot,
    pub(crate) start: HistogramSnapshot,
    pub(crate) run_time: HistogramSnapshot,
    pub(crate) commit: HistogramSnapshot,
}

impl Counts {
    pub(crate) fn executed(&mut self) {
        self.executions += 1;
        metrics::counter!(names::MANAGER_EXECUTIONS).increment(1);
    }

    pub(crate) fn struck(&mut self) {
        self.strikes += 1;
        metrics::counter!(names::MANAGER_STRIKES).increment(1);
    }

    pub(crate) fn waited(&mut self, wait: Duration) {
        metrics::histogram!(names::TASK_BUFFER_WAIT).record(wait);
        record(&mut self.queue_wait, wait);
    }

    /// An execution's spawn call returned this long after its hand-over.
    pub(crate) fn started(&mut self, took: Duration) {
        metrics::histogram!(names::TASK_START).record(took);
        record(&mut self.start, took);
    }

    pub(crate) fn ended(&mut self, op: &ReportTaskOp) {
        let Some((outcome, result)) = op.result() else {
            self.released += 1;
            return;
        };
        let index = Outcome::ALL.iter().position(|known| *known == outcome);
        self.outcomes[index.expect("ALL has every outcome")] += 1;
        metrics::counter!(names::MANAGER_TASKS, "outcome" => outcome.as_str()).increment(1);
        if result.started_at_us.is_some() {
            let ran = Duration::from_micros(u64::try_from(result.wall_us()).unwrap_or(0));
            metrics::histogram!(names::TASK_RUN).record(ran);
            record(&mut self.run_time, ran);
        }
    }

    /// The end of an execution is known here this long after it.
    pub(crate) fn reported(&mut self, age: Duration) {
        metrics::histogram!(names::TASK_REPORT).record(age);
    }

    pub(crate) fn committed(&mut self, age: Duration, verdict: &Verdict) {
        if *verdict == Verdict::Stale {
            self.stale += 1;
        }
        metrics::histogram!(names::TASK_COMMIT).record(age);
        record(&mut self.commit, age);
    }

    pub(crate) fn verdict(&mut self, verdict: &Verdict) {
        if *verdict == Verdict::Stale {
            self.stale += 1;
        }
        metrics::counter!(names::MANAGER_REPORTS, "verdict" => verdict.as_str()).increment(1);
    }
}

/// Counts one duration.
pub(crate) fn record(histogram: &mut HistogramSnapshot, duration: Duration) {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let index = BOUNDS_NS.iter().position(|bound| ns <= *bound);
    histogram.buckets[index.unwrap_or(BUCKETS)] += 1;
    histogram.sum = histogram.sum.saturating_add(duration);
}
