//! What the state machine is told, what it says, and the terms both use.
//!
//! Plain data: the loop makes events and performs actions, [`super::WorkerState`] turns one into the other.

use std::time::{Duration, Instant};

use crate::comm::Dispatched;
use crate::protocol::{Desired, Lease, TaskRef, TaskResult, Try, WorkerTaskResp};
use crate::shutdown::ShutdownRequest;
use crate::worker::runner::EndOrder;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A newer control state.
    Control(Desired),
    /// A signal asks the worker to leave; one that finds it leaving asks for it at once.
    Signal(ShutdownRequest),
    /// Whoever feeds this worker is gone or refuses it.
    Lost,
    /// The fetch brought tasks.
    Fetched(Vec<Dispatched>),
    /// The fetch brought nothing, or failed for a passing reason.
    FetchedNothing {
        /// Pause before the next.
        retry_after: Duration,
    },
    /// The fetch was answered that nothing will come.
    Draining,
    /// The report that a task has begun was answered.
    StartAnswered(HandOver, StartVerdict),
    /// A task in line has been running for a while, since this moment (microseconds since the Unix epoch).
    Began(HandOver, i64),
    /// A task in line was claimed before it began; it is to end like this.
    TakenBack(HandOver, Final),
    /// It has begun already, or ended; what runs of it is to end like this.
    NotTakenBack(HandOver, EndOrder),
    /// Its peer took a task in line back before it began.
    Withdrawn(HandOver),
    /// A task in line was not begun, because nothing may be.
    GateShut(HandOver),
    /// A running task ended.
    Ended(HandOver, Box<TaskResult>),
    /// Time has passed; [`super::WorkerState::next_timer`] was reached.
    Tick,
}

/// Something to do, in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Ask for tasks.
    Fetch {
        /// Nothing is in line.
        idle: bool,
    },
    /// Drop the fetch that is under way.
    AbandonFetch,
    /// Report that the execution is about to begin, and wait for the verdict.
    AskToStart(HandOver),
    /// Report that the execution began at this moment (microseconds since the Unix epoch).
    ReportStarted(HandOver, i64),
    /// Put it in line.
    Start(Dispatched),
    /// Claim a task in line before it begins, and feed back whether that succeeded.
    TakeBack(TakeBack),
    /// End what runs.
    End(HandOver, EndOrder),
    /// Report that the worker is through with it.
    ReportFinal(HandOver, Final),
    /// Nothing is left to do but to deliver what is in the outbox.
    Leave,
}

/// A wish to have a task back that may have begun.
#[derive(Debug, Clone, PartialEq)]
pub struct TakeBack {
    /// The task.
    pub held: HandOver,
    /// Its end if it had not begun.
    pub end: Final,
    /// How it is to be ended if it had.
    pub or: Option<EndOrder>,
}

/// The final report of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Final {
    /// It ran; the result is what it is, or `Cancelled` because it was ended at a user's wish.
    Result(Box<TaskResult>),
    /// It was not started, at a user's wish.
    NotStarted,
    /// It is handed back.
    Released(&'static str),
}

/// The identity of a hand-over: reports, verdicts and cancels are about one of these, never about a bare task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandOver {
    /// The task.
    pub task: TaskRef,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    pub try_no: Try,
}

impl HandOver {
    /// The hand-over by which `task` came.
    #[must_use]
    pub fn of(task: &WorkerTaskResp) -> Self {
        Self {
            task: task.task(),
            lease: task.lease,
            try_no: task.try_no,
        }
    }
}

/// What the receiver of `Started` wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartVerdict {
    /// Run it.
    Run,
    /// A cancel was faster.
    Cancel,
    /// It is not this worker's any more.
    Forget,
    /// The report made no sense to the receiver.
    Invalid,
}

/// Why the worker leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// The control state says so.
    Control,
    /// A fetch was answered that nothing will come.
    Draining,
    /// A signal.
    Signal,
    /// Whoever feeds this worker is gone or refuses it.
    Lost,
}

impl StopCause {
    /// The words for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "asked to leave",
            Self::Draining => "nothing more will come",
            Self::Signal => "stopped by a signal",
            Self::Lost => "its peer is gone",
        }
    }
}

/// How the worker leaves; only ever more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// What began it; losing the peer replaces every other cause.
    pub cause: StopCause,
    /// How long the current task may run on.
    pub urgency: Urgency,
}

/// How long the current task may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// To its end, or until then.
    Graceful {
        /// `None` means without limit.
        until: Option<Instant>,
    },
    /// Not at all.
    Immediate,
}

impl Urgency {
    /// The more urgent of two.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Immediate, _) | (_, Self::Immediate) => Self::Immediate,
            (Self::Graceful { until: one }, Self::Graceful { until: other }) => Self::Graceful {
                until: [one, other].into_iter().flatten().min(),
            },
        }
    }
}

/// Where the worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing in hand, nothing asked for.
    Idle,
    /// A fetch is under way.
    Fetching,
    /// A task waits for the verdict on its start.
    Held,
    /// A task has been running for a while.
    Engaged,
    /// A task runs, or is about to.
    Running,
    /// Only reports are left.
    Leaving,
}
