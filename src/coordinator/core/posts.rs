//! What the coordinator remembers of each holder in memory: its newest session and what is wanted of it.
//!
//! A post is made when a holder registers or is first heard after a restart, and forgotten when it is gone and nobody
//! listens any more. Everything in it can be read again from the store; only the numbers of control states live here,
//! and they are drawn from one counter, so that a post that is made again goes on above its old numbers.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// Number of the newest inquiry whether the manager of the open session is there, and of the newest one that it
    /// answered.
    pub(in crate::coordinator) inquired: watch::Sender<u64>,
    pub(in crate::coordinator) present: watch::Sender<u64>,
    /// What went wrong with its sessions lately.
    mishaps: Mutex<Mishaps>,
    /// Life of the manager that was heard last.
    boot: Mutex<Option<Boot>>,
    /// Leases taken back that the holder has not been told of; at most what it held.
    lost: Mutex<Vec<HeldLease>>,
    /// Tags of the newest registration.
    tags: Mutex<Vec<String>>,
    /// Number of the newest refresh that was begun: the one that counts.
    refreshes: AtomicU64,
}

/// What went wrong with the sessions of one manager.
#[derive(Debug, Default)]
struct Mishaps {
    times: u32,
    last: Option<(Instant, String)>,
}

/// How long a mishap is told.
const MISHAP_TOLD: Duration = Duration::from_secs(600);
/// How long the manager of an open session has to say that it is there.
const PRESENT_WITHIN: Duration = Duration::from_secs(5);

impl Post {
    /// Its tags.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.clone()
    }

    /// True while a session or a call of the holder listens.
    pub(in crate::coordinator) fn is_heard(&self) -> bool {
        self.session.receiver_count() > 0
    }

    /// Notes the life that is heard now; returns the one that was heard before.
    pub(super) fn note_boot(&self, boot: Boot) -> Option<Boot> {
        let mut known = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(boot)
    }

    /// The life that was heard last.
    pub(in crate::coordinator) fn boot(&self) -> Option<Boot> {
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the manager of the open session answers.
    pub(in crate::coordinator) async fn is_present(&self) -> bool {
        let mut present = self.present.subscribe();
        let mut number = 0;
        self.inquired.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        let answer = present.wait_for(|answered| *answered >= number);
        tokio::select! {
            _ = answer => true,
            // Its session ended meanwhile.
            () = self.session.closed() => false,
            () = tokio::time::sleep(PRESENT_WITHIN) => false,
        }
    }

    /// Notes what went wrong, for operators.
    pub(in crate::coordinator) fn note_mishap(&self, words: String) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |(at, _): &(Instant, String)| at.elapsed() < MISHAP_TOLD;
        if !mishaps.last.as_ref().is_some_and(lately) {
            mishaps.times = 0;
        }
        mishaps.times += 1;
        mishaps.last = Some((Instant::now(), words));
    }

    /// What went wrong lately, in words.
    pub(super) fn mishaps(&self) -> Option<String> {
        let mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, words) = mishaps.last.as_ref()?;
        let ago = at.elapsed();
        (ago < MISHAP_TOLD).then(|| {
            let (times, seconds) = (mishaps.times, ago.as_secs());
            format!("{words} ({seconds} s ago; {times} such in a row)")
        })
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
    /// Gone, and still listened to: forgotten once nobody does.
    leaving: HashSet<HolderId>,
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
    pub(in crate::coordinator) fn find(&self, holder: Holder) -> Option<Arc<Post>> {
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
        known.leaving.remove(&live.session.holder);
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
                inquired: watch::Sender::new(0),
                present: watch::Sender::new(0),
                mishaps: Mutex::default(),
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
        let mut known = self.lock();
        known.leaving.extend(gone);
        if known.leaving.is_empty() {
            return;
        }
        let Known {
            by_id,
            by_name,
            leaving,
        } = &mut *known;
        leaving.retain(|id| {
            let unheard = |post: &Arc<Post>| post.control.receiver_count() == 0;
            if !by_id.get(id).is_some_and(unheard) {
                return by_id.contains_key(id);
            }
            if let Some(post) = by_id.remove(id) {
                by_name.remove(&post.holder);
            }
            false
        });
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
