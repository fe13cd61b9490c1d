//! What the server's poller counts about itself.
//!
//! Written by the poller alone with plain stores, read by anybody at any moment without disturbing it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::PollConfig;
use crate::header::Operation;
use crate::histogram::{Histogram, HistogramSnapshot, bump};

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Protocol version.
    Version,
    /// Token of the handshake.
    Token,
    /// Incarnation, local id or manager, or a frame before the handshake.
    Incarnation,
    /// Length of the payload.
    Size,
    /// Anything that cannot be decoded.
    Encoding,
}

impl RefusalReason {
    /// All, in the order of [`RefusalReason::index`].
    pub const ALL: [Self; 5] = [
        Self::Version,
        Self::Token,
        Self::Incarnation,
        Self::Size,
        Self::Encoding,
    ];

    /// Position in tables by reason.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Version => 0,
            Self::Token => 1,
            Self::Incarnation => 2,
            Self::Size => 3,
            Self::Encoding => 4,
        }
    }

    /// Label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Token => "token",
            Self::Incarnation => "incarnation",
            Self::Size => "size",
            Self::Encoding => "encoding",
        }
    }
}

/// Numbers of the server's poller at one moment. Counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollerStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Waits that ended because somebody rang.
    pub wakeups: u64,
    /// Turns that found nothing and did not wait.
    pub spins: u64,
    /// Turns that found work right after such a one.
    pub spin_hits: u64,
    /// Waits begun.
    pub sleeps: u64,
    /// Bounded waits that ran out and then found work that nobody had announced. Must stay 0.
    pub lost_wakeups: u64,
    /// Requests received, by [`Operation::index`].
    pub requests: [u64; Operation::ALL.len()],
    /// Frames refused, by [`RefusalReason::index`].
    pub refused: [u64; RefusalReason::ALL.len()],
    /// Times a report port was left undrained because the event channel was full.
    pub held_back: u64,
    /// Requests that ended without the owner's answer.
    pub abandoned: u64,
    /// Failures of the transport.
    pub transport_failures: u64,
    /// Longest that a turn did file work for workers that come or go, in nanoseconds.
    pub longest_file_work_ns: u64,
    /// Incarnations with open ports.
    pub incarnations: u64,
    /// Fetches parked now.
    pub parked_requests: u64,
    /// Replies prepared now.
    pub prepared_replies: u64,
    /// Reports whose reply token is unused.
    pub unanswered_reports: u64,
    /// Arrival of a request to its answer, parked time excluded, by [`Operation::index`].
    pub service: [HistogramSnapshot; Operation::ALL.len()],
    /// Time that answered fetches were parked.
    pub parked: HistogramSnapshot,
    /// The strategy in force.
    pub poll: PollConfig,
}

/// The counters behind [`PollerStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: AtomicU64,
    pub(crate) wakeups: AtomicU64,
    pub(crate) spins: AtomicU64,
    pub(crate) spin_hits: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    pub(crate) lost_wakeups: AtomicU64,
    requests: [AtomicU64; Operation::ALL.len()],
    refused: [AtomicU64; RefusalReason::ALL.len()],
    pub(crate) held_back: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) transport_failures: AtomicU64,
    pub(crate) longest_file_work: AtomicU64,
    pub(crate) incarnations: AtomicU64,
    pub(crate) parked_requests: AtomicU64,
    pub(crate) prepared_replies: AtomicU64,
    pub(crate) unanswered_reports: AtomicU64,
    service: [Histogram; Operation::ALL.len()],
    parked: Histogram,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        bump(counter, 1);
    }

    pub(crate) fn gauge(gauge: &AtomicU64, value: usize) {
        gauge.store(value as u64, Ordering::Relaxed);
    }

    /// Keeps the longest of all durations.
    pub(crate) fn at_least(longest: &AtomicU64, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        longest.fetch_max(took, Ordering::Relaxed);
    }

    pub(crate) fn request(&self, operation: Operation) {
        bump(&self.requests[operation.index()], 1);
    }

    pub(crate) fn refusal(&self, reason: RefusalReason) {
        bump(&self.refused[reason.index()], 1);
    }

    pub(crate) fn served(&self, operation: Operation, took: Duration) {
        self.service[operation.index()].record(took);
    }

    pub(crate) fn was_parked(&self, parked: Duration) {
        self.parked.record(parked);
    }

    pub(crate) fn snapshot(&self, poll: PollConfig) -> PollerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PollerStats {
            turns: read(&self.turns),
            wakeups: read(&self.wakeups),
            spins: read(&self.spins),
            spin_hits: read(&self.spin_hits),
            sleeps: read(&self.sleeps),
            lost_wakeups: read(&self.lost_wakeups),
            requests: std::array::from_fn(|i| read(&self.requests[i])),
            refused: std::array::from_fn(|i| read(&self.refused[i])),
            held_back: read(&self.held_back),
            abandoned: read(&self.abandoned),
            transport_failures: read(&self.transport_failures),
            longest_file_work_ns: read(&self.longest_file_work),
            incarnations: read(&self.incarnations),
            parked_requests: read(&self.parked_requests),
            prepared_replies: read(&self.prepared_replies),
            unanswered_reports: read(&self.unanswered_reports),
            service: std::array::from_fn(|i| self.service[i].snapshot()),
            parked: self.parked.snapshot(),
            poll,
        }
    }
}
