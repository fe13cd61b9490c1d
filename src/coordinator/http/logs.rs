//! `/tasks/{uuid}/logs`: the output of an ended task.
//!
//! The whole kept output where its file lies below this coordinator's own output directory or was uploaded as an
//! artifact, the tail otherwise. The
//! file's name comes from a worker's report and is not trusted: it is resolved by the kernel below the output
//! directory, through no symbolic link ([`open_below`]), and only regular files are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::UserCaller;
use super::failure::Failure;
use super::input::{PathUuid, Query};
use super::state::ApiState;
use crate::file_stream;
use crate::protocol::ArtifactKind;
use crate::protocol::api::{ErrorBody, TOTAL_HEADER, TRUNCATED_HEADER};
use crate::protocol::report::Output;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Which stream to show.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which stream to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// `stdout` (default) or `stderr`.
    #[serde(default)]
    #[param(inline)]
    stream: Stream,
}

/// Read what an ended task wrote, as raw bytes. `x-mitosis-truncated` says whether some are missing.
#[utoipa::path(
    get, path = "/tasks/{uuid}/logs", tag = "tasks", security(("bearer" = ["user"])),
    params(("uuid" = uuid::Uuid, Path, description = "The task"), LogsQuery),
    responses(
        (status = 200, content_type = "application/octet-stream", headers(
            ("x-mitosis-truncated" = bool, description = "Whether bytes are missing"),
            ("x-mitosis-total-bytes" = u64, description = "Bytes the task wrote")
        )),
        (status = "default", description = "Refused; `not_ended` while the task has not ended", body = ErrorBody)
    )
)]
async fn logs(
    _: UserCaller,
    State(state): State<ApiState>,
    PathUuid(uuid): PathUuid,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Failure> {
    let task = state.coordinator().task(uuid).await?;
    let Some(result) = task.result else {
        return Err(Failure::not_ended(format!(
            "task {uuid} is {}; its output can be read when it has ended",
            task.summary.state
        )));
    };
    let (output, kind) = match query.stream {
        Stream::Stdout => (result.stdout, ArtifactKind::Stdout),
        Stream::Stderr => (result.stderr, ArtifactKind::Stderr),
    };
    let is_uploaded = task
        .artifacts
        .iter()
        .any(|stored| stored.artifact.kind == kind);
    let total = output.bytes;
    let kept = kept_file(&state, &output).await;
    let (body, is_whole) = match kept {
        Some(file) => {
            let chunks = file_stream::chunks(tokio::fs::File::from_std(file));
            (Body::from_stream(chunks), !output.truncated)
        }
        None if is_uploaded => {
            let (_, content) = state.coordinator().artifact_content(uuid, kind).await?;
            (Body::from_stream(content), !output.truncated)
        }
        None => {
            let is_whole = output.tail_is_whole();
            (Body::from(output.tail), is_whole)
        }
    };
    let truncated = if is_whole { "false" } else { "true" };
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            HeaderName::from_static(TRUNCATED_HEADER),
            HeaderValue::from_static(truncated),
        ),
        (
            HeaderName::from_static(TOTAL_HEADER),
            HeaderValue::from(total),
        ),
    ];
    Ok((headers, body).into_response())
}

/// The file that keeps the output, when there is one and it may be read.
async fn kept_file(state: &ApiState, output: &Output) -> Option<File> {
    let root = state.options().output_dir.clone()?;
    let path = output.file.clone()?;
    let opened = tokio::task::spawn_blocking(move || open_below(&root, Path::new(&path))).await;
    match opened.ok()? {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::debug!(%error, "kept output cannot be read; the tail is shown");
            None
        }
    }
}

/// Opens a regular file below `root` and nothing else, whatever `path` says.
fn open_below(root: &Path, path: &Path) -> io::Result<File> {
    let relative = match path.strip_prefix(root) {
        Ok(relative) => relative,
        Err(_) if path.is_relative() => path,
        Err(_) => return Err(io::ErrorKind::PermissionDenied.into()),
    };
    let is_plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_plain {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let directory = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(root)?;
    // The kernel follows no link and leaves the directory on no way, also when somebody changes it meanwhile.
    // Non-blocking, so that a pipe in the file's place cannot hold a thread.
    let file = rustix::fs::openat2(
        &directory,
        relative,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_regular_files_below_the_output_directory_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("output");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/kept"), "kept").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();

        let mut text = String::new();
        let mut file = open_below(&root, &root.join("a/kept")).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        assert!(open_below(&root, Path::new("a/kept")).is_ok());
        for path in [
            root.join("link"),
            root.join("up/secret"),
            root.join("../secret"),
            root.join("a/../../secret"),
            root.join("a"),
            dir.path().join("secret"),
            "/etc/passwd".into(),
            "../secret".into(),
            "".into(),
        ] {
            assert!(open_below(&root, &path).is_err(), "{}", path.display());
        }
    }
}
