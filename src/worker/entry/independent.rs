//! An independent worker: name, directory, registration, executor, loop.
//!
//! A name that was given is locked on this machine before it is registered, so that a twin cannot take the leases of
//! the one that runs; a new name comes from the registration and nobody else has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use crate::comm::http::{HttpWorkerComm, HttpWorkerConfig};
use crate::comm::{CommError, WorkerComm};
use crate::endpoint::default_state_dir;
use crate::telemetry::endpoint::MetricsPort;
use crate::telemetry::metrics;
use crate::worker::args::Independent;
use crate::worker::backoff::Jitter;
use crate::worker::executor::Executor;
use crate::worker::files::Uploader;
use crate::worker::run::{Ended, LoopConfig, Parts, run};
use crate::worker::runner::{Gatekeeper, RunnerThread};
use crate::worker::signals::StopSignals;
use crate::worker::status::MetricsStatus;

use super::StartError;
use super::slot::Slot;

/// How long a coordinator that cannot be reached is tried; whoever starts workers may start it a little later.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the goodbye of a worker that could not start may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn serve(
    independent: Independent,
    signals: &mut StopSignals,
) -> Result<Ended, StartError> {
    let state_dir = match &independent.state_dir {
        Some(dir) => dir.clone(),
        None => default_state_dir()?.join("workers"),
    };
    let known_slot = independent
        .worker
        .map(|worker| Slot::take(&state_dir, worker))
        .transpose()?;
    let url = independent
        .coordinator
        .as_str()
        .trim_end_matches('/')
        .to_owned();
    let _metrics = match independent.metrics_listen {
        Some(address) => serve_metrics(address).await,
        None => None,
    };
    let config = http_config(independent, &url);
    let connected = tokio::select! {
        connected = connect(&config) => connected,
        _ = signals.next() => return Ok(Ended::before_the_start()),
    };
    let comm = connected.map_err(|source| StartError::Register {
        url: url.clone(),
        source,
    })?;
    let worker = comm.worker_uuid();
    info!(%worker, %url, "HTTP connected");
    let ended = match known_slot {
        Some(slot) => serve_connected(&comm, &slot, (worker, &url), signals).await,
        None => {
            let slot = Slot::take(&state_dir, worker)?;
            serve_connected(&comm, &slot, (worker, &url), signals).await
        }
    };
    if ended.is_err() {
        // Nobody else can say that this name will not fetch anything.
        comm.leave(GOODBYE_LIMIT).await;
    }
    info!(%worker, %url, "HTTP disconnected");
    ended
}

async fn serve_connected(
    comm: &HttpWorkerComm,
    slot: &Slot,
    (worker, url): (Uuid, &str),
    signals: &mut StopSignals,
) -> Result<Ended, StartError> {
    // Blocks for a few file calls before anything else goes on in this process.
    let executor = Executor::new(&slot.exec_config(url))?;
    let sender = Uploader::new(executor.outgoing().clone(), Some(url.to_owned()));
    let status = Arc::new(MetricsStatus::new(worker));
    let (thread, queue) =
        RunnerThread::start(executor, status.clone(), Gatekeeper::default(), None, 0)
            .map_err(StartError::runner)?;
    let parts = Parts {
        comm,
        sender: &sender,
        status: status.as_ref(),
    };
    let config = LoopConfig::independent(comm.heartbeat_interval());
    let ended = run(parts, queue, signals, config).await;
    thread.join().await;
    Ok(ended)
}

/// Without its metrics a worker is still a worker: what is in the way is named, and it goes on.
async fn serve_metrics(address: SocketAddr) -> Option<MetricsPort> {
    if let Err(error) = metrics::install() {
        warn!(%error, "no metrics are recorded");
        return None;
    }
    match MetricsPort::open(address).await {
        Ok(port) => Some(port),
        Err(error) => {
            warn!(%address, %error, "no metrics are served; name another address with --metrics-listen");
            None
        }
    }
}

/// Registers, trying again while the coordinator is away.
async fn connect(config: &HttpWorkerConfig) -> Result<HttpWorkerComm, CommError> {
    let give_up = Instant::now() + PATIENCE;
    let mut jitter = Jitter::new();
    let mut failures = 0;
    loop {
        failures += 1;
        match HttpWorkerComm::connect(config.clone()).await {
            Err(error @ CommError::Retryable { after, .. }) => {
                let pause = jitter.pause(failures).max(after.unwrap_or_default());
                if Instant::now() + pause >= give_up {
                    return Err(error);
                }
                if failures == 1 {
                    warn!(%error, "the coordinator cannot be reached; trying again");
                }
                tokio::time::sleep(pause).await;
            }
            connected => return connected,
        }
    }
}

fn http_config(independent: Independent, url: &str) -> HttpWorkerConfig {
    let host = rustix::system::uname();
    HttpWorkerConfig {
        url: url.to_owned(),
        token: independent.token,
        worker_uuid: independent.worker,
        host: host.nodename().to_string_lossy().into_owned(),
        tags: independent.tags,
        labels: independent.labels,
    }
}
