//! The manager's side of the status block: read at any moment, from any thread, also after the worker's death.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use super::layout::{LAYOUT_VERSION, Outcome, Phase, StatusLayout, clock_ns};
use super::words::{Revocation, Word};
use crate::config::{PollConfig, pack, unpack};
use crate::handover::Readiness;
use crate::header::Operation;
use crate::histogram::HistogramSnapshot;
use crate::ids::{Incarnation, LocalId};
use crate::map::SharedMap;

/// Tries to read the task group while its writer is writing; a dead writer can leave it half written for ever.
const READ_TRIES: usize = 1000;

/// The task that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskInHand {
    /// The store's grant.
    pub lease: u64,
    /// The manager's hand-over inside the lease.
    pub attempt: u32,
    /// The store's row id of the task.
    pub task_id: i64,
    /// Process group of the task, 0 until it is spawned.
    pub pgid: u32,
}

/// Everything the record says at one moment.
#[derive(Debug, Clone, Copy)]
pub struct StatusSnapshot {
    /// Slot of the worker.
    pub local_id: LocalId,
    /// Life of the worker.
    pub incarnation: Incarnation,
    /// Its process, 0 before it started.
    pub pid: u32,
    /// What it does.
    pub phase: Phase,
    /// Whether its poller waits.
    pub asleep: bool,
    /// The task in hand.
    pub task: Option<TaskInHand>,
    /// The task group was being written all the time (its writer died or is stopped): its fields may not belong together.
    pub torn: bool,
    /// Tasks that ended, by [`Outcome::index`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Reports sent again.
    pub report_retries: u64,
    /// Bounded waits of its poller that ran out and then found work.
    pub lost_wakeups: u64,
    /// Waits of its poller that a ring ended.
    pub wakeups: u64,
    /// Turns of its poller that found nothing and did not wait.
    pub spins: u64,
    /// Turns of its poller that found work right after such a one.
    pub spin_hits: u64,
    /// Waits that its poller began.
    pub sleeps: u64,
    /// How its poller waits; `None` before it first did.
    pub poll: Option<PollConfig>,
    /// Round trips as the worker sees them, parked time excluded, by [`Operation::index`].
    pub round_trip: [HistogramSnapshot; Operation::ALL.len()],
    poller_progress_ns: u64,
    executor_progress_ns: u64,
    read_ns: u64,
}

impl StatusSnapshot {
    /// How long ago the poller last did something, at the time of reading; `None` when it never did.
    #[must_use]
    pub fn poller_idle_for(&self) -> Option<Duration> {
        self.age(self.poller_progress_ns)
    }

    /// How long ago the executor last noted progress, at the time of reading; `None` when it never did.
    #[must_use]
    pub fn executor_idle_for(&self) -> Option<Duration> {
        self.age(self.executor_progress_ns)
    }

    fn age(&self, stamp: u64) -> Option<Duration> {
        (stamp != 0).then(|| Duration::from_nanos(self.read_ns.saturating_sub(stamp)))
    }
}

/// Read access to the status block of one incarnation; cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusView {
    map: Arc<SharedMap<StatusLayout>>,
}

impl StatusView {
    /// Creates the block and the descriptor that the worker inherits.
    pub(crate) fn create(
        local_id: LocalId,
        incarnation: Incarnation,
    ) -> io::Result<(Self, OwnedFd)> {
        let (map, fd) = SharedMap::<StatusLayout>::create()?;
        map.layout_version.store(LAYOUT_VERSION, Ordering::Relaxed);
        map.local_id.store(u32::from(local_id.0), Ordering::Relaxed);
        map.incarnation.store(incarnation.0, Ordering::Relaxed);
        Ok((Self { map: Arc::new(map) }, fd))
    }

    pub(crate) fn asleep(&self) -> &AtomicU32 {
        &self.map.asleep
    }

