//! A managed worker's connection to its manager: channel sends on the bridge's client end.
//!
//! Owned by the worker's entry, used by its loop through [`WorkerComm`]. The bridge moves bytes; this module knows
//! what they mean ([`crate::protocol::frame`]). It opens no port and knows no iceoryx2 type; liveness, identity and
//! redelivery are the bridge's.
//!
//! ```text
//!   fetch_tasks  --> link.fetch(wish)     reply bytes --> FetchTaskResponse, each with its claim
//!   report_tasks --> link.report(bytes)   reply bytes --> a ReportTaskResp each
//!   control()   <-- ControlFeed           snapshots --> ControlState --for_worker--> Desired
//!   lost()      <-- link.gone(), or a hand-over that nobody can read
//! ```

mod control;
mod link;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mitosis_bridge::client::FetchAnswer;
use mitosis_bridge::error::CallError;
use mitosis_bridge::ids::{Incarnation, LocalId};
use mitosis_bridge::{Dispatch, FetchWish};
use tokio::sync::watch;

use crate::error_chain::error_chain;
use crate::protocol::frame::{self, DecodeError, FetchTaskResponse};
use crate::protocol::{ControlState, Desired, ReportTaskResp, TaskReport};

use super::{CommError, Dispatched, Fetched, StartRule, WorkerComm};
use control::ControlFeed;
pub use link::{BridgeLink, ManagerLink};

/// How long a report may wait for its answer before it is sent again. The manager answers from memory; this is the
/// bound for one that is busy killing a machine's worth of workers.
const REPORT_DEADLINE: Duration = Duration::from_secs(10);

/// Whom a worker's connection belongs to.
#[derive(Debug, Clone, Copy)]
pub struct IpcIdentity {
    /// Slot at the manager.
    pub local_id: LocalId,
    /// Life of this process.
    pub incarnation: Incarnation,
}

/// The connection.
#[derive(Debug)]
pub struct IpcWorkerComm<L> {
    link: L,
    control: ControlFeed,
    /// Written by a fetch whose answer cannot be read, read by [`WorkerComm::lost`].
    unreadable_tx: watch::Sender<Option<String>>,
}

impl<L: ManagerLink> IpcWorkerComm<L> {
    /// A connection over an open link; must be called inside a runtime. `first` is the control state that came with
    /// the invitation.
    #[must_use]
    pub fn new(link: L, identity: IpcIdentity, first: &ControlState) -> Self {
        let control = ControlFeed::start(link.control(), identity, first);
        Self {
            link,
            control,
            unreadable_tx: watch::channel(None).0,
        }
    }

    /// Control snapshots that could not be read and were skipped.
    #[must_use]
    pub fn skipped_control_states(&self) -> u64 {
        self.control.skipped()
    }

    fn tasks(&self, replies: Vec<Dispatch>) -> Result<Fetched, CommError> {
        // The manager sent what it knew before these tasks; the loop is to judge them by it.
        self.control.absorb();
        let mut tasks = Vec::with_capacity(replies.len());
        for reply in replies {
            let decoded = frame::decode::<FetchTaskResponse>("answer to a fetch", &reply.payload);
            let (task, alone) = match decoded {
                Ok(FetchTaskResponse::Task(task)) => (task, false),
                Ok(FetchTaskResponse::Alone(task)) => (task, true),
                Err(error) => return Err(self.unreadable(&error)),
            };
            tasks.push(Dispatched {
                task: task.into(),
                claim: self.link.claim(&reply),
                alone,
            });
        }
        Ok(Fetched::Tasks(tasks))
    }

    /// The next fetch would confirm a hand-over that nobody can report on. Leaving makes the manager give the tasks to
    /// somebody else.
    fn unreadable(&self, error: &DecodeError) -> CommError {
        let reason = error_chain(error);
        self.unreadable_tx.send_replace(Some(reason.clone()));
        CommError::Protocol { reason }
    }
}

/// The manager parks requests itself, so asking again costs nothing.
fn ask_again() -> Fetched {
    Fetched::Empty {
        retry_after: Duration::ZERO,
    }
}

#[async_trait]
impl<L: ManagerLink> WorkerComm for IpcWorkerComm<L> {
    async fn fetch_tasks(&self, wish: FetchWish) -> Result<Fetched, CommError> {
        match self.link.fetch(wish).await {
            Ok(FetchAnswer::Replies(replies)) => self.tasks(replies),
            Ok(FetchAnswer::Empty) => Ok(ask_again()),
            Ok(FetchAnswer::Draining) => Ok(Fetched::Draining),
            Err(error) => Err(comm_error(&error)),
        }
    }

    async fn report_tasks(
        &self,
        reports: &[Arc<TaskReport>],
    ) -> Result<Vec<ReportTaskResp>, CommError> {
        let reports: Vec<&TaskReport> = reports.iter().map(AsRef::as_ref).collect();
        let payload = Bytes::from(frame::encode(&reports));
        let reply = self.link.report(payload, REPORT_DEADLINE).await;
        let reply = reply.map_err(|error| comm_error(&error))?;
        let answers: Vec<ReportTaskResp> =
            frame::decode("answer to reports", &reply).map_err(|error| CommError::Protocol {
                reason: error_chain(&error),
            })?;
        if answers.len() == reports.len() {
            return Ok(answers);
        }
        let (told, answered) = (reports.len(), answers.len());
        Err(CommError::Protocol {
            reason: format!("{told} reports have {answered} answers"),
        })
    }

    /// The manager sees life and death by itself; this only stamps the status block.
    async fn send_heartbeat(&self) -> Result<(), CommError> {
        self.link.stamp();
        Ok(())
    }

    fn control(&self) -> watch::Receiver<Desired> {
        self.control.subscribe()
    }

    fn start_rule(&self) -> StartRule {
        StartRule::Immediately
    }

    async fn lost(&self) -> CommError {
        let mut gone = self.link.gone();
        let mut unreadable = self.unreadable_tx.subscribe();
        tokio::select! {
            // A closed channel means that the poller has ended, which is as good as a manager that is gone.
            _ = gone.wait_for(|gone| *gone) => CommError::PeerGone { peer: "manager" },
            Ok(reason) = unreadable.wait_for(Option::is_some) => CommError::Protocol {
                reason: reason.clone().unwrap_or_default(),
            },
        }
    }

    async fn leave(&self, deadline: Duration) {
        self.link.close(deadline).await;
    }
}

fn comm_error(error: &CallError) -> CommError {
    let reason = error_chain(error);
    match error {
        CallError::Gone | CallError::Closed => CommError::PeerGone { peer: "manager" },
        CallError::Refused { .. } => CommError::Refused { reason },
        CallError::TooLarge { .. } => CommError::Protocol { reason },
        error if error.is_retryable() => CommError::Retryable {
            reason,
            after: None,
        },
        _ => CommError::Protocol { reason },
    }
}

#[cfg(test)]
mod tests;
