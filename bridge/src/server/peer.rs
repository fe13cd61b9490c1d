//! What the poller holds of one incarnation, and where to find it.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::command::Invited;
use crate::doorbell::Doorbell;
use crate::error::BridgeError;
use crate::ids::{Incarnation, LocalId, MAX_WORKERS};
use crate::invitation::Token;
use crate::sleep;
use crate::status::StatusView;
use crate::transport::ServerPorts;

/// How far a worker's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No handshake yet.
    Invited,
    Joined,
    /// It said goodbye.
    Left,
}

/// A request that waits for its answer, and when it came.
#[derive(Debug)]
pub(super) struct Arrived<R> {
    pub(super) request: R,
    pub(super) at: Instant,
}

/// One incarnation. Field order is drop order: requests before ports, ports before the doorbell.
pub(super) struct Peer<P: ServerPorts> {
    pub(super) parked: Option<Arrived<P::Request>>,
    /// Reports by the number of their token; at most 4 plus those that were drained at the end.
    pub(super) reports: Vec<(u64, Arrived<P::Request>)>,
    pub(super) ports: P,
    pub(super) local_id: LocalId,
    pub(super) incarnation: Incarnation,
    pub(super) doorbell: Doorbell,
    pub(super) status: StatusView,
    pub(super) token: Token,
    pub(super) stage: Stage,
    /// Its doorbell hung up and the owner has not been told yet.
    pub(super) hang_up_untold: bool,
    /// It is in the backlog already.
    pub(super) in_backlog: bool,
    /// Being retired: who waits for it.
    pub(super) retiring: Option<oneshot::Sender<Result<(), BridgeError>>>,
}

impl<P: ServerPorts> Peer<P> {
    pub(super) fn new(invited: Invited, ports: P) -> Self {
        Self {
            parked: None,
            reports: Vec::new(),
            ports,
            local_id: invited.local_id,
            incarnation: invited.incarnation,
            doorbell: invited.doorbell,
            status: invited.status,
            token: invited.token,
            stage: Stage::Invited,
            hang_up_untold: false,
            in_backlog: false,
            retiring: None,
        }
    }

    /// Wakes the worker's poller if it sleeps. After the frame was sent.
    pub(super) fn ring(&self) {
        if sleep::claim(self.status.asleep()) {
            self.doorbell.ring();
        }
    }

    /// Takes the report that a token stands for.
    pub(super) fn take_report(&mut self, token: u64) -> Option<Arrived<P::Request>> {
        let index = self.reports.iter().position(|(other, _)| *other == token)?;
        Some(self.reports.swap_remove(index).1)
    }
}

/// Every incarnation by slot; usually one per slot, two while a restart overlaps.
pub(super) struct Peers<P: ServerPorts> {
    slots: Vec<Vec<Peer<P>>>,
    slot_of: HashMap<Incarnation, LocalId>,
}

impl<P: ServerPorts> Peers<P> {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..MAX_WORKERS).map(|_| Vec::new()).collect(),
            slot_of: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slot_of.len()
    }

    pub(super) fn insert(&mut self, peer: Peer<P>) {
        self.slot_of.insert(peer.incarnation, peer.local_id);
        self.slots[peer.local_id.index()].push(peer);
    }

    pub(super) fn get(&mut self, incarnation: Incarnation) -> Option<&mut Peer<P>> {
        let slot = self.slot_of.get(&incarnation)?;
        self.slots[slot.index()]
            .iter_mut()
            .find(|peer| peer.incarnation == incarnation)
    }

    pub(super) fn remove(&mut self, incarnation: Incarnation) -> Option<Peer<P>> {
        let slot = self.slot_of.remove(&incarnation)?;
        let peers = &mut self.slots[slot.index()];
        let index = peers
            .iter()
            .position(|peer| peer.incarnation == incarnation)?;
        Some(peers.swap_remove(index))
    }

    /// How many incarnations a slot has.
    pub(super) fn count_in(&self, slot: LocalId) -> usize {
        self.slots[slot.index()].len()
    }

    /// One of them. Removing it moves the last one to its place, so visit them from the last to the first.
    pub(super) fn at(&self, slot: LocalId, index: usize) -> Option<&Peer<P>> {
        self.slots[slot.index()].get(index)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Peer<P>> {
        self.slots.iter_mut().flatten()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Peer<P>> {
        self.slot_of.clear();
        self.slots.iter_mut().flat_map(|slot| slot.drain(..))
    }
}
