//! Peers that send whatever they like, over the in-process transport: a whole poller against frames that no honest peer
//! builds. Only the liar may be refused; everybody else goes on.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::fixture::{Fixture, LONG, Worker, fds, within};
use super::refusals::forged_fds;
use crate::board::Board;
use crate::client::{Client, Expected};
use crate::doorbell::Doorbell;
use crate::header::{
    AnswerKind, Operation, PROTOCOL_VERSION, RequestHeader, RequestKind, ResponseHeader,
};
use crate::ids::{Incarnation, LocalId};
use crate::invitation::{Hello, Letter};
use crate::server::ServerEvent;
use crate::transport::memory::Hub;
use crate::transport::{
    Address, ClientTransport, IncomingRequest, PendingAnswer, ServerPorts, ServerTransport,
};

/// Pretenders that are tried by a test.
const CASES: u32 = 64;
/// Slot of whoever lies.
const STRANGER: LocalId = LocalId(1);

/// Fields of a frame as a liar writes them.
#[derive(Debug, Clone)]
struct Lie {
    operation: Operation,
    version: u16,
    kind: u16,
    flags: u32,
    len: u32,
    ours: bool,
    confirms: u64,
    payload: Vec<u8>,
}

fn lie() -> impl Strategy<Value = Lie> {
    let operation = prop_oneof![Just(Operation::Fetch), Just(Operation::Report)];
    let version = prop_oneof![9 => Just(PROTOCOL_VERSION), 1 => any::<u16>()];
    let len = prop_oneof![
        0_u32..64,
        Just(u32::MAX),
        Just(4 << 20),
        Just((4 << 20) + 1),
        any::<u32>()
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..64);
    let (kind, flags) = (0_u16..9, prop_oneof![0_u32..2, any::<u32>()]);
    let ours = prop::bool::weighted(0.9);
    (
        operation,
        version,
        kind,
        flags,
        len,
        ours,
        0_u64..4,
        payload,
    )
        .prop_map(
            |(operation, version, kind, flags, len, ours, confirms, payload)| Lie {
                operation,
                version,
                kind,
                flags,
                len,
                ours,
                confirms,
                payload,
            },
        )
}

impl Lie {
    fn request(&self, ours: Incarnation) -> RequestHeader {
        RequestHeader {
            version: self.version,
            kind: self.kind,
            flags: self.flags,
            len: self.len,
            incarnation: if self.ours { ours.0 } else { !ours.0 },
            confirms: self.confirms,
            ..RequestHeader::default()
        }
    }

    fn answer(&self, request: &RequestHeader) -> ResponseHeader {
        let honest = ResponseHeader::answer(AnswerKind::Reply, request);
        ResponseHeader {
            version: self.version,
            kind: self.kind,
            flags: self.flags,
            len: self.len,
            incarnation: if self.ours {
                honest.incarnation
            } else {
                !honest.incarnation
            },
            key: self.confirms,
            ..honest
        }
    }
}

/// Its frames reach a poller that serves an honest worker too; the latter is answered between any two of them.
async fn tell_server(fixture: &mut Fixture, honest: &Worker, joins: bool, lies: &[Lie]) {
    let invited = fixture.handle.invite(STRANGER, Bytes::new());
    let invitation = within(invited).await.unwrap();
    let incarnation = invitation.incarnation;
    let fds = fds(invitation);
    let doorbell = Doorbell::from_inherited(fds.doorbell).unwrap();
    let board = Board::open(fds.board).unwrap();
    let letter = Letter::decode(&doorbell.receive_message().unwrap().unwrap()).unwrap();
    let mut transport = fixture.hub.client(incarnation);
    let mut asked = Vec::new();
    if joins {
        let hello = hello(&letter);
        let header =
            RequestHeader::new(RequestKind::Hello, incarnation).with_data(hello.len(), false);
        asked.push(transport.send(Operation::Report, header, &hello).unwrap());
    }
    for lie in lies {
        let header = lie.request(incarnation);
        // Beyond the limit of unanswered requests the transport itself refuses.
        asked.extend(transport.send(lie.operation, header, &lie.payload).ok());
        board.raise(STRANGER);
        doorbell.ring();
        let echoed = within(honest.handle.echo(Bytes::from_static(b"still here"), LONG)).await;
        assert_eq!(echoed.unwrap(), "still here", "{lie:?}");
        asked.retain_mut(|pending| !pending.is_ready());
    }
    drop((asked, transport));
    within(fixture.handle.retire(incarnation)).await.unwrap();
    while let Ok(event) = tokio::time::timeout(Duration::ZERO, fixture.events.recv()).await {
        if let Some(ServerEvent::Report { reply, .. }) = event {
            drop(reply);
        }
    }
}

