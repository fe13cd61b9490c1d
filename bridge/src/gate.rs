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
