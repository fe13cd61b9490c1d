//! Orders from a manager or coordinator to its workers, as a state and not as a stream.
//!
//! Control is level-triggered: a [`ControlState`] says everything that is wanted now, under a sequence number, and is
//! repeated in answers and on the control topic. A worker that missed ten of them is right again after the eleventh.
//! [`Desired`] is the part that concerns one worker.
//!
//! ```text
//!   ControlState { epoch, seq, mode, workers[], cancels[] }
//!        | for_worker(local id, incarnation)
//!        v
//!   Desired { seq, mode, cancels[] }   --diff-->   ControlMessage (what changed; logged and acted on)
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use mitosis_bridge::ids::{Incarnation, LocalId};

use super::ids::{Lease, Try};
use super::tuning::Tuning;

/// One order, as the source of a change is logged and tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ControlMessage {
    /// Leave. Graceful: the current task may end first.
    Shutdown {
        /// False: end the current task at once.
        graceful: bool,
    },
    /// End one task.
    CancelTask {
        /// The store's row id.
        task_id: i64,
        /// True: TERM, grace, KILL. False: KILL.
        graceful: bool,
    },
    /// Fetch nothing; what runs goes on.
    Pause,
    /// Fetch again.
    Resume,
}

/// What a worker is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Fetch and run.
    #[default]
    Run,
    /// Fetch nothing; what runs goes on.
    Pause,
    /// Leave.
    Shutdown {
        /// False: end the current task at once.
        graceful: bool,
        /// Milliseconds the current task still has; afterwards it is ended and handed back. 0 means no limit.
        deadline_ms: u64,
    },
}

/// An order to end one hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelOrder {
    /// The store's row id.
    pub task_id: i64,
    /// The name users see.
    pub task_uuid: Uuid,
    /// The lease it is held under.
    pub lease: Lease,
    /// The hand-over; `None` means every try of the lease.
    #[serde(rename = "try", default)]
    pub try_no: Option<Try>,
    /// True: TERM, grace, KILL. False: KILL.
    pub graceful: bool,
}

impl CancelOrder {
    /// True when the order is about this hand-over.
    #[must_use]
    pub fn concerns(&self, task_id: i64, lease: Lease, try_no: Try) -> bool {
        self.task_id == task_id
            && self.lease == lease
            && self.try_no.is_none_or(|wanted| wanted == try_no)
    }
}

/// A mode for one worker that differs from everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerMode {
    /// The worker.
    pub local_id: LocalId,
    /// Its life; `None` means whoever has the id.
    pub incarnation: Option<Incarnation>,
    /// What it is to do.
    pub mode: Mode,
}

/// Everything that is wanted now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ControlState {
    /// One life of the sender; a new epoch starts `seq` again.
    pub epoch: u64,
    /// Number of this state, from 1.
    pub seq: u64,
    /// What everybody is to do.
    pub mode: Mode,
    /// Who is to do something else.
    #[serde(default)]
    pub workers: Vec<WorkerMode>,
    /// Hand-overs to be ended; an entry stays until its task's end is known.
    #[serde(default)]
    pub cancels: Vec<CancelOrder>,
    /// How pollers are to wait; for managers alone, whose workers hear of it through shared memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

impl ControlState {
    /// The part for one worker.
    #[must_use]
    pub fn for_worker(&self, local_id: LocalId, incarnation: Incarnation) -> Desired {
        let own = self.workers.iter().find(|entry| {
            entry.local_id == local_id
                && entry.incarnation.is_none_or(|wanted| wanted == incarnation)
        });
        // Shutdown for everybody wins over a single worker's pause.
        let mode = match (self.mode, own) {
            (everybody @ Mode::Shutdown { .. }, _) | (everybody, None) => everybody,
            (_, Some(entry)) => entry.mode,
        };
        Desired {
            epoch: self.epoch,
            seq: self.seq,
            mode,
            cancels: self.cancels.clone(),
        }
    }
}

