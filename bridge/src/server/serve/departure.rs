//! How an incarnation leaves: a goodbye, a hang-up, and the retirement that drains what it had sent.

use tokio::sync::oneshot;

use super::RequestOf;
use crate::doorbell::Line;
use crate::error::BridgeError;
use crate::header::AnswerKind;
use crate::ids::Incarnation;
use crate::server::events::ServerEvent;
use crate::server::peer::{Arrived, Peer, Stage};
use crate::server::poller::Poller;
use crate::transport::ServerTransport;

impl<T: ServerTransport> Poller<T> {
    pub(super) fn bye(&mut self, incarnation: Incarnation, arrived: Arrived<RequestOf<T>>) {
        if let Some(peer) = self.peers.get(incarnation) {
            peer.stage = Stage::Left;
            peer.parked = None;
        }
        self.handover.unpark(incarnation);
        self.tell(ServerEvent::Left { incarnation });
        self.answer(
            incarnation,
            arrived.request,
            AnswerKind::Farewell,
            None,
            |header| header,
        );
        self.ring(incarnation);
    }

    /// A doorbell was rung or hung up. In the latter case what the worker sent before is taken first.
    pub(in crate::server) fn answer_doorbell(&mut self, incarnation: Incarnation) {
        let Some(peer) = self.peers.get(incarnation) else {
            return;
        };
        if peer.doorbell.drain() == Line::HungUp {
            self.bell.remove(&peer.doorbell);
            peer.hang_up_untold = true;
            self.serve(incarnation);
        }
    }

    pub(super) fn tell_hang_up(&mut self, incarnation: Incarnation) {
        let room = self.outbox.has_room();
        if let Some(peer) = self.peers.get(incarnation)
            && peer.hang_up_untold
            && room
        {
            peer.hang_up_untold = false;
            self.tell(ServerEvent::Closed { incarnation });
        }
    }

    pub(in crate::server) fn begin_retirement(
        &mut self,
        incarnation: Incarnation,
        done: oneshot::Sender<Result<(), BridgeError>>,
    ) {
        let Some(peer) = self
            .peers
            .get(incarnation)
            .filter(|peer| peer.retiring.is_none())
        else {
            // A caller that gave up does not want the reason.
            drop(done.send(Err(BridgeError::UnknownIncarnation(incarnation))));
            return;
        };
        peer.retiring = Some(done);
        peer.parked = None;
        peer.reports.clear();
        // No further hand-over from here on: a fetch that is drained below is not admitted.
        self.handover.retire(incarnation);
        self.serve(incarnation);
    }

    /// Everything of it is drained: drops its requests, then its ports, and has the rest cleaned elsewhere.
    pub(super) fn end_retirement(&mut self, incarnation: Incarnation) {
        let Some(peer) = self.peers.remove(incarnation) else {
            return;
        };
        self.bell.remove(&peer.doorbell);
        let Peer {
            parked,
            reports,
            ports,
            retiring,
            ..
        } = peer;
        drop((parked, reports));
        self.bury(ports, incarnation, retiring);
    }
}
