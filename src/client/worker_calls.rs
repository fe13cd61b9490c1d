//! Calls of independent workers, under a token of scope worker (registration: of a user or of the worker itself).

use std::time::Duration;

use uuid::Uuid;

use super::ClientError;
use super::request::{ApiClient, Call};
use crate::protocol::api::{
    HeartbeatBody, HeartbeatResponse, RegisterWorkerRequest, RegisterWorkerResponse, ReportTaskBody,
};
use crate::protocol::{Desired, ReportTaskResp, WorkerTaskResp};

impl ApiClient {
    /// Registers a worker; it then holds nothing.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn register_worker(
        &self,
        request: &RegisterWorkerRequest,
    ) -> Result<RegisterWorkerResponse, ClientError> {
        self.call(Call::post(self.api("/workers/register")).json(request))
            .await
    }

    /// Waits up to `wait` (30 s at most) for a task.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn fetch_task(&self, wait: Duration) -> Result<Option<WorkerTaskResp>, ClientError> {
        let call = Call::get(self.api("/workers/fetch-task"));
        self.call_maybe(call.waiting("wait", wait)).await
    }

    /// Reports what happened to a task.
    ///
    /// # Errors
    /// When refused or not answered. A verdict that is no success is an answer, not an error.
    pub async fn report_task(
        &self,
        report: &ReportTaskBody,
    ) -> Result<ReportTaskResp, ClientError> {
        self.call(Call::post(self.api("/workers/report-task")).json(report))
            .await
    }

    /// Tells that the worker is alive.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn heartbeat(&self, worker_uuid: Uuid) -> Result<HeartbeatResponse, ClientError> {
        let call = Call::post(self.api("/workers/heartbeat"));
        self.call(call.json(&HeartbeatBody { worker_uuid })).await
    }

    /// Hears what is wanted of the worker: at once when it is newer than `seen`, else when it changes or after `wait`.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn control(&self, seen: &Desired, wait: Duration) -> Result<Desired, ClientError> {
        let call = Call::get(self.api("/workers/control"))
            .with("epoch", seen.epoch)
            .with("after", seen.seq);
        self.call(call.waiting("wait", wait)).await
    }

    /// Leaves; whatever the worker still holds is requeued.
    ///
    /// # Errors
    /// When refused or not answered.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.order(Call::post(self.api("/workers/leave"))).await
    }
}
