//! The two clocks of a store: wall time for records, serving time for leases.
//!
//! Serving time is monotonic and stands still while nobody serves: a coordinator that was away for an hour has not
//! used up an hour of anybody's lease. Tests own a clock that they advance by hand.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a store reads the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Microseconds since the Unix epoch; for records and for back-off, never for leases.
    fn wall_us(&self) -> i64;

    /// Monotonic time since this life of the coordinator began to serve; for leases.
    fn serving(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Serving time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall_us(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        whole_us(since)
    }

    fn serving(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Whole microseconds; the largest number for durations beyond 292,000 years.
#[must_use]
pub fn whole_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A clock for tests that moves only when told.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    us: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.us
            .fetch_add(whole_us(by), std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn wall_us(&self) -> i64 {
        1_000_000_000_000_000 + self.us.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn serving(&self) -> Duration {
        let us = self.us.load(std::sync::atomic::Ordering::SeqCst);
        Duration::from_micros(us.unsigned_abs())
    }
}
