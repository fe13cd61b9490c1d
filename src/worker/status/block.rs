//! The status block of a managed worker, written through the bridge's handle.
//!
//! The manager reads it without waking anyone, also after this process is dead: whom to kill, what was in hand, and
//! the worker's counters come from here.

use std::sync::{Mutex, PoisonError};

use mitosis_bridge::client::ClientHandle;
use mitosis_bridge::status::{self, TaskInHand};

use crate::worker::state::{HandOver, Phase};
use crate::worker::tally::Tally;

use super::WorkerStatus;

/// Writes the status block of this process. Its methods are called by the loop's thread alone.
#[derive(Debug)]
pub struct BlockStatus {
    handle: ClientHandle,
    /// What the block has been told, because it only counts upwards by one.
    told: Mutex<Tally>,
}

impl BlockStatus {
    /// The status block behind `handle`.
    #[must_use]
    pub fn new(handle: ClientHandle) -> Self {
        Self {
            handle,
            told: Mutex::default(),
        }
    }
}

impl WorkerStatus for BlockStatus {
    fn phase(&self, phase: Phase) {
        self.handle.status().set_phase(match phase {
            Phase::Idle | Phase::Fetching => status::Phase::Idle,
            Phase::Held | Phase::Running => status::Phase::Running,
            Phase::Engaged => status::Phase::Engaged,
            Phase::Leaving => status::Phase::Stopping,
        });
    }

    fn in_hand(&self, held: Option<HandOver>) {
        let block = self.handle.status();
        match held {
            Some(held) => block.begin_task(TaskInHand {
                lease: held.lease.0,
                attempt: held.try_no.0,
                task_id: held.task.id,
                pgid: 0,
            }),
            None => block.end_task(),
        }
    }

    fn process_group(&self, leader: Option<u32>) {
        self.handle.status().set_group(leader.unwrap_or(0));
    }

    fn executor_progress(&self) {
        self.handle.status().executor_progress();
    }

    fn tally(&self, tally: &Tally) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let block = self.handle.status();
        let counts = [
            (status::Outcome::Completed, told.completed, tally.completed),
            (status::Outcome::Failed, told.failed, tally.failed),
            (status::Outcome::Cancelled, told.cancelled, tally.cancelled),
            (status::Outcome::Released, told.released, tally.released),
        ];
        for (outcome, before, after) in counts {
            (before..after).for_each(|_| block.count_outcome(outcome));
        }
        (told.retries..tally.retries).for_each(|_| block.count_report_retry());
        *told = *tally;
    }
}
