//! Wakes the poller of this process from any thread.
//!
//! Owned by handles (to wake) and by the poller (to sleep). A wake-up towards an awake poller is a fence and a load; only
//! a sleeping one costs a write to an eventfd. The protocol and its proof are in [`crate::sleep`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use rustix::event::EventfdFlags;

use crate::sleep;

#[derive(Debug)]
struct Shared {
    asleep: AtomicU32,
    event: OwnedFd,
}

/// Handle to one poller's local wake-up.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<Shared>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Shared {
            asleep: AtomicU32::new(0),
            event,
        })))
    }

    /// Makes the poller look at its queues. Call after the message is enqueued.
    pub(crate) fn wake(&self) {
        if sleep::claim(&self.0.asleep) {
            // The counter cannot overflow: one write per sleep. A failure would mean a broken descriptor, and the
            // poller's bounded wait still ends.
            let _written = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
        }
    }

    /// The poller is about to block; it must look at its queues once more.
    pub(crate) fn announce(&self) {
        sleep::announce(&self.0.asleep);
    }

    /// The poller is awake. `true` when nobody had claimed the right to wake it.
    pub(crate) fn retract(&self) -> bool {
        sleep::retract(&self.0.asleep)
    }

    /// Empties the eventfd.
    pub(crate) fn drain(&self) {
        // Would-block means it was empty; both results leave it empty.
        let _read = rustix::io::read(&self.0.event, &mut [0_u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec};
    use std::sync::atomic::{AtomicU64, Ordering};

    const PATIENCE: Timespec = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };

    /// Writes to the eventfd since the last look.
    fn rings(waker: &Waker) -> u64 {
        let mut count = [0_u8; 8];
        match rustix::io::read(waker, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn exactly_one_sender_rings_a_sleep_and_nobody_an_awake_poller() {
        let waker = Waker::new().unwrap();
        waker.wake();
        assert_eq!(rings(&waker), 0);
        waker.announce();
        waker.wake();
        waker.wake();
        assert_eq!(rings(&waker), 1);
        assert!(!waker.retract());
        waker.announce();
        assert!(waker.retract());
        waker.wake();
        assert_eq!(rings(&waker), 0);
    }

    /// Four senders against one sleeper that blocks without a bound: a lost wake-up hangs, and the watchdog says so.
    #[test]
    fn no_wake_up_is_lost_between_four_senders_and_a_sleeper() {
        const SENDERS: u64 = 4;
        const EACH: u64 = 50_000;
        let waker = Waker::new().unwrap();
        let published = Arc::new(AtomicU64::new(0));
        let sender = |_| {
            let (waker, published) = (waker.clone(), published.clone());
            let send = move || {
                for turn in 0..EACH {
                    published.fetch_add(1, Ordering::Release);
                    waker.wake();
                    if turn % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            };
            std::thread::Builder::new().spawn(send).unwrap()
        };
        let senders: Vec<_> = (0..SENDERS).map(sender).collect();
        let mut seen = 0;
        while seen < SENDERS * EACH {
            waker.announce();
            if published.load(Ordering::Acquire) == seen {
                let mut fds = [PollFd::new(&waker, PollFlags::IN)];
                let ready = rustix::event::poll(&mut fds, Some(&PATIENCE)).unwrap();
                let unseen = published.load(Ordering::Acquire) - seen;
                assert_eq!(ready, 1, "slept with {unseen} unseen");
            }
            waker.retract();
            waker.drain();
            seen = published.load(Ordering::Acquire);
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
