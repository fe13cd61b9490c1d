//! An independent worker's conversation with a real coordinator.

use std::sync::Arc;

use super::*;
use crate::comm::http::{HttpWorkerComm, HttpWorkerConfig};
use crate::comm::{CommError, Fetched, WorkerComm};
use crate::endpoint::TokenSource;
use crate::protocol::api::CancelRequest;
use crate::protocol::{Mode, ReportTaskOp, TaskReport, TaskState, Try, Verdict, WorkerTaskResp};
use mitosis_bridge::FetchWish;

fn config(server: &Server, scope: Scope) -> HttpWorkerConfig {
    HttpWorkerConfig {
        url: server.url(),
        token: TokenSource::Given(server.token(scope)),
        worker_uuid: None,
        host: "here".to_owned(),
        tags: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    }
}

async fn connect(server: &Server) -> HttpWorkerComm {
    let config = config(server, Scope::User);
    HttpWorkerComm::connect(config).await.unwrap()
}

async fn fetch(comm: &HttpWorkerComm) -> WorkerTaskResp {
    match in_time(comm.fetch_tasks(FetchWish::ONE)).await.unwrap() {
        Fetched::Tasks(tasks) if tasks.len() == 1 => WorkerTaskResp::clone(&tasks[0].task),
        other => panic!("no task but {other:?}"),
    }
}

fn report(task: &WorkerTaskResp, seq: u64, op: ReportTaskOp) -> TaskReport {
    TaskReport {
        seq,
        task_id: task.id,
        task_uuid: task.uuid,
        lease: task.lease,
        try_no: task.try_no,
        op,
    }
}

async fn tell(comm: &HttpWorkerComm, report: TaskReport) -> Verdict {
    let answers = comm.report_tasks(&[Arc::new(report)]).await.unwrap();
    answers[0].verdict.clone()
}

async fn start(comm: &HttpWorkerComm, task: &WorkerTaskResp) -> Verdict {
    let started = report(task, 1, ReportTaskOp::Started { at_us: 1 });
    tell(comm, started).await
}

async fn end(comm: &HttpWorkerComm, task: &WorkerTaskResp, outcome: Outcome) -> Verdict {
    let result = ended(outcome, Output::default());
    let ended = report(task, 2, ReportTaskOp::ended(result));
    tell(comm, ended).await
}

async fn state(server: &Server, task: Uuid) -> TaskState {
    server.user().task(task).await.unwrap().summary.state
}

#[tokio::test]
async fn a_task_is_fetched_started_reported_and_the_worker_leaves() {
    let server = Server::start().await;
    let comm = connect(&server).await;
    // The fetch is under way before there is anything to fetch.
    let (task, uuids) = tokio::join!(fetch(&comm), server.submit(&["one"]));
    assert_eq!((task.uuid, task.try_no), (uuids[0], Try(1)));
    assert_eq!(start(&comm, &task).await, Verdict::Accepted);
    assert_eq!(state(&server, task.uuid).await, TaskState::Running);
    comm.send_heartbeat().await.unwrap();
    let outcome = Outcome::Completed;
    assert_eq!(end(&comm, &task, outcome).await, Verdict::Accepted);
    assert_eq!(end(&comm, &task, outcome).await, Verdict::Duplicate);
    assert_eq!(state(&server, task.uuid).await, TaskState::Completed);
    let name = comm.worker_uuid();
    let workers = server.user().workers().await.unwrap();
    assert_eq!((workers[0].uuid, workers[0].task), (name, None));
    comm.leave(PATIENCE).await;
    let gone = server.client(Scope::Worker(name));
    refused(gone.heartbeat(name).await, 410, "worker_gone");
}

