//! Where the server's poller waits: one epoll over every doorbell and the local waker. The only place it sleeps.
//!
//! The bound of a wait is short (50 ms) because a worker that was stopped between claiming the wake-up and ringing would
//! otherwise delay the others; see [`crate::sleep`].

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::board::Board;
use crate::doorbell::Doorbell;
use crate::ids::Incarnation;
use crate::sleep;
use crate::waker::Waker;

/// Longest wait.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(50);
/// Doorbells looked at per wait; the others stay ready for the next.
const EVENTS: usize = 64;
/// Marks the waker; no incarnation has this number.
const WAKER: u64 = u64::MAX;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// There was something before it began.
    NotNeeded,
    /// Somebody rang.
    Rung,
    /// The time was up. Work that is found now and is older was not announced: a lost wake-up.
    TimedOut,
    /// The time was up, and somebody had claimed the right to ring but has not rung yet.
    RingUnderWay,
}

pub(super) struct Bell {
    epoll: OwnedFd,
    waker: Waker,
    pub(super) board: Board,
    events: Vec<epoll::Event>,
    /// Doorbells that were rung or hung up, found by the last look.
    pub(super) rung: Vec<Incarnation>,
}

impl Bell {
    pub(super) fn new(waker: Waker, board: Board) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self {
            epoll,
            waker,
            board,
            events: Vec::with_capacity(EVENTS),
            rung: Vec::with_capacity(EVENTS),
        })
    }

    pub(super) fn add(&self, incarnation: Incarnation, doorbell: &Doorbell) -> io::Result<()> {
        let data = EventData::new_u64(incarnation.0);
        epoll::add(
            &self.epoll,
            doorbell,
            data,
            EventFlags::IN | EventFlags::RDHUP,
        )?;
        Ok(())
    }

    pub(super) fn remove(&self, doorbell: &Doorbell) {
        // A doorbell that hung up has been removed before.
        let _removed_or_absent = epoll::delete(&self.epoll, doorbell);
    }

    /// Blocks until somebody rings or the bound is over. `look` says whether there is anything to do; it is asked after
    /// the sleep was announced.
    pub(super) fn block(&mut self, bound: Duration, look: impl FnOnce(&Board) -> bool) -> Woken {
        sleep::announce(self.board.asleep());
        self.waker.announce();
        let needed = !look(&self.board);
        let rung = needed && self.collect(bound.min(MAX_WAIT));
        let board_unclaimed = sleep::retract(self.board.asleep());
        let waker_unclaimed = self.waker.retract();
        match (needed, rung) {
            (false, _) => Woken::NotNeeded,
            (true, true) => Woken::Rung,
            (true, false) if board_unclaimed && waker_unclaimed => Woken::TimedOut,
            (true, false) => Woken::RingUnderWay,
        }
    }

    /// Sleeps without announcing it: nobody rings, only a hang-up or the end of the pause wakes.
    pub(super) fn pause(&mut self, pause: Duration) {
        let timeout = timespec(pause);
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        // poll(2) rather than epoll_wait(2): its time-out is finer than a millisecond. An interruption ends the pause.
        let _ready_or_over = rustix::event::poll(&mut fds, Some(&timeout));
        self.collect(Duration::ZERO);
    }

    /// Looks for rings and hang-ups, waiting at most `bound`. `true` when there was any.
    pub(super) fn collect(&mut self, bound: Duration) -> bool {
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        let found = match epoll::wait(&self.epoll, buffer, Some(&timespec(bound))) {
            Ok(count) => count > 0,
            // Signals are blocked in this thread; a debugger may still interrupt. It counts as a ring.
            Err(_) => true,
        };
        for event in self.events.drain(..) {
            let data = event.data.u64();
            if data == WAKER {
                self.waker.drain();
            } else {
                self.rung.push(Incarnation(data));
            }
        }
        found
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
