//! When a running task is signaled and what its end is called.
//!
//! Pure: events and the time go in, at most one action comes out. [`super::Running`] performs the actions and feeds
//! the exit before anything else that happened by the same time, so a program that ended by itself keeps its result.
//!
//! ```text
//!             time limit, Graceful           grace over, Immediate          still there after 2 s
//!   Running ----------------------> Terminating ------------------> Killing ----------------------> Ended
//!      |  \________ Immediate ______________________________________^  |
//!      |                                 |                             |
//!      +------------ exited -------------+----------- exited ----------+---------------------------> Ended
//! ```
//!
//! The first cause names the end, with one exception: a cancel that follows a hand-back wins, because a cancelled task
//! needs no other holder.

use std::time::{Duration, Instant};

use crate::process::ExitStatus;
use crate::protocol::report::Reason;
use crate::protocol::span::LONGEST;

/// How long a killed leader may take to disappear before its task is reported without it.
pub const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// What is wanted of the running task. Written by the worker's loop into a `watch` channel, read by
/// [`super::Running::finish`]; going back to a milder order changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopOrder {
    /// Let it run.
    #[default]
    None,
    /// TERM, grace, KILL.
    Graceful(StopReason),
    /// KILL.
    Immediate(StopReason),
}

/// Why a task is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A user's wish; the result's reason is [`Reason::Cancelled`].
    Cancelled,
    /// The worker leaves and the task is to be run elsewhere; the result's reason is [`Reason::Preempted`], which tells
    /// the worker's loop to release the task instead of reporting an end.
    HandBack,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The leader has ended.
    Exited(ExitStatus),
    /// The newest order.
    Order(StopOrder),
    /// The kernel has killed a process of the task for its memory limit.
    OutOfMemory,
    /// What it writes finds no place, and never will.
    OutputLost,
    /// Nothing but time.
    Time,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// TERM to the group.
    Terminate,
    /// KILL to the whole tree.
    Kill,
    /// It is over.
    Finish(End),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The name of the end.
    pub(super) reason: Reason,
    /// What the leader left; `None` when it could not be killed.
    pub(super) status: Option<ExitStatus>,
    /// True when the grace period was over before it ended.
    pub(super) killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Timeout,
    OutOfMemory,
    OutputLost,
    Stop(StopReason),
}

impl Cause {
    fn reason(self) -> Reason {
        match self {
            Self::Timeout => Reason::Timeout,
            Self::OutOfMemory => Reason::Oom,
            Self::OutputLost => Reason::OutputLost,
            Self::Stop(StopReason::Cancelled) => Reason::Cancelled,
            Self::Stop(StopReason::HandBack) => Reason::Preempted,
        }
    }

    /// The cause that names the end when `later` follows `self`.
    fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Stop(StopReason::HandBack), Self::Stop(StopReason::Cancelled)) => later,
            _ => self,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Terminating {
        cause: Cause,
        kill_at: Instant,
    },
    Killing {
        cause: Cause,
        after_grace: bool,
        give_up_at: Instant,
    },
    Ended,
}

/// How long a task may run, and how long it may take to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Longest run time.
    pub(super) time_limit: Option<Duration>,
    /// From TERM to KILL.
    pub(super) grace: Duration,
}

/// One task's way from start to end.
#[derive(Debug, Clone)]
pub(super) struct Lifecycle {
    state: State,
    time_limit_at: Option<Instant>,
    grace: Duration,
}

impl Lifecycle {
    /// A task that has just been started.
    pub(super) fn new(started: Instant, limits: Limits) -> Self {
        Self {
            state: State::Running,
            // A limit beyond what the clock can count is no limit.
            time_limit_at: limits
                .time_limit
                .and_then(|limit| started.checked_add(limit)),
            grace: limits.grace.min(LONGEST),
        }
    }

    /// Moves what is due by time in which nothing ran.
    pub(super) fn stood_still(&mut self, took: Duration) {
        let later = |at: &mut Instant| *at = at.checked_add(took).unwrap_or(*at);
        self.time_limit_at.as_mut().into_iter().for_each(later);
        match &mut self.state {
            State::Terminating { kill_at, .. } => later(kill_at),
            State::Killing { give_up_at, .. } => later(give_up_at),
            State::Running | State::Ended => {}
        }
    }

    /// True while nothing is waited for any more.
    pub(super) fn is_killing(&self) -> bool {
        matches!(self.state, State::Killing { .. })
    }

