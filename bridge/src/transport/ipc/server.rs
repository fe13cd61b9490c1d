//! The manager's side: creates services, receives requests, publishes control states, has dead nodes cleaned.

use iceoryx2::active_request::ActiveRequest;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::server::Server;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::{Config, NodeName, SignalHandlingMode};

use super::burial::Burials;
use super::{
    ACTIVE_FETCHES, ACTIVE_REPORTS, MAX_SERVICE_NODES, PublishSubscribe, RequestResponse, Service,
    Side, configuration, naming,
};
use crate::error::TransportError;
use crate::header::{
    ControlHeader, FETCH_ANSWER_SLICE, FETCH_REQUEST_SLICE, MAX_CONTROL, Operation,
    REPORT_ANSWER_SLICE, REPORT_SLICE, RequestHeader, ResponseHeader,
};
use crate::ids::Incarnation;
use crate::janitor::JanitorHandle;
use crate::root::TransportRoot;
use crate::transport::{Address, IncomingRequest, ServerPorts, ServerTransport};

/// Node of the manager.
#[derive(Debug)]
pub(crate) struct IpcServer {
    node: Node<Service>,
    config: Config,
    janitor: JanitorHandle,
    burials: Burials,
}

impl IpcServer {
    /// Opens the node. The root is claimed by a lock, so nothing of this name can exist.
    pub(crate) fn open(
        root: &TransportRoot,
        janitor: JanitorHandle,
    ) -> Result<Self, TransportError> {
        let config = configuration(root, Side::Manager)?;
        let name = NodeName::new("manager")
            .map_err(|error| TransportError::new("name the node", error))?;
        let node = NodeBuilder::new()
            .name(&name)
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<Service>()
            .map_err(|error| TransportError::new("create the node", error))?;
        Ok(Self {
            node,
            config,
            janitor,
            burials: Burials::default(),
        })
    }

    fn create_topic(&self, address: Address) -> Result<IpcTopic, TransportError> {
        let topic = self
            .node
            .service_builder(&naming::control_topic(address)?)
            .publish_subscribe::<[u8]>()
            .user_header::<ControlHeader>()
            .max_subscribers(1)
            .max_publishers(1)
            .max_nodes(MAX_SERVICE_NODES)
            .history_size(1)
            .subscriber_max_buffer_size(2)
            .subscriber_max_borrowed_samples(1)
            // The newest state replaces an unread one: a stopped worker holds nobody up.
            .enable_safe_overflow(true)
            .create()
            .map_err(|error| TransportError::new("create a control topic", error))?;
        let publisher = topic
            .publisher_builder()
            .initial_max_slice_len(MAX_CONTROL)
            .max_loaned_samples(1)
            .create()
            .map_err(|error| TransportError::new("create a control publisher", error))?;
        Ok(IpcTopic {
            publisher,
            _topic: topic,
        })
    }

    fn create_service(
        &self,
        address: Address,
        operation: Operation,
    ) -> Result<RequestResponse, TransportError> {
        let active = match operation {
            Operation::Fetch => ACTIVE_FETCHES,
            Operation::Report => ACTIVE_REPORTS,
        };
        self.node
            .service_builder(&naming::request_service(address, operation)?)
            .request_response::<[u8], [u8]>()
            .request_user_header::<RequestHeader>()
            .response_user_header::<ResponseHeader>()
            .max_clients(1)
            .max_servers(1)
            .max_nodes(MAX_SERVICE_NODES)
            .max_active_requests_per_client(active)
            .max_loaned_requests(1)
            .max_response_buffer_size(1)
            .max_borrowed_responses_per_pending_response(1)
            // A request that finds the queue full is refused at its sender, never dropped silently.
            .enable_safe_overflow_for_requests(false)
            .enable_safe_overflow_for_responses(true)
            // A report whose sender gave up waiting is still delivered; a fetch nobody waits for is not.
            .enable_fire_and_forget_requests(operation == Operation::Report)
            .create()
            .map_err(|error| TransportError::new("create a service", error))
    }
}

impl ServerTransport for IpcServer {
    type Ports = IpcPorts;

    fn open_ports(&mut self, address: Address) -> Result<IpcPorts, TransportError> {
        let open = |operation, slice| {
            let service = self.create_service(address, operation)?;
            let port = service
                .server_builder()
                .initial_max_slice_len(slice)
                .max_loaned_responses_per_request(1)
                .create()
                .map_err(|error| TransportError::new("create a server port", error))?;
            Ok(IpcPort {
                port,
                _service: service,
            })
        };
        Ok(IpcPorts {
            fetch: open(Operation::Fetch, FETCH_ANSWER_SLICE)?,
            report: open(Operation::Report, REPORT_ANSWER_SLICE)?,
            control: self.create_topic(address)?,
        })
    }

    fn bury(&mut self, ports: IpcPorts, incarnation: Incarnation, pid: u32) {
        drop(ports);
        if pid == 0 {
            return;
        }
        if self.burials.add(pid, incarnation) {
            let (burials, config) = (self.burials.clone(), self.config.clone());
            self.janitor.submit(Box::new(move || burials.pass(&config)));
        }
    }
}

#[derive(Debug)]
struct IpcPort {
    port: Server<Service, [u8], RequestHeader, [u8], ResponseHeader>,
    _service: RequestResponse,
}

#[derive(Debug)]
struct IpcTopic {
    publisher: Publisher<Service, [u8], ControlHeader>,
    _topic: PublishSubscribe,
}

/// The ports of one incarnation.
#[derive(Debug)]
pub(crate) struct IpcPorts {
    fetch: IpcPort,
    report: IpcPort,
    control: IpcTopic,
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
