//! Everything that must come before anything is leased, in the order in which it must come.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mitosis_bridge::{Gate, Server, ServerConfig, TransportRoot};
use tokio::sync::{mpsc, watch};

use crate::comm::link::Connector;
use crate::comm::{begun, ended};
use crate::file_system::removal::{remove, remove_set_aside, set_aside_if_needed};
use crate::process;
use crate::process::groups::GroupHome;
use crate::telemetry::exposition::{self, Source};
use crate::telemetry::process::watch_storage;

use super::super::admission::Admission;
use super::super::closing::Closing;
use super::super::commander::Commander;
use super::super::config::ManagerConfig;
use super::super::error::ManagerError;
use super::super::handle::{COMMANDS, ManagerHandle};
use super::super::identity::{Identity, at, create_private_dir};
use super::super::metrics::{Exposition, Gauges, Workers};
use super::super::output::OutputReader;
use super::super::reactor::{Reactor, Settings};
use super::super::session::Session;
use super::super::spool::{Recovered, SlotNotes, Spool};
use super::super::state::Now;
use super::super::supervisor::{NOTES, Supervisor};
use super::super::suspension::Suspension;
use super::super::tuner::Tuner;
use super::super::worker_process::Launcher;
use super::{NOTICES, Run, Tokens};

const RESTARTED: &str = "the manager was restarted while the task ran";

pub(super) async fn start(
    config: ManagerConfig,
    connector: Arc<dyn Connector>,
) -> Result<ManagerHandle, ManagerError> {
    config.validate()?;
    process::set_child_subreaper().map_err(ManagerError::Leftovers)?;
    watch_storage("manager", config.state_dir.clone());
    let (config, identity, root, groups, spool, recovered) =
        on_blocking_thread(move || prepare(config)).await?;
    let admission = Admission::new(&config);
    let server_config = ServerConfig {
        manager: identity.manager,
        root,
        poll: config.poll,
        capacity: admission.capacity(),
        notices: NOTICES,
    };
    let (server, handle, events) = Server::open(server_config).await.map_err(bridge_error)?;
    let workers = Workers::new(config.workers);
    let exposition: Arc<dyn Source> = Arc::new(Exposition {
        workers: workers.clone(),
        server: handle.clone(),
    });
    exposition::add_source(&exposition);
    let (notes_tx, notes_rx) = mpsc::channel(NOTES);
    let launcher = Launcher::new(
        &config,
        identity.manager,
        (identity.instance(), groups),
        handle.clone(),
        notes_tx,
    )?;
    let supervisor = Supervisor::new(
        config.workers,
        &config.limits,
        launcher,
        notes_rx,
        workers.clone(),
    );
    let (commands_tx, commands_rx) = mpsc::channel(COMMANDS);
    let (epilogue_tx, epilogue_rx) = watch::channel(None);
    let manager_handle = ManagerHandle {
        manager: identity.manager,
        instance: identity.instance(),
        commands_tx,
        epilogue_rx,
    };
    let tuner = Tuner::new(handle.clone(), workers.clone(), config.poll, config.workers);
    let run = Run {
        reactor: reactor(&config, &identity, admission, recovered),
        identity,
        spool,
        session: Session::new(connector),
        supervisor,
        server,
        commander: Commander::new(handle.clone()),
        tuner,
        outputs: OutputReader::new(config.slots_dir()),
        config,
        handle,
        events,
        workers,
        gauges: Gauges::new(),
        _exposition: exposition,
        commands_rx,
        closing: Closing::Serving,
        suspension: Suspension::new(),
        exit: None,
        tokens: Tokens::default(),
        gate: Gate::Open,
        unwritable: None,
        refused_commits: 0,
        pausing: Vec::new(),
        resuming: Vec::new(),
        only_time: false,
        timed_steps: 0,
    };
    tokio::spawn(run.run(epilogue_tx));
    Ok(manager_handle)
}

