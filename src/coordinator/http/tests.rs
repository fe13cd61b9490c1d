//! The HTTP face as its users see it: a real coordinator on a free port, asked by the real client.

mod access;
mod artifacts;
mod document;
mod independent;
mod logs;
mod sockets;
mod stop;
mod tasks;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::ApiOptions;
use crate::client::{ApiClient, ClientError};
use crate::coordinator::auth::Scope;
use crate::coordinator::{Coordinator, CoordinatorConfig};
use crate::protocol::api::{RegisterWorkerRequest, SubmitRequest, SubmitTask};
use crate::protocol::report::{Output, Reason};
use crate::protocol::{Outcome, TaskResult, TaskSpec};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator that serves on a free port.
struct Server {
    dir: TempDir,
    coordinator: Coordinator,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| ApiOptions::default()).await
    }

    async fn start_with(options: impl FnOnce(&TempDir) -> ApiOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let options = options(&dir);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(dir, listener, options).await
    }

    async fn serve(dir: TempDir, listener: TcpListener, options: ApiOptions) -> Self {
        let config = CoordinatorConfig::new(dir.path().join("state"));
        Self::serve_config(dir, listener, options, config).await
    }

    /// With artifacts of at most `limit` bytes.
    async fn start_limited(limit: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = CoordinatorConfig {
            artifact_limit_bytes: limit,
            ..CoordinatorConfig::new(dir.path().join("state"))
        };
        Self::serve_config(dir, listener, ApiOptions::default(), config).await
    }

    async fn serve_config(
        dir: TempDir,
        listener: TcpListener,
        options: ApiOptions,
        config: CoordinatorConfig,
    ) -> Self {
        let coordinator = Coordinator::open(config).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = coordinator.clone();
        let serving = tokio::spawn(async move {
            let stopped = async {
                // A test that ends drops the sender.
                let _ = stopped.await;
            };
            serving.serve_with(listener, options, stopped).await
        });
        Self {
            dir,
            coordinator,
            address,
            stop,
            serving,
        }
    }

    /// Stops serving and closes the store; what is left can be started again.
    async fn stop(self) -> (TempDir, SocketAddr) {
        drop(self.stop);
        in_time(self.serving).await.unwrap().unwrap();
        in_time(self.coordinator.close()).await;
        (self.dir, self.address)
    }

    /// The next life of the coordinator, at the same address.
    async fn restart(self) -> Self {
        let (dir, address) = self.stop().await;
        let listener = TcpListener::bind(address).await.unwrap();
        Self::serve(dir, listener, ApiOptions::default()).await
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn token(&self, scope: Scope) -> SecretString {
        self.coordinator.issue_token(scope, "test")
    }

    fn client(&self, scope: Scope) -> ApiClient {
        ApiClient::new(&self.url(), self.token(scope)).unwrap()
    }

    fn user(&self) -> ApiClient {
        self.client(Scope::User)
    }

    async fn submit(&self, programs: &[&str]) -> Vec<Uuid> {
        let answer = self.user().submit(&request(programs)).await.unwrap();
        answer.tasks.iter().map(|task| task.uuid).collect()
    }

    /// A client under the token of a new worker.
    async fn worker(&self) -> ApiClient {
        let registered = self.user().register_worker(&registration()).await.unwrap();
        self.user().with_token(registered.token.into())
    }
}

/// An HTTP client for requests that the typed one cannot make.
fn raw_http() -> reqwest::Client {
    crate::client::install_crypto_provider();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn request(programs: &[&str]) -> SubmitRequest {
    let task = |program: &&str| SubmitTask {
        key: None,
        spec: TaskSpec::argv([*program]),
    };
    SubmitRequest {
        suite: None,
        tasks: programs.iter().map(task).collect(),
    }
}

fn registration() -> RegisterWorkerRequest {
    RegisterWorkerRequest {
        worker_uuid: None,
        host: "here".to_owned(),
        tags: Vec::new(),
        labels: std::collections::BTreeMap::new(),
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it happens in time")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>, status: u16, code: &str) -> String {
    let error = answer.expect_err("must be refused");
    assert_eq!(
        (error.status(), error.code()),
        (Some(status), Some(code)),
        "{error}"
    );
    error.to_string()
}

/// An end of a task, as a worker that ran it reports it.
fn ended(outcome: Outcome, stdout: Output) -> TaskResult {
    let (reason, exit_code) = match outcome {
        Outcome::Completed => (Reason::Exit, Some(0)),
        Outcome::Failed => (Reason::Exit, Some(1)),
        Outcome::Cancelled => (Reason::Cancelled, None),
    };
    TaskResult {
        exit_code,
        message: None,
        started_at_us: Some(1),
        stdout,
        ..TaskResult::not_started(reason, "", 2)
    }
}
