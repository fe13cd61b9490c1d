//! Worker slots: who is up, who is to be started when, who is overdue. Pure; [`super::supervisor`] performs.
//!
//! ```text
//!   Vacant(due) --launch--> Launching --spawned--> Starting --joined--> Ready
//!       ^                       | failed               | gone              | gone
//!       +-----------------------+----------------------+-------------------+
//! ```
//!
//! A slot whose worker came up and lived is refilled at once. One whose workers do not come up, or die young, waits longer
//! each time. If no worker of the whole machine ever came up, three failures of one slot are enough to give up.
//!
//! Only some start at the same time: 256 that start together on two cores would each take as long as all of them. How many
//! follows how long the last ones took, so that a machine with other work gets one after the other. Nobody is ended for
//! being slow: a start is given up when it has had CPU time enough, or after minutes.

use std::time::{Duration, Instant};

use crate::protocol::{Incarnation, LocalId};

use super::backoff::Backoff;
use super::patience::LONGEST;
use super::state::WorkerEnd;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A worker that lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(10);
/// How long a start may take more, each time its deadline comes and it was given too little CPU time.
const EXTENSION: Duration = Duration::from_secs(1);
/// A start that took longer than this found the machine crowded, one that was shorter than half of it did not.
const CROWDED: Duration = Duration::from_secs(2);
/// Failed starts of one slot after which a machine without any worker gives up.
const HOPELESS: u32 = 3;

#[derive(Debug)]
struct Slot {
    state: SlotState,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Vacant {
        due: Instant,
    },
    Launching,
    Starting {
        incarnation: Incarnation,
        since: Instant,
        /// When somebody has to look; `None` once it was given up.
        until: Option<Instant>,
    },
    Ready {
        incarnation: Incarnation,
        since: Instant,
    },
}

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aftermath {
    /// The slot is filled again, sooner or later.
    Respawn,
    /// No worker can be started here.
    Hopeless,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    startup: Duration,
    /// Most that start at the same time, and how many of them the machine bears now.
    at_once: usize,
    bearable: usize,
    ever_joined: bool,
    closed: bool,
}

impl Slots {
    /// `workers` vacant slots, due now, of which `at_once` start at the same time.
    pub(super) fn new(workers: u16, startup: Duration, at_once: usize, now: Instant) -> Self {
        let slot = || Slot {
            state: SlotState::Vacant { due: now },
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        };
        Self {
            slots: (0..workers).map(|_| slot()).collect(),
            startup,
            at_once,
            bearable: at_once,
            ever_joined: false,
            closed: false,
        }
    }

