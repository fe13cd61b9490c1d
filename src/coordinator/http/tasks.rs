//! `/tasks`: submit, list, show, wait, cancel, retry.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::{Body, PathUuid, Query};
use super::state::ApiState;
use crate::coordinator::WaitFor;
use crate::protocol::HumanDuration;
use crate::protocol::api::{
    CancelMatchingRequest, CancelMatchingResponse, CancelRequest, CancelResponse, ErrorBody,
    MAX_WAIT_TASKS, RetryRequest, RetryResponse, SubmitRequest, SubmitResponse, SubmittedTask,
    TaskDetail, TaskFilter, TaskPage, WaitRequest, WaitResponse,
};
use crate::protocol::why::TaskWhy;

/// How long `wait` waits when the request names no time, and the longest it waits in one call.
pub(super) const LONGEST_WAIT: HumanDuration = HumanDuration(std::time::Duration::from_secs(60));

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, submit))
        .routes(routes!(show))
        .routes(routes!(why))
        .routes(routes!(wait))
        .routes(routes!(wait_several))
        .routes(routes!(cancel))
        .routes(routes!(cancel_matching))
        .routes(routes!(retry))
        .routes(routes!(retry_several))
}

/// Submit one task or many, all or none.
///
/// When it is answered, every task in it survives the death of any process.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", security(("bearer" = ["user"])),
    request_body(content = SubmitRequest, example = json!({
        "suite": {"new": {"name": "sweep"}},
        "tasks": [
            {"key": "a=1", "args": ["./simulate", "--a", "1"], "timeout": "1h"},
            {"args": ["grep x input | wc -l"], "shell": true}
        ]
    })),
    responses(
        (status = 200, body = SubmitResponse),
        (status = "default", description = "The submit is refused as a whole", body = ErrorBody, example = json!({
            "error": {"code": "bad_task", "message": "there is no field `tasks[0].timeuot`; did you mean `timeout`?"}
        }))
    )
)]
async fn submit(
    _: UserCaller,
    State(state): State<ApiState>,
    Body(request): Body<SubmitRequest>,
) -> Result<Json<SubmitResponse>, Failure> {
    Ok(Json(state.coordinator().submit(request).await?))
}

/// List tasks, oldest first, in pages.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks", security(("bearer" = ["user"])), params(TaskFilter),
    responses((status = 200, body = TaskPage), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn list(
    _: UserCaller,
    State(state): State<ApiState>,
    Query(filter): Query<TaskFilter>,
) -> Result<Json<TaskPage>, Failure> {
    Ok(Json(state.coordinator().tasks(&filter).await?))
}

/// Show everything about one task.
#[utoipa::path(
    get, path = "/tasks/{uuid}", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task")),
    responses((status = 200, body = TaskDetail), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn show(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<TaskDetail>, Failure> {
    Ok(Json(state.coordinator().task(uuid).await?))
}

/// Say why one task is not running, or how its time was spent.
#[utoipa::path(
    get, path = "/tasks/{uuid}/why", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task")),
    responses((status = 200, body = TaskWhy), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn why(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<TaskWhy>, Failure> {
    Ok(Json(state.coordinator().why(uuid).await?))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Longest wait, e.g. `30s`; a minute when absent and at most. The answer then says that it is not done.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    timeout: Option<HumanDuration>,
}

impl WaitQuery {
    /// Waits for a set; a stopping server answers with what it knows.
    pub(super) async fn wait(
        &self,
        state: &ApiState,
        what: &WaitFor,
    ) -> Result<WaitResponse, Failure> {
        let timeout = self.timeout.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT).0;
        let coordinator = state.coordinator();
        match state.unless_stopped(coordinator.wait(what, timeout)).await {
            Some(answer) => Ok(answer?),
            None => Ok(coordinator.wait(what, std::time::Duration::ZERO).await?),
        }
    }
}

/// Wait until one task has ended; one that was repeated, until its newest repetition has.
#[utoipa::path(
    get, path = "/tasks/{uuid}/wait", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task"), WaitQuery),
    responses((status = 200, body = WaitResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn wait(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Query(query): Query<WaitQuery>,
) -> Result<Json<WaitResponse>, Failure> {
    let what = WaitFor::Tasks(vec![uuid]);
    query.wait(&state, &what).await.map(Json)
}

/// Wait until several tasks have ended, each by its newest repetition.
#[utoipa::path(
    post, path = "/tasks/wait", tag = "tasks", security(("bearer" = ["user"])), params(WaitQuery),
    request_body(content = WaitRequest, example = json!({"tasks": ["01900000-1a2b-7000-8000-00000000000a"]})),
    responses((status = 200, body = WaitResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn wait_several(
    _: UserCaller,
    State(state): State<ApiState>,
    Query(query): Query<WaitQuery>,
    Body(request): Body<WaitRequest>,
) -> Result<Json<WaitResponse>, Failure> {
    if request.tasks.len() > MAX_WAIT_TASKS {
        return Err(Failure::bad_request(format!(
            "{} tasks are waited for, and {MAX_WAIT_TASKS} are the most of one call; wait for one part after the other",
            request.tasks.len()
        )));
    }
    let what = WaitFor::Tasks(request.tasks);
    query.wait(&state, &what).await.map(Json)
}

/// Ask for a task's end. Without a body the cancel is graceful.
#[utoipa::path(
    post, path = "/tasks/{uuid}/cancel", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task")),
    request_body(content = Option<CancelRequest>, example = json!({"graceful": true})),
    responses((status = 200, body = CancelResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn cancel(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Body(request): Body<CancelRequest>,
) -> Result<Json<CancelResponse>, Failure> {
    let coordinator = state.coordinator();
    Ok(Json(coordinator.cancel(uuid, request.graceful).await?))
}

/// Ask for the end of every task that a filter lets through. None of them begins after the answer.
#[utoipa::path(
    post, path = "/tasks/cancel", tag = "tasks", security(("bearer" = ["user"])),
    request_body(content = CancelMatchingRequest, example = json!({"filter": {"state": "ready,running"}, "graceful": true})),
    responses((status = 200, body = CancelMatchingResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn cancel_matching(
    _: UserCaller,
    State(state): State<ApiState>,
    Body(request): Body<CancelMatchingRequest>,
) -> Result<Json<CancelMatchingResponse>, Failure> {
    Ok(Json(state.coordinator().cancel_matching(&request).await?))
}

/// Repeat an ended task as a new one that names the old.
#[utoipa::path(
    post, path = "/tasks/{uuid}/retry", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The ended task")),
    responses((status = 200, body = SubmittedTask), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn retry(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<SubmittedTask>, Failure> {
    Ok(Json(state.coordinator().retry(uuid).await?))
}

/// Repeat several ended tasks, all or none.
#[utoipa::path(
    post, path = "/tasks/retry", tag = "tasks", security(("bearer" = ["user"])),
    request_body(content = RetryRequest, example = json!("failed")),
    responses((status = 200, body = RetryResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn retry_several(
    _: UserCaller,
    State(state): State<ApiState>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<RetryResponse>, Failure> {
    let coordinator = state.coordinator();
    let tasks = match request {
        RetryRequest::Tasks(uuids) => coordinator.retry_tasks(uuids).await?,
        RetryRequest::Failed => coordinator.retry_failed().await?,
    };
    Ok(Json(RetryResponse { tasks }))
}
