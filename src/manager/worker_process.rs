//! One worker process from its invitation to the last of what it left behind.
//!
//! [`Launcher::live`] is one future per life, driven by the supervisor: invite, spawn, wait for the exit, drain its frames at
//! the bridge, kill its tree, reap. Its notes tell the loop; the order of these steps is what makes a re-dispatch safe.
//!
//! A worker gets the manager's environment without any `MITOSIS_*` variable, the mark of this installation, three
//! descriptors and nothing secret: the token of its connection lies in the first message on its doorbell.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mitosis_bridge::error::BridgeError;
use mitosis_bridge::server::{InheritedFds, Invitation, ServerHandle};
use mitosis_bridge::status::StatusView;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::comm::{begun, ended};
use crate::error_chain::error_chain;
use crate::process::groups::GroupHome;
use crate::process::passed::WORKERS_FIRST_PASSED;
use crate::process::{
    self, Child, ExitInfo, MARK, Pid, ProcessGroup, Signal, SpawnSpec, kill_adopted, kill_tree,
};
use crate::protocol::frame::{WorkerSetup, encode};
use crate::protocol::{ControlState, Incarnation, LocalId, Try};

use super::config::{ExecDefaults, ManagerConfig, WorkerProgram};
use super::error::ManagerError;
use super::identity::create_private_dir;
use super::state::LeaseKey;

/// How long the processes of a dead worker are waited for after they were killed.
const TREE_LIMIT: Duration = Duration::from_secs(2);
/// A log above this size becomes the old one at the next start.
const LOG_LIMIT: u64 = 1 << 20;
/// Bytes of a log that are shown when a worker does not come up.
const LOG_TAIL: u64 = 600;

/// What a life has to say.
#[derive(Debug)]
pub(super) enum WorkerNote {
    /// The process runs.
    Launched {
        local_id: LocalId,
        incarnation: Incarnation,
        pid: Pid,
        /// Signals it, also when its pid is somebody else's by now.
        pidfd: OwnedFd,
        status: StatusView,
    },
    /// No process was started.
    NotLaunched { local_id: LocalId, reason: String },
    /// The process is dead, its frames are in the bridge's events, its tree is killed.
    Gone {
        local_id: LocalId,
        incarnation: Incarnation,
        /// `None` when the kernel would not say.
        exit: Option<ExitInfo>,
        /// Hand-overs that its slot's workers began to execute, as they noted before each start.
        begun: Vec<(LeaseKey, Try)>,
        /// Ends that are written down in its slot: told or not.
        ended: Vec<ended::Ended>,
        log_tail: String,
    },
}

/// Everything that all lives have in common. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    shared: Arc<Shared>,
    server: ServerHandle,
    /// Filled by every life; full: the life waits; closed: the manager has ended, and so has the life.
    notes_tx: mpsc::Sender<WorkerNote>,
}

#[derive(Debug)]
struct Shared {
    manager: Uuid,
    instance: String,
    slots_dir: PathBuf,
    logs_dir: PathBuf,
    output_dir: PathBuf,
    exec: ExecDefaults,
    environment: Vec<CString>,
    program: Program,
    groups: GroupHome,
}

impl Launcher {
    /// Finds the program and reads the environment, once.
    ///
    /// # Errors
    /// When the own executable cannot be opened.
    pub(super) fn new(
        config: &ManagerConfig,
        manager: Uuid,
        (instance, groups): (String, GroupHome),
        server: ServerHandle,
        notes_tx: mpsc::Sender<WorkerNote>,
    ) -> Result<Self, ManagerError> {
        let program = Program::open(&config.worker_program).map_err(ManagerError::WorkerProgram)?;
        Ok(Self {
            shared: Arc::new(Shared {
                manager,
                environment: environment(&instance),
                instance,
                slots_dir: config.slots_dir(),
                logs_dir: config.logs_dir(),
                output_dir: config.output_dir(),
                exec: config.exec.clone(),
                program,
                groups,
            }),
            server,
            notes_tx,
        })
    }

    /// One life. `control` is the state at its beginning.
    pub(super) async fn live(self, local_id: LocalId, control: ControlState) {
        let log = Log::of(&self.shared.logs_dir, local_id);
        let (mut child, incarnation, status) = match self.launch(local_id, control, &log).await {
            Ok(launched) => launched,
            Err(reason) => {
                return self
                    .note(WorkerNote::NotLaunched { local_id, reason })
                    .await;
            }
        };
        if let Err(error) = child.exited().await {
            tracing::error!(worker = %local_id, %error, "a worker process cannot be watched; it is ended");
        }
        let exit = self.bury(&mut child, incarnation, &status).await;
        self.shared.groups.clear(&local_id.to_string());
        self.note(WorkerNote::Gone {
            local_id,
            incarnation,
            exit,
            begun: self.shared.begun(local_id),
            ended: self.shared.ended(local_id),
            log_tail: log.tail(),
        })
        .await;
    }

