//! What is kept of an ended task's output, read through a service or in a store that nobody serves.

use anyhow::anyhow;
use futures_util::StreamExt;
use uuid::Uuid;

use super::failure::{Failure, OrFail};
use super::reach::{Reach, refused, refused_by_store};
use crate::protocol::api::TaskDetail;
use crate::protocol::{ArtifactKind, LogStream};
use crate::run::output;

impl Reach {
    /// What an ended task wrote, or one attempt of a task.
    pub(super) async fn log(
        &self,
        uuid: Uuid,
        stream: LogStream,
        attempt: Option<u32>,
    ) -> Result<KeptLog, Failure> {
        match self {
            Self::Service(service) => {
                let logs = match attempt {
                    Some(attempt) => service.client().attempt_logs(uuid, stream, attempt).await,
                    None => service.client().logs(uuid, stream).await,
                };
                let logs = logs.map_err(refused)?;
                let (is_cut, total) = (logs.truncated, logs.total_bytes);
                let bytes = logs.read_all().await.map_err(refused)?;
                Ok(KeptLog::of(bytes, is_cut, total))
            }
            Self::Store(coordinator) => {
                let task = match attempt {
                    Some(attempt) => coordinator.task_at_attempt(uuid, attempt).await,
                    None => coordinator.task(uuid).await,
                };
                self.stored_log(task.map_err(refused_by_store)?, stream)
                    .await
            }
        }
    }

    async fn stored_log(&self, task: TaskDetail, stream: LogStream) -> Result<KeptLog, Failure> {
        let uuid = task.summary.uuid;
        let Some(result) = task.result else {
            let state = task.summary.state;
            return Err(Failure::usage(anyhow!(
                "task {uuid} is {state}; its output can be read when it has ended"
            )));
        };
        let (kept, kind) = match stream {
            LogStream::Stdout => (result.stdout, ArtifactKind::Stdout),
            LogStream::Stderr => (result.stderr, ArtifactKind::Stderr),
        };
        let mut bytes = Vec::new();
        let mut stored = task.artifacts.iter();
        if stored.any(|stored| stored.artifact.kind == kind) {
            let mut content = self.artifact(uuid, kind).await?;
            while let Some(chunk) = content.next().await {
                bytes.extend_from_slice(&chunk?);
            }
        } else {
            output::copy(&kept, &mut bytes).or_system()?;
        }
        let is_cut = kept.truncated || bytes.len() as u64 != kept.bytes;
        Ok(KeptLog::of(bytes, is_cut, Some(kept.bytes)))
    }
}

/// What is kept of a stream.
#[derive(Debug)]
pub(super) struct KeptLog {
    pub(super) bytes: Vec<u8>,
    /// Bytes that the task wrote and that are not kept.
    pub(super) missing: u64,
}

impl KeptLog {
    fn of(bytes: Vec<u8>, is_cut: bool, total: Option<u64>) -> Self {
        let kept = bytes.len() as u64;
        let missing = total.filter(|_| is_cut).unwrap_or(kept);
        Self {
            missing: missing.saturating_sub(kept),
            bytes,
        }
    }
}
