//! The worker's side of the status block.
//!
//! Owned by the client and shared with the worker's executor through `ClientHandle::status`. Every counter has one
//! writing thread, so an increment is a load and a store. It never blocks and never fails.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use super::layout::{LAYOUT_VERSION, Outcome, Phase, StatusLayout, clock_ns};
use super::view::TaskInHand;
use super::words::Word;
use crate::config::{PollConfig, pack};
use crate::header::Operation;
use crate::histogram::bump;
use crate::ids::Incarnation;
use crate::map::SharedMap;

/// Write access to the status block of this process.
///
/// The task group (`begin_task`, `set_group`, `end_task`), the phase and the outcome counters belong to one thread, the
/// executor's; round trips and poller progress belong to the poller.
#[derive(Debug)]
pub struct StatusBlock {
    map: SharedMap<StatusLayout>,
}

impl StatusBlock {
    /// Maps the inherited descriptor.
    ///
    /// # Errors
    /// When it is not a status block of this layout version and incarnation.
    pub(crate) fn open(fd: OwnedFd, incarnation: Incarnation) -> io::Result<Self> {
        let map = SharedMap::<StatusLayout>::open(fd)?;
        let version = map.layout_version.load(Ordering::Relaxed);
        let theirs = Incarnation(map.incarnation.load(Ordering::Relaxed));
        if version != LAYOUT_VERSION || theirs != incarnation {
            let words = format!("the status block has layout {version} and belongs to {theirs}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        Ok(Self { map })
    }

    pub(crate) fn asleep(&self) -> &AtomicU32 {
        &self.map.asleep
    }

    /// Names this process, before it opens anything that a janitor may have to clean.
    pub(crate) fn set_pid(&self, pid: u32) {
        self.map.pid.store(pid, Ordering::Release);
    }

    /// Takes the place of what the manager wanted, until it wants something else.
    pub(crate) fn want_poll(&self, config: PollConfig) {
        self.map.poll_wanted.store(pack(config), Ordering::Relaxed);
    }

    /// What the manager wants of the poller: a word of [`crate::config::pack`].
    pub(crate) fn poll_wanted(&self) -> u64 {
        self.map.poll_wanted.load(Ordering::Relaxed)
    }

    /// Notes which word the poller acts on.
    pub(crate) fn note_poll(&self, word: u64) {
        self.map.poll_in_force.store(word, Ordering::Relaxed);
    }

    pub(crate) fn poller_progress(&self) {
        self.map
            .poller_progress_ns
            .store(clock_ns(), Ordering::Relaxed);
    }

    pub(crate) fn stamp_ring(&self) {
        self.map.rang_ns.store(clock_ns(), Ordering::Relaxed);
    }

    pub(crate) fn count_lost_wakeup(&self) {
        bump(&self.map.lost_wakeups, 1);
    }

    /// Counts a wait that a ring ended.
    pub(crate) fn count_wakeup(&self) {
        bump(&self.map.wakeups, 1);
    }

    /// Counts a turn that found nothing and did not wait.
    pub(crate) fn count_spin(&self) {
        bump(&self.map.spins, 1);
    }

    /// Counts a turn that found work right after such a one.
    pub(crate) fn count_spin_hit(&self) {
        bump(&self.map.spin_hits, 1);
    }

    /// Counts a wait that began.
    pub(crate) fn count_sleep(&self) {
        bump(&self.map.sleeps, 1);
    }

    pub(crate) fn record_round_trip(&self, operation: Operation, duration: Duration) {
        self.map.round_trip[operation.index()].record(duration);
    }

    /// Says what the worker does.
    pub fn set_phase(&self, phase: Phase) {
        self.map.phase.store(phase.code(), Ordering::Relaxed);
    }

    /// Notes the task in hand, before anything of it is started.
    pub fn begin_task(&self, task: TaskInHand) {
        self.write_task(|layout| {
            layout.task_lease.store(task.lease, Ordering::Relaxed);
            layout.task_attempt.store(task.attempt, Ordering::Relaxed);
            layout.task_id.store(task.task_id, Ordering::Relaxed);
            layout.task_pgid.store(task.pgid, Ordering::Relaxed);
            layout.task_present.store(1, Ordering::Relaxed);
        });
        self.executor_progress();
    }

    /// Notes the process group of the task in hand, right after its spawn.
    pub fn set_group(&self, pgid: u32) {
        self.write_task(|layout| layout.task_pgid.store(pgid, Ordering::Relaxed));
    }

    /// Notes that no task is in hand and its processes are gone.
    pub fn end_task(&self) {
        self.write_task(|layout| {
            layout.task_present.store(0, Ordering::Relaxed);
            layout.task_pgid.store(0, Ordering::Relaxed);
        });
        self.executor_progress();
    }

    /// Claims a dispatch for its execution: false when it was withdrawn. To be followed by [`Self::clear`] either way.
    #[must_use]
    pub fn begin(&self, word: Word, key: u64) -> bool {
        self.map.words.begin(word, key)
    }

    /// Frees the state word of a dispatch that is over here: begun and ended, or withdrawn.
    pub fn clear(&self, word: Word, key: u64) {
        self.map.words.clear(word, key);
    }

    /// Counts a task that ended here.
    pub fn count_outcome(&self, outcome: Outcome) {
        bump(&self.map.outcomes[outcome.index()], 1);
    }

    /// Counts a report that had to be sent again.
    pub fn count_report_retry(&self) {
        bump(&self.map.report_retries, 1);
    }

    /// Notes that the executor is alive and getting on.
    pub fn executor_progress(&self) {
        self.map
            .executor_progress_ns
            .store(clock_ns(), Ordering::Relaxed);
    }

    /// Seqlock write: the sequence is odd while the group changes, and a reader that saw it odd or changed tries again.
    /// The release fence orders the odd value before the fields, the release store orders the fields before the even one.
    fn write_task(&self, write: impl FnOnce(&StatusLayout)) {
        let sequence = self.map.task_sequence.load(Ordering::Relaxed);
        self.map
            .task_sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        write(&self.map);
        self.map
            .task_sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}
