//! One started process: watched by its pidfd, reaped once.
//!
//! [`Child::exited`] and [`Child::reap`] are two steps on purpose: between them the process is a zombie, so its pid
//! and its group number cannot be given to somebody else and the rest of the group can be signaled safely.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::spawn::Born;
use super::spec::{ExitInfo, ProcessGroup};
use super::{register, spawn, tree};

/// How long dropping a living child waits for its death. A killed process is gone in well under a millisecond unless
/// the kernel holds it.
const DROP_PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A process started by [`super::spawn()`].
///
/// Dropping one that was not reaped kills it (with its group, if it leads one) and reaps it. That is an emergency
/// exit which may block for 50 ms: a child that does not die by then is left to [`tree::kill_adopted`].
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// `None` only inside [`Self::watch`] and while [`Self::exited`] moves it into the runtime's watch.
    pidfd: Option<Pidfd>,
    group: ProcessGroup,
    reaped: bool,
}

#[derive(Debug)]
enum Pidfd {
    Idle(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Idle(fd) => fd.as_fd(),
            Self::Watched(fd) => fd.get_ref().as_fd(),
        }
    }
}

impl Child {
    /// Takes charge of a child that was just entered in the register. Its pid cannot have been reused: nobody else
    /// reaps it.
    pub(super) fn watch(born: Born, group: ProcessGroup) -> io::Result<Self> {
        let pid = Pid::from_raw(born.pid).expect("a child has a positive pid");
        let mut child = Self {
            pid,
            pidfd: born.pidfd.map(Pidfd::Idle),
            group,
            reaped: false,
        };
        if child.pidfd.is_none() {
            // On failure the drop of `child` ends the process.
            child.pidfd = Some(Pidfd::Idle(pidfd_open(pid, PidfdFlags::empty())?));
        }
        Ok(child)
    }

    /// Its pid; also the number of its group when it was started with [`ProcessGroup::New`].
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// True once it has been reaped and its pid may be somebody else's.
    #[must_use]
    pub fn is_reaped(&self) -> bool {
        self.reaped
    }

    /// The descriptor that becomes readable when the process ends.
    ///
    /// # Errors
    /// Never after [`super::spawn()`] has returned.
    pub fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        let pidfd = self.pidfd.as_ref();
        Ok(pidfd.ok_or_else(lost)?.as_fd())
    }

    /// Waits until the process has ended, and leaves it a zombie. Safe to drop and to call again.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor; [`Self::has_exited`] still works then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn exited(&mut self) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        if let Some(Pidfd::Idle(_)) = self.pidfd
            && let Some(Pidfd::Idle(fd)) = self.pidfd.take()
        {
            let (pidfd, outcome) = match spawn::watch_readable(fd) {
                Ok(watched) => (Pidfd::Watched(watched), Ok(())),
                Err((fd, error)) => (Pidfd::Idle(fd), Err(error)),
            };
            self.pidfd = Some(pidfd);
            outcome?;
        }
        match &self.pidfd {
            // Readiness is never cleared: a pidfd stays readable once its process has ended.
            Some(Pidfd::Watched(fd)) => fd.readable().await.map(|mut guard| guard.retain_ready()),
            _ => Err(lost()),
        }
    }

    /// True when the process has ended, reaped or not. One system call, no wait.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.reaped
            || self
                .pidfd()
                .is_ok_and(|fd| readable_within(fd, Timespec::default()))
    }

    /// Reaps the process if it has ended; `None` while it runs.
    ///
    /// # Errors
    /// When it was reaped already, here or by somebody who had no right to.
    pub fn reap(&mut self) -> io::Result<Option<ExitInfo>> {
        let reaped = register::reap_own(self.pid.as_raw_nonzero().get());
        self.reaped |= !matches!(reaped, Ok(None));
        reaped
    }

    /// Waits for the end and reaps. Safe to drop and to call again until it has returned.
    ///
    /// # Errors
    /// As [`Self::exited`] and [`Self::reap`].
    pub async fn wait(&mut self) -> io::Result<ExitInfo> {
        loop {
            self.exited().await?;
            if let Some(info) = self.reap()? {
                return Ok(info);
            }
        }
    }

    /// Signals the process. A process that has ended already is no error.
    ///
    /// # Errors
    /// When it runs under another user by now.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        tree::gone_is_fine(pidfd_send_signal(self.pidfd()?, signal))
    }

    /// Signals its whole group, or the process alone when it leads none. Only possible until it is reaped, because
    /// afterwards the number may be somebody else's.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match self.group {
            _ if self.reaped => Ok(()),
            ProcessGroup::New => tree::kill_group(self.pid, signal),
            ProcessGroup::Inherit => self.signal(signal),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("the process can no longer be watched")
}

fn readable_within(fd: BorrowedFd<'_>, patience: Timespec) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&patience)), Ok(ready) if ready > 0)
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Errors have no one to go to, and each step is worth trying whatever became of the one before.
        let _ = self.signal_group(Signal::KILL);
        if let Ok(fd) = self.pidfd() {
            readable_within(fd, DROP_PATIENCE);
        }
        if !matches!(self.reap(), Ok(Some(_))) {
            register::disown(self.pid.as_raw_nonzero().get());
        }
    }
}
