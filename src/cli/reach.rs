//! How a client command reaches tasks: the running service, or, to look only, the store of a state directory.
//!
//! Discovery is [`crate::endpoint`]'s, calls are [`crate::client`]'s; here their failures get their exit codes: what the
//! user has to change is 2, what the system has to answer for is 3.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use futures_util::stream::{BoxStream, StreamExt};
use secrecy::SecretString;
use uuid::Uuid;

use super::failure::{Failure, OrFail};
use crate::client::{ApiClient, ClientError};
use crate::coordinator::store::StoreError;
use crate::coordinator::{Coordinator, CoordinatorConfig, CoordinatorError};
use crate::endpoint::{DiscoverError, Discovery};
use crate::protocol::api::{
    CancelMatchingRequest, CancelMatchingResponse, CancelRequest, CancelResponse, RetryRequest,
    SubmittedTask, TaskDetail, TaskFilter, TaskPage, WaitResponse,
};
use crate::protocol::artifact::StoredArtifact;
use crate::protocol::why::TaskWhy;
use crate::protocol::{ArtifactKind, LogStream};
use crate::run::output::{self, Stream};

/// Variable that names a coordinator.
const COORDINATOR_URL: &str = "MITOSIS_COORDINATOR_URL";
/// Variable that holds a token.
const TOKEN: &str = "MITOSIS_TOKEN";
/// File of the store in a state directory.
const STORE_FILE: &str = "store.db";

/// Where the service is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ReachArgs {
    #[command(flatten)]
    token: ReachCoordinatorArgs,
    /// State directory of a coordinator on this machine, which leaves address and token there [default:
    /// $XDG_STATE_HOME/mitosis].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Which coordinator, and how to be let in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ReachCoordinatorArgs {
    /// Address of the coordinator; its token is taken from MITOSIS_TOKEN or --token-file [env:
    /// MITOSIS_COORDINATOR_URL].
    #[arg(long, value_name = "URL")]
    coordinator_url: Option<String>,
    /// File with a token, readable by its owner alone.
    #[arg(long, value_name = "FILE", env = "MITOSIS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl ReachArgs {
    /// What discovery needs to know. A state directory that was named goes before a variable.
    fn discovery(&self) -> Discovery {
        let mut discovery = self.token.discovery();
        if self.state_dir.is_some() {
            discovery
                .coordinator_url
                .clone_from(&self.token.coordinator_url);
        }
        discovery.state_dir.clone_from(&self.state_dir);
        discovery
    }
}

impl ReachCoordinatorArgs {
    /// What discovery needs to know.
    pub(super) fn discovery(&self) -> Discovery {
        let variable = || {
            std::env::var(COORDINATOR_URL)
                .ok()
                .filter(|url| !url.is_empty())
        };
        Discovery {
            coordinator_url: self.coordinator_url.clone().or_else(variable),
            token: token_of_environment(),
            token_file: self.token_file.clone(),
            state_dir: None,
        }
    }
}

/// The token of the environment.
fn token_of_environment() -> Option<SecretString> {
    let token = std::env::var(TOKEN).ok()?;
    (!token.trim().is_empty()).then(|| token.trim().to_owned().into())
}

/// A way to look at tasks.
#[derive(Debug)]
pub(super) enum Reach {
    /// Through a running service.
    Service(Act),
    /// In a store that nobody serves.
    Store(Box<Coordinator>),
}

/// A way to change something: a running service.
#[derive(Debug)]
pub(super) struct Act(ApiClient);

impl Reach {
    /// A way to look at tasks.
    pub(super) async fn to_read(args: &ReachArgs) -> Result<Self, Failure> {
        let target = match args.discovery().resolve() {
            Ok(target) => target,
            Err(
                DiscoverError::NotRunning { state_dir } | DiscoverError::Stale { state_dir, .. },
            ) if state_dir.join(STORE_FILE).is_file() => {
                return Self::open(&state_dir).await;
            }
            Err(error) => return Err(Failure::system(error)),
        };
        let client = ApiClient::of(&target).await.map_err(refused)?;
        Ok(Self::Service(Act(client)))
    }

    /// A way to change something.
    pub(super) async fn to_act(args: &ReachArgs) -> Result<Act, Failure> {
        let target = args.discovery().resolve().or_system()?;
        ApiClient::of(&target).await.map(Act).map_err(refused)
    }

    async fn open(state_dir: &Path) -> Result<Self, Failure> {
        let coordinator = Coordinator::open(CoordinatorConfig::new(state_dir)).await;
        Ok(Self::Store(Box::new(
            coordinator.map_err(refused_by_store)?,
        )))
    }

    /// True when the tasks are a running service's, and may change.
    pub(super) fn is_served(&self) -> bool {
        matches!(self, Self::Service(_))
    }

    /// Lets go of a store.
    pub(super) async fn close(self) {
        if let Self::Store(coordinator) = self {
            coordinator.close().await;
        }
    }

    pub(super) async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, Failure> {
        match self {
            Self::Service(service) => service.0.tasks(filter).await.map_err(refused),
            Self::Store(coordinator) => coordinator.tasks(filter).await.map_err(refused_by_store),
        }
    }

    pub(super) async fn task(&self, uuid: Uuid) -> Result<TaskDetail, Failure> {
        match self {
            Self::Service(service) => service.task(uuid).await,
            Self::Store(coordinator) => coordinator.task(uuid).await.map_err(refused_by_store),
        }
    }

