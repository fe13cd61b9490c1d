//! The two clocks of a store: wall time for records, serving time for leases.
//!
//! Serving time is monotonic and stands still while nobody serves: a coordinator that was away for an hour has not
//! used up an hour of anybody's lease, and neither has one that was stopped. Tests own a clock that they advance by hand.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wall_clock::unix_us;

/// Where a store reads the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Microseconds since the Unix epoch; for records and for back-off, never for leases.
    fn wall_us(&self) -> i64;

    /// Monotonic time since this life of the coordinator began to serve; for leases.
    fn serving(&self) -> Duration;
}

/// Longest gap between two readings of the serving time that counts in full. The coordinator's timer reads it every
/// second; who does not read it for longer stood still (was stopped, slept, waited for a disk) and did not serve.
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// The machine's clocks.
///
/// Serving time is what was read of it: a standstill counts as [`LONGEST_GAP`], so that renewals that were sent meanwhile
/// are read before any lease ends. Wall time never goes back in one life: a clock that is set back would hold up every
/// pause between two attempts for as long.
#[derive(Debug)]
pub struct SystemClock {
    served: Mutex<(Instant, Duration)>,
    wall: Mutex<(Instant, i64)>,
}

impl SystemClock {
    /// Serving time begins now.
    #[must_use]
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            served: Mutex::new((now, Duration::ZERO)),
            wall: Mutex::new((now, unix_us())),
        }
    }
}

/// Serving time after a gap.
fn after_gap(served: Duration, gap: Duration) -> Duration {
    served + gap.min(LONGEST_GAP)
}

/// Wall time: the system's; where that went back, it goes on from the last reading. That the two clocks tick differently
/// makes no difference of its own.
fn never_back(last_us: i64, gap: Duration, system_us: i64) -> i64 {
    if system_us >= last_us {
        system_us
    } else {
        last_us.saturating_add(whole_us(gap))
    }
}

impl Clock for SystemClock {
    fn wall_us(&self) -> i64 {
        let mut wall = self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gap = now.saturating_duration_since(wall.0);
        let read = unix_us();
        let us = never_back(wall.1, gap, read);
        *wall = (now, us);
        us
    }

    fn serving(&self) -> Duration {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gap = now.saturating_duration_since(served.0);
        *served = (now, after_gap(served.1, gap));
        served.1
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_standstill_uses_up_no_lease() {
        let served = after_gap(Duration::from_secs(100), HOUR);
        assert_eq!(served, Duration::from_secs(102));
        let second = Duration::from_secs(1);
        assert_eq!(after_gap(second, second), second * 2);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_goes_on_from_where_it_was() {
        let second = Duration::from_secs(1);
        let (before, hour_us) = (10_000_000_000, whole_us(HOUR));
        let after = never_back(before, second, before - hour_us);
        assert_eq!(after, before + 1_000_000);
        assert_eq!(
            never_back(after, second, before + hour_us),
            before + hour_us
        );
    }
}
