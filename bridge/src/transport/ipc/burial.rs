//! Cleaning after dead workers: runs on the janitor's thread, never on a poller's.
//!
//! A pass lists all nodes once and cleans after several workers that wait for it, so that a wave of deaths costs one job
//! of the janitor and not one each. A worker is buried only after its ports were drained and dropped by the poller.

mod unfinished;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iceoryx2::node::{Node, NodeDetails, NodeState, NodeView};
use iceoryx2::prelude::{CallbackProgression, Config};

use super::{Service, naming};
use crate::ids::Incarnation;
use crate::janitor::Progress;

/// Nodes cleaned in one pass. Cleaning one lists `/dev/shm` several times (30 ms with the files of 256 workers), and the
/// janitor's other work waits for the pass.
const BATCH: usize = 8;
/// How long a worker's resources are tried; what is left then goes when the root is removed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dead workers that wait for a pass, by process id. The lock is held for a few instructions by poller and janitor, never
/// by an async caller and never during a pass.
#[derive(Debug, Clone, Default)]
pub(super) struct Burials(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<u32, Grave>,
    /// A pass is ordered and will look again.
    ordered: bool,
}

#[derive(Debug, Clone, Copy)]
struct Grave {
    incarnation: Incarnation,
    until: Instant,
}

impl Burials {
    /// Takes a dead worker in; true when the caller has to order a pass.
    pub(super) fn add(&self, pid: u32, incarnation: Incarnation) -> bool {
        let until = Instant::now() + PATIENCE;
        self.with(|queue| {
            queue.waiting.insert(pid, Grave { incarnation, until });
            !std::mem::replace(&mut queue.ordered, true)
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        // No panic can happen while it is held; the queue is valid in any case.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Cleans after some who wait; done when nobody is left.
    pub(super) fn pass(&self, config: &Config) -> Progress {
        let due = self.with(|queue| std::mem::take(&mut queue.waiting));
        let again = look_after(due, config);
        if !again.is_empty() {
            unfinished::remove(config);
        }
        self.with(|queue| {
            // A pid that was used again and died meanwhile is the newer one's.
            for (pid, grave) in again {
                queue.waiting.entry(pid).or_insert(grave);
            }
            queue.ordered = !queue.waiting.is_empty();
            if queue.ordered {
                Progress::NotYet
            } else {
                Progress::Done
            }
        })
    }
}

/// One pass over all nodes; returns whoever has to be looked after again.
fn look_after(due: HashMap<u32, Grave>, config: &Config) -> HashMap<u32, Grave> {
    let now = Instant::now();
    let mut again = HashMap::new();
    let mut cleaned = 0;
    let listed = Node::<Service>::list(config, |state| {
        let pid = state.node_id().pid::<Service>().map(|pid| pid.value());
        let pid = pid.ok().and_then(|pid| u32::try_from(pid).ok());
        let Some((pid, grave)) = pid.and_then(|pid| due.get_key_value(&pid)) else {
            return CallbackProgression::Continue;
        };
        if cleaned == BATCH {
            again.insert(*pid, *grave);
        } else if clean(state, grave.incarnation) == Progress::Done {
            cleaned += 1;
        } else if now < grave.until {
            again.insert(*pid, *grave);
        } else {
            tracing::warn!(pid, "what a dead worker left stays until the manager ends");
        }
        CallbackProgression::Continue
    });
    if let Err(error) = listed {
        tracing::debug!(?error, "the nodes of dead workers cannot be listed yet");
        return due
            .into_iter()
            .filter(|(_, grave)| now < grave.until)
            .collect();
    }
    again
}

/// The pid has found it; the name makes sure that it is not another life with the same pid. A node without details is
/// left alone: it is being made or removed right now, and the library would clean it by the wrong configuration.
fn clean(state: NodeState<Service>, incarnation: Incarnation) -> Progress {
    let name = naming::worker_node(incarnation);
    let is_ours = |details: &NodeDetails| details.name().as_str() == name;
    match state {
        NodeState::Dead(view) => match view.details().as_ref().map(is_ours) {
            Some(true) => match view.try_remove_stale_resources() {
                Ok(()) => Progress::Done,
                Err(error) => {
                    tracing::debug!(name, ?error, "a dead worker's resources are not clean yet");
                    Progress::NotYet
                }
            },
            Some(false) => Progress::Done,
            None => Progress::NotYet,
        },
        // It still dies: its lock is released with its last descriptor.
        NodeState::Alive(view) if view.details().as_ref().is_none_or(is_ours) => Progress::NotYet,
        NodeState::Alive(_) | NodeState::Inaccessible(_) | NodeState::Undefined(_) => {
            Progress::Done
        }
    }
}
