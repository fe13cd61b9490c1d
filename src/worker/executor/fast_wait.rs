//! The wait for a task that ends within some milliseconds: one system call, no runtime.
//!
//! A wake-up through the runtime costs a registration, an epoll and its removal for each task. Most tasks of a list end
//! before that would pay. So the executor's thread sleeps in one `poll`, where an order finds it by its [`Interrupt`];
//! whatever lives longer goes on in the runtime. Only for an executor whose thread may be blocked that long: one with an
//! interrupt.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::capture::{Capture, Plan};
use super::interrupt::Interrupt;
use crate::process::Child;
use crate::protocol::output::LogStream;

/// Longest wait. Then the task is one that is watched.
const PATIENCE: Duration = Duration::from_millis(5);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The task has ended.
    Exited,
    /// It runs; whatever else there is has to be looked at.
    Runs,
}

/// Waits for the end of a task that started at `since`, and reads along where it is expected to write much.
pub(super) fn wait(
    child: &Child,
    interrupt: &Interrupt,
    capture: &mut Capture,
    plan: &Plan,
    since: Instant,
) -> Waited {
    let mut watched: Vec<LogStream> = Vec::new();
    if capture.expects_much() {
        watched.extend([LogStream::Stdout, LogStream::Stderr]);
    }
    loop {
        watched.retain(|stream| capture.source(*stream).is_some());
        let Ok(pidfd) = child.pidfd() else {
            return Waited::Runs;
        };
        let sources = watched.iter().filter_map(|stream| capture.source(*stream));
        let mut fds: Vec<PollFd<'_>> = [pidfd]
            .into_iter()
            .chain([std::os::fd::AsFd::as_fd(interrupt)])
            .chain(sources)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let left = PATIENCE.saturating_sub(since.elapsed());
        let left = Timespec::try_from(left).unwrap_or_default();
        let ready = poll(&mut fds, Some(&left));
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        match (ready, &is_ready[..]) {
            (Ok(1..), [true, ..]) => return Waited::Exited,
            (Ok(1..), [_, true, ..]) => {
                interrupt.lower();
                return Waited::Runs;
            }
            (Ok(1..), [_, _, streams @ ..]) => {
                let ready = watched.iter().zip(streams).filter(|(_, ready)| **ready);
                for (stream, _) in ready {
                    if capture.pump(*stream, plan).is_err() {
                        // The loop of the runtime says why, and has the time to try again.
                        return Waited::Runs;
                    }
                }
            }
            (Err(rustix::io::Errno::INTR), _) => {}
            _ => return Waited::Runs,
        }
        if since.elapsed() >= PATIENCE {
            return Waited::Runs;
        }
    }
}
