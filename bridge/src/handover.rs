//! Which prepared replies go to which incarnation: the decision behind the fast path.
//!
//! Owned by the server's poller, which performs what is decided here. Pure: no I/O, the clock is passed in, a body is
//! opaque. What it guarantees, and its property test attacks:
//! - a prepared reply is handed out at most once; only the same incarnation sees the same key again (redelivery);
//! - a new one is handed out only while the gate is open, before its `not_after`, and while the capacity holds its cost;
//! - never to an incarnation that has not confirmed its previous hand-over;
//! - one that is to be alone goes to an idle incarnation, and nothing comes with it.
//!
//! ```text
//!               prepare            next_hand                confirm (fetch or report names the last key)
//!   (manager) ----------> queued ------------> unconfirmed ------------------------------> confirmed
//!                           |                      | fetch without it: redelivered
//!                           | withdraw             |
//!                           v                      +------------ finish, retire ---------> over
//! ```
//!
//! What an incarnation holds costs the capacity once, however many replies came together: it works on one at a time. The
//! cost is free when it asks with empty hands, is found idle, is finished or retired.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::cost::Cost;
use crate::ids::Incarnation;

/// Longest time a fetch is parked before it is answered empty.
pub(crate) const PARK_LIMIT: Duration = Duration::from_secs(30);
/// Ended hand-overs that [`Handover::withdraw`] still recognizes: a withdrawal may cross the end of the task it names.
const REMEMBERED: usize = 4096;
/// Work that one answer brings at most, by its expected time: enough that a wake-up is paid for many short tasks, little
/// enough that nobody notices who got it.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// Replies that one answer brings at most; from 8 on more bring next to nothing (measured).
pub const MAX_BATCH: usize = 16;

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

/// Whether a reply may come together with others, and while something else is in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// No: to an idle incarnation, by itself.
    Alone,
    /// Yes; it is expected to take so long. [`Duration::MAX`] where nobody knows.
    Expected(Duration),
}

/// How soon an incarnation that asked while it was busy gets to what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// At once: it has run dry meanwhile.
    Idle,
    /// As far as anybody knows, soon.
    Soon,
    /// What it does has gone on for a while, and nobody knows its end.
    Engaged,
}

/// What a fetch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchWish {
    /// Replies that the asker can take.
    pub room: u16,
    /// It has nothing left to do.
    pub idle: bool,
}

impl FetchWish {
    /// One reply for an idle asker.
    pub const ONE: Self = Self {
        room: 1,
        idle: true,
    };
}

/// A reply that waits for a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Prepared<B> {
    pub(crate) key: u64,
    pub(crate) cost: Cost,
    pub(crate) not_after: Instant,
    pub(crate) batching: Batching,
    /// Part of an answer's room that it takes, of [`WHOLE_ANSWER`].
    pub(crate) size: usize,
    pub(crate) body: B,
}

/// Room of one answer in the measure of [`Prepared::size`]. The first reply always fits.
pub(crate) const WHOLE_ANSWER: usize = crate::header::FETCH_ANSWER_SLICE;

impl<B> Prepared<B> {
    fn expected(&self) -> Duration {
        match self.batching {
            Batching::Alone => Duration::MAX,
            Batching::Expected(time) => time,
        }
    }
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
    Redeliver(Vec<(u64, B)>),
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
    /// At least one; the last key names the whole.
    pub(crate) replies: Vec<(u64, B)>,
    pub(crate) parked_since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Parked {
    since: Instant,
    wish: FetchWish,
}

#[derive(Debug)]
struct Hand<B> {
    /// The last answer, until the worker confirms it; for redelivery.
    unconfirmed: Vec<(u64, B)>,
    /// What is counted for everything in this hand.
    cost: Cost,
    parked: Option<Parked>,
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
            unconfirmed: Vec::new(),
            cost: Cost::ZERO,
            parked: None,
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
        let holds = |hand: &Hand<B>| hand.unconfirmed.iter().any(|(key, _)| *key == reply.key);
        if self.queued.contains(&reply.key) || self.hands.values().any(holds) {
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
        wish: FetchWish,
        now: Instant,
    ) -> FetchDecision<B> {
        self.confirm(incarnation, confirms);
        let Some(hand) = self.hands.get(&incarnation) else {
            return FetchDecision::NotAdmitted;
        };
        if !hand.unconfirmed.is_empty() {
            return FetchDecision::Redeliver(hand.unconfirmed.clone());
        }
        if wish.idle {
            self.finish(incarnation);
        }
        if self.draining {
            return FetchDecision::Draining;
        }
        self.park(incarnation, Parked { since: now, wish });
        FetchDecision::Park
    }

    fn park(&mut self, incarnation: Incarnation, parked: Parked) {
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return;
        };
        // A second fetch of one incarnation replaces its first.
        if hand.parked.replace(parked).is_none() {
            self.parked.push_back(incarnation);
        }
    }

    /// Forgets the parked fetch of an incarnation; `false` when there was none.
    pub(crate) fn unpark(&mut self, incarnation: Incarnation) -> bool {
        let hand = self.hands.get_mut(&incarnation);
        let was_parked = hand.and_then(|hand| hand.parked.take()).is_some();
        if was_parked {
            self.parked.retain(|parked| *parked != incarnation);
        }
        was_parked
    }

