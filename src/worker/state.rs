//! What a worker does next: a pure state machine. Events go in, actions come out, time is passed in.
//!
//! ```text
//!            Fetch                 tasks               verdict: run
//!   idle ------------> fetching --------> (rule) ----> held --------------+
//!    ^                                       |           |                |
//!    |                             at once   |           | cancel, stop,  v
//!    |                                       +-----------|-- refused -> in line: one runs, the others wait
//!    |                                                   |                |
//!    +------- Report(final) <----------------------------+---- ended -----+-- taken back, withdrawn
//! ```
//!
//! A worker runs one task at a time and may have others in line behind it, so that the next begins without a question;
//! a fetch for more is under way when half of them are through. Beside the line there is the newest [`Desired`] state and,
//! once the worker is to leave, a [`Stop`] that never goes away. Whether a task in line has begun is decided where it is
//! begun; whoever wants it back tries to claim it first. Owned by the loop in [`super::run`], which performs the actions;
//! nothing here does I/O or reads a clock.
//!
//! Invariants, held by property tests: a fetched task gets exactly one final report unless it turned out not to be
//! this worker's; nothing is fetched while paused, stopping or without room for reports; an order about another
//! hand-over has no effect; a cancel that is known before the start prevents the start; a stop wins over a pause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::comm::{Dispatched, StartRule};
use crate::protocol::report::Reason;
use crate::protocol::{Desired, Mode, TaskResult};
use crate::shutdown::ShutdownRequest;

use super::runner::{EndCause, EndMode, EndOrder};

mod event;

pub use event::{
    Action, Event, Final, HandOver, Phase, StartVerdict, Stop, StopCause, TakeBack, Urgency,
};

/// A task that was given to the runner and has not ended.
#[derive(Debug)]
struct InLine {
    held: HandOver,
    alone: bool,
    /// It has been running for a while.
    began: bool,
    ordered: Option<EndOrder>,
}

/// The state machine.
#[derive(Debug)]
pub struct WorkerState {
    start_rule: StartRule,
    desired: Desired,
    is_fetching: bool,
    /// Wait for the verdict on their start.
    waiting: Vec<Dispatched>,
    /// In the order in which they are run.
    line: VecDeque<InLine>,
    /// Length of the line after the last fetch.
    batch: usize,
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
/// Reason given when nothing may be begun.
const GATE_SHUT: &str = "nothing may be begun at the moment";
/// Reason given when the report of a start was refused as invalid.
const START_REFUSED: &str = "the report of its start was refused as invalid";

impl WorkerState {
    /// A worker with nothing in hand.
    #[must_use]
    pub fn new(start_rule: StartRule) -> Self {
        Self {
            start_rule,
            desired: Desired::default(),
            is_fetching: false,
            waiting: Vec::new(),
            line: VecDeque::new(),
            batch: 0,
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
            Event::Fetched(tasks) => self.on_fetched(tasks, actions),
            Event::FetchedNothing { retry_after } => self.on_nothing(now + retry_after),
            Event::Draining => self.on_draining(actions),
            Event::StartAnswered(held, verdict) => self.on_start_answered(held, verdict, actions),
            Event::Began(held, at_us) => self.on_began(held, at_us, actions),
            Event::TakenBack(held, end) => self.on_taken_back(held, end, actions),
            Event::NotTakenBack(held, order) => self.order(held, order, actions),
            Event::Withdrawn(held) => drop(self.remove(held)),
            Event::GateShut(held) => self.on_taken_back(held, Final::Released(GATE_SHUT), actions),
            Event::Ended(held, result) => self.on_ended(held, result, actions),
            Event::Tick => self.on_tick(now, actions),
        }
    }

    /// Begins a fetch or leaves, if it is time to. `room` says whether the outbox has room for another task's
    /// reports. To be called after every event, once its actions are performed.
    pub fn settle(&mut self, room: bool, now: Instant) -> Option<Action> {
        if self.left || self.is_fetching || !self.waiting.is_empty() {
            return None;
        }
        if self.stop.is_some() {
            let through = self.line.is_empty();
            self.left = through;
            return through.then_some(Action::Leave);
        }
        let pause_over = self.fetch_after.is_none_or(|after| after <= now);
        if !room || !pause_over || self.desired.mode != Mode::Run || !self.wants_more() {
            return None;
        }
        self.fetch_after = None;
        self.is_fetching = true;
        Some(Action::Fetch {
            idle: self.line.is_empty(),
        })
    }