    async fn note(&self, note: WorkerNote) {
        // Nobody listens once the manager has ended; it has killed everything then.
        let _ = self.notes_tx.send(note).await;
    }

    async fn launch(
        &self,
        local_id: LocalId,
        control: ControlState,
        log: &Log,
    ) -> Result<(Child, Incarnation, StatusView), String> {
        let setup = self.setup(local_id, control);
        let invited = self.server.invite(local_id, setup).await;
        let Invitation {
            incarnation,
            fds,
            status,
        } = invited.map_err(|error| error_chain(&error))?;
        let shared = Arc::clone(&self.shared);
        let log = log.clone();
        let spawned = tokio::task::spawn_blocking(move || shared.spawn(local_id, fds, &log));
        let launched = match spawned.await {
            Ok(Ok(child)) => child
                .pidfd()
                .and_then(|fd| fd.try_clone_to_owned())
                .map(|fd| (child, fd)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the spawning thread panicked")),
        };
        match launched {
            Ok((child, pidfd)) => {
                self.note(WorkerNote::Launched {
                    local_id,
                    incarnation,
                    pid: child.pid(),
                    pidfd,
                    status: status.clone(),
                })
                .await;
                Ok((child, incarnation, status))
            }
            Err(error) => {
                self.retire(incarnation).await;
                Err(error_chain(&error))
            }
        }
    }

    fn setup(&self, local_id: LocalId, control: ControlState) -> Bytes {
        let shared = &self.shared;
        let setup = WorkerSetup {
            slot_dir: shared.slots_dir.join(local_id.to_string()),
            output_dir: shared.output_dir.clone(),
            instance: shared.instance.clone(),
            env: shared.exec.env,
            cwd: shared.exec.cwd.clone(),
            kept_output: shared.exec.kept_output,
            groups: shared.groups.places().clone(),
            live_dir: shared.exec.live_dir.clone(),
            halt_after: shared.exec.halt_after,
            apart: shared.exec.apart,
            nice: shared.exec.nice,
            passed: shared.exec.passed.numbers(),
            control,
        };
        Bytes::from(encode(&setup))
    }

    /// The process is dead and not reaped: its pid and group are still its own.
    async fn bury(
        &self,
        child: &mut Child,
        incarnation: Incarnation,
        status: &StatusView,
    ) -> Option<ExitInfo> {
        // Its last frames first: a finished report may lie there.
        self.retire(incarnation).await;
        // Whatever else it started is in its own group or in that of its task, or was adopted by this process.
        let _ = child.signal_group(Signal::KILL);
        let swept = match task_group(status) {
            Some(group) => kill_tree(group, TREE_LIMIT).await,
            None => kill_adopted(TREE_LIMIT).await,
        };
        if !swept.left.is_empty() {
            tracing::error!(left = ?swept.left, "processes of a dead worker do not die");
        }
        match child.wait().await {
            Ok(exit) => Some(exit),
            Err(error) => {
                tracing::error!(%error, "the exit of a worker cannot be read");
                None
            }
        }
    }

    async fn retire(&self, incarnation: Incarnation) {
        match self.server.retire(incarnation).await {
            Ok(()) | Err(BridgeError::Closed) => {}
            Err(error) => tracing::warn!(%incarnation, %error, "a worker could not be retired"),
        }
    }
}

/// The process group of the task that a worker runs, if it runs one.
pub(super) fn task_group(status: &StatusView) -> Option<Pid> {
    let task = status.snapshot().task?;
    Pid::from_raw(i32::try_from(task.pgid).ok()?)
}

impl Shared {
    fn begun(&self, local_id: LocalId) -> Vec<(LeaseKey, Try)> {
        let path = self.slots_dir.join(local_id.to_string()).join(begun::FILE);
        let notes = begun::read(&path).unwrap_or_else(|error| {
            tracing::warn!(worker = %local_id, %error, "what a dead worker had begun cannot be read");
            Vec::new()
        });
        let hand_over = |begun: &begun::Begun| {
            let lease = LeaseKey {
                task_id: begun.task_id,
                lease: begun.lease,
            };
            (lease, begun.try_no)
        };
        notes.iter().map(hand_over).collect()
    }

