//! Runs what is in line, one task after the other.
//!
//! ```text
//!   next job --> claim it --> is the gate open? --> run --> count its end at the gate --> write it down --> news
//!                   | somebody was faster   | no: news
//!                   v news                  v
//! ```
//!
//! An async function, so that it runs wherever a runtime is: on the runner's own thread in a worker, beside the loop in
//! tests. It decides nothing about reports, leases or orders.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::future::FutureExt;
use mitosis_bridge::{Ending, HaltAfter, SharedGate};
use tracing::{debug, info, warn};

use crate::comm::ended::{Ended, Ends};
use crate::guard::tolerated;
use crate::protocol::frame::HaltLimits;
use crate::protocol::{Outcome, ReportTaskOp, TaskResult};
use crate::wall_clock::unix_us;
use crate::worker::executor::StopOrder;
use crate::worker::status::WorkerStatus;

use super::TaskRunner;
use super::queue::{Job, News, QueueEnd, TELL_WITHIN};

/// The gate that is looked at before anything begins.
#[derive(Debug, Clone, Default)]
pub struct Gatekeeper {
    shared: Option<(SharedGate, HaltAfter)>,
    apart: Option<Duration>,
}

impl Gatekeeper {
    /// A gate shared with others; ends beyond the limits of `after` shut it.
    #[must_use]
    pub fn new(gate: SharedGate, after: HaltAfter) -> Self {
        Self {
            shared: Some((gate, after)),
            apart: None,
        }
    }

    /// Lets nothing begin for so long after a beginning, whoever's it was.
    #[must_use]
    pub fn apart(self, apart: Option<Duration>) -> Self {
        Self { apart, ..self }
    }

    /// Waits until something may begin again.
    async fn wait(&self) {
        let (Some((gate, _)), Some(apart)) = (&self.shared, self.apart) else {
            return;
        };
        while let Some(left) = gate.begin_apart(apart) {
            tokio::time::sleep(left).await;
        }
    }

    /// How long everything has stood still by order.
    pub(super) fn stood_still(&self) -> Duration {
        let shared = self.shared.as_ref();
        shared.map_or(Duration::ZERO, |(gate, _)| gate.stood_still())
    }

    fn is_open(&self) -> bool {
        self.shared.as_ref().is_none_or(|(gate, _)| gate.is_open())
    }

    /// Counts the end of a task, if it is one: an execution that is repeated, or that was not wanted, is none.
    fn count(&self, job: &Job, result: &TaskResult) {
        let Some((gate, after)) = &self.shared else {
            return;
        };
        match ReportTaskOp::outcome_of(result) {
            Outcome::Completed => gate.count(Ending::Completed, *after),
            Outcome::Failed if job.task.fails_for_good() => gate.count(Ending::Failed, *after),
            Outcome::Failed | Outcome::Cancelled => {}
        }
    }
}

impl From<HaltLimits> for HaltAfter {
    fn from(limits: HaltLimits) -> Self {
        let HaltLimits {
            failed,
            completed,
            done,
        } = limits;
        Self {
            failed,
            completed,
            done,
        }
    }
}

/// Runs tasks until the loop is gone.
pub async fn drive(
    mut queue: QueueEnd,
    runner: &dyn TaskRunner,
    status: &dyn WorkerStatus,
    gate: Gatekeeper,
    mut ends: Option<Ends>,
) {
    while let Some(job) = queue.next().await {
        let held = job.held;
        if gate.apart.is_some() {
            // Not claimed yet, so that it can be had back meanwhile.
            let mut abandoned = queue.abandoned();
            tokio::select! {
                biased;
                () = gate.wait() => {}
                Err(_) = abandoned.changed() => return,
            }
        }
        if !job.claim.take() {
            job.claim.clear();
            queue.add(News::Withdrawn(held));
        } else if !gate.is_open() {
            job.claim.clear();
            queue.add(News::GateShut(held));
        } else {
            let Some(result) = run(&mut queue, &job, runner, status).await else {
                return;
            };
            // What could still be lost does not count: nobody would open the gate again.
            if let Ok(result) = &result
                && write_down(ends.as_mut(), &job, result)
            {
                gate.count(&job, result);
            }
            job.claim.clear();
            queue.add(News::Ended(held, result));
        }
    }
}

/// Keeps an end on file until it is told; true when that was done. What was ended by order may be another end by the time it
/// is told.
fn write_down(ends: Option<&mut Ends>, job: &Job, result: &TaskResult) -> bool {
    let by_order = *job.orders.borrow() != StopOrder::None;
    let Some(ends) = ends.filter(|_| !by_order) else {
        return false;
    };
    let ended = Ended {
        task_id: job.task.id,
        task_uuid: job.task.uuid,
        lease: job.task.lease,
        try_no: job.task.try_no,
        attempt: job.task.attempt,
        op: ReportTaskOp::ended(result.clone()),
    };
    ends.write(&ended).unwrap_or_else(|error| {
        warn!(%error, "the end of a task cannot be written down; a death now may repeat it");
        false
    })
}

/// Runs one; `None` when it was abandoned.
async fn run(
    queue: &mut QueueEnd,
    job: &Job,
    runner: &dyn TaskRunner,
    status: &dyn WorkerStatus,
) -> Option<Result<Box<TaskResult>, String>> {
    let (task, held) = (&job.task, job.held);
    debug!(task = task.id, uuid = %task.uuid, attempt = task.attempt, "task started");
    status.in_hand(Some(held));
    let began_us = unix_us();
    let run = runner.run(std::sync::Arc::clone(task), job.orders.clone(), status);
    // A panic inside the executor is the task's failure and not the worker's: nothing of the queue is borrowed.
    let mut run = std::pin::pin!(AssertUnwindSafe(tolerated(run)).catch_unwind());
    let mut abandoned = queue.abandoned();
    let mut told = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut run => break ended,
            Err(_) = abandoned.changed() => return None,
            () = tokio::time::sleep(TELL_WITHIN), if !told => {
                told = true;
                queue.add(News::Began(held, began_us));
                queue.tell();
            }
        }
    };
    let result = ended.map(Box::new).map_err(|panic| {
        let message = format!("the executor panicked: {}", panic_text(panic.as_ref()));
        warn!(%message);
        status.process_group(None);
        message
    });
    if let Ok(result) = &result {
        info!(task = task.id, uuid = %task.uuid, reason = result.reason.as_str(), exit_code = result.exit_code,
            signal = result.signal, wall_us = result.wall_us(), "task ended");
    }
    status.in_hand(None);
    Some(result)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
