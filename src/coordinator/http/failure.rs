//! Error answers: status, stable code, and a sentence that says what to do next. No other file makes one.
//!
//! | code | status | | code | status |
//! |---|---|---|---|---|
//! | `unauthorized` | 401 | | `too_large` | 413 |
//! | `forbidden` | 403 | | `bad_request`, `bad_query`, `bad_task`, `unfit`, `no_such_worker` | 400 |
//! | `not_found`, `no_such_route` | 404 | | `no_such_method` | 405 |
//! | `not_ended`, `replaced` | 409 | | `store`, `internal` | 500 |
//! | `worker_gone` | 410 | | `busy`, `stopping`, `not_ready`, `manager_away`, `manager_silent` | 503 |
//! | `bad_signature`, `expired` | 403 | | `superseded` | 409 |
//! | `bad_artifact` | 400 | | `body_timeout` | 408 |
//! | `no_room` | 507 | | `not_followed` | 409 |
//! | `too_many_followers` | 429 | | `took_too_long` | 400 |

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::coordinator::CoordinatorError;
use crate::error_chain::error_chain;
use crate::protocol::api::{ApiError, ErrorBody};
use crate::protocol::signed_url::Refusal;

/// Seconds after which a passing fault is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error answer.
#[derive(Debug)]
pub(in crate::coordinator) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// No token, or none that is valid. Always the same words: why a token is not valid is nobody's business.
    pub(super) fn unauthorized() -> Self {
        let message = "a valid token is needed; send `Authorization: Bearer <token>` with one made by `mitosis token` \
                       or found in the endpoint file of a running coordinator";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// A valid token of another scope.
    pub(super) fn forbidden() -> Self {
        let message = "this token's scope does not allow the call; make a token of the scope that the API document \
                       names for it";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// An address that is not signed for what it is used for, or whose time is over.
    pub(super) fn address(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Signature => "bad_signature",
            Refusal::Expired => "expired",
        };
        Self::new(StatusCode::FORBIDDEN, code, refusal.to_string())
    }

    /// A body, path or header that makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// A query parameter that makes no sense.
    pub(super) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    /// A field that nobody reads.
    pub(super) fn bad_task(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_task", message)
    }

    /// A body beyond its limit.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!(
            "the body is longer than {limit} bytes; split the tasks over several calls that name the same suite"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// A body that did not arrive.
    pub(super) fn body_timeout() -> Self {
        let message = "the body did not arrive in time; send the request again";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    }

    /// A thing that is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Something that has not happened yet.
    pub(super) fn not_ended(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "not_ended", message)
    }

    /// The store does not answer.
    pub(super) fn not_ready() -> Self {
        let message = "the coordinator's store does not answer, or cannot be written; see the coordinator's log, and whether its disk is full";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message)
    }

    /// The server stops.
    pub(super) fn stopping() -> Self {
        let message = "the coordinator is stopping; try again when it is back";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// A handler panicked or a file could not be read; the log has the cause.
    pub(super) fn internal() -> Self {
        let message = "the coordinator failed in a way it should not; see its log and report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        let status = match error.code() {
            "not_found" | "no_attempt" => StatusCode::NOT_FOUND,
            "not_ended" | "not_followed" | "part_missing" | "replaced" | "superseded" => {
                StatusCode::CONFLICT
            }
            "too_many_followers" => StatusCode::TOO_MANY_REQUESTS,
            "worker_gone" => StatusCode::GONE,
            "bad_task" | "unfit" | "bad_query" | "bad_artifact" | "no_such_worker"
            | "took_too_long" => StatusCode::BAD_REQUEST,
            "body_timeout" => StatusCode::REQUEST_TIMEOUT,
            "no_room" => StatusCode::INSUFFICIENT_STORAGE,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "manager_away" | "manager_silent" => StatusCode::SERVICE_UNAVAILABLE,
            "stopping" => return Self::stopping(),
            _ => return store_failure(&error),
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// A failure of the store. Callers are told whether to try again; the cause is for the log.
fn store_failure(error: &CoordinatorError) -> Failure {
    let chain = error_chain(error);
    if error.is_retryable() {
        tracing::warn!(error = chain, "a call failed for a passing reason");
        let message = format!("{error} for now; try again in a moment");
        return Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
    }
    tracing::error!(error = chain, "a call failed");
    let message = format!("{error}; see the coordinator's log");
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "store", message)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ApiError {
                code: self.code.to_owned(),
                message: self.message,
            },
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"mitosis\""),
            );
        }
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// Answers a path that nothing serves.
pub(super) async fn no_such_route() -> Failure {
    let message = "there is nothing under this path; GET /api/v1/openapi.json lists what there is";
    Failure::new(StatusCode::NOT_FOUND, "no_such_route", message)
}

/// Answers a method that a path does not have.
pub(super) async fn no_such_method() -> Failure {
    let message = "this path has no such method; GET /api/v1/openapi.json lists what there is";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::StoreError;
    use uuid::Uuid;

    #[track_caller]
    fn check(error: CoordinatorError, status: u16, code: &str) {
        let failure = Failure::from(error);
        assert_eq!((failure.status.as_u16(), failure.code), (status, code));
    }

    fn backend(retryable: bool) -> CoordinatorError {
        StoreError::Backend {
            operation: "commit reports",
            retryable,
            source: std::sync::Arc::new(std::io::Error::other("/secret/path is full")),
        }
        .into()
    }

    #[test]
    fn each_refusal_of_the_core_has_its_status() {
        let uuid = Uuid::nil();
        let not_found = StoreError::NotFound { what: "task", uuid };
        check(not_found.into(), 404, "not_found");
        let lack = crate::protocol::capacity::Lack {
            wanted: "2 GPUs".to_owned(),
            there: "0".to_owned(),
        };
        check(CoordinatorError::Unfit { index: 0, lack }, 400, "unfit");
        check(StoreError::NotEnded(uuid).into(), 409, "not_ended");
        check(CoordinatorError::WorkerGone(uuid), 410, "worker_gone");
        let beyond = CoordinatorError::NoSuchWorker {
            worker: 9,
            slots: 2,
        };
        check(beyond, 400, "no_such_worker");
        check(CoordinatorError::ManagerAway(uuid), 503, "manager_away");
        check(CoordinatorError::ManagerSilent(uuid), 503, "manager_silent");
        let worker = uuid;
        let not_followed = CoordinatorError::NotFollowed { task: uuid, worker };
        check(not_followed, 409, "not_followed");
        let many = CoordinatorError::TooManyFollowers { limit: 1 };
        check(many, 429, "too_many_followers");
        check(CoordinatorError::NothingSubmitted, 400, "bad_task");
        check(CoordinatorError::Stopping, 503, "stopping");
        check(backend(true), 503, "busy");
        check(backend(false), 500, "store");
    }

    #[test]
    fn the_cause_of_a_store_failure_is_not_told_to_callers() {
        for retryable in [true, false] {
            let failure = Failure::from(backend(retryable));
            assert!(!failure.message.contains("/secret"), "{}", failure.message);
        }
    }
}
