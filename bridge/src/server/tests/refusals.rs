//! Handshakes that must fail, over the real transport, with the reason in words and counted.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fixture::{config, fds, parent, within};
use crate::board::Board;
use crate::client::{Client, ClientFds, Expected};
use crate::doorbell::Doorbell;
use crate::error::OpenError;
use crate::header::{Operation, RequestHeader, RequestKind};
use crate::ids::{Incarnation, LocalId};
use crate::invitation::{Hello, Letter, Token};
use crate::server::{Invitation, Server, ServerConfig, ServerHandle};
use crate::stats::RefusalReason;
use crate::transport::ipc::IpcClient;
use crate::transport::{Address, AnswerState, ClientTransport, PendingAnswer};

/// Opens a manager, changes the letter on its way to the worker, and returns how the opening failed.
async fn refusal_of(forge: impl FnOnce(&mut Letter)) -> (OpenError, [u64; 5]) {
    let parent = parent();
    let config = config(&parent);
    let expected = Expected {
        manager: config.manager,
        local_id: LocalId(3),
    };
    let (server, handle, _events) = within(Server::open(config)).await.unwrap();
    let invitation = within(handle.invite(LocalId(3), Bytes::new()))
        .await
        .unwrap();
    let (forged, _kept) = forged_fds(invitation, forge);
    let error = within(Client::open(forged, expected)).await.unwrap_err();
    let refused = handle.stats().refused;
    within(server.close(Duration::from_secs(1))).await;
    (error, refused)
}

