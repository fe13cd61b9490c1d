//! Both sides of the real transport in one thread: loans that fail, and queues that are full.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::ipc::{ACTIVE_REPORTS, IpcClient, IpcServer};
use super::{
    Address, AnswerState, ClientTransport, IncomingRequest, PendingAnswer, SendFailure,
    ServerPorts, ServerTransport,
};
use crate::header::{
    AnswerKind, Operation, REPORT_ANSWER_SLICE, RequestHeader, RequestKind, ResponseHeader,
};
use crate::ids::{Incarnation, LocalId};
use crate::root::{RootClaim, TransportRoot};

/// A manager's transport. Field order is drop order.
struct Pair {
    server: IpcServer,
    address: Address,
    _claim: Claim,
    root: TransportRoot,
    _parent: tempfile::TempDir,
}

/// Removes the root and its shared memory with the pair; the transport keeps a bookkeeping segment of its own accord.
struct Claim(Option<RootClaim>);

impl Drop for Claim {
    fn drop(&mut self) {
        let left = self.0.take().map(RootClaim::remove);
        assert!(
            matches!(left, Some(Ok(0))) || std::thread::panicking(),
            "{left:?}"
        );
    }
}

impl Pair {
    fn open() -> Self {
        let parent = tempfile::Builder::new()
            .prefix("mb")
            .tempdir_in("/dev/shm")
            .unwrap();
        let manager = Uuid::new_v4();
        let instance = &manager.simple().to_string()[..8];
        let root = TransportRoot::at(parent.path(), instance).unwrap();
        let claim = root.claim().unwrap();
        Self {
            server: IpcServer::open(&root).unwrap(),
            address: Address {
                manager,
                local_id: LocalId(1),
                incarnation: Incarnation(1),
            },
            _claim: Claim(Some(claim)),
            root,
            _parent: parent,
        }
    }

    fn client(&self) -> IpcClient {
        let until = Instant::now() + Duration::from_secs(10);
        IpcClient::open(&self.root, self.address, until, &mut || true).unwrap()
    }
}

fn report(number: u64) -> RequestHeader {
    RequestHeader {
        correlation: number,
        ..RequestHeader::new(RequestKind::Report, Incarnation(1)).with_data(1, false)
    }
}

fn send(client: &mut IpcClient, number: u64) -> <IpcClient as ClientTransport>::Pending {
    client
        .send(Operation::Report, report(number), b"x")
        .unwrap()
}

#[test]
fn a_failed_loan_costs_one_request_and_no_other() {
    let mut pair = Pair::open();
    let mut ports = pair.server.open_ports(pair.address).unwrap();
    let mut client = pair.client();
    let too_long = vec![0; REPORT_ANSWER_SLICE + 1];
    for number in 1..=200 {
        let mut pending = send(&mut client, number);
        let request = ports.receive(Operation::Report).unwrap().unwrap();
        let header = ResponseHeader::answer(AnswerKind::Reply, &request.header());
        if number % 2 == 0 {
            assert!(request.answer(header, &too_long).is_err());
            let state = pending.poll();
            assert!(matches!(state, AnswerState::Disconnected), "{state:?}");
        } else {
            request.answer(header, b"y").unwrap();
            let AnswerState::Answered { header, .. } = pending.poll() else {
                panic!("request {number} has no answer");
            };
            assert_eq!(header.correlation, number);
        }
    }
}

#[test]
fn a_sender_without_room_is_told_and_goes_on_when_there_is_some() {
    let mut pair = Pair::open();
    let mut ports = pair.server.open_ports(pair.address).unwrap();
    let mut client = pair.client();
    for round in 0..50 {
        let pending: Vec<_> = (1..)
            .take(ACTIVE_REPORTS)
            .map(|number| send(&mut client, number))
            .collect();
        let refused = client.send(Operation::Report, report(99), b"x");
        assert!(matches!(refused, Err(SendFailure::Full)), "round {round}");
        // Answers that nobody takes are no loss either.
        while let Some(request) = ports.receive(Operation::Report).unwrap() {
            let header = ResponseHeader::answer(AnswerKind::Reply, &request.header());
            request.answer(header, b"y").unwrap();
        }
        drop(pending);
    }
}
