//! Who may speak: the handshake of a connection, and refusals in words.

use bytes::Bytes;

use super::RequestOf;
use crate::header::{AnswerKind, Checked, FrameFault, RequestKind};
use crate::ids::Incarnation;
use crate::invitation::Hello;
use crate::server::events::ServerEvent;
use crate::server::peer::{Arrived, Stage};
use crate::server::poller::Poller;
use crate::spill::Body;
use crate::stats::{Counters, RefusalReason};
use crate::transport::{IncomingRequest, ServerPorts, ServerTransport};

/// A refusal in words, and what it counts as.
pub(super) struct Refusal {
    reason: RefusalReason,
    words: String,
}

impl From<FrameFault> for Refusal {
    fn from(fault: FrameFault) -> Self {
        let reason = match fault {
            FrameFault::Version { .. } => RefusalReason::Version,
            FrameFault::Incarnation { .. } => RefusalReason::Incarnation,
            FrameFault::Kind { .. } | FrameFault::Elsewhere { .. } => RefusalReason::Encoding,
            FrameFault::Length { .. } => RefusalReason::Size,
        };
        Self {
            reason,
            words: fault.to_string(),
        }
    }
}

impl Refusal {
    pub(super) fn new(reason: RefusalReason, words: impl Into<String>) -> Self {
        Self {
            reason,
            words: words.into(),
        }
    }
}

impl<T: ServerTransport> Poller<T> {
    pub(super) fn refuse(
        &mut self,
        incarnation: Incarnation,
        arrived: Arrived<RequestOf<T>>,
        refusal: Refusal,
    ) {
        self.shared.counters.refusal(refusal.reason);
        tracing::warn!(%incarnation, reason = refusal.reason.name(), words = refusal.words, "refused a frame");
        let body = Body::Inline(Bytes::from(refusal.words));
        self.answer(
            incarnation,
            arrived.request,
            AnswerKind::Refused,
            Some(&body),
            |header| header,
        );
        self.ring(incarnation);
    }

    pub(super) fn hello(
        &mut self,
        incarnation: Incarnation,
        stage: Stage,
        arrived: Arrived<RequestOf<T>>,
        checked: Checked<RequestKind>,
    ) {
        let hello = Hello::decode(checked.inline(arrived.request.payload()));
        let pid = match self.check_hello(incarnation, stage, hello) {
            Ok(pid) => pid,
            Err(refusal) => return self.refuse(incarnation, arrived, refusal),
        };
        self.handover.admit(incarnation);
        if let Some(peer) = self.peers.get(incarnation) {
            peer.stage = Stage::Joined;
            // Its subscriber exists since before the handshake: after this it has the newest control state.
            if peer.ports.refresh_subscriber().is_err() {
                Counters::count(&self.shared.counters.transport_failures);
            }
            let local_id = peer.local_id;
            self.tell(ServerEvent::Joined {
                incarnation,
                local_id,
                pid,
            });
        }
        self.answer(
            incarnation,
            arrived.request,
            AnswerKind::Welcome,
            None,
            |header| header,
        );
        self.ring(incarnation);
    }

    fn check_hello(
        &mut self,
        incarnation: Incarnation,
        stage: Stage,
        hello: Result<Hello, rmp_serde::decode::Error>,
    ) -> Result<u32, Refusal> {
        let hello = hello.map_err(|_| {
            Refusal::new(RefusalReason::Encoding, "the handshake cannot be decoded")
        })?;
        let manager = self.shared.config.manager;
        let Some(peer) = self.peers.get(incarnation) else {
            return Err(Refusal::new(
                RefusalReason::Incarnation,
                "this incarnation is retired",
            ));
        };
        if !peer.token.matches(&hello.token) {
            let words = "the token is not the one that the manager gave this incarnation";
            return Err(Refusal::new(RefusalReason::Token, words));
        }
        let ours = (manager, peer.local_id, incarnation);
        let theirs = (hello.manager, hello.local_id, hello.incarnation);
        if ours != theirs || stage != Stage::Invited {
            let words = format!(
                "worker {} of incarnation {} is expected once, here is worker {} of incarnation {}",
                ours.1, ours.2, theirs.1, theirs.2
            );
            return Err(Refusal::new(RefusalReason::Incarnation, words));
        }
        Ok(hello.pid)
    }
}
