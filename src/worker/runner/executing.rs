//! The real runner: the executor of this worker's slot behind the seam.
//!
//! An executor runs one task at a time and must be held exclusively meanwhile. It is lent out of a slot for each run
//! and comes back when the run ends, is dropped or panics; the executor itself clears away what such a run left.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::protocol::report::Reason;
use crate::protocol::{TaskResult, WorkerTaskResp};
use crate::wall_clock::unix_us;
use crate::worker::executor::{Executor, Life, StopOrder};
use crate::worker::status::WorkerStatus;

use super::TaskRunner;

/// Runs tasks as child processes.
#[derive(Debug)]
pub struct ExecutorRunner {
    slot: Mutex<Option<Executor>>,
}

impl ExecutorRunner {
    /// Puts an executor behind the seam.
    #[must_use]
    pub fn new(executor: Executor) -> Self {
        Self {
            slot: Mutex::new(Some(executor)),
        }
    }

    fn borrow(&self) -> Option<Lent<'_>> {
        let executor = self.slot().take()?;
        Some(Lent {
            home: self,
            executor: Some(executor),
        })
    }

    /// Held for a move in or out, never across an await.
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Executor>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An executor on loan; goes home when dropped, also by a panic.
struct Lent<'a> {
    home: &'a ExecutorRunner,
    executor: Option<Executor>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *self.home.slot() = self.executor.take();
    }
}

#[async_trait]
impl TaskRunner for ExecutorRunner {
    async fn run(
        &self,
        task: Arc<WorkerTaskResp>,
        orders: watch::Receiver<StopOrder>,
        status: &dyn WorkerStatus,
    ) -> TaskResult {
        let Some(mut lent) = self.borrow() else {
            let message = "the worker runs one task at a time and is running one";
            return TaskResult::not_started(Reason::SpawnFailed, message, unix_us());
        };
        let executor = lent.executor.as_mut().expect("lent with an executor in it");
        let watch = |life: Life| match life {
            Life::Started(started) => {
                let leader = started.pid.as_raw_nonzero().get();
                status.process_group(u32::try_from(leader).ok());
                tracing::debug!(task = task.id, uuid = %task.uuid, pid = leader, "task started");
            }
            // Before anything is packed: the number may be a stranger's by then.
            Life::Gone => status.process_group(None),
        };
        let result = executor.run_watched(&task, orders, watch).await;
        status.process_group(None);
        let reason = result.reason.as_str();
        tracing::debug!(task = task.id, uuid = %task.uuid, reason, "task exited");
        result
    }
}
