//! What the poller does with frames: whom they come from, fetches, reports, and their answers.
//!
//! Report ports are drained before fetch ports, so that the owner sees the end of a task before the hand-over of the
//! next. Nothing is received that has no room in the event channel: it stays in shared memory, and the sender's own limit
//! of unanswered requests pushes back.

mod departure;
mod handshake;

use std::time::{Duration, Instant};

use bytes::Bytes;

use self::handshake::Refusal;
use super::events::Ring;
use super::peer::{Arrived, Stage};
use super::poller::Poller;
use crate::batch;
use crate::handover::{Assignment, FetchDecision};
use crate::header::{
    AnswerKind, Checked, Content, MAX_ECHO, Operation, RequestHeader, RequestKind, ResponseHeader,
};
use crate::ids::Incarnation;
use crate::spill::{Body, Incoming, Name};
use crate::stats::{Counters, RefusalReason};
use crate::status::{Word, clock_ns};
use crate::transport::{IncomingRequest, ServerPorts, ServerTransport};

/// Frames taken from one port before the others have their turn.
const FRAMES_PER_VISIT: usize = 8;

/// Whether an answer repeats one that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Yes,
}

type RequestOf<T> = <<T as ServerTransport>::Ports as ServerPorts>::Request;

impl<T: ServerTransport> Poller<T> {
    /// Takes what an incarnation has sent, as far as budget and room go; the rest goes to the backlog.
    pub(super) fn serve(&mut self, incarnation: Incarnation) {
        self.drop_forgotten(incarnation);
        let reports_done = self.drain_port(incarnation, Operation::Report);
        let fetches_done = self.drain_port(incarnation, Operation::Fetch);
        self.tell_hang_up(incarnation);
        let Some(peer) = self.peers.get(incarnation) else {
            return;
        };
        if !(reports_done && fetches_done) || peer.hang_up_untold {
            if !peer.in_backlog {
                peer.in_backlog = true;
                self.backlog.push_back(incarnation);
            }
        } else if peer.retiring.is_some() {
            self.end_retirement(incarnation);
        }
    }

    /// Drops requests whose sender gave up: they would block the port, which allows only so many at once.
    fn drop_forgotten(&mut self, incarnation: Incarnation) {
        let Some(peer) = self.peers.get(incarnation) else {
            return;
        };
        peer.reports
            .retain(|(_, arrived)| arrived.request.is_connected());
        let gave_up = |arrived: &Arrived<RequestOf<T>>| !arrived.request.is_connected();
        if peer.parked.as_ref().is_some_and(gave_up) {
            peer.parked = None;
            self.handover.unpark(incarnation);
        }
    }

    /// `true` when the port is empty.
    fn drain_port(&mut self, incarnation: Incarnation, operation: Operation) -> bool {
        for _ in 0..FRAMES_PER_VISIT {
            if !self.outbox.has_room() {
                return false;
            }
            let Some(peer) = self.peers.get(incarnation) else {
                return true;
            };
            match peer.ports.receive(operation) {
                Ok(Some(request)) => self.frame(incarnation, operation, request),
                Ok(None) => return true,
                Err(error) => {
                    // Not fatal for the others; the worker's own deadline ends its request.
                    tracing::warn!(%incarnation, %error, source = ?error.source, "a port failed");
                    Counters::count(&self.shared.counters.transport_failures);
                    return true;
                }
            }
        }
        false
    }

    fn frame(&mut self, incarnation: Incarnation, operation: Operation, request: RequestOf<T>) {
        self.count_request(operation);
        let arrived = Arrived {
            request,
            at: Instant::now(),
        };
        let header = arrived.request.header();
        let room = arrived.request.payload().len();
        let stage = self
            .peers
            .get(incarnation)
            .map_or(Stage::Left, |peer| peer.stage);
        let joined = stage == Stage::Joined;
        match header.check(incarnation, room) {
            Err(fault) => self.refuse(incarnation, arrived, fault.into()),
            Ok(checked) => match (operation, checked.kind) {
                (Operation::Report, RequestKind::Hello) => {
                    self.hello(incarnation, stage, arrived, checked);
                }
                (Operation::Fetch, RequestKind::Fetch) if joined => {
                    self.fetch(incarnation, arrived, &header);
                }
                (Operation::Report, RequestKind::Report) if joined => {
                    self.report(incarnation, arrived, &header, checked);
                }
                (Operation::Report, RequestKind::Bye) if joined => self.bye(incarnation, arrived),
                (Operation::Report, RequestKind::Echo) if joined => {
                    self.echo(incarnation, arrived, checked);
                }
                _ if joined => {
                    let words = "this kind of frame does not belong to this service";
                    let refusal = Refusal::new(RefusalReason::Encoding, words);
                    self.refuse(incarnation, arrived, refusal);
                }
                _ => {
                    let words = "the handshake comes first, and nothing comes after the goodbye";
                    let refusal = Refusal::new(RefusalReason::Incarnation, words);
                    self.refuse(incarnation, arrived, refusal);
                }
            },
        }
    }

