//! Waiting until tasks have ended.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Coordinator;
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{Counts, StoreError};
use crate::protocol::TaskState;
use crate::protocol::api::WaitResponse;

/// Shortest time between two looks at the counts: with thousands of ends a second nobody needs each of them.
const PAUSE: Duration = Duration::from_millis(20);

/// What to wait for. A task that was repeated counts by its newest life, but for `All`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// Every task of this suite.
    Suite(Uuid),
    /// These tasks.
    Tasks(Vec<Uuid>),
    /// Every task there is.
    All,
}

impl Coordinator {
    /// Waits until every task of a set has ended, or `timeout` is over, or the coordinator stops. The answer says
    /// which; an empty set has ended.
    ///
    /// # Errors
    /// `NotFound` for an unknown suite or task.
    pub async fn wait(
        &self,
        what: &WaitFor,
        timeout: Duration,
    ) -> Result<WaitResponse, CoordinatorError> {
        let deadline = Instant::now() + timeout;
        let mut ends = self.shared.ends.subscribe();
        loop {
            // Marked as seen before the look: an end that is committed after the look wakes the wait below.
            ends.borrow_and_update();
            let looked = Instant::now();
            let counts = self.counts_for(what).await?;
            let done = counts.keys().all(|state| state.is_terminal());
            if done || Instant::now() >= deadline || self.shared.is_stopping() {
                return Ok(WaitResponse { done, counts });
            }
            let woken = async {
                // The sender lives as long as this handle, so the channel is open.
                let _ = ends.changed().await;
                // Between two looks, not before each: an end that comes alone is seen at once.
                tokio::time::sleep_until(looked + PAUSE).await;
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.shared.stopped() => {}
            }
        }
    }

    async fn counts_for(&self, what: &WaitFor) -> Result<Counts, CoordinatorError> {
        let store = &self.shared.store;
        let counts: Counts = match what {
            WaitFor::Suite(uuid) => {
                let suite = store.suite(*uuid).await?;
                let missing = StoreError::NotFound {
                    what: "suite",
                    uuid: *uuid,
                };
                suite.ok_or(missing)?.counts
            }
            WaitFor::Tasks(uuids) => store.counts_of(uuids.clone()).await?,
            WaitFor::All => store.counts(None).await?,
        };
        debug_assert!(counts.len() <= TaskState::ALL.len());
        Ok(counts)
    }
}
