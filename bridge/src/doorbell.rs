//! One inherited socket pair per worker: identity, wake-up and death signal in one.
//!
//! The manager keeps one end, the worker inherits the other. The first message, manager to worker, is the invitation;
//! after it a byte means "look at your ports", and the end of the stream means that the peer is gone. Who may skip the
//! byte, and why nothing is lost, is argued in [`crate::sleep`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Longest first message. The default socket buffer holds about 200 KiB.
pub(crate) const MAX_MESSAGE: usize = 96 << 10;

/// Rings taken at once. A peer that rings faster than they are taken must not hold the others up: what is left keeps the
/// descriptor ready for the next look.
const RINGS_PER_DRAIN: usize = 64;

/// State of the peer, found while draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Open,
    /// The peer has closed its end: its process is dead or dying.
    HungUp,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    /// Makes both ends: non-blocking, close-on-exec, message boundaries kept.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Takes an inherited end, after checking that it is a socket that can have been made by [`Doorbell::pair`].
    pub(crate) fn from_inherited(fd: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            let words = "the inherited descriptor is not a doorbell";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        Ok(Self(fd))
    }

    /// The descriptor to inherit.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Rings. A full socket has unread rings in it, and a closed one has nobody to hear: both are fine.
    pub(crate) fn ring(&self) {
        let _rung_or_moot = rustix::net::send(&self.0, &[1], SendFlags::NOSIGNAL);
    }

    /// Sends the first message.
    pub(crate) fn send_message(&self, message: &[u8]) -> io::Result<()> {
        let sent = rustix::net::send(&self.0, message, SendFlags::NOSIGNAL)?;
        debug_assert_eq!(sent, message.len(), "a message socket sends all or nothing");
        Ok(())
    }

    /// Receives the first message; `None` when it has not come yet, `UnexpectedEof` when the peer is gone.
    pub(crate) fn receive_message(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0_u8; MAX_MESSAGE];
        match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((len, _)) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until there is something to read, or the time is up. Only for the time before a poller runs.
    pub(crate) fn wait(&self, bound: Duration) {
        let timeout = Timespec {
            tv_sec: i64::try_from(bound.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(bound.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        // Interrupted or over: the caller looks and decides.
        let _ready_or_over = rustix::event::poll(&mut fds, Some(&timeout));
    }

    /// Takes the rings, all of them unless there are very many.
    pub(crate) fn drain(&self) -> Line {
        let mut buffer = [0_u8; 8];
        for _ in 0..RINGS_PER_DRAIN {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) => return Line::HungUp,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Line::Open,
                // A reset: the peer closed with rings of ours unread.
                Err(_) => return Line::HungUp,
            }
        }
        Line::Open
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_taken_together_and_the_line_stays_open() {
        let (ours, theirs) = Doorbell::pair().unwrap();
        assert_eq!(ours.drain(), Line::Open);
        for _ in 0..3 {
            theirs.ring();
        }
        assert_eq!(ours.drain(), Line::Open);
        assert_eq!(ours.drain(), Line::Open);
    }

    #[test]
    fn a_dropped_end_hangs_up_even_with_unread_rings() {
        let (ours, theirs) = Doorbell::pair().unwrap();
        ours.ring();
        drop(theirs);
        ours.ring();
        assert_eq!(ours.drain(), Line::HungUp);
    }

    #[test]
    fn a_flood_of_rings_neither_blocks_nor_fails() {
        let (ours, theirs) = Doorbell::pair().unwrap();
        for _ in 0..10_000 {
            theirs.ring();
        }
        assert_eq!(ours.drain(), Line::Open);
    }

    #[test]
    fn a_peer_that_never_stops_ringing_holds_nobody_up() {
        let (ours, theirs) = Doorbell::pair().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        theirs.ring();
                    }
                });
            }
            for _ in 0..1_000 {
                assert_eq!(ours.drain(), Line::Open);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        // What was left is still there, and the end behind it.
        drop(theirs);
        let left = (0..10_000).find(|_| ours.drain() == Line::HungUp);
        assert!(left.is_some());
    }

    #[test]
    fn the_first_message_keeps_its_boundaries() {
        let (ours, theirs) = Doorbell::pair().unwrap();
        assert!(theirs.receive_message().unwrap().is_none());
        let message = vec![7_u8; MAX_MESSAGE];
        ours.send_message(&message).unwrap();
        ours.ring();
        assert_eq!(theirs.receive_message().unwrap().unwrap(), message);
        drop(ours);
        theirs.drain();
        assert!(theirs.receive_message().is_err());
    }
}
