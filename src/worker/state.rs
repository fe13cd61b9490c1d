//! What a worker does next: a pure state machine. Events go in, actions come out, time is passed in.
//!
//! ```text
//!            Fetch                 task                verdict: run
//!   Idle ------------> Fetching --------> (rule) ----> Held --------------+
//!    ^ ^                  |                  |           |                 |
//!    | +--nothing, draining                  | start at  | cancel, stop,   v
//!    |                                       | once      | refused      Running
//!    |                                       +-----------|---------------> |
//!    +------- Report(final) <----------------------------+---- ended ------+
//! ```
//!
//! Beside the slot there is the newest [`Desired`] state and, once the worker is to leave, a [`Stop`] that never goes
//! away. Owned by the loop in [`super::run`], which performs the actions; nothing here does I/O or reads a clock.
//!
//! Invariants, held by property tests: a fetched task gets exactly one final report unless it turned out not to be
//! this worker's; nothing is fetched while paused, stopping or without room for reports; an order about another
//! hand-over has no effect; a cancel that is known before the start prevents the start; a stop wins over a pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comm::StartRule;
use crate::protocol::report::Reason;
use crate::protocol::{Desired, Mode, TaskResult, WorkerTaskResp};
use crate::shutdown::ShutdownRequest;

use super::runner::{EndCause, EndMode, EndOrder};

mod event;

pub use event::{Action, Event, Final, HandOver, Phase, StartVerdict, Stop, StopCause, Urgency};

#[derive(Debug)]
enum Slot {
    Idle,
    Fetching,
    Held(Arc<WorkerTaskResp>),
    Running {
        held: HandOver,
        ordered: Option<EndOrder>,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct WorkerState {
    start_rule: StartRule,
    desired: Desired,
    slot: Slot,
    stop: Option<Stop>,
    /// No fetch before this time.
    fetch_after: Option<Instant>,
    handed_back: bool,
    left: bool,
}

/// Reason given when a task is handed back before its start.
const STOPPED_BEFORE_START: &str = "the worker was stopped before the task started";
/// Reason given when a task is handed back in the middle.
const STOPPED_BEFORE_END: &str = "the worker was stopped before the task ended";
/// Reason given when the report of a start was refused as invalid.
const START_REFUSED: &str = "the report of its start was refused as invalid";

impl WorkerState {
    /// A worker with nothing in hand.
    #[must_use]
    pub fn new(start_rule: StartRule) -> Self {
        Self {
            start_rule,
            desired: Desired::default(),
            slot: Slot::Idle,
            stop: None,
            fetch_after: None,
            handed_back: false,
            left: false,
        }
    }

    /// Takes in one event; `actions` receives what to do about it.
    pub fn handle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Control(desired) => self.on_control(desired, now, actions),
            Event::Signal(request) => self.on_signal(request, now, actions),
            Event::Lost => self.stop(StopCause::Lost, Urgency::Immediate, actions),
            Event::Fetched(task) => self.on_fetched(task, actions),
            Event::FetchedNothing { retry_after } => self.on_nothing(now + retry_after),
            Event::Draining => self.on_draining(actions),
            Event::StartAnswered(held, verdict) => self.on_start_answered(held, verdict, actions),
            Event::Ended(result) => self.on_ended(result, actions),
            Event::Tick => self.on_tick(now, actions),
        }
    }

    /// Begins a fetch or leaves, if it is time to. `room` says whether the outbox has room for another task's
    /// reports. To be called after every event, once its actions are performed.
    pub fn settle(&mut self, room: bool, now: Instant) -> Option<Action> {
        if !matches!(self.slot, Slot::Idle) || self.left {
            return None;
        }
        if self.stop.is_some() {
            self.left = true;
            return Some(Action::Leave);
        }
        let pause_over = self.fetch_after.is_none_or(|after| after <= now);
        if !room || !pause_over || self.desired.mode != Mode::Run {
            return None;
        }
        self.fetch_after = None;
        self.slot = Slot::Fetching;
        Some(Action::Fetch)
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        match (&self.slot, self.stop) {
            (Slot::Running { ordered: None, .. }, Some(stop)) => match stop.urgency {
                Urgency::Graceful { until } => until,
                Urgency::Immediate => None,
            },
            (Slot::Idle, None) if self.desired.mode == Mode::Run => self.fetch_after,
            _ => None,
        }
    }

