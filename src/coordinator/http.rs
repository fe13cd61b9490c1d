//! The coordinator's HTTP face: JSON under `/api/v1`, the managers' WebSocket, health, metrics, the OpenAPI document.
//!
//! Handlers validate and forward, one resource per file; every rule about tasks is the core's. Every call under
//! `/api/v1` except the document needs a token of a fitting scope ([`access`]). Every error is an
//! [`ErrorBody`](crate::protocol::api::ErrorBody), made in [`failure`] alone.
//!
//! ```text
//!   observe (metrics, panics) -> body limit -> access (401, 403) -> body, query -> handler -> Coordinator
//!                                                                    session -----> websocket -> serve_session
//! ```

mod access;
mod artifacts;
mod connections;
mod failure;
mod health;
mod input;
mod logs;
mod managers;
mod observe;
mod session;
mod state;
mod submissions;
mod suites;
mod tasks;
mod tokens;
mod worker_calls;
mod workers;

mod serve;

#[cfg(test)]
mod tests;

pub use observe::group;
pub use serve::DRAIN;
pub use state::{ApiOptions, MetricsText};

pub(super) use state::ApiState;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::protocol::api::API_ROOT;

/// Every route with its documentation. A route that is added in any other way is not in the document, so nothing is.
pub(super) fn routes() -> (Router<ApiState>, OpenApi) {
    let api = OpenApiRouter::new()
        .merge(tasks::routes())
        .merge(submissions::routes())
        .merge(artifacts::routes())
        .merge(logs::routes())
        .merge(suites::routes())
        .merge(managers::routes())
        .merge(workers::routes())
        .merge(worker_calls::routes())
        .merge(session::routes())
        .merge(tokens::routes())
        .merge(health::api_routes());
    OpenApiRouter::with_openapi(super::openapi::frame())
        .nest(API_ROOT, api)
        .merge(health::routes())
        .split_for_parts()
}

/// The whole face over one coordinator.
pub(super) fn router(state: ApiState) -> Router {
    let (routes, document) = routes();
    observe::start_at_zero(&document);
    let observer = axum::middleware::from_fn(observe::observe);
    routes
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(observer)
        .with_state(state)
}
