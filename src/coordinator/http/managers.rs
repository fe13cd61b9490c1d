//! `/managers` and `/mode`: who manages, and what the operator wants of managers, of their pollers and of everybody.

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
use crate::protocol::api::{ErrorBody, ManagerList, ModeRequest};
use crate::protocol::tuning::{Pollers, TuneOrder};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(set_mode))
        .routes(routes!(set_mode_of_all))
        .routes(routes!(pollers, tune))
}

/// List managers that are connected or were heard within a day.
#[utoipa::path(
    get, path = "/managers", tag = "managers", security(("bearer" = ["user"])),
    responses((status = 200, body = ManagerList), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn list(_: UserCaller, State(state): State<ApiState>) -> Result<Json<ManagerList>, Failure> {
    let managers = state.coordinator().managers().await?;
    Ok(Json(ManagerList { managers }))
}

/// Pause, resume or shut down one manager. The wish is kept until another replaces it.
#[utoipa::path(
    post, path = "/managers/{uuid}/mode", tag = "managers", security(("bearer" = ["admin"])),
    params(("uuid" = uuid::Uuid, Path, description = "The manager")),
    request_body(content = ModeRequest, example = json!({"mode": "pause"})),
    responses((status = 204), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn set_mode(
    _: AdminCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Body(request): Body<ModeRequest>,
) -> Result<StatusCode, Failure> {
    let target = ModeTarget::Manager(uuid);
    state.coordinator().set_mode(target, request.mode).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause, resume or shut down every manager and independent worker there is now.
#[utoipa::path(
    post, path = "/mode", tag = "managers", security(("bearer" = ["admin"])),
    request_body(content = ModeRequest, example = json!({"mode": {"shutdown": {"graceful": true, "deadline_ms": 0}}})),
    responses((status = 204), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn set_mode_of_all(
    _: AdminCaller,
    State(state): State<ApiState>,
    Body(request): Body<ModeRequest>,
) -> Result<StatusCode, Failure> {
    let coordinator = state.coordinator();
    coordinator.set_mode(ModeTarget::All, request.mode).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask a manager how the pollers of its machine wait.
#[utoipa::path(
    get, path = "/managers/{uuid}/tuning", tag = "managers", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The manager")),
    responses((status = 200, body = Pollers), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn pollers(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<Pollers>, Failure> {
    order(&state, uuid, TuneOrder::default()).await
}

/// Change how pollers of a manager's machine wait. Answered when the manager has done so, with what is in force; it lasts as
/// long as the manager's process, and beyond the lives of its workers.
#[utoipa::path(
    post, path = "/managers/{uuid}/tuning", tag = "managers", security(("bearer" = ["admin"])),
    params(("uuid" = uuid::Uuid, Path, description = "The manager")),
    request_body(content = TuneOrder, example = json!({
        "manager": "busy", "workers": "event", "single": [{"worker": 3, "poll": "adaptive:20us"}]
    })),
    responses((status = 200, body = Pollers), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn tune(
    _: AdminCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Body(request): Body<TuneOrder>,
) -> Result<Json<Pollers>, Failure> {
    order(&state, uuid, request).await
}

async fn order(
    state: &ApiState,
    manager: uuid::Uuid,
    order: TuneOrder,
) -> Result<Json<Pollers>, Failure> {
    let answer = state.unless_stopped(state.coordinator().tune(manager, order));
    let pollers = answer.await.ok_or_else(Failure::stopping)??;
    Ok(Json(pollers))
}
