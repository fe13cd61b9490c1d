//! `/tasks/{uuid}/logs`: the output of a task: what is kept of an ended one, or the next part of one that may run.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::{PathUuid, Query};
use super::state::ApiState;
use super::tasks::LONGEST_WAIT;
use crate::coordinator::{Follow, Followed};
use crate::protocol::api::{
    ATTEMPT_HEADER, ErrorBody, GAP_HEADER, OFFSET_HEADER, PROGRESS_HEADER, TOTAL_HEADER,
    TRUNCATED_HEADER, TaskDetail,
};
use crate::protocol::output::Progress;
use crate::protocol::{HumanDuration, LogStream};
use kept::Kept;

mod kept;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Which stream to show, and where to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// `stdout` (default) or `stderr`.
    #[serde(default)]
    #[param(inline)]
    stream: LogStream,
    /// Ask for the part that begins with this byte of what the task writes, from 0, also while it runs.
    offset: Option<u64>,
    /// With `offset`: the execution that the offset is about, as the last answer named it; none at first. When another one
    /// runs by now, its beginning is sent. Without `offset`: show all that is kept of this attempt, from 1.
    attempt: Option<u32>,
    /// With `offset`: longest wait for something new, e.g. `30s`; none when absent, a minute at most.
    #[param(value_type = Option<String>)]
    wait: Option<HumanDuration>,
}

impl LogsQuery {
    /// The part that is asked for, if one is.
    fn follow(&self) -> Result<Option<Follow>, Failure> {
        match self.offset {
            Some(offset) => Ok(Some(Follow {
                stream: self.stream,
                attempt: self.attempt.unwrap_or(0),
                offset,
                wait: self
                    .wait
                    .map_or_else(Default::default, |wait| wait.min(LONGEST_WAIT).0),
            })),
            None if self.wait.is_some() => Err(Failure::bad_query(
                "`wait` is about a part; say where it begins with `offset`",
            )),
            None => Ok(None),
        }
    }
}

/// Read what a task wrote, as raw bytes.
///
/// Without `offset`: all that is kept of an ended task, or of one `attempt` that failed. `x-mitosis-truncated` says whether some are missing, and
/// `x-mitosis-gap` which, where the middle was dropped: the body has the task's bytes alone, and nothing in its place.
///
/// With `offset`: the next part, at once when there is one. `x-mitosis-progress` is `waiting` (not begun, or not begun
/// again), `running`, `away` (its manager cannot be reached now) or `ended`; after `ended` nothing follows. The body begins at
/// `x-mitosis-offset`: go on at that number plus the length of the body, with `x-mitosis-attempt` as `attempt`. It is
/// greater than `offset` when bytes are gone in between, because the task wrote more than its capture limit. An `attempt`
/// other than the one that was sent means that another execution began.
#[utoipa::path(
    get, path = "/tasks/{uuid}/logs", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task"), LogsQuery),
    responses(
        (status = 200, content_type = "application/octet-stream", headers(
            ("x-mitosis-truncated" = bool, description = "Of an ended task: whether bytes are missing"),
            ("x-mitosis-gap" = String, description = "Of an ended task: the bytes that are not kept, `OFFSET+BYTES`, if any"),
            ("x-mitosis-total-bytes" = u64, description = "Of an ended task: bytes it wrote"),
            ("x-mitosis-progress" = String, description = "Of a part: how the task stands"),
            ("x-mitosis-attempt" = u32, description = "Of a part: the execution that wrote it; 0 when none has begun"),
            ("x-mitosis-offset" = u64, description = "Of a part: where it begins")
        )),
        (status = "default", description = "Refused; without `offset`, `not_ended` while the task has not ended; \
            `not_followed` while it is with an independent worker; `too_many_followers` (429, with Retry-After)",
            body = ErrorBody)
    )
)]
async fn logs(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Failure> {
    if let Some(follow) = query.follow()? {
        return part(&state, uuid, follow).await;
    }
    let task = match query.attempt {
        Some(attempt) => state.coordinator().task_at_attempt(uuid, attempt).await?,
        None => state.coordinator().task(uuid).await?,
    };
    let standing = task.summary.state;
    let Some(kept) = Kept::of(&state, task, query.stream).await? else {
        return Err(Failure::not_ended(format!(
            "task {uuid} is {standing}; its output can be read when it has ended, or part by part with `offset`"
        )));
    };
    let mut headers = raw_bytes();
    describe(&mut headers, &kept);
    Ok((headers, kept.into_body(0).await?).into_response())
}

/// The next part of an output.
async fn part(state: &ApiState, uuid: Uuid, follow: Follow) -> Result<Response, Failure> {
    let followed = state.unless_stopped(state.coordinator().follow(uuid, follow));
    let followed = followed.await.ok_or_else(Failure::stopping)??;
    let nothing = |progress| {
        let headers = place(progress, follow.attempt, follow.offset);
        Ok((headers, Body::empty()).into_response())
    };
    match followed {
        Followed::Waiting => nothing(Progress::Waiting),
        Followed::Away => nothing(Progress::Away),
        Followed::Running(part) => {
            let headers = place(Progress::Running, part.attempt, part.offset);
            Ok((headers, Body::from(part.bytes)).into_response())
        }
        Followed::Ended(task) => ended(state, *task, &follow).await,
    }
}

/// Everything that is left of an ended task's output.
async fn ended(state: &ApiState, task: TaskDetail, follow: &Follow) -> Result<Response, Failure> {
    let attempt = task.summary.attempts;
    let offset = if attempt == follow.attempt {
        follow.offset
    } else {
        0
    };
    let Some(kept) = Kept::of(state, task, follow.stream).await? else {
        // Only tasks with a result have ended.
        return Err(Failure::internal());
    };
    let rest = kept.rest(offset);
    let mut headers = place(Progress::Ended, attempt, rest.offset);
    describe(&mut headers, &kept);
    Ok((headers, kept.into_body(rest.skip).await?).into_response())
}

fn raw_bytes() -> HeaderMap {
    let octets = HeaderValue::from_static("application/octet-stream");
    HeaderMap::from_iter([(CONTENT_TYPE, octets)])
}

/// Headers of a part.
fn place(progress: Progress, attempt: u32, offset: u64) -> HeaderMap {
    let mut headers = raw_bytes();
    let mut put = |name, value| headers.insert(HeaderName::from_static(name), value);
    put(PROGRESS_HEADER, HeaderValue::from_static(progress.as_str()));
    put(ATTEMPT_HEADER, HeaderValue::from(attempt));
    put(OFFSET_HEADER, HeaderValue::from(offset));
    headers
}

/// Headers about the whole output of an ended task.
fn describe(headers: &mut HeaderMap, kept: &Kept) {
    let truncated = if kept.is_cut() { "true" } else { "false" };
    let mut put = |name, value| headers.insert(HeaderName::from_static(name), value);
    put(TRUNCATED_HEADER, HeaderValue::from_static(truncated));
    if let Some(gap) = kept.output.gap
        && let Ok(gap) = HeaderValue::try_from(gap.to_string())
    {
        put(GAP_HEADER, gap);
    }
    put(TOTAL_HEADER, HeaderValue::from(kept.output.bytes));
}
