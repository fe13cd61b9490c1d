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

use std::time::{Duration, Instant};

use crate::protocol::{Incarnation, LocalId};

use super::backoff::Backoff;
use super::state::WorkerEnd;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A worker that lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(10);
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
    ever_joined: bool,
    closed: bool,
}

impl Slots {
    /// `workers` vacant slots, due now.
    pub(super) fn new(workers: u16, startup: Duration, now: Instant) -> Self {
        let slot = || Slot {
            state: SlotState::Vacant { due: now },
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        };
        Self {
            slots: (0..workers).map(|_| slot()).collect(),
            startup,
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
        let mut due = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if !self.closed && matches!(slot.state, SlotState::Vacant { due } if due <= now) {
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
        };
    }

    /// A worker's handshake succeeded.
    pub(super) fn joined(&mut self, local_id: LocalId, incarnation: Incarnation, now: Instant) {
        let Some(slot) = self.slots.get_mut(local_id.index()) else {
            return;
        };
        // The news of the spawn may come after the news of the handshake.
        let expected = match slot.state {
            SlotState::Starting {
                incarnation: own, ..
            } => own == incarnation,
            SlotState::Launching => true,
            _ => false,
        };
        if expected {
            self.ever_joined = true;
            slot.state = SlotState::Ready {
                incarnation,
                since: now,
            };
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

    /// Incarnations that have not joined in time.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Incarnation> {
        let late = |slot: &Slot| match slot.state {
            SlotState::Starting { incarnation, since } if now >= since + self.startup => {
                Some(incarnation)
            }
            _ => None,
        };
        self.slots.iter().filter_map(late).collect()
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = |slot: &Slot| match slot.state {
            SlotState::Vacant { due } if !self.closed => Some(due),
            SlotState::Starting { since, .. } => Some(since + self.startup),
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
        (Slots::new(1, Duration::from_secs(10), now), now)
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
            assert_eq!(slots.overdue(now), []);
            now += Duration::from_secs(10);
            assert_eq!(slots.overdue(now), [Incarnation(life)]);
            last = slots.gone(A, WorkerEnd::Startup, 0, now);
        }
        assert_eq!(last, Aftermath::Hopeless);
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
