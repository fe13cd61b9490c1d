//! The server's loop: commands and replies, then doorbells, then hand-overs, then a wait.
//!
//! It owns every port of the manager and decides nothing about tasks. It never awaits, never waits for room in a channel,
//! and sleeps only in [`super::bell`]. Commands come before frames, so that a withdrawal or a shut gate is in force before
//! the next fetch is looked at.

mod commands;
mod openings;
mod rest;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use self::openings::FileWork;
use super::Shared;
use super::bell::Bell;
use super::command::{Envelope, Reply, ReplyContent};
use super::events::{Queued, Ring, ServerEvent};
use super::outbox::Outbox;
use super::peer::{Peer, Peers};
use crate::config::PollConfig;
use crate::error::BridgeError;
use crate::handover::{Handover, Readiness};
use crate::header::{AnswerKind, Operation};
use crate::ids::{Incarnation, LocalId, MAX_WORKERS};
use crate::janitor::JanitorHandle;
use crate::spill::Body;
use crate::stats::Counters;
use crate::transport::ServerTransport;

/// Replies handled per turn.
const REPLIES_PER_TURN: usize = 256;
/// Work older than this that is found when a wait ran out was announced by nobody.
const LOST_AFTER: Duration = Duration::from_millis(5);
/// How often parked requests are checked for expiry.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// The poller's ends of the channels.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) commands_rx: flume::Receiver<Envelope>,
    pub(super) replies_rx: flume::Receiver<Reply>,
    pub(super) replies_tx: flume::Sender<Reply>,
    pub(super) events_tx: flume::Sender<Queued>,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Busy,
    Idle,
    Over,
}

/// The actor. Field order is drop order: peers (requests, ports) before the transport's node.
pub(super) struct Poller<T: ServerTransport> {
    pub(super) peers: Peers<T::Ports>,
    file_work: FileWork<T::Opening>,
    pub(super) transport: T,
    pub(super) handover: Handover<Body>,
    pub(super) outbox: Outbox,
    pub(super) shared: Arc<Shared>,
    pub(super) bell: Bell,
    /// Incarnations that could not be drained for lack of room or budget.
    pub(super) backlog: VecDeque<Incarnation>,
    pub(super) janitor: JanitorHandle,
    commands_rx: flume::Receiver<Envelope>,
    replies_rx: flume::Receiver<Reply>,
    /// Number and content of the newest control state; 0 before the first.
    control: (u64, Bytes),
    /// How the pollers of each slot's lives wait.
    worker_polls: Vec<PollConfig>,
    closing: Option<Instant>,
    /// When this turn began: a fetch that came earlier has been parked.
    pub(super) turn_at: Instant,
    /// When the last bounded wait ran out without a ring.
    timed_out_at: Option<Instant>,
    /// The last turn found nothing and was followed by no wait.
    spun: bool,
    next_housekeeping: Instant,
    next_hang_up_check: Instant,
    /// Where answers are put together.
    pub(super) answer_buffer: Vec<u8>,
}

impl<T: ServerTransport> Poller<T> {
    pub(super) fn new(
        shared: Arc<Shared>,
        transport: T,
        bell: Bell,
        janitor: JanitorHandle,
        ends: Ends,
    ) -> Self {
        let now = Instant::now();
        Self {
            peers: Peers::new(),
            file_work: FileWork::new(),
            transport,
            handover: Handover::new(shared.config.capacity),
            outbox: Outbox::new(shared.clone(), ends.events_tx, ends.replies_tx),
            bell,
            backlog: VecDeque::new(),
            janitor,
            commands_rx: ends.commands_rx,
            replies_rx: ends.replies_rx,
            control: (0, Bytes::new()),
            worker_polls: vec![shared.config.poll; usize::from(MAX_WORKERS)],
            closing: None,
            turn_at: now,
            timed_out_at: None,
            spun: false,
            next_housekeeping: now + HOUSEKEEPING,
            next_hang_up_check: now,
            answer_buffer: Vec::new(),
            shared,
        }
    }

    /// Runs until closed, aborted or orphaned, then answers everybody and drops everything.
    pub(super) fn run(mut self) {
        let mut last_work = Instant::now();
        loop {
            Counters::count(&self.shared.counters.turns);
            match self.turn() {
                Turn::Over => break,
                Turn::Busy => {
                    last_work = self.turn_at;
                    if std::mem::take(&mut self.spun) {
                        Counters::count(&self.shared.counters.spin_hits);
                    }
                }
                Turn::Idle => self.rest(last_work),
            }
        }
        self.end();
    }

    fn turn(&mut self) -> Turn {
        self.turn_at = Instant::now();
        let mut busy = self.take_commands();
        busy |= self.take_replies();
        busy |= self.take_rings();
        busy |= self.take_backlog();
        busy |= self.hand_over();
        busy |= self.do_file_work();
        self.housekeep();
        self.timed_out_at = None;
        if self.is_over() {
            return Turn::Over;
        }
        if busy { Turn::Busy } else { Turn::Idle }
    }

    fn take_replies(&mut self) -> bool {
        let mut any = false;
        for _ in 0..REPLIES_PER_TURN {
            let Ok(reply) = self.replies_rx.try_recv() else {
                break;
            };
            any = true;
            self.outbox.token_used();
            self.reply(reply);
        }
        any
    }

