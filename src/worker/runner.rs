//! The seam between the worker's loop and whatever executes tasks.
//!
//! The loop puts tasks in line ([`RunQueue`]), says how one is to end ([`EndOrder`]), and takes their results; they are
//! run one after the other ([`drive()`]) on a thread of their own ([`RunnerThread`]). The loop knows nothing of processes; the
//! runner knows nothing of reports, leases or control states.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::protocol::{TaskResult, WorkerTaskResp};

use super::executor::{StopOrder, StopReason};
use super::status::WorkerStatus;

mod drive;
mod executing;
mod queue;
mod thread;

pub use drive::{Gatekeeper, drive};
pub use executing::ExecutorRunner;
#[cfg(test)]
pub(crate) use queue::TELL_WITHIN;
pub use queue::{News, RunQueue, run_queue};
pub use thread::RunnerThread;

/// Executes tasks, one at a time.
#[async_trait]
pub trait TaskRunner: Send + Sync + fmt::Debug {
    /// Runs one task to its end and says how it ended; never fails, because whatever goes wrong is the task's result.
    ///
    /// `orders` says whether the task is to be ended before its time; later orders replace earlier ones and are never
    /// milder. A task that ended by itself before an order took effect keeps its real result; one that was ended by
    /// an order has [`crate::protocol::report::Reason::Cancelled`] or `Preempted`. Dropping the future kills the task.
    async fn run(
        &self,
        task: Arc<WorkerTaskResp>,
        orders: watch::Receiver<StopOrder>,
        status: &dyn WorkerStatus,
    ) -> TaskResult;
}

/// An order to end the running task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOrder {
    /// Why.
    pub why: EndCause,
    /// How.
    pub how: EndMode,
}

/// Why a running task is ended by order. Later variants give way to earlier ones: what is cancelled stays cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// It is no longer this worker's; nothing is reported.
    Forgotten,
    /// A user wants it ended.
    Cancelled,
    /// The worker has to leave; the task is handed back.
    Preempted,
}

/// How a running task is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndMode {
    /// KILL to the whole tree.
    Kill,
    /// TERM, the task's grace period, then KILL.
    Graceful,
}

impl EndMode {
    /// The mode for an order that may be graceful.
    #[must_use]
    pub fn of(graceful: bool) -> Self {
        if graceful { Self::Graceful } else { Self::Kill }
    }
}

impl EndOrder {
    /// The order that satisfies both: the weightier cause, the harsher mode.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            why: self.why.min(other.why),
            how: self.how.min(other.how),
        }
    }

    /// The order in the executor's words, which has no word for a task that nobody wants to hear of.
    #[must_use]
    pub fn to_executor(self) -> StopOrder {
        let reason = match self.why {
            EndCause::Forgotten | EndCause::Cancelled => StopReason::Cancelled,
            EndCause::Preempted => StopReason::HandBack,
        };
        match self.how {
            EndMode::Kill => StopOrder::Immediate(reason),
            EndMode::Graceful => StopOrder::Graceful(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANCEL: EndOrder = EndOrder {
        why: EndCause::Cancelled,
        how: EndMode::Graceful,
    };
    const LEAVE: EndOrder = EndOrder {
        why: EndCause::Preempted,
        how: EndMode::Kill,
    };

    #[test]
    fn a_second_order_is_never_milder() {
        let both = EndOrder {
            why: EndCause::Cancelled,
            how: EndMode::Kill,
        };
        assert_eq!((CANCEL.and(LEAVE), LEAVE.and(CANCEL)), (both, both));
    }

    #[test]
    fn the_executor_is_told_cause_and_mode() {
        assert_eq!(
            CANCEL.to_executor(),
            StopOrder::Graceful(StopReason::Cancelled)
        );
        assert_eq!(
            LEAVE.to_executor(),
            StopOrder::Immediate(StopReason::HandBack)
        );
    }
}
