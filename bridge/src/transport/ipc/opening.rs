//! Making the services of one incarnation in steps, each of which is a few operations on files.
//!
//! The poller takes one step per turn, so that a storm of new workers holds up nobody for longer than one.

use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::prelude::{NodeName, SignalHandlingMode};

use super::server::{IpcPort, IpcPorts, IpcTopic};
use super::{
    ACTIVE_FETCHES, ACTIVE_REPORTS, MAX_SERVICE_NODES, PublishSubscribe, RequestResponse, Service,
    Side, configuration, naming,
};
use crate::error::TransportError;
use crate::header::{
    ControlHeader, FETCH_ANSWER_SLICE, MAX_CONTROL, Operation, REPORT_ANSWER_SLICE, RequestHeader,
    ResponseHeader,
};
use crate::root::TransportRoot;
use crate::transport::{Address, Opening};

/// What is there so far. Field order is drop order.
pub(crate) struct IpcOpening {
    fetch: Option<IpcPort>,
    report: Option<IpcPort>,
    control: Option<IpcTopic>,
    /// The service whose port comes next.
    service: Option<RequestResponse>,
    topic: Option<PublishSubscribe>,
    node: Option<Node<Service>>,
    root: TransportRoot,
    address: Address,
}

impl IpcOpening {
    pub(super) fn new(root: TransportRoot, address: Address) -> Self {
        Self {
            fetch: None,
            report: None,
            control: None,
            service: None,
            topic: None,
            node: None,
            root,
            address,
        }
    }

    fn make_port(
        &mut self,
        node: &Node<Service>,
        operation: Operation,
    ) -> Result<Option<IpcPort>, TransportError> {
        let Some(service) = self.service.take() else {
            self.service = Some(create_service(node, self.address, operation)?);
            return Ok(None);
        };
        let slice = match operation {
            Operation::Fetch => FETCH_ANSWER_SLICE,
            Operation::Report => REPORT_ANSWER_SLICE,
        };
        let port = service
            .server_builder()
            .initial_max_slice_len(slice)
            .max_loaned_responses_per_request(1)
            .create()
            .map_err(|error| TransportError::new("create a server port", error))?;
        Ok(Some(IpcPort { port, service }))
    }

    fn make_topic(&mut self, node: &Node<Service>) -> Result<Option<IpcTopic>, TransportError> {
        let Some(topic) = self.topic.take() else {
            self.topic = Some(create_topic(node, self.address)?);
            return Ok(None);
        };
        let publisher = topic
            .publisher_builder()
            .initial_max_slice_len(MAX_CONTROL)
            .max_loaned_samples(1)
            .create()
            .map_err(|error| TransportError::new("create a control publisher", error))?;
        Ok(Some(IpcTopic { publisher, topic }))
    }

    /// Makes what comes next.
    fn advance(&mut self, node: &Node<Service>) -> Result<(), TransportError> {
        if self.fetch.is_none() {
            self.fetch = self.make_port(node, Operation::Fetch)?;
        } else if self.report.is_none() {
            self.report = self.make_port(node, Operation::Report)?;
        } else if self.control.is_none() {
            self.control = self.make_topic(node)?;
        }
        Ok(())
    }
}

impl Opening for IpcOpening {
    type Ports = IpcPorts;

    fn step(&mut self) -> Result<Option<IpcPorts>, TransportError> {
        let Some(node) = self.node.take() else {
            self.node = Some(create_node(&self.root, self.address)?);
            return Ok(None);
        };
        let advanced = self.advance(&node);
        let made = (self.fetch.take(), self.report.take(), self.control.take());
        match (advanced, made) {
            (Ok(()), (Some(fetch), Some(report), Some(control))) => Ok(Some(IpcPorts {
                fetch,
                report,
                control,
                node,
            })),
            (advanced, made) => {
                (self.fetch, self.report, self.control) = made;
                self.node = Some(node);
                advanced.map(|()| None)
            }
        }
    }
}

/// The manager's node in the directory of an incarnation, which is made here.
pub(super) fn create_node(
    root: &TransportRoot,
    address: Address,
) -> Result<Node<Service>, TransportError> {
    let life = root
        .make_life(address.incarnation)
        .map_err(|error| TransportError::new("make the directory of a worker", error))?;
    let name =
        NodeName::new("manager").map_err(|error| TransportError::new("name the node", error))?;
    NodeBuilder::new()
        .name(&name)
        .config(&configuration(&life, Side::Manager)?)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<Service>()
        .map_err(|error| TransportError::new("create the node", error))
}

fn create_topic(
    node: &Node<Service>,
    address: Address,
) -> Result<PublishSubscribe, TransportError> {
    node.service_builder(&naming::control_topic(address)?)
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
        .map_err(|error| TransportError::new("create a control topic", error))
}

fn create_service(
    node: &Node<Service>,
    address: Address,
    operation: Operation,
) -> Result<RequestResponse, TransportError> {
    let active = match operation {
        Operation::Fetch => ACTIVE_FETCHES,
        Operation::Report => ACTIVE_REPORTS,
    };
    node.service_builder(&naming::request_service(address, operation)?)
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