    pub(super) async fn why(&self, uuid: Uuid) -> Result<TaskWhy, Failure> {
        match self {
            Self::Service(service) => service.0.why(uuid).await.map_err(refused),
            Self::Store(coordinator) => coordinator.why(uuid).await.map_err(refused_by_store),
        }
    }

    /// The content of an artifact.
    pub(super) async fn artifact(
        &self,
        uuid: Uuid,
        kind: ArtifactKind,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        match self {
            Self::Service(service) => {
                let link = service.0.artifact_link(uuid, kind).await;
                let content = service.0.download(&link.map_err(refused)?).await;
                let content = content.map_err(refused)?;
                Ok(content.map(|chunk| chunk.map_err(refused)).boxed())
            }
            Self::Store(coordinator) => {
                let content = coordinator.artifact_content(uuid, kind).await;
                let (_, content) = content.map_err(refused_by_store)?;
                Ok(content.map(|chunk| chunk.or_system()).boxed())
            }
        }
    }

    /// What an ended task wrote.
    pub(super) async fn log(&self, uuid: Uuid, stream: Stream) -> Result<Vec<u8>, Failure> {
        if let Self::Service(service) = self {
            let which = match stream {
                Stream::Out => LogStream::Stdout,
                Stream::Err => LogStream::Stderr,
            };
            let logs = service.0.logs(uuid, which).await.map_err(refused)?;
            return logs.read_all().await.map_err(refused);
        }
        let task = self.task(uuid).await?;
        let Some(result) = task.result else {
            let state = task.summary.state;
            return Err(Failure::usage(anyhow!(
                "task {uuid} is {state}; its output can be read when it has ended"
            )));
        };
        let kept = match stream {
            Stream::Out => result.stdout,
            Stream::Err => result.stderr,
        };
        let mut bytes = Vec::new();
        if let Some(kind) = artifact_of(&task.artifacts, stream) {
            let mut content = self.artifact(uuid, kind).await?;
            while let Some(chunk) = content.next().await {
                bytes.extend_from_slice(&chunk?);
            }
            return Ok(bytes);
        }
        output::copy(&kept, &mut bytes).or_system()?;
        Ok(bytes)
    }
}

/// The artifact that is a stream's kept output, if there is one.
fn artifact_of(artifacts: &[StoredArtifact], stream: Stream) -> Option<ArtifactKind> {
    let wanted = match stream {
        Stream::Out => ArtifactKind::Stdout,
        Stream::Err => ArtifactKind::Stderr,
    };
    let mut kinds = artifacts.iter().map(|stored| stored.artifact.kind);
    kinds.find(|kind| *kind == wanted)
}

impl Act {
    /// The client itself, for what is not about tasks.
    pub(super) fn client(&self) -> &ApiClient {
        &self.0
    }

    pub(super) async fn wait_task(
        &self,
        uuid: Uuid,
        pause: Duration,
    ) -> Result<WaitResponse, Failure> {
        self.0.wait_task(uuid, pause).await.map_err(refused)
    }

    pub(super) async fn wait_suite(
        &self,
        uuid: Uuid,
        pause: Duration,
    ) -> Result<WaitResponse, Failure> {
        self.0.wait_suite(uuid, pause).await.map_err(refused)
    }

    pub(super) async fn cancel(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<CancelResponse, Failure> {
        self.0.cancel_task(uuid, request).await.map_err(refused)
    }

    pub(super) async fn cancel_matching(
        &self,
        request: &CancelMatchingRequest,
    ) -> Result<CancelMatchingResponse, Failure> {
        self.0.cancel_matching(request).await.map_err(refused)
    }

    pub(super) async fn cancel_suite(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<WaitResponse, Failure> {
        self.0.cancel_suite(uuid, request).await.map_err(refused)
    }

    pub(super) async fn retry(
        &self,
        request: &RetryRequest,
    ) -> Result<Vec<SubmittedTask>, Failure> {
        Ok(self.0.retry(request).await.map_err(refused)?.tasks)
    }

    pub(super) async fn retry_suite(&self, uuid: Uuid) -> Result<Vec<SubmittedTask>, Failure> {
        Ok(self.0.retry_suite(uuid).await.map_err(refused)?.tasks)
    }

    pub(super) async fn task(&self, uuid: Uuid) -> Result<TaskDetail, Failure> {
        self.0.task(uuid).await.map_err(refused)
    }

    /// The same service, to look at tasks.
    pub(super) fn reading(&self) -> Reach {
        Reach::Service(Self(self.0.clone()))
    }
}

/// The caller's mistakes are those that the same call would make again.
pub(super) fn refused(error: ClientError) -> Failure {
    let callers = match &error {
        ClientError::Url(_) | ClientError::Token(_) | ClientError::TokenText => true,
        ClientError::Api { status, .. } => {
            matches!(status, 400..=499) && !matches!(status, 403 | 408 | 425 | 429)
        }
        _ => false,
    };
    if callers {
        Failure::usage(error)
    } else {
        Failure::system(error)
    }
}

fn refused_by_store(error: CoordinatorError) -> Failure {
    match error {
        CoordinatorError::Store(StoreError::NotFound { .. })
        | CoordinatorError::BadQuery { .. } => Failure::usage(error),
        _ => Failure::system(error),
    }
}
