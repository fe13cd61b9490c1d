//! How many tasks to ask for, and when. Pure.
//!
//! The target is enough for twice the workers, or for what ended in the last 200 ms, whichever is more: short tasks
//! come in large batches, long ones are left to managers with free hands. Below half of the target one claim goes out,
//! never two. After an empty answer the next claim waits for a hint or for the fallback poll.

use std::time::{Duration, Instant};

use super::config::MAX_PREFETCH;

const WINDOW: Duration = Duration::from_millis(200);
/// Pause after an answer that brought some but not all: the queue was empty then, yet more may trickle in.
const PARTIAL_PAUSE: Duration = Duration::from_millis(20);

/// Decides about claims.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Target when completions do not ask for more.
    base: u32,
    fixed: bool,
    poll: Duration,
    in_flight: Option<u32>,
    hinted: bool,
    not_before: Option<Instant>,
    window_began: Option<Instant>,
    window_ended: u32,
    last_window: u32,
}

impl Intake {
    /// `prefetch` replaces the computed target.
    pub(crate) fn new(workers: u16, prefetch: Option<u32>, poll: Duration) -> Self {
        Self {
            base: prefetch
                .unwrap_or_else(|| 2 * u32::from(workers))
                .min(MAX_PREFETCH),
            fixed: prefetch.is_some(),
            poll,
            in_flight: None,
            hinted: false,
            not_before: None,
            window_began: None,
            window_ended: 0,
            last_window: 0,
        }
    }

    /// A task has ended.
    pub(crate) fn task_ended(&mut self, now: Instant) {
        self.roll(now);
        self.window_ended += 1;
    }

    fn roll(&mut self, now: Instant) {
        let began = *self.window_began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age < WINDOW {
            return;
        }
        // A window that ended long ago says nothing about now.
        self.last_window = if age < 2 * WINDOW {
            self.window_ended
        } else {
            0
        };
        self.window_ended = 0;
        self.window_began = Some(now);
    }

    /// Unstarted tasks wanted here.
    pub(crate) fn target(&mut self, now: Instant) -> u32 {
        self.roll(now);
        if self.fixed {
            return self.base;
        }
        let recent = self.last_window.max(self.window_ended);
        self.base.max(recent).min(MAX_PREFETCH)
    }

    /// How many to claim now, given how many are unstarted here.
    pub(crate) fn wanted(&mut self, stock: u32, now: Instant) -> Option<u32> {
        if self.in_flight.is_some() || self.not_before.is_some_and(|time| now < time) {
            return None;
        }
        let target = self.target(now);
        (stock <= target / 2).then(|| target - stock)
    }

    /// When a claim may become possible without an event.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        self.not_before
    }

    /// A claim has gone out.
    pub(crate) fn asked(&mut self, limit: u32) {
        self.in_flight = Some(limit);
        self.hinted = false;
    }

    /// The claim was answered.
    pub(crate) fn answered(&mut self, brought: u32, now: Instant) {
        let limit = self.in_flight.take().unwrap_or(brought);
        // A hint that crossed the claim may be about something newer than its answer.
        self.not_before = if self.hinted || brought >= limit {
            None
        } else if brought == 0 {
            Some(now + self.poll)
        } else {
            Some(now + PARTIAL_PAUSE)
        };
        self.hinted = false;
    }

    /// The claim was not answered, or a pause was asked for.
    pub(crate) fn unanswered(&mut self, not_before: Option<Instant>) {
        self.in_flight = None;
        self.not_before = not_before;
    }

    /// The coordinator says that there is something.
    pub(crate) fn hint(&mut self) {
        self.hinted = true;
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake() -> Intake {
        Intake::new(4, None, Duration::from_secs(5))
    }

    #[test]
    fn one_claim_at_half_of_the_target() {
        let (mut intake, now) = (intake(), Instant::now());
        assert_eq!(intake.wanted(5, now), None);
        assert_eq!(intake.wanted(4, now), Some(4));
        intake.asked(4);
        assert_eq!(intake.wanted(0, now), None);
        intake.answered(4, now);
        assert_eq!(intake.wanted(1, now), Some(7));
    }

    #[test]
    fn nothing_to_do_means_waiting_for_a_hint_or_the_fallback() {
        let (mut intake, now) = (intake(), Instant::now());
        intake.asked(8);
        intake.answered(0, now);
        assert_eq!(intake.wanted(0, now), None);
        assert_eq!(intake.due(), Some(now + Duration::from_secs(5)));
        intake.hint();
        assert_eq!(intake.wanted(0, now), Some(8));
    }

    #[test]
    fn a_hint_that_crosses_a_claim_is_not_lost() {
        let (mut intake, now) = (intake(), Instant::now());
        intake.asked(8);
        intake.hint();
        intake.answered(0, now);
        assert_eq!(intake.wanted(0, now), Some(8));
    }

    #[test]
    fn many_short_tasks_raise_the_target_and_silence_lowers_it() {
        let (mut intake, now) = (intake(), Instant::now());
        for _ in 0..500 {
            intake.task_ended(now);
        }
        assert_eq!(intake.target(now), 500);
        assert_eq!(intake.target(now + Duration::from_millis(250)), 500);
        assert_eq!(intake.target(now + Duration::from_secs(2)), 8);
        let mut fixed = Intake::new(4, Some(1), Duration::from_secs(5));
        fixed.task_ended(now);
        fixed.task_ended(now);
        assert_eq!(fixed.wanted(0, now), Some(1));
    }
}
