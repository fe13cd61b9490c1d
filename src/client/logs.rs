//! Reading the output of a task.

use bytes::Bytes;
use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::api::{TOTAL_HEADER, TRUNCATED_HEADER};

/// Which output to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The word used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Output on its way.
#[derive(Debug)]
pub struct Logs {
    /// True when bytes of the output are missing.
    pub truncated: bool,
    /// Bytes the task wrote, if the answer says so.
    pub total_bytes: Option<u64>,
    client: ApiClient,
    response: reqwest::Response,
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

impl ApiClient {
    /// Reads what an ended task wrote.
    ///
    /// # Errors
    /// When refused or not answered; `not_ended` while the task has not ended.
    pub async fn logs(&self, uuid: Uuid, stream: LogStream) -> Result<Logs, ClientError> {
        let call = Call::get(self.api(&format!("/tasks/{uuid}/logs")));
        let response = self.send(call.with("stream", stream.as_str())).await?;
        let header = |name| response.headers().get(name)?.to_str().ok();
        Ok(Logs {
            truncated: header(TRUNCATED_HEADER) == Some("true"),
            total_bytes: header(TOTAL_HEADER).and_then(|text| text.parse().ok()),
            client: self.clone(),
            response,
        })
    }
}
