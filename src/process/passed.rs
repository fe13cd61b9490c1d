//! Descriptors beside 0, 1 and 2 that a caller leaves open and its tasks are to have: those of a jobserver of `make`, of
//! `<(…)`, or whatever was asked for.
//!
//! They travel from the caller to `run`, from there to each worker under numbers of ours ([`Passed::for_worker`],
//! [`Passed::inherited`]), and to each task under their own. Nobody here reads or writes them. Who asks for them and why
//! is decided elsewhere.

#![expect(
    unsafe_code,
    reason = "an inherited descriptor is only a number until it is owned"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::spec::Stdio;

/// The first descriptor that is no standard stream.
pub const FIRST: RawFd = 3;
/// The highest number that is passed on: a start closes what lies between.
pub const LAST: RawFd = 1023;

/// The first number that a managed worker has them under, behind what the transport needs.
pub const WORKERS_FIRST_PASSED: RawFd = 6;

/// Descriptors and the numbers that tasks know them by, in ascending order; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    fds: Arc<[(OwnedFd, RawFd)]>,
}

impl Passed {
    /// Copies of descriptors of this process, under the numbers that they have here. Only what the caller left open is
    /// meant, so this is to be called before anything is opened.
    ///
    /// # Errors
    /// The first number that is not open, and why it cannot be copied.
    pub fn of_caller(numbers: impl IntoIterator<Item = RawFd>) -> Result<Self, (RawFd, io::Error)> {
        let mut numbers: Vec<RawFd> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let copy = |number| match copy(number) {
            Ok(fd) => Ok((fd, number)),
            Err(error) => Err((number, error)),
        };
        let fds: Result<Vec<_>, _> = numbers.into_iter().map(copy).collect();
        Ok(Self { fds: fds?.into() })
    }

    /// The descriptors that a manager left to this process from `first` on, which tasks know by `numbers`. To be called
    /// once, for numbers that nothing of this process was given.
    ///
    /// # Errors
    /// When one is not there.
    pub fn inherited(first: RawFd, numbers: &[RawFd]) -> io::Result<Self> {
        let take = |(source, number): (RawFd, &RawFd)| {
            // SAFETY: the borrow lasts for one call that asks the kernel about the number and fails for one that is not open.
            rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(source) })?;
            // SAFETY: it is open, and the manager left it to this process under a number that nobody else takes: it was
            // open before this process opened anything.
            Ok((unsafe { OwnedFd::from_raw_fd(source) }, *number))
        };
        let fds: io::Result<Vec<_>> = (first..).zip(numbers).map(take).collect();
        Ok(Self { fds: fds?.into() })
    }

    /// The numbers that tasks know them by.
    #[must_use]
    pub fn numbers(&self) -> Vec<RawFd> {
        self.fds.iter().map(|(_, number)| *number).collect()
    }

    /// True when each of them is a pipe.
    #[must_use]
    pub fn are_pipes(&self) -> bool {
        self.fds.iter().all(|(fd, _)| {
            let stat = rustix::fs::fstat(fd);
            stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo())
        })
    }

    /// What a child is given that is a task.
    pub(crate) fn for_task(&self) -> Vec<(Stdio<'_>, RawFd)> {
        let fds = self.fds.iter();
        fds.map(|(fd, number)| (Stdio::Borrowed(fd.as_fd()), *number))
            .collect()
    }

    /// What a child is given that passes them on, from `first` on.
    pub(crate) fn for_worker(&self, first: RawFd) -> impl Iterator<Item = (Stdio<'_>, RawFd)> {
        let fds = self.fds.iter().map(|(fd, _)| Stdio::Borrowed(fd.as_fd()));
        fds.zip(first..)
    }
}

impl PartialEq for Passed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fds, &other.fds) || (self.fds.is_empty() && other.fds.is_empty())
    }
}

fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow lasts for one call, which fails for a number that is not open and otherwise only copies it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST)?)
}

/// Every descriptor from [`FIRST`] on that this process's caller left open. To be called before anything is opened.
///
/// # Errors
/// When the system does not say.
pub fn left_open() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
        numbers.extend(number.filter(|number| (FIRST..=LAST).contains(number)));
    }
    // The directory itself was one of them.
    numbers.retain(|number| copy(*number).is_ok());
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_open_is_copied_under_its_number_and_what_is_not_is_named() {
        let (read, _write) = io::pipe().unwrap();
        let number = read.as_raw_fd();
        let passed = Passed::of_caller([number, number]).unwrap();
        assert_eq!(passed.numbers(), [number]);
        assert_eq!(passed.clone().for_task().len(), 1);
        let (named, error) = Passed::of_caller([LAST]).unwrap_err();
        assert_eq!((named, error.raw_os_error()), (LAST, Some(libc::EBADF)));
        assert!(left_open().unwrap().contains(&number));
    }
}
