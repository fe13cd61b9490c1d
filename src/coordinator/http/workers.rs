//! `/workers` as operators see it: independent workers, and what is wanted of them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{AdminCaller, UserCaller};
use super::failure::Failure;
use super::input::{Body, PathUuid};
use super::state::ApiState;
use crate::coordinator::ModeTarget;
use crate::protocol::api::{ErrorBody, ModeRequest, WorkerList};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(set_mode))
}

/// List independent workers that are registered or were heard within a day.
#[utoipa::path(
    get, path = "/workers", tag = "workers", security(("bearer" = ["user"])),
    responses((status = 200, body = WorkerList), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn list(_: UserCaller, State(state): State<ApiState>) -> Result<Json<WorkerList>, Failure> {
    let workers = state.coordinator().workers().await?;
    Ok(Json(WorkerList { workers }))
}

/// Pause, resume or shut down one independent worker.
#[utoipa::path(
    post, path = "/workers/{uuid}/mode", tag = "workers", security(("bearer" = ["admin"])),
    params(("uuid" = uuid::Uuid, Path, description = "The worker")),
    request_body(content = ModeRequest, example = json!({"mode": "run"})),
    responses((status = 204), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn set_mode(
    _: AdminCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Body(request): Body<ModeRequest>,
) -> Result<StatusCode, Failure> {
    let target = ModeTarget::Worker(uuid);
    state.coordinator().set_mode(target, request.mode).await?;
    Ok(StatusCode::NO_CONTENT)
}