/// Reads the letter from the worker's end and writes a changed one to a pair of our own.
pub(super) fn forged_fds(
    invitation: Invitation,
    forge: impl FnOnce(&mut Letter),
) -> (ClientFds, (Doorbell, Doorbell)) {
    let fds = fds(invitation);
    let real = Doorbell::from_inherited(fds.doorbell).unwrap();
    let mut letter = Letter::decode(&real.receive_message().unwrap().unwrap()).unwrap();
    forge(&mut letter);
    let (ours, theirs) = Doorbell::pair().unwrap();
    ours.send_message(&letter.encode()).unwrap();
    let forged = ClientFds {
        doorbell: theirs.into_fd(),
        status: fds.status,
        board: fds.board,
    };
    (forged, (real, ours))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_in_words_and_counted() {
    let (error, refused) = refusal_of(|letter| letter.token = Token::random().unwrap()).await;
    let OpenError::Refused { reason } = error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("token"), "{reason}");
    assert_eq!(refused[RefusalReason::Token.index()], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_of_another_version_is_refused_by_the_worker() {
    let (error, _) = refusal_of(|letter| letter.version = 77).await;
    assert!(
        matches!(&error, OpenError::Invitation { reason } if reason.contains("77")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_for_somebody_else_is_refused_by_the_worker() {
    let (error, _) = refusal_of(|letter| letter.local_id = LocalId(4)).await;
    assert!(matches!(&error, OpenError::Mismatch { .. }), "{error:?}");
    assert!(error.to_string().contains("worker 4"), "{error}");
    assert!(!error.is_retryable());
}

/// Sends one forged first frame and returns the refusal.
async fn answer_to(
    forge: impl FnOnce(&ServerConfig, Letter, &mut IpcClient) -> <IpcClient as ClientTransport>::Pending
    + Send
    + 'static,
) -> (String, [u64; 5]) {
    let parent = parent();
    let config = config(&parent);
    let (server, handle, _events) = within(Server::open(config.clone())).await.unwrap();
    let text = within(forged_exchange(&handle, config, forge)).await;
    let refused = handle.stats().refused;
    within(server.close(Duration::from_secs(1))).await;
    (text, refused)
}

async fn forged_exchange(
    handle: &ServerHandle,
    config: ServerConfig,
    forge: impl FnOnce(&ServerConfig, Letter, &mut IpcClient) -> <IpcClient as ClientTransport>::Pending
    + Send
    + 'static,
) -> String {
    let invitation = handle.invite(LocalId(3), Bytes::new()).await.unwrap();
    let fds = fds(invitation);
    let on_thread = move || {
        let doorbell = Doorbell::from_inherited(fds.doorbell).unwrap();
        let letter = Letter::decode(&doorbell.receive_message().unwrap().unwrap()).unwrap();
        let address = Address {
            manager: letter.manager,
            local_id: letter.local_id,
            incarnation: letter.incarnation,
        };
        let until = Instant::now() + Duration::from_secs(10);
        let mut client = IpcClient::open(&config.root, address, until, &mut || true).unwrap();
        let mut pending = forge(&config, letter, &mut client);
        let board = Board::open(fds.board).unwrap();
        board.raise(LocalId(3));
        doorbell.ring();
        while Instant::now() < until {
            match pending.poll() {
                AnswerState::Waiting => doorbell.wait(Duration::from_millis(10)),
                AnswerState::Answered { header, payload } => {
                    let len = header.len as usize;
                    return String::from_utf8(payload[..len].to_vec()).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("no answer")
    };
    tokio::task::spawn_blocking(on_thread).await.unwrap()
}

fn hello_of(letter: &Letter) -> Hello {
    Hello {
        manager: letter.manager,
        local_id: letter.local_id,
        incarnation: letter.incarnation,
        pid: 1,
        token: letter.token.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_another_version_is_refused_in_words_and_counted() {
    let (text, refused) = answer_to(|_, letter, client| {
        let hello = hello_of(&letter).encode();
        let header = RequestHeader {
            version: 9,
            ..RequestHeader::new(RequestKind::Hello, letter.incarnation)
        };
        client
            .send(
                Operation::Report,
                header.with_data(hello.len(), false),
                &hello,
            )
            .unwrap()
    })
    .await;
    assert!(text.contains("version 9 is not 2"), "{text}");
    assert_eq!(refused[RefusalReason::Version.index()], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_another_life_is_refused_in_words_and_counted() {
    let (text, refused) = answer_to(|_, letter, client| {
        let stale = Incarnation(letter.incarnation.0 - 1);
        let hello = hello_of(&letter).encode();
        let header = RequestHeader::new(RequestKind::Hello, stale).with_data(hello.len(), false);
        client.send(Operation::Report, header, &hello).unwrap()
    })
    .await;
    assert!(text.contains("belongs to incarnation"), "{text}");
    assert_eq!(refused[RefusalReason::Incarnation.index()], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_another_slot_is_refused_in_words_and_counted() {
    let (text, refused) = answer_to(|_, letter, client| {
        let hello = Hello {
            local_id: LocalId(200),
            ..hello_of(&letter)
        }
        .encode();
        let header = RequestHeader::new(RequestKind::Hello, letter.incarnation);
        client
            .send(
                Operation::Report,
                header.with_data(hello.len(), false),
                &hello,
            )
            .unwrap()
    })
    .await;
    assert!(
        text.contains("worker 3") && text.contains("worker 200"),
        "{text}"
    );
    assert_eq!(refused[RefusalReason::Incarnation.index()], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_before_the_handshake_is_refused() {
    let (text, refused) = answer_to(|_, letter, client| {
        let header = RequestHeader::new(RequestKind::Report, letter.incarnation);
        client
            .send(Operation::Report, header.with_data(1, false), b"x")
            .unwrap()
    })
    .await;
    assert!(text.contains("handshake comes first"), "{text}");
    assert_eq!(refused[RefusalReason::Incarnation.index()], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_cannot_be_decoded_is_refused() {
    let (text, refused) = answer_to(|_, letter, client| {
        let header = RequestHeader::new(RequestKind::Hello, letter.incarnation);
        client
            .send(
                Operation::Report,
                header.with_data(3, false),
                b"\xc1\xc1\xc1",
            )
            .unwrap()
    })
    .await;
    assert!(text.contains("cannot be decoded"), "{text}");
    assert_eq!(refused[RefusalReason::Encoding.index()], 1);
}
