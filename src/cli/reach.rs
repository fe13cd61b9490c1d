//! How a client command reaches tasks: the running service, or, to look only, the store of a state directory.
//!
//! Discovery is [`crate::endpoint`]'s, calls are [`crate::client`]'s; here their failures get their exit codes: what the
//! user has to change is 2, what the system has to answer for is 3.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::stream::{BoxStream, StreamExt};
use uuid::Uuid;

use super::failure::{Failure, OrFail};
use crate::client::{ApiClient, ClientError};
use crate::coordinator::store::StoreError;
use crate::coordinator::{Coordinator, CoordinatorConfig, CoordinatorError};
use crate::endpoint::{DiscoverError, Discovery, StateDir, TokenSource};
use crate::protocol::ArtifactKind;
use crate::protocol::api::{
    CancelMatchingRequest, CancelMatchingResponse, CancelRequest, CancelResponse, PageQuery,
    RetryRequest, SubmittedTask, SuiteSummary, TaskDetail, TaskFilter, TaskPage, WaitResponse,
};
use crate::protocol::why::TaskWhy;

/// Variable that names a coordinator.
const COORDINATOR_URL: &str = "MITOSIS_COORDINATOR_URL";
/// Variable that holds a token.
const TOKEN: &str = "MITOSIS_TOKEN";
/// Variable that names a file with a token.
const TOKEN_FILE: &str = "MITOSIS_TOKEN_FILE";
/// Variable that names the state directory of a coordinator.
const STATE_DIR: &str = "MITOSIS_STATE_DIR";
/// File of the store in a state directory.
const STORE_FILE: &str = "store.db";

/// Where the service is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ReachArgs {
    #[command(flatten)]
    token: ReachCoordinatorArgs,
    /// State directory of a coordinator on this machine, which leaves address and token there [default:
    /// $XDG_STATE_HOME/mitosis] [env: MITOSIS_STATE_DIR].
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
    /// File with a token, readable by its owner alone; it goes before MITOSIS_TOKEN [env: MITOSIS_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ReachArgs {
    /// What discovery needs to know. A state directory that was named goes before a variable.
    fn discovery(&self) -> Discovery {
        let mut discovery = self.token.discovery();
        if let Some(dir) = &self.state_dir {
            discovery
                .coordinator_url
                .clone_from(&self.token.coordinator_url);
            discovery.state_dir = Some(StateDir::Named(dir.clone()));
        }
        discovery
    }
}

impl ReachCoordinatorArgs {
    /// What discovery needs to know.
    pub(super) fn discovery(&self) -> Discovery {
        let url = || {
            std::env::var(COORDINATOR_URL)
                .ok()
                .filter(|url| !url.is_empty())
        };
        Discovery {
            coordinator_url: self.coordinator_url.clone().or_else(url),
            token_file: self.token_file.clone(),
            token_of_environment: token_of_environment(),
            state_dir: path_of_environment(STATE_DIR).map(StateDir::OfEnvironment),
        }
    }
}

/// The token of the environment.
fn token_of_environment() -> Option<TokenSource> {
    let token = std::env::var(TOKEN).ok();
    match token.as_deref().map(str::trim) {
        Some(token) if !token.is_empty() => Some(TokenSource::Given(token.to_owned().into())),
        _ => path_of_environment(TOKEN_FILE).map(TokenSource::File),
    }
}

