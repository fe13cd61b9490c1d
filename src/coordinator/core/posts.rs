//! What the coordinator remembers of each holder in memory: its newest session and what is wanted of it.
//!
//! A post is made when a holder registers or is first heard after a restart, and forgotten when it is gone and nobody
//! listens any more. Everything in it can be read again from the store; only the numbers of control states live here,
//! and they are drawn from one counter, so that a post that is made again goes on above its old numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Shared;
use super::follow::{READINGS, Reading};
use crate::coordinator::store::{Holder, HolderId, LiveHolder, StoreError};
use crate::protocol::session::HeldLease;
use crate::protocol::tuning::TuningReport;
use crate::protocol::{Boot, CancelOrder, ControlState, Mode};

/// One holder.
#[derive(Debug)]
pub(in crate::coordinator) struct Post {
    pub(in crate::coordinator) id: HolderId,
    pub(in crate::coordinator) holder: Holder,
    /// Newest registration. A session that sees another number than its own was replaced.
    pub(in crate::coordinator) session: watch::Sender<i64>,
    /// What is wanted. Filled by [`Shared::refresh`]; a level, so overwriting is right.
    pub(in crate::coordinator) control: watch::Sender<ControlState>,
    /// Newest answer of a manager to a tuning; a level, so overwriting is right.
    pub(in crate::coordinator) tuned: watch::Sender<Option<TuningReport>>,
    /// Requests for output. Filled by readers, taken by the session; full: the reader waits; closed: never.
    pub(in crate::coordinator) readings_tx: flume::Sender<Reading>,
    pub(in crate::coordinator) readings_rx: flume::Receiver<Reading>,
    /// Life of the manager that was heard last.
    boot: Mutex<Option<Boot>>,
    /// Leases taken back that the holder has not been told of; at most what it held.
    lost: Mutex<Vec<HeldLease>>,
    /// Tags of the newest registration.
    tags: Mutex<Vec<String>>,
    /// Number of the newest refresh that was begun: the one that counts.
    refreshes: AtomicU64,
}

impl Post {
    /// Its tags.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.clone()
    }

    /// True while a session or a call of the holder listens.
    pub(super) fn is_heard(&self) -> bool {
        self.session.receiver_count() > 0
    }

    /// Notes the life that is heard now; returns the one that was heard before.
    pub(super) fn note_boot(&self, boot: Boot) -> Option<Boot> {
        let mut known = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(boot)
    }

    /// Leases taken back since the last call. Some may have been kept by a later inventory: the store knows.
    pub(in crate::coordinator) fn take_lost(&self) -> Vec<HeldLease> {
        std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes leases back that could not be told.
    pub(in crate::coordinator) fn give_back_lost(&self, leases: Vec<HeldLease>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.extend(leases);
    }

    fn add_lost(&self, lease: HeldLease) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.push(lease);
    }
}

/// Every holder known in this life.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Posts {
    known: Mutex<Known>,
    /// Source of the numbers of control states.
    seq: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<HolderId, Arc<Post>>,
    by_name: HashMap<Holder, HolderId>,
}

impl Posts {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The post with this short name.
    pub(super) fn get(&self, id: HolderId) -> Option<Arc<Post>> {
        self.lock().by_id.get(&id).map(Arc::clone)
    }

    /// The post of this holder.
    pub(super) fn find(&self, holder: Holder) -> Option<Arc<Post>> {
        let known = self.lock();
        let id = known.by_name.get(&holder)?;
        known.by_id.get(id).map(Arc::clone)
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Makes or updates the post of a holder that registered. A later registration never gives way to an earlier one.
    pub(super) fn enter(&self, epoch: u32, holder: Holder, live: &LiveHolder) -> Arc<Post> {
        let mut known = self.lock();
        known.by_name.insert(holder, live.session.holder);
        let post = known.by_id.entry(live.session.holder).or_insert_with(|| {
            let (readings_tx, readings_rx) = flume::bounded(READINGS);
            Arc::new(Post {
                id: live.session.holder,
                holder,
                session: watch::Sender::new(live.session.number),
                control: watch::Sender::new(ControlState {
                    epoch: u64::from(epoch),
                    seq: self.next_seq(),
                    mode: live.mode,
                    ..ControlState::default()
                }),
                tuned: watch::Sender::new(None),
                readings_tx,
                readings_rx,
                boot: Mutex::default(),
                lost: Mutex::default(),
                tags: Mutex::new(live.tags.clone()),
                refreshes: AtomicU64::new(0),
            })
        });
        let newer = post.session.send_if_modified(|number| {
            let newer = live.session.number > *number;
            *number = live.session.number.max(*number);
            newer
        });
        if newer {
            // The new session has just told all it holds; what the old one lost is no news to it.
            post.take_lost();
            let mut tags = post.tags.lock().unwrap_or_else(PoisonError::into_inner);
            tags.clone_from(&live.tags);
        }
        Arc::clone(post)
    }

    /// Notes that a lease was taken back, for the holder's next renewal.
    pub(super) fn note_lost(&self, id: HolderId, lease: HeldLease) {
        if let Some(post) = self.get(id) {
            post.add_lost(lease);
        }
    }

    /// Forgets holders that are gone and to whom nobody listens.
    pub(super) fn forget(&self, gone: &[HolderId]) {
        if gone.is_empty() {
            return;
        }
        let mut known = self.lock();
        for id in gone {
            let unheard = |post: &Arc<Post>| post.control.receiver_count() == 0;
            if known.by_id.get(id).is_some_and(unheard)
                && let Some(post) = known.by_id.remove(id)
            {
                known.by_name.remove(&post.holder);
            }
        }
    }
}

impl Shared {
    /// Reads a holder's cancel orders again and publishes them when they changed.
    ///
    /// Refreshes may overlap. Only the one begun last publishes: it read no earlier than all others. When it fails,
    /// the holder's next renewal refreshes again.
    pub(in crate::coordinator) async fn refresh(&self, post: &Post) -> Result<(), StoreError> {
        let number = post.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        let cancels = self.store.cancel_orders(post.id).await?;
        if post.refreshes.load(Ordering::SeqCst) == number {
            self.publish_control(post, None, cancels);
        }
        Ok(())
    }

    /// Publishes a mode.
    pub(super) fn publish_mode(&self, post: &Post, mode: Mode) {
        let cancels = post.control.borrow().cancels.clone();
        self.publish_control(post, Some(mode), cancels);
    }

    fn publish_control(&self, post: &Post, mode: Option<Mode>, cancels: Vec<CancelOrder>) {
        post.control.send_if_modified(|state| {
            let mode = mode.unwrap_or(state.mode);
            let changed = state.mode != mode || state.cancels != cancels;
            if changed {
                state.mode = mode;
                state.cancels = cancels;
                state.seq = self.posts.next_seq();
            }
            changed
        });
    }
}