    fn reply(&mut self, reply: Reply) {
        // The incarnation may be retired meanwhile, or the worker may have given up: then nobody waits for the answer.
        let Some(peer) = self.peers.get(reply.incarnation) else {
            return;
        };
        let Some(arrived) = peer.take_report(reply.token) else {
            return;
        };
        let (kind, body, ring) = match reply.content {
            ReplyContent::Payload { body, ring } => (AnswerKind::Reply, Some(body), ring),
            ReplyContent::Abandoned => {
                Counters::count(&self.shared.counters.abandoned);
                (AnswerKind::Abandoned, None, Ring::Now)
            }
        };
        self.answer_report(reply.incarnation, arrived, kind, body, ring);
    }

    /// Looks at the slots whose bit is set, and at the doorbells that were rung or hung up.
    fn take_rings(&mut self) -> bool {
        let mut slots: [LocalId; 256] = [LocalId(0); 256];
        let mut count = 0;
        self.bell.board.take(|slot| {
            slots[count] = slot;
            count += 1;
        });
        for slot in &slots[..count] {
            self.serve_slot(*slot);
        }
        let mut rung = std::mem::take(&mut self.bell.rung);
        let any = count > 0 || !rung.is_empty();
        for incarnation in rung.drain(..) {
            self.answer_doorbell(incarnation);
        }
        self.bell.rung = rung;
        any
    }

    fn serve_slot(&mut self, slot: LocalId) {
        for index in (0..self.peers.count_in(slot)).rev() {
            let Some(peer) = self.peers.at(slot, index) else {
                continue;
            };
            let incarnation = peer.incarnation;
            if let Some(at) = self.timed_out_at
                && peer.status.rang_ago() > at.elapsed() + LOST_AFTER
            {
                Counters::count(&self.shared.counters.lost_wakeups);
                self.timed_out_at = None;
            }
            self.serve(incarnation);
        }
    }

    /// Takes up again what lacked room; `true` when there was progress to make.
    fn take_backlog(&mut self) -> bool {
        if self.backlog.is_empty() || !self.outbox.has_room() {
            return false;
        }
        for _ in 0..self.backlog.len() {
            let Some(incarnation) = self.backlog.pop_front() else {
                break;
            };
            if let Some(peer) = self.peers.get(incarnation) {
                peer.in_backlog = false;
                self.serve(incarnation);
            }
        }
        true
    }

    /// Performs every assignment that is possible now.
    fn hand_over(&mut self) -> bool {
        let mut any = false;
        let now = self.turn_at;
        while self.shared.gate.is_open() {
            let peers = &mut self.peers;
            let readiness = |incarnation| {
                let peer = peers.get(incarnation);
                peer.map_or(Readiness::Engaged, |peer| peer.status.readiness())
            };
            let Some(assignment) = self.handover.next_hand(now, readiness) else {
                break;
            };
            any = true;
            self.perform(assignment, now);
        }
        any
    }

    fn housekeep(&mut self) {
        let now = self.turn_at;
        if now < self.next_housekeeping {
            return;
        }
        self.next_housekeeping = now + HOUSEKEEPING;
        for (incarnation, since) in self.handover.expire(now) {
            self.answer_fetch(
                incarnation,
                AnswerKind::Empty,
                now.saturating_duration_since(since),
            );
        }
    }

    /// Answers every parked fetch and those that come.
    fn answer_parked(&mut self, kind: AnswerKind) {
        let now = Instant::now();
        for (incarnation, since) in self.handover.drain() {
            self.answer_fetch(incarnation, kind, now.saturating_duration_since(since));
        }
    }

    fn is_over(&self) -> bool {
        if self.shared.abort.load(Ordering::SeqCst) || self.outbox.is_orphaned() {
            return true;
        }
        let answered = self.outbox.tokens() == 0 && self.backlog.is_empty();
        self.closing
            .is_some_and(|until| answered || Instant::now() >= until)
    }

    pub(super) fn update_gauges(&self) {
        let counters = &self.shared.counters;
        Counters::gauge(&counters.incarnations, self.peers.len());
        Counters::gauge(&counters.parked_requests, self.handover.parked());
        Counters::gauge(&counters.prepared_replies, self.handover.prepared());
        Counters::gauge(&counters.unanswered_reports, self.outbox.tokens());
    }

    /// Answers everybody who still waits, then drops requests, ports, and the node.
    fn end(mut self) {
        self.answer_parked(AnswerKind::Draining);
        let peers: Vec<Peer<T::Ports>> = self.peers.drain().collect();
        for mut peer in peers {
            for (_, arrived) in peer.reports.drain(..) {
                Counters::count(&self.shared.counters.abandoned);
                Self::abandon(arrived);
            }
            peer.ring();
            self.bell.remove(&peer.doorbell);
            if let Some(done) = peer.retiring.take() {
                // The caller of a retirement that could not be finished learns that the bridge is closed.
                answer(done, Err(BridgeError::Closed));
            }
            self.bury(peer.ports, peer.incarnation, None);
        }
        self.end_file_work();
        self.update_gauges();
    }

    pub(super) fn count_request(&self, operation: Operation) {
        self.shared.counters.request(operation);
    }

    pub(super) fn tell(&self, event: ServerEvent) {
        self.outbox.lifecycle(event);
    }
}

/// Answers a command. A caller that gave up has dropped its receiver; the command is in force all the same.
fn answer<T>(done: oneshot::Sender<T>, result: T) {
    let _caller_waits = done.send(result);
}
