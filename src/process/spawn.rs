//! Starting a program, and the calls around it that no safe crate offers: `wait4`, `execv`, dispositions.
//!
//! There is no `fork`: the start is one [`super::clone`], or a [`super::posix`] where the kernel refuses that. The caller's
//! thread is suspended until the `exec`, which takes a few hundred microseconds at most; that is shorter than moving the
//! call to another thread and back.

#![expect(
    unsafe_code,
    reason = "wait4 has no safe wrapper that gives the usage, nor have dispositions"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use std::{io, ptr};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

use super::child::Child;
use super::error::SpawnError;
use super::spec::{ExitInfo, ExitStatus, ProcessGroup, SpawnSpec};
use super::{clone, limited, posix, register};

const FIRST_INHERITED: RawFd = 3;
/// In place of a descriptor that the child does not have.
pub(super) const CLOSED: RawFd = -1;

/// Starts a program with an empty signal mask, default dispositions, and no descriptor but the named ones.
///
/// Blocks the calling thread until the child has executed the program (see the module).
///
/// # Errors
/// Whatever prevented it, in words; [`SpawnError::is_retryable`] says when the same call may succeed later.
pub fn spawn(spec: &SpawnSpec<'_>) -> Result<Child, SpawnError> {
    let program = c_path(&spec.program, "the program's path")?;
    let cwd = match &spec.cwd {
        Some(cwd) => Some(c_path(cwd, "the working directory")?),
        None => None,
    };
    let sources = Sources::collect(spec)?;
    let program = Program {
        path: &program,
        cwd: cwd.as_deref(),
        argv: pointers(&spec.argv),
        env: pointers(&spec.env),
        numbers: &sources.numbers,
        group: spec.process_group,
    };
    let born = {
        let _gate = register::spawning();
        let born = start(&program)
            .map_err(|(operation, errno)| SpawnError::diagnose(spec, operation, errno))?;
        register::enter(born.pid);
        born
    };
    Child::watch(born, spec.process_group).map_err(|source| SpawnError::Os {
        operation: "pidfd_open",
        program: spec.program.clone(),
        source,
    })
}

/// What failed, and how the kernel calls it.
pub(super) type Failure = (&'static str, c_int);

/// A program in the form that the kernel takes.
pub(super) struct Program<'a> {
    pub(super) path: &'a CStr,
    pub(super) cwd: Option<&'a CStr>,
    /// Ends with null, as the next.
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    /// The descriptors that become 0, 1, 2 and so on; [`CLOSED`] for one that the child does not have.
    pub(super) numbers: &'a [RawFd],
    pub(super) group: ProcessGroup,
}

/// A process that was just started.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) pid: libc::pid_t,
    pub(super) pidfd: Option<OwnedFd>,
}

fn start(program: &Program<'_>) -> Result<Born, Failure> {
    if let Some(started) = clone::start(program) {
        return started;
    }
    let pid = posix::start(program)?;
    Ok(Born { pid, pidfd: None })
}

/// The null-terminated array that `exec` takes.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([ptr::null()]).collect()
}

fn c_path(path: &Path, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SpawnError::Nul { what })
}

/// The descriptors to duplicate, in the order of their numbers in the child.
///
/// A source whose own number is one of the child's numbers would be overwritten by an earlier duplication (or be left
/// with its close-on-exec flag when both are equal), so it is moved out of the way first.
struct Sources<'spec> {
    fds: Vec<Option<BorrowedFd<'spec>>>,
    moved: Vec<OwnedFd>,
    /// What each number is copied from.
    numbers: Vec<RawFd>,
}

impl<'spec> Sources<'spec> {
    fn collect(spec: &'spec SpawnSpec<'_>) -> Result<Self, SpawnError> {
        let mut sources = Self {
            fds: [&spec.stdin, &spec.stdout, &spec.stderr]
                .map(|fd| Some(fd.as_fd()))
                .to_vec(),
            moved: Vec::new(),
            numbers: Vec::new(),
        };
        for (fd, number) in &spec.inherit {
            let place = usize::try_from(*number)
                .ok()
                .filter(|place| *place >= sources.fds.len());
            let Some(place) = place else {
                let (expected, found) = (sources.end(), *number);
                return Err(SpawnError::Numbering { expected, found });
            };
            sources.fds.resize(place, None);
            sources.fds.push(Some(fd.as_fd()));
        }
        let end = sources.end();
        for fd in &sources.fds {
            let Some(fd) = fd else {
                sources.numbers.push(CLOSED);
                continue;
            };
            if fd.as_raw_fd() >= end {
                sources.numbers.push(fd.as_raw_fd());
                continue;
            }
            let moved = rustix::io::fcntl_dupfd_cloexec(fd, end)
                .map_err(|errno| SpawnError::diagnose(spec, "dup", errno.raw_os_error()))?;
            sources.numbers.push(moved.as_raw_fd());
            sources.moved.push(moved);
        }
        Ok(sources)
    }

