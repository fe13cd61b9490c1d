//! `/submissions`: a submit that goes up in parts, each of which may be repeated.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::{Body, PathUuid, Query};
use super::state::ApiState;
use crate::coordinator::store::Part;
use crate::protocol::api::{ErrorBody, SubmitRequest, SubmitResponse};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(put, abandon))
}

/// Which part it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PartQuery {
    /// Number of the part, from 0.
    part: u32,
    /// True for the last part, which accepts the whole.
    #[serde(default)]
    last: bool,
    /// Tasks of the earlier parts; errors count from there.
    #[serde(default)]
    before: u32,
}

/// Submit a part of a larger submission.
///
/// Parts come in order, each again until it is answered; a part that is known is answered as before. Nothing of the
/// submission runs before its last part is answered; then all of it does. The suite is that of the first part.
#[utoipa::path(
    put, path = "/submissions/{uuid}", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The submission: a uuid of version 7, made for it"), PartQuery),
    request_body(content = SubmitRequest, example = json!({"tasks": [{"args": ["true"]}]})),
    responses((status = 200, body = SubmitResponse), (status = "default", description = "The part is refused", body = ErrorBody))
)]
async fn put(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(submission): PathUuid,
    Query(query): Query<PartQuery>,
    Body(request): Body<SubmitRequest>,
) -> Result<Json<SubmitResponse>, Failure> {
    let part = Part {
        submission,
        number: query.part,
        is_last: query.last,
    };
    let before = usize::try_from(query.before).unwrap_or(usize::MAX);
    let answer = state
        .coordinator()
        .submit_part(request, part, before)
        .await?;
    Ok(Json(answer))
}

/// Give up a submission whose last part has not come. Its tasks are cancelled.
#[utoipa::path(
    delete, path = "/submissions/{uuid}", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The submission")),
    responses((status = 204), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn abandon(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(submission): PathUuid,
) -> Result<StatusCode, Failure> {
    state.coordinator().abandon(submission).await?;
    Ok(StatusCode::NO_CONTENT)
}
