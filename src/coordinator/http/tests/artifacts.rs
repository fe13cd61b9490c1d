//! Artifacts behind signed addresses: who may bring and read them, and what is kept.

use futures_util::StreamExt;
use reqwest::Method;

use super::*;
use crate::protocol::api::ReportTaskBody;
use crate::protocol::artifact::DIGEST_HEADER;
use crate::protocol::{Artifact, ArtifactKind, ReportTaskOp, WorkerTaskResp};

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// A task that ended and left something, and the address that its worker was answered.
struct Left {
    task: WorkerTaskResp,
    url: String,
}

async fn left(server: &Server) -> Left {
    server.submit(&["true"]).await;
    let worker = server.worker().await;
    let task = worker.fetch_task(PATIENCE).await.unwrap().unwrap();
    let mut result = ended(Outcome::Completed, Output::default());
    result.artifacts.push(Artifact {
        kind: ArtifactKind::Result,
        size_bytes: 5,
        sha256: HELLO.to_owned(),
    });
    let report = ReportTaskBody {
        seq: 1,
        task_id: task.id,
        task_uuid: task.uuid,
        lease: task.lease,
        op: ReportTaskOp::Completed(result),
    };
    let answer = worker.report_task(&report).await.unwrap();
    let url = format!("{}{}", server.url(), answer.url.unwrap());
    Left { task, url }
}

impl Left {
    fn address(&self, kind: &str) -> String {
        self.url.replace("{kind}", kind)
    }
}

/// Status and stable word of the answer.
async fn put(address: &str, digest: Option<&str>, body: &'static str) -> (u16, String) {
    let mut request = raw_http().put(address).body(body);
    if let Some(digest) = digest {
        request = request.header(DIGEST_HEADER, digest);
    }
    said(request).await
}

async fn said(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = in_time(request.send()).await.unwrap();
    let status = answer.status().as_u16();
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status, code.to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Files that the coordinator keeps or is receiving.
fn files(server: &Server) -> usize {
    let entries = |dir: &std::path::Path| {
        let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let tasks = entries(&server.dir.path().join("state/artifacts"));
    tasks.iter().map(|task| entries(task).len()).sum()
}

#[tokio::test]
async fn what_a_worker_brings_is_listed_and_read_back() {
    let server = Server::start().await;
    let left = left(&server).await;
    let address = left.address("result");
    assert_eq!(put(&address, Some(HELLO), "hello").await.0, 204);
    assert_eq!(
        put(&address, Some(HELLO), "hello").await.0,
        204,
        "once more"
    );
    let uuid = left.task.uuid;
    let user = server.user();
    let detail = user.task(uuid).await.unwrap();
    assert_eq!(detail.artifacts[0].artifact.size_bytes, 5);
    let link = user
        .artifact_link(uuid, ArtifactKind::Result)
        .await
        .unwrap();
    let mut content = user.download(&link).await.unwrap();
    assert_eq!(in_time(content.next()).await.unwrap().unwrap(), "hello");
    let none = user.artifact_link(uuid, ArtifactKind::Exec).await;
    refused(none, 404, "not_found");
    assert_eq!(files(&server), 1);
}

#[tokio::test]
async fn an_address_is_good_for_nothing_else() {
    let server = Server::start().await;
    let (one, other) = (left(&server).await, left(&server).await);
    let address = one.address("result");
    let bad = is(403, "bad_signature");
    let elsewhere = address.replace(&one.task.uuid.to_string(), &other.task.uuid.to_string());
    assert_eq!(put(&elsewhere, Some(HELLO), "hello").await, bad);
    assert_eq!(put(&one.address("exec"), Some(HELLO), "hello").await, bad);
    let later = address.replace("expires=", "expires=9");
    assert_eq!(put(&later, Some(HELLO), "hello").await, bad);
    let (bare, _) = address.split_once('?').unwrap();
    assert_eq!(put(bare, Some(HELLO), "hello").await, bad);
    assert_eq!(said(raw_http().request(Method::GET, &address)).await, bad);
    assert_eq!(files(&server), 0);
}

#[tokio::test]
async fn an_address_expires() {
    use crate::protocol::signed_url::{Access, Grant};
    let server = Server::start().await;
    let left = left(&server).await;
    let address = server.coordinator.shared.url_key.address(&Grant {
        access: Access::Put,
        task: left.task.uuid,
        kinds: vec![ArtifactKind::Result],
        lease: left.task.lease,
        expires_s: 1,
        by: None,
    });
    let address = format!("{}{}", server.url(), address.replace("{kind}", "result"));
    let said = put(&address, Some(HELLO), "hello").await;
    assert_eq!(said, is(403, "expired"));
}

#[tokio::test]
async fn what_is_not_as_announced_is_not_kept() {
    let server = Server::start().await;
    let left = left(&server).await;
    let address = left.address("result");
    let wrong = "0".repeat(64);
    assert_eq!(
        put(&address, Some(&wrong), "hello").await,
        is(400, "bad_artifact")
    );
    assert_eq!(put(&address, None, "hello").await, is(400, "bad_request"));
    assert_eq!(files(&server), 0);
    let detail = server.user().task(left.task.uuid).await.unwrap();
    assert!(detail.artifacts.is_empty());
}

#[tokio::test]
async fn what_is_too_big_is_refused_with_and_without_an_announced_length() {
    let server = Server::start_limited(4).await;
    let left = left(&server).await;
    let address = left.address("result");
    let too_large = is(413, "too_large");
    assert_eq!(put(&address, Some(HELLO), "hello").await, too_large);
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("hel"), Ok("lo")]);
    let request = raw_http()
        .put(&address)
        .header(DIGEST_HEADER, HELLO)
        .body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(said(request).await, too_large);
    assert_eq!(files(&server), 0);
}
