//! Calls on managers and workers as operators see them, on tokens, and on the coordinator's health.

use secrecy::SecretString;
use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::Mode;
use crate::protocol::api::{
    IssueTokenRequest, IssueTokenResponse, ManagerList, ManagerSummary, ModeRequest, WorkerList,
    WorkerSummary,
};
use crate::protocol::tuning::{Pollers, TuneOrder};

impl ApiClient {
    /// Managers that are connected or were heard within a day.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn managers(&self) -> Result<Vec<ManagerSummary>, ClientError> {
        let list: ManagerList = self.call(Call::get(self.api("/managers"))).await?;
        Ok(list.managers)
    }

    /// Independent workers that are registered or were heard within a day.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn workers(&self) -> Result<Vec<WorkerSummary>, ClientError> {
        let list: WorkerList = self.call(Call::get(self.api("/workers"))).await?;
        Ok(list.workers)
    }

    /// Pauses, resumes or shuts down one manager.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn set_manager_mode(&self, uuid: Uuid, mode: Mode) -> Result<(), ClientError> {
        let call = Call::post(self.api(&format!("/managers/{uuid}/mode")));
        self.order(call.json(&ModeRequest { mode })).await
    }

    /// How the pollers of a manager's machine wait.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn pollers(&self, manager: Uuid) -> Result<Pollers, ClientError> {
        let path = format!("/managers/{manager}/tuning");
        self.call(Call::get(self.api(&path))).await
    }

    /// Changes how pollers of a manager's machine wait; returns how they wait now.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn tune(&self, manager: Uuid, order: &TuneOrder) -> Result<Pollers, ClientError> {
        let path = format!("/managers/{manager}/tuning");
        self.call(Call::post(self.api(&path)).json(order)).await
    }

    /// Pauses, resumes or shuts down one independent worker.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn set_worker_mode(&self, uuid: Uuid, mode: Mode) -> Result<(), ClientError> {
        let call = Call::post(self.api(&format!("/workers/{uuid}/mode")));
        self.order(call.json(&ModeRequest { mode })).await
    }

    /// Pauses, resumes or shuts down every manager and independent worker there is now.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn set_mode(&self, mode: Mode) -> Result<(), ClientError> {
        let call = Call::post(self.api("/mode"));
        self.order(call.json(&ModeRequest { mode })).await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn issue_token(
        &self,
        request: &IssueTokenRequest,
    ) -> Result<SecretString, ClientError> {
        let call = Call::post(self.api("/tokens")).json(request);
        let answer: IssueTokenResponse = self.call(call).await?;
        Ok(answer.token.into())
    }

    /// Whether the coordinator's store answers.
    ///
    /// # Errors
    /// When it does not, or nobody answers.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.order(Call::get(self.path("/readyz"))).await
    }

    /// The coordinator's metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.send(Call::get(self.path("/metrics"))).await?;
        response.text().await.map_err(|error| self.failed(error))
    }
}