    fn fetch(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        header: &RequestHeader,
    ) {
        match self
            .handover
            .fetch(incarnation, header.confirms, header.wish(), arrived.at)
        {
            FetchDecision::Park => {
                if let Some(peer) = self.peers.get(incarnation) {
                    peer.parked = Some(arrived);
                }
            }
            FetchDecision::Redeliver(replies) => {
                let at = arrived.at;
                self.answer_replies(incarnation, arrived, &replies, Again::Yes, Duration::ZERO);
                self.shared.counters.served(Operation::Fetch, at.elapsed());
            }
            FetchDecision::Draining => {
                self.answer(
                    incarnation,
                    arrived.request,
                    AnswerKind::Draining,
                    None,
                    |header| header,
                );
                self.ring(incarnation);
            }
            // Dropped, which the worker sees: it is retired and about to end.
            FetchDecision::NotAdmitted => Counters::count(&self.shared.counters.abandoned),
        }
    }

    /// Answers the parked fetch that an assignment names, and tells the owner.
    pub(super) fn perform(&mut self, assignment: Assignment<Body>, now: Instant) {
        let Assignment {
            incarnation,
            replies,
            parked_since,
        } = assignment;
        let was_parked = parked_since < self.turn_at;
        let parked = if was_parked {
            now.saturating_duration_since(parked_since)
        } else {
            Duration::ZERO
        };
        // The notices first: the owner has them before anything that the worker does with the tasks.
        for (key, _) in &replies {
            self.outbox.notice(*key, incarnation, now);
        }
        let parked_request = self
            .peers
            .get(incarnation)
            .and_then(|peer| peer.parked.take());
        let Some(arrived) = parked_request else {
            // The request is gone, so the worker asks again and gets them by redelivery.
            return;
        };
        self.answer_replies(incarnation, arrived, &replies, Again::No, parked);
        if was_parked {
            self.shared.counters.was_parked(parked);
            self.shared.counters.served(Operation::Fetch, now.elapsed());
        } else {
            self.shared
                .counters
                .served(Operation::Fetch, parked_since.elapsed());
        }
    }

    /// Answers a fetch with replies, each under its state word; the last key names them all.
    fn answer_replies(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        replies: &[(u64, Body)],
        again: Again,
        parked: Duration,
    ) {
        let Some(peer) = self.peers.get(incarnation) else {
            return;
        };
        let status = &peer.status;
        let word = |key| match again {
            Again::No => status.hand(key),
            Again::Yes => status.word_of(key),
        };
        let mut answer = std::mem::take(&mut self.answer_buffer);
        answer.clear();
        let mut file = None;
        for (key, body) in replies {
            match body {
                Body::Inline(payload) => batch::append(&mut answer, *key, word(*key), payload),
                Body::Spilled(_) => file = Some((body.clone(), word(*key))),
            }
        }
        let (body, word) = file.unwrap_or_else(|| {
            let body = Body::Inline(Bytes::copy_from_slice(&answer));
            (body, Word::NONE)
        });
        self.answer_buffer = answer;
        let parked_ns = u64::try_from(parked.as_nanos()).unwrap_or(u64::MAX);
        let complete = |header| ResponseHeader {
            key: replies.last().map_or(0, |(key, _)| *key),
            word: word.0.into(),
            parked_ns,
            ..header
        };
        self.answer(
            incarnation,
            arrived.request,
            AnswerKind::Reply,
            Some(&body),
            complete,
        );
        self.ring(incarnation);
    }

