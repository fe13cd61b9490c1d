//! Every rule of `verdict`, on the wire: a scripted coordinator answers, the worker's side must take it as it should.

use mitosis_bridge::FetchWish;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::*;
use crate::comm::CommError;
use crate::protocol::{Lease, ReportTaskOp, Try, Verdict};

const WORKER: Uuid = Uuid::from_u128(7);

fn registered(token: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "worker_uuid": WORKER, "token": token, "lease": "120s", "heartbeat": "10s"
    }))
}

fn refusal(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status)
        .set_body_json(json!({"error": {"code": "some_code", "message": "in words"}}))
}

/// A coordinator that registers under `first`, then `second`, and parks control for ever.
async fn coordinator() -> MockServer {
    let server = MockServer::start().await;
    for token in ["first", "second"] {
        Mock::given(method("POST"))
            .and(path("/api/v1/workers/register"))
            .respond_with(registered(token))
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    Mock::given(method("GET"))
        .and(path("/api/v1/workers/control"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(600)))
        .mount(&server)
        .await;
    server
}

async fn answer(server: &MockServer, verb: &str, call: &str, response: impl Respond + 'static) {
    Mock::given(method(verb))
        .and(path(format!("/api/v1/workers/{call}")))
        .respond_with(response)
        .mount(server)
        .await;
}

fn config(server: &MockServer) -> HttpWorkerConfig {
    HttpWorkerConfig {
        url: server.uri(),
        token: TokenSource::Given("enroll".to_owned().into()),
        worker_uuid: None,
        host: "here".to_owned(),
        tags: vec!["gpu".to_owned()],
        labels: BTreeMap::new(),
    }
}

async fn connect(server: &MockServer) -> HttpWorkerComm {
    HttpWorkerComm::connect(config(server)).await.unwrap()
}

fn report() -> TaskReport {
    TaskReport {
        seq: 1,
        task_id: 3,
        task_uuid: Uuid::from_u128(3),
        lease: Lease::new(1, 1),
        try_no: Try(1),
        op: ReportTaskOp::Started { at_us: 1 },
    }
}

async fn registrations(server: &MockServer) -> Vec<Value> {
    let requests = server.received_requests().await.unwrap();
    requests
        .iter()
        .filter(|request| request.url.path().ends_with("/register"))
        .map(|request| request.body_json().unwrap())
        .collect()
}

#[tokio::test]
async fn no_content_an_empty_body_and_null_all_mean_that_there_is_no_task() {
    for response in [
        ResponseTemplate::new(204),
        ResponseTemplate::new(200),
        ResponseTemplate::new(200).set_body_string("null"),
        ResponseTemplate::new(200).set_body_string(" \n"),
    ] {
        let server = coordinator().await;
        answer(&server, "GET", "fetch-task", response).await;
        let fetched = connect(&server)
            .await
            .fetch_tasks(FetchWish::ONE)
            .await
            .unwrap();
        assert!(
            matches!(fetched, Fetched::Empty { retry_after } if retry_after == UNPARKED_PAUSE),
            "an answer that was not parked asks for a pause"
        );
    }
}

#[tokio::test]
async fn a_fetch_is_parked_for_thirty_seconds_under_the_workers_own_token() {
    let server = coordinator().await;
    Mock::given(method("GET"))
        .and(path("/api/v1/workers/fetch-task"))
        .and(header("authorization", "Bearer first"))
        .and(wiremock::matchers::query_param("wait", "30000ms"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "id": 3, "uuid": Uuid::from_u128(3), "lease": "4294967297", "try": 1, "attempt": 1,
            "suite_uuid": Uuid::nil(), "spec": {"args": ["true"]}
        })))
        .mount(&server)
        .await;
    let comm = connect(&server).await;
    let Fetched::Tasks(tasks) = comm.fetch_tasks(FetchWish::ONE).await.unwrap() else {
        panic!("there is a task");
    };
    let task = &tasks[0].task;
    assert_eq!((task.id, task.lease), (3, Lease::new(1, 1)));
    assert_eq!(comm.start_rule(), StartRule::AfterVerdict);
    assert_eq!(comm.heartbeat_interval(), Duration::from_secs(10));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_call_repeated() {
    for status in [401, 410] {
        let server = coordinator().await;
        Mock::given(path("/api/v1/workers/fetch-task"))
            .and(header("authorization", "Bearer second"))
            .respond_with(ResponseTemplate::new(204))
            .mount(&server)
            .await;
        answer(&server, "GET", "fetch-task", refusal(status)).await;
        let comm = connect(&server).await;
        comm.fetch_tasks(FetchWish::ONE).await.unwrap();
        let asked = registrations(&server).await;
        assert_eq!(asked.len(), 2, "{status}");
        assert_eq!(asked[0]["worker_uuid"], Value::Null);
        assert_eq!(asked[1]["worker_uuid"], json!(WORKER), "it keeps its name");
    }
}

