//! Brings the inputs of a task into its resource directory: several at a time, each with limits of size and time.
//!
//! Every failure is final for the attempt and says which input and why, except that a web server's passing faults are
//! tried again within the input's time. Dropping the future ends all transfers; what has arrived by then is wiped with
//! the directory. The directory is empty and belongs to this task alone.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use reqwest::StatusCode;
use ring::digest::{Context, SHA256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::http;
use crate::file_stream;
use crate::protocol::byte_text::to_os;
use crate::protocol::input::{Input, MAX_INPUT_BYTES, Source, shown_url};
use crate::protocol::signed_url::{absolute, hex};
use crate::worker::backoff::Jitter;

/// Inputs of one task that arrive at the same time.
const AT_ONCE: usize = 4;
/// Attempts at a web server that does not answer well.
const ATTEMPTS: u32 = 4;

/// Why a task has not what it needs; the text completes "the task is not started: …".
#[derive(Debug, thiserror::Error)]
#[error("input `{path}` from {url}: {reason}")]
pub struct InputMissing {
    path: String,
    url: String,
    reason: String,
}

/// Where inputs go, and where those of the coordinator come from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The resource directory.
    pub dir: &'a Path,
    /// The coordinator's URL.
    pub coordinator: Option<&'a str>,
    /// Addresses of inputs that are artifacts, by their `url`.
    pub links: &'a BTreeMap<String, String>,
}

/// What went wrong with one attempt.
enum Failed {
    Again(String),
    ForGood(String),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::ForGood(error.to_string())
    }
}

/// Brings all inputs, or says which is missing.
///
/// # Errors
/// The first that failed; the others are given up.
pub async fn fetch(inputs: &[Input], place: Place<'_>) -> Result<(), InputMissing> {
    let fetching: Vec<_> = inputs
        .iter()
        .map(|input| in_time(input, place).boxed())
        .collect();
    stream::iter(fetching)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn in_time(input: &Input, place: Place<'_>) -> Result<(), InputMissing> {
    let reason = match tokio::time::timeout(input.timeout(), one(input, place)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(reason)) => reason,
        Err(_) => format!("it did not arrive within {:?}", input.timeout()),
    };
    Err(InputMissing {
        path: input.path.clone(),
        // What stands behind `?` may be a signature.
        url: shown_url(&input.url),
        reason,
    })
}

async fn one(input: &Input, place: Place<'_>) -> Result<(), String> {
    let target = place.dir.join(&*to_os(&input.path));
    let mut jitter = Jitter::new();
    let mut failures = 0;
    loop {
        let reason = match attempt(input, place, &target).await {
            Ok(()) => return Ok(()),
            Err(Failed::ForGood(reason)) => return Err(reason),
            Err(Failed::Again(reason)) => reason,
        };
        failures += 1;
        if failures == ATTEMPTS {
            return Err(format!("{reason}, {failures} times"));
        }
        tokio::time::sleep(jitter.pause(failures + 2)).await;
    }
}

async fn attempt(input: &Input, place: Place<'_>, target: &Path) -> Result<(), Failed> {
    match input.source() {
        Some(Source::File(path)) => {
            let text = path.to_str().unwrap_or_default();
            let path = PathBuf::from(to_os(text).into_owned());
            let opened = tokio::task::spawn_blocking(move || regular_file(&path)).await;
            let file = opened.map_err(std::io::Error::other)??;
            take(input, target, file_stream::chunks(File::from_std(file))).await
        }
        Some(Source::Web(url)) => web(input, target, url).await,
        Some(Source::Artifact(_)) => {
            let link = place.links.get(&input.url).ok_or_else(|| {
                Failed::ForGood("the coordinator gave no address for it".to_owned())
            })?;
            let coordinator = place.coordinator.unwrap_or_default();
            web(input, target, &absolute(coordinator, link)).await
        }
        None => Err(Failed::ForGood("its `url` makes no sense".to_owned())),
    }
}

fn regular_file(path: &Path) -> std::io::Result<std::fs::File> {
    // Opening a named pipe would wait for a writer.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("it is no regular file"))
    }
}

async fn web(input: &Input, target: &Path, url: &str) -> Result<(), Failed> {
    let client = http::client(url).map_err(|error| Failed::ForGood(http::words(error)))?;
    let response = client.get(url).send().await.map_err(broken)?;
    let status = response.status();
    if !status.is_success() {
        let reason = format!("the server answered {status}");
        let is_passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
            );
        return Err(if is_passing {
            Failed::Again(reason)
        } else {
            Failed::ForGood(reason)
        });
    }
    take(input, target, response.bytes_stream().map_err(broken)).await
}

fn broken(error: reqwest::Error) -> Failed {
    let is_passing = !(error.is_builder() || error.is_redirect());
    let words = http::words(error);
    if is_passing {
        Failed::Again(words)
    } else {
        Failed::ForGood(words)
    }
}

/// Writes a stream into the target and holds it against what the input promises.
async fn take<E: Into<Failed>>(
    input: &Input,
    target: &Path,
    chunks: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), Failed> {
    let limit = input.size_bytes.unwrap_or(MAX_INPUT_BYTES);
    let mut file = create(target.to_owned()).await?;
    let mut chunks = std::pin::pin!(chunks);
    let (mut size, mut digest) = (0u64, Context::new(&SHA256));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Into::into)?;
        size += chunk.len() as u64;
        if size > limit {
            return Err(Failed::ForGood(format!("it is larger than {limit} bytes")));
        }
        digest.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    if let Some(expected) = input.size_bytes
        && size != expected
    {
        let reason = format!("it has {size} bytes, not {expected}");
        return Err(Failed::ForGood(reason));
    }
    let found = hex(digest.finish().as_ref());
    match &input.sha256 {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(Failed::ForGood(format!(
            "its SHA-256 is {found}, not {expected}"
        ))),
        _ => Ok(()),
    }
}

/// An empty file in place of what an earlier attempt left, with the directories above it.
async fn create(target: PathBuf) -> Result<File, Failed> {
    let made = tokio::task::spawn_blocking(move || {
        if let Some(parent) = target.parent() {
            let mut private = std::fs::DirBuilder::new();
            private.recursive(true).mode(0o700).create(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(target)
    });
    Ok(File::from_std(made.await.map_err(std::io::Error::other)??))
}

#[cfg(test)]
mod tests;
