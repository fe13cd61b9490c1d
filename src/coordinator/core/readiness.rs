//! Whether the store can be read and written, as somebody who asks from outside hears it.
//!
//! Reading and writing are different: on a full disk every list is answered and nothing is accepted. So what is asked for
//! is a write. Asking needs no token, so the answer is kept for a moment: however often it is asked for, one write per
//! [`KEPT`] is the most.

use std::time::{Duration, Instant};

use metrics::gauge;

use super::{Coordinator, Shared};
use crate::coordinator::store::StoreError;
use crate::telemetry::names;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(2);
/// Pause between two tries of the coordinator's own, for its metric.
pub(super) const PROBED_EVERY: Duration = Duration::from_secs(10);

/// The last try to write.
#[derive(Debug, Default)]
pub(super) struct Readiness(tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>);

impl Coordinator {
    /// Whether the store can be read and written.
    ///
    /// # Errors
    /// What failed.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.shared.store.counts(None).await?;
        self.shared.probe(KEPT).await
    }
}

impl Shared {
    /// Tries to write, unless that was tried within `kept`.
    pub(super) async fn probe(&self, kept: Duration) -> Result<(), StoreError> {
        let mut last = self.readiness.0.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < kept
        {
            return outcome.clone();
        }
        let outcome = self.store.probe().await;
        gauge!(names::COORDINATOR_STORE_WRITABLE).set(f64::from(u8::from(outcome.is_ok())));
        if let Err(error) = &outcome {
            let causes = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, ?causes, "the store cannot be written; nothing is accepted until it can");
        }
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}
