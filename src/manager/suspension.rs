//! Notices that the machine slept. The monotonic clock, by which everything here waits, stands still meanwhile; leases go on
//! ending at a coordinator elsewhere.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Differences below this are of the two readings, not of a sleep.
const NOTICED: Duration = Duration::from_millis(100);

/// Sleep that was noticed so far.
#[derive(Debug)]
pub(crate) struct Suspension {
    seen: Duration,
}

impl Suspension {
    /// Notices what comes from now on.
    pub(crate) fn new() -> Self {
        Self { seen: asleep() }
    }

    /// How long the machine slept since the last call, if it did.
    pub(crate) fn noticed(&mut self) -> Option<Duration> {
        self.notice(asleep())
    }

    fn notice(&mut self, asleep: Duration) -> Option<Duration> {
        let more = asleep.saturating_sub(self.seen);
        (more >= NOTICED).then(|| {
            self.seen = asleep;
            more
        })
    }
}

/// How long the machine has slept since it was started.
fn asleep() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
        seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
    };
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_noticed_once_and_jitter_is_none() {
        let minute = Duration::from_secs(60);
        let mut suspension = Suspension { seen: minute };
        assert_eq!(suspension.notice(minute + NOTICED / 2), None);
        assert_eq!(suspension.notice(minute * 2), Some(minute));
        assert_eq!(suspension.notice(minute * 2), None);
    }

    #[test]
    fn nothing_is_noticed_while_the_machine_is_awake() {
        let mut suspension = Suspension::new();
        assert_eq!(suspension.noticed(), None);
    }
}
