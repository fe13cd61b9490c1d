//! The manager's side: receives requests, answers them, publishes control states.

use std::any::Any;

use iceoryx2::active_request::ActiveRequest;
use iceoryx2::node::Node;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::server::Server;
use iceoryx2::port::update_connections::UpdateConnections;

use super::opening::{IpcOpening, create_node};
use super::{PublishSubscribe, RequestResponse, Service};
use crate::error::TransportError;
use crate::header::{
    ControlHeader, FETCH_REQUEST_SLICE, Operation, REPORT_SLICE, RequestHeader, ResponseHeader,
};
use crate::ids::{Incarnation, LocalId};
use crate::root::TransportRoot;
use crate::transport::{Address, IncomingRequest, ServerPorts, ServerTransport};

/// Makes ports. Every incarnation has a directory and a node of its own, so that what it leaves is one directory.
#[derive(Debug)]
pub(crate) struct IpcServer {
    root: TransportRoot,
}

impl IpcServer {
    /// Looks whether the transport works here at all. The root is claimed by a lock, so nothing of this name can exist.
    pub(crate) fn open(root: &TransportRoot) -> Result<Self, TransportError> {
        let nobody = Address {
            manager: uuid::Uuid::nil(),
            local_id: LocalId(0),
            incarnation: Incarnation(0),
        };
        drop(create_node(root, nobody)?);
        root.remove_life(nobody.incarnation)
            .map_err(|error| TransportError::new("remove the directory of a worker", error))?;
        Ok(Self { root: root.clone() })
    }
}

impl ServerTransport for IpcServer {
    type Ports = IpcPorts;
    type Opening = IpcOpening;

    fn begin(&mut self, address: Address) -> IpcOpening {
        IpcOpening::new(self.root.clone(), address)
    }
}

#[derive(Debug)]
pub(super) struct IpcPort {
    pub(super) port: Server<Service, [u8], RequestHeader, [u8], ResponseHeader>,
    pub(super) service: RequestResponse,
}

#[derive(Debug)]
pub(super) struct IpcTopic {
    pub(super) publisher: Publisher<Service, [u8], ControlHeader>,
    pub(super) topic: PublishSubscribe,
}

/// The ports of one incarnation. Field order is drop order.
#[derive(Debug)]
pub(crate) struct IpcPorts {
    pub(super) fetch: IpcPort,
    pub(super) report: IpcPort,
    pub(super) control: IpcTopic,
    pub(super) node: Node<Service>,
}

impl ServerPorts for IpcPorts {
    type Request = IpcRequest;

    fn publish(&mut self, sequence: u64, state: &[u8]) -> Result<(), TransportError> {
        // A slice of zero elements is never loaned; the header says how many bytes count.
        let bytes = if state.is_empty() { &[0][..] } else { state };
        let mut sample = self
            .control
            .publisher
            .loan_slice_uninit(bytes.len())
            .map_err(|error| TransportError::new("loan a control sample", error))?;
        *sample.user_header_mut() = ControlHeader::new(sequence, state.len());
        sample
            .write_from_slice(bytes)
            .send()
            .map_err(|error| TransportError::new("send a control sample", error))?;
        Ok(())
    }

    fn refresh_subscriber(&mut self) -> Result<(), TransportError> {
        self.control
            .publisher
            .update_connections()
            .map_err(|error| TransportError::new("connect a subscriber", error))
    }

    fn receive(&mut self, operation: Operation) -> Result<Option<IpcRequest>, TransportError> {
        let (port, room) = match operation {
            Operation::Fetch => (&self.fetch.port, FETCH_REQUEST_SLICE),
            Operation::Report => (&self.report.port, REPORT_SLICE),
        };
        let received = port
            .receive()
            .map_err(|error| TransportError::new("receive a request", error))?;
        Ok(received.map(|request| IpcRequest { request, room }))
    }

    fn dismantle(self) -> Vec<Box<dyn Any>> {
        let Self {
            fetch,
            report,
            control,
            node,
        } = self;
        vec![
            Box::new(fetch.port),
            Box::new(fetch.service),
            Box::new(report.port),
            Box::new(report.service),
            Box::new(control.publisher),
            Box::new(control.topic),
            Box::new(node),
        ]
    }
}

/// A request in shared memory, not copied.
#[derive(Debug)]
pub(crate) struct IpcRequest {
    request: ActiveRequest<Service, [u8], RequestHeader, [u8], ResponseHeader>,
    /// Bytes of a slot: how many of them count is written by the sender, who may write anything.
    room: usize,
}

impl IncomingRequest for IpcRequest {
    fn header(&self) -> RequestHeader {
        *self.request.user_header()
    }

    fn payload(&self) -> &[u8] {
        let payload = self.request.payload();
        payload.get(..self.room).unwrap_or(payload)
    }

    fn is_connected(&self) -> bool {
        self.request.is_connected()
    }

    fn answer(self, header: ResponseHeader, payload: &[u8]) -> Result<(), TransportError> {
        let bytes = if payload.is_empty() {
            &[0][..]
        } else {
            payload
        };
        let mut response = self
            .request
            .loan_slice_uninit(bytes.len())
            .map_err(|error| TransportError::new("loan an answer", error))?;
        *response.user_header_mut() = header;
        response
            .write_from_slice(bytes)
            .send()
            .map_err(|error| TransportError::new("send an answer", error))
    }
}
