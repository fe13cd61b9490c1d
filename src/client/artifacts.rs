//! Reading what tasks left.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::ArtifactKind;
use crate::protocol::api::ArtifactLink;
use crate::protocol::signed_url::absolute;

/// How long a download may take, and the slowest rate that is waited for beyond that.
const DOWNLOAD: Duration = Duration::from_secs(60);
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

impl ApiClient {
    /// Asks where an artifact can be read.
    ///
    /// # Errors
    /// When refused or not answered; `not_found` when there is none.
    pub async fn artifact_link(
        &self,
        task: Uuid,
        kind: ArtifactKind,
    ) -> Result<ArtifactLink, ClientError> {
        let path = format!("/tasks/{task}/artifacts/{kind}");
        self.call(Call::get(self.api(&path))).await
    }

    /// Reads an artifact. The address is the permission, so the token stays at home.
    ///
    /// # Errors
    /// When refused or not answered; each chunk when the connection breaks off.
    pub async fn download(
        &self,
        link: &ArtifactLink,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let url = absolute(&self.url(), &link.url);
        let seconds = link.stored.artifact.size_bytes / SLOWEST_BYTES_PER_SECOND;
        let response = self
            .get_public(&url, DOWNLOAD + Duration::from_secs(seconds))
            .await?;
        let client = self.clone();
        let chunks = response.bytes_stream();
        Ok(chunks
            .map(move |chunk| chunk.map_err(|error| client.failed(error)))
            .boxed())
    }
}
