//! Errors of the bridge, one enum per kind of caller.
//!
//! Back-pressure, gone, closed and late are different variants everywhere, and each error knows whether trying again can
//! help. Texts are fragments that complete "failed to …"; sources are chained, not repeated.

use std::io;

use crate::header::{MAX_CONTROL, MAX_PAYLOAD};
use crate::ids::{Incarnation, LocalId};
use crate::limits::LimitsError;
use crate::root::RootError;

/// An operation of the transport failed.
#[derive(Debug, thiserror::Error)]
#[error("transport: {operation}")]
pub struct TransportError {
    /// What was tried.
    pub(crate) operation: &'static str,
    /// The typed error of the transport.
    #[source]
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

impl TransportError {
    /// The transport's own errors are names of its inside; where a segment had no room or a wrong owner, that is told
    /// instead.
    pub(crate) fn new(
        operation: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let source: Box<dyn std::error::Error + Send + Sync> =
            match crate::transport::ipc::take_failure() {
                Some(error) => Box::new(error),
                None => Box::new(Inside(Box::new(source))),
            };
        Self { operation, source }
    }
}

/// An error of the transport's library in a sentence.
#[derive(Debug, thiserror::Error)]
#[error(
    "its shared memory or files cannot be used; something else may have changed or filled them ({0})"
)]
struct Inside(Box<dyn std::error::Error + Send + Sync>);

/// Why an end of the bridge could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The transport root cannot be used.
    #[error("prepare the transport root")]
    Root(#[from] RootError),
    /// An inherited descriptor is missing.
    #[error(
        "descriptor {number} ({what}) is not there: managed workers are started by a manager, not by hand"
    )]
    MissingDescriptor {
        /// Its fixed number.
        number: i32,
        /// What it should be.
        what: &'static str,
    },
    /// An inherited descriptor is not what it should be, or a system call failed.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The invitation cannot be understood.
    #[error("read the invitation: {reason}")]
    Invitation {
        /// In words.
        reason: String,
    },
    /// The invitation is for somebody else.
    #[error("the invitation is for {invited}, this process was started as {expected}")]
    Mismatch {
        /// Whom it invites.
        invited: String,
        /// What the command line says.
        expected: String,
    },
    /// A port could not be opened.
    #[error("open the ports")]
    Transport(#[from] TransportError),
    /// The manager refused the handshake.
    #[error("the manager refused this worker: {reason}")]
    Refused {
        /// In the manager's words.
        reason: String,
    },
    /// The manager closed the doorbell.
    #[error("the manager is gone")]
    Gone,
    /// The manager did not answer in time.
    #[error("the manager did not answer within {seconds} s")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// The owner did not want it any more.
    #[error("the opening was given up")]
    GivenUp,
    /// The poller thread ended while it was opening.
    #[error("the poller thread ended while it was opening")]
    PollerDied,
}

impl OpenError {
    /// Whether another try by the same process can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. } | Self::Root(RootError::InUse { .. })
        )
    }
}

/// Why a command of the server end was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The server is closing, closed, or its poller died.
    #[error("the bridge is closed")]
    Closed,
    /// No such incarnation, or it is retired.
    #[error("incarnation {0} is not known")]
    UnknownIncarnation(Incarnation),
    /// Key 0 is reserved.
    #[error("hand-over key 0 is reserved")]
    ZeroKey,
    /// The key is queued or in a worker's hands.
    #[error("hand-over key {0} is in use")]
    DuplicateKey(u64),
    /// It would never fit.
    #[error("the cost of hand-over {0} exceeds the capacity of this machine")]
    ExceedsCapacity(u64),
    /// The payload is too large for a frame.
    #[error("payload of {len} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLarge {
        /// Its size.
        len: usize,
    },
    /// The control state is too large for the topic.
    #[error("control state of {len} bytes exceeds the limit of {MAX_CONTROL}")]
    ControlTooLarge {
        /// Its size.
        len: usize,
    },
    /// The setup bytes of an invitation are too large.
    #[error("invitation of {len} bytes exceeds the limit of {max}")]
    SetupTooLarge {
        /// Size of the whole invitation.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// There is no room for one more worker.
    #[error("make room for worker {local_id}")]
    NoRoom {
        /// For whom.
        local_id: LocalId,
        /// What is missing.
        #[source]
        source: LimitsError,
    },
    /// A system call failed.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The transport failed.
    #[error("invite worker {local_id}")]
    Invite {
        /// Whom.
        local_id: LocalId,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// The transport failed.
    #[error("publish the control state")]
    Publish(#[source] TransportError),
}

impl BridgeError {
    /// Whether another try can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoRoom { .. } | Self::System { .. } | Self::Invite { .. } | Self::Publish(_)
        )
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// Why a call of the client end got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Too many requests are unanswered; the manager does not keep up.
    #[error("the manager's queue for this worker is full")]
    Full,
    /// This end is closing, closed, or its poller died.
    #[error("the bridge is closed")]
    Closed,
    /// No answer in time. The request may have been received.
    #[error("no answer before the deadline")]
    DeadlineExceeded,
    /// The manager took the request and dropped it unanswered.
    #[error("the manager dropped the request unanswered")]
    Abandoned,
    /// The manager is gone; nothing will be answered any more.
    #[error("the manager is gone")]
    Gone,
    /// The payload is too large for a frame.
    #[error("payload of {len} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLarge {
        /// Its size.
        len: usize,
    },
    /// The manager refused the frame.
    #[error("the manager refused the request: {reason}")]
    Refused {
        /// In the manager's words.
        reason: String,
    },
    /// A spill file could not be written or read.
    #[error("move a large payload through a file")]
    Spill(#[source] io::Error),
    /// The transport failed.
    #[error("send the request")]
    Transport(#[from] TransportError),
}

impl CallError {
    /// Whether the same call can succeed later. Deterministic rejections are not retryable, nor is a peer that is gone.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full
            | Self::DeadlineExceeded
            | Self::Abandoned
            | Self::Spill(_)
            | Self::Transport(_) => true,
            Self::Closed | Self::Gone | Self::TooLarge { .. } | Self::Refused { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_pressure_and_lateness_are_retryable_and_rejections_are_not() {
        assert!(CallError::Full.is_retryable());
        assert!(CallError::DeadlineExceeded.is_retryable());
        assert!(CallError::Abandoned.is_retryable());
        assert!(!CallError::Gone.is_retryable());
        assert!(!CallError::TooLarge { len: 1 }.is_retryable());
        assert!(
            !CallError::Refused {
                reason: String::new()
            }
            .is_retryable()
        );
        assert!(!BridgeError::Closed.is_retryable());
        assert!(!BridgeError::DuplicateKey(1).is_retryable());
        assert!(!OpenError::Gone.is_retryable());
    }
}
