//! What follows a commit: wake those who wait for it and count it.
//!
//! Called once per transaction with its [`Changes`], after the commit and before the caller is answered.

use std::future::Future;
use std::sync::Arc;

use metrics::counter;

use super::Shared;
use crate::coordinator::store::{Changes, Ended, StoreError};
use crate::telemetry::names;

impl Shared {
    /// Runs one change with all that follows it to its end, also when the caller goes away meanwhile: a commit whose
    /// news is lost would leave others waiting for it.
    pub(in crate::coordinator) async fn complete<T, F, Fut>(
        self: &Arc<Self>,
        change: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Self>) -> Fut,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        match tokio::spawn(change(Arc::clone(self))).await {
            Ok(done) => done,
            // Whoever asked for it is told; nobody else suffers from it.
            Err(failed) if failed.is_panic() => Err(StoreError::of_panic(&*failed.into_panic())),
            // The runtime ends.
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Spreads the news of one transaction.
    pub(in crate::coordinator) async fn publish(&self, changes: Changes) {
        count(&changes);
        self.work.announce(changes.ready);
        if changes.next_due.is_some() {
            self.timer.notify_one();
        }
        for reclaimed in changes.reclaimed {
            self.posts.note_lost(reclaimed.holder, reclaimed.lease);
        }
        for holder in changes.cancels {
            let Some(post) = self.posts.get(holder) else {
                continue;
            };
            if let Err(error) = self.refresh(&post).await {
                tracing::warn!(%error, holder = %post.holder, "cancel orders cannot be read; the next renewal brings them");
            }
        }
        self.ends.publish(changes.ended);
        self.posts.forget(&changes.gone);
    }
}

fn count(changes: &Changes) {
    if changes.accepted > 0 {
        counter!(names::COORDINATOR_TASKS_ACCEPTED).increment(changes.accepted);
    }
    if changes.stale > 0 {
        counter!(names::COORDINATOR_STALE_REPORTS).increment(changes.stale);
    }
    for reclaimed in &changes.reclaimed {
        counter!(names::COORDINATOR_LEASES_RECLAIMED, "cause" => reclaimed.cause.as_str())
            .increment(1);
    }
    for ended in &changes.ended {
        count_end(ended);
    }
}

fn count_end(ended: &Ended) {
    let outcome = ended.end.outcome.as_str();
    let reason = ended.end.result.reason.as_str();
    tracing::debug!(task = ended.end.id, uuid = %ended.end.uuid, outcome, reason, "task committed");
    counter!(names::COORDINATOR_TASKS_FINISHED, "outcome" => outcome, "reason" => reason)
        .increment(1);
}