#[tokio::test]
async fn what_a_leaving_worker_holds_goes_to_the_next() {
    let server = Server::start().await;
    server.submit(&["one"]).await;
    let first = connect(&server).await;
    let task = fetch(&first).await;
    first.leave(PATIENCE).await;
    let second = connect(&server).await;
    let again = fetch(&second).await;
    assert_eq!(again.uuid, task.uuid);
    assert!(again.lease > task.lease);
    let late = end(&second, &task, Outcome::Completed).await;
    assert!(
        matches!(late, Verdict::NotOwner | Verdict::Stale),
        "{late:?}"
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let server = Server::start().await;
    server.submit(&["one", "two"]).await;
    let comm = connect(&server).await;
    let first = fetch(&comm).await;
    let again = fetch(&comm).await;
    assert_eq!(first.uuid, again.uuid);
    assert!(
        again.lease > first.lease,
        "a repeated grant is fenced off from the one that was lost"
    );
}

#[tokio::test]
async fn a_cancel_is_heard_by_the_worker_that_holds_the_task() {
    let server = Server::start().await;
    let task = server.submit(&["one"]).await[0];
    let comm = connect(&server).await;
    let held = fetch(&comm).await;
    assert_eq!(start(&comm, &held).await, Verdict::Accepted);
    let now = CancelRequest { graceful: false };
    let answer = server.user().cancel_task(task, now).await.unwrap();
    assert_eq!(answer.state, TaskState::Running);
    let mut control = comm.control();
    let heard = control.wait_for(|desired| !desired.cancels.is_empty());
    let order = in_time(heard)
        .await
        .unwrap()
        .cancel_for(held.id, held.lease, held.try_no);
    assert!(!order.expect("it is about this task").graceful);
    let verdict = end(&comm, &held, Outcome::Cancelled).await;
    assert_eq!(verdict, Verdict::Accepted);
    assert_eq!(state(&server, task).await, TaskState::Cancelled);
}

#[tokio::test]
async fn a_cancel_that_was_faster_than_the_start_wins() {
    let server = Server::start().await;
    let task = server.submit(&["one"]).await[0];
    let comm = connect(&server).await;
    let held = fetch(&comm).await;
    let graceful = CancelRequest::default();
    server.user().cancel_task(task, graceful).await.unwrap();
    assert_eq!(start(&comm, &held).await, Verdict::Cancel);
}

#[tokio::test]
async fn a_worker_hears_that_it_is_to_pause_and_to_run_again() {
    let server = Server::start().await;
    let comm = connect(&server).await;
    let admin = server.client(Scope::Admin);
    let name = comm.worker_uuid();
    let mut control = comm.control();
    admin.set_worker_mode(name, Mode::Pause).await.unwrap();
    let paused = control.wait_for(|desired| desired.mode == Mode::Pause);
    drop(in_time(paused).await.unwrap());
    admin.set_mode(Mode::Run).await.unwrap();
    let running = control.wait_for(|desired| desired.mode == Mode::Run);
    drop(in_time(running).await.unwrap());
    let nobody = admin.set_worker_mode(Uuid::nil(), Mode::Pause).await;
    refused(nobody, 404, "not_found");
}

#[tokio::test]
async fn a_worker_rides_through_a_restart_of_its_coordinator() {
    let server = Server::start().await;
    server.submit(&["one", "two"]).await;
    let comm = connect(&server).await;
    let task = fetch(&comm).await;
    assert_eq!(start(&comm, &task).await, Verdict::Accepted);
    let (dir, address) = server.stop().await;
    let result = ended(Outcome::Completed, Output::default());
    let away = comm
        .report_tasks(&[Arc::new(report(&task, 2, ReportTaskOp::ended(result)))])
        .await;
    assert!(away.unwrap_err().is_retryable());
    assert!(comm.send_heartbeat().await.unwrap_err().is_retryable());
    let listener = TcpListener::bind(address).await.unwrap();
    let server = Server::serve(dir, listener, ApiOptions::default()).await;
    // The registration, the token and the lease are as they were.
    let verdict = end(&comm, &task, Outcome::Completed).await;
    assert_eq!(verdict, Verdict::Accepted);
    assert_eq!(state(&server, task.uuid).await, TaskState::Completed);
    let epoch = u64::from(server.coordinator.epoch());
    let mut control = comm.control();
    let heard = control.wait_for(|desired| desired.epoch == epoch);
    drop(in_time(heard).await.unwrap());
    assert_ne!(fetch(&comm).await.uuid, task.uuid);
}

#[tokio::test]
async fn a_worker_that_was_removed_registers_again_under_its_name() {
    let server = Server::start().await;
    let comm = connect(&server).await;
    let name = comm.worker_uuid();
    server.coordinator.unregister_worker(name).await.unwrap();
    comm.send_heartbeat().await.unwrap();
    assert_eq!(comm.worker_uuid(), name);
    server.submit(&["one"]).await;
    fetch(&comm).await;
}

#[tokio::test]
async fn a_worker_acts_for_itself_alone() {
    let server = Server::start().await;
    let comm = connect(&server).await;
    let other = server.client(Scope::Worker(Uuid::from_u128(9)));
    refused(other.heartbeat(comm.worker_uuid()).await, 403, "forbidden");
    let mut request = registration();
    request.worker_uuid = Some(comm.worker_uuid());
    refused(other.register_worker(&request).await, 403, "forbidden");
    // Without a name it gets its own back, and no other.
    request.worker_uuid = None;
    let own = other.register_worker(&request).await.unwrap();
    assert_eq!(own.worker_uuid, Uuid::from_u128(9));
}

#[tokio::test]
async fn an_enroll_token_of_the_wrong_scope_is_refused_for_good() {
    let server = Server::start().await;
    let config = config(&server, Scope::Manager);
    let error = HttpWorkerComm::connect(config).await.unwrap_err();
    assert!(matches!(error, CommError::Refused { .. }), "{error:?}");
}
