//! The poller's end of the event channel: offers only what cannot wait and cannot fail for lack of room.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use super::events::{Queued, ReplyPath, ReplyToken, ServerEvent};
use super::{LIFECYCLE, REPORTS, Shared, TOKENS};
use crate::ids::Incarnation;
use crate::spill::Incoming;
use crate::stats::Counters;

/// Lifecycle events that one frame or hang-up may cause.
const LIFECYCLE_RESERVE: usize = 4;

#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    events_tx: flume::Sender<Queued>,
    path: ReplyPath,
    next_token: u64,
    /// Tokens out there.
    tokens: usize,
}

impl Outbox {
    pub(super) fn new(
        shared: Arc<Shared>,
        events_tx: flume::Sender<Queued>,
        replies_tx: flume::Sender<super::command::Reply>,
    ) -> Self {
        let path = ReplyPath {
            replies_tx,
            shared: shared.clone(),
        };
        Self {
            shared,
            events_tx,
            path,
            next_token: 0,
            tokens: 0,
        }
    }

    /// Whether the owner has dropped the events: nobody listens, so the poller ends.
    pub(super) fn is_orphaned(&self) -> bool {
        self.events_tx.is_disconnected()
    }

    /// Whether a report or lifecycle event has room.
    pub(super) fn has_room(&self) -> bool {
        let unread = &self.shared.unread;
        unread.reports.load(Ordering::Acquire) < REPORTS
            && unread.lifecycle.load(Ordering::Acquire) + LIFECYCLE_RESERVE < LIFECYCLE
            && self.tokens < TOKENS
    }

    /// Asks to be woken when there is room, and looks once more: `true` when there is none.
    pub(super) fn starve(&self) -> bool {
        self.shared.unread.starved.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let starved = !self.has_room();
        if starved {
            Counters::count(&self.shared.counters.held_back);
        }
        starved
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// A reply came back.
    pub(super) fn token_used(&mut self) {
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// Tells of a hand-over; its room was reserved when the reply was prepared.
    pub(super) fn notice(&self, key: u64, incarnation: Incarnation, at: Instant) {
        self.push(Queued::Notice {
            key,
            incarnation,
            at,
        });
    }

    pub(super) fn lifecycle(&self, event: ServerEvent) {
        self.shared.unread.lifecycle.fetch_add(1, Ordering::AcqRel);
        self.push(Queued::Lifecycle(event));
    }

    /// Passes a report on; returns the number of its token.
    pub(super) fn report(
        &mut self,
        incarnation: Incarnation,
        confirms: u64,
        content: Incoming,
    ) -> u64 {
        self.next_token += 1;
        self.tokens += 1;
        self.shared.unread.reports.fetch_add(1, Ordering::AcqRel);
        let token = self.next_token;
        self.push(Queued::Report {
            confirms,
            content,
            reply: ReplyToken::new(incarnation, token, self.path.clone()),
        });
        token
    }

    fn push(&self, queued: Queued) {
        if let Err(flume::TrySendError::Full(lost)) = self.events_tx.try_send(queued) {
            // The counts by kind add up to the capacity, so this is a programming error; losing it silently would
            // turn it into a hang.
            debug_assert!(
                false,
                "the event channel is full in spite of its accounting"
            );
            tracing::error!(?lost, "an event was lost");
        }
    }
}
