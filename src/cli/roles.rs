//! `up` and `coordinator`: the long-lived services of a machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use mitosis_bridge::ours;

use super::allocation::AllocationArgs;
use super::capacity::CapacityArgs;
use super::failure::{Failure, OrFail};
use super::output;
use super::poll::PollArgs;
use crate::coordinator::store::OpenError;
use crate::coordinator::{Coordinator, CoordinatorConfig, CoordinatorError, Durability};
use crate::endpoint::{StartedBy, default_state_dir};
use crate::exit_code::Exit;
use crate::manager::config::Durability as SpoolDurability;
use crate::manager::{Manager, ManagerConfig, ManagerExit, ManagerHandle};
use crate::protocol::{Capacity, HumanDuration, byte_text};
use crate::run::engine::MANAGER_DIR;
use crate::run::options::default_workers;
use crate::run::state_dir::{MARKS, StateDirError};
use crate::service::{Service, ServiceOptions};
use crate::shutdown::{ShutdownRequest, ShutdownSignals};
use crate::telemetry::metrics;

/// Where services listen when nobody says otherwise: this machine alone, any free port.
const ANY_LOCAL_PORT: &str = "127.0.0.1:0";

const COORDINATOR_HELP: &str = "\
The first line of stdout is the address. Clients of the same user on this machine find address and token in the state
directory; others need --coordinator-url and a token (`mitosis token`).

Examples:
  mitosis coordinator
  mitosis coordinator --listen 0.0.0.0:7300 --state-dir /srv/mitosis";

/// Hold tasks durably and hand them to managers and workers.
#[derive(Debug, Args)]
#[command(after_help = COORDINATOR_HELP)]
pub(super) struct CoordinatorArgs {
    #[command(flatten)]
    serving: ServingArgs,
}

/// What `coordinator` and `up` have in common.
#[derive(Debug, Args)]
struct ServingArgs {
    /// Address and port to listen on; port 0 for any free one.
    #[arg(long, value_name = "ADDR:PORT", env = "MITOSIS_LISTEN", default_value = ANY_LOCAL_PORT)]
    listen: String,
    /// Where tasks are kept [default: $XDG_STATE_HOME/mitosis].
    #[arg(long, value_name = "DIR", env = "MITOSIS_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// What an accepted task survives: the death of any process, or a power cut.
    #[arg(
        long,
        value_name = "process|power",
        env = "MITOSIS_DURABILITY",
        default_value_t
    )]
    durability: Durability,
    /// How long a lease lasts after its grant or renewal [default: 120s].
    #[arg(long, value_name = "DURATION")]
    lease: Option<HumanDuration>,
    /// How often holders renew their leases [default: 10s].
    #[arg(long, value_name = "DURATION")]
    renew: Option<HumanDuration>,
    /// One JSON object with `url` and `state_dir` on stdout instead of the bare address.
    #[arg(long)]
    json: bool,
}

impl ServingArgs {
    /// Made where it is missing, and ours alone.
    fn state_dir(&self) -> Result<PathBuf, Failure> {
        let dir = match &self.state_dir {
            Some(dir) => dir.clone(),
            None => default_state_dir().or_usage()?,
        };
        let made = ours::private_tree(&dir, MARKS).map_err(StateDirError::NotOurs);
        made.or_usage()
    }

    fn config(&self, state_dir: PathBuf) -> Result<CoordinatorConfig, Failure> {
        let defaults = CoordinatorConfig::new(state_dir);
        let config = CoordinatorConfig {
            durability: self.durability,
            lease: self.lease.map_or(defaults.lease, |lease| lease.0),
            renew: self.renew.map_or(defaults.renew, |renew| renew.0),
            ..defaults
        };
        if config.renew.is_zero() || config.lease < config.renew * 3 {
            return Err(Failure::usage(anyhow!(
                "a lease of {} renewed every {} can run out by accident; make --lease at least three times --renew",
                HumanDuration(config.lease),
                HumanDuration(config.renew)
            )));
        }
        Ok(config)
    }

    /// `capacity` is that of the manager in the same process, where there is one.
    async fn open(&self, capacity: Option<Capacity>) -> Result<Coordinator, Failure> {
        let config = CoordinatorConfig {
            capacity,
            ..self.config(self.state_dir()?)?
        };
        Coordinator::open(config)
            .await
            .map_err(|error| match error {
                CoordinatorError::Open(OpenError::InUse { .. }) => Failure::usage(error),
                other => Failure::system(other),
            })
    }

    fn tell(&self, service: &Service, coordinator: &Coordinator) -> Result<(), Failure> {
        let state_dir = &coordinator.config().state_dir;
        tracing::info!(url = service.url(), state_dir = %state_dir.display(), "listening");
        if self.json {
            output::json(&serde_json::json!({
                "url": service.url(),
                "state_dir": byte_text::of_os(state_dir.as_os_str()),
            }))
        } else {
            output::text(&format!("{}\n", service.url()))
        }
    }
}

