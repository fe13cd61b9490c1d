//! What is started and how it ended: plain data of [`super::spawn()`] and [`super::Child`].

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that [`super::spawn()`] needs. Nothing is looked up: the program is resolved, the environment complete.
pub struct SpawnSpec<'fd> {
    /// Path of the program; relative paths are relative to `cwd`. See [`super::resolve_program`].
    pub program: PathBuf,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// The whole environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// Working directory; the caller's when absent.
    pub cwd: Option<PathBuf>,
    /// Descriptor 0.
    pub stdin: Stdio<'fd>,
    /// Descriptor 1.
    pub stdout: Stdio<'fd>,
    /// Descriptor 2.
    pub stderr: Stdio<'fd>,
    /// Further descriptors and their numbers in the child, from 3 on and in ascending order. Nothing else is inherited.
    pub inherit: Vec<(Stdio<'fd>, RawFd)>,
    /// Whether the child leads a group of its own.
    pub process_group: ProcessGroup,
}

impl fmt::Debug for SpawnSpec<'_> {
    // The environment and the arguments may hold secrets, so only their sizes are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnSpec")
            .field("program", &self.program)
            .field("args", &self.argv.len())
            .field("variables", &self.env.len())
            .field("cwd", &self.cwd)
            .field("inherit", &self.inherit)
            .field("process_group", &self.process_group)
            .finish_non_exhaustive()
    }
}

/// One standard stream of a child.
#[derive(Debug)]
pub enum Stdio<'fd> {
    /// A descriptor that is closed with the spec.
    Owned(OwnedFd),
    /// A descriptor that somebody else keeps.
    Borrowed(BorrowedFd<'fd>),
}

impl AsFd for Stdio<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Owned(fd) => fd.as_fd(),
            Self::Borrowed(fd) => fd.as_fd(),
        }
    }
}

impl From<OwnedFd> for Stdio<'_> {
    fn from(fd: OwnedFd) -> Self {
        Self::Owned(fd)
    }
}

impl<'fd> From<BorrowedFd<'fd>> for Stdio<'fd> {
    fn from(fd: BorrowedFd<'fd>) -> Self {
        Self::Borrowed(fd)
    }
}

/// Whether a child leads a process group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessGroup {
    /// A new session, without a terminal, and in it a new group whose number is the child's pid; it can be signaled as a
    /// whole. A child that wants a terminal fails instead of being stopped for one.
    New,
    /// The caller's group; the terminal's signals reach the child too.
    Inherit,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// How a process ended and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitInfo {
    /// How.
    pub status: ExitStatus,
    /// Whether a signal that ended it has left an image of its memory.
    pub core_dumped: bool,
    /// CPU time in user mode, of the process and the descendants it waited for.
    pub user: Duration,
    /// CPU time in system mode, likewise.
    pub system: Duration,
    /// Peak resident memory of the largest of them. The kernel counts the moment between `vfork` and `exec` as well, so
    /// this is never less than the spawning process's own peak.
    pub max_rss_bytes: u64,
}
