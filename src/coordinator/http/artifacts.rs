//! Artifacts of tasks: a link for users, and the bytes behind signed addresses.
//!
//! The address is the permission, so that bytes need no token: a worker that a manager feeds has none. Bodies are
//! passed on chunk by chunk; every rule is the core's.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::WorkerQuery;
use super::state::ApiState;
use crate::protocol::ArtifactKind;
use crate::protocol::api::{ArtifactLink, ErrorBody};
use crate::protocol::artifact::DIGEST_HEADER;
use crate::protocol::signed_url::{Access, Refusal, SignedQuery};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(link))
        .routes(routes!(download, upload))
}

/// Get an address under which one artifact of a task can be read without a token.
#[utoipa::path(
    get, path = "/tasks/{uuid}/artifacts/{kind}", tag = "tasks", security(("bearer" = ["user"])),
    params(
        ("uuid" = Uuid, Path, description = "The task"),
        ("kind" = ArtifactKind, Path, description = "Which artifact")
    ),
    responses((status = 200, body = ArtifactLink), (status = "default", description = "Refused", body = ErrorBody))
)]
async fn link(
    _: UserCaller,
    State(state): State<ApiState>,
    Path(place): Path<(String, String)>,
) -> Result<Json<ArtifactLink>, Failure> {
    let (task, kind) = read(&place)?;
    Ok(Json(state.coordinator().artifact_link(task, kind).await?))
}

/// Read an artifact: `tar.zst` for `result` and `exec`, plain bytes for `stdout` and `stderr`.
#[utoipa::path(
    get, path = "/artifacts/{uuid}/{kind}", tag = "artifacts", security(()),
    params(
        ("uuid" = Uuid, Path, description = "The task"),
        ("kind" = ArtifactKind, Path, description = "Which artifact"),
        SignedQuery
    ),
    responses(
        (status = 200, content_type = "application/octet-stream"),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn download(
    State(state): State<ApiState>,
    Path(place): Path<(String, String)>,
    query: Result<WorkerQuery<SignedQuery>, Failure>,
) -> Result<Response, Failure> {
    let what = read(&place)?;
    let coordinator = state.coordinator();
    coordinator
        .check_address(Access::Get, what, &signed(query)?)
        .map_err(Failure::address)?;
    let (stored, content) = coordinator.artifact_content(what.0, what.1).await?;
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            CONTENT_LENGTH,
            HeaderValue::from(stored.artifact.size_bytes),
        ),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}

/// Bring an artifact, with its SHA-256 in hex in the header `x-mitosis-sha256`. Bringing the same one again is safe.
#[utoipa::path(
    put, path = "/artifacts/{uuid}/{kind}", tag = "artifacts", security(()),
    params(
        ("uuid" = Uuid, Path, description = "The task"),
        ("kind" = ArtifactKind, Path, description = "Which artifact"),
        ("x-mitosis-sha256" = String, Header, description = "SHA-256 of the body in hex"),
        SignedQuery
    ),
    request_body(content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "It is kept"),
        (status = "default", description = "Refused; `superseded` when somebody else has the task by now", body = ErrorBody)
    )
)]
async fn upload(
    State(state): State<ApiState>,
    Path(place): Path<(String, String)>,
    query: Result<WorkerQuery<SignedQuery>, Failure>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    let what = read(&place)?;
    let coordinator = state.coordinator();
    let grant = coordinator
        .check_address(Access::Put, what, &signed(query)?)
        .map_err(Failure::address)?;
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let digest = header(DIGEST_HEADER).ok_or_else(|| {
        Failure::bad_request(format!(
            "the header {DIGEST_HEADER} is missing; it holds the SHA-256 of the body in hex"
        ))
    })?;
    let size = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    let announced = (what.1, digest, size);
    coordinator
        .receive_artifact(&grant, announced, body.into_data_stream())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An address without what a signed one has is not signed.
fn signed(query: Result<WorkerQuery<SignedQuery>, Failure>) -> Result<SignedQuery, Failure> {
    let WorkerQuery(query) = query.map_err(|_| Failure::address(Refusal::Signature))?;
    Ok(query)
}

/// Task and kind from a path.
fn read((task, kind): &(String, String)) -> Result<(Uuid, ArtifactKind), Failure> {
    let task = task.parse().map_err(|_| {
        Failure::bad_request(format!("`{}` is no uuid of a task", task.escape_debug()))
    })?;
    let kind = ArtifactKind::parse(kind).ok_or_else(|| {
        Failure::bad_request(format!(
            "there is no artifact `{}`; there are result, exec, stdout and stderr",
            kind.escape_debug()
        ))
    })?;
    Ok((task, kind))
}