fn path_of_environment(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
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
#[derive(Debug, Clone)]
pub(super) struct Act {
    client: ApiClient,
    discovery: Box<Discovery>,
}

impl Reach {
    /// A way to look at tasks.
    pub(super) async fn to_read(args: &ReachArgs) -> Result<Self, Failure> {
        let discovery = args.discovery();
        let target = match discovery.clone().resolve() {
            Ok(target) => target,
            Err(
                DiscoverError::NotRunning { state_dir } | DiscoverError::Stale { state_dir, .. },
            ) if state_dir.join(STORE_FILE).is_file() => {
                return Self::open(&state_dir).await;
            }
            Err(error) => return Err(Failure::system(error)),
        };
        let client = ApiClient::of(&target).await.map_err(refused)?;
        Ok(Self::Service(Act::new(client, discovery)))
    }

    /// A way to change something.
    pub(super) async fn to_act(args: &ReachArgs) -> Result<Act, Failure> {
        let discovery = args.discovery();
        let target = discovery.clone().resolve().or_system()?;
        let client = ApiClient::of(&target).await.map_err(refused)?;
        Ok(Act::new(client, discovery))
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
            Self::Service(service) => service.client.tasks(filter).await.map_err(refused),
            Self::Store(coordinator) => coordinator.tasks(filter).await.map_err(refused_by_store),
        }
    }

    pub(super) async fn task(&self, uuid: Uuid) -> Result<TaskDetail, Failure> {
        match self {
            Self::Service(service) => service.task(uuid).await,
            Self::Store(coordinator) => coordinator.task(uuid).await.map_err(refused_by_store),
        }
    }

    /// Suites that a text names; enough to see whether there is only one.
    pub(super) async fn suites_named(&self, text: &str) -> Result<Vec<SuiteSummary>, Failure> {
        match self {
            Self::Service(service) => {
                let named = PageQuery {
                    named: Some(text.to_owned()),
                    ..PageQuery::default()
                };
                let page = service.client.suites(&named).await.map_err(refused)?;
                Ok(page.suites)
            }
            Self::Store(coordinator) => {
                let named = coordinator.suites_named(text.to_owned()).await;
                named.map_err(refused_by_store)
            }
        }
    }

    pub(super) async fn why(&self, uuid: Uuid) -> Result<TaskWhy, Failure> {
        match self {
            Self::Service(service) => service.client.why(uuid).await.map_err(refused),
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
                let link = service.client.artifact_link(uuid, kind).await;
                let content = service.client.download(&link.map_err(refused)?).await;
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
}

impl Act {
    fn new(client: ApiClient, discovery: Discovery) -> Self {
        Self {
            client,
            discovery: Box::new(discovery),
        }
    }

    /// The client itself, for what is not about tasks.
    pub(super) fn client(&self) -> &ApiClient {
        &self.client
    }

    /// Looks for the service once more: after a restart it may have another port and token. Where it is not found, the
    /// known address stays.
    pub(super) async fn find_again(&mut self) {
        if let Ok(target) = (*self.discovery).clone().resolve()
            && let Ok(client) = ApiClient::of(&target).await
        {
            self.client = client;
        }
    }

    pub(super) async fn cancel(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<CancelResponse, Failure> {
        self.client
            .cancel_task(uuid, request)
            .await
            .map_err(refused)
    }

    pub(super) async fn cancel_matching(
        &self,
        request: &CancelMatchingRequest,
    ) -> Result<CancelMatchingResponse, Failure> {
        self.client.cancel_matching(request).await.map_err(refused)
    }

    pub(super) async fn cancel_suite(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<WaitResponse, Failure> {
        self.client
            .cancel_suite(uuid, request)
            .await
            .map_err(refused)
    }

    pub(super) async fn retry(
        &self,
        request: &RetryRequest,
    ) -> Result<Vec<SubmittedTask>, Failure> {
        Ok(self.client.retry(request).await.map_err(refused)?.tasks)
    }

    pub(super) async fn retry_suite(&self, uuid: Uuid) -> Result<Vec<SubmittedTask>, Failure> {
        Ok(self.client.retry_suite(uuid).await.map_err(refused)?.tasks)
    }

    pub(super) async fn task(&self, uuid: Uuid) -> Result<TaskDetail, Failure> {
        self.client.task(uuid).await.map_err(refused)
    }

    /// The same service, to look at tasks.
    pub(super) fn reading(&self) -> Reach {
        Reach::Service(self.clone())
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

pub(super) fn refused_by_store(error: CoordinatorError) -> Failure {
    match error {
        CoordinatorError::Store(StoreError::NotFound { .. })
        | CoordinatorError::BadQuery { .. }
        | CoordinatorError::NoAttempt { .. } => Failure::usage(error),
        _ => Failure::system(error),
    }
}
