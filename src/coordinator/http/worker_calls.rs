//! `/workers/…` as independent workers call it: register, fetch, report, heartbeat, control, leave.
//!
//! A worker acts under a token for its own uuid alone, so nothing in a body can name another one.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{EnrollCaller, WorkerCaller};
use super::failure::Failure;
use super::input::{Body, WorkerQuery};
use super::state::ApiState;
use crate::coordinator::ControlPosition;
use crate::coordinator::auth::{Scope, WORKER_TOKEN_TTL};
use crate::protocol::api::{
    ErrorBody, HeartbeatBody, HeartbeatResponse, RegisterWorkerRequest, RegisterWorkerResponse,
    ReportTaskBody,
};
use crate::protocol::plain::{is_plain, one_line};
use crate::protocol::{Desired, HumanDuration, ReportTaskResp, WorkerTaskResp};

/// Longest park of a long poll.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(fetch_task))
        .routes(routes!(report_task))
        .routes(routes!(heartbeat))
        .routes(routes!(control))
        .routes(routes!(leave))
}

/// What is shown to operators has nothing in it that a terminal takes for orders.
fn refuse_controls(request: &RegisterWorkerRequest) -> Result<(), Failure> {
    let mut words = [&request.host].into_iter().chain(&request.tags);
    match words.find(|word| !is_plain(word)) {
        Some(word) => Err(Failure::bad_request(format!(
            "the worker's host or one of its tags is `{}`; control characters are not allowed in them",
            one_line(word)
        ))),
        None => Ok(()),
    }
}

/// Register an independent worker. It then holds nothing: whatever it held under the same uuid is requeued.
#[utoipa::path(
    post, path = "/workers/register", tag = "worker", security(("bearer" = ["user", "worker"])),
    request_body(content = RegisterWorkerRequest, example = json!({"host": "node7", "tags": ["gpu"], "labels": {}})),
    responses(
        (status = 200, body = RegisterWorkerResponse),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn register(
    caller: EnrollCaller,
    State(state): State<ApiState>,
    Body(mut request): Body<RegisterWorkerRequest>,
) -> Result<Json<RegisterWorkerResponse>, Failure> {
    if let Some(own) = caller.only
        && *request.worker_uuid.get_or_insert(own) != own
    {
        return Err(Failure::forbidden());
    }
    refuse_controls(&request)?;
    let host = request.host.clone();
    let registered = state.coordinator().register_worker(request).await?;
    let token = worker_token(&state, registered.worker, &host);
    Ok(Json(RegisterWorkerResponse {
        worker_uuid: registered.worker,
        token,
        lease: registered.lease.into(),
        heartbeat: registered.heartbeat.into(),
    }))
}

fn worker_token(state: &ApiState, worker: Uuid, subject: &str) -> String {
    let token = state
        .authority()
        .issue(Scope::Worker(worker), subject, WORKER_TOKEN_TTL);
    token.expose_secret().to_owned()
}

/// How long to park a fetch.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FetchQuery {
    /// Longest park, e.g. `30s`; not parked when absent, 30 s at most.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Option<HumanDuration>,
}

