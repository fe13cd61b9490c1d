//! Reading bodies, queries and paths, with every mistake answered in words.
//!
//! What people write ([`Body`] with fields, [`Query`]) is refused when it has an unknown field: a misspelt limit that
//! is ignored is worse than an error. What workers send is read leniently ([`WorkerQuery`], bodies without fields), so
//! that a newer worker may say more than this version knows.

use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::failure::Failure;
use super::state::ApiState;
use crate::protocol::api::{
    CancelMatchingRequest, CancelRequest, HeartbeatBody, IssueTokenRequest, ModeRequest,
    RegisterWorkerRequest, ReportTaskBody, RetryRequest, SubmitRequest, WaitRequest,
};
use crate::protocol::report::MAX_FOLLOW_UP_BYTES;
use crate::protocol::strict::{Fields, nearest};
use crate::protocol::tuning::TuneOrder;

/// Longest body of a submit: some 200,000 ordinary tasks.
const SUBMIT_BYTES: usize = 32 << 20;
/// Longest body of a report: two tails and a message with room to spare, and follow-ups, also when every byte is escaped.
const REPORT_BYTES: usize = (256 << 10) + 6 * MAX_FOLLOW_UP_BYTES;
/// Longest body of everything else.
const SMALL_BYTES: usize = 64 << 10;
/// Bodies above this are parsed off the runtime's threads.
const INLINE_BYTES: usize = 128 << 10;
/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A type that a call takes as its body.
pub(super) trait RequestBody: DeserializeOwned + Send + 'static {
    /// Longest body in bytes.
    const LIMIT: usize = SMALL_BYTES;

    /// The fields that are known, where unknown ones are refused.
    fn fields() -> Option<&'static Fields> {
        None
    }

    /// What no body at all means, where that is allowed.
    fn when_empty() -> Option<Self> {
        None
    }
}

fn fields_of<T: ToSchema>() -> Fields {
    Fields::of::<T>()
}

impl RequestBody for SubmitRequest {
    const LIMIT: usize = SUBMIT_BYTES;

    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<SubmitRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for CancelRequest {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<CancelRequest>);
        Some(&FIELDS)
    }

    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

impl RequestBody for CancelMatchingRequest {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<CancelMatchingRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for RetryRequest {
    const LIMIT: usize = SUBMIT_BYTES;

    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<RetryRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for WaitRequest {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<WaitRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for IssueTokenRequest {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<IssueTokenRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for ModeRequest {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<ModeRequest>);
        Some(&FIELDS)
    }
}

impl RequestBody for TuneOrder {
    fn fields() -> Option<&'static Fields> {
        static FIELDS: LazyLock<Fields> = LazyLock::new(fields_of::<TuneOrder>);
        Some(&FIELDS)
    }
}

impl RequestBody for RegisterWorkerRequest {}

impl RequestBody for HeartbeatBody {}

impl RequestBody for ReportTaskBody {
    const LIMIT: usize = REPORT_BYTES;
}

/// A JSON body. The content type is not looked at: the token already proves that the caller means it.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: RequestBody> FromRequest<ApiState> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &ApiState) -> Result<Self, Failure> {
        let reading = axum::body::to_bytes(request.into_body(), T::LIMIT);
        let bytes = tokio::time::timeout(ARRIVAL, reading)
            .await
            .map_err(|_| Failure::body_timeout())?
            .map_err(|error| unread(&error, T::LIMIT))?;
        if bytes.is_empty()
            && let Some(body) = T::when_empty()
        {
            return Ok(Self(body));
        }
        if bytes.len() <= INLINE_BYTES {
            return parse(&bytes).map(Self);
        }
        tokio::task::spawn_blocking(move || parse(&bytes))
            .await
            .unwrap_or_else(|_| Err(Failure::internal()))
            .map(Self)
    }
}

fn unread(error: &axum::Error, limit: usize) -> Failure {
    let mut causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |cause| {
            cause.source()
        });
    if causes.any(|cause| cause.to_string() == "length limit exceeded") {
        Failure::too_large(limit)
    } else {
        Failure::bad_request("the body broke off; send the request again")
    }
}

fn parse<T: RequestBody>(bytes: &[u8]) -> Result<T, Failure> {
    let Some(fields) = T::fields() else {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        return serde_path_to_error::deserialize(&mut json).map_err(|error| misread(&error));
    };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))?;
    if let Some(unknown) = fields.unknown(&value) {
        return Err(Failure::bad_task(format!("{unknown}")));
    }
    serde_path_to_error::deserialize(value).map_err(|error| misread(&error))
}

fn misread(error: &serde_path_to_error::Error<serde_json::Error>) -> Failure {
    let path = error.path().to_string();
    let place = if path == "." {
        String::new()
    } else {
        format!(" at `{path}`")
    };
    let what = error.inner();
    Failure::bad_request(format!(
        "the body cannot be used{place}: {what}; GET /api/v1/openapi.json describes it"
    ))
}

/// A query string with known parameters only.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T> FromRequestParts<ApiState> for Query<T>
where
    T: DeserializeOwned + IntoParams + Send,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, Failure> {
        let known: Vec<String> = T::into_params(|| None)
            .into_iter()
            .map(|parameter| parameter.name)
            .collect();
        let given = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let given = given.map_err(|error| Failure::bad_query(error.body_text()))?;
        for (name, _) in &given.0 {
            if !known.contains(name) {
                return Err(Failure::bad_query(unknown_parameter(name, &known)));
            }
        }
        read_query(parts).map(Self)
    }
}

fn unknown_parameter(name: &str, known: &[String]) -> String {
    match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("there is no parameter `{name}`; did you mean `{meant}`?"),
        None => format!(
            "there is no parameter `{name}`; there are {}",
            known.join(", ")
        ),
    }
}

/// A query string of a worker.
#[derive(Debug)]
pub(super) struct WorkerQuery<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for WorkerQuery<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, Failure> {
        read_query(parts).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Failure> {
    axum::extract::Query::<T>::try_from_uri(&parts.uri)
        .map(|query| query.0)
        .map_err(|error| Failure::bad_query(error.body_text()))
}

/// The uuid in a path.
#[derive(Debug)]
pub(super) struct PathUuid(pub(super) Uuid);

impl FromRequestParts<ApiState> for PathUuid {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Ok(Path(text)) = text else {
            return Err(Failure::bad_request("the path has no uuid in it"));
        };
        text.parse().map(Self).map_err(|_| {
            let text = text.escape_debug();
            Failure::bad_request(format!(
                "`{text}` is no uuid; give the whole uuid that the submit or the list shows"
            ))
        })
    }
}
