//! Health, metrics, and the API's own description.
//!
//! `/healthz`, `/readyz` and the document need no token: they say nothing about what is stored. `/metrics` does, so
//! it needs one, which a scraper gives as its bearer credentials; so does the list of targets.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::ObserverCaller;
use super::failure::Failure;
use super::state::ApiState;
use crate::protocol::api::{ErrorBody, ManagerSummary, ScrapeTarget};

/// How long the store may take to answer before it counts as not ready.
const STORE_ANSWER: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(targets))
}

pub(super) fn api_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(document))
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the store can be read and written.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, description = "The store does not answer or cannot be written, or the coordinator stops", body = ErrorBody)
    )
)]
async fn readyz(State(state): State<ApiState>) -> Result<&'static str, Failure> {
    let asked = tokio::time::timeout(STORE_ANSWER, state.coordinator().ready());
    match state.unless_stopped(asked).await {
        Some(Ok(Ok(()))) => Ok("ready\n"),
        Some(_) => Err(Failure::not_ready()),
        None => Err(Failure::stopping()),
    }
}

/// What Prometheus scrapes.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", security(("bearer" = ["user", "manager"])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn metrics(_: ObserverCaller, State(state): State<ApiState>) -> Result<Response, Failure> {
    let render = state.options().metrics.as_ref().ok_or_else(|| {
        Failure::not_found("this process exports no metrics here; scrape its own metrics address")
    })?;
    let render = Arc::clone(render);
    // It reads files of the system. A panic has been reported by its hook.
    let text = tokio::task::spawn_blocking(move || render()).await;
    let text = text.map_err(|_| Failure::internal())?;
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, text).into_response())
}

/// Where Prometheus finds managers: those that serve `/metrics` and are connected, or were until their leases ran out.
#[utoipa::path(
    get, path = "/metrics/targets", tag = "operation", security(("bearer" = ["user", "manager"])),
    responses(
        (status = 200, description = "In the form of `http_sd_configs`", body = Vec<ScrapeTarget>),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn targets(
    _: ObserverCaller,
    State(state): State<ApiState>,
) -> Result<Json<Vec<ScrapeTarget>>, Failure> {
    let managers = state.coordinator().managers().await?;
    let serving = managers
        .into_iter()
        .filter(|manager| manager.live || manager.connected);
    Ok(Json(serving.filter_map(target).collect()))
}

fn target(manager: ManagerSummary) -> Option<ScrapeTarget> {
    let labels = [
        ("mitosis_manager", manager.uuid.to_string()),
        ("mitosis_host", manager.host),
    ];
    Some(ScrapeTarget {
        targets: vec![manager.metrics?],
        labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
    })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", responses((status = 200, body = Object)))]
async fn document() -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let document = crate::coordinator::openapi::document();
        document
            .to_pretty_json()
            .expect("the document is plain data")
    });
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}
