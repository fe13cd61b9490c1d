//! Reading the output of a task.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::LogStream;
use crate::protocol::api::{
    ATTEMPT_HEADER, GAP_HEADER, OFFSET_HEADER, PROGRESS_HEADER, TOTAL_HEADER, TRUNCATED_HEADER,
};
use crate::protocol::output::Progress;
use crate::protocol::report::Gap;

/// Output on its way.
#[derive(Debug)]
pub struct Logs {
    /// True when bytes of the output are missing.
    pub truncated: bool,
    /// Bytes the task wrote, if the answer says so.
    pub total_bytes: Option<u64>,
    client: ApiClient,
    response: Response,
}

impl Logs {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| self.client.failed(error))
    }

    /// All bytes that are left.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn read_all(mut self) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// A place in what a task writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// Which stream.
    pub stream: LogStream,
    /// The execution that writes it; 0 for whichever runs.
    pub attempt: u32,
    /// Bytes before the place.
    pub offset: u64,
}

/// A part of what a task writes, on its way.
#[derive(Debug)]
pub struct LogPart {
    /// How the task stands.
    pub progress: Progress,
    /// Where the part begins.
    pub place: LogPlace,
    /// True when the task has ended and bytes are missing from what is kept.
    pub truncated: bool,
    /// Which, where the middle was dropped; the bytes of the part have nothing in its place.
    pub gap: Option<Gap>,
    client: ApiClient,
    response: Response,
}

impl LogPart {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks off, or nothing comes for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.client.in_time(self.response.chunk()).await
    }
}

impl ApiClient {
    /// Reads what an ended task wrote.
    ///
    /// # Errors
    /// When refused or not answered; `not_ended` while the task has not ended.
    pub async fn logs(&self, uuid: Uuid, stream: LogStream) -> Result<Logs, ClientError> {
        self.kept_log(uuid, stream, None).await
    }

    /// Reads what one attempt of a task wrote.
    ///
    /// # Errors
    /// When refused or not answered; `no_attempt` where nothing is kept of it.
    pub async fn attempt_logs(
        &self,
        uuid: Uuid,
        stream: LogStream,
        attempt: u32,
    ) -> Result<Logs, ClientError> {
        self.kept_log(uuid, stream, Some(attempt)).await
    }

    async fn kept_log(
        &self,
        uuid: Uuid,
        stream: LogStream,
        attempt: Option<u32>,
    ) -> Result<Logs, ClientError> {
        let call = Call::get(self.api(&format!("/tasks/{uuid}/logs")))
            .with("stream", stream.as_str())
            .with_some("attempt", attempt);
        let response = self.send(call).await?;
        Ok(Logs {
            truncated: header(&response, TRUNCATED_HEADER) == Some("true"),
            total_bytes: number(&response, TOTAL_HEADER),
            client: self.clone(),
            response,
        })
    }

    /// Reads the next part of what a task writes, and waits for one for at most `wait` and a minute.
    ///
    /// # Errors
    /// When refused or not answered; `not_followed` while an independent worker has the task.
    pub async fn log_part(
        &self,
        uuid: Uuid,
        place: LogPlace,
        wait: Duration,
    ) -> Result<LogPart, ClientError> {
        let call = Call::get(self.api(&format!("/tasks/{uuid}/logs")))
            .with("stream", place.stream.as_str())
            .with("offset", place.offset)
            .with("attempt", place.attempt)
            .waiting("wait", wait)
            .streamed();
        let response = self.send(call).await?;
        let progress = header(&response, PROGRESS_HEADER).and_then(Progress::parse);
        let attempt = number(&response, ATTEMPT_HEADER);
        let offset = number(&response, OFFSET_HEADER);
        let (Some(progress), Some(attempt), Some(offset)) = (progress, attempt, offset) else {
            return Err(self.nonsense(&"the part of a log does not say where it belongs"));
        };
        Ok(LogPart {
            progress,
            place: LogPlace {
                attempt,
                offset,
                ..place
            },
            truncated: header(&response, TRUNCATED_HEADER) == Some("true"),
            gap: header(&response, GAP_HEADER).and_then(Gap::parse),
            client: self.clone(),
            response,
        })
    }
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn number<T: FromStr>(response: &Response, name: &str) -> Option<T> {
    header(response, name)?.parse().ok()
}
