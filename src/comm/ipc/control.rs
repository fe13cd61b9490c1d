//! From control snapshots to what is wanted of one worker.
//!
//! A snapshot is decoded at most once: by a spawned future as it arrives, or by a fetch that was answered first and
//! whose task is to be judged by everything the manager said before it. What cannot be read is counted and skipped;
//! control is a state, so the next snapshot makes it good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::protocol::{ControlState, Desired, frame};

use super::IpcIdentity;

/// The control side of a connection; ends with it.
#[derive(Debug)]
pub(super) struct ControlFeed {
    shared: Arc<Shared>,
    follower: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    identity: IpcIdentity,
    /// Marks which snapshot was read last; locked for that only.
    snapshots: Mutex<watch::Receiver<Bytes>>,
    /// Read by the worker's loop; holds the newest wishes.
    desired_tx: watch::Sender<Desired>,
    skipped: AtomicU64,
}

impl ControlFeed {
    pub(super) fn start(
        snapshots: watch::Receiver<Bytes>,
        identity: IpcIdentity,
        first: &ControlState,
    ) -> Self {
        let mut arrivals = snapshots.clone();
        let mut unread = snapshots;
        unread.mark_changed();
        let desired = first.for_worker(identity.local_id, identity.incarnation);
        let shared = Arc::new(Shared {
            identity,
            snapshots: Mutex::new(unread),
            desired_tx: watch::channel(desired).0,
            skipped: AtomicU64::new(0),
        });
        shared.absorb();
        let following = Arc::clone(&shared);
        let follower = tokio::spawn(async move {
            // Ends with the poller; that the manager is gone is told elsewhere.
            while arrivals.changed().await.is_ok() {
                following.absorb();
            }
        });
        Self {
            shared,
            follower: follower.abort_handle(),
        }
    }

    /// Takes in a snapshot that has arrived but was not looked at yet.
    pub(super) fn absorb(&self) {
        self.shared.absorb();
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Desired> {
        self.shared.desired_tx.subscribe()
    }

    pub(super) fn skipped(&self) -> u64 {
        self.shared.skipped.load(Ordering::Relaxed)
    }
}

impl Drop for ControlFeed {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Shared {
    fn absorb(&self) {
        let Some(snapshot) = self.unread() else {
            return;
        };
        let state: ControlState = match frame::decode("control state", &snapshot) {
            Ok(state) => state,
            Err(error) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "control state skipped");
                return;
            }
        };
        let newer = state.for_worker(self.identity.local_id, self.identity.incarnation);
        self.desired_tx.send_if_modified(|desired| {
            let supersedes = newer.supersedes(desired);
            if supersedes {
                *desired = newer;
            }
            supersedes
        });
    }

    fn unread(&self) -> Option<Bytes> {
        let mut snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A closed channel still holds its last value.
        let changed = snapshots.has_changed().unwrap_or(false);
        let snapshot = changed.then(|| snapshots.borrow_and_update().clone());
        snapshot.filter(|bytes| !bytes.is_empty())
    }
}
