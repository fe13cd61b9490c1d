//! Carries packed artifacts to the coordinator, once the report that names them was answered with an address.
//!
//! A passing fault (5xx, 408, 429) is tried again with growing pauses for as long as [`GIVE_UP`]; a coordinator that is away
//! is waited for, as reports are; a refusal (a newer holder has the task, the address has expired, too large) is final.
//! At the end the packed file is removed. The result of the task is durable already and never waits; what waits meanwhile
//! takes room on the slot's disk, and nothing else.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, StatusCode};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::http;
use super::outgoing::{Left, Outgoing};
use crate::file_stream;
use crate::protocol::TaskReport;
use crate::protocol::artifact::{Artifact, DIGEST_HEADER};
use crate::protocol::signed_url::upload_address;
use crate::worker::backoff::Jitter;

/// How long an artifact is tried.
const GIVE_UP: Duration = Duration::from_secs(600);
/// Uploads of one worker at the same time; the others wait for their turn.
const AT_ONCE: usize = 4;
/// Room on the slot's disk with which further artifacts may wait there: so many bytes, or this part of its size.
const ROOM_BYTES: u64 = 1 << 30;
const ROOM_PART: u64 = 10;
/// How long one attempt may take, and the slowest rate that is waited for beyond that.
const ATTEMPT: Duration = Duration::from_secs(60);
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// Brings what tasks left to where it is kept.
#[async_trait]
pub trait ArtifactSender: Send + Sync + fmt::Debug {
    /// Brings the artifacts that a final report names to `url`, as the answer to the report gave it, or throws them
    /// away when it gave none. Returns when nothing is left to do. Dropping the future leaves the files to the slot's
    /// next life.
    async fn deliver(&self, report: &TaskReport, url: Option<&str>);

    /// False while the disk has no room for more that waits.
    fn has_room(&self) -> bool {
        true
    }
}

/// Uploads over HTTP.
#[derive(Debug)]
pub struct Uploader {
    outgoing: Outgoing,
    coordinator: Option<String>,
    turns: Semaphore,
    jitter: Mutex<Jitter>,
}

/// Why an attempt failed.
enum Failed {
    /// Nobody is there.
    Away(String),
    Again(String),
    ForGood(String),
}

impl Uploader {
    /// An uploader of the files in `outgoing`, to the coordinator at this URL.
    #[must_use]
    pub fn new(outgoing: Outgoing, coordinator: Option<String>) -> Self {
        Self {
            outgoing,
            coordinator,
            turns: Semaphore::new(AT_ONCE),
            jitter: Mutex::new(Jitter::new()),
        }
    }

    async fn upload(&self, artifact: &Artifact, file: &Path, address: &str) -> Result<(), String> {
        let mut give_up = Instant::now() + GIVE_UP;
        let mut failures = 0;
        loop {
            // It is never closed.
            let turn = self.turns.acquire().await;
            let attempted = attempt(artifact, file, address).await;
            drop(turn);
            let reason = match attempted {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(reason)) => return Err(reason),
                Err(Failed::Again(reason)) => reason,
                Err(Failed::Away(reason)) => {
                    give_up = Instant::now() + GIVE_UP;
                    reason
                }
            };
            failures += 1;
            let pause = self.pause(failures);
            if Instant::now() + pause >= give_up {
                return Err(format!("{reason}, {failures} times"));
            }
            if failures == 1 {
                warn!(kind = %artifact.kind, %reason, "an artifact was not taken; trying again");
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        // Held for a few arithmetic operations, never across an await.
        let mut jitter = self
            .jitter
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        jitter.pause(failures)
    }
}

#[async_trait]
impl ArtifactSender for Uploader {
    async fn deliver(&self, report: &TaskReport, url: Option<&str>) {
        let Some((_, result)) = report.op.result() else {
            return;
        };
        let left = Left {
            task_id: report.task_id,
            lease: report.lease,
            try_no: report.try_no,
        };
        let coordinator = self.coordinator.as_deref().unwrap_or_default();
        for artifact in &result.artifacts {
            let (kind, uuid) = (artifact.kind, report.task_uuid);
            let file = self.outgoing.path(left, kind);
            if let Some(url) = url {
                let address = upload_address(coordinator, url, kind);
                match self.upload(artifact, &file, &address).await {
                    Ok(()) => {
                        info!(task = report.task_id, %uuid, %kind, bytes = artifact.size_bytes, "artifact stored");
                    }
                    Err(reason) => {
                        warn!(task = report.task_id, %uuid, %kind, %reason, "artifact lost");
                    }
                }
            }
            if let Err(error) = tokio::fs::remove_file(&file).await {
                warn!(file = %file.display(), %error, "a packed artifact cannot be removed");
            }
        }
    }

    fn has_room(&self) -> bool {
        // A disk that does not tell is taken to have some: what cannot be packed is told in its result.
        let Ok(figures) = rustix::fs::statvfs(self.outgoing.dir()) else {
            return true;
        };
        let free = figures.f_bavail.saturating_mul(figures.f_frsize);
        let size = figures.f_blocks.saturating_mul(figures.f_frsize);
        free >= ROOM_BYTES || free >= size / ROOM_PART
    }
}

async fn attempt(artifact: &Artifact, path: &Path, address: &str) -> Result<(), Failed> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Failed::ForGood(format!("the packed file cannot be read: {error}")))?;
    let client = http::client(address).map_err(|error| Failed::ForGood(http::words(error)))?;
    let limit = ATTEMPT + Duration::from_secs(artifact.size_bytes / SLOWEST_BYTES_PER_SECOND);
    let sent = client
        .put(address)
        .timeout(limit)
        .header(CONTENT_LENGTH, artifact.size_bytes)
        .header(DIGEST_HEADER, &artifact.sha256)
        .body(Body::wrap_stream(file_stream::chunks(file)))
        .send();
    let response = sent.await.map_err(|error| {
        let kind = match (error.is_builder(), error.is_connect()) {
            (true, _) => Failed::ForGood,
            (_, true) => Failed::Away,
            _ => Failed::Again,
        };
        kind(http::words(error))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.text().await.unwrap_or_default();
    let reason = format!("the coordinator answered {status}: {}", body.trim());
    let is_passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
    Err(if is_passing {
        Failed::Again(reason)
    } else {
        Failed::ForGood(reason)
    })
}