    /// From now on nothing is started.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Slots to be filled now; they count as launching from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LocalId> {
        let mut room = self.room();
        let mut due = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if room == 0 || self.closed {
                break;
            }
            if matches!(slot.state, SlotState::Vacant { due } if due <= now) {
                room -= 1;
                slot.state = SlotState::Launching;
                due.push(LocalId(u8::try_from(index).expect("at most 256 slots")));
            }
        }
        due
    }

    /// A process was started.
    pub(super) fn launched(&mut self, local_id: LocalId, incarnation: Incarnation, now: Instant) {
        self.slots[local_id.index()].state = SlotState::Starting {
            incarnation,
            since: now,
            until: Some(now + self.startup),
        };
    }

    /// How many more may start now.
    fn room(&self) -> usize {
        let starting = self.population().starting;
        self.bearable.saturating_sub(starting as usize)
    }

    /// Learns from a start how many the machine bears.
    fn learn(&mut self, took: Duration) {
        if took > CROWDED {
            self.bearable = (self.bearable / 2).max(1);
        } else if took < CROWDED / 2 {
            self.bearable = (self.bearable + 1).min(self.at_once);
        }
    }

    /// A worker's handshake succeeded.
    pub(super) fn joined(&mut self, local_id: LocalId, incarnation: Incarnation, now: Instant) {
        let Some(slot) = self.slots.get_mut(local_id.index()) else {
            return;
        };
        // The news of the spawn may come after the news of the handshake.
        let took = match slot.state {
            SlotState::Starting {
                incarnation: own,
                since,
                ..
            } if own == incarnation => Some(now.saturating_duration_since(since)),
            SlotState::Launching => Some(Duration::ZERO),
            _ => None,
        };
        if let Some(took) = took {
            slot.state = SlotState::Ready {
                incarnation,
                since: now,
            };
            self.ever_joined = true;
            self.learn(took);
        }
    }

    /// True when this incarnation has joined.
    pub(super) fn is_ready(&self, local_id: LocalId) -> bool {
        matches!(self.slots[local_id.index()].state, SlotState::Ready { .. })
    }

    /// A worker is over, or none could be started.
    pub(super) fn gone(
        &mut self,
        local_id: LocalId,
        end: WorkerEnd,
        random: u64,
        now: Instant,
    ) -> Aftermath {
        let slot = &mut self.slots[local_id.index()];
        let lived = match slot.state {
            SlotState::Ready { since, .. } => now.saturating_duration_since(since) >= LIVED,
            _ => false,
        };
        if lived {
            slot.backoff.reset();
        }
        let was_ready = matches!(slot.state, SlotState::Ready { .. });
        let pause = if was_ready && slot.backoff.failures() == 0 {
            // Its place is worth most right now; only a second early death is a pattern.
            slot.backoff.next(random);
            Duration::ZERO
        } else if end == WorkerEnd::Asked {
            Duration::ZERO
        } else {
            slot.backoff.next(random)
        };
        slot.state = SlotState::Vacant { due: now + pause };
        if !self.ever_joined && slot.backoff.failures() >= HOPELESS {
            Aftermath::Hopeless
        } else {
            Aftermath::Respawn
        }
    }

    /// Incarnations that have not joined although they were given, in CPU time, what the limit allows a start; or that are
    /// late by minutes.
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        cpu: impl Fn(Incarnation) -> Option<Duration>,
    ) -> Vec<Incarnation> {
        let mut late = Vec::new();
        for slot in &mut self.slots {
            let SlotState::Starting {
                incarnation,
                since,
                until,
            } = &mut slot.state
            else {
                continue;
            };
            if until.is_none_or(|until| now < until) {
                continue;
            }
            let last = *since + self.startup.max(LONGEST);
            let had_enough = cpu(*incarnation).is_some_and(|cpu| cpu >= self.startup / 2);
            if now < last && !had_enough {
                *until = Some(last.min(now + EXTENSION));
            } else {
                *until = None;
                late.push(*incarnation);
            }
        }
        late
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let may_start = !self.closed && self.room() > 0;
        let deadline = |slot: &Slot| match slot.state {
            SlotState::Vacant { due } if may_start => Some(due),
            SlotState::Starting { until, .. } => until,
            _ => None,
        };
        self.slots.iter().filter_map(deadline).min()
    }

    /// Slots with a process or one on its way, and of these the ones that have joined.
    pub(super) fn population(&self) -> Population {
        let mut population = Population::default();
        for slot in &self.slots {
            match slot.state {
                SlotState::Vacant { .. } => {}
                SlotState::Launching | SlotState::Starting { .. } => population.starting += 1,
                SlotState::Ready { .. } => population.ready += 1,
            }
        }
        population
    }
}

/// Workers by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Population {
    pub(super) starting: u32,
    pub(super) ready: u32,
}

