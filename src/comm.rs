//! How roles talk to each other: the traits they see and the transports behind them.
//!
//! [`WorkerComm`] is a worker's view of whoever gives it tasks. [`http`] speaks to a coordinator, [`ipc`] to the
//! manager of this machine through the bridge; the worker's main loop cannot tell them apart. [`link`] is a manager's
//! view of its coordinator: a pair of bounded channels of session frames, filled by a WebSocket ([`ws`]) or directly
//! in memory. [`begun`] and [`ended`] are what a worker leaves in writing for a
//! manager that it cannot reach any more. No role logic
//! lives here.

pub mod begun;
pub mod ended;
pub mod http;
pub mod ipc;
pub mod link;
pub(crate) mod pump;
pub mod ws;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mitosis_bridge::FetchWish;
use tokio::sync::watch;

use crate::protocol::{Desired, ReportTaskResp, TaskReport, WorkerTaskResp};

/// A worker's connection to whoever gives it tasks.
///
/// All methods take `&self` and may overlap: a report may be in flight while a fetch is parked. Implementations are
/// cheap handles on channels or on an HTTP client.
#[async_trait]
pub trait WorkerComm: Send + Sync + fmt::Debug {
    /// Waits for the next tasks, as many as `wish` has room for at most. The answer may take as long as the peer parks the
    /// request (30 s at most).
    ///
    /// Dropping the future is safe: tasks handed over to a dropped fetch are handed over again by the next one.
    async fn fetch_tasks(&self, wish: FetchWish) -> Result<Fetched, CommError>;

    /// Delivers reports and returns the receiver's verdict on each, in their order. Sending the same report again is safe.
    async fn report_tasks(
        &self,
        reports: &[Arc<TaskReport>],
    ) -> Result<Vec<ReportTaskResp>, CommError>;

    /// Tells the peer that this worker is alive, where the transport does not already say so.
    async fn send_heartbeat(&self) -> Result<(), CommError>;

    /// What is wanted of this worker, always the newest state.
    fn control(&self) -> watch::Receiver<Desired>;

    /// Whether the worker may begin a task as soon as it has it, or must wait for the verdict on `Started`.
    fn start_rule(&self) -> StartRule;

    /// Resolves when the peer is gone for good or refuses this worker.
    async fn lost(&self) -> CommError;

    /// Says goodbye once nothing is left to report; bounded by `deadline`.
    async fn leave(&self, deadline: Duration);
}

/// What a fetch brought.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// Run or release these, in their order; none is ever dropped.
    Tasks(Vec<Dispatched>),
    /// Nothing came up; ask again after the pause.
    Empty {
        /// Pause; zero where the peer itself parks requests.
        retry_after: Duration,
    },
    /// Nothing will come.
    Draining,
}

/// A task that came with a fetch.
#[derive(Debug, Clone)]
pub struct Dispatched {
    /// What to run.
    pub task: Arc<WorkerTaskResp>,
    /// Decides who begins it, or takes it back.
    pub claim: Arc<dyn Claim>,
    /// Nothing else is to be fetched until it has ended.
    pub alone: bool,
}

impl Dispatched {
    /// A task that its peer does not take back: whoever begins it in this process first, has it.
    #[must_use]
    pub fn own(task: WorkerTaskResp) -> Self {
        Self {
            task: Arc::new(task),
            claim: Arc::new(OwnClaim::default()),
            alone: true,
        }
    }
}

/// The right to begin a task, which one of several may take: the thread that runs tasks, the loop that hands it back, a
/// peer that withdraws it.
pub trait Claim: Send + Sync + fmt::Debug {
    /// Takes it; false when somebody else was faster.
    fn take(&self) -> bool;

    /// The task is over here, or was withdrawn.
    fn clear(&self);
}

#[derive(Debug, Default)]
struct OwnClaim {
    taken: AtomicBool,
}

impl Claim for OwnClaim {
    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    fn clear(&self) {}
}

/// When a fetched task may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRule {
    /// At once: cancels are level-triggered and the newest control state is at hand before the task is.
    Immediately,
    /// After the verdict on `Started` says so.
    AfterVerdict,
}

/// Why a call to the peer failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommError {
    /// A passing fault; the same call may succeed later.
    #[error("the peer did not answer ({reason})")]
    Retryable {
        /// What happened.
        reason: String,
        /// Pause asked for by the peer.
        after: Option<Duration>,
    },
    /// The peer does not accept who we are; respawning will not help.
    #[error("the peer refuses this worker: {reason}")]
    Refused {
        /// The peer's words.
        reason: String,
    },
    /// The peer is gone for good.
    #[error("the {peer} is gone")]
    PeerGone {
        /// `manager` or `coordinator`.
        peer: &'static str,
    },
    /// The peer answered something that makes no sense.
    #[error("the peer's answer makes no sense: {reason}")]
    Protocol {
        /// What was wrong with it.
        reason: String,
    },
}

impl CommError {
    /// True when the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable { .. })
    }
}
