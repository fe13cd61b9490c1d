//! What the two pollers need of a transport, and nothing more.
//!
//! [`ipc`] is iceoryx2; `memory` is an in-process twin for actor tests. Everything here is used on the poller thread
//! alone: a transport is built there by a closure that travelled, and its ports are dropped there. Waiting is not part of
//! it (see `doorbell`, `waker`, `bell`), so both transports sleep and wake the same way.

pub(crate) mod ipc;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::any::Any;

use bytes::Bytes;

use crate::error::TransportError;
use crate::header::{Operation, RequestHeader, ResponseHeader};
use crate::ids::{Incarnation, LocalId};

/// Names and numbers of one incarnation's services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) manager: uuid::Uuid,
    pub(crate) local_id: LocalId,
    pub(crate) incarnation: Incarnation,
}

/// The manager's side.
pub(crate) trait ServerTransport {
    type Ports: ServerPorts;
    type Opening: Opening<Ports = Self::Ports>;

    /// Begins to create the services of an incarnation and this side's ports; does nothing yet.
    fn begin(&mut self, address: Address) -> Self::Opening;

    /// All steps at once.
    #[cfg(test)]
    fn open_ports(&mut self, address: Address) -> Result<Self::Ports, TransportError> {
        let mut opening = self.begin(address);
        loop {
            if let Some(ports) = opening.step()? {
                return Ok(ports);
            }
        }
    }
}

/// Ports that are being made. Dropped, what there is of them is dropped.
pub(crate) trait Opening {
    type Ports;

    /// Does a little of it; the ports when all is done.
    fn step(&mut self) -> Result<Option<Self::Ports>, TransportError>;
}

/// Both request services of one incarnation, and its control topic.
pub(crate) trait ServerPorts {
    type Request: IncomingRequest;

    /// Puts a control state on the topic; a subscriber that comes later gets the newest one.
    fn publish(&mut self, sequence: u64, state: &[u8]) -> Result<(), TransportError>;

    /// Delivers the newest control state to a subscriber that came since it was published.
    fn refresh_subscriber(&mut self) -> Result<(), TransportError>;

    /// Takes one unread request, never waiting.
    fn receive(&mut self, operation: Operation) -> Result<Option<Self::Request>, TransportError>;

    /// Takes them apart, so that each part can be dropped by itself, in this order.
    fn dismantle(self) -> Vec<Box<dyn Any>>;
}

/// A request that waits for its one answer. Dropped unanswered, its sender sees a disconnect.
pub(crate) trait IncomingRequest {
    fn header(&self) -> RequestHeader;

    /// The payload, at least as long as the sender's frame.
    fn payload(&self) -> &[u8];

    /// Whether the sender still waits. Only a hint: it stays true for a killed sender.
    fn is_connected(&self) -> bool;

    /// Answers. A sender that no longer waits is not an error.
    fn answer(self, header: ResponseHeader, payload: &[u8]) -> Result<(), TransportError>;
}

/// The worker's side.
pub(crate) trait ClientTransport {
    type Pending: PendingAnswer;

    /// Sends a request.
    fn send(
        &mut self,
        operation: Operation,
        header: RequestHeader,
        payload: &[u8],
    ) -> Result<Self::Pending, SendFailure>;

    /// Takes every unread control state and returns the newest.
    fn newest_control(&mut self) -> Result<Option<Bytes>, TransportError>;

    /// Whether a control state is unread.
    fn has_control(&mut self) -> bool;
}

/// Why a request was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// Too many are unanswered.
    Full,
    /// Nobody listens: the manager has dropped its ports.
    Disconnected,
    /// Anything else.
    Transport(TransportError),
}

/// A request under way. Dropped, its answer is not wanted any more.
pub(crate) trait PendingAnswer {
    /// Whether [`PendingAnswer::poll`] would say something else than waiting.
    fn is_ready(&self) -> bool;

    /// Takes the answer, never waiting.
    fn poll(&mut self) -> AnswerState;
}

/// Where a request stands.
#[derive(Debug)]
pub(crate) enum AnswerState {
    Waiting,
    Answered {
        header: ResponseHeader,
        payload: Bytes,
    },
    /// Dropped unanswered by the other side.
    Disconnected,
    Failed(TransportError),
}
