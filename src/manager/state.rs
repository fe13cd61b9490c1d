//! What the manager knows about every lease in its hands. Data and small questions; no decisions, no I/O.
//!
//! ```text
//!   claimed --> Buffered --prepare--> Prepared(key) --handed over--> Handed --Started--> Running
//!                  ^                      |  withdrawn                  |                    |
//!                  |<---------------------+------- withdrawn -----------+                    | final report
//!                  |                                                    |                    v
//!                  +-- durable -- Recording(ticket) <-- holder lost ----+------------->   the ledger
//! ```
//!
//! [`Wish`] is what shall become of the task besides being run. It is acted on as soon as nobody else holds the task.

use std::time::Instant;

use mitosis_bridge::cost::Cost;

use crate::protocol::report::TaskReport;
use crate::protocol::session::{HeldLease, LostTry};
use crate::protocol::task::ResourceIds;
use crate::protocol::{Incarnation, Lease, Try, WorkerTaskResp};
use crate::wall_clock::unix_us;

/// Number of one hand-over at the bridge; never used twice in one life of the manager.
pub(crate) type Key = u64;

/// Names a lease: a task may be leased to this manager again while reports under its earlier lease are in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseKey {
    pub(crate) task_id: i64,
    pub(crate) lease: Lease,
}

impl LeaseKey {
    pub(crate) fn of_task(task: &WorkerTaskResp) -> Self {
        Self {
            task_id: task.id,
            lease: task.lease,
        }
    }

    pub(crate) fn of_report(report: &TaskReport) -> Self {
        Self {
            task_id: report.task_id,
            lease: report.lease,
        }
    }

    pub(crate) fn of_held(held: &HeldLease) -> Self {
        Self {
            task_id: held.task.id,
            lease: held.lease,
        }
    }
}

/// The monotonic and the wall clock at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For everything that is waited for.
    pub(crate) mono: Instant,
    /// Microseconds since the Unix epoch, for what people read.
    pub(crate) wall_us: i64,
}

impl Now {
    /// Reads both clocks.
    pub(crate) fn read() -> Self {
        Self {
            mono: Instant::now(),
            wall_us: unix_us(),
        }
    }

    /// The wall clock at an earlier moment.
    pub(crate) fn wall_at(self, earlier: Instant) -> i64 {
        let ago = self.mono.saturating_duration_since(earlier);
        self.wall_us
            .saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))
    }
}

/// One lease.
#[derive(Debug)]
pub(crate) struct Held {
    /// As it was claimed.
    pub(crate) task: WorkerTaskResp,
    pub(crate) cost: Cost,
    /// What it has of its own while it is prepared or in a worker's hands.
    pub(crate) ids: Option<ResourceIds>,
    pub(crate) received_at: Instant,
    /// When the lease ends on the own clock, unless it is renewed.
    pub(crate) expires: Instant,
    pub(crate) stage: Stage,
    pub(crate) wish: Wish,
    /// Hand-overs made under this lease.
    pub(crate) tries: u32,
    /// Of these: lost before an execution began.
    pub(crate) unstarted: u32,
    /// Of these: handed back by their worker.
    pub(crate) returned: u32,
    pub(crate) strikes: Strikes,
    /// Executions begun and lost.
    pub(crate) lost: Vec<LostTry>,
}

impl Held {
    /// Value of `MITO_ATTEMPT` for the next execution, or the one that runs.
    pub(crate) fn attempt(&self) -> u32 {
        self.task.attempt + u32::try_from(self.lost.len()).unwrap_or(u32::MAX)
    }

    /// The hand-over that is out, if one is.
    pub(crate) fn hand(&self) -> Option<&Hand> {
        match &self.stage {
            Stage::Handed { hand, .. } | Stage::Running { hand, .. } => Some(hand),
            Stage::Buffered | Stage::Recording | Stage::Prepared { .. } => None,
        }
    }

    /// Its names for an inventory.
    pub(crate) fn lease(&self) -> HeldLease {
        HeldLease {
            task: self.task.task(),
            lease: self.task.lease,
        }
    }
}

/// Where a lease is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// In the buffer's queue.
    Buffered,
    /// Lost by its holder; its next try becomes possible once the cause is durable.
    Recording,
    /// At the bridge, to be handed to whoever fetches next.
    Prepared {
        key: Key,
        not_after: Instant,
        /// The bridge was asked to give it back.
        withdrawing: bool,
    },
    /// With a worker that has not said that it began: in line there, and to be had back as long as it has not.
    Handed {
        hand: Hand,
        at: Instant,
        /// Its state word says that it began; the worker has not said so yet.
        begun: bool,
    },
    /// With a worker that began an execution.
    Running { hand: Hand, started_at_us: i64 },
}

