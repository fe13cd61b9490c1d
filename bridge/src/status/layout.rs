//! Fixed layout of the status block. Both sides are built from one source, and the layout version says so.
#![expect(
    unsafe_code,
    reason = "promises that the layout may live in shared memory"
)]

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use crate::header::Operation;
use crate::histogram::Histogram;
use crate::map::SharedLayout;
use crate::status::words::Words;

/// Version of the layout; a reader and a writer of different versions refuse each other.
pub const LAYOUT_VERSION: u32 = 4;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// Opening ports and shaking hands.
    #[default]
    Starting,
    /// Ready, without a task.
    Idle,
    /// Executing a task.
    Running,
    /// Executing a task that has gone on for a while and may do so for long.
    Engaged,
    /// Ending: finishing or giving back what it holds.
    Stopping,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Starting,
        Self::Idle,
        Self::Running,
        Self::Stopping,
        Self::Engaged,
    ];

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Starting => 0,
            Self::Idle => 1,
            Self::Running => 2,
            Self::Stopping => 3,
            Self::Engaged => 4,
        }
    }

    pub(crate) fn from_code(code: u32) -> Self {
        Self::ALL
            .into_iter()
            .find(|phase| phase.code() == code)
            .unwrap_or_default()
    }
}

/// How a task ended at a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Any other end of a started task.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Handed back without an end.
    Released,
}

impl Outcome {
    /// All, in the order of [`Outcome::index`].
    pub const ALL: [Self; 4] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Released,
    ];

    /// Position in tables by outcome.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Completed => 0,
            Self::Failed => 1,
            Self::Cancelled => 2,
            Self::Released => 3,
        }
    }

    /// Label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }
}

/// The record. The first group is written by the manager (before the spawn, `poll_wanted` at any moment), the next by the
/// worker's poller, the last by the worker's executor; each field has one writer, except `asleep` (see
/// [`crate::sleep`]), `poll_wanted`, where the newest word counts whoever wrote it, and the words of dispatches.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct StatusLayout {
    pub(crate) layout_version: AtomicU32,
    pub(crate) local_id: AtomicU32,
    pub(crate) incarnation: AtomicU64,
    /// How the worker's poller is to wait: a word of [`crate::config::pack`].
    pub(crate) poll_wanted: AtomicU64,

    /// 1 while the worker's poller is about to block or blocked; whoever swaps it to 0 rings the doorbell.
    pub(crate) asleep: AtomicU32,
    pub(crate) pid: AtomicU32,
    /// Clock reading when the poller last did something.
    pub(crate) poller_progress_ns: AtomicU64,
    /// Clock reading when the poller last set its bit on the board.
    pub(crate) rang_ns: AtomicU64,
    pub(crate) round_trip: [Histogram; Operation::ALL.len()],
    pub(crate) lost_wakeups: AtomicU64,
    pub(crate) wakeups: AtomicU64,
    pub(crate) spins: AtomicU64,
    pub(crate) spin_hits: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    /// What the poller last acted on of `poll_wanted`; 0 before it first rested.
    pub(crate) poll_in_force: AtomicU64,

    pub(crate) phase: AtomicU32,
    /// Odd while the group below is being written.
    pub(crate) task_sequence: AtomicU32,
    pub(crate) task_present: AtomicU32,
    pub(crate) task_attempt: AtomicU32,
    pub(crate) task_lease: AtomicU64,
    pub(crate) task_id: AtomicI64,
    pub(crate) task_pgid: AtomicU32,
    pub(crate) reserved: AtomicU32,
    pub(crate) executor_progress_ns: AtomicU64,
    pub(crate) outcomes: [AtomicU64; Outcome::ALL.len()],
    pub(crate) report_retries: AtomicU64,

    /// Written by the manager and the worker, see [`crate::status::words`].
    pub(crate) words: Words,
}

// SAFETY: `repr(C)`, only atomics and `repr(C)` structs and arrays of atomics; fields are ordered so that none needs
// padding; no drop; any bit pattern is a value.
unsafe impl SharedLayout for StatusLayout {
    const NAME: &'static str = "mitosis-status";
}

/// The system-wide monotonic clock in nanoseconds: comparable between processes of one machine, unlike `Instant`.
pub(crate) fn clock_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}
