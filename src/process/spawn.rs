//! `posix_spawn` and `wait4`: the calls of this module tree that no safe crate offers.
//!
//! There is no `fork` and no code of ours between `vfork` and `exec`: everything that is to happen in the child is
//! written down as file actions and attributes beforehand. The caller's thread is suspended until the `exec`, which
//! takes a few hundred microseconds at most; that is shorter than moving the call to another thread and back.

#![expect(
    unsafe_code,
    reason = "posix_spawn and wait4 have no safe wrapper on the fast path"
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
use super::{limited, register};

const FIRST_INHERITED: RawFd = 3;

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
    let pid = {
        let _gate = register::spawning();
        let pid = posix_spawn(spec, &program, cwd.as_deref(), &sources)
            .map_err(|(operation, errno)| SpawnError::diagnose(spec, operation, errno))?;
        register::enter(pid);
        pid
    };
    Child::watch(pid, spec.process_group).map_err(|source| SpawnError::Os {
        operation: "pidfd_open",
        program: spec.program.clone(),
        source,
    })
}

fn c_path(path: &Path, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SpawnError::Nul { what })
}

/// The descriptors to duplicate, in the order of their numbers in the child.
///
/// A source whose own number is one of the child's numbers would be overwritten by an earlier duplication (or be left
/// with its close-on-exec flag when both are equal), so it is moved out of the way first.
struct Sources<'spec> {
    fds: Vec<BorrowedFd<'spec>>,
    moved: Vec<OwnedFd>,
    /// What each number is copied from.
    numbers: Vec<RawFd>,
}

impl<'spec> Sources<'spec> {
    fn collect(spec: &'spec SpawnSpec<'_>) -> Result<Self, SpawnError> {
        let mut sources = Self {
            fds: vec![spec.stdin.as_fd(), spec.stdout.as_fd(), spec.stderr.as_fd()],
            moved: Vec::new(),
            numbers: Vec::new(),
        };
        for ((fd, found), expected) in spec.inherit.iter().zip(FIRST_INHERITED..) {
            if *found != expected {
                let found = *found;
                return Err(SpawnError::Numbering { expected, found });
            }
            sources.fds.push(fd.as_fd());
        }
        let end = sources.end();
        for fd in &sources.fds {
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

type Failure = (&'static str, c_int);

fn posix_spawn(
    spec: &SpawnSpec<'_>,
    program: &CStr,
    cwd: Option<&CStr>,
    sources: &Sources<'_>,
) -> Result<libc::pid_t, Failure> {
    let mut actions_memory = MaybeUninit::uninit();
    let mut actions = FileActions::new(&mut actions_memory)?;
    for (source, target) in sources.numbers.iter().zip(0..) {
        actions.dup2(*source, target)?;
    }
    actions.close_from(sources.end())?;
    if let Some(cwd) = cwd {
        actions.chdir(cwd)?;
    }
    let mut attributes_memory = MaybeUninit::uninit();
    let attributes = Attributes::new(&mut attributes_memory, spec.process_group)?;
    let argv = pointers(&spec.argv);
    let env = pointers(&spec.env);
    let mut pid = 0;
    // SAFETY: every pointer is valid for the call: `program`, the strings of `spec` and both arrays outlive it, the
    // arrays end with null, and actions and attributes are initialized. The callee writes to none of the strings.
    let code = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            argv.as_ptr().cast(),
            env.as_ptr().cast(),
        )
    };
    checked("posix_spawn", code)?;
    Ok(pid)
}

/// The null-terminated array that `exec` takes.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([ptr::null()]).collect()
}

/// The `posix_spawn` family returns its error instead of setting `errno`.
fn checked(operation: &'static str, code: c_int) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        errno => Err((operation, errno)),
    }
}

/// What happens to descriptors and directory in the child, in order. Borrowed memory, because the type must not move
/// while it is initialized.
struct FileActions<'mem>(&'mem mut MaybeUninit<libc::posix_spawn_file_actions_t>);

impl<'mem> FileActions<'mem> {
    fn new(
        memory: &'mem mut MaybeUninit<libc::posix_spawn_file_actions_t>,
    ) -> Result<Self, Failure> {
        // SAFETY: the pointer is valid for writing one value of the type.
        let code = unsafe { libc::posix_spawn_file_actions_init(memory.as_mut_ptr()) };
        checked("posix_spawn_file_actions_init", code)?;
        Ok(Self(memory))
    }

