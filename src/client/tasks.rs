//! Calls on tasks.

use std::time::Duration;

use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::api::{
    CancelMatchingRequest, CancelMatchingResponse, CancelRequest, CancelResponse, RetryRequest,
    RetryResponse, SubmitRequest, SubmitResponse, SubmittedTask, TaskDetail, TaskFilter, TaskPage,
    WaitRequest, WaitResponse,
};
use crate::protocol::why::TaskWhy;

impl ApiClient {
    /// Submits tasks, all or none. With idempotency keys the same call may be repeated after a failure.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn submit(&self, request: &SubmitRequest) -> Result<SubmitResponse, ClientError> {
        self.call(Call::post(self.api("/tasks")).json(request))
            .await
    }

    /// Submits a part of a submission; `before` tasks came in earlier ones. May be repeated until it is answered.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn submit_part(
        &self,
        submission: Uuid,
        (part, is_last): (usize, bool),
        before: usize,
        request: &SubmitRequest,
    ) -> Result<SubmitResponse, ClientError> {
        let call = Call::put(self.api(&format!("/submissions/{submission}")))
            .with("part", part)
            .with("last", is_last)
            .with("before", before)
            .json(request);
        self.call(call).await
    }

    /// Gives a submission up whose last part has not come.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn abandon(&self, submission: Uuid) -> Result<(), ClientError> {
        let call = Call::delete(self.api(&format!("/submissions/{submission}")));
        self.order(call).await
    }

    /// One page of tasks.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, ClientError> {
        let call = Call::get(self.api("/tasks"))
            .with_some("suite", filter.suite)
            .with_some("state", filter.state.as_deref())
            .with_some("select", filter.select.as_deref())
            .with_some("unrepeated", filter.unrepeated)
            .with_some("cursor", filter.cursor.as_deref())
            .with_some("limit", filter.limit);
        self.call(call).await
    }

    /// Everything about one task.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn task(&self, uuid: Uuid) -> Result<TaskDetail, ClientError> {
        self.call(Call::get(self.api(&format!("/tasks/{uuid}"))))
            .await
    }

    /// Why a task is not running, or how its time was spent.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn why(&self, uuid: Uuid) -> Result<TaskWhy, ClientError> {
        self.call(Call::get(self.api(&format!("/tasks/{uuid}/why"))))
            .await
    }

    /// Waits until a task has ended, at most `timeout` and a minute; the answer says whether it has.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn wait_task(
        &self,
        uuid: Uuid,
        timeout: Duration,
    ) -> Result<WaitResponse, ClientError> {
        let call = Call::get(self.api(&format!("/tasks/{uuid}/wait")));
        self.call(call.waiting("timeout", timeout)).await
    }

    /// Waits until several tasks have ended, at most `timeout` and a minute; the answer says whether they have. At most
    /// [`MAX_WAIT_TASKS`](crate::protocol::api::MAX_WAIT_TASKS).
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn wait_tasks(
        &self,
        request: &WaitRequest,
        timeout: Duration,
    ) -> Result<WaitResponse, ClientError> {
        let call = Call::post(self.api("/tasks/wait")).json(request);
        self.call(call.waiting("timeout", timeout)).await
    }

    /// Asks for a task's end.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn cancel_task(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<CancelResponse, ClientError> {
        let call = Call::post(self.api(&format!("/tasks/{uuid}/cancel")));
        self.call(call.json(&request)).await
    }

    /// Asks for the end of every task that a filter lets through.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn cancel_matching(
        &self,
        request: &CancelMatchingRequest,
    ) -> Result<CancelMatchingResponse, ClientError> {
        self.call(Call::post(self.api("/tasks/cancel")).json(request))
            .await
    }

    /// Repeats an ended task as a new one.
    ///
    /// # Errors
    /// When refused or not answered; `not_ended` while the task has not ended.
    pub async fn retry_task(&self, uuid: Uuid) -> Result<SubmittedTask, ClientError> {
        self.call(Call::post(self.api(&format!("/tasks/{uuid}/retry"))))
            .await
    }

    /// Repeats several ended tasks, all or none.
    ///
    /// # Errors
    /// When refused or not answered; `not_ended` while one has not ended.
    pub async fn retry(&self, request: &RetryRequest) -> Result<RetryResponse, ClientError> {
        self.call(Call::post(self.api("/tasks/retry")).json(request))
            .await
    }
}
