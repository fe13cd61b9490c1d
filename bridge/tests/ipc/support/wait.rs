//! Waiting for conditions: level-triggered, with a deadline that prints what was seen last.

use std::future::Future;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ends a future that should end by itself.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("not within {PATIENCE:?} at {caller}"),
        }
    }
}

/// Looks until the condition holds.
#[track_caller]
pub(crate) fn until<T: std::fmt::Debug>(
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = look();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "last seen {seen:?} at {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A moment of real time, where a test is about what happens at an arbitrary one.
pub(crate) async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}
