//! From decisions to deeds: feeds events to the state machine, performs its actions, sends what is due.
//!
//! Whatever takes time becomes a future that the loop keeps; nothing here waits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::FutureExt;
use tracing::{debug, info};

use crate::protocol::report::Reason;
use crate::protocol::{ReportTaskOp, TaskResult, WorkerTaskResp};
use crate::worker::clock::{now, unix_us};
use crate::worker::executor::StopOrder;
use crate::worker::state::{Action, Event, Final, HandOver, Phase, Urgency};

use super::{FLUSH_AT_LEAST, FLUSH_LIMIT, IMMEDIATE_LIMIT, MOST_DELIVERIES, Parts, Worker};

impl Worker<'_> {
    pub(super) fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.state.handle(event, now(), &mut actions);
        for action in actions.drain(..) {
            self.perform(action);
        }
        self.actions = actions;
        if let Some(stop) = self.state.stopping()
            && stop.urgency == Urgency::Immediate
        {
            let by = now() + IMMEDIATE_LIMIT;
            self.leave_by = Some(self.leave_by.map_or(by, |earlier| earlier.min(by)));
        }
    }

    /// Begins what the machine wants to begin, sends what is due, tells where the worker stands.
    pub(super) fn settle(&mut self) {
        let has_room = |worker: &Self| {
            worker.outbox.has_room_for_a_task() && worker.delivering.len() < MOST_DELIVERIES
        };
        while let Some(action) = self.state.settle(has_room(self), now()) {
            self.perform(action);
        }
        self.send_due_reports();
        let phase = self.state.phase();
        let busy = matches!(phase, Phase::Held | Phase::Running);
        if !busy && self.in_hand.take().is_some() {
            self.parts.status.in_hand(None);
        }
        self.parts.status.phase(phase);
        self.busy_tx
            .send_if_modified(|before| std::mem::replace(before, busy) != busy);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Fetch => self.fetching = Some(self.parts.comm.fetch_task()),
            Action::AbandonFetch => self.fetching = None,
            Action::ReportStarted(held) => {
                self.report(held, ReportTaskOp::Started { at_us: unix_us() })
            }
            Action::Start(task) => self.start(task),
            Action::End(order) => {
                info!(?order, "ending the task");
                self.orders_tx.send_replace(order.to_executor());
            }
            Action::ReportFinal(held, end) => self.report(held, final_op(end)),
            Action::Leave => self.begin_to_leave(),
        }
    }

    fn start(&mut self, task: Arc<WorkerTaskResp>) {
        debug!(task = task.id, uuid = %task.uuid, attempt = task.attempt, "task started");
        self.orders_tx.send_replace(StopOrder::None);
        let Parts { runner, status, .. } = self.parts;
        let run = runner.run(task, self.orders_tx.subscribe(), status);
        // A panic inside the executor is the task's failure and not the worker's: nothing of the loop is borrowed.
        self.running = Some(AssertUnwindSafe(run).catch_unwind().boxed());
    }

    fn report(&mut self, held: HandOver, op: ReportTaskOp) {
        if let ReportTaskOp::Released { reason } = &op {
            info!(task = held.task.id, uuid = %held.task.uuid, %reason, "task handed back");
        }
        self.outbox.push(held, op);
    }

    fn send_due_reports(&mut self) {
        if self.lost.is_some() {
            return;
        }
        while let Some(report) = self.outbox.due(now()) {
            let comm = self.parts.comm;
            let send = async move { (report.seq, comm.report_task(&report).await) };
            self.sending.push(send.boxed());
        }
    }

    fn begin_to_leave(&mut self) {
        let urgency = self.state.stopping().map(|stop| stop.urgency);
        let by = match urgency {
            Some(Urgency::Graceful { until: Some(until) }) => {
                until.max(now() + FLUSH_AT_LEAST).min(now() + FLUSH_LIMIT)
            }
            Some(Urgency::Graceful { until: None }) | None => now() + FLUSH_LIMIT,
            Some(Urgency::Immediate) => now() + IMMEDIATE_LIMIT,
        };
        self.leave_by = Some(self.leave_by.map_or(by, |earlier| earlier.min(by)));
    }
}

fn final_op(end: Final) -> ReportTaskOp {
    match end {
        Final::Result(result) => ReportTaskOp::ended(*result),
        Final::NotStarted => ReportTaskOp::Cancelled(TaskResult::not_started(
            Reason::Cancelled,
            "cancelled before it started",
            unix_us(),
        )),
        Final::Released(reason) => ReportTaskOp::Released {
            reason: reason.to_owned(),
        },
    }
}
