//! The two clocks of a worker: one to wait by, one to put into reports.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock of the runtime, so that tests can move it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Microseconds since the Unix epoch.
pub(crate) fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}
