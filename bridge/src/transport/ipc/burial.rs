//! Cleaning after dead workers: runs on the janitor's thread, never on a poller's.
//!
//! A pass lists all nodes once and cleans those of every worker that is waiting for it, so that a wave of deaths costs
//! one pass and not one each. A worker is buried only after its ports were drained and dropped by the poller.

mod unfinished;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use iceoryx2::node::{Node, NodeDetails, NodeState, NodeView};
use iceoryx2::prelude::{CallbackProgression, Config};

use super::{Service, naming};
use crate::ids::Incarnation;
use crate::janitor::Progress;

/// Dead workers that wait for a pass, by process id. The lock is held for a few instructions by poller and janitor, never
/// by an async caller and never during a pass.
#[derive(Debug, Clone, Default)]
pub(super) struct Burials(Arc<Mutex<HashMap<u32, Incarnation>>>);

impl Burials {
    pub(super) fn add(&self, pid: u32, incarnation: Incarnation) {
        self.with(|waiting| waiting.insert(pid, incarnation));
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<u32, Incarnation>) -> T) -> T {
        // No panic can happen while it is held; the map is valid in any case.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Cleans after everybody who waits; those that still die wait for the next pass.
    pub(super) fn pass(&self, config: &Config) -> Progress {
        let due = self.with(std::mem::take);
        if due.is_empty() {
            return Progress::Done;
        }
        let mut again = HashMap::new();
        let listed = Node::<Service>::list(config, |state| {
            let pid = state.node_id().pid::<Service>().map(|pid| pid.value());
            let pid = pid.ok().and_then(|pid| u32::try_from(pid).ok());
            if let Some((pid, incarnation)) = pid.and_then(|pid| due.get_key_value(&pid))
                && clean(state, *incarnation) == Progress::NotYet
            {
                again.insert(*pid, *incarnation);
            }
            CallbackProgression::Continue
        });
        if !again.is_empty() {
            unfinished::remove(config);
        }
        if let Err(error) = listed {
            tracing::debug!(?error, "the nodes of dead workers cannot be listed yet");
            again = due;
        }
        if again.is_empty() {
            return Progress::Done;
        }
        // A pid that was used again and died meanwhile is the newer one's.
        self.with(|waiting| {
            for (pid, incarnation) in again {
                waiting.entry(pid).or_insert(incarnation);
            }
        });
        Progress::NotYet
    }
}

/// The pid has found it; the name makes sure that it is not another life with the same pid.
fn clean(state: NodeState<Service>, incarnation: Incarnation) -> Progress {
    let name = naming::worker_node(incarnation);
    let is_other = |details: &Option<NodeDetails>| {
        details
            .as_ref()
            .is_some_and(|details| details.name().as_str() != name)
    };
    match state {
        NodeState::Dead(view) if !is_other(view.details()) => {
            match view.try_remove_stale_resources() {
                Ok(()) => Progress::Done,
                Err(error) => {
                    tracing::debug!(name, ?error, "a dead worker's resources are not clean yet");
                    Progress::NotYet
                }
            }
        }
        // It still dies: its lock is released with its last descriptor.
        NodeState::Alive(view) if !is_other(view.details()) => Progress::NotYet,
        NodeState::Alive(_)
        | NodeState::Dead(_)
        | NodeState::Inaccessible(_)
        | NodeState::Undefined(_) => Progress::Done,
    }
}
