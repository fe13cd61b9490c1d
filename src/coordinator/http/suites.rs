//! `/suites`: list, show, wait, cancel, retry.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::{Body, PathUuid, Query};
use super::state::ApiState;
use super::tasks::WaitQuery;
use crate::coordinator::WaitFor;
use crate::protocol::api::{
    CancelRequest, ErrorBody, PageQuery, RetryResponse, SuitePage, SuiteSummary, WaitResponse,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(wait))
        .routes(routes!(cancel))
        .routes(routes!(retry))
}

/// List suites, oldest first, in pages, or those that a text names. A task that was repeated counts by its newest life.
#[utoipa::path(
    get, path = "/suites", tag = "suites", security(("bearer" = ["user"])), params(PageQuery),
    responses((status = 200, body = SuitePage), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn list(
    _: UserCaller,
    State(state): State<ApiState>,
    Query(page): Query<PageQuery>,
) -> Result<Json<SuitePage>, Failure> {
    let coordinator = state.coordinator();
    if let Some(text) = page.named {
        return Ok(Json(SuitePage {
            suites: coordinator.suites_named(text).await?,
            next_cursor: None,
        }));
    }
    let page = coordinator
        .suites(page.cursor.as_deref(), page.limit)
        .await?;
    Ok(Json(SuitePage {
        suites: page.items,
        next_cursor: page.next_cursor,
    }))
}

/// Show one suite with its counts.
#[utoipa::path(
    get, path = "/suites/{uuid}", tag = "suites", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The suite")),
    responses((status = 200, body = SuiteSummary), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn show(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<SuiteSummary>, Failure> {
    Ok(Json(state.coordinator().suite(uuid).await?))
}

/// Wait until every task of a suite has ended.
#[utoipa::path(
    get, path = "/suites/{uuid}/wait", tag = "suites", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The suite"), WaitQuery),
    responses((status = 200, body = WaitResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn wait(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Query(query): Query<WaitQuery>,
) -> Result<Json<WaitResponse>, Failure> {
    query.wait(&state, &WaitFor::Suite(uuid)).await.map(Json)
}

/// Ask for the end of every task of a suite. The answer has the counts after it; what runs follows within its grace.
#[utoipa::path(
    post, path = "/suites/{uuid}/cancel", tag = "suites", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The suite")),
    request_body(content = Option<CancelRequest>, example = json!({"graceful": false})),
    responses((status = 200, body = WaitResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn cancel(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Body(request): Body<CancelRequest>,
) -> Result<Json<WaitResponse>, Failure> {
    let coordinator = state.coordinator();
    coordinator.cancel_all(uuid, request.graceful).await?;
    let counts = coordinator.suite(uuid).await?.counts;
    let done = counts.keys().all(|state| state.is_terminal());
    Ok(Json(WaitResponse { done, counts }))
}

/// Repeat every failed or cancelled task of a suite that has not been repeated yet.
#[utoipa::path(
    post, path = "/suites/{uuid}/retry", tag = "suites", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The suite")),
    responses((status = 200, body = RetryResponse), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn retry(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
) -> Result<Json<RetryResponse>, Failure> {
    let tasks = state.coordinator().retry_all(uuid).await?;
    Ok(Json(RetryResponse { tasks }))
}