    /// Half of what came is through, or of two the first runs.
    fn wants_more(&self) -> bool {
        let alone = self.line.iter().any(|task| task.alone);
        self.line.is_empty() || (!alone && self.line.len() <= (self.batch / 2).max(1))
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        match self.stop {
            Some(stop) if self.line.iter().any(|task| task.ordered.is_none()) => match stop.urgency
            {
                Urgency::Graceful { until } => until,
                Urgency::Immediate => None,
            },
            None if !self.is_fetching && self.desired.mode == Mode::Run && self.wants_more() => {
                self.fetch_after
            }
            _ => None,
        }
    }

    /// Where the worker stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.line.iter().any(|task| task.began) {
            Phase::Engaged
        } else if !self.line.is_empty() {
            Phase::Running
        } else if !self.waiting.is_empty() {
            Phase::Held
        } else if self.is_fetching {
            Phase::Fetching
        } else if self.left {
            Phase::Leaving
        } else {
            Phase::Idle
        }
    }

    /// Tasks in line, the one that runs included.
    #[must_use]
    pub fn in_line(&self) -> usize {
        self.line.len()
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
        let mut waiting = self.waiting_for_verdicts();
        waiting.retain(|held| self.cancel(*held).is_some());
        for held in waiting {
            self.waiting.retain(|task| HandOver::of(&task.task) != held);
            Self::report(held, Final::NotStarted, actions);
        }
        for task in &self.line {
            if let Some(how) = self.cancel(task.held) {
                let why = EndCause::Cancelled;
                actions.push(Action::TakeBack(TakeBack {
                    held: task.held,
                    end: Final::NotStarted,
                    or: Some(EndOrder { why, how }),
                }));
            }
        }
    }

    fn waiting_for_verdicts(&self) -> Vec<HandOver> {
        let held = |task: &Dispatched| HandOver::of(&task.task);
        self.waiting.iter().map(held).collect()
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
        if std::mem::take(&mut self.is_fetching) {
            actions.push(Action::AbandonFetch);
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.release(HandOver::of(&waiting.task), STOPPED_BEFORE_START, actions);
        }
        let kill = (stop.urgency == Urgency::Immediate).then_some(EndOrder {
            why: EndCause::Preempted,
            how: EndMode::Kill,
        });
        self.take_back_all(kill, actions);
    }

    /// Hands back what has not begun, and ends what has by `or`.
    fn take_back_all(&self, or: Option<EndOrder>, actions: &mut Vec<Action>) {
        actions.extend(self.line.iter().map(|task| {
            Action::TakeBack(TakeBack {
                held: task.held,
                end: Final::Released(STOPPED_BEFORE_START),
                or,
            })
        }));
    }

    fn on_fetched(&mut self, tasks: Vec<Dispatched>, actions: &mut Vec<Action>) {
        debug_assert!(self.is_fetching, "an abandoned fetch cannot answer");
        self.is_fetching = false;
        for task in tasks {
            self.take_in(task, actions);
        }
        self.batch = self.line.len();
    }

    fn take_in(&mut self, task: Dispatched, actions: &mut Vec<Action>) {
        let held = HandOver::of(&task.task);
        if self.cancel(held).is_some() {
            return Self::report(held, Final::NotStarted, actions);
        }
        if self.stop.is_some() {
            return self.release(held, STOPPED_BEFORE_START, actions);
        }
        match self.start_rule {
            StartRule::Immediately => self.start(task, actions),
            StartRule::AfterVerdict => {
                actions.push(Action::AskToStart(held));
                self.waiting.push(task);
            }
        }
    }

    fn start(&mut self, task: Dispatched, actions: &mut Vec<Action>) {
        self.line.push_back(InLine {
            held: HandOver::of(&task.task),
            alone: task.alone,
            began: false,
            ordered: None,
        });
        actions.push(Action::Start(task));
    }

    fn on_nothing(&mut self, fetch_after: Instant) {
        if std::mem::take(&mut self.is_fetching) {
            self.fetch_after = Some(fetch_after);
        }
    }

    fn on_draining(&mut self, actions: &mut Vec<Action>) {
        self.is_fetching = false;
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
        let is_it = |task: &Dispatched| HandOver::of(&task.task) == answered;
        if let Some(index) = self.waiting.iter().position(is_it) {
            let task = self.waiting.remove(index);
            return match verdict {
                StartVerdict::Run => {
                    self.start(task, actions);
                    self.batch = self.line.len();
                }
                StartVerdict::Cancel => Self::report(answered, Final::NotStarted, actions),
                StartVerdict::Forget => {}
                StartVerdict::Invalid => {
                    self.release(answered, START_REFUSED, actions);
                }
            };
        }
        // One that has ended meanwhile is not in line; its final report is under way and will be judged by itself.
        let (why, how) = match verdict {
            StartVerdict::Run | StartVerdict::Invalid => return,
            StartVerdict::Cancel => (EndCause::Cancelled, EndMode::Graceful),
            StartVerdict::Forget => (EndCause::Forgotten, EndMode::Kill),
        };
        self.order(answered, EndOrder { why, how }, actions);
    }

    /// It has gone on for a while. Where starts are asked for, this one is known.
    fn on_began(&mut self, held: HandOver, at_us: i64, actions: &mut Vec<Action>) {
        let task = self.line.iter_mut().find(|task| task.held == held);
        let in_line = task.map(|task| task.began = true).is_some();
        if in_line && self.start_rule == StartRule::Immediately {
            actions.push(Action::ReportStarted(held, at_us));
        }
    }

    fn on_taken_back(&mut self, held: HandOver, end: Final, actions: &mut Vec<Action>) {
        let Some(InLine { ordered, .. }) = self.remove(held) else {
            return;
        };
        if ordered.is_some_and(|order| order.why == EndCause::Forgotten) {
            return;
        }
        self.handed_back |= matches!(end, Final::Released(reason) if reason != GATE_SHUT);
        Self::report(held, end, actions);
    }

    fn on_ended(&mut self, held: HandOver, mut result: Box<TaskResult>, actions: &mut Vec<Action>) {
        let Some(InLine { ordered, .. }) = self.remove(held) else {
            debug_assert!(false, "only a task in line can end");
            return;
        };
        let by_order = matches!(result.reason, Reason::Cancelled | Reason::Preempted);
        match ordered.map(|order| order.why) {
            Some(EndCause::Forgotten) => {}
            Some(EndCause::Cancelled) if by_order => {
                result.reason = Reason::Cancelled;
                Self::report(held, Final::Result(result), actions);
            }
            Some(EndCause::Preempted) if by_order => {
                self.release(held, STOPPED_BEFORE_END, actions);
            }
            // It ended by itself before an order took effect: the result is real.
            _ => Self::report(held, Final::Result(result), actions),
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
            self.take_back_all(Some(EndOrder { why, how }), actions);
        }
    }

    /// Orders the end of a task in line, if that is not ordered already.
    fn order(&mut self, held: HandOver, order: EndOrder, actions: &mut Vec<Action>) {
        let task = self.line.iter_mut().find(|task| task.held == held);
        let Some(InLine { ordered, .. }) = task else {
            return;
        };
        let wanted = ordered.map_or(order, |before| before.and(order));
        if *ordered != Some(wanted) {
            *ordered = Some(wanted);
            actions.push(Action::End(held, wanted));
        }
    }

    fn release(&mut self, held: HandOver, reason: &'static str, actions: &mut Vec<Action>) {
        self.handed_back = true;
        Self::report(held, Final::Released(reason), actions);
    }

    fn remove(&mut self, held: HandOver) -> Option<InLine> {
        let index = self.line.iter().position(|task| task.held == held)?;
        self.line.remove(index)
    }

    fn report(held: HandOver, end: Final, actions: &mut Vec<Action>) {
        actions.push(Action::ReportFinal(held, end));
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
