//! `manager`: one machine's workers, for a coordinator elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;
use clap::Args;

use super::failure::{Failure, OrFail};
use super::reach::ReachCoordinatorArgs;
use super::roles::{ManagingArgs, until_stopped};
use crate::comm::link::{ConnectError, Connector, ManagerEnd};
use crate::comm::ws::WsConnector;
use crate::coordinator::Durability;
use crate::endpoint::{Discovery, Found, default_state_dir};
use crate::exit_code::Exit;
use crate::manager::{Exclusivity, Manager};
use crate::protocol::frame::KeptOutput;
use crate::telemetry::endpoint::MetricsPort;
use crate::telemetry::metrics;

const HELP: &str = "\
The token needs the scope `manager` (`mitosis token --scope manager`). With a coordinator of the same user on this
machine nothing has to be named: address and token are found in its state directory.

Examples:
  MITOSIS_TOKEN=… mitosis manager --coordinator-url http://head:7300 --workers 32
  mitosis manager --token-file ~/.mitosis-token --coordinator-url https://head --metrics-listen 0.0.0.0:9400";

/// Run this machine's workers for a coordinator.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ManagerArgs {
    #[command(flatten)]
    coordinator: ReachCoordinatorArgs,
    #[command(flatten)]
    managing: ManagingArgs,
    /// The manager's own directory: identity, unfinished reports, kept output [default:
    /// $XDG_STATE_HOME/mitosis/manager].
    #[arg(long, value_name = "DIR", env = "MITOSIS_MANAGER_DIR")]
    state_dir: Option<PathBuf>,
    /// What an accepted report survives: the death of any process, or a power cut.
    #[arg(
        long,
        value_name = "process|power",
        env = "MITOSIS_DURABILITY",
        default_value_t
    )]
    durability: Durability,
    /// Serve /metrics for Prometheus here; nothing is served without it.
    #[arg(long, value_name = "ADDR:PORT", env = "MITOSIS_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
}

impl ManagerArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut signals = self.managing.signals()?;
        if self.metrics_listen.is_some() {
            metrics::install().or_system()?;
        }
        let state_dir = match &self.state_dir {
            Some(dir) => std::path::absolute(dir).or_usage()?,
            None => default_state_dir().or_usage()?.join("manager"),
        };
        let mut config = self.managing.config(state_dir, self.durability)?;
        config.exclusivity = Exclusivity::Machine;
        // The coordinator may be on another machine, and does not look into this directory anyway.
        config.exec.kept_output = KeptOutput::Uploaded;
        let connector = self.connector()?;
        let metrics = match self.metrics_listen {
            Some(address) => Some(serve_metrics(address).await?),
            None => None,
        };
        config.metrics = metrics.as_ref().map(|port| port.address().to_owned());
        let manager = Manager::start(config, connector).await.or_system()?;
        until_stopped(&manager, &mut signals).await
    }

    fn connector(&self) -> Result<Arc<dyn Connector>, Failure> {
        let discovery = self.coordinator.discovery();
        let target = discovery.clone().resolve().or_system()?;
        match target.found {
            Found::Url => Ok(Arc::new(
                WsConnector::new(&target.url, target.token).or_usage()?,
            )),
            Found::StateDir(_) => Ok(Arc::new(LocalConnector { discovery })),
        }
    }
}

/// Finds the coordinator of this machine anew for each session: after a restart it has another port and token.
#[derive(Debug)]
struct LocalConnector {
    discovery: Discovery,
}

#[async_trait]
impl Connector for LocalConnector {
    async fn connect(&self) -> Result<ManagerEnd, ConnectError> {
        let discovery = self.discovery.clone();
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Unreachable {
                url: "the endpoint file".to_owned(),
                source,
            };
        let target = tokio::task::spawn_blocking(move || discovery.resolve())
            .await
            .map_err(|error| unreachable(error.into()))?
            .map_err(|error| unreachable(error.into()))?;
        let connector = WsConnector::new(&target.url, target.token)
            .map_err(|error| unreachable(error.into()))?;
        connector.connect().await
    }
}

async fn serve_metrics(address: SocketAddr) -> Result<MetricsPort, Failure> {
    MetricsPort::open(address).await.map_err(|error| {
        Failure::usage(anyhow!(
            "cannot listen on {address} ({error}); name another address with --metrics-listen"
        ))
    })
}
