//! Takes the descriptors 3, 4 and 5 that a manager leaves to its worker.
#![expect(
    unsafe_code,
    reason = "an inherited descriptor is only a number; what it is must be checked before it is owned"
)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SealFlags;
use rustix::io::FdFlags;
use rustix::net::SocketType;

use super::ClientFds;
use crate::error::OpenError;

const DOORBELL: RawFd = 3;
const STATUS: RawFd = 4;
const BOARD: RawFd = 5;

/// A descriptor must have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl ClientFds {
    /// Takes the inherited descriptors, once per process, and marks them close-on-exec, so that no task inherits them.
    ///
    /// Call it early in `main`: later the numbers may belong to something else, which is recognized and refused.
    ///
    /// # Errors
    /// When one is missing or is not what a manager leaves, or they have been taken before.
    pub fn inherited() -> Result<Self, OpenError> {
        let missing = |number, what| OpenError::MissingDescriptor { number, what };
        let is_doorbell =
            |fd: BorrowedFd<'_>| rustix::net::sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET);
        let is_record = |fd: BorrowedFd<'_>| {
            rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
        };
        check(DOORBELL, is_doorbell).ok_or_else(|| missing(DOORBELL, "the doorbell"))?;
        check(STATUS, is_record).ok_or_else(|| missing(STATUS, "the status block"))?;
        check(BOARD, is_record).ok_or_else(|| missing(BOARD, "the board"))?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(missing(
                DOORBELL,
                "the doorbell, which has been taken before",
            ));
        }
        Ok(Self {
            doorbell: take(DOORBELL),
            status: take(STATUS),
            board: take(BOARD),
        })
    }
}

fn check(number: RawFd, is_right: impl FnOnce(BorrowedFd<'_>) -> bool) -> Option<()> {
    // SAFETY: the borrow lasts for the two calls below, which ask the kernel about the number and fail for one that is
    // not open; nothing is read, written or closed.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(fd).ok()?;
    if !is_right(fd) {
        return None;
    }
    rustix::io::fcntl_setfd(fd, flags | FdFlags::CLOEXEC).ok()
}

fn take(number: RawFd) -> OwnedFd {
    // SAFETY: `check` has found it open and of the kind that only a manager leaves under this number; `TAKEN` makes sure
    // that it is taken once; nothing in this crate opens such a descriptor under a fixed number.
    unsafe { OwnedFd::from_raw_fd(number) }
}
