//! A coordinator with its HTTP face and a manager with its worker processes in this process, as `mitosis up` has them.
//!
//! For instruments that watch the whole product; its directories go with it.

use std::path::PathBuf;

use super::error::{BenchError, part};
use super::program::product;
use super::scratch::Scratch;
use mitosis::coordinator::{Coordinator, CoordinatorConfig};
use mitosis::endpoint::StartedBy;
use mitosis::manager::{Manager, ManagerConfig, ManagerHandle, WorkerProgram};
use mitosis::protocol::TaskSpec;
use mitosis::protocol::api::{SubmitRequest, SubmitTask};
use mitosis::service::{Service, ServiceOptions};
use mitosis::shutdown::ShutdownRequest;

/// What runs; [`Up::close`] ends it in order.
pub(super) struct Up {
    pub(super) coordinator: Coordinator,
    pub(super) manager: ManagerHandle,
    pub(super) service: Service,
    pub(super) state_dir: PathBuf,
    /// Last: goes when nobody uses it any more.
    pub(super) scratch: Scratch,
}

impl Up {
    pub(super) async fn open(workers: u16) -> Result<Self, BenchError> {
        let scratch = Scratch::new()?;
        let state_dir = scratch.path().join("state");
        let coordinator = Coordinator::open(CoordinatorConfig::new(state_dir.clone())).await;
        let coordinator = coordinator.map_err(part("open a coordinator"))?;
        let port = Service::listen(&coordinator, "127.0.0.1:0").await;
        let port = port.map_err(part("listen"))?;
        let mut config = ManagerConfig::new(scratch.path().join("manager"), workers);
        config.worker_program = WorkerProgram::Mitosis(product()?);
        let manager = Manager::start(config, coordinator.local_connector()).await;
        let manager = manager.map_err(part("start a manager"))?;
        let options = ServiceOptions {
            started_by: StartedBy::Up,
            state_dir: state_dir.clone(),
            output_dir: None,
        };
        let service = Service::start(&coordinator, port, options).await;
        let service = service.map_err(part("serve the coordinator"))?;
        Ok(Self {
            coordinator,
            manager,
            service,
            state_dir,
            scratch,
        })
    }

    /// Runs `true` so many times, submitted at once, and waits for the last end.
    pub(super) async fn run_no_ops(&self, tasks: u32) -> Result<(), BenchError> {
        let ends = self.coordinator.ends();
        let task = SubmitTask {
            key: None,
            spec: TaskSpec::argv(["true"]),
        };
        let request = SubmitRequest {
            suite: None,
            tasks: vec![task; tasks as usize],
        };
        let accepted = self.coordinator.submit(request).await;
        accepted.map_err(part("submit tasks"))?;
        for _ in 0..tasks {
            ends.recv_async()
                .await
                .map_err(part("hear of the end of a task"))?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        self.service.stop().await;
        self.manager.shutdown(ShutdownRequest::Immediate).await;
        self.coordinator.close().await;
    }
}