/// What is wanted of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Desired {
    /// One life of the sender.
    pub epoch: u64,
    /// Number of the state this was taken from.
    pub seq: u64,
    /// What to do next.
    pub mode: Mode,
    /// Hand-overs to be ended.
    #[serde(default)]
    pub cancels: Vec<CancelOrder>,
}

impl Desired {
    /// True when `self` is not older than `current`: a later number of the same epoch, or another epoch.
    #[must_use]
    pub fn supersedes(&self, current: &Self) -> bool {
        self.epoch != current.epoch || self.seq > current.seq
    }

    /// The order that ends this hand-over, if there is one.
    #[must_use]
    pub fn cancel_for(&self, task_id: i64, lease: Lease, try_no: Try) -> Option<CancelOrder> {
        self.cancels
            .iter()
            .copied()
            .find(|order| order.concerns(task_id, lease, try_no))
    }

    /// What changed from `before` to `self`, as messages.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<ControlMessage> {
        let mut changes = Vec::new();
        if self.mode != before.mode {
            changes.push(match self.mode {
                Mode::Run => ControlMessage::Resume,
                Mode::Pause => ControlMessage::Pause,
                Mode::Shutdown { graceful, .. } => ControlMessage::Shutdown { graceful },
            });
        }
        let new = self
            .cancels
            .iter()
            .filter(|order| !before.cancels.contains(order));
        changes.extend(new.map(|order| ControlMessage::CancelTask {
            task_id: order.task_id,
            graceful: order.graceful,
        }));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUTDOWN: Mode = Mode::Shutdown {
        graceful: true,
        deadline_ms: 0,
    };

    fn order(task_id: i64, try_no: Option<Try>) -> CancelOrder {
        CancelOrder {
            task_id,
            task_uuid: Uuid::nil(),
            lease: Lease(5),
            try_no,
            graceful: true,
        }
    }

    #[test]
    fn a_worker_follows_its_own_mode_unless_everybody_leaves() {
        let pause = WorkerMode {
            local_id: LocalId(3),
            incarnation: None,
            mode: Mode::Pause,
        };
        let mut state = ControlState {
            workers: vec![pause],
            ..ControlState::default()
        };
        let mode = |state: &ControlState, id| state.for_worker(LocalId(id), Incarnation(1)).mode;
        assert_eq!((mode(&state, 3), mode(&state, 4)), (Mode::Pause, Mode::Run));
        state.mode = SHUTDOWN;
        assert_eq!(mode(&state, 3), SHUTDOWN);
    }

    #[test]
    fn a_mode_for_an_earlier_life_does_not_concern_the_next() {
        let gone = WorkerMode {
            local_id: LocalId(3),
            incarnation: Some(Incarnation(1)),
            mode: SHUTDOWN,
        };
        let state = ControlState {
            workers: vec![gone],
            ..ControlState::default()
        };
        assert_eq!(state.for_worker(LocalId(3), Incarnation(2)).mode, Mode::Run);
    }

    #[test]
    fn a_cancel_concerns_only_its_lease_and_try() {
        assert!(order(1, Some(Try(2))).concerns(1, Lease(5), Try(2)));
        assert!(!order(1, Some(Try(2))).concerns(1, Lease(5), Try(3)));
        assert!(!order(1, None).concerns(1, Lease(6), Try(3)));
        assert!(order(1, None).concerns(1, Lease(5), Try(9)));
    }

    #[test]
    fn ten_missed_states_are_made_good_by_the_eleventh() {
        let before = Desired {
            seq: 1,
            ..Desired::default()
        };
        let now = Desired {
            seq: 11,
            mode: SHUTDOWN,
            cancels: vec![order(1, None)],
            ..Desired::default()
        };
        assert!(now.supersedes(&before) && !before.supersedes(&now));
        assert_eq!(
            now.changes_since(&before),
            [
                ControlMessage::Shutdown { graceful: true },
                ControlMessage::CancelTask {
                    task_id: 1,
                    graceful: true
                }
            ]
        );
        assert_eq!(now.changes_since(&now), []);
    }
}
