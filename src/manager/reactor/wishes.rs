//! What shall become of a lease besides being run: cancelled, released, or dropped.
//!
//! | where it is | what happens |
//! |---|---|
//! | with the manager | it ends at once |
//! | at the bridge | it is taken back; if somebody was faster, it is with a worker |
//! | in line at a worker | it is had back, unless it has begun |
//! | running at a worker | cancel and drop become an order in the control state; the holder is ended when it does not react |

use std::time::{Duration, Instant};

use mitosis_bridge::server::Withdrawal;

use crate::protocol::report::{Reason, ReportTaskOp, TaskResult};

use super::super::state::{Hand, Key, LeaseKey, Now, Stage, Wish};
use super::{Action, Reactor};

impl Reactor {
    /// Sets a wish and acts on it as far as possible now. A weaker wish does not replace a stronger one.
    pub(super) fn wish(&mut self, lease: LeaseKey, wish: Wish, now: Now) {
        let Some(held) = self.held.get_mut(&lease) else {
            return;
        };
        if wish.rank() <= held.wish.rank() {
            return;
        }
        held.wish = wish;
        match held.stage {
            Stage::Buffered | Stage::Recording => self.settle(lease, now),
            Stage::Prepared { key, .. } => self.withdraw_one(lease, key),
            Stage::Handed {
                hand, begun: false, ..
            } => {
                let revoke = Action::Revoke(hand.incarnation, hand.key);
                self.actions.push(revoke);
            }
            Stage::Handed { hand, .. } | Stage::Running { hand, .. } => {
                self.order_end(lease, hand, now);
            }
        }
    }

    /// Orders what has begun to end, if that is wished.
    pub(super) fn order_end(&mut self, lease: LeaseKey, hand: Hand, now: Now) {
        let slack = self.settings.limits.cancel_slack;
        let held = self
            .held
            .get_mut(&lease)
            .expect("a lease in a hand is held");
        let grace = held.task.spec.grace();
        let graceful = match &mut held.wish {
            Wish::Cancel { graceful, by } => {
                let grace = if *graceful { grace } else { Duration::ZERO };
                *by = Some(now.mono + grace + slack);
                *graceful
            }
            Wish::Drop { by } => {
                *by = Some(now.mono + slack);
                false
            }
            // What a worker has begun may run.
            Wish::Run | Wish::Release(_) => return,
        };
        self.order(lease, hand, graceful);
        self.watch(now);
    }

    /// Acts on the wish of a lease that nobody else holds.
    pub(super) fn settle(&mut self, lease: LeaseKey, now: Now) {
        match &self.held[&lease].wish {
            Wish::Run => {}
            Wish::Drop { .. } => self.forget(lease),
            Wish::Cancel { .. } => {
                self.end_cancelled(lease, "it was cancelled before it began", None, now);
            }
            Wish::Release(reason) => {
                let reason = reason.clone();
                self.end(lease, ReportTaskOp::Released { reason }, 0, now);
            }
        }
    }

    /// Ends a lease as cancelled; `begun` is the attempt that was under way and when it started. Returns the number of
    /// the report.
    pub(super) fn end_cancelled(
        &mut self,
        lease: LeaseKey,
        message: &str,
        begun: Option<(u32, i64)>,
        now: Now,
    ) -> u64 {
        let mut result = TaskResult::not_started(Reason::Cancelled, message, now.wall_us);
        // Without it the store would not count an attempt of which it has not heard before.
        result.started_at_us = begun.map(|(_, started_at_us)| started_at_us);
        let attempt = begun.map_or(0, |(attempt, _)| attempt);
        self.end(lease, ReportTaskOp::Cancelled(result), attempt, now)
    }

    fn withdraw_one(&mut self, lease: LeaseKey, key: Key) {
        let held = self.held.get_mut(&lease).expect("a prepared lease is held");
        if let Stage::Prepared { withdrawing, .. } = &mut held.stage
            && !std::mem::replace(withdrawing, true)
        {
            self.actions.push(Action::Withdraw(vec![key]));
        }
    }

    /// Asks the bridge for what was prepared under a `not_after` that is `chosen`.
    pub(super) fn withdraw_where(&mut self, chosen: impl Fn(Instant) -> bool) {
        if self.prepared == 0 {
            return;
        }
        let mut keys = Vec::new();
        for held in self.held.values_mut() {
            if let Stage::Prepared {
                key,
                not_after,
                withdrawing,
            } = &mut held.stage
                && !*withdrawing
                && chosen(*not_after)
            {
                *withdrawing = true;
                keys.push(*key);
            }
        }
        if !keys.is_empty() {
            keys.sort_unstable();
            self.actions.push(Action::Withdraw(keys));
        }
    }

    /// The bridge's answer to a withdrawal. Every notice that it sent before has been heard.
    pub(crate) fn withdrawn(&mut self, answers: &[(Key, Withdrawal)], now: Now) {
        // From the last to the first, so that the buffer's head keeps its order.
        for (key, answer) in answers.iter().rev() {
            match answer {
                Withdrawal::AlreadyHanded(incarnation) => {
                    self.handed_over(*key, *incarnation, now.mono, now);
                }
                // Unknown is what the bridge never took: the preparation failed.
                Withdrawal::Withdrawn | Withdrawal::Unknown => self.back(*key, now),
            }
        }
    }

    /// A preparation failed for good: the coordinator gets the task back with these words.
    pub(crate) fn unpreparable(&mut self, key: Key, reason: &str, now: Now) {
        if let Some(lease) = self.keys.get(&key).copied()
            && let Some(held) = self.held.get_mut(&lease)
            && matches!(held.stage, Stage::Prepared { .. })
        {
            if held.wish == Wish::Run {
                held.wish = Wish::Release(reason.to_owned());
            }
            self.back(key, now);
        }
    }

    fn back(&mut self, key: Key, now: Now) {
        let Some(lease) = self.keys.get(&key).copied() else {
            return;
        };
        let held = self
            .held
            .get_mut(&lease)
            .expect("a known key belongs to a lease");
        if !matches!(held.stage, Stage::Prepared { .. }) {
            return;
        }
        held.stage = Stage::Buffered;
        self.free_ids(lease);
        self.keys.remove(&key);
        self.prepared -= 1;
        self.buffer.push_front(lease);
        self.settle(lease, now);
    }
}
