//! Why a manager cannot start or cannot go on.

use std::io;
use std::path::PathBuf;

/// The manager ended with a fault. Everything passing is retried inside; what arrives here needs a person.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// A value of the configuration is out of its range.
    #[error("the manager's configuration is wrong: {message}")]
    Config {
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// Another process uses the state directory.
    #[error(
        "the state directory {} is in use by process {holder}; stop it, or name another directory with --state-dir",
        dir.display()
    )]
    StateDirInUse {
        /// The directory.
        dir: PathBuf,
        /// Its pid, as it wrote it down; `unknown` when it is just starting.
        holder: String,
    },
    /// Another manager runs on this machine.
    #[error(
        "another manager runs on this machine: process {holder} holds {}; stop it first",
        lock.display()
    )]
    MachineInUse {
        /// The lock file.
        lock: PathBuf,
        /// Its pid, as it wrote it down.
        holder: String,
    },
    /// A directory is somebody else's, or may become so.
    #[error(
        "the manager has no directory of its own; name another with --state-dir, or XDG_RUNTIME_DIR for its lock"
    )]
    NotOurs(#[from] mitosis_bridge::ours::NotOurs),
    /// A file of the state directory cannot be used.
    #[error("cannot {operation} {}", path.display())]
    StateDir {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The identity file holds something else.
    #[error(
        "{} does not hold a manager uuid; restore it, or remove it and lose the tasks this manager holds",
        path.display()
    )]
    BadIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The transport cannot be opened.
    #[error("the bridge to the workers cannot be opened")]
    Bridge(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Processes of an earlier life cannot be looked for.
    #[error("cannot look for processes that an earlier life left behind")]
    Leftovers(#[source] io::Error),
    /// The own executable cannot be found.
    #[error("cannot find the program that workers run")]
    WorkerProgram(#[source] io::Error),
    /// No worker ever came up.
    #[error("no worker could be started; the last one: {last}")]
    NoWorkers {
        /// What happened to the last one, with the end of its log.
        last: String,
    },
    /// The coordinator refuses this manager for good.
    #[error("the coordinator refuses this manager: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// The poller ended by itself.
    #[error("the bridge's poller has ended")]
    BridgeEnded,
    /// The manager has ended already.
    #[error("the manager has ended")]
    Ended,
}

impl ManagerError {
    /// True when starting again later, with nothing changed by a person, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::StateDirInUse { .. } | Self::MachineInUse { .. })
    }
}
