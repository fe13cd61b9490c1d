//! Why the coordinator refused or failed, with the stable word that programs see.
//!
//! The mapping to HTTP status codes is the HTTP module's; the words here are the contract between the two.

use uuid::Uuid;

use super::artifacts::UploadError;
use super::store::{OpenError, StoreError};
use crate::protocol::capacity::Lack;
use crate::protocol::chain::ChainError;
use crate::protocol::task::SpecError;

/// Failure of a call on the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An artifact was not taken, or cannot be read.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// A submit without tasks that names no new suite.
    #[error("the submit has no tasks; give at least one, or ask for a new suite by name")]
    NothingSubmitted,
    /// One spec of a submit breaks a rule.
    #[error("task {index} is refused: {source}")]
    BadTask {
        /// Its place in the submit, from 0.
        index: usize,
        /// The rule, in words for its author; part of the message because it is the message.
        source: SpecError,
    },
    /// The names of a submit are no graph.
    #[error("task {} is refused: {}", .0.index, .0.problem)]
    BadChain(ChainError),
    /// One spec or key of a submit is too large.
    #[error(
        "task {index} is refused: its {part} has {bytes} bytes, and {limit} is the most that is accepted"
    )]
    TooLarge {
        /// Its place in the submit, from 0.
        index: usize,
        /// `spec` or `key`.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size accepted.
        limit: usize,
    },
    /// One spec of a submit has something that cannot be written down.
    #[error("task {index} is refused: it cannot be stored: {message}")]
    Unencodable {
        /// Its place in the submit, from 0.
        index: usize,
        /// What the encoder says.
        message: String,
    },
    /// Tasks that wait for each other came in several parts.
    #[error(
        "a submission whose tasks have `upstream` comes in one part; send all of it in one call"
    )]
    LinkedParts,
    /// One task of a submit needs more than anybody has.
    #[error(
        "task {index} can never run: it needs {}, and the most that anybody connected has is {}; ask for less, or \
         connect a larger machine first", .lack.wanted, .lack.there
    )]
    Unfit {
        /// Its place in the submit, from 0.
        index: usize,
        /// What is missing.
        lack: Lack,
    },
    /// The submit as a whole is too large for one transaction.
    #[error(
        "the submit has {bytes} bytes, and {limit} is the most one call may have; split it into several calls"
    )]
    SubmitTooLarge {
        /// Size of all specs.
        bytes: usize,
        /// The largest size accepted.
        limit: usize,
    },
    /// A filter, cursor or limit makes no sense.
    #[error("`{field}` is `{value}`; {expected}")]
    BadQuery {
        /// The parameter.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is expected, in words.
        expected: &'static str,
    },
    /// Nothing is kept of one attempt of a task.
    #[error("nothing is kept of attempt {attempt} of task {task}: {why}")]
    NoAttempt {
        /// The task.
        task: Uuid,
        /// Its number.
        attempt: u32,
        /// Why, in words.
        why: String,
    },
    /// The worker never registered, or it left.
    #[error("worker {0} is not registered; register first")]
    WorkerGone(Uuid),
    /// The manager has no such worker.
    #[error(
        "there is no worker {worker}: this manager has {slots}, numbered from 0; `mitosis tune` lists them"
    )]
    NoSuchWorker {
        /// The number that was given.
        worker: u16,
        /// Worker slots of the manager.
        slots: u32,
    },
    /// The manager has no open session.
    #[error(
        "manager {0} is not connected, and nothing was changed; start it, or name another one of `mitosis managers`"
    )]
    ManagerAway(Uuid),
    /// The manager did not answer in time.
    #[error(
        "manager {0} did not answer in time; it takes the order up when it does, and `mitosis tune` without options tells"
    )]
    ManagerSilent(Uuid),
    /// Nothing can be read of what the task writes before it has ended.
    #[error(
        "task {task} is with the independent worker {worker}, whose output comes when the task has ended; a task that a \
         manager runs can be followed"
    )]
    NotFollowed {
        /// The task.
        task: Uuid,
        /// Who has it.
        worker: Uuid,
    },
    /// As many as there may be follow tasks.
    #[error("{limit} readers follow tasks already, which is the most; try again in a moment")]
    TooManyFollowers {
        /// The most there may be.
        limit: usize,
    },
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// No random numbers for keys.
    #[error("the system gave no random numbers")]
    Random(#[source] getrandom::Error),
}

impl CoordinatorError {
    /// True when the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Stopping
            | Self::ManagerAway(_)
            | Self::ManagerSilent(_)
            | Self::TooManyFollowers { .. } => true,
            _ => false,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(StoreError::NotFound { .. }) => "not_found",
            Self::Store(StoreError::NotEnded(_)) => "not_ended",
            Self::Store(
                StoreError::Replaced | StoreError::Bound { .. } | StoreError::Stranger { .. },
            ) => "replaced",
            Self::Store(StoreError::Superseded(_)) => "superseded",
            Self::Store(StoreError::PartMissing { .. }) => "part_missing",
            Self::Store(StoreError::Closed) | Self::Stopping => "stopping",
            Self::Store(StoreError::Busy) => "busy",
            Self::Store(StoreError::TookTooLong { .. }) => "took_too_long",
            Self::Store(
                StoreError::Backend { .. } | StoreError::Corrupt { .. } | StoreError::Fault { .. },
            )
            | Self::Open(_)
            | Self::Random(_) => "store",
            Self::Upload(UploadError::TooLarge { .. }) => "too_large",
            Self::Upload(UploadError::Digest { .. } | UploadError::BrokeOff) => "bad_artifact",
            Self::Upload(UploadError::Silence) => "body_timeout",
            Self::Upload(UploadError::NoRoom(_)) => "no_room",
            Self::Upload(UploadError::Files(_)) => "store",
            Self::NothingSubmitted
            | Self::BadTask { .. }
            | Self::BadChain(_)
            | Self::LinkedParts
            | Self::Unencodable { .. } => "bad_task",
            Self::TooLarge { .. } | Self::SubmitTooLarge { .. } => "too_large",
            Self::Unfit { .. } => "unfit",
            Self::BadQuery { .. } => "bad_query",
            Self::NoAttempt { .. } => "no_attempt",
            Self::WorkerGone(_) => "worker_gone",
            Self::NoSuchWorker { .. } => "no_such_worker",
            Self::ManagerAway(_) => "manager_away",
            Self::ManagerSilent(_) => "manager_silent",
            Self::NotFollowed { .. } => "not_followed",
            Self::TooManyFollowers { .. } => "too_many_followers",
        }
    }
}
