//! The pipe that a task writes one of its streams to: its making, its second use, and reading it without waiting.
//!
//! Owned by the stream of a slot. Only the end to read from is kept; the one to write to is opened anew for each task and
//! closed here once the task has it. So no task finds flags that an earlier one has set (a pipe in non-blocking mode
//! loses bytes), and the end of the pipe says that nobody else has it any more. What has been left open elsewhere is
//! never handed to a second task.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, openat};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe holds before its writer waits, unless it was enlarged.
pub(in crate::worker::executor) const FILL: usize = 64 << 10;
/// What it holds once its task was seen to write much.
const ENLARGED: usize = 1 << 20;

/// The end of a pipe that is read from.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    /// The name under which the other end is opened.
    name: CString,
    is_enlarged: bool,
}

/// How a look at a pipe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker::executor) enum Flow {
    /// There may be more.
    More,
    /// Nothing is left now.
    Empty,
    /// Nothing is left, and nobody has the other end.
    End,
}

impl Pipe {
    /// A fresh pipe and its end to write to.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&read, OFlags::NONBLOCK)?;
        let name = format!("/proc/self/fd/{}", read.as_raw_fd());
        let pipe = Self {
            read,
            name: CString::new(name).expect("a number has no NUL byte"),
            is_enlarged: false,
        };
        Ok((pipe, write))
    }

    /// Another end to write to, with flags of its own. Fails where the earlier task has changed the pipe's permissions.
    pub(super) fn writer(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(openat(CWD, &self.name, flags, Mode::empty())?)
    }

    /// Reads what fits `buffer`, without waiting.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<(usize, Flow)> {
        flow(retried(|| read(&self.read, &mut *buffer)))
    }

    /// Moves bytes into `file` from `offset` on, without waiting for more.
    pub(super) fn move_into(&self, file: &File, offset: u64) -> io::Result<(usize, Flow)> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let mut at = offset;
        flow(retried(|| {
            splice(&self.read, None, file, Some(&mut at), ENLARGED, flags)
        }))
    }

    /// Makes room for a writer that is faster than its reader. Where the user's share of such memory is spent it stays as
    /// it is.
    pub(super) fn enlarge(&mut self) {
        self.is_enlarged |= fcntl_setpipe_size(&self.read, ENLARGED).is_ok();
    }

    /// Gives back what [`Self::enlarge`] took; the pipe is empty.
    pub(super) fn shrink(&mut self) {
        if self.is_enlarged && fcntl_setpipe_size(&self.read, FILL).is_ok() {
            self.is_enlarged = false;
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

fn retried(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn flow(done: Result<usize, Errno>) -> io::Result<(usize, Flow)> {
    match done {
        Ok(0) => Ok((0, Flow::End)),
        Ok(count) => Ok((count, Flow::More)),
        Err(Errno::AGAIN) => Ok((0, Flow::Empty)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_some(pipe: &Pipe) -> (usize, Flow) {
        pipe.read(&mut [0; 100]).unwrap()
    }

    #[test]
    fn the_end_of_a_pipe_is_seen_when_nobody_else_has_it() {
        let (pipe, first) = Pipe::create().unwrap();
        assert_eq!(read_some(&pipe), (0, Flow::Empty));
        rustix::io::write(&first, b"one").unwrap();
        let elsewhere = first.try_clone().unwrap();
        drop(first);
        assert_eq!(read_some(&pipe), (3, Flow::More));
        assert_eq!(read_some(&pipe), (0, Flow::Empty));
        drop(elsewhere);
        assert_eq!(read_some(&pipe), (0, Flow::End));
    }

    #[test]
    fn a_second_task_gets_none_of_the_flags_that_the_first_has_set() {
        let (pipe, first) = Pipe::create().unwrap();
        fcntl_setfl(&first, OFlags::NONBLOCK).unwrap();
        drop(first);
        let second = pipe.writer().unwrap();
        let flags = rustix::fs::fcntl_getfl(&second).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "{flags:?}");
        assert_eq!(read_some(&pipe), (0, Flow::Empty));
    }
}
