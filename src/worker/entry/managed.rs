//! A managed worker: invitation, connection, executor, loop.

use std::sync::Arc;

use mitosis_bridge::client::{Client, ClientFds, ClientHandle, Expected, Setup};
use tracing::info;

use crate::comm::ended::Ends;
use crate::comm::ipc::{BridgeLink, IpcIdentity, IpcWorkerComm};
use crate::process::passed::{Passed, WORKERS_FIRST_PASSED};
use crate::protocol::frame::{self, WorkerSetup};
use crate::worker::executor::{ExecConfig, Executor};
use crate::worker::files::Uploader;
use crate::worker::run::{Ended, LoopConfig, Parts, run};
use crate::worker::runner::{Gatekeeper, RunnerThread};
use crate::worker::signals::StopSignals;
use crate::worker::status::BlockStatus;

use super::StartError;

pub(super) async fn serve(
    fds: ClientFds,
    expected: Expected,
    signals: &mut StopSignals,
) -> Result<Ended, StartError> {
    let opened = tokio::select! {
        opened = Client::open(fds, expected) => opened,
        _ = signals.next() => return Ok(Ended::before_the_start()),
    };
    let (client, handle, setup) = opened.map_err(|source| StartError::connect(expected, source))?;
    info!(manager = %expected.manager, local_id = %expected.local_id, incarnation = %setup.incarnation,
        "IPC connected");
    let ended = serve_connected(client, handle, &setup, signals).await;
    info!(manager = %expected.manager, local_id = %expected.local_id, "IPC disconnected");
    ended
}

async fn serve_connected(
    client: Client,
    handle: ClientHandle,
    setup: &Setup,
    signals: &mut StopSignals,
) -> Result<Ended, StartError> {
    let known: WorkerSetup = frame::decode("worker setup", &setup.setup)?;
    // Blocks for a few file calls before anything else goes on in this process.
    let passed =
        Passed::inherited(WORKERS_FIRST_PASSED, &known.passed).map_err(StartError::runner)?;
    let config = ExecConfig::from_setup(&known, setup.local_id.to_string(), passed);
    let executor = Executor::new(&config)?;
    let identity = IpcIdentity {
        local_id: setup.local_id,
        incarnation: setup.incarnation,
    };
    let link = BridgeLink::new(client, handle.clone());
    let comm = IpcWorkerComm::new(link, identity, &known.control);
    let sender = Uploader::new(executor.outgoing().clone(), None);
    let ends = Ends::create(&known.slot_dir).map_err(StartError::runner)?;
    let gate = Gatekeeper::new(handle.gate(), known.halt_after.into())
        .apart(known.apart.map(|apart| apart.0));
    let status = Arc::new(BlockStatus::new(handle));
    let (thread, queue) =
        RunnerThread::start(executor, status.clone(), gate, Some(ends), known.nice)
            .map_err(StartError::runner)?;
    let parts = Parts {
        comm: &comm,
        sender: &sender,
        status: status.as_ref(),
    };
    let ended = run(parts, queue, signals, LoopConfig::managed()).await;
    thread.join().await;
    Ok(ended)
}

#[cfg(test)]
mod tests;
