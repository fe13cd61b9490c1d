//! Who hears of tasks that ended.
//!
//! The store numbers ends without gaps ([`EndCursor`]), and that sequence is the truth: a subscriber is a cursor that
//! reads on, so a slow one never holds up a commit and never misses an end. A ring of the newest ends spares the
//! subscriber that keeps up the way to the database.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | newest end (watch) | 1 | every commit | overwritten: it is a level | the coordinator stopped |
//! | a subscriber's ends | [`SUBSCRIBER_CAPACITY`] | its own pump | the pump waits, commits do not | the pump ends |

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Coordinator, Shared};
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{EndCursor, Ended};
use crate::protocol::api::TaskEnd;

/// Ends a subscriber may have unread before its pump waits: some tenths of a second at full speed.
pub const SUBSCRIBER_CAPACITY: usize = 256;
/// Newest ends kept in memory. A result is at most two tails of 4 KiB, so this stays below 8 MiB.
const RING: usize = 1024;
/// Ends read from the store at once by a subscriber that fell behind.
const PAGE: u32 = 256;

/// The newest ends.
#[derive(Debug)]
pub(in crate::coordinator) struct EndLog {
    newest: watch::Sender<EndCursor>,
    ring: Mutex<VecDeque<Arc<Ended>>>,
}

impl EndLog {
    pub(super) fn starting_at(cursor: EndCursor) -> Self {
        Self {
            newest: watch::Sender::new(cursor),
            ring: Mutex::default(),
        }
    }

    /// Takes up ends that were committed. Batches may arrive in another order than they were committed in.
    pub(super) fn publish(&self, ended: Vec<Ended>) {
        let Some(last) = ended.last().map(|end| end.cursor) else {
            return;
        };
        if self.newest.receiver_count() > 0 {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.extend(ended.into_iter().map(Arc::new));
            let excess = ring.len().saturating_sub(RING);
            ring.drain(..excess);
        }
        self.newest.send_if_modified(|newest| {
            let moved = last > *newest;
            *newest = last.max(*newest);
            moved
        });
    }

    /// A receiver that sees every commit of an end from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<EndCursor> {
        self.newest.subscribe()
    }

    /// The end right after `cursor`, if the ring has it.
    fn next_in_ring(&self, cursor: EndCursor) -> Option<Arc<Ended>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = EndCursor(cursor.0 + 1);
        let is_wanted = |end: &&Arc<Ended>| end.cursor == wanted;
        // Where it lies if every batch came in order.
        let distance = wanted.0.saturating_sub(ring.front()?.cursor.0);
        let expected = usize::try_from(distance).ok().and_then(|at| ring.get(at));
        let found = expected.filter(is_wanted);
        found
            .or_else(|| ring.iter().find(is_wanted))
            .map(Arc::clone)
    }
}

impl Coordinator {
    /// Every task that ends from now on, in the order of the commits.
    ///
    /// The channel has room for [`SUBSCRIBER_CAPACITY`] ends. When it is full its pump waits and reads on from the
    /// store later: commits are never held up and no end is left out. It closes when the coordinator stops; whoever
    /// needs every end takes them before calling [`Coordinator::close`].
    #[must_use]
    pub fn ends(&self) -> flume::Receiver<TaskEnd> {
        let newest = *self.shared.ends.newest.borrow();
        self.ends_after(newest)
    }

    /// Every task that ended after a position, then every task that ends; like [`Coordinator::ends`].
    /// `EndCursor::default()` is the beginning.
    #[must_use]
    pub fn ends_after(&self, cursor: EndCursor) -> flume::Receiver<TaskEnd> {
        let (ends_tx, ends_rx) = flume::bounded(SUBSCRIBER_CAPACITY);
        let newest = self.shared.ends.subscribe();
        let pump = Pump {
            shared: Arc::clone(&self.shared),
            newest,
            cursor,
            ends_tx,
        };
        tokio::spawn(pump.run());
        ends_rx
    }

    /// The newest end.
    #[must_use]
    pub fn end_cursor(&self) -> EndCursor {
        *self.shared.ends.newest.borrow()
    }
}

/// Carries ends to one subscriber.
struct Pump {
    shared: Arc<Shared>,
    newest: watch::Receiver<EndCursor>,
    cursor: EndCursor,
    ends_tx: flume::Sender<TaskEnd>,
}

impl Pump {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            () = shared.stopped() => {}
            () = self.carry() => {}
        }
    }

    /// Returns when the subscriber is gone.
    async fn carry(&mut self) {
        loop {
            let newest = *self.newest.borrow_and_update();
            while self.cursor < newest {
                match self.carry_some().await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(%error, "ends cannot be read; trying again");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                }
            }
            if self.newest.changed().await.is_err() || self.ends_tx.is_disconnected() {
                return;
            }
        }
    }

    /// Carries at least one end, from the ring where it has it; false when the subscriber is gone.
    async fn carry_some(&mut self) -> Result<bool, CoordinatorError> {
        if let Some(ended) = self.shared.ends.next_in_ring(self.cursor) {
            self.cursor = ended.cursor;
            return Ok(self.ends_tx.send_async(ended.end.clone()).await.is_ok());
        }
        for ended in self.shared.store.ends(self.cursor, PAGE).await? {
            self.cursor = ended.cursor;
            if self.ends_tx.send_async(ended.end).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