#[tokio::test]
async fn many_refused_calls_share_one_registration() {
    let server = coordinator().await;
    Mock::given(path("/api/v1/workers/report-task"))
        .and(header("authorization", "Bearer second"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(json!({"success": true, "verdict": "accepted"})),
        )
        .mount(&server)
        .await;
    answer(&server, "POST", "report-task", refusal(401)).await;
    let comm = connect(&server).await;
    let report = report();
    let reports = futures_util::future::join_all((0..8).map(|_| comm.report(&report)));
    for answer in reports.await {
        assert_eq!(answer.unwrap().verdict, Verdict::Accepted);
    }
    assert_eq!(registrations(&server).await.len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_twice_is_final() {
    let server = coordinator().await;
    answer(&server, "GET", "fetch-task", refusal(401)).await;
    let comm = connect(&server).await;
    let error = comm.fetch_tasks(FetchWish::ONE).await.unwrap_err();
    assert!(matches!(&error, CommError::Refused { reason } if reason.contains("in words")));
    let lost = tokio::time::timeout(Duration::from_secs(5), comm.lost()).await;
    assert!(matches!(lost, Ok(CommError::Refused { .. })));
    assert_eq!(registrations(&server).await.len(), 2);
}

#[tokio::test]
async fn a_wrong_scope_is_final_at_once() {
    let server = coordinator().await;
    answer(&server, "GET", "fetch-task", refusal(403)).await;
    let comm = connect(&server).await;
    assert!(matches!(
        comm.fetch_tasks(FetchWish::ONE).await,
        Err(CommError::Refused { .. })
    ));
    assert_eq!(registrations(&server).await.len(), 1);
}

#[tokio::test]
async fn passing_faults_carry_the_pause_that_was_asked_for() {
    for status in [408, 409, 429, 500, 502, 503, 504] {
        let server = coordinator().await;
        let response = refusal(status).insert_header("retry-after", "7");
        answer(&server, "GET", "fetch-task", response).await;
        let error = connect(&server)
            .await
            .fetch_tasks(FetchWish::ONE)
            .await
            .unwrap_err();
        let CommError::Retryable { after, .. } = error else {
            panic!("{status} is passing, not {error:?}");
        };
        assert_eq!(after, Some(Duration::from_secs(7)), "{status}");
    }
}

#[tokio::test]
async fn an_answer_of_something_else_than_a_coordinator_makes_no_sense() {
    for response in [
        ResponseTemplate::new(404).set_body_string("<html>not here</html>"),
        ResponseTemplate::new(200).set_body_string("<html>welcome</html>"),
        ResponseTemplate::new(302).insert_header("location", "http://elsewhere/"),
    ] {
        let server = coordinator().await;
        answer(&server, "GET", "fetch-task", response).await;
        let error = connect(&server)
            .await
            .fetch_tasks(FetchWish::ONE)
            .await
            .unwrap_err();
        assert!(matches!(error, CommError::Protocol { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_report_is_a_verdict_and_never_a_success() {
    for (status, expected) in [
        (404, "not_owner"),
        (409, "stale"),
        (400, "invalid"),
        (413, "invalid"),
        (422, "invalid"),
    ] {
        let server = coordinator().await;
        answer(&server, "POST", "report-task", refusal(status)).await;
        let comm = connect(&server).await;
        let answer = comm.report(&report()).await.unwrap();
        assert_eq!((answer.verdict.as_str(), answer.success), (expected, false));
    }
    let server = coordinator().await;
    answer(&server, "POST", "report-task", refusal(503)).await;
    let error = connect(&server).await.report(&report()).await;
    assert!(error.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_worker_that_is_gone_registers_again_and_then_does_not_own_its_task() {
    let server = coordinator().await;
    answer(&server, "POST", "report-task", refusal(410)).await;
    let comm = connect(&server).await;
    let answer = comm.report(&report()).await.unwrap();
    assert_eq!(answer.verdict, Verdict::NotOwner);
    assert_eq!(registrations(&server).await.len(), 2);
}

#[tokio::test]
async fn a_heartbeat_brings_control_and_a_fresh_token() {
    let server = coordinator().await;
    Mock::given(path("/api/v1/workers/heartbeat"))
        .and(header("authorization", "Bearer fresh"))
        .respond_with(refusal(503))
        .mount(&server)
        .await;
    let response = ResponseTemplate::new(200).set_body_json(json!({
        "lease": "120s", "token": "fresh", "control": {"epoch": 1, "seq": 4, "mode": "pause"}
    }));
    answer(&server, "POST", "heartbeat", response).await;
    let comm = connect(&server).await;
    comm.send_heartbeat().await.unwrap();
    assert_eq!(comm.control().borrow().mode, crate::protocol::Mode::Pause);
    let second = comm.send_heartbeat().await.unwrap_err();
    assert!(second.is_retryable(), "the second one used the fresh token");
}

#[tokio::test]
async fn an_absent_coordinator_is_passing_and_the_goodbye_is_bounded() {
    let server = coordinator().await;
    let response = ResponseTemplate::new(204).set_delay(Duration::from_secs(600));
    answer(&server, "POST", "leave", response).await;
    let comm = connect(&server).await;
    let goodbye = comm.leave(Duration::from_millis(100));
    tokio::time::timeout(Duration::from_secs(30), goodbye)
        .await
        .expect("bounded");
    let nobody = HttpWorkerConfig {
        url: "http://127.0.0.1:1".to_owned(),
        ..config(&server)
    };
    let error = HttpWorkerComm::connect(nobody).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
}

/// Answers the first poll with a cancel and parks the next.
struct CancelOnce(std::sync::atomic::AtomicBool);

impl Respond for CancelOnce {
    fn respond(&self, _request: &Request) -> ResponseTemplate {
        if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return ResponseTemplate::new(200).set_delay(Duration::from_secs(600));
        }
        ResponseTemplate::new(200).set_body_json(json!({
            "epoch": 1, "seq": 2, "mode": "run", "cancels": [
                {"task_id": 3, "task_uuid": Uuid::from_u128(3), "lease": "4294967297", "graceful": true}
            ]
        }))
    }
}

#[tokio::test]
async fn a_cancel_is_heard_while_nothing_else_is_asked() {
    let server = MockServer::start().await;
    answer(&server, "POST", "register", registered("first")).await;
    let cancel = CancelOnce(std::sync::atomic::AtomicBool::new(false));
    answer(&server, "GET", "control", cancel).await;
    let comm = connect(&server).await;
    let mut control = comm.control();
    let heard = control.wait_for(|desired| desired.seq == 2);
    let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;
    let desired = heard.expect("heard in time").unwrap().clone();
    assert!(desired.cancel_for(3, Lease::new(1, 1), Try(1)).is_some());
}

#[tokio::test]
async fn a_listener_whose_worker_is_refused_tells_that_it_is_lost() {
    let server = MockServer::start().await;
    answer(&server, "POST", "register", registered("first")).await;
    answer(&server, "GET", "control", refusal(403)).await;
    let comm = connect(&server).await;
    let lost = tokio::time::timeout(Duration::from_secs(10), comm.lost()).await;
    assert!(matches!(lost, Ok(CommError::Refused { .. })), "{lost:?}");
}

#[tokio::test]
async fn debug_output_of_the_connection_hides_its_tokens() {
    let server = coordinator().await;
    let text = format!("{:?}", connect(&server).await);
    assert!(
        !text.contains("enroll") && !text.contains("first"),
        "{text}"
    );
}
