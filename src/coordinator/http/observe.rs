//! Counts and times requests by matched route, and turns a handler's panic into an answer.
//!
//! Labels are routes of the document and classes of status, so the number of series is fixed. Headers, bodies and
//! query strings are not logged.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use metrics::{counter, histogram};
use utoipa::openapi::OpenApi;

use super::failure::Failure;
use crate::guard::tolerated;
use crate::telemetry::labels::STATUS_CLASSES;
use crate::telemetry::names;

/// The label of requests that match no route.
const NO_ROUTE: &str = "none";
/// Routes that park a request; their time is not how long an answer takes.
const LONG_POLLS: [&str; 7] = [
    "/api/v1/workers/fetch-task",
    "/api/v1/workers/control",
    "/api/v1/tasks/{uuid}/wait",
    "/api/v1/tasks/{uuid}/logs",
    "/api/v1/suites/{uuid}/wait",
    "/api/v1/tasks/wait",
    "/api/v1/session",
];

/// Registers every series, so that each starts at 0.
pub(super) fn start_at_zero(document: &OpenApi) {
    let routes = document.paths.paths.keys().map(String::as_str);
    for route in routes.chain([NO_ROUTE]) {
        for class in ["2xx", "4xx", "5xx"] {
            let count = counter!(names::COORDINATOR_HTTP_REQUESTS, "route" => route.to_owned(), "status" => class);
            count.increment(0);
        }
        if !LONG_POLLS.contains(&route) {
            let _ = histogram!(names::COORDINATOR_HTTP, "group" => group(route).to_owned());
        }
    }
}

/// The first word of a route: few enough for a histogram each.
#[must_use]
pub fn group(route: &str) -> &str {
    let path = route.strip_prefix("/api/v1").unwrap_or(route);
    path.split('/')
        .find(|word| !word.is_empty())
        .unwrap_or(NO_ROUTE)
}

/// The outermost layer.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let answered = AssertUnwindSafe(tolerated(next.run(request)))
        .catch_unwind()
        .await;
    let response = answered.unwrap_or_else(|_| {
        // The panic hook has logged the place and the message.
        tracing::error!(%method, route, "a handler panicked");
        Failure::internal().into_response()
    });
    let elapsed = begun.elapsed();
    let status = response.status();
    tracing::debug!(%method, route, status = status.as_u16(), ?elapsed, "answered");
    if !LONG_POLLS.contains(&route.as_str()) {
        histogram!(names::COORDINATOR_HTTP, "group" => group(&route).to_owned())
            .record(elapsed.as_secs_f64());
    }
    let class = STATUS_CLASSES[usize::from(status.as_u16() / 100).clamp(1, 5) - 1];
    counter!(names::COORDINATOR_HTTP_REQUESTS, "route" => route, "status" => class).increment(1);
    response
}
