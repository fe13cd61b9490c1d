//! HTTP servers: an echo, and a real coordinator with ready tasks in its store.

use std::future::IntoFuture;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use axum::serve::ListenerExt;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Setting, Stage, Team};
use crate::error::{BenchError, io, part};
use crate::ipc::case::Case;
use crate::ipc::placement::Placement;
use crate::ipc::wire::Target;
use crate::scratch::Scratch;
use mitosis::coordinator::auth::Scope;
use mitosis::coordinator::{Coordinator, CoordinatorConfig};
use mitosis::endpoint::StartedBy;
use mitosis::protocol::TaskSpec;
use mitosis::protocol::api::{SubmitRequest, SubmitTask};
use mitosis::service::{Service, ServiceOptions};

const ANY_LOCAL_PORT: &str = "127.0.0.1:0";
/// Ready tasks beyond one per client: a claim is to find a queue, not a single row.
const READY_TASKS: u16 = 1000;

/// reqwest to axum, nothing between.
pub(super) struct EchoStage {
    team: Team,
    serving: JoinHandle<std::io::Result<()>>,
}

impl EchoStage {
    pub(super) async fn open(setting: Setting, placement: Placement) -> Result<Self, BenchError> {
        let listener = TcpListener::bind(ANY_LOCAL_PORT)
            .await
            .map_err(io("listen on loopback"))?;
        let address = listener.local_addr().map_err(io("listen on loopback"))?;
        let listener = listener.tap_io(|stream| {
            // Without it a frame in two segments waits for an acknowledgement; a failure only costs time.
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new().route("/", post(|body: Bytes| async { body }));
        let serving = tokio::spawn(axum::serve(listener, router).into_future());
        let target = |_, count| Target::HttpEcho {
            url: format!("http://{address}/"),
            count,
        };
        let team = Team::connect(setting, placement, target).await?;
        Ok(Self { team, serving })
    }
}

#[async_trait]
impl Stage for EchoStage {
    fn team(&mut self) -> &mut Team {
        &mut self.team
    }

    async fn begin(&mut self, _case: &Case, _active: usize) -> Result<(), BenchError> {
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BenchError> {
        let left = self.team.leave().await;
        self.serving.abort();
        left
    }
}

/// A coordinator as `mitosis coordinator` runs it, with its store in a temporary directory.
pub(super) struct CoordinatorStage {
    team: Team,
    service: Service,
    coordinator: Coordinator,
    /// The suite of the tasks that are in the store, and their size.
    submitted: Option<(Uuid, usize)>,
    _scratch: Scratch,
}

impl CoordinatorStage {
    pub(super) async fn open(setting: Setting, placement: Placement) -> Result<Self, BenchError> {
        let scratch = Scratch::new()?;
        let config = CoordinatorConfig::new(scratch.path().join("state"));
        let coordinator = Coordinator::open(config)
            .await
            .map_err(part("open a coordinator"))?;
        let port = Service::listen(&coordinator, ANY_LOCAL_PORT)
            .await
            .map_err(part("take a port for a coordinator"))?;
        let options = ServiceOptions {
            started_by: StartedBy::Coordinator,
            state_dir: coordinator.config().state_dir.clone(),
            output_dir: None,
        };
        let service = Service::start(&coordinator, port, options)
            .await
            .map_err(part("serve a coordinator"))?;
        let token = coordinator.issue_token(Scope::User, "bench");
        let target = |_, count| Target::Coordinator {
            url: service.url().to_owned(),
            token: token.expose_secret().to_owned(),
            count,
        };
        let team = Team::connect(setting, placement, target).await?;
        Ok(Self {
            team,
            service,
            coordinator,
            submitted: None,
            _scratch: scratch,
        })
    }
}

#[async_trait]
impl Stage for CoordinatorStage {
    fn team(&mut self) -> &mut Team {
        &mut self.team
    }

    async fn begin(&mut self, case: &Case, _active: usize) -> Result<(), BenchError> {
        match self.submitted {
            Some((_, bytes)) if bytes == case.payload_bytes => return Ok(()),
            // Tasks of another size would be claimed first.
            Some((suite, _)) => {
                let cancelled = self.coordinator.cancel_all(suite, false).await;
                cancelled.map_err(part("cancel tasks"))?;
            }
            None => {}
        }
        // The size is that of an argument of the task.
        let task = || SubmitTask {
            key: None,
            spec: TaskSpec::argv(["true".to_owned(), "x".repeat(case.payload_bytes)]),
        };
        let count = READY_TASKS.max(case.clients);
        let request = SubmitRequest {
            suite: None,
            tasks: (0..count).map(|_| task()).collect(),
        };
        let submitted = self.coordinator.submit(request).await;
        let suite = submitted.map_err(part("submit tasks"))?.suite;
        self.submitted = Some((suite, case.payload_bytes));
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BenchError> {
        let left = self.team.leave().await;
        self.service.stop().await;
        self.coordinator.close().await;
        left
    }
}