    /// When [`Event::Time`] is due next.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.state {
            State::Running => self.time_limit_at,
            State::Terminating { kill_at, .. } => Some(kill_at),
            State::Killing { give_up_at, .. } => Some(give_up_at),
            State::Ended => None,
        }
    }

    /// Takes one event and says what to do about it.
    pub(super) fn handle(&mut self, now: Instant, event: Event) -> Option<Action> {
        match event {
            Event::Exited(status) => self.exited(status),
            Event::Order(StopOrder::None) => None,
            Event::Order(StopOrder::Graceful(reason)) => self.terminate(now, Cause::Stop(reason)),
            Event::Order(StopOrder::Immediate(reason)) => self.kill(now, Cause::Stop(reason)),
            Event::OutOfMemory => self.kill(now, Cause::OutOfMemory),
            Event::OutputLost => self.kill(now, Cause::OutputLost),
            Event::Time => self.time_passed(now),
        }
    }

    fn exited(&mut self, status: ExitStatus) -> Option<Action> {
        let (reason, killed) = match (self.state, status) {
            (State::Ended, _) => return None,
            (State::Running, ExitStatus::Code(_)) => (Reason::Exit, false),
            (State::Running, ExitStatus::Signal(_)) => (Reason::Signal, false),
            (State::Terminating { cause, .. }, _) => (cause.reason(), false),
            (
                State::Killing {
                    cause, after_grace, ..
                },
                _,
            ) => (cause.reason(), after_grace),
        };
        self.end(reason, Some(status), killed)
    }

    fn terminate(&mut self, now: Instant, cause: Cause) -> Option<Action> {
        match &mut self.state {
            State::Running => {
                let kill_at = now + self.grace;
                self.state = State::Terminating { cause, kill_at };
                Some(Action::Terminate)
            }
            State::Terminating { cause: first, .. } | State::Killing { cause: first, .. } => {
                *first = first.followed_by(cause);
                None
            }
            State::Ended => None,
        }
    }

    fn kill(&mut self, now: Instant, cause: Cause) -> Option<Action> {
        match self.state {
            State::Running => self.start_killing(now, cause, false),
            State::Terminating { cause: first, .. } => {
                self.start_killing(now, first.followed_by(cause), false)
            }
            State::Killing { .. } | State::Ended => self.terminate(now, cause),
        }
    }

    fn time_passed(&mut self, now: Instant) -> Option<Action> {
        if self.wake_at().is_none_or(|at| now < at) {
            return None;
        }
        match self.state {
            State::Running => self.terminate(now, Cause::Timeout),
            State::Terminating { cause, .. } => self.start_killing(now, cause, true),
            State::Killing {
                cause, after_grace, ..
            } => self.end(cause.reason(), None, after_grace),
            State::Ended => None,
        }
    }

    fn start_killing(&mut self, now: Instant, cause: Cause, after_grace: bool) -> Option<Action> {
        let give_up_at = now + KILL_PATIENCE;
        self.state = State::Killing {
            cause,
            after_grace,
            give_up_at,
        };
        Some(Action::Kill)
    }

    fn end(&mut self, reason: Reason, status: Option<ExitStatus>, killed: bool) -> Option<Action> {
        self.state = State::Ended;
        Some(Action::Finish(End {
            reason,
            status,
            killed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const CANCEL: StopReason = StopReason::Cancelled;
    const HAND_BACK: StopReason = StopReason::HandBack;

    struct Scene {
        start: Instant,
        task: Lifecycle,
    }

    impl Scene {
        fn new(limit: Option<u64>) -> Self {
            let start = Instant::now();
            let time_limit = limit.map(Duration::from_secs);
            let task = Lifecycle::new(
                start,
                Limits {
                    time_limit,
                    grace: GRACE,
                },
            );
            Self { start, task }
        }

        fn at(&mut self, seconds: u64, event: Event) -> Option<Action> {
            self.task
                .handle(self.start + Duration::from_secs(seconds), event)
        }

        fn ends_as(&mut self, seconds: u64, status: ExitStatus) -> (Reason, bool) {
            match self.at(seconds, Event::Exited(status)) {
                Some(Action::Finish(end)) => (end.reason, end.killed),
                other => panic!("no end but {other:?}"),
            }
        }
    }

    #[test]
    fn a_memory_limit_names_the_end_unless_something_else_came_first() {
        let mut task = Scene::new(None);
        assert_eq!(task.at(1, Event::OutOfMemory), Some(Action::Kill));
        assert_eq!(task.at(1, Event::OutOfMemory), None);
        assert_eq!(task.ends_as(1, ExitStatus::Code(0)), (Reason::Oom, false));
        let mut task = Scene::new(Some(1));
        assert_eq!(task.at(1, Event::Time), Some(Action::Terminate));
        assert_eq!(task.at(2, Event::OutOfMemory), Some(Action::Kill));
        let end = task.ends_as(2, ExitStatus::Signal(9));
        assert_eq!(end, (Reason::Timeout, false));
    }

    #[test]
    fn a_task_that_nobody_stops_ends_by_its_own_exit_or_signal() {
        assert_eq!(
            Scene::new(None).ends_as(1, ExitStatus::Code(3)),
            (Reason::Exit, false)
        );
        assert_eq!(
            Scene::new(None).ends_as(1, ExitStatus::Signal(9)),
            (Reason::Signal, false)
        );
    }

    #[test]
    fn the_time_limit_terminates_and_the_end_of_grace_kills() {
        let mut scene = Scene::new(Some(5));
        assert_eq!(scene.at(4, Event::Time), None);
        assert_eq!(scene.at(5, Event::Time), Some(Action::Terminate));
        assert_eq!(scene.at(14, Event::Time), None);
        assert_eq!(scene.at(15, Event::Time), Some(Action::Kill));
        assert_eq!(
            scene.ends_as(15, ExitStatus::Signal(9)),
            (Reason::Timeout, true)
        );
    }

    #[test]
    fn limits_stand_still_with_the_task() {
        let mut scene = Scene::new(Some(5));
        scene.task.stood_still(Duration::from_secs(100));
        assert_eq!(scene.at(104, Event::Time), None);
        assert_eq!(scene.at(105, Event::Time), Some(Action::Terminate));
        scene.task.stood_still(Duration::from_secs(100));
        assert_eq!(scene.at(214, Event::Time), None);
        assert_eq!(scene.at(215, Event::Time), Some(Action::Kill));
        assert!(scene.task.is_killing());
    }

    #[test]
    fn an_immediate_order_during_grace_kills_at_once_and_keeps_the_first_cause() {
        let mut scene = Scene::new(Some(5));
        assert_eq!(scene.at(5, Event::Time), Some(Action::Terminate));
        let order = Event::Order(StopOrder::Immediate(CANCEL));
        assert_eq!(scene.at(6, order), Some(Action::Kill));
        assert_eq!(scene.at(7, order), None);
        assert_eq!(
            scene.ends_as(7, ExitStatus::Signal(9)),
            (Reason::Timeout, false)
        );
    }

    #[test]
    fn a_cancel_wins_over_a_hand_back_and_not_the_other_way_round() {
        for (first, second) in [(HAND_BACK, CANCEL), (CANCEL, HAND_BACK)] {
            let mut scene = Scene::new(None);
            assert_eq!(
                scene.at(1, Event::Order(StopOrder::Graceful(first))),
                Some(Action::Terminate)
            );
            assert_eq!(scene.at(2, Event::Order(StopOrder::Graceful(second))), None);
            assert_eq!(
                scene.ends_as(3, ExitStatus::Code(0)),
                (Reason::Cancelled, false)
            );
        }
    }

    #[test]
    fn a_leader_that_survives_the_kill_is_given_up() {
        let mut scene = Scene::new(None);
        scene.at(1, Event::Order(StopOrder::Immediate(HAND_BACK)));
        assert_eq!(scene.at(2, Event::Time), None);
        let end = End {
            reason: Reason::Preempted,
            status: None,
            killed: false,
        };
        assert_eq!(scene.at(3, Event::Time), Some(Action::Finish(end)));
        assert_eq!(scene.at(4, Event::Exited(ExitStatus::Code(0))), None);
    }

    fn event() -> impl Strategy<Value = Event> {
        let reason = prop_oneof![Just(CANCEL), Just(HAND_BACK)];
        prop_oneof![
            4 => Just(Event::Time),
            1 => Just(Event::Order(StopOrder::None)),
            2 => reason.clone().prop_map(|reason| Event::Order(StopOrder::Graceful(reason))),
            1 => reason.prop_map(|reason| Event::Order(StopOrder::Immediate(reason))),
            1 => (0..256).prop_map(|code| Event::Exited(ExitStatus::Code(code))),
            1 => (1..32).prop_map(|signal| Event::Exited(ExitStatus::Signal(signal))),
        ]
    }

    proptest! {
        #[test]
        fn every_task_ends_once_and_signals_only_get_harder(
            limit in proptest::option::of(1..20u64),
            events in proptest::collection::vec((0..8u64, event()), 1..60),
        ) {
            let mut scene = Scene::new(limit);
            let (mut seconds, mut rank, mut stopped) = (0, 0, false);
            for (pause, event) in events {
                seconds += pause;
                stopped |= !matches!(event, Event::Exited(_) | Event::Time | Event::Order(StopOrder::None));
                let action = scene.at(seconds, event);
                let next = match action {
                    None => continue,
                    Some(Action::Terminate) => 1,
                    Some(Action::Kill) => 2,
                    Some(Action::Finish(end)) => {
                        let natural = matches!(end.reason, Reason::Exit | Reason::Signal);
                        prop_assert_eq!(natural, rank == 0, "only signals sent here change the reason");
                        prop_assert!(end.status.is_some() || rank == 2);
                        3
                    }
                };
                prop_assert!(next > rank, "{action:?} after rank {rank}");
                rank = next;
            }
            prop_assert!(rank > 0 || !stopped, "an order was ignored");
        }

        #[test]
        fn an_order_is_followed_by_the_end_within_grace_and_patience(
            limit in proptest::option::of(1..20u64),
            pauses in proptest::collection::vec(0..5u64, 30),
        ) {
            let mut scene = Scene::new(limit);
            scene.at(0, Event::Order(StopOrder::Graceful(CANCEL)));
            let mut seconds = 0;
            for pause in pauses {
                seconds += pause;
                scene.at(seconds, Event::Time);
                // Whoever obeys `wake_at` is late by its own pause only, never by a missed step.
                let latest = scene.start + Duration::from_secs(seconds) + GRACE + KILL_PATIENCE;
                prop_assert!(scene.task.wake_at().is_none_or(|at| at <= latest));
            }
            prop_assert!(seconds < 25 || scene.task.wake_at().is_none());
        }
    }
}