fn bridge_error(error: impl std::error::Error + Send + Sync + 'static) -> ManagerError {
    ManagerError::Bridge(Box::new(error))
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ManagerError> + Send + 'static,
) -> Result<T, ManagerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => Err(ManagerError::Leftovers(io::Error::other(panicked))),
    }
}

type Prepared = (
    ManagerConfig,
    Identity,
    TransportRoot,
    GroupHome,
    Spool,
    Recovered,
);

/// Locks, ends what an earlier life left running, and only then touches what that was writing.
fn prepare(config: ManagerConfig) -> Result<Prepared, ManagerError> {
    let identity = Identity::acquire(&config.state_dir, config.exclusivity)?;
    // Nobody bears a name that was given just now.
    let killed = match identity.is_new {
        true => 0,
        false => process::kill_marked(&identity.instance()).map_err(ManagerError::Leftovers)?,
    };
    if killed > 0 {
        tracing::warn!(
            killed,
            "processes of an earlier life were still running and are killed"
        );
    }
    let groups = GroupHome::claim(&config.state_dir, &identity.instance());
    let root = TransportRoot::for_instance(&identity.short()).map_err(bridge_error)?;
    mitosis_bridge::limits::ensure_limits(&root, config.workers).map_err(bridge_error)?;
    let notes = notes_in(&config.slots_dir());
    let (spool, recovered) = Spool::open(&config.spool_dir(), config.durability, notes)?;
    // Not before what lies in the slots is known to the spool.
    wipe(&config.slots_dir())?;
    for dir in [config.slots_dir(), config.logs_dir(), config.output_dir()] {
        create_private_dir(&dir).map_err(at("create", &dir))?;
    }
    if recovered.dropped_bytes > 0 {
        tracing::warn!(
            bytes = recovered.dropped_bytes,
            "the end of the spool was torn by a crash and is dropped; its reports were never acknowledged"
        );
    }
    Ok((config, identity, root, groups, spool, recovered))
}

/// What workers of an earlier life noted before each start and after each end; nothing when that life ended in order.
fn notes_in(slots: &Path) -> SlotNotes {
    let mut notes = SlotNotes::default();
    for slot in fs::read_dir(slots).into_iter().flatten().flatten() {
        let dir = slot.path();
        match begun::read(&dir.join(begun::FILE)) {
            Ok(begun) => notes.begun.extend(begun),
            Err(error) => {
                tracing::warn!(slot = %dir.display(), %error, "what a worker had begun cannot be read");
            }
        }
        match ended::read(&dir) {
            Ok(ended) => notes.ended.extend(ended),
            Err(error) => {
                tracing::warn!(slot = %dir.display(), %error, "what a worker had ended cannot be read");
            }
        }
    }
    notes
}

/// Whatever tasks left there does not keep a manager from starting.
fn wipe(dir: &Path) -> Result<(), ManagerError> {
    dir.parent().into_iter().for_each(remove_set_aside);
    set_aside_if_needed(dir, remove(dir)).map_err(at("wipe", dir))
}

fn reactor(
    config: &ManagerConfig,
    identity: &Identity,
    admission: Admission,
    recovered: Recovered,
) -> Reactor {
    let mut reactor = Reactor::new(Settings {
        workers: config.workers,
        prefetch: config.prefetch,
        limits: config.limits,
        admission,
        epoch: identity.boot.0,
        first_ticket: recovered.next_ticket,
        manager: identity.manager,
    });
    let now = Now::read();
    if !recovered.finals.is_empty() || !recovered.lost.is_empty() {
        tracing::info!(
            reports = recovered.finals.len(),
            begun = recovered.lost.len(),
            "what an earlier life had not told is told now; the coordinator knows which of the tasks that were begun have \
             ended"
        );
    }
    reactor.recovered(recovered.finals, now);
    for started in &recovered.lost {
        reactor.lost_execution(started, RESTARTED, now);
    }
    reactor
}
