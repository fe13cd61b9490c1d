//! The worker's side: opens what the manager created, sends requests, reads control states.

use std::time::Instant;

use bytes::Bytes;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::{Client, RequestSendError};
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::{BackpressureAction, LoanError, SendError};
use iceoryx2::prelude::{BackpressureStrategy, NodeName, SignalHandlingMode};
use iceoryx2::service::builder::publish_subscribe::PublishSubscribeOpenError;
use iceoryx2::service::builder::request_response::RequestResponseOpenError;

use super::{PublishSubscribe, RequestResponse, Service, Side, configuration, naming};
use crate::error::TransportError;
use crate::header::{
    ControlHeader, FETCH_ANSWER_SLICE, FETCH_REQUEST_SLICE, Operation, REPORT_SLICE, RequestHeader,
    ResponseHeader,
};
use crate::root::TransportRoot;
use crate::transport::{Address, AnswerState, ClientTransport, PendingAnswer, SendFailure};

/// Node and ports of a worker. Field order is drop order.
#[derive(Debug)]
pub(crate) struct IpcClient {
    fetch: IpcPort,
    report: IpcPort,
    control: Subscriber<Service, [u8], ControlHeader>,
    _topic: PublishSubscribe,
    _node: Node<Service>,
}

#[derive(Debug)]
struct IpcPort {
    port: Client<Service, [u8], RequestHeader, [u8], ResponseHeader>,
    _service: RequestResponse,
}

/// Repeats an opening while another process is in the way; `pause` waits a little and says whether to go on.
fn open_with_retry<T, E: std::error::Error + Send + Sync + 'static>(
    operation: &'static str,
    until: Instant,
    pause: &mut dyn FnMut() -> bool,
    transient: impl Fn(&E) -> bool,
    mut open: impl FnMut() -> Result<T, E>,
) -> Result<T, TransportError> {
    loop {
        match open() {
            Ok(opened) => return Ok(opened),
            Err(error) if transient(&error) && Instant::now() < until && pause() => {}
            Err(error) => return Err(TransportError::new(operation, error)),
        }
    }
}

impl IpcClient {
    /// Opens everything; never creates. The subscriber comes before the clients, so that a state published during the
    /// handshake is not missed.
    pub(crate) fn open(
        root: &TransportRoot,
        address: Address,
        until: Instant,
        pause: &mut dyn FnMut() -> bool,
    ) -> Result<Self, TransportError> {
        let life = root.life(address.incarnation);
        let config = configuration(&life, Side::Worker)?;
        let name = NodeName::new(&naming::worker_node(address.incarnation))
            .map_err(|error| TransportError::new("name the node", error))?;
        let node = NodeBuilder::new()
            .name(&name)
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<Service>()
            .map_err(|error| TransportError::new("create the node", error))?;
        let topic_name = naming::control_topic(address)?;
        let topic = open_with_retry(
            "open the control topic",
            until,
            pause,
            transient_topic_error,
            || {
                node.service_builder(&topic_name)
                    .publish_subscribe::<[u8]>()
                    .user_header::<ControlHeader>()
                    .open()
            },
        )?;
        let control = topic
            .subscriber_builder()
            .create()
            .map_err(|error| TransportError::new("create the control subscriber", error))?;
        let mut open = |operation, slice| open_port(&node, address, operation, slice, until, pause);
        Ok(Self {
            fetch: open(Operation::Fetch, FETCH_REQUEST_SLICE)?,
            report: open(Operation::Report, REPORT_SLICE)?,
            control,
            _topic: topic,
            _node: node,
        })
    }
}

