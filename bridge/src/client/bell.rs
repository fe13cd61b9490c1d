//! Where the client's poller waits: its doorbell and the local waker. The only place it sleeps.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::board::Board;
use crate::doorbell::{Doorbell, Line};
use crate::ids::LocalId;
use crate::sleep;
use crate::status::StatusBlock;
use crate::waker::Waker;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// There was something before it began.
    NotNeeded,
    /// Somebody rang.
    Rung,
    /// The time was up and nobody had claimed the right to ring.
    TimedOut,
}

#[derive(Debug)]
pub(super) struct Bell {
    doorbell: Doorbell,
    waker: Waker,
    board: Board,
    local_id: LocalId,
    line: Line,
}

impl Bell {
    pub(super) fn new(doorbell: Doorbell, waker: Waker, board: Board, local_id: LocalId) -> Self {
        Self {
            doorbell,
            waker,
            board,
            local_id,
            line: Line::Open,
        }
    }

    /// Whether the manager is still there, as far as the doorbell has been heard.
    pub(super) fn line(&self) -> Line {
        self.line
    }

    /// Tells the manager to look at this worker's ports. After the frames were sent; one call for several.
    pub(super) fn call(&self, status: &StatusBlock) {
        status.stamp_ring();
        self.board.raise(self.local_id);
        if sleep::claim(self.board.asleep()) {
            self.doorbell.ring();
        }
    }

    /// Blocks until somebody rings or the bound is over. `look` says whether there is anything to do; it is asked after
    /// the sleep was announced.
    pub(super) fn block(
        &mut self,
        status: &StatusBlock,
        bound: Duration,
        look: impl FnOnce() -> bool,
    ) -> Woken {
        sleep::announce(status.asleep());
        self.waker.announce();
        let needed = !look();
        let rung = needed && self.listen(bound);
        let doorbell_unclaimed = sleep::retract(status.asleep());
        let waker_unclaimed = self.waker.retract();
        if !needed {
            Woken::NotNeeded
        } else if !rung && doorbell_unclaimed && waker_unclaimed {
            Woken::TimedOut
        } else {
            Woken::Rung
        }
    }

    /// Waits without announcing it (or, with no bound, only looks). `true` when somebody rang.
    pub(super) fn listen(&mut self, bound: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(bound.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(bound.subsec_nanos()),
        };
        let (waker_rung, doorbell_rung) = {
            // Once the manager has hung up, its end of the pair is always "ready": it is not waited for any more.
            let interest = match self.line {
                Line::Open => PollFlags::IN,
                Line::HungUp => PollFlags::empty(),
            };
            let mut fds = [
                PollFd::new(&self.waker, PollFlags::IN),
                PollFd::new(&self.doorbell, interest),
            ];
            let watched = match self.line {
                Line::Open => &mut fds[..],
                Line::HungUp => &mut fds[..1],
            };
            // Signals are blocked in this thread; a debugger may still interrupt. It counts as a ring.
            if rustix::event::poll(watched, Some(&timeout)).is_err() {
                return true;
            }
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
        };
        if waker_rung {
            self.waker.drain();
        }
        if doorbell_rung {
            self.line = self.doorbell.drain();
        }
        waker_rung || doorbell_rung
    }
}
