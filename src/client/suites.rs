//! Calls on suites.

use std::time::Duration;

use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::api::{
    CancelRequest, PageQuery, RetryResponse, SuitePage, SuiteSummary, WaitResponse,
};

impl ApiClient {
    /// One page of suites.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn suites(&self, page: &PageQuery) -> Result<SuitePage, ClientError> {
        let call = Call::get(self.api("/suites"))
            .with_some("cursor", page.cursor.as_deref())
            .with_some("limit", page.limit)
            .with_some("named", page.named.as_deref());
        self.call(call).await
    }

    /// One suite with its counts.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn suite(&self, uuid: Uuid) -> Result<SuiteSummary, ClientError> {
        self.call(Call::get(self.api(&format!("/suites/{uuid}"))))
            .await
    }

    /// Waits until every task of a suite has ended, at most `timeout` and a minute; the answer says whether they have.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn wait_suite(
        &self,
        uuid: Uuid,
        timeout: Duration,
    ) -> Result<WaitResponse, ClientError> {
        let call = Call::get(self.api(&format!("/suites/{uuid}/wait")));
        self.call(call.waiting("timeout", timeout)).await
    }

    /// Asks for the end of every task of a suite; the answer has the counts after that.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn cancel_suite(
        &self,
        uuid: Uuid,
        request: CancelRequest,
    ) -> Result<WaitResponse, ClientError> {
        let call = Call::post(self.api(&format!("/suites/{uuid}/cancel")));
        self.call(call.json(&request)).await
    }

    /// Repeats every failed or cancelled task of a suite that has not been repeated yet.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn retry_suite(&self, uuid: Uuid) -> Result<RetryResponse, ClientError> {
        self.call(Call::post(self.api(&format!("/suites/{uuid}/retry"))))
            .await
    }
}