    /// Notes that the worker has received the hand-over whose last reply is `key`.
    pub(crate) fn confirm(&mut self, incarnation: Incarnation, key: u64) {
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return;
        };
        if hand
            .unconfirmed
            .last()
            .is_some_and(|(last, _)| *last == key)
        {
            let confirmed = std::mem::take(&mut hand.unconfirmed);
            self.remember(incarnation, &confirmed);
        }
    }

    fn remember(&mut self, incarnation: Incarnation, over: &[(u64, B)]) {
        for (key, _) in over {
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back((*key, incarnation));
        }
    }

    /// Everything in the hand of an incarnation is over, confirmed or not: its cost is free.
    pub(crate) fn finish(&mut self, incarnation: Incarnation) {
        let Some(hand) = self.hands.get_mut(&incarnation) else {
            return;
        };
        self.used = self.used.sub(std::mem::replace(&mut hand.cost, Cost::ZERO));
        let over = std::mem::take(&mut hand.unconfirmed);
        self.remember(incarnation, &over);
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
        let holds = |hand: &Hand<B>| hand.unconfirmed.iter().any(|(held, _)| *held == key);
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
                let since = self.hands.get(incarnation)?.parked?.since;
                due(since).then_some((*incarnation, since))
            })
            .collect();
        for (incarnation, _) in &taken {
            self.unpark(*incarnation);
        }
        taken
    }

    /// Decides the next assignment; call until `None`, and answer each parked fetch that it names. `readiness` tells
    /// of an incarnation that asked while it was busy.
    ///
    /// The queue is strictly first in, first out: a reply that does not fit holds back those behind it, so that a large
    /// one is not starved by small ones. Replies past their `not_after` stay queued (their owner withdraws them) and are
    /// stepped over. Of those who can take the first, the incarnation that parked last is served: its poller is the one
    /// most likely awake; who is idle comes before who is busy, and who is busy with something long gets nothing.
    pub(crate) fn next_hand(
        &mut self,
        now: Instant,
        mut readiness: impl FnMut(Incarnation) -> Readiness,
    ) -> Option<Assignment<B>> {
        if self.gate == Gate::Shut || self.parked.is_empty() {
            return None;
        }
        let first = self.queue.iter().position(|reply| now <= reply.not_after)?;
        let incarnation = self.choose(first, &mut readiness)?;
        let hand = self.hands.get_mut(&incarnation)?;
        let parked = hand.parked.take()?;
        self.parked.retain(|other| *other != incarnation);
        debug_assert!(
            hand.unconfirmed.is_empty(),
            "an incarnation parks only after it confirmed"
        );
        let replies = self.take_batch(first, parked.wish.room, now);
        self.hands
            .get_mut(&incarnation)?
            .unconfirmed
            .clone_from(&replies);
        Some(Assignment {
            incarnation,
            replies,
            parked_since: parked.since,
        })
    }

    /// Who gets the reply at `index`, if somebody can take it now; its cost is counted then.
    fn choose(
        &mut self,
        index: usize,
        readiness: &mut impl FnMut(Incarnation) -> Readiness,
    ) -> Option<Incarnation> {
        let cost = self.queue[index].cost;
        let idle = self.parked.iter().rev().copied().find(|incarnation| {
            let parked = self.hands.get(incarnation).and_then(|hand| hand.parked);
            parked.is_some_and(|parked| parked.wish.idle)
                || readiness(*incarnation) == Readiness::Idle
        });
        if let Some(incarnation) = idle {
            self.finish(incarnation);
            if !cost.fits(self.capacity.sub(self.used)) {
                return None;
            }
            self.used = self.used.add(cost);
            self.hands.get_mut(&incarnation)?.cost = cost;
            return Some(incarnation);
        }
        // Only what will take no time is put in line behind something: whatever takes longer than a fetch is not worth it,
        // and might wait while others go round.
        if self.queue[index].expected() > BATCH_TIME {
            return None;
        }
        // It runs after what is in that hand, so it needs no more than what is counted for the hand already.
        let covers = |incarnation: &&Incarnation| {
            let hand = self.hands.get(incarnation);
            hand.is_some_and(|hand| hand.cost != Cost::ZERO && cost.fits(hand.cost))
        };
        let soon = |incarnation: &&Incarnation| readiness(**incarnation) != Readiness::Engaged;
        self.parked.iter().rev().filter(covers).find(soon).copied()
    }

    /// Takes the reply at `first` out of the queue, and those behind it that may come along.
    fn take_batch(&mut self, first: usize, room: u16, now: Instant) -> Vec<(u64, B)> {
        let fair = self.queue.len().div_ceil(self.hands.len().max(1));
        let most = usize::from(room).min(MAX_BATCH).min(fair).max(1);
        let cost = self.queue[first].cost;
        let (mut time, mut size) = (Duration::ZERO, 0_usize);
        let mut count = 0;
        for reply in self.queue.iter().skip(first) {
            time = time.saturating_add(reply.expected());
            size = size.saturating_add(reply.size);
            let alone = reply.batching == Batching::Alone;
            let comes_along =
                !alone && time <= BATCH_TIME && size <= WHOLE_ANSWER && reply.cost == cost;
            if count == most || now > reply.not_after || (count > 0 && !comes_along) {
                break;
            }
            count += 1;
            if alone {
                break;
            }
        }
        let taken = self.queue.drain(first..first + count);
        let replies: Vec<(u64, B)> = taken.map(|reply| (reply.key, reply.body)).collect();
        for (key, _) in &replies {
            self.queued.remove(key);
        }
        replies
    }
}

#[cfg(test)]
mod tests;