/// A hand-over to one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) key: Key,
    pub(crate) incarnation: Incarnation,
    pub(crate) try_no: Try,
    /// When, in microseconds since the Unix epoch.
    pub(crate) at_us: i64,
}

/// What shall become of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An execution.
    Run,
    /// Back to the coordinator with these words, unless it is running already.
    Release(String),
    /// An end as cancelled; its holder is ended at the deadline, where it has one.
    Cancel { graceful: bool, by: Option<Instant> },
    /// Nothing: the lease is somebody else's by now. What runs is ended and its report forgotten.
    Drop { by: Option<Instant> },
}

impl Wish {
    /// A stronger wish replaces a weaker one; equal ones stay.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Run => 0,
            Self::Release(_) => 1,
            Self::Cancel { graceful: true, .. } => 2,
            Self::Cancel {
                graceful: false, ..
            } => 3,
            Self::Drop { .. } => 4,
        }
    }

    /// When the holder's patience ends.
    pub(crate) fn by(&self) -> Option<Instant> {
        match self {
            Self::Run | Self::Release(_) => None,
            Self::Cancel { by, .. } | Self::Drop { by } => *by,
        }
    }
}

/// Workers that died while they executed a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Strikes {
    fatal: u32,
    all: u32,
}

/// Signals that a program brings upon itself.
const FATAL_SIGNALS: [i32; 4] = [libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGFPE];
const FATAL_LIMIT: u32 = 2;
const LIMIT: u32 = 3;

impl Strikes {
    /// Counts a death; true when it was one.
    pub(crate) fn count(&mut self, end: &WorkerEnd) -> bool {
        if !end.is_strike() {
            return false;
        }
        self.all += 1;
        if matches!(end, WorkerEnd::Signal(signal) if FATAL_SIGNALS.contains(signal)) {
            self.fatal += 1;
        }
        true
    }

    pub(crate) fn out(self) -> bool {
        self.fatal >= FATAL_LIMIT || self.all >= LIMIT
    }

    pub(crate) fn number(self) -> u32 {
        self.all
    }
}

/// How a worker process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// It was told to leave and left.
    Asked,
    /// With this exit code.
    Code(i32),
    /// By this signal, which the manager did not send.
    Signal(i32),
    /// It did not come up in time and was killed.
    Startup,
    /// It did not react and was killed.
    Unresponsive,
}

impl WorkerEnd {
    /// The word used as a metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Code(_) => "exit",
            Self::Signal(_) => "signal",
            Self::Startup => "startup",
            Self::Unresponsive => "unresponsive",
        }
    }

    /// A sign that the task took its worker down. An operator's TERM is none, nor is an orderly exit.
    pub(crate) fn is_strike(self) -> bool {
        match self {
            Self::Asked | Self::Startup | Self::Code(0) => false,
            Self::Code(code) => crate::exit_code::Exit::of_worker(code).is_none(),
            Self::Signal(signal) => !matches!(signal, libc::SIGTERM | libc::SIGINT),
            Self::Unresponsive => true,
        }
    }
}

impl std::fmt::Display for WorkerEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("left as asked"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Startup => f.write_str("did not come up in time"),
            Self::Unresponsive => f.write_str("did not react and was killed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out_after(ends: &[WorkerEnd]) -> bool {
        let mut strikes = Strikes::default();
        for end in ends {
            strikes.count(end);
        }
        strikes.out()
    }

    #[test]
    fn two_fatal_signals_or_three_other_deaths_are_enough() {
        let segv = WorkerEnd::Signal(libc::SIGSEGV);
        let kill = WorkerEnd::Signal(libc::SIGKILL);
        let panic = WorkerEnd::Code(101);
        assert!(!out_after(&[segv]));
        assert!(out_after(&[segv, segv]));
        assert!(!out_after(&[segv, kill]));
        assert!(out_after(&[kill, panic, WorkerEnd::Unresponsive]));
    }

    #[test]
    fn orderly_ends_are_no_strikes() {
        let orderly = [
            WorkerEnd::Asked,
            WorkerEnd::Code(0),
            WorkerEnd::Code(69),
            WorkerEnd::Code(75),
            WorkerEnd::Signal(libc::SIGTERM),
            WorkerEnd::Startup,
        ];
        assert!(!out_after(&orderly.repeat(3)));
    }
}