    fn ended(&self, local_id: LocalId) -> Vec<ended::Ended> {
        let slot = self.slots_dir.join(local_id.to_string());
        ended::read(&slot).unwrap_or_else(|error| {
            tracing::warn!(worker = %local_id, %error, "what a dead worker had ended cannot be read");
            Vec::new()
        })
    }

    fn spawn(&self, local_id: LocalId, fds: InheritedFds, log: &Log) -> io::Result<Child> {
        create_private_dir(&self.slots_dir.join(local_id.to_string()))?;
        let output = log.open()?;
        let errors = output.try_clone()?;
        let null = File::open("/dev/null")?;
        let own = [(fds.doorbell, 3), (fds.status, 4), (fds.board, 5)];
        let own = own.map(|(fd, number)| (fd.into(), number));
        let passed = self.exec.passed.for_worker(WORKERS_FIRST_PASSED);
        let spec = SpawnSpec {
            program: self.program.path(),
            argv: self.program.argv(self.manager, local_id),
            env: self.environment.clone(),
            cwd: None,
            stdin: OwnedFd::from(null).into(),
            stdout: OwnedFd::from(output).into(),
            stderr: OwnedFd::from(errors).into(),
            inherit: own.into_iter().chain(passed).collect(),
            process_group: ProcessGroup::New,
        };
        process::spawn(&spec).map_err(io::Error::other)
    }
}

/// The manager's environment without its secrets, with the mark.
fn environment(instance: &str) -> Vec<CString> {
    let inherited = std::env::vars_os().filter(|(name, _)| {
        let name = name.as_bytes();
        !name.starts_with(b"MITOSIS_") && !name.starts_with(b"MITO_")
    });
    let mark = (MARK.into(), instance.into());
    inherited
        .chain([mark])
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            // The kernel gave these strings, so none has a NUL byte.
            CString::new(entry).ok()
        })
        .collect()
}

/// The worker program, held open so that a replaced file does not mix versions.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    file: File,
    subcommand: bool,
}

impl Program {
    fn open(program: &WorkerProgram) -> io::Result<Self> {
        let (path, subcommand) = match program {
            WorkerProgram::Current => (std::env::current_exe()?, true),
            WorkerProgram::Mitosis(path) => (path.clone(), true),
            WorkerProgram::MitosisWorker(path) => (path.clone(), false),
        };
        let opened = match program {
            WorkerProgram::Current => File::open("/proc/self/exe")?,
            _ => File::open(&path)?,
        };
        Ok(Self {
            path,
            file: opened,
            subcommand,
        })
    }

    /// The path while it is still the same file, because `ps` shows it; else the descriptor of this process.
    fn path(&self) -> PathBuf {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let opened = self.file.metadata().map(identity).ok();
        let at_path = fs::metadata(&self.path).map(identity).ok();
        if opened == at_path {
            return self.path.clone();
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.file.as_fd());
        PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()))
    }

    fn argv(&self, manager: Uuid, local_id: LocalId) -> Vec<CString> {
        let name = if self.subcommand {
            "mitosis"
        } else {
            "mitosis-worker"
        };
        let (manager, local_id) = (manager.to_string(), local_id.to_string());
        let arguments = [
            "--managed",
            "--manager-uuid",
            &manager,
            "--worker-local-id",
            &local_id,
        ];
        std::iter::once(name)
            .chain(self.subcommand.then_some("worker"))
            .chain(arguments)
            .map(|argument| CString::new(argument).expect("no argument has a NUL byte"))
            .collect()
    }
}

/// The log of one slot; all its workers append to it.
#[derive(Debug, Clone)]
struct Log {
    path: PathBuf,
    began_at: u64,
}

impl Log {
    fn of(dir: &Path, local_id: LocalId) -> Self {
        let path = dir.join(format!("worker-{local_id}.log"));
        let mut began_at = fs::metadata(&path).map_or(0, |meta| meta.len());
        if began_at > LOG_LIMIT && fs::rename(&path, path.with_extension("log.old")).is_ok() {
            began_at = 0;
        }
        Self { path, began_at }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// The end of what this life wrote.
    fn tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                self.began_at.max(length.saturating_sub(LOG_TAIL)),
            ))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // Without a log the reason of the exit has to do.
        String::from_utf8_lossy(&read().unwrap_or_default())
            .trim()
            .to_owned()
    }
}
