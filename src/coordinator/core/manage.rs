//! What users and operators decide about tasks and holders: cancel, retry, mode.

use uuid::Uuid;

use super::Coordinator;
use super::query::parse_filter;
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{
    CancelTarget, CancelWish, Counts, Holder, HolderKind, RetryTarget, StoreError,
};
use crate::protocol::api::{
    CancelMatchingRequest, CancelMatchingResponse, CancelResponse, CancelledTask, SubmittedTask,
};
use crate::protocol::{Mode, TaskState};

/// Whose mode an operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeTarget {
    /// One manager.
    Manager(Uuid),
    /// One independent worker.
    Worker(Uuid),
    /// Every holder; a pause, and its end, reach those that come later too.
    All,
}

impl Coordinator {
    /// Ends one task. A task that nobody has is cancelled at once; for one that somebody has the order is stored and
    /// pushed to its holder, and this returns without waiting for the end; an ended one keeps its result.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn cancel(
        &self,
        task: Uuid,
        graceful: bool,
    ) -> Result<CancelResponse, CoordinatorError> {
        let cancelled = self.cancel_target(CancelTarget::Task(task), graceful);
        let (cancelled, _) = cancelled.await?;
        let what = "the state of a task";
        let (_, state) = cancelled.first().ok_or(StoreError::Corrupt { what })?;
        Ok(CancelResponse { state: *state })
    }

    /// Ends every task of a suite that has not ended. Returns the suite's counts after that; tasks that somebody has
    /// follow within their grace, and so do those that wait where they are many.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn cancel_all(
        &self,
        suite: Uuid,
        graceful: bool,
    ) -> Result<Counts, CoordinatorError> {
        self.cancel_target(CancelTarget::suite(suite), graceful)
            .await?;
        self.counts(Some(suite)).await
    }

    /// Ends every task that a filter lets through and that has not ended. None of them begins after this has returned.
    ///
    /// # Errors
    /// `BadQuery` for a filter that makes no sense; `NotFound` for an unknown suite.
    pub async fn cancel_matching(
        &self,
        request: &CancelMatchingRequest,
    ) -> Result<CancelMatchingResponse, CoordinatorError> {
        let query = parse_filter(&request.filter)?;
        let target = CancelTarget::Matching(query);
        let (tasks, following) = self.cancel_target(target, request.graceful).await?;
        let tasks = tasks.into_iter();
        Ok(CancelMatchingResponse {
            tasks: tasks
                .map(|(uuid, state)| CancelledTask { uuid, state })
                .collect(),
            following,
        })
    }

    /// Where those stand that were dealt with at once, and how many follow.
    async fn cancel_target(
        &self,
        target: CancelTarget,
        graceful: bool,
    ) -> Result<(Vec<(Uuid, TaskState)>, u64), CoordinatorError> {
        let wish = CancelWish::of(graceful);
        let cancelled = self.shared.complete(move |shared| async move {
            let cancelled = shared.store.cancel(target, wish).await?;
            // Before the others are marked: what runs is not to wait for what does not.
            shared.publish(cancelled.changes).await;
            let Some(rest) = cancelled.rest else {
                return Ok((cancelled.tasks, 0));
            };
            let following = shared.store.cancel_rest(rest).await?;
            shared.timer.notify_one();
            Ok((cancelled.tasks, following))
        });
        Ok(cancelled.await?)
    }

    /// Repeats one ended task as a new one of the same suite that names the old.
    ///
    /// # Errors
    /// `NotFound`; `NotEnded`.
    pub async fn retry(&self, task: Uuid) -> Result<SubmittedTask, CoordinatorError> {
        let tasks = self.retry_target(RetryTarget::Tasks(vec![task])).await?;
        let what = "the repetition of a task";
        let new = tasks.into_iter().next();
        Ok(new.ok_or(StoreError::Corrupt { what })?)
    }

    /// Repeats every failed or cancelled task of a suite that has not been repeated yet.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn retry_all(&self, suite: Uuid) -> Result<Vec<SubmittedTask>, CoordinatorError> {
        self.retry_target(RetryTarget::Suite(suite)).await
    }

    /// Repeats ended tasks, all or none, each named once.
    ///
    /// # Errors
    /// `NotFound`; `NotEnded` names the first that has not ended.
    pub async fn retry_tasks(
        &self,
        tasks: Vec<Uuid>,
    ) -> Result<Vec<SubmittedTask>, CoordinatorError> {
        self.retry_target(RetryTarget::Tasks(tasks)).await
    }

    /// Repeats every failed task that has not been repeated yet.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn retry_failed(&self) -> Result<Vec<SubmittedTask>, CoordinatorError> {
        self.retry_target(RetryTarget::Failed).await
    }

    async fn retry_target(
        &self,
        target: RetryTarget,
    ) -> Result<Vec<SubmittedTask>, CoordinatorError> {
        let retried = self.shared.complete(move |shared| async move {
            let (tasks, changes) = shared.store.retry(target).await?;
            shared.publish(changes).await;
            Ok(tasks)
        });
        Ok(retried.await?)
    }

    /// Sets the mode of holders: pause, run, or leave. It is kept, and pushed where a session is open. A holder in
    /// another mode than `Run` is granted nothing.
    ///
    /// # Errors
    /// `NotFound` when the holder never registered.
    pub async fn set_mode(&self, target: ModeTarget, mode: Mode) -> Result<(), CoordinatorError> {
        let store = &self.shared.store;
        let one = async |kind, uuid| store.set_mode(named(kind, uuid), mode).await;
        let holders = match target {
            ModeTarget::Manager(uuid) => vec![one(HolderKind::Manager, uuid).await?],
            ModeTarget::Worker(uuid) => vec![one(HolderKind::Worker, uuid).await?],
            ModeTarget::All => store.set_mode_of_all(mode).await?,
        };
        for id in holders {
            if let Some(post) = self.shared.posts.get(id) {
                self.shared.publish_mode(&post, mode);
            }
        }
        // Whoever runs again may ask for what has been waiting.
        self.shared.work.announce_all();
        Ok(())
    }
}

fn named(kind: HolderKind, uuid: Uuid) -> Holder {
    Holder { kind, uuid }
}
