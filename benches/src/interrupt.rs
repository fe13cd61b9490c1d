//! Ctrl-C during a measurement: what is open is closed in order, so that no file of a transport is left.

use std::time::Duration;

use super::error::{BenchError, io};
use mitosis::shutdown::ShutdownSignals;

/// Listens from its creation on; a signal then no longer ends the process by itself.
#[derive(Debug)]
pub(super) struct Interrupt(ShutdownSignals);

impl Interrupt {
    /// Must be called inside a runtime.
    pub(super) fn listen() -> Result<Self, BenchError> {
        let signals = ShutdownSignals::install(Duration::ZERO);
        signals.map(Self).map_err(io("listen for signals"))
    }

    /// Does the work unless a signal comes; then the work is dropped where it is.
    pub(super) async fn or<T>(
        &mut self,
        work: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<T, BenchError> {
        tokio::select! {
            biased;
            _ = self.0.next() => Err(BenchError::Interrupted),
            done = work => done,
        }
    }
}
