//! Tasks that lie unbegun in workers: had back when they are not to be begun there, or when somebody else has nothing to do.
//!
//! Having one back is a compare-and-swap on its state word ([`Action::Revoke`]), answered at once; nobody waits for the
//! worker. What comes back keeps its number of tries: nothing of it was executed.

use std::time::Duration;

use mitosis_bridge::server::Gate;
use mitosis_bridge::status::Revocation;

use crate::protocol::Incarnation;

use super::super::state::{Key, LeaseKey, Now, Stage};
use super::{Action, Reactor};

/// What was handed out within this is left where it is: it will have begun before it could begin elsewhere.
const SETTLED: Duration = Duration::from_millis(2);

impl Reactor {
    /// Asks for everything back that workers have not begun.
    pub(super) fn revoke_all(&mut self) {
        let holders: Vec<Incarnation> = self.holders.keys().copied().collect();
        for incarnation in holders {
            self.revoke_from(incarnation);
        }
    }

    /// Asks for what one worker has not begun, the last first, so that the buffer's head keeps its order. Looks at its hands
    /// alone: this is asked for with every long task's start.
    pub(super) fn revoke_from(&mut self, incarnation: Incarnation) {
        let Some(holder) = self.holders.get(&incarnation) else {
            return;
        };
        for lease in holder.hands.iter().rev() {
            if let Stage::Handed {
                hand, begun: false, ..
            } = &self.held[lease].stage
            {
                self.actions.push(Action::Revoke(incarnation, hand.key));
            }
        }
    }

    /// What came of [`Action::Revoke`].
    pub(crate) fn revoked(&mut self, key: Key, outcome: Revocation, now: Now) {
        let Some(lease) = self.keys.get(&key).copied() else {
            return;
        };
        let Some(held) = self.held.get_mut(&lease) else {
            return;
        };
        let Stage::Handed { hand, begun, .. } = &mut held.stage else {
            return;
        };
        *begun |= outcome == Revocation::Begun;
        let hand = *hand;
        match outcome {
            Revocation::Withdrawn => {
                self.let_go(lease, key, hand.incarnation);
                self.untried(lease, now);
            }
            Revocation::Begun => self.order_end(lease, hand, now),
        }
    }

    /// A hand-over that began nothing: its task is where it was before.
    pub(super) fn untried(&mut self, lease: LeaseKey, now: Now) {
        self.free_ids(lease);
        let held = self.held.get_mut(&lease).expect("a handed lease is held");
        held.tries -= 1;
        held.stage = Stage::Buffered;
        self.buffer.push_front(lease);
        self.settle(lease, now);
    }

    /// Takes work from those who have some waiting for those who have none, when nothing else is left.
    pub(super) fn steal(&mut self, now: Now) {
        if self.gate == Gate::Shut || self.halted || self.prepared > 0 || !self.buffer.is_empty() {
            return;
        }
        let mut idle = 0_usize;
        let mut busy: Vec<(usize, Incarnation)> = Vec::new();
        for (incarnation, holder) in &self.holders {
            match holder.hands.len() {
                0 if holder.owes.is_none() && !holder.ending => idle += 1,
                0 | 1 => {}
                hands => busy.push((hands, *incarnation)),
            }
        }
        busy.sort_unstable_by_key(|(hands, incarnation)| (std::cmp::Reverse(*hands), *incarnation));
        for (_, victim) in busy.into_iter().take(idle) {
            self.steal_from(victim, now);
        }
    }

    /// Asks for the later half of what waits in a worker.
    fn steal_from(&mut self, victim: Incarnation, now: Now) {
        let hands = &self.holders[&victim].hands;
        let waiting = &hands[1..];
        let half = &waiting[waiting.len() / 2..];
        let mut young = false;
        for lease in half.iter().rev() {
            let Stage::Handed {
                hand,
                at,
                begun: false,
            } = self.held[lease].stage
            else {
                continue;
            };
            if now.mono.saturating_duration_since(at) < SETTLED {
                young = true;
                continue;
            }
            self.actions
                .push(Action::Revoke(hand.incarnation, hand.key));
        }
        if young {
            let soon = now.mono + SETTLED;
            self.watch_at = Some(self.watch_at.map_or(soon, |at| at.min(soon)));
        }
    }
}