fn open_port(
    node: &Node<Service>,
    address: Address,
    operation: Operation,
    slice: usize,
    until: Instant,
    pause: &mut dyn FnMut() -> bool,
) -> Result<IpcPort, TransportError> {
    let name = naming::request_service(address, operation)?;
    let service = open_with_retry(
        "open a service",
        until,
        pause,
        transient_service_error,
        || {
            node.service_builder(&name)
                .request_response::<[u8], [u8]>()
                .request_user_header::<RequestHeader>()
                .response_user_header::<ResponseHeader>()
                .open()
        },
    )?;
    let port = service
        .client_builder()
        .initial_max_slice_len(slice)
        // A full queue is an error at once: never a wait, never silence.
        .backpressure_strategy(BackpressureStrategy::DiscardData)
        .set_backpressure_handler(|_| BackpressureAction::DiscardDataAndFail)
        .create()
        .map_err(|error| TransportError::new("create a client port", error))?;
    Ok(IpcPort {
        port,
        _service: service,
    })
}

fn transient_service_error(error: &RequestResponseOpenError) -> bool {
    use RequestResponseOpenError as E;
    matches!(
        error,
        E::DoesNotExist | E::HangsInCreation | E::IsMarkedForDestruction | E::Interrupt
    )
}

fn transient_topic_error(error: &PublishSubscribeOpenError) -> bool {
    use PublishSubscribeOpenError as E;
    matches!(
        error,
        E::DoesNotExist | E::HangsInCreation | E::IsMarkedForDestruction | E::Interrupt
    )
}

impl ClientTransport for IpcClient {
    type Pending = IpcPending;

    fn send(
        &mut self,
        operation: Operation,
        header: RequestHeader,
        payload: &[u8],
    ) -> Result<IpcPending, SendFailure> {
        let port = match operation {
            Operation::Fetch => &self.fetch.port,
            Operation::Report => &self.report.port,
        };
        // A slice of zero elements is never loaned; the header says how many bytes count.
        let bytes = if payload.is_empty() {
            &[0][..]
        } else {
            payload
        };
        let mut request = port
            .loan_slice_uninit(bytes.len())
            .map_err(|error| match error {
                LoanError::OutOfMemory | LoanError::ExceedsMaxLoans => SendFailure::Full,
                error => SendFailure::Transport(TransportError::new("loan a request", error)),
            })?;
        *request.user_header_mut() = header;
        let pending = request
            .write_from_slice(bytes)
            .send()
            .map_err(|error| match error {
                RequestSendError::ExceedsMaxActiveRequests
                | RequestSendError::SendError(SendError::UnableToDeliver) => SendFailure::Full,
                error => SendFailure::Transport(TransportError::new("send a request", error)),
            })?;
        if pending.number_of_server_connections() == 0 {
            return Err(SendFailure::Disconnected);
        }
        Ok(IpcPending { pending })
    }

    fn newest_control(&mut self) -> Result<Option<Bytes>, TransportError> {
        let mut newest = None;
        while let Some(sample) = self
            .control
            .receive()
            .map_err(|error| TransportError::new("receive a control state", error))?
        {
            let state = sample
                .user_header()
                .state(sample.payload())
                .map_err(|error| TransportError::new("read a control state", error))?;
            newest = Some(Bytes::copy_from_slice(state));
        }
        Ok(newest)
    }

    fn has_control(&mut self) -> bool {
        // A failure shows when the state is taken.
        self.control.has_samples().unwrap_or(true)
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct IpcPending {
    pending: PendingResponse<Service, [u8], RequestHeader, [u8], ResponseHeader>,
}

impl PendingAnswer for IpcPending {
    fn is_ready(&self) -> bool {
        self.pending.has_response() || !self.pending.is_connected()
    }

    fn poll(&mut self) -> AnswerState {
        // Read before the queue: an answer is sent before the other side lets go, so "not connected" and then an
        // empty queue means that no answer will come.
        let connected = self.pending.is_connected();
        match self.pending.receive() {
            Ok(Some(response)) => {
                let payload = response.payload();
                // No slot is larger, whatever is written beside it.
                let payload = payload.get(..FETCH_ANSWER_SLICE).unwrap_or(payload);
                AnswerState::Answered {
                    header: *response.user_header(),
                    payload: Bytes::copy_from_slice(payload),
                }
            }
            Ok(None) if connected => AnswerState::Waiting,
            Ok(None) => AnswerState::Disconnected,
            Err(error) => AnswerState::Failed(TransportError::new("receive an answer", error)),
        }
    }
}