    /// Answers a parked fetch without work.
    pub(super) fn answer_fetch(
        &mut self,
        incarnation: Incarnation,
        kind: AnswerKind,
        parked: Duration,
    ) {
        let Some(arrived) = self
            .peers
            .get(incarnation)
            .and_then(|peer| peer.parked.take())
        else {
            return;
        };
        let parked_ns = u64::try_from(parked.as_nanos()).unwrap_or(u64::MAX);
        let with_time = |header| ResponseHeader {
            parked_ns,
            ..header
        };
        self.answer(incarnation, arrived.request, kind, None, with_time);
        self.ring(incarnation);
        self.shared.counters.was_parked(parked);
    }

    fn report(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        header: &RequestHeader,
        checked: Checked<RequestKind>,
    ) {
        let content = match checked.content(arrived.request.payload()) {
            Content::Inline(data) => Incoming::Inline(Bytes::copy_from_slice(data)),
            Content::Spilled { name, len } => {
                match self.shared.spill.open(name, len, Name::Remove) {
                    Ok(file) => Incoming::Spilled(file),
                    Err(error) => {
                        let words = format!("the report's file cannot be opened: {error}");
                        let refusal = Refusal::new(RefusalReason::Size, words);
                        return self.refuse(incarnation, arrived, refusal);
                    }
                }
            }
        };
        self.handover.confirm(incarnation, header.confirms);
        let token = self.outbox.report(incarnation, header.confirms, content);
        // Nobody waits for the answer of a retired one, and kept requests would block the draining of its port.
        if let Some(peer) = self.peers.get(incarnation)
            && peer.retiring.is_none()
        {
            peer.reports.push((token, arrived));
        }
    }

    /// Answers a report with what its token's owner said.
    pub(super) fn answer_report(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        kind: AnswerKind,
        body: Option<Body>,
        ring: Ring,
    ) {
        let at = arrived.at;
        self.answer(
            incarnation,
            arrived.request,
            kind,
            body.as_ref(),
            |header| header,
        );
        if let Some(Body::Spilled(file)) = body {
            // It must outlive this call: its reader removes it, and retirement sweeps what is left.
            file.leave();
        }
        self.shared.counters.served(Operation::Report, at.elapsed());
        if ring == Ring::Now {
            self.ring(incarnation);
        }
    }

    fn echo(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        checked: Checked<RequestKind>,
    ) {
        let body = match checked.content(arrived.request.payload()) {
            Content::Inline(data) if data.len() <= MAX_ECHO => {
                Some(Body::Inline(Bytes::copy_from_slice(data)))
            }
            _ => {
                let words = format!("an echo has at most {MAX_ECHO} bytes");
                let refusal = Refusal::new(RefusalReason::Size, words);
                return self.refuse(incarnation, arrived, refusal);
            }
        };
        self.answer_report(incarnation, arrived, AnswerKind::Reply, body, Ring::Now);
    }

    /// Sends the one answer of a request.
    fn answer(
        &mut self,
        incarnation: Incarnation,
        request: RequestOf<T>,
        kind: AnswerKind,
        body: Option<&Body>,
        complete: impl FnOnce(ResponseHeader) -> ResponseHeader,
    ) {
        let (payload, len, spilled) = body.map_or((&[][..], 0, false), Body::frame);
        let header = ResponseHeader::answer(kind, &request.header()).with_data(len, spilled);
        let header = ResponseHeader {
            sent_ns: clock_ns(),
            ..complete(header)
        };
        if let Err(error) = request.answer(header, payload) {
            // The request is dropped, which its sender sees and asks again.
            tracing::warn!(%incarnation, %error, source = ?error.source, "an answer could not be sent");
            Counters::count(&self.shared.counters.transport_failures);
        }
    }

    fn ring(&mut self, incarnation: Incarnation) {
        if let Some(peer) = self.peers.get(incarnation) {
            peer.ring();
        }
    }

    /// Tells a worker that its report will not be answered.
    pub(super) fn abandon(arrived: Arrived<RequestOf<T>>) {
        let header = ResponseHeader::answer(AnswerKind::Abandoned, &arrived.request.header());
        // A failure drops the request, which says the same.
        let _sent_or_dropped = arrived.request.answer(header, &[]);
    }
}
