//! The gate in shared memory: one word that every worker looks at before it begins anything.
//!
//! ```text
//!   open --close(Paused)--> shut           by the manager: pause, drain
//!        --count(end)-----> shut           by the worker that sees the end which stops the rest
//!   shut --open(cause)----> open once no cause is left
//! ```
//!
//! It lies on the board, which every worker maps, so nobody is told and nobody waits: what was not begun when the word
//! changed is not begun. The poller looks at it too and hands nothing out. Ends are counted in the same place, so that the
//! one that reaches a limit shuts the gate before its own worker begins its next task.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::board::Board;

/// Why the gate is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// The manager begins nothing at the moment.
    Paused,
    /// Ends have reached a limit, see [`HaltAfter`].
    Halted,
}

impl Shut {
    fn bit(self) -> u32 {
        match self {
            Self::Paused => 1,
            Self::Halted => 2,
        }
    }
}

/// Ends after which nothing more is begun; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HaltAfter {
    /// So many failures.
    pub failed: Option<u32>,
    /// So many successes.
    pub completed: Option<u32>,
    /// So many of either.
    pub done: Option<u32>,
}

/// An end that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With success.
    Completed,
    /// In any other way.
    Failed,
}

/// Access to the gate, the same for both sides; cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedGate {
    board: Board,
}

impl SharedGate {
    pub(crate) fn new(board: Board) -> Self {
        Self { board }
    }

    /// Whether anything may be begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.board.gate().load(Ordering::SeqCst) == 0
    }

    /// Whether it is shut for this cause.
    #[must_use]
    pub fn is_shut_for(&self, cause: Shut) -> bool {
        self.board.gate().load(Ordering::SeqCst) & cause.bit() != 0
    }

    /// Shuts it; in force when this returns.
    pub fn close(&self, cause: Shut) {
        self.board.gate().fetch_or(cause.bit(), Ordering::SeqCst);
    }

    /// Takes a cause away.
    pub fn open(&self, cause: Shut) {
        self.board.gate().fetch_and(!cause.bit(), Ordering::SeqCst);
    }

    /// Begins something now if nothing was begun for as long as beginnings are to be apart, and says so with `None`; else how
    /// long to wait before asking again.
    #[must_use]
    pub fn begin_apart(&self, apart: Duration) -> Option<Duration> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = nanos(Duration::try_from(now).unwrap_or_default());
        let next = self.board.next_start();
        let mut due = next.load(Ordering::SeqCst);
        if due <= now {
            let later = now.saturating_add(nanos(apart));
            match next.compare_exchange(due, later, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return None,
                // Somebody else has begun.
                Err(changed) => due = changed,
            }
        }
        Some(Duration::from_nanos(due.saturating_sub(now)))
    }

    /// Notes that workers and tasks were stopped for so long; to be called before they go on.
    pub fn note_standstill(&self, took: Duration) {
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let stood_still = self.board.stood_still_ms();
        stood_still.fetch_add(took, Ordering::SeqCst);
    }

    /// How long workers and tasks were stopped so far, all together.
    #[must_use]
    pub fn stood_still(&self) -> Duration {
        let took = self.board.stood_still_ms().load(Ordering::SeqCst);
        Duration::from_millis(took.into())
    }

    /// Counts an end; shuts the gate when it is the one that reaches a limit.
    pub fn count(&self, ending: Ending, after: HaltAfter) {
        let [failed, completed] = self.board.ends();
        match ending {
            Ending::Failed => failed.fetch_add(1, Ordering::SeqCst),
            Ending::Completed => completed.fetch_add(1, Ordering::SeqCst),
        };
        // Of two that count at once the later one sees both.
        let (failed, completed) = (
            failed.load(Ordering::SeqCst),
            completed.load(Ordering::SeqCst),
        );
        let reached = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| count >= limit);
        if reached(after.failed, failed)
            || reached(after.completed, completed)
            || reached(after.done, failed.saturating_add(completed))
        {
            self.close(Shut::Halted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates() -> (SharedGate, SharedGate) {
        let (board, fd) = Board::create().unwrap();
        let other = Board::open(Board::share(&fd).unwrap()).unwrap();
        (SharedGate::new(board), SharedGate::new(other))
    }

    #[test]
    fn what_one_side_shuts_is_shut_for_the_other_until_no_cause_is_left() {
        let (ours, theirs) = gates();
        assert!(theirs.is_open());
        ours.close(Shut::Paused);
        theirs.close(Shut::Halted);
        ours.open(Shut::Paused);
        assert!(!theirs.is_open() && !ours.is_open());
        assert!(ours.is_shut_for(Shut::Halted) && !ours.is_shut_for(Shut::Paused));
        ours.open(Shut::Halted);
        assert!(theirs.is_open());
    }

    #[test]
    fn beginnings_of_both_sides_are_apart() {
        let (ours, theirs) = gates();
        let apart = Duration::from_secs(3600);
        assert_eq!(ours.begin_apart(apart), None);
        for gate in [&ours, &theirs] {
            let wait = gate.begin_apart(apart).unwrap();
            assert!(
                wait > Duration::from_secs(3000) && wait <= apart,
                "{wait:?}"
            );
        }
        let (ours, theirs) = gates();
        assert_eq!(ours.begin_apart(Duration::ZERO), None);
        assert_eq!(theirs.begin_apart(Duration::ZERO), None);
    }

    #[test]
    fn standstills_add_up_for_the_other_side() {
        let (ours, theirs) = gates();
        assert_eq!(theirs.stood_still(), Duration::ZERO);
        ours.note_standstill(Duration::from_millis(1500));
        ours.note_standstill(Duration::from_secs(1));
        assert_eq!(theirs.stood_still(), Duration::from_millis(2500));
    }

    #[test]
    fn the_end_that_reaches_a_limit_shuts_it() {
        let (ours, theirs) = gates();
        let after = HaltAfter {
            failed: Some(2),
            ..HaltAfter::default()
        };
        ours.count(Ending::Failed, after);
        ours.count(Ending::Completed, after);
        assert!(theirs.is_open());
        theirs.count(Ending::Failed, after);
        assert!(!ours.is_open());
        let done = HaltAfter {
            done: Some(2),
            ..HaltAfter::default()
        };
        let (ours, theirs) = gates();
        ours.count(Ending::Completed, done);
        theirs.count(Ending::Failed, done);
        assert!(!ours.is_open());
    }
}
