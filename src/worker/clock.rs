//! The clock that a worker waits by.

use std::time::Instant;

/// The monotonic clock of the runtime, so that tests can move it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
