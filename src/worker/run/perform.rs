//! From decisions to deeds: feeds events to the state machine, performs its actions, sends what is due.
//!
//! Whatever takes time becomes a future that the loop keeps; nothing here waits.

use futures_util::future::FutureExt;
use mitosis_bridge::{FetchWish, MAX_BATCH};
use tracing::info;

use crate::comm::Dispatched;
use crate::protocol::report::Reason;
use crate::protocol::{ReportTaskOp, TaskResult};
use crate::wall_clock::unix_us;
use crate::worker::clock::now;
use crate::worker::state::{Action, Event, Final, HandOver, Phase, TakeBack, Urgency};

use super::{
    FLUSH_AT_LEAST, FLUSH_LIMIT, FREE_DELIVERIES, IMMEDIATE_LIMIT, MOST_DELIVERIES, Worker,
};

impl Worker<'_> {
    pub(super) fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.state.handle(event, now(), &mut actions);
        for action in actions.drain(..) {
            self.perform(action);
        }
        self.actions = actions;
        for event in std::mem::take(&mut self.later) {
            self.feed(event);
        }
        if let Some(stop) = self.state.stopping()
            && stop.urgency == Urgency::Immediate
        {
            let by = now() + IMMEDIATE_LIMIT;
            self.leave_by = Some(self.leave_by.map_or(by, |earlier| earlier.min(by)));
        }
    }

    /// Begins what the machine wants to begin, sends what is due, tells where the worker stands.
    pub(super) fn settle(&mut self) {
        while let Some(action) = self.state.settle(self.room() > 0, now()) {
            // Where the worker stands is known before anybody can answer.
            self.parts.status.phase(self.state.phase());
            self.perform(action);
        }
        self.send_due_reports();
        let phase = self.state.phase();
        let busy = matches!(phase, Phase::Held | Phase::Running | Phase::Engaged);
        self.parts.status.phase(phase);
        self.busy_tx
            .send_if_modified(|before| std::mem::replace(before, busy) != busy);
    }

    /// Tasks that may come with a fetch: their reports must have room in the outbox.
    fn room(&self) -> usize {
        let delivering = self.delivering.len();
        if delivering >= MOST_DELIVERIES
            || delivering >= FREE_DELIVERIES && !self.parts.sender.has_room()
        {
            return 0;
        }
        let room = self.outbox.room_for_tasks();
        room.saturating_sub(self.state.in_line()).min(MAX_BATCH)
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Fetch { idle } => {
                let room = u16::try_from(self.room()).unwrap_or(u16::MAX).max(1);
                let wish = FetchWish { room, idle };
                self.fetching = Some(self.parts.comm.fetch_tasks(wish));
            }
            Action::AbandonFetch => self.fetching = None,
            Action::AskToStart(held) => {
                self.report(held, ReportTaskOp::Started { at_us: unix_us() });
            }
            Action::ReportStarted(held, at_us) => {
                self.report(held, ReportTaskOp::Started { at_us });
            }
            Action::Start(task) => self.start(task),
            Action::TakeBack(wish) => self.take_back(wish),
            Action::End(held, order) => {
                info!(task = held.task.id, ?order, "ending the task");
                self.queue.order(held, order.to_executor());
            }
            Action::ReportFinal(held, end) => self.report(held, final_op(end)),
            Action::Leave => self.begin_to_leave(),
        }
    }

    fn start(&mut self, task: Dispatched) {
        if let Err(held) = self.queue.give(task) {
            let words = "the thread that runs tasks is gone";
            let result = TaskResult::not_started(Reason::WorkerLost, words, unix_us());
            self.later.push(Event::Ended(held, Box::new(result)));
        }
    }

    fn take_back(&mut self, TakeBack { held, end, or }: TakeBack) {
        if self.queue.take_back(held) {
            self.later.push(Event::TakenBack(held, end));
        } else if let Some(order) = or {
            self.later.push(Event::NotTakenBack(held, order));
        }
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
        loop {
            let reports = self.outbox.due(now());
            if reports.is_empty() {
                return;
            }
            let comm = self.parts.comm;
            let send = async move {
                let answers = comm.report_tasks(&reports).await;
                (reports.iter().map(|report| report.seq).collect(), answers)
            };
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
