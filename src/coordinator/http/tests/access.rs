//! Who is let in: every call, every scope.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::*;
use crate::coordinator::auth::TOKEN_TTL;
use crate::protocol::api::{IssueTokenRequest, PageQuery};
use crate::protocol::{HumanDuration, Mode};

/// Calls that need no token, by design.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/api/v1/openapi.json"];

async fn status(server: &Server, method: &str, path: &str, token: Option<&str>) -> u16 {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let path = path.replace("{uuid}", &Uuid::nil().to_string());
    let path = path.replace("{kind}", "result");
    let mut request = raw_http().request(method, format!("{}{path}", server.url()));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    in_time(request.send()).await.unwrap().status().as_u16()
}

fn wish(scope: &str, ttl: Option<HumanDuration>) -> IssueTokenRequest {
    IssueTokenRequest {
        scope: scope.to_owned(),
        subject: "ann".to_owned(),
        ttl,
    }
}

#[tokio::test]
async fn every_call_of_the_document_needs_a_valid_token() {
    let server = Server::start().await;
    for (method, path) in super::document::calls() {
        let expected = match path.as_str() {
            open if OPEN.contains(&open) => 200,
            // Here the address is the permission, and no token replaces it.
            "/api/v1/artifacts/{uuid}/{kind}" => 403,
            _ => 401,
        };
        for token in [None, Some(""), Some("nonsense"), Some("a.b.c")] {
            let status = status(&server, &method, &path, token).await;
            assert_eq!(status, expected, "{method} {path} with {token:?}");
        }
    }
}

#[tokio::test]
async fn a_token_that_has_expired_is_refused_like_any_other() {
    let server = Server::start().await;
    let authority = server.coordinator.authority();
    let token = authority.issue(Scope::User, "ann", Duration::ZERO);
    let client = ApiClient::new(&server.url(), token).unwrap();
    let page = PageQuery::default();
    let expired = refused(client.suites(&page).await, 401, "unauthorized");
    let client = client.with_token("nonsense".to_owned().into());
    let nonsense = refused(client.suites(&page).await, 401, "unauthorized");
    assert_eq!(expired, nonsense, "a refused token is told nothing");
}

#[tokio::test]
async fn a_token_of_another_installation_is_refused() {
    let (server, other) = (Server::start().await, Server::start().await);
    let client = ApiClient::new(&server.url(), other.token(Scope::Admin)).unwrap();
    refused(client.managers().await, 401, "unauthorized");
}

#[tokio::test]
async fn a_token_opens_only_what_its_scope_says() {
    let server = Server::start().await;
    let worker = Scope::Worker(Uuid::from_u128(1));
    for scope in [Scope::Manager, worker] {
        let client = server.client(scope);
        refused(client.submit(&request(&["true"])).await, 403, "forbidden");
        refused(client.task(Uuid::nil()).await, 403, "forbidden");
        refused(client.workers().await, 403, "forbidden");
    }
    for scope in [Scope::User, Scope::Manager, worker] {
        let client = server.client(scope);
        refused(client.set_mode(Mode::Pause).await, 403, "forbidden");
        let issued = client.issue_token(&wish("admin", None)).await;
        refused(issued, 403, "forbidden");
    }
    for scope in [Scope::Admin, Scope::User, Scope::Manager] {
        let client = server.client(scope);
        refused(client.fetch_task(Duration::ZERO).await, 403, "forbidden");
        refused(client.leave().await, 403, "forbidden");
    }
    let admin = server.client(Scope::Admin);
    admin.managers().await.unwrap();
    admin.set_mode(Mode::Run).await.unwrap();
}

#[tokio::test]
async fn an_administrator_makes_tokens_for_others() {
    let server = Server::start().await;
    let admin = server.client(Scope::Admin);
    let token = admin.issue_token(&wish("user", None)).await.unwrap();
    let authority = server.coordinator.authority();
    let identity = authority.verify(token.expose_secret()).unwrap();
    assert_eq!(
        (identity.scope, identity.subject.as_str()),
        (Scope::User, "ann")
    );
    assert!(identity.remaining() > TOKEN_TTL - PATIENCE);
    let user = admin.with_token(token);
    user.suites(&PageQuery::default()).await.unwrap();
    let nothing = wish("user", Some(HumanDuration(Duration::ZERO)));
    let text = refused(admin.issue_token(&nothing).await, 400, "bad_request");
    assert!(text.contains("ttl"), "{text}");
    let root = admin.issue_token(&wish("root", None)).await;
    let text = refused(root, 400, "bad_request");
    assert!(text.contains("root") && text.contains("manager"), "{text}");
}

#[tokio::test]
async fn metrics_need_a_token_and_say_so_where_there_are_none() {
    let server = Server::start_with(|_| ApiOptions {
        metrics: Some(Arc::new(|| "mitosis_build_info 1\n".to_owned())),
        ..ApiOptions::default()
    })
    .await;
    let text = server.user().metrics().await.unwrap();
    assert_eq!(text, "mitosis_build_info 1\n");
    server.client(Scope::Manager).metrics().await.unwrap();
    let worker = server.client(Scope::Worker(Uuid::nil()));
    refused(worker.metrics().await, 403, "forbidden");
    let silent = Server::start().await;
    refused(silent.user().metrics().await, 404, "not_found");
}
