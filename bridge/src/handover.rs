//! Which prepared reply goes to which incarnation: the decision behind the fast path.
//!
//! Owned by the server's poller, which performs what is decided here. Pure: no I/O, the clock is passed in, a body is
//! opaque. What it guarantees, and its property test attacks:
//! - a prepared reply is handed out at most once; only the same incarnation sees the same key again (redelivery);
//! - a new one is handed out only while the gate is open, before its `not_after`, and while the capacity holds its cost;
//! - never to an incarnation that has not confirmed its previous hand-over.
//!
//! ```text
//!               prepare            next_hand                confirm (fetch or report names the key)
//!   (manager) ----------> queued ------------> unconfirmed ------------------------------> confirmed
//!                           |                      | fetch without it: redelivered            |
//!                           | withdraw             |                                          | next fetch, finish, retire
//!                           v                      +------------ finish, retire ------------> over (its cost is free)
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::cost::Cost;
use crate::ids::Incarnation;

/// Longest time a fetch is parked before it is answered empty.
pub(crate) const PARK_LIMIT: Duration = Duration::from_secs(30);
/// Ended hand-overs that [`Handover::withdraw`] still recognizes: a withdrawal may cross the end of the task it names.
const REMEMBERED: usize = 1024;

/// Whether prepared replies may be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Yes. Also ends a drain that was begun with `drain_fetches`.
    Open,
    /// No: fetches park, even when replies are prepared.
    Shut,
}

/// Answer to taking a prepared reply back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// It was still here and will not be handed out.
    Withdrawn,
    /// This incarnation got it.
    AlreadyHanded(Incarnation),
    /// Never prepared, withdrawn before, or handed out so long ago that it is forgotten.
    Unknown,
}

/// A reply that waits for a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Prepared<B> {
    pub(crate) key: u64,
    pub(crate) cost: Cost,
    pub(crate) not_after: Instant,
    pub(crate) body: B,
}

/// Why a reply cannot be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrepareRefusal {
    /// Key 0 means "none" on the wire.
    ZeroKey,
    /// The key is queued or in a worker's hands.
    DuplicateKey,
    /// It would never fit.
    ExceedsCapacity,
}

/// What to do with a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchDecision<B> {
    /// Answer with the unconfirmed hand-over once more.
    Redeliver { key: u64, body: B },
    /// Keep it until [`Handover::next_hand`], [`Handover::expire`] or a drain names it.
    Park,
    /// Tell the worker that there will be no more work.
    Draining,
    /// The incarnation is not, or no longer, admitted.
    NotAdmitted,
}

/// An assignment to perform: answer the parked fetch of `incarnation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment<B> {
    pub(crate) incarnation: Incarnation,
    pub(crate) key: u64,
    pub(crate) body: B,
    pub(crate) parked_since: Instant,
}

#[derive(Debug)]
struct Held<B> {
    key: u64,
    cost: Cost,
    /// Present until the worker confirms, for redelivery.
    body: Option<B>,
}

#[derive(Debug)]
struct Hand<B> {
    held: Option<Held<B>>,
    parked_since: Option<Instant>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Handover<B> {
    capacity: Cost,
    used: Cost,
    gate: Gate,
    draining: bool,
    queue: VecDeque<Prepared<B>>,
    queued: HashSet<u64>,
    hands: HashMap<Incarnation, Hand<B>>,
    /// Parked incarnations, the longest parked first.
    parked: VecDeque<Incarnation>,
    ended: VecDeque<(u64, Incarnation)>,
}

impl<B: Clone> Handover<B> {
    pub(crate) fn new(capacity: Cost) -> Self {
        Self {
            capacity,
            used: Cost::ZERO,
            gate: Gate::Open,
            draining: false,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            hands: HashMap::new(),
            parked: VecDeque::new(),
            ended: VecDeque::with_capacity(REMEMBERED),
        }
    }

    pub(crate) fn prepared(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Changes the capacity. What is in workers' hands stays there, so the use may exceed a smaller one until it ends.
    pub(crate) fn set_capacity(&mut self, capacity: Cost) {
        self.capacity = capacity;
    }

    /// Admits an incarnation whose handshake succeeded.
    pub(crate) fn admit(&mut self, incarnation: Incarnation) {
        self.hands.entry(incarnation).or_insert(Hand {
            held: None,
            parked_since: None,
        });
    }

    /// Forgets an incarnation: its parked fetch is gone and its cost is free.
    pub(crate) fn retire(&mut self, incarnation: Incarnation) {
        self.finish(incarnation);
        self.unpark(incarnation);
        self.hands.remove(&incarnation);
    }

    /// Queues a reply behind the earlier ones.
    pub(crate) fn prepare(&mut self, reply: Prepared<B>) -> Result<(), PrepareRefusal> {
        if reply.key == 0 {
            return Err(PrepareRefusal::ZeroKey);
        }
        let held = |hand: &Hand<B>| hand.held.as_ref().is_some_and(|held| held.key == reply.key);
        if self.queued.contains(&reply.key) || self.hands.values().any(held) {
            return Err(PrepareRefusal::DuplicateKey);
        }
        if !reply.cost.fits(self.capacity) {
            return Err(PrepareRefusal::ExceedsCapacity);
        }
        self.queued.insert(reply.key);
        self.queue.push_back(reply);
        Ok(())
    }

    /// Decides about a fetch that names `confirms` as the last hand-over received.
    pub(crate) fn fetch(
        &mut self,
        incarnation: Incarnation,
        confirms: u64,
        now: Instant,
    ) -> FetchDecision<B> {
        self.confirm(incarnation, confirms);
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return FetchDecision::NotAdmitted;
        };
        if let Some(Held {
            key,
            body: Some(body),
            ..
        }) = &hand.held
        {
            return FetchDecision::Redeliver {
                key: *key,
                body: body.clone(),
            };
        }
        // A confirmed fetch means that the hand is empty again.
        self.finish(incarnation);
        if self.draining {
            return FetchDecision::Draining;
        }
        self.park(incarnation, now);
        FetchDecision::Park
    }