impl Population {
    pub(super) fn alive(self) -> u32 {
        self.starting + self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LocalId = LocalId(0);

    fn slots() -> (Slots, Instant) {
        let now = Instant::now();
        (Slots::new(1, Duration::from_secs(10), 1, now), now)
    }

    fn live(slots: &mut Slots, life: u64, now: Instant) {
        assert_eq!(slots.take_due(now), [A]);
        slots.launched(A, Incarnation(life), now);
        slots.joined(A, Incarnation(life), now);
        assert_eq!(slots.population().ready, 1);
    }

    #[test]
    fn a_killed_worker_is_replaced_at_once_and_a_series_of_deaths_is_not() {
        let (mut slots, now) = slots();
        live(&mut slots, 1, now);
        slots.gone(A, WorkerEnd::Signal(9), 0, now);
        live(&mut slots, 2, now);
        slots.gone(A, WorkerEnd::Signal(9), 0, now);
        assert_eq!(slots.take_due(now), []);
        let due = slots.next_deadline().unwrap();
        assert!(due > now && due < now + Duration::from_secs(1));
        live(&mut slots, 3, due);
        let later = due + Duration::from_secs(11);
        slots.gone(A, WorkerEnd::Signal(9), 0, later);
        assert_eq!(slots.take_due(later), [A], "a long life wipes the slate");
    }

    #[test]
    fn a_machine_on_which_nothing_ever_comes_up_gives_up() {
        let (mut slots, mut now) = slots();
        let mut last = Aftermath::Respawn;
        for life in 1..=3 {
            now = slots.next_deadline().unwrap().max(now);
            assert_eq!(slots.take_due(now), [A]);
            slots.launched(A, Incarnation(life), now);
            assert_eq!(slots.overdue(now, |_| None), []);
            now += Duration::from_secs(10);
            let enough = |_| Some(Duration::from_secs(9));
            assert_eq!(slots.overdue(now, enough), [Incarnation(life)]);
            assert_eq!(slots.next_deadline(), None, "it is given up once");
            last = slots.gone(A, WorkerEnd::Startup, 0, now);
        }
        assert_eq!(last, Aftermath::Hopeless);
    }

    #[test]
    fn a_start_that_gets_no_core_has_more_time_but_not_for_ever() {
        let (mut slots, mut now) = slots();
        let began = now;
        slots.take_due(now);
        slots.launched(A, Incarnation(1), now);
        loop {
            now = slots.next_deadline().unwrap();
            if slots.overdue(now, |_| Some(Duration::ZERO)) == [Incarnation(1)] {
                break;
            }
        }
        assert_eq!(now, began + Duration::from_secs(300));
    }

    #[test]
    fn a_machine_on_which_starts_take_long_gets_fewer_at_once() {
        let mut now = Instant::now();
        let mut slots = Slots::new(64, Duration::from_secs(10), 8, now);
        let mut life = 0;
        let mut round = |slots: &mut Slots, takes: Duration| {
            let due = slots.take_due(now);
            for local_id in &due {
                life += 1;
                slots.launched(*local_id, Incarnation(life), now);
                slots.joined(*local_id, Incarnation(life), now + takes);
            }
            now += takes;
            due.len()
        };
        assert_eq!(round(&mut slots, Duration::from_secs(5)), 8);
        assert_eq!(round(&mut slots, Duration::from_secs(5)), 1);
        let short = Duration::from_millis(100);
        assert_eq!(round(&mut slots, short), 1);
        assert_eq!(round(&mut slots, short), 2);
        assert_eq!(round(&mut slots, short), 4);
        assert_eq!(round(&mut slots, short), 8);
    }

    #[test]
    fn only_some_start_at_the_same_time() {
        let now = Instant::now();
        let mut slots = Slots::new(5, Duration::from_secs(10), 2, now);
        let first = slots.take_due(now);
        assert_eq!(first.len(), 2);
        assert_eq!((slots.take_due(now), slots.next_deadline()), (vec![], None));
        slots.launched(first[0], Incarnation(1), now);
        assert_eq!(slots.take_due(now), []);
        slots.joined(first[0], Incarnation(1), now);
        assert_eq!(slots.take_due(now).len(), 1);
        slots.gone(first[1], WorkerEnd::Startup, 0, now);
        assert_eq!(slots.take_due(now).len(), 1);
    }

    #[test]
    fn once_a_worker_was_up_the_manager_keeps_trying_slowly() {
        let (mut slots, mut now) = slots();
        live(&mut slots, 1, now);
        for life in 2..40 {
            assert_eq!(
                slots.gone(A, WorkerEnd::Startup, 1000, now),
                Aftermath::Respawn
            );
            now = slots.next_deadline().unwrap();
            slots.take_due(now);
            slots.launched(A, Incarnation(life), now);
        }
        slots.gone(A, WorkerEnd::Startup, 1000, now);
        assert!(slots.next_deadline().unwrap() <= now + LONGEST_PAUSE);
    }

    #[test]
    fn a_closed_machine_starts_nothing() {
        let (mut slots, now) = slots();
        slots.close();
        assert_eq!((slots.take_due(now), slots.next_deadline()), (vec![], None));
    }
}
