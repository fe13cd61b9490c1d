//! The managers' WebSocket: what opens it and what does not. What is said over it is tested with the sessions.

use crate::protocol::Capacity;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::*;
use crate::comm::link::{ConnectError, Connector, MAX_FRAME_BYTES, ManagerEnd};
use crate::comm::ws::WsConnector;
use crate::endpoint::TokenSource;
use crate::protocol::session::{Hello, ToCoordinator, ToManager, Welcome};
use crate::protocol::{Boot, PROTOCOL_VERSION};

fn connector(url: &str, token: impl Into<TokenSource>) -> Arc<dyn Connector> {
    Arc::new(WsConnector::new(url, token.into()).unwrap())
}

fn hello(host: String) -> ToCoordinator {
    ToCoordinator::Hello(Hello {
        version: PROTOCOL_VERSION,
        manager: Uuid::from_u128(1),
        boot: Boot(1),
        earlier: Vec::new(),
        host,
        workers: 1,
        capacity: Capacity::default(),
        tags: Vec::new(),
        metrics: None,
        inventory: Vec::new(),
    })
}

async fn welcomed(end: &ManagerEnd) -> Welcome {
    let hello = hello("here".to_owned());
    end.frames_tx.send_async(hello).await.unwrap();
    match in_time(end.frames_rx.recv_async()).await.unwrap() {
        ToManager::Welcome(welcome) => welcome,
        other => panic!("no welcome but {other:?}"),
    }
}

#[tokio::test]
async fn only_a_manager_opens_a_session_and_refusals_are_final() {
    let server = Server::start().await;
    for scope in [Scope::User, Scope::Worker(Uuid::nil())] {
        let connector = connector(&server.url(), server.token(scope));
        let error = connector.connect().await.expect_err("must be refused");
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("scope"), "{error}");
    }
    let nonsense: SecretString = "nonsense".to_owned().into();
    let error = connector(&server.url(), nonsense).connect().await;
    assert!(
        matches!(error, Err(ConnectError::Refused { .. })),
        "{error:?}"
    );
    for scope in [Scope::Manager, Scope::Admin] {
        let connector = connector(&server.url(), server.token(scope));
        connector.connect().await.unwrap();
    }
}

#[tokio::test]
async fn an_absent_coordinator_is_worth_another_try() {
    let server = Server::start().await;
    let connector = connector(&server.url(), server.token(Scope::Manager));
    let (_dir, address) = server.stop().await;
    let error = connector.connect().await.expect_err("nobody is there");
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_stopping_coordinator_closes_sessions_and_its_next_life_takes_them_up() {
    let server = Server::start().await;
    let connector = connector(&server.url(), server.token(Scope::Manager));
    let end = connector.connect().await.unwrap();
    let first = welcomed(&end).await;
    let _server = server.restart().await;
    while in_time(end.frames_rx.recv_async()).await.is_ok() {}
    let end = connector.connect().await.unwrap();
    assert_eq!(welcomed(&end).await.epoch, first.epoch + 1);
}

#[tokio::test]
async fn a_token_file_is_read_at_each_opening() {
    let server = Server::start().await;
    let file = server.dir.path().join("token");
    let write = |scope| {
        let token = server.token(scope).expose_secret().to_owned() + "\n";
        crate::private_file::replace(&file, &token).unwrap();
    };
    let connector = connector(&server.url(), TokenSource::File(file.clone()));
    let missing = connector.connect().await.expect_err("no file yet");
    assert!(missing.is_retryable(), "{missing}");
    write(Scope::User);
    connector.connect().await.expect_err("the wrong scope");
    write(Scope::Manager);
    connector.connect().await.unwrap();
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_session_and_not_the_coordinator() {
    let server = Server::start().await;
    let connector = connector(&server.url(), server.token(Scope::Manager));
    let end = connector.connect().await.unwrap();
    let long = hello("x".repeat(MAX_FRAME_BYTES + 1));
    end.frames_tx.send_async(long).await.unwrap();
    in_time(end.frames_rx.recv_async()).await.unwrap_err();
    let end = connector.connect().await.unwrap();
    welcomed(&end).await;
}

#[tokio::test]
async fn a_plain_request_on_the_sessions_path_is_told_what_it_is_for() {
    let server = Server::start().await;
    let token = server.token(Scope::Manager);
    let request = raw_http()
        .get(format!("{}/api/v1/session", server.url()))
        .bearer_auth(token.expose_secret());
    let answer = in_time(request.send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    assert!(answer.text().await.unwrap().contains("WebSocket"));
}