    fn dup2(&mut self, source: RawFd, target: RawFd) -> Result<(), Failure> {
        // SAFETY: `new` initialized the value; the numbers are only recorded.
        let code =
            unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), source, target) };
        checked("dup2", code)
    }

    fn chdir(&mut self, path: &CStr) -> Result<(), Failure> {
        // SAFETY: `new` initialized the value, and the path is copied.
        let code = unsafe {
            libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), path.as_ptr())
        };
        checked("chdir", code)
    }

    #[cfg(target_env = "gnu")]
    fn close_from(&mut self, first: RawFd) -> Result<(), Failure> {
        // SAFETY: `new` initialized the value; the number is only recorded.
        let code =
            unsafe { libc::posix_spawn_file_actions_addclosefrom_np(self.0.as_mut_ptr(), first) };
        checked("closefrom", code)
    }

    /// Other C libraries have no such action: every descriptor of this process is set to close on exec instead. One
    /// that another thread opens without the flag at this very moment can slip through.
    #[cfg(not(target_env = "gnu"))]
    fn close_from(&mut self, first: RawFd) -> Result<(), Failure> {
        // SAFETY: the call changes flags of descriptors and no memory. What the child keeps is duplicated by `dup2`,
        // which clears the flag on the copy.
        let code = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        match code {
            0 => Ok(()),
            _ => Err((
                "close_range",
                io::Error::last_os_error().raw_os_error().unwrap_or(0),
            )),
        }
    }
}

impl Drop for FileActions<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` initialized the value, and nobody uses it afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// Signal mask, dispositions and process group of the child.
struct Attributes<'mem>(&'mem mut MaybeUninit<libc::posix_spawnattr_t>);

impl<'mem> Attributes<'mem> {
    fn new(
        memory: &'mem mut MaybeUninit<libc::posix_spawnattr_t>,
        group: ProcessGroup,
    ) -> Result<Self, Failure> {
        // SAFETY: the pointer is valid for writing one value of the type.
        checked("posix_spawnattr_init", unsafe {
            libc::posix_spawnattr_init(memory.as_mut_ptr())
        })?;
        let attributes = Self(memory);
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `init` initialized the attributes above. The set is a bit field for which every pattern is valid; it
        // is written before it is read, and it is copied.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            checked(
                "posix_spawnattr_setsigmask",
                libc::posix_spawnattr_setsigmask(attributes.0.as_mut_ptr(), set.as_ptr()),
            )?;
            // Every bit instead of `sigfillset`, which leaves out the two signals that the C library keeps for itself:
            // glibc would have the child ignore them.
            ptr::write_bytes(set.as_mut_ptr(), 0xff, 1);
            checked(
                "posix_spawnattr_setsigdefault",
                libc::posix_spawnattr_setsigdefault(attributes.0.as_mut_ptr(), set.as_ptr()),
            )?;
            if group == ProcessGroup::New {
                flags |= libc::POSIX_SPAWN_SETPGROUP;
                checked(
                    "posix_spawnattr_setpgroup",
                    libc::posix_spawnattr_setpgroup(attributes.0.as_mut_ptr(), 0),
                )?;
            }
            let flags = libc::c_short::try_from(flags).expect("the flags fit a short");
            checked(
                "posix_spawnattr_setflags",
                libc::posix_spawnattr_setflags(attributes.0.as_mut_ptr(), flags),
            )?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` initialized the value, and nobody uses it afterwards.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
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
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    };
    Ok(Some(ExitInfo {
        status,
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
pub(super) fn exec(program: &CStr, argv: &[CString]) -> io::Error {
    let argv = pointers(argv);
    // SAFETY: `program` and the strings of `argv` outlive the call and the array ends with null; neither disposition runs
    // code of this process.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execv(program.as_ptr(), argv.as_ptr().cast());
        let error = io::Error::last_os_error();
        // Whoever is to be told may be gone by now, which must not end this process.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        error
    }
}

/// The descriptor that [`limited::wrap`] gave this process, if it was started by it; closed on exec from here on.
pub(super) fn inherited() -> Option<OwnedFd> {
    // SAFETY: the number is open, as the first call says, and nobody else owns it: this is called once, first thing in a
    // process whose parent closed every number above it.
    let channel = unsafe {
        if libc::fcntl(FIRST_INHERITED, libc::F_GETFD) == -1 {
            return None;
        }
        OwnedFd::from_raw_fd(FIRST_INHERITED)
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::process::testing::shared;

    #[tokio::test]
    async fn blocked_and_ignored_signals_do_not_reach_the_child() {
        let _turn = shared().await;
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the set is initialized before it is used, and the old mask is written by the call. Only this thread's
        // mask changes; ignoring a signal that nobody sends here changes nothing for other tests.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
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
            libc::signal(libc::SIGUSR2, libc::SIG_DFL);
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
