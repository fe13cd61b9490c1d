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