    /// Process id that the worker wrote when it started, 0 before.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.map.pid.load(Ordering::Acquire)
    }

    /// Says how the worker's poller is to wait; to be followed by a ring. `true` when that is news.
    pub(crate) fn want_poll(&self, config: PollConfig) -> bool {
        let word = pack(config);
        self.map.poll_wanted.swap(word, Ordering::Relaxed) != word
    }

    /// How the worker's poller waits; `None` before it first did.
    #[must_use]
    pub fn poll(&self) -> Option<PollConfig> {
        unpack(self.map.poll_in_force.load(Ordering::Relaxed))
    }

    /// Takes a state word for a hand-over that the poller is about to answer.
    pub(crate) fn hand(&self, key: u64) -> Word {
        self.map.words.hand(key)
    }

    /// The state word of a hand-over that is answered once more.
    pub(crate) fn word_of(&self, key: u64) -> Word {
        self.map.words.find(key)
    }

    /// Takes a dispatch back that lies in the worker, if it was not begun. No round trip: the answer is final.
    #[must_use]
    pub fn withdraw(&self, key: u64) -> Revocation {
        self.map.words.withdraw(key)
    }

    /// What the worker says about taking more.
    pub(crate) fn readiness(&self) -> Readiness {
        match Phase::from_code(self.map.phase.load(Ordering::Relaxed)) {
            Phase::Idle => Readiness::Idle,
            Phase::Engaged => Readiness::Engaged,
            Phase::Starting | Phase::Running | Phase::Stopping => Readiness::Soon,
        }
    }

    /// How long ago the worker last set its bit on the board.
    pub(crate) fn rang_ago(&self) -> Duration {
        Duration::from_nanos(clock_ns().saturating_sub(self.map.rang_ns.load(Ordering::Relaxed)))
    }

    /// Reads everything.
    #[must_use]
    pub fn snapshot(&self) -> StatusSnapshot {
        let map = &*self.map;
        let (task, torn) = self.read_task();
        StatusSnapshot {
            local_id: LocalId(
                u8::try_from(map.local_id.load(Ordering::Relaxed)).unwrap_or(u8::MAX),
            ),
            incarnation: Incarnation(map.incarnation.load(Ordering::Relaxed)),
            pid: self.pid(),
            phase: Phase::from_code(map.phase.load(Ordering::Relaxed)),
            asleep: map.asleep.load(Ordering::Relaxed) != 0,
            task,
            torn,
            outcomes: std::array::from_fn(|i| map.outcomes[i].load(Ordering::Relaxed)),
            report_retries: map.report_retries.load(Ordering::Relaxed),
            lost_wakeups: map.lost_wakeups.load(Ordering::Relaxed),
            wakeups: map.wakeups.load(Ordering::Relaxed),
            spins: map.spins.load(Ordering::Relaxed),
            spin_hits: map.spin_hits.load(Ordering::Relaxed),
            sleeps: map.sleeps.load(Ordering::Relaxed),
            poll: self.poll(),
            round_trip: std::array::from_fn(|i| map.round_trip[i].snapshot()),
            poller_progress_ns: map.poller_progress_ns.load(Ordering::Relaxed),
            executor_progress_ns: map.executor_progress_ns.load(Ordering::Relaxed),
            read_ns: clock_ns(),
        }
    }

    /// Seqlock read: equal even sequences before and after mean that no write happened in between. The acquire load
    /// orders the fields after the first reading, the acquire fence orders them before the second.
    fn read_task(&self) -> (Option<TaskInHand>, bool) {
        let map = &*self.map;
        let mut task = None;
        for _ in 0..READ_TRIES {
            let before = map.task_sequence.load(Ordering::Acquire);
            task = (map.task_present.load(Ordering::Relaxed) != 0).then(|| TaskInHand {
                lease: map.task_lease.load(Ordering::Relaxed),
                attempt: map.task_attempt.load(Ordering::Relaxed),
                task_id: map.task_id.load(Ordering::Relaxed),
                pgid: map.task_pgid.load(Ordering::Relaxed),
            });
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && map.task_sequence.load(Ordering::Relaxed) == before {
                return (task, false);
            }
            std::hint::spin_loop();
        }
        (task, true)
    }
}
