//! The two clocks of a store: wall time for records, serving time for leases.
//!
//! Wall time follows the system's clock forward and never back, so that nothing waits an hour longer because somebody has
//! set the clock back by one. Serving time is monotonic and stands still while nobody serves: a coordinator that was away for an hour has not
//! used up an hour of anybody's lease. Tests own a clock that they advance by hand.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

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
    /// From the time since the machine's start to the wall's.
    offset_us: AtomicI64,
}

impl SystemClock {
    /// Serving time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            offset_us: AtomicI64::new(i64::MIN),
        }
    }
}

impl Clock for SystemClock {
    fn wall_us(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        steady(&self.offset_us, whole_us(since), since_boot_us())
    }

    fn serving(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Time since the machine's start, while it slept included; nobody can set it.
fn since_boot_us() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1000)
}

/// The wall's time by the farthest that it was ever ahead.
fn steady(offset_us: &AtomicI64, wall_us: i64, since_boot_us: i64) -> i64 {
    let now = wall_us.saturating_sub(since_boot_us);
    let farthest = offset_us.fetch_max(now, Ordering::Relaxed).max(now);
    since_boot_us.saturating_add(farthest)
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

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_and_one_that_is_set_forward_is_followed() {
        const HOUR: i64 = 3_600_000_000;
        let offset = AtomicI64::new(i64::MIN);
        assert_eq!(steady(&offset, 10 * HOUR, 100), 10 * HOUR);
        assert_eq!(steady(&offset, 9 * HOUR + 50, 150), 10 * HOUR + 50);
        assert_eq!(steady(&offset, 9 * HOUR + 90, 190), 10 * HOUR + 90);
        assert_eq!(steady(&offset, 12 * HOUR, 200), 12 * HOUR);
    }

    #[test]
    fn the_systems_clock_says_the_time() {
        let clock = SystemClock::start();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!((clock.wall_us() - whole_us(since)).abs() < 60_000_000);
    }
}
