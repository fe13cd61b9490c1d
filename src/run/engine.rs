//! What does the work of a run: the manager with its workers, and the HTTP face for onlookers.
//!
//! Started once the tasks are in the store and stopped before the summary. The coordinator belongs to the session.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mitosis_bridge::status::HistogramSnapshot;

use super::error::RunError;
use super::live;
use super::options::RunOptions;
use super::summary::Figures;
use crate::coordinator::{Coordinator, Durability};
use crate::endpoint::StartedBy;
use crate::file_system::Unwritable;
use crate::file_system::removal::{remove, set_aside_if_needed};
use crate::manager::config::{Durability as SpoolDurability, ExecDefaults};
use crate::manager::{Manager, ManagerConfig, ManagerExit, ManagerHandle};
use crate::protocol::frame::{CwdPolicy, EnvPolicy, HaltLimits, KeptOutput};
use crate::service::{Service, ServiceOptions};
use crate::shutdown::ShutdownRequest;

/// Directory of the manager inside the state directory.
pub const MANAGER_DIR: &str = "manager";
/// Where the HTTP face of a run listens.
const ANY_LOCAL_PORT: &str = "127.0.0.1:0";

/// How long the workers of a finished run have to leave; idle ones leave at once, the others bring what tasks left.
const LEAVE_DEADLINE: Duration = Duration::from_secs(30);

/// Manager and HTTP face of a run.
#[derive(Debug)]
pub struct Engine {
    manager: ManagerHandle,
    service: Service,
    began: Instant,
}

impl Engine {
    /// Starts both.
    ///
    /// # Errors
    /// When no worker can be started, or no port can be opened.
    pub async fn start(
        options: &RunOptions,
        coordinator: &Coordinator,
        state_dir: &Path,
    ) -> Result<Self, RunError> {
        let config = manager_config(options, state_dir)?;
        let serving = ServiceOptions {
            started_by: StartedBy::Run,
            state_dir: state_dir.to_owned(),
            output_dir: Some(config.output_dir()),
        };
        let failed = |error| RunError::Service(Box::new(error));
        let port = Service::listen(coordinator, ANY_LOCAL_PORT)
            .await
            .map_err(failed)?;
        let (service, manager) = tokio::join!(
            Service::start(coordinator, port, serving),
            Manager::start(config, coordinator.own_connector())
        );
        match (service, manager) {
            (Ok(service), Ok(manager)) => Ok(Self {
                manager,
                service,
                began: Instant::now(),
            }),
            (Ok(service), Err(error)) => {
                service.stop().await;
                Err(RunError::Manager(Box::new(error)))
            }
            (Err(error), Ok(manager)) => {
                manager.shutdown(ShutdownRequest::Immediate).await;
                Err(failed(error))
            }
            (Err(error), Err(_)) => Err(failed(error)),
        }
    }

    /// Resolves when the manager has gone because it was asked to.
    ///
    /// # Errors
    /// When the manager could not go on.
    pub async fn gone(&self) -> Result<(), RunError> {
        match self.manager.wait().await {
            ManagerExit::Asked | ManagerExit::AskedByCoordinator => Ok(()),
            ManagerExit::Failed(error) => Err(RunError::Manager(Box::new(error))),
        }
    }

    /// Passes a request on; the manager is gone some time later.
    pub fn request_stop(&self, request: ShutdownRequest) {
        let manager = self.manager.clone();
        tokio::spawn(async move { manager.shutdown(request).await });
    }

    /// Begins nothing new; what runs goes on.
    ///
    /// # Errors
    /// When the manager has gone.
    pub async fn pause(&self) -> Result<(), RunError> {
        let paused = self.manager.pause().await;
        paused.map_err(|error| RunError::Manager(Box::new(error)))
    }

    /// Stops workers and tasks, then this process, and lets everything go on when somebody continues it.
    ///
    /// # Errors
    /// When the manager has gone, or the process cannot be stopped.
    pub async fn stand_still(&self) -> Result<(), RunError> {
        let failed = |error| RunError::Manager(Box::new(error));
        self.manager.freeze().await.map_err(failed)?;
        let own = rustix::process::getpid();
        let stopped = rustix::process::kill_process(own, rustix::process::Signal::STOP);
        self.manager.thaw().await.map_err(failed)?;
        stopped.map_err(|errno| RunError::io("stop this process")(errno.into()))
    }

    /// Why the manager cannot keep reports; nothing while it can.
    #[must_use]
    pub async fn unwritable(&self) -> Option<Unwritable> {
        self.manager.stats().await.unwritable
    }

    /// Tasks being executed.
    #[must_use]
    pub async fn running(&self) -> u64 {
        self.manager.stats().await.status.running.into()
    }

    /// Stops both and returns the figures. Nothing is running any more, or it has been asked to end already.
    pub async fn stop(self) -> Figures {
        let served = self.began.elapsed();
        self.manager
            .shutdown(ShutdownRequest::Graceful {
                deadline: LEAVE_DEADLINE,
            })
            .await;
        self.service.stop().await;
        let stats = self.manager.stats().await;
        let quantile = |histogram: &HistogramSnapshot, share| {
            let quantile = histogram.quantile(share)?;
            u64::try_from(quantile.as_nanos()).ok()
        };
        Figures {
            executions: stats.executions,
            fetch_p50_ns: quantile(&stats.fetch_round_trip, 0.5),
            fetch_p99_ns: quantile(&stats.fetch_round_trip, 0.99),
            start_p50_ns: quantile(&stats.start, 0.5),
            start_p99_ns: quantile(&stats.start, 0.99),
            busy: stats.run_time.sum,
            served,
        }
    }
}

fn manager_config(options: &RunOptions, state_dir: &Path) -> Result<ManagerConfig, RunError> {
    // The caller's directory and environment, as with any other command that runs commands.
    let here = std::env::current_dir().map_err(RunError::io("find the working directory"))?;
    let cwd = match &options.cwd {
        Some(cwd) => here.join(cwd),
        None => here,
    };
    let mut config = ManagerConfig::new(state_dir.join(MANAGER_DIR), options.workers);
    config.poll = options.poll;
    config.totals = options.totals.clone();
    config.exec = ExecDefaults {
        env: EnvPolicy::Inherit,
        cwd: CwdPolicy::Fixed(cwd),
        kept_output: KeptOutput::Stays,
        live_dir: live_directory(options, state_dir)?,
        halt_after: options
            .halt
            .map_or_else(HaltLimits::default, |rule| rule.limits()),
        apart: options.delay,
        nice: options.nice,
        passed: options.passed.clone(),
    };
    config.durability = match options.durability {
        Durability::Process => SpoolDurability::Process,
        Durability::Power => SpoolDurability::Power,
    };
    Ok(config)
}

/// The directory of running tasks' output, empty, where somebody follows it.
fn live_directory(options: &RunOptions, state_dir: &Path) -> Result<Option<PathBuf>, RunError> {
    if !options.output.line_buffer {
        return Ok(None);
    }
    let dir = live::directory(state_dir);
    // What an earlier run left there belongs to tasks that are run again or have ended.
    set_aside_if_needed(&dir, remove(&dir))
        .and_then(|()| std::fs::create_dir(&dir))
        .map_err(RunError::io("make the directory of running tasks' output"))?;
    Ok(Some(dir))
}