/// Fetch the next task. A task that was granted to a fetch whose answer was lost is answered again.
#[utoipa::path(
    get, path = "/workers/fetch-task", tag = "worker", security(("bearer" = ["worker"])), params(FetchQuery),
    responses(
        (status = 200, description = "Run this", body = WorkerTaskResp),
        (status = 204, description = "Nothing came up; ask again"),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn fetch_task(
    caller: WorkerCaller,
    State(state): State<ApiState>,
    WorkerQuery(query): WorkerQuery<FetchQuery>,
) -> Result<Response, Failure> {
    let wait = query.wait.unwrap_or_default().0.min(LONGEST_WAIT);
    let fetch = state.coordinator().fetch_task(caller.worker, wait);
    match state.unless_stopped(fetch).await {
        Some(Ok(Some(task))) => Ok(Json(task).into_response()),
        Some(Ok(None)) | None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Report what happened to a task. Sending the same report again is safe.
#[utoipa::path(
    post, path = "/workers/report-task", tag = "worker", security(("bearer" = ["worker"])),
    request_body(content = ReportTaskBody, example = json!({
        "seq": 1, "task_id": 7, "task_uuid": "0193b0a0-0000-7000-8000-000000000007", "lease": "4294967297",
        "op": {"Started": {"at_us": 1_700_000_000_000_000_i64}}
    })),
    responses(
        (status = 200, description = "The verdict; `success` is true when the report is closed", body = ReportTaskResp),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn report_task(
    caller: WorkerCaller,
    State(state): State<ApiState>,
    Body(report): Body<ReportTaskBody>,
) -> Result<Json<ReportTaskResp>, Failure> {
    let coordinator = state.coordinator();
    Ok(Json(coordinator.report_task(caller.worker, report).await?))
}

/// Tell that the worker is alive, which renews its lease, and hear what is wanted of it.
#[utoipa::path(
    post, path = "/workers/heartbeat", tag = "worker", security(("bearer" = ["worker"])),
    request_body(content = HeartbeatBody, example = json!({"worker_uuid": "0193b0a0-0000-7000-8000-000000000001"})),
    responses(
        (status = 200, body = HeartbeatResponse),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn heartbeat(
    caller: WorkerCaller,
    State(state): State<ApiState>,
    Body(body): Body<HeartbeatBody>,
) -> Result<Json<HeartbeatResponse>, Failure> {
    if body.worker_uuid != caller.worker {
        return Err(Failure::forbidden());
    }
    let coordinator = state.coordinator();
    let control = coordinator.worker_heartbeat(caller.worker).await?;
    let is_old = caller.identity.remaining() < WORKER_TOKEN_TTL / 2;
    let token = is_old.then(|| worker_token(&state, caller.worker, &caller.identity.subject));
    Ok(Json(HeartbeatResponse {
        lease: coordinator.config().lease.into(),
        control,
        token,
    }))
}

/// What the worker has seen, and how long to wait for news.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ControlQuery {
    /// Longest park, e.g. `30s`; not parked when absent, 30 s at most.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Option<HumanDuration>,
    /// `epoch` of the newest state the worker has.
    #[serde(default)]
    epoch: Option<u64>,
    /// `seq` of the newest state the worker has.
    #[serde(default)]
    after: Option<u64>,
}

/// Hear what is wanted of the worker: at once when it is newer than what it has, else when it changes, or unchanged
/// after the wait.
#[utoipa::path(
    get, path = "/workers/control", tag = "worker", security(("bearer" = ["worker"])), params(ControlQuery),
    responses((status = 200, body = Desired), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn control(
    caller: WorkerCaller,
    State(state): State<ApiState>,
    WorkerQuery(query): WorkerQuery<ControlQuery>,
) -> Result<Json<Desired>, Failure> {
    let seen = match (query.epoch, query.after) {
        (Some(epoch), Some(seq)) => Some(ControlPosition { epoch, seq }),
        _ => None,
    };
    let wait = query.wait.unwrap_or_default().0.min(LONGEST_WAIT);
    let coordinator = state.coordinator();
    let news = coordinator.worker_control(caller.worker, seen, wait);
    match state.unless_stopped(news).await {
        Some(desired) => Ok(Json(desired?)),
        None => {
            let now = coordinator.worker_control(caller.worker, None, Duration::ZERO);
            Ok(Json(now.await?))
        }
    }
}

/// Leave. Whatever the worker still holds is requeued.
#[utoipa::path(
    post, path = "/workers/leave", tag = "worker", security(("bearer" = ["worker"])),
    responses((status = 204), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn leave(caller: WorkerCaller, State(state): State<ApiState>) -> Result<StatusCode, Failure> {
    state.coordinator().unregister_worker(caller.worker).await?;
    Ok(StatusCode::NO_CONTENT)
}
