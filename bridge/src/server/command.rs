//! What the async side tells the server's poller.
//!
//! Every command carries its answer's sender and ends exactly once: answered, or closed when the poller ends.

use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::PollConfig;
use crate::cost::Cost;
use crate::doorbell::Doorbell;
use crate::error::BridgeError;
use crate::handover::{Batching, Gate, Prepared, Withdrawal};
use crate::ids::{Incarnation, LocalId};
use crate::invitation::Token;
use crate::spill::Body;
use crate::status::StatusView;

use super::events::Ring;

/// Who is woken by a control state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Every worker that sleeps.
    All,
    /// These; the others find it when they wake for another reason.
    Only(Vec<Incarnation>),
}

/// A reply that the poller may hand out by itself.
#[derive(Debug, Clone)]
pub struct PreparedReply {
    /// Identifies the hand-over; unique, not 0.
    pub key: u64,
    /// What it takes from the capacity until the hand-over is over.
    pub cost: Cost,
    /// It is not handed out later than this.
    pub not_after: Instant,
    /// Whether it may come together with others.
    pub batching: Batching,
    /// What the worker gets; at most [`crate::MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// Descriptors for one worker process, to be given the numbers 3, 4 and 5 in this order. Close-on-exec here.
///
/// Drop them right after the spawn: the worker's death is only seen when no other process holds its doorbell.
#[derive(Debug)]
pub struct InheritedFds {
    /// Number 3.
    pub doorbell: OwnedFd,
    /// Number 4.
    pub status: OwnedFd,
    /// Number 5.
    pub board: OwnedFd,
}

/// A place for one worker process.
#[derive(Debug)]
pub struct Invitation {
    /// The life that this invitation begins.
    pub incarnation: Incarnation,
    /// What the process inherits.
    pub fds: InheritedFds,
    /// What the process will say about itself; readable at any time, also after its death.
    pub status: StatusView,
}

/// The poller's half of an invitation.
#[derive(Debug)]
pub(super) struct Invited {
    pub(super) local_id: LocalId,
    pub(super) incarnation: Incarnation,
    pub(super) doorbell: Doorbell,
    pub(super) status: StatusView,
    pub(super) token: Token,
}

type Done<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub(super) enum Command {
    Invite {
        invited: Box<Invited>,
        done: Done<Result<(), BridgeError>>,
    },
    Prepare {
        replies: Vec<Prepared<Body>>,
        done: Done<Vec<(u64, BridgeError)>>,
    },
    Withdraw {
        keys: Vec<u64>,
        done: Done<Vec<(u64, Withdrawal)>>,
    },
    SetGate {
        gate: Gate,
        done: Done<()>,
    },
    SetCapacity {
        capacity: Cost,
        done: Done<()>,
    },
    Publish {
        state: Bytes,
        wake: Wake,
        done: Done<Result<(), BridgeError>>,
    },
    Tune {
        polls: Vec<(LocalId, PollConfig)>,
        done: Done<()>,
    },
    Finish {
        incarnation: Incarnation,
        done: Done<Result<(), BridgeError>>,
    },
    Retire {
        incarnation: Incarnation,
        done: Done<Result<(), BridgeError>>,
    },
    DrainFetches {
        done: Done<()>,
    },
    Close {
        until: Instant,
    },
    #[cfg(test)]
    Panic,
}

/// A command and when it was enqueued, to recognize a wake-up that was lost.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) at: Instant,
    pub(super) command: Command,
}

impl Envelope {
    pub(super) fn new(command: Command) -> Self {
        Self {
            at: Instant::now(),
            command,
        }
    }
}

/// The owner's answer to a report.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) incarnation: Incarnation,
    pub(super) token: u64,
    pub(super) content: ReplyContent,
}

#[derive(Debug)]
pub(super) enum ReplyContent {
    Payload { body: Body, ring: Ring },
    Abandoned,
}
