//! Why a worker cannot start, and the exit code that says so.

use std::io;
use std::path::PathBuf;

use mitosis_bridge::client::Expected;
use mitosis_bridge::error::OpenError;
use mitosis_bridge::ids::LocalId;
use uuid::Uuid;

use crate::comm::CommError;
use crate::endpoint::DiscoverError;
use crate::exit_code::Exit;
use crate::protocol::frame::DecodeError;
use crate::worker::executor::ExecError;
use crate::worker::secret::TokenError;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The manager cannot be reached.
    #[error(
        "failed to connect worker {local_id} to manager {manager}; managed workers are started by a manager"
    )]
    Connect {
        /// The manager on the command line.
        manager: Uuid,
        /// The slot on the command line.
        local_id: LocalId,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The manager's invitation makes no sense to this version.
    #[error(
        "failed to understand the manager's invitation; start manager and workers from one build"
    )]
    Setup(#[from] DecodeError),
    /// There is no usable token.
    #[error("failed to read the token")]
    Token(#[from] TokenError),
    /// The worker's directory is somebody else's, or may become so.
    #[error("the worker has no directory of its own; name another with --state-dir")]
    NotOurs(#[from] mitosis_bridge::ours::NotOurs),
    /// The slot's directories cannot be used.
    #[error("failed to set up the executor")]
    Executor(#[from] ExecError),
    /// A system call failed.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The coordinator cannot be reached, or does not want this worker.
    #[error("failed to register with the coordinator at {url}")]
    Register {
        /// Where it was looked for.
        url: String,
        /// Why.
        #[source]
        source: CommError,
    },
    /// No directory was named and there is none by default.
    #[error("failed to choose a state directory")]
    StateDir(#[from] DiscoverError),
    /// A directory or file of the worker cannot be used.
    #[error("failed to {action} {}", .path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The name is taken on this machine.
    #[error("another process runs as worker {worker} ({} is locked); stop it, or leave out --worker-uuid", .path.display())]
    Twin {
        /// The name.
        worker: Uuid,
        /// The lock.
        path: PathBuf,
    },
}

impl StartError {
    /// The thread that runs tasks cannot be started.
    pub(super) fn runner(source: io::Error) -> Self {
        Self::System {
            action: "start the thread that runs tasks",
            source,
        }
    }

    pub(super) fn connect(expected: Expected, source: OpenError) -> Self {
        let Expected { manager, local_id } = expected;
        Self::Connect {
            manager,
            local_id,
            source,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Connect { source, .. } => match source {
                OpenError::MissingDescriptor { .. }
                | OpenError::Gone
                | OpenError::GivenUp
                | OpenError::TimedOut { .. } => Exit::ManagerGone,
                OpenError::Refused { .. }
                | OpenError::Mismatch { .. }
                | OpenError::Invitation { .. } => Exit::Refused,
                OpenError::Root(_)
                | OpenError::System { .. }
                | OpenError::Transport(_)
                | OpenError::PollerDied => Exit::System,
            },
            Self::Setup(_) => Exit::Refused,
            Self::Token(_) | Self::StateDir(_) | Self::NotOurs(_) => Exit::Usage,
            Self::Register { source, .. } => match source {
                CommError::Refused { .. } => Exit::Refused,
                CommError::Retryable { .. } | CommError::PeerGone { .. } => Exit::ManagerGone,
                CommError::Protocol { .. } => Exit::System,
            },
            Self::Executor(_) | Self::Path { .. } | Self::Twin { .. } | Self::System { .. } => {
                Exit::System
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_chain::error_chain;

    #[test]
    fn a_worker_without_a_manager_says_which_one_and_what_to_do() {
        let expected = Expected {
            manager: Uuid::from_u128(7),
            local_id: LocalId(3),
        };
        let error = StartError::connect(expected, OpenError::Gone);
        let text = error_chain(&error);
        for part in [
            "worker 3",
            &Uuid::from_u128(7).to_string(),
            "started by a manager",
            "gone",
        ] {
            assert!(text.contains(part), "`{text}` lacks `{part}`");
        }
        assert_eq!(error.exit(), Exit::ManagerGone);
    }
}
