//! Why the store refused or failed.
//!
//! Refusals (`NotFound`, `Replaced`, …) are deterministic and never retried; `Backend` failures say themselves whether
//! the same call may succeed later.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

/// Failure of a call on a running store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing of that name is stored.
    #[error("there is no {what} {uuid}")]
    NotFound {
        /// `task`, `suite`, `worker` or `manager`.
        what: &'static str,
        /// The name that was given.
        uuid: Uuid,
    },
    /// A newer session of the same holder exists; this one may not act any more.
    #[error("a newer session of the same holder has taken over")]
    Replaced,
    /// A part of a submission came before an earlier one, or after the last.
    #[error(
        "submission {submission} has {there} parts, and another one came than the next; send its parts in order, each again until \
         it is answered"
    )]
    PartMissing {
        /// The submission.
        submission: Uuid,
        /// Parts that are there.
        there: u32,
    },
    /// A manager came with a token of somebody else than the one it belongs to.
    #[error(
        "manager {manager} was first connected with the token of `{bound}`, and its name stays with that; use a token of that \
         subject, or delete `manager.uuid` in its state directory, which makes it a new manager"
    )]
    Bound {
        /// The manager.
        manager: Uuid,
        /// Whose token it showed first.
        bound: String,
    },
    /// A manager came that does not know the life of its name to which leases were granted.
    #[error(
        "manager {manager} was last heard in a life (on {host}) that this process is not the continuation of: its state \
         directory is a copy, or was put back; it is let in when the leases of that life have run out"
    )]
    Stranger {
        /// The manager.
        manager: Uuid,
        /// Where that life was.
        host: String,
    },
    /// The task has not ended, so it cannot be retried.
    #[error("task {0} has not ended; only an ended task can be retried")]
    NotEnded(Uuid),
    /// A newer holder has the task, or another one had it.
    #[error(
        "task {0} is somebody else's by now; what was left of an earlier execution is not kept"
    )]
    Superseded(Uuid),
    /// A stored value is none that this program writes.
    #[error("{what} in the store cannot be read; the file is damaged or was changed by hand")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// More lists wait for an answer than are worth waiting for.
    #[error("too many lists are being read at the moment; ask again in a moment")]
    Busy,
    /// A list took longer than one may.
    #[error(
        "the list took longer than {} s and was given up; ask for less: a suite, a state, a label, or a smaller limit",
        limit.as_secs()
    )]
    TookTooLong {
        /// How long one may take.
        limit: std::time::Duration,
    },
    /// The program failed at this call in a way it should not.
    #[error("it failed in a way it should not ({what}); please report this")]
    Fault {
        /// What was said.
        what: String,
    },
    /// The store was closed or its thread is gone.
    #[error("the store is closed")]
    Closed,
    /// The database failed.
    #[error("the store failed during {operation}")]
    Backend {
        /// What was attempted, e.g. `commit reports`.
        operation: &'static str,
        /// True for a passing fault (locked, busy, out of space).
        retryable: bool,
        /// The database's error.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// The failure of a call that panicked. Its place was told by the hook.
    #[must_use]
    pub(crate) fn of_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let words = payload.downcast_ref::<&str>().copied();
        let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Fault {
            what: words.unwrap_or("no words").to_owned(),
        }
    }

    /// True when the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::Backend {
                    retryable: true,
                    ..
                }
        )
    }

    /// The same failure, naming what was attempted.
    #[must_use]
    pub(crate) fn during(self, operation: &'static str) -> Self {
        match self {
            Self::Backend {
                retryable, source, ..
            } => Self::Backend {
                operation,
                retryable,
                source,
            },
            other => other,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error(
        "the state directory {} is in use by {}; stop that process or name another directory with --state-dir",
        dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// The process that holds it, when it could be read.
        pid: Option<u32>,
    },
    /// There is nothing to read.
    #[error("there is no store in {}; name the state directory of an earlier run with --state-dir", dir.display())]
    Missing {
        /// The state directory.
        dir: PathBuf,
    },
    /// The file was written by a later version of this program.
    #[error(
        "the store {} has schema version {found}, but this program knows only up to {known}; use the newer program or \
         another state directory",
        path.display()
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The file system refuses what the store needs.
    #[error(
        "the file system of {} does not support SQLite's write-ahead log (it offers `{mode}`); name a state directory \
         on a local disk with --state-dir",
        path.display()
    )]
    NoWriteAheadLog {
        /// The database file.
        path: PathBuf,
        /// The journal mode that was got instead.
        mode: String,
    },
    /// The file was written by an earlier version of this program, and reading alone may not change it.
    #[error(
        "the store {} has schema version {found}, and this program reads version {known}; start a coordinator on it \
         once, which brings it up to date",
        path.display()
    )]
    OlderSchema {
        /// The database file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The version this program reads.
        known: i64,
    },
    /// A directory or file cannot be made or opened.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was attempted, e.g. `create the state directory`.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The database refused.
    #[error("could not open the store {}", path.display())]
    Backend {
        /// The database file.
        path: PathBuf,
        /// The database's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