    /// Where the worker stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.slot {
            Slot::Idle if self.left => Phase::Leaving,
            Slot::Idle => Phase::Idle,
            Slot::Fetching => Phase::Fetching,
            Slot::Held(_) => Phase::Held,
            Slot::Running { .. } => Phase::Running,
        }
    }

    /// What is wanted of this worker, as far as it knows.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Why and how the worker leaves, if it does.
    #[must_use]
    pub fn stopping(&self) -> Option<Stop> {
        self.stop
    }

    /// True when a task was handed back because the worker had to leave.
    #[must_use]
    pub fn handed_back(&self) -> bool {
        self.handed_back
    }

    fn on_control(&mut self, desired: Desired, now: Instant, actions: &mut Vec<Action>) {
        self.desired = desired;
        if let Mode::Shutdown {
            graceful,
            deadline_ms,
        } = self.desired.mode
        {
            let urgency = if graceful {
                let until = (deadline_ms > 0).then(|| now + Duration::from_millis(deadline_ms));
                Urgency::Graceful { until }
            } else {
                Urgency::Immediate
            };
            self.stop(StopCause::Control, urgency, actions);
        }
        match &self.slot {
            Slot::Held(task) if self.cancel(HandOver::of(task)).is_some() => {
                let held = HandOver::of(task);
                self.finish(held, Final::NotStarted, actions);
            }
            Slot::Running { held, .. } => {
                if let Some(how) = self.cancel(*held) {
                    let why = EndCause::Cancelled;
                    self.order(EndOrder { why, how }, actions);
                }
            }
            Slot::Idle | Slot::Fetching | Slot::Held(_) => {}
        }
    }

    /// How the newest control state wants this hand-over ended, if it does.
    fn cancel(&self, held: HandOver) -> Option<EndMode> {
        self.desired
            .cancel_for(held.task.id, held.lease, held.try_no)
            .map(|order| EndMode::of(order.graceful))
    }

    fn on_signal(&mut self, request: ShutdownRequest, now: Instant, actions: &mut Vec<Action>) {
        let urgency = match (request, self.stop) {
            (
                ShutdownRequest::Graceful { deadline } | ShutdownRequest::Preempted { deadline },
                None,
            ) => Urgency::Graceful {
                until: Some(now + deadline),
            },
            // Whoever signals a worker that is leaving already does not want to wait.
            _ => Urgency::Immediate,
        };
        self.stop(StopCause::Signal, urgency, actions);
    }

    fn stop(&mut self, cause: StopCause, urgency: Urgency, actions: &mut Vec<Action>) {
        let stop = match self.stop {
            Some(before) => Stop {
                cause: if cause == StopCause::Lost {
                    cause
                } else {
                    before.cause
                },
                urgency: before.urgency.sooner(urgency),
            },
            None => Stop { cause, urgency },
        };
        self.stop = Some(stop);
        match &self.slot {
            Slot::Idle => {}
            Slot::Fetching => {
                self.slot = Slot::Idle;
                actions.push(Action::AbandonFetch);
            }
            Slot::Held(task) => {
                let held = HandOver::of(task);
                self.release(held, STOPPED_BEFORE_START, actions);
            }
            Slot::Running { .. } if stop.urgency == Urgency::Immediate => {
                let (why, how) = (EndCause::Preempted, EndMode::Kill);
                self.order(EndOrder { why, how }, actions);
            }
            Slot::Running { .. } => {}
        }
    }

    fn on_fetched(&mut self, task: Box<WorkerTaskResp>, actions: &mut Vec<Action>) {
        debug_assert!(
            matches!(self.slot, Slot::Fetching),
            "an abandoned fetch cannot answer"
        );
        let task = Arc::<WorkerTaskResp>::from(task);
        let held = HandOver::of(&task);
        if self.cancel(held).is_some() {
            return self.finish(held, Final::NotStarted, actions);
        }
        if self.stop.is_some() {
            return self.release(held, STOPPED_BEFORE_START, actions);
        }
        actions.push(Action::ReportStarted(held));
        match self.start_rule {
            StartRule::Immediately => self.start(task, actions),
            StartRule::AfterVerdict => self.slot = Slot::Held(task),
        }
    }

    fn start(&mut self, task: Arc<WorkerTaskResp>, actions: &mut Vec<Action>) {
        self.slot = Slot::Running {
            held: HandOver::of(&task),
            ordered: None,
        };
        actions.push(Action::Start(task));
    }

    fn on_nothing(&mut self, fetch_after: Instant) {
        if matches!(self.slot, Slot::Fetching) {
            self.slot = Slot::Idle;
            self.fetch_after = Some(fetch_after);
        }
    }

    fn on_draining(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.slot, Slot::Fetching) {
            self.slot = Slot::Idle;
        }
        self.stop(
            StopCause::Draining,
            Urgency::Graceful { until: None },
            actions,
        );
    }

    fn on_start_answered(
        &mut self,
        answered: HandOver,
        verdict: StartVerdict,
        actions: &mut Vec<Action>,
    ) {
        match &self.slot {
            Slot::Held(task) if HandOver::of(task) == answered => {
                let task = Arc::clone(task);
                match verdict {
                    StartVerdict::Run => self.start(task, actions),
                    StartVerdict::Cancel => self.finish(answered, Final::NotStarted, actions),
                    StartVerdict::Forget => self.slot = Slot::Idle,
                    StartVerdict::Invalid => {
                        self.finish(answered, Final::Released(START_REFUSED), actions);
                    }
                }
            }
            Slot::Running { held, .. } if *held == answered => {
                let (why, how) = match verdict {
                    StartVerdict::Run | StartVerdict::Invalid => return,
                    StartVerdict::Cancel => (EndCause::Cancelled, EndMode::Graceful),
                    StartVerdict::Forget => (EndCause::Forgotten, EndMode::Kill),
                };
                self.order(EndOrder { why, how }, actions);
            }
            // The task has ended meanwhile; its final report is under way and will be judged by itself.
            _ => {}
        }
    }

    fn on_ended(&mut self, mut result: Box<TaskResult>, actions: &mut Vec<Action>) {
        let Slot::Running { held, ordered } = self.slot else {
            debug_assert!(false, "only a running task can end");
            return;
        };
        let by_order = matches!(result.reason, Reason::Cancelled | Reason::Preempted);
        match ordered.map(|order| order.why) {
            Some(EndCause::Forgotten) => self.slot = Slot::Idle,
            Some(EndCause::Cancelled) if by_order => {
                result.reason = Reason::Cancelled;
                self.finish(held, Final::Result(result), actions);
            }
            Some(EndCause::Preempted) if by_order => {
                self.release(held, STOPPED_BEFORE_END, actions);
            }
            // It ended by itself before an order took effect: the result is real.
            _ => self.finish(held, Final::Result(result), actions),
        }
    }

    fn on_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(Stop {
            urgency: Urgency::Graceful { until: Some(until) },
            ..
        }) = self.stop
            && until <= now
        {
            let (why, how) = (EndCause::Preempted, EndMode::Graceful);
            self.order(EndOrder { why, how }, actions);
        }
    }

    /// Orders the running task's end, if that is not ordered already.
    fn order(&mut self, order: EndOrder, actions: &mut Vec<Action>) {
        if let Slot::Running { ordered, .. } = &mut self.slot {
            let wanted = ordered.map_or(order, |before| before.and(order));
            if *ordered != Some(wanted) {
                *ordered = Some(wanted);
                actions.push(Action::End(wanted));
            }
        }
    }

    fn release(&mut self, held: HandOver, reason: &'static str, actions: &mut Vec<Action>) {
        self.handed_back = true;
        self.finish(held, Final::Released(reason), actions);
    }

    fn finish(&mut self, held: HandOver, end: Final, actions: &mut Vec<Action>) {
        self.slot = Slot::Idle;
        actions.push(Action::ReportFinal(held, end));
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
