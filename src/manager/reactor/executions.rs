//! Where a lease is, for whoever wants to read what its task has written.

use crate::protocol::Incarnation;
use crate::protocol::task::DEFAULT_CAPTURE_BYTES;

use super::super::output::Execution;
use super::super::state::LeaseKey;
use super::Reactor;

/// Where a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not in this manager's hands, or over.
    NotHere,
    /// Here, with no worker.
    NotRunning,
    /// With this worker, which runs it or is about to.
    With(Incarnation, Execution),
}

impl Reactor {
    /// Where a lease is.
    pub(crate) fn standing(&self, lease: LeaseKey) -> Standing {
        let Some(held) = self.held.get(&lease) else {
            return Standing::NotHere;
        };
        let Some(hand) = held.hand() else {
            return Standing::NotRunning;
        };
        let limit = held.task.spec.capture.limit_bytes;
        let execution = Execution {
            lease,
            try_no: hand.try_no,
            attempt: held.attempt(),
            limit: limit.unwrap_or(DEFAULT_CAPTURE_BYTES),
        };
        Standing::With(hand.incarnation, execution)
    }
}
