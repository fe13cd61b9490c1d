//! What ends the wait for a task early: a call from another thread, heard while this one sleeps in the kernel.
//!
//! Whoever gives orders to the executor's thread raises it after the order is in its place. The executor's owner makes it;
//! it carries no order by itself, and a raise that comes for nothing costs one task its short way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A call that ends a wait. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<OwnedFd>);

impl Interrupt {
    /// One that was not raised.
    ///
    /// # Errors
    /// When the system is short of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Ends the executor's present wait, or else its next one.
    pub fn raise(&self) {
        // The only failure is a counter at its end, which is as raised as can be.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Takes the call back, because it was heard.
    pub(super) fn lower(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