impl CoordinatorArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut signals = ShutdownSignals::install(Duration::ZERO).or_system()?;
        metrics::install().or_system()?;
        let coordinator = self.serving.open(None).await?;
        let served = self.serve(&coordinator, &mut signals).await;
        coordinator.close().await;
        served
    }

    async fn serve(
        &self,
        coordinator: &Coordinator,
        signals: &mut ShutdownSignals,
    ) -> Result<Exit, Failure> {
        let options = ServiceOptions {
            started_by: StartedBy::Coordinator,
            state_dir: coordinator.config().state_dir.clone(),
            output_dir: None,
        };
        let port = Service::listen(coordinator, &self.serving.listen).await;
        let service = Service::start(coordinator, port.or_system()?, options).await;
        let mut service = service.or_system()?;
        self.serving.tell(&service, coordinator)?;
        let failed = tokio::select! {
            _ = signals.next() => None,
            error = service.failed() => Some(error),
        };
        if let Some(error) = failed {
            return Err(Failure::system(error));
        }
        tracing::info!(reason = "signal", "stopping");
        tokio::select! {
            () = service.stop() => {}
            // A second signal waits for nobody.
            _ = signals.next() => {}
        }
        Ok(Exit::Ok)
    }
}

const UP_HELP: &str = "\
The first line of stdout is the address. A first TERM or INT stops cleanly: nothing new begins, running tasks may end
within --shutdown-deadline and are handed back otherwise; a second one stops at once. The next start goes on.

Examples:
  mitosis up
  mitosis up --workers 16 --listen 127.0.0.1:7300 &
  mitosis submit -- make -C /src test";

/// Run a coordinator and a manager with its workers in one process.
#[derive(Debug, Args)]
#[command(after_help = UP_HELP)]
pub(super) struct UpArgs {
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    managing: ManagingArgs,
}

/// What `up` and `manager` have in common.
#[derive(Debug, Args)]
pub(super) struct ManagingArgs {
    /// Worker processes, that is, tasks at a time [default: usable cores].
    #[arg(short, long, value_name = "N", env = "MITOSIS_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    #[command(flatten)]
    capacity: CapacityArgs,
    #[command(flatten)]
    allocation: AllocationArgs,
    #[command(flatten)]
    poll: PollArgs,
    /// Tasks held ready for workers [default: twice the workers, more where tasks are short].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    prefetch: Option<u32>,
    /// Tags that tasks may require, separated by commas.
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// How long running tasks may go on after a first stop signal.
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    shutdown_deadline: HumanDuration,
}

impl ManagingArgs {
    /// The stop signals of this role, and what ends it ahead of its allocation.
    pub(super) fn signals(&self) -> Result<ShutdownSignals, Failure> {
        let signals = ShutdownSignals::install(self.shutdown_deadline.0).or_system()?;
        Ok(signals.ahead_of(self.allocation.stop()))
    }

    /// A manager's configuration on its own directory.
    pub(super) fn config(
        &self,
        state_dir: PathBuf,
        durability: Durability,
    ) -> Result<ManagerConfig, Failure> {
        let mut config =
            ManagerConfig::new(state_dir, self.workers.unwrap_or_else(default_workers));
        config.poll = self.poll.config()?;
        config.prefetch = self.prefetch;
        config.totals = self.capacity.totals();
        config.tags.clone_from(&self.tags);
        config.durability = match durability {
            Durability::Process => SpoolDurability::Process,
            Durability::Power => SpoolDurability::Power,
        };
        Ok(config)
    }
}

impl UpArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut signals = self.managing.signals()?;
        metrics::install().or_system()?;
        let manager_dir = self.serving.state_dir()?.join(MANAGER_DIR);
        let config = self.managing.config(manager_dir, self.serving.durability)?;
        let coordinator = self.serving.open(Some(config.capacity())).await?;
        let ended = self.serve(config, &coordinator, &mut signals).await;
        coordinator.close().await;
        ended
    }

    async fn serve(
        &self,
        config: ManagerConfig,
        coordinator: &Coordinator,
        signals: &mut ShutdownSignals,
    ) -> Result<Exit, Failure> {
        let state_dir = coordinator.config().state_dir.clone();
        let options = ServiceOptions {
            started_by: StartedBy::Up,
            output_dir: Some(config.output_dir()),
            state_dir,
        };
        // The port first, because workers bring artifacts to it; then the manager: it ends what an earlier life left
        // behind before anybody is answered.
        let port = Service::listen(coordinator, &self.serving.listen)
            .await
            .or_system()?;
        let manager = Manager::start(config, coordinator.own_connector())
            .await
            .or_system()?;
        let mut service = match Service::start(coordinator, port, options).await {
            Ok(service) => service,
            Err(error) => {
                manager.shutdown(ShutdownRequest::Immediate).await;
                return Err(Failure::system(error));
            }
        };
        let told = self.serving.tell(&service, coordinator);
        let ended = tokio::select! {
            ended = until_stopped(&manager, signals) => ended,
            error = service.failed() => {
                manager.shutdown(ShutdownRequest::Immediate).await;
                return Err(Failure::system(error));
            }
        };
        service.stop().await;
        told.and(ended)
    }
}

/// Passes signals on to a manager until it has gone.
pub(super) async fn until_stopped(
    manager: &ManagerHandle,
    signals: &mut ShutdownSignals,
) -> Result<Exit, Failure> {
    let exit = loop {
        tokio::select! {
            exit = manager.wait() => break exit,
            request = signals.next() => {
                tracing::info!(?request, "stopping");
                let manager = manager.clone();
                tokio::spawn(async move { manager.shutdown(request).await });
            }
        }
    };
    match exit {
        ManagerExit::Asked | ManagerExit::AskedByCoordinator => Ok(Exit::Ok),
        ManagerExit::Failed(error) => Err(Failure::system(error)),
    }
}