    /// One more than the last number in the child.
    fn end(&self) -> RawFd {
        RawFd::try_from(self.fds.len()).expect("descriptors are numbered by i32")
    }
}

/// Reaps this child if it has ended. Only the register calls it, so that pid and entry disappear together.
pub(super) fn wait4(pid: libc::pid_t) -> io::Result<Option<ExitInfo>> {
    let mut status = 0;
    let mut usage = MaybeUninit::zeroed();
    // SAFETY: both pointers are valid for writing for the time of the call.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match reaped {
        -1 => return Err(io::Error::last_os_error()),
        0 => return Ok(None),
        _ => {}
    }
    // SAFETY: `rusage` is plain numbers, for which zeroes are valid, and `wait4` succeeded in filling it.
    let usage: libc::rusage = unsafe { usage.assume_init() };
    let core_dumped = libc::WIFSIGNALED(status) && libc::WCOREDUMP(status);
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    };
    Ok(Some(ExitInfo {
        status,
        core_dumped,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Has the runtime watch a descriptor for readability. Panics outside a tokio runtime.
///
/// # Errors
/// When the runtime cannot watch it, which comes back with the reason.
pub fn watch_readable(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, (OwnedFd, io::Error)> {
    // SAFETY: an `OwnedFd` is open until it is dropped and its number never changes; nobody here exchanges it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(AsyncFdRegisterError::into_parts)
}

/// Becomes another program: same process, same descriptors but those that close on exec. Returns only when that fails.
///
/// The runtime of the language ignores `SIGPIPE`, which the program would inherit; its default comes back first.
pub(super) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: `program` and the strings outlive the call and the arrays end with null; neither disposition runs
    // code of this process.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr());
        let error = io::Error::last_os_error();
        // Whoever is to be told may be gone by now, which must not end this process.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        error
    }
}

/// The descriptor that [`limited::wrap`] gave this process under this number, if it was started by it; closed on exec from
/// here on.
pub(super) fn inherited(number: RawFd) -> Option<OwnedFd> {
    if number < FIRST_INHERITED {
        return None;
    }
    // SAFETY: the number is open, as the first call says, and nobody else owns it: this is called once, first thing in a
    // process whose parent left nothing else of its own open.
    let channel = unsafe {
        if libc::fcntl(number, libc::F_GETFD) == -1 {
            return None;
        }
        OwnedFd::from_raw_fd(number)
    };
    limited::keep_from_program(&channel).ok()?;
    Some(channel)
}

/// Restores the default disposition of `SIGCHLD` where it was inherited as "ignore", which loses the exit of every
/// child. A handler that somebody installed stays.
pub(super) fn stop_ignoring_children() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is plain data for which zeroes are valid, and without a new action the call only fills it. The
    // default disposition runs no code of this process.
    unsafe {
        libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr());
        let action = action.assume_init();
        if action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0 {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
    }
}

/// Lets a write beyond the caller's limit of file sizes fail instead of ending this process. Children get the default back.
pub fn survive_file_size_limit() {
    super::caller::remember_caller();
    // SAFETY: ignoring a signal runs no code of this process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::process::testing::shared;

    #[tokio::test]
    async fn signals_that_are_blocked_or_ignored_here_do_not_reach_the_child() {
        let _turn = shared().await;
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        survive_file_size_limit();
        // SAFETY: the set is initialized before it is used, and the old mask is written by the call. Only this thread's
        // mask changes.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        let mut output = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let spec = SpawnSpec {
            program: "/bin/cat".into(),
            argv: vec![c"cat".into(), c"/proc/self/status".into()],
            env: Vec::new(),
            cwd: None,
            stdin: null.as_fd().into(),
            stdout: output.as_fd().into(),
            stderr: null.as_fd().into(),
            inherit: Vec::new(),
            process_group: ProcessGroup::New,
        };
        let child = spawn(&spec);
        // SAFETY: the mask is the one that the call above wrote.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        }
        assert_eq!(
            child.unwrap().wait().await.unwrap().status,
            ExitStatus::Code(0)
        );
        drop(spec);
        let mut status = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut status).unwrap();
        let sets: Vec<&str> = status
            .lines()
            .filter(|line| line.starts_with("Sig"))
            .collect();
        for name in ["SigBlk", "SigIgn", "SigCgt"] {
            let empty = format!("{name}:\t0000000000000000");
            assert!(sets.contains(&empty.as_str()), "{sets:?}");
        }
    }
}
