//! What this worker has done, in numbers that are told at its end.
//!
//! Counted when a report is acknowledged, never when it is sent: a result that nobody took has not happened yet.

use std::fmt;

use crate::protocol::Outcome;

/// Counters of one life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Tasks whose completion was acknowledged.
    pub completed: u64,
    /// Tasks whose failure was acknowledged.
    pub failed: u64,
    /// Tasks whose cancellation was acknowledged.
    pub cancelled: u64,
    /// Tasks whose return was acknowledged.
    pub released: u64,
    /// Reports that were sent again.
    pub retries: u64,
    /// Reports that were refused for good.
    pub dropped: u64,
}

impl Tally {
    /// Counts an acknowledged end.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Cancelled => self.cancelled += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "completed={}, failed={}, cancelled={}, released={}, retries={}, dropped={}",
            self.completed, self.failed, self.cancelled, self.released, self.retries, self.dropped
        )
    }
}