    fn park(&mut self, incarnation: Incarnation, now: Instant) {
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return;
        };
        // A second fetch of one incarnation replaces its first.
        if hand.parked_since.replace(now).is_none() {
            self.parked.push_back(incarnation);
        }
    }

    /// Forgets the parked fetch of an incarnation; `false` when there was none.
    pub(crate) fn unpark(&mut self, incarnation: Incarnation) -> bool {
        let was_parked = self
            .hands
            .get_mut(&incarnation)
            .and_then(|hand| hand.parked_since.take())
            .is_some();
        if was_parked {
            self.parked.retain(|parked| *parked != incarnation);
        }
        was_parked
    }

    /// Notes that the worker has received the hand-over `key`.
    pub(crate) fn confirm(&mut self, incarnation: Incarnation, key: u64) {
        if let Some(hand) = self.hands.get_mut(&incarnation)
            && let Some(held) = &mut hand.held
            && held.key == key
        {
            held.body = None;
        }
    }

    /// Ends the hand-over of an incarnation, confirmed or not: its cost is free and it may get another.
    pub(crate) fn finish(&mut self, incarnation: Incarnation) {
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return;
        };
        if let Some(held) = hand.held.take() {
            self.used = self.used.sub(held.cost);
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back((held.key, incarnation));
        }
    }

    /// Takes replies back; one answer per key, in order.
    pub(crate) fn withdraw(&mut self, keys: &[u64]) -> Vec<(u64, Withdrawal)> {
        let mut taken = HashSet::new();
        let answers = keys
            .iter()
            .map(|key| {
                if self.queued.remove(key) {
                    taken.insert(*key);
                    return (*key, Withdrawal::Withdrawn);
                }
                let answer = self
                    .holder(*key)
                    .map_or(Withdrawal::Unknown, Withdrawal::AlreadyHanded);
                (*key, answer)
            })
            .collect();
        if !taken.is_empty() {
            self.queue.retain(|reply| !taken.contains(&reply.key));
        }
        answers
    }

    fn holder(&self, key: u64) -> Option<Incarnation> {
        let holds = |hand: &Hand<B>| hand.held.as_ref().is_some_and(|held| held.key == key);
        self.hands
            .iter()
            .find_map(|(incarnation, hand)| holds(hand).then_some(*incarnation))
            .or_else(|| {
                let ended = self.ended.iter().rev().find(|(ended, _)| *ended == key);
                ended.map(|(_, incarnation)| *incarnation)
            })
    }

    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
        if gate == Gate::Open {
            self.draining = false;
        }
    }

    /// Begins a drain: returns the parked fetches, to be answered; later ones are answered at once.
    pub(crate) fn drain(&mut self) -> Vec<(Incarnation, Instant)> {
        self.draining = true;
        self.take_parked(|_| true)
    }

    /// Takes out the fetches that have been parked for [`PARK_LIMIT`], to be answered empty.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(Incarnation, Instant)> {
        self.take_parked(|since| now.saturating_duration_since(since) >= PARK_LIMIT)
    }

    fn take_parked(&mut self, due: impl Fn(Instant) -> bool) -> Vec<(Incarnation, Instant)> {
        let taken: Vec<(Incarnation, Instant)> = self
            .parked
            .iter()
            .filter_map(|incarnation| {
                let since = self.hands.get(incarnation)?.parked_since?;
                due(since).then_some((*incarnation, since))
            })
            .collect();
        for (incarnation, _) in &taken {
            self.unpark(*incarnation);
        }
        taken
    }

    /// Decides the next assignment; call until `None`, and answer each parked fetch that it names.
    ///
    /// The queue is strictly first in, first out: a reply that does not fit holds back those behind it, so that a large
    /// one is not starved by small ones. Replies past their `not_after` stay queued (their owner withdraws them) and are
    /// stepped over. The incarnation that parked last is served first: its poller is the one most likely awake.
    pub(crate) fn next_hand(&mut self, now: Instant) -> Option<Assignment<B>> {
        if self.gate == Gate::Shut || self.parked.is_empty() {
            return None;
        }
        let index = self.queue.iter().position(|reply| now <= reply.not_after)?;
        let available = self.capacity.sub(self.used);
        if !self.queue[index].cost.fits(available) {
            return None;
        }
        let incarnation = self.parked.pop_back()?;
        let hand = self
            .hands
            .get_mut(&incarnation)
            .expect("a parked incarnation is admitted");
        let parked_since = hand
            .parked_since
            .take()
            .expect("a parked incarnation has a parking time");
        debug_assert!(
            hand.held.is_none(),
            "an incarnation parks only with an empty hand"
        );
        let reply = self
            .queue
            .remove(index)
            .expect("the index was found in the queue");
        self.queued.remove(&reply.key);
        self.used = self.used.add(reply.cost);
        hand.held = Some(Held {
            key: reply.key,
            cost: reply.cost,
            body: Some(reply.body.clone()),
        });
        Some(Assignment {
            incarnation,
            key: reply.key,
            body: reply.body,
            parked_since,
        })
    }
}

#[cfg(test)]
mod tests;
