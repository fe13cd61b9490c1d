//! The steps of a shutdown. Pure: what is left and the time come in, the next step goes out.
//!
//! ```text
//!   Serving --graceful--> Draining --all gone----------------------------------------> Flushing --> Over
//!      |                     | deadline, immediate                                        ^
//!      |                     v                                                            |
//!      +---immediate---> (Terminating --time--> Killing) --all gone-----------------------+
//! ```
//!
//! Every step has an end in time. Killing alone waits for the kernel: a worker that cannot die holds its task, and nobody
//! else may get that.

use std::time::{Duration, Instant};

use super::config::Limits;

/// How long killed workers are waited for before the manager leaves without them.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Where a shutdown stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// There is none.
    Serving,
    /// Workers were told to leave; running tasks have until then.
    Draining { until: Instant },
    /// Workers got TERM.
    Terminating { until: Instant },
    /// Workers got KILL.
    Killing { until: Instant },
    /// No worker is left; the spool is offered to the coordinator.
    Flushing { until: Instant },
    /// Nothing is left to do.
    Over,
}

/// What to do on entering a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Terminate,
    Kill,
    Flush,
    Leave,
}

/// What is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) workers: u32,
    /// Something waits for the coordinator, and there is a session to carry it.
    pub(super) to_flush: bool,
}

impl Closing {
    /// True before any shutdown.
    pub(super) fn is_serving(self) -> bool {
        self == Self::Serving
    }

    /// Begins a graceful shutdown that leaves running tasks `patience`. An ongoing one is not prolonged.
    pub(super) fn drain(&mut self, patience: Duration, now: Instant) -> bool {
        let begins = self.is_serving();
        if begins {
            *self = Self::Draining {
                until: now + patience,
            };
        }
        begins
    }

    /// Goes to the killing at once.
    pub(super) fn cut_short(&mut self, now: Instant) -> Option<Step> {
        if !matches!(
            self,
            Self::Serving | Self::Draining { .. } | Self::Terminating { .. }
        ) {
            return None;
        }
        *self = Self::Killing {
            until: now + KILL_LIMIT,
        };
        Some(Step::Kill)
    }

    /// Every step that is due, in order. Afterwards nothing is left that another look at the same moment would find, so a
    /// shutdown waits for events and for its deadlines, never for the next look.
    pub(super) fn settle(&mut self, left: Left, limits: &Limits, now: Instant) -> Vec<Step> {
        std::iter::from_fn(|| self.advance(left, limits, now)).collect()
    }

    /// The next step, when it is time for it.
    fn advance(&mut self, left: Left, limits: &Limits, now: Instant) -> Option<Step> {
        let (next, step) = match *self {
            Self::Serving | Self::Over => return None,
            Self::Draining { .. } | Self::Terminating { .. } | Self::Killing { .. }
                if left.workers == 0 =>
            {
                let until = now + limits.flush;
                (Self::Flushing { until }, Step::Flush)
            }
            Self::Draining { until } if now >= until => {
                let until = now + limits.term;
                (Self::Terminating { until }, Step::Terminate)
            }
            Self::Terminating { until } if now >= until => {
                let until = now + KILL_LIMIT;
                (Self::Killing { until }, Step::Kill)
            }
            Self::Killing { until } if now >= until => (Self::Over, Step::Leave),
            Self::Flushing { until } if now >= until || !left.to_flush => (Self::Over, Step::Leave),
            _ => return None,
        };
        *self = next;
        Some(step)
    }

    /// When the step ends by itself.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Serving | Self::Over => None,
            Self::Draining { until }
            | Self::Terminating { until }
            | Self::Killing { until }
            | Self::Flushing { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Left = Left {
        workers: 2,
        to_flush: true,
    };
    const GONE: Left = Left {
        workers: 0,
        to_flush: true,
    };
    const DONE: Left = Left {
        workers: 0,
        to_flush: false,
    };

    #[test]
    fn workers_that_leave_in_time_are_not_signaled() {
        let (limits, now) = (Limits::default(), Instant::now());
        let mut closing = Closing::Serving;
        assert!(closing.drain(Duration::from_secs(30), now));
        assert!(
            !closing.drain(Duration::from_secs(90), now),
            "a second wish prolongs nothing"
        );
        assert_eq!(closing.advance(BUSY, &limits, now), None);
        assert_eq!(closing.advance(GONE, &limits, now), Some(Step::Flush));
        assert_eq!(closing.advance(GONE, &limits, now), None);
        assert_eq!(closing.advance(DONE, &limits, now), Some(Step::Leave));
        assert_eq!(closing, Closing::Over);
    }

    #[test]
    fn workers_that_stay_are_terminated_then_killed_and_every_step_ends() {
        let (limits, mut now) = (Limits::default(), Instant::now());
        let mut closing = Closing::Serving;
        closing.drain(Duration::from_secs(1), now);
        let mut steps = Vec::new();
        while closing != Closing::Over {
            now = closing.until().unwrap();
            steps.extend(closing.advance(BUSY, &limits, now));
        }
        assert_eq!(steps, [Step::Terminate, Step::Kill, Step::Leave]);
    }

    #[test]
    fn an_immediate_wish_cuts_every_wait_short_once() {
        let now = Instant::now();
        let mut closing = Closing::Serving;
        closing.drain(Duration::from_secs(1000), now);
        assert_eq!(closing.cut_short(now), Some(Step::Kill));
        assert_eq!(closing.cut_short(now), None);
    }

    #[test]
    fn nothing_left_is_over_at_once_without_another_look() {
        let (limits, now) = (Limits::default(), Instant::now());
        let mut closing = Closing::Serving;
        closing.drain(Duration::from_secs(30), now);
        assert_eq!(
            closing.settle(DONE, &limits, now),
            [Step::Flush, Step::Leave]
        );
        assert_eq!(closing, Closing::Over);
        let mut closing = Closing::Serving;
        closing.drain(Duration::from_secs(30), now);
        assert_eq!(closing.settle(GONE, &limits, now), [Step::Flush]);
        assert_eq!(closing.settle(DONE, &limits, now), [Step::Leave]);
    }

    #[test]
    fn the_flush_is_bounded() {
        let (limits, now) = (Limits::default(), Instant::now());
        let mut closing = Closing::Flushing { until: now };
        assert_eq!(closing.advance(GONE, &limits, now), Some(Step::Leave));
    }
}
