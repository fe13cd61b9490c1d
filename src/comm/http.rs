//! An independent worker's way to its coordinator over HTTP.
//!
//! [`HttpWorkerComm`] registers, and from then on acts under a token for its own uuid. Three futures share one
//! `Session`:
//!
//! ```text
//!   worker's main loop --fetch, report, heartbeat--> coordinator
//!   keeper   <-- "my registration is not accepted" -- any of them     registers again, one at a time
//!   listener --control long poll--> coordinator                       feeds the newest `Desired`
//! ```
//!
//! Every status has its rule in [`verdict`]; retrying a passing fault, and how often, is the worker's decision, except
//! for the listener, which has nobody to ask. What has ended for good is told by [`WorkerComm::lost`].

mod keeper;
mod listener;
mod session;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mitosis_bridge::FetchWish;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{CommError, Dispatched, Fetched, StartRule, WorkerComm};
use crate::client::{ApiClient, ClientError};
use crate::endpoint::TokenSource;
use crate::protocol::api::ReportTaskBody;
use crate::protocol::{Desired, ReportTaskResp, TaskReport};
use keeper::{Keeper, KeeperHandle};
use session::Session;

/// How long a fetch is parked.
const FETCH_WAIT: Duration = Duration::from_secs(30);
/// An idle answer faster than this was not parked: the coordinator is stopping, or is not one that parks.
const PARKED: Duration = Duration::from_secs(1);
/// Pause after an answer that was not parked.
const UNPARKED_PAUSE: Duration = Duration::from_secs(1);
/// Longest goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Who the worker is.
#[derive(Debug, Clone)]
pub struct HttpWorkerConfig {
    /// The coordinator.
    pub url: String,
    /// A token of scope user (to register any worker) or worker (to take up its own name again).
    pub token: TokenSource,
    /// The name it had before.
    pub worker_uuid: Option<Uuid>,
    /// Name of the machine, for people.
    pub host: String,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Free key-value pairs.
    pub labels: BTreeMap<String, String>,
}

/// A registered worker. Dropping it stops its background futures without a goodbye.
#[derive(Debug)]
pub struct HttpWorkerComm {
    client: ApiClient,
    keeper: KeeperHandle,
    desired: watch::Sender<Desired>,
    background: [JoinHandle<()>; 2],
}

impl HttpWorkerComm {
    /// Registers the worker. One attempt: whether to try again is the caller's decision.
    ///
    /// # Errors
    /// `Retryable` while the coordinator is away, `Refused` when it does not want this worker.
    pub async fn connect(config: HttpWorkerConfig) -> Result<Self, CommError> {
        let token = session::enroll_token(&config.token).await?;
        let client = ApiClient::new(&config.url, token).map_err(|error| verdict::setup(&error))?;
        let session = session::register(&client, &config, config.worker_uuid)
            .await
            .map_err(|error| verdict::final_or_passing(&error))?;
        tracing::info!(worker = %session.worker, url = client.url(), "registered with the coordinator");
        let (keeper, handle) = Keeper::new(client.clone(), config, session);
        let desired = watch::Sender::new(Desired::default());
        let listening = listener::listen(client.clone(), handle.clone(), desired.clone());
        let background = [tokio::spawn(keeper.run()), tokio::spawn(listening)];
        Ok(Self {
            client,
            keeper: handle,
            desired,
            background,
        })
    }

    /// The worker's name.
    #[must_use]
    pub fn worker_uuid(&self) -> Uuid {
        self.keeper.session().worker
    }

    /// How often the coordinator wants a heartbeat.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.keeper.session().heartbeat
    }

    /// How long a lease lasts after the last sign of life.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.keeper.session().lease
    }

    /// Makes a call under the current session; when the session is not accepted, once more under a new one.
    async fn call<T, F, Fut>(&self, call: F) -> Result<T, ClientError>
    where
        F: Fn(ApiClient, Session) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let session = self.keeper.session();
        let client = self.client.with_token(session.token.clone());
        match call(client, session.clone()).await {
            Err(error) if verdict::wants_registration(&error) => {
                let session = self.keeper.renew(session.generation).await?;
                let client = self.client.with_token(session.token.clone());
                call(client, session).await
            }
            answered => answered,
        }
    }

    async fn report(&self, report: &TaskReport) -> Result<ReportTaskResp, CommError> {
        let body = ReportTaskBody {
            seq: report.seq,
            task_id: report.task_id,
            task_uuid: report.task_uuid,
            lease: report.lease,
            op: report.op.clone(),
        };
        let body = &body;
        let reported = self.call(|client, _| async move { client.report_task(body).await });
        match reported.await {
            Ok(answer) => Ok(answer),
            Err(error) => match verdict::of_report(&error) {
                Some(verdict) => Ok(ReportTaskResp::of(verdict, 0)),
                None => Err(self.failed(&error)),
            },
        }
    }

    /// What a failed call means; a final refusal is also told by [`WorkerComm::lost`].
    fn failed(&self, error: &ClientError) -> CommError {
        let meaning = verdict::final_or_passing(error);
        if let CommError::Refused { reason } = &meaning {
            self.keeper.give_up(reason);
        }
        meaning
    }
}

#[async_trait]
impl WorkerComm for HttpWorkerComm {
    async fn fetch_tasks(&self, _wish: FetchWish) -> Result<Fetched, CommError> {
        let asked = Instant::now();
        let fetched = self.call(|client, _| async move { client.fetch_task(FETCH_WAIT).await });
        match fetched.await {
            Ok(Some(task)) => Ok(Fetched::Tasks(vec![Dispatched::own(task)])),
            Ok(None) if asked.elapsed() >= PARKED => Ok(Fetched::Empty {
                retry_after: Duration::ZERO,
            }),
            Ok(None) => Ok(Fetched::Empty {
                retry_after: UNPARKED_PAUSE,
            }),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn report_tasks(
        &self,
        reports: &[Arc<TaskReport>],
    ) -> Result<Vec<ReportTaskResp>, CommError> {
        let mut answers = Vec::with_capacity(reports.len());
        for report in reports {
            answers.push(self.report(report).await?);
        }
        Ok(answers)
    }

    async fn send_heartbeat(&self) -> Result<(), CommError> {
        let beaten = self.call(|client, session| async move {
            let answer = client.heartbeat(session.worker).await?;
            Ok((answer, session.generation))
        });
        let (answer, generation) = beaten.await.map_err(|error| self.failed(&error))?;
        if let Some(token) = answer.token {
            self.keeper.use_token(generation, token.into());
        }
        listener::hear(&self.desired, answer.control);
        Ok(())
    }

    fn control(&self) -> watch::Receiver<Desired> {
        self.desired.subscribe()
    }

    fn start_rule(&self) -> StartRule {
        StartRule::AfterVerdict
    }

    async fn lost(&self) -> CommError {
        CommError::Refused {
            reason: self.keeper.given_up().await,
        }
    }

    async fn leave(&self, deadline: Duration) {
        for future in &self.background {
            future.abort();
        }
        let client = self.client.with_token(self.keeper.session().token);
        // A coordinator that is away takes the worker's silence for the same, only later.
        match tokio::time::timeout(deadline.min(GOODBYE), client.leave()).await {
            Ok(Ok(())) => tracing::info!("left the coordinator"),
            Ok(Err(error)) => tracing::warn!(%error, "the coordinator did not hear the goodbye"),
            Err(_) => tracing::warn!("the coordinator did not hear the goodbye in time"),
        }
    }
}

impl Drop for HttpWorkerComm {
    fn drop(&mut self) {
        for future in &self.background {
            future.abort();
        }
    }
}
