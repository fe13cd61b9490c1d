//! One registration of a worker: its name and its token.

use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::HttpWorkerConfig;
use crate::client::{ApiClient, ClientError};
use crate::comm::CommError;
use crate::endpoint::TokenSource;
use crate::private_file::PrivateFileError;
use crate::protocol::api::RegisterWorkerRequest;

/// What a registration gave. Generations tell an old registration from the one that replaced it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) generation: u64,
    pub(super) worker: Uuid,
    pub(super) token: SecretString,
    pub(super) lease: Duration,
    pub(super) heartbeat: Duration,
}

/// Registers under the client's token, as generation 1.
pub(super) async fn register(
    client: &ApiClient,
    config: &HttpWorkerConfig,
    worker_uuid: Option<Uuid>,
) -> Result<Session, ClientError> {
    let request = RegisterWorkerRequest {
        worker_uuid,
        host: config.host.clone(),
        tags: config.tags.clone(),
        labels: config.labels.clone(),
    };
    let answer = client.register_worker(&request).await?;
    Ok(Session {
        generation: 1,
        worker: answer.worker_uuid,
        token: answer.token.into(),
        lease: answer.lease.0,
        heartbeat: answer.heartbeat.0,
    })
}

/// The token to register with.
pub(super) async fn enroll_token(source: &TokenSource) -> Result<SecretString, CommError> {
    source.load().await.map_err(|error| match error {
        // A file that is being exchanged may be missing for a moment.
        PrivateFileError::Io { .. } => CommError::Retryable {
            reason: error.to_string(),
            after: None,
        },
        error => CommError::Refused {
            reason: error.to_string(),
        },
    })
}