fn hello(letter: &Letter) -> Vec<u8> {
    Hello {
        manager: letter.manager,
        local_id: letter.local_id,
        incarnation: letter.incarnation,
        pid: std::process::id(),
        token: letter.token.clone(),
    }
    .encode()
}

#[test]
fn no_frame_of_a_worker_ends_the_managers_poller() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut fixture = runtime.block_on(Fixture::open());
    let honest = runtime.block_on(fixture.join(0));
    let fixture = std::cell::RefCell::new(fixture);
    let strategy = (any::<bool>(), prop::collection::vec(lie(), 1..12));
    let tried = TestRunner::new(Config::with_cases(CASES)).run(&strategy, |(joins, lies)| {
        runtime.block_on(tell_server(
            &mut fixture.borrow_mut(),
            &honest,
            joins,
            &lies,
        ));
        Ok(())
    });
    tried.unwrap();
}

#[tokio::test]
async fn a_file_named_by_a_frame_that_carries_its_data_itself_is_refused() {
    let mut fixture = Fixture::open().await;
    let honest = fixture.join(0).await;
    let hello = Lie {
        operation: Operation::Report,
        version: PROTOCOL_VERSION,
        kind: RequestKind::Hello.code(),
        flags: 1,
        len: 4 << 20,
        ours: true,
        confirms: 0,
        payload: vec![7; 9],
    };
    let before = fixture.handle.stats().refused;
    tell_server(&mut fixture, &honest, false, &[hello]).await;
    assert_ne!(fixture.handle.stats().refused, before);
}

/// A manager that welcomes its worker and lies from then on, until it is told nothing more to say; then it is honest.
fn lying_manager(hub: &Hub, letter: &Letter, line: Doorbell, lies: Vec<Lie>) {
    let address = Address {
        manager: letter.manager,
        local_id: letter.local_id,
        incarnation: letter.incarnation,
    };
    let mut ports = hub.server().open_ports(address).unwrap();
    let liar = std::thread::Builder::new().name("liar".to_owned());
    let lying = move || {
        let mut lies = lies.into_iter();
        // A worker that has ended hangs up.
        while line.drain() == crate::doorbell::Line::Open {
            let mut idle = true;
            for operation in Operation::ALL {
                while let Some(request) = ports.receive(operation).unwrap() {
                    idle = false;
                    let header = request.header();
                    let welcome = header.kind == RequestKind::Hello.code();
                    let lie = if welcome { None } else { lies.next() };
                    let kind = match header.kind {
                        _ if welcome => AnswerKind::Welcome,
                        kind if kind == RequestKind::Fetch.code() => AnswerKind::Empty,
                        _ => AnswerKind::Reply,
                    };
                    match lie {
                        Some(lie) => request.answer(lie.answer(&header), &lie.payload),
                        None => request.answer(ResponseHeader::answer(kind, &header), &[]),
                    }
                    .unwrap();
                    line.ring();
                }
            }
            if idle {
                line.wait(Duration::from_millis(1));
            }
        }
    };
    let _ended_by_the_hang_up = liar.spawn(lying).unwrap();
}

/// Its answers reach a worker's poller, which ends no call but by a value or a typed error.
async fn tell_client(fixture: &Fixture, lies: Vec<Lie>) {
    let invited = fixture.handle.invite(STRANGER, Bytes::new());
    let invitation = within(invited).await.unwrap();
    let incarnation = invitation.incarnation;
    let hub = Hub::default();
    let transport = hub.client(incarnation);
    let mut read = None;
    let (fds, (_real, line)) = forged_fds(invitation, |letter| read = Some(letter.clone()));
    lying_manager(&hub, &read.unwrap(), line, lies.clone());
    let expected = Expected {
        local_id: STRANGER,
        ..fixture.expected
    };
    let opened = Client::open_with(fds, expected, move |_, _, _| Ok(transport));
    let (client, handle, _) = within(opened).await.unwrap();
    for _ in &lies {
        // Whatever it yields; the poller goes on.
        let _any = within(handle.echo(Bytes::from_static(b"a"), LONG)).await;
    }
    let _any = within(handle.fetch(crate::FetchWish::ONE)).await;
    let alive = within(handle.echo(Bytes::from_static(b"a"), LONG)).await;
    assert_eq!(alive.unwrap(), "");
    drop(client);
    within(fixture.handle.retire(incarnation)).await.unwrap();
}

#[test]
fn no_answer_of_a_manager_ends_a_workers_poller() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::open());
    let strategy = prop::collection::vec(lie(), 1..12);
    let tried = TestRunner::new(Config::with_cases(CASES)).run(&strategy, |lies| {
        runtime.block_on(tell_client(&fixture, lies));
        Ok(())
    });
    tried.unwrap();
}
