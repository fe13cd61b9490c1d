//! In-process twin of the transport for actor tests, with the faults that the real one can have.
//!
//! Queues behind a lock instead of shared memory; the same depths and the same meaning of "connected". A test can lose
//! answers on purpose.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::ipc::ACTIVE_REPORTS;
use super::{
    Address, AnswerState, ClientTransport, IncomingRequest, Opening, PendingAnswer, SendFailure,
    ServerPorts, ServerTransport,
};
use crate::error::TransportError;
use crate::header::{Operation, RequestHeader, ResponseHeader};
use crate::ids::Incarnation;

/// Where both sides meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub {
    state: Arc<Mutex<State>>,
    /// Answers to lose from now on.
    pub(crate) lose_answers: Arc<AtomicUsize>,
    /// While it is set, opening ports takes one step more.
    pub(crate) hold_openings: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    ports: HashMap<Incarnation, [VecDeque<Arc<Exchange>>; 2]>,
    control: HashMap<Incarnation, (u64, Bytes)>,
}

/// One request and its answer.
#[derive(Debug)]
struct Exchange {
    header: RequestHeader,
    payload: Bytes,
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    answer: Option<(ResponseHeader, Bytes)>,
    client_gone: bool,
    server_gone: bool,
}

impl Exchange {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap()
    }
}

impl Hub {
    pub(crate) fn server(&self) -> MemoryServer {
        MemoryServer { hub: self.clone() }
    }

    pub(crate) fn client(&self, incarnation: Incarnation) -> MemoryClient {
        MemoryClient {
            hub: self.clone(),
            incarnation,
            seen: 0,
            active: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct MemoryServer {
    hub: Hub,
}

impl ServerTransport for MemoryServer {
    type Ports = MemoryPorts;
    type Opening = MemoryOpening;

    fn begin(&mut self, address: Address) -> MemoryOpening {
        MemoryOpening {
            hub: self.hub.clone(),
            incarnation: address.incarnation,
        }
    }
}

/// Takes as many steps as the hub says.
#[derive(Debug)]
pub(crate) struct MemoryOpening {
    hub: Hub,
    incarnation: Incarnation,
}

impl Opening for MemoryOpening {
    type Ports = MemoryPorts;

    fn step(&mut self) -> Result<Option<MemoryPorts>, TransportError> {
        if self.hub.hold_openings.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.hub
            .state()
            .ports
            .insert(self.incarnation, Default::default());
        Ok(Some(MemoryPorts {
            hub: self.hub.clone(),
            incarnation: self.incarnation,
        }))
    }
}

#[derive(Debug)]
pub(crate) struct MemoryPorts {
    hub: Hub,
    incarnation: Incarnation,
}

impl Drop for MemoryPorts {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.control.remove(&self.incarnation);
        if let Some(queues) = state.ports.remove(&self.incarnation) {
            for exchange in queues.iter().flatten() {
                exchange.ends().server_gone = true;
            }
        }
    }
}

impl ServerPorts for MemoryPorts {
    type Request = MemoryRequest;

    fn publish(&mut self, sequence: u64, state: &[u8]) -> Result<(), TransportError> {
        let state = (sequence, Bytes::copy_from_slice(state));
        self.hub.state().control.insert(self.incarnation, state);
        Ok(())
    }

    fn refresh_subscriber(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn receive(&mut self, operation: Operation) -> Result<Option<MemoryRequest>, TransportError> {
        let mut state = self.hub.state();
        let queue = state
            .ports
            .get_mut(&self.incarnation)
            .and_then(|queues| queues[operation.index()].pop_front());
        Ok(queue.map(|exchange| MemoryRequest {
            exchange,
            lose_answers: self.hub.lose_answers.clone(),
        }))
    }

    fn dismantle(self) -> Vec<Box<dyn Any>> {
        vec![Box::new(self)]
    }
}

#[derive(Debug)]
pub(crate) struct MemoryRequest {
    exchange: Arc<Exchange>,
    lose_answers: Arc<AtomicUsize>,
}

impl Drop for MemoryRequest {
    fn drop(&mut self) {
        self.exchange.ends().server_gone = true;
    }
}

impl IncomingRequest for MemoryRequest {
    fn header(&self) -> RequestHeader {
        self.exchange.header
    }

    fn payload(&self) -> &[u8] {
        &self.exchange.payload
    }

    fn is_connected(&self) -> bool {
        !self.exchange.ends().client_gone
    }

    fn answer(self, header: ResponseHeader, payload: &[u8]) -> Result<(), TransportError> {
        let one_less = |left: usize| left.checked_sub(1);
        let lost = self
            .lose_answers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if lost.is_err() {
            self.exchange.ends().answer = Some((header, Bytes::copy_from_slice(payload)));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct MemoryClient {
    hub: Hub,
    incarnation: Incarnation,
    seen: u64,
    active: Arc<[AtomicUsize; 2]>,
}

impl ClientTransport for MemoryClient {
    type Pending = MemoryPending;

    fn send(
        &mut self,
        operation: Operation,
        header: RequestHeader,
        payload: &[u8],
    ) -> Result<MemoryPending, SendFailure> {
        let limit = match operation {
            Operation::Fetch => 1,
            Operation::Report => ACTIVE_REPORTS,
        };
        if self.active[operation.index()].load(Ordering::SeqCst) >= limit {
            return Err(SendFailure::Full);
        }
        let mut state = self.hub.state();
        let Some(queues) = state.ports.get_mut(&self.incarnation) else {
            return Err(SendFailure::Disconnected);
        };
        let exchange = Arc::new(Exchange {
            header,
            payload: Bytes::copy_from_slice(payload),
            ends: Mutex::default(),
        });
        queues[operation.index()].push_back(exchange.clone());
        self.active[operation.index()].fetch_add(1, Ordering::SeqCst);
        Ok(MemoryPending {
            exchange,
            active: self.active.clone(),
            operation,
        })
    }

    fn newest_control(&mut self) -> Result<Option<Bytes>, TransportError> {
        let state = self.hub.state();
        let Some((sequence, bytes)) = state.control.get(&self.incarnation) else {
            return Ok(None);
        };
        let fresh = *sequence > self.seen;
        self.seen = *sequence;
        Ok(fresh.then(|| bytes.clone()))
    }

    fn has_control(&mut self) -> bool {
        let state = self.hub.state();
        let newest = state.control.get(&self.incarnation);
        newest.is_some_and(|(sequence, _)| *sequence > self.seen)
    }
}

#[derive(Debug)]
pub(crate) struct MemoryPending {
    exchange: Arc<Exchange>,
    active: Arc<[AtomicUsize; 2]>,
    operation: Operation,
}

impl Drop for MemoryPending {
    fn drop(&mut self) {
        self.exchange.ends().client_gone = true;
        self.active[self.operation.index()].fetch_sub(1, Ordering::SeqCst);
    }
}

impl PendingAnswer for MemoryPending {
    fn is_ready(&self) -> bool {
        let ends = self.exchange.ends();
        ends.answer.is_some() || ends.server_gone
    }

    fn poll(&mut self) -> AnswerState {
        let mut ends = self.exchange.ends();
        match ends.answer.take() {
            Some((header, payload)) => AnswerState::Answered { header, payload },
            None if ends.server_gone => AnswerState::Disconnected,
            None => AnswerState::Waiting,
        }
    }
}
