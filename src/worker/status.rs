//! What others may see of a worker while it works, behind one trait.
//!
//! A managed worker writes the status block that its manager reads without waking anyone (the implementation is
//! [`BlockStatus`]); an independent worker feeds the metrics of its own process
//! ([`MetricsStatus`]). Every method is a handful of stores and may be called on every turn of the loop.

use std::fmt;

use metrics::{counter, gauge};
use uuid::Uuid;

use crate::protocol::Outcome;
use crate::telemetry::names;

use super::state::{HandOver, Phase};
use super::tally::Tally;

mod block;

pub use block::BlockStatus;

/// Receives what the loop and the runner have to tell.
pub trait WorkerStatus: Send + Sync + fmt::Debug {
    /// The worker stands here now.
    fn phase(&self, phase: Phase);

    /// This hand-over is in hand; `None` when nothing is.
    fn in_hand(&self, held: Option<HandOver>);

    /// The process group of the running task; `None` once the whole tree is gone.
    fn process_group(&self, leader: Option<u32>);

    /// Whoever executes the task is alive and making progress.
    fn executor_progress(&self);

    /// The counters have changed.
    fn tally(&self, tally: &Tally);
}

/// The metrics of an independent worker's own process.
#[derive(Debug)]
pub struct MetricsStatus {
    busy: metrics::Gauge,
    outcomes: [metrics::Counter; 3],
    retries: metrics::Counter,
}

impl MetricsStatus {
    /// Registers the series of `worker` at 0 with whatever recorder this process has.
    #[must_use]
    pub fn new(worker: Uuid) -> Self {
        let worker = worker.to_string();
        let outcome = |outcome: Outcome| counter!(names::WORKER_TASKS, "worker" => worker.clone(), "outcome" => outcome.as_str());
        Self {
            busy: gauge!(names::WORKER_BUSY, "worker" => worker.clone()),
            outcomes: Outcome::ALL.map(outcome),
            retries: counter!(names::WORKER_REPORT_RETRIES),
        }
    }
}

impl WorkerStatus for MetricsStatus {
    fn phase(&self, phase: Phase) {
        self.busy
            .set(if matches!(phase, Phase::Running | Phase::Engaged) {
                1.0
            } else {
                0.0
            });
    }

    fn in_hand(&self, _held: Option<HandOver>) {}

    fn process_group(&self, _leader: Option<u32>) {}

    fn executor_progress(&self) {}

    fn tally(&self, tally: &Tally) {
        let counts = [tally.completed, tally.failed, tally.cancelled];
        for (series, count) in self.outcomes.iter().zip(counts) {
            series.absolute(count);
        }
        self.retries.absolute(tally.retries);
    }
}
