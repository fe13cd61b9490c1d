//! Why a run did not come about or did not come to its end.

use std::io;
use std::path::PathBuf;

use super::given::GivenError;
use super::input::InputError;
use super::manifest::ManifestError;
use super::records::RecordError;
use super::state_dir::StateDirError;
use super::stem::StemError;
use crate::coordinator::CoordinatorError;
use crate::coordinator::store::OpenError;

/// Failure of a run as a whole. A failed task is none.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no place for the state.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The note about the input cannot be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The coordinator refused or failed.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// The manager failed.
    #[error("the manager failed")]
    Manager(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The HTTP face cannot be opened.
    #[error("the local HTTP service cannot be started")]
    Service(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The input cannot be read to its end.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What was written cannot be recorded.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// Two tasks would write to one file.
    #[error(transparent)]
    Stem(#[from] StemError),
    /// A file about the run cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nothing to resume.
    #[error("{} holds no run that could be resumed; give a file with tasks", .0.display())]
    NothingToResume(PathBuf),
    /// Tasks that this machine can never run.
    #[error(
        "nothing was run, because this machine cannot run everything; ask for less, or raise --workers, --total-cpus, \
         --total-mem or --total-gpus:\n{0}"
    )]
    Unfit(String),
    /// The store lacks a task that the note names.
    #[error("the task {task} of line {line} is not in the store; resume by giving the input again")]
    Forgotten {
        /// Its row id.
        task: i64,
        /// Its line.
        line: u64,
    },
    /// A system call that a run cannot do without.
    #[error("failed to {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Outputs are lost to the user, though their tasks ended.
    #[error("{first} ({count} in all); what was kept is in {}", state_dir.display())]
    Output {
        /// Outputs that were not written.
        count: u64,
        /// The first, in words.
        first: String,
        /// Where results and kept outputs are.
        state_dir: PathBuf,
    },
}

impl RunError {
    /// True when the caller has to change something; false when the system failed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::StateDir(_)
            | Self::Input(_)
            | Self::Stem(_)
            | Self::Record(_)
            | Self::NothingToResume(_)
            | Self::Unfit(_) => true,
            Self::Coordinator(error) => {
                matches!(
                    error,
                    CoordinatorError::Open(OpenError::InUse { .. })
                        | CoordinatorError::BadTask { .. }
                        | CoordinatorError::TooLarge { .. }
                        | CoordinatorError::SubmitTooLarge { .. }
                )
            }
            _ => false,
        }
    }

    /// Makes an I/O error say what was tried.
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
