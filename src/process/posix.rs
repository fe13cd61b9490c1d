//! `posix_spawn`: the way to start a program where `clone3` is refused.
//!
//! Nothing of ours runs between `vfork` and `exec`: everything that is to happen in the child is written down as file
//! actions and attributes beforehand. It can set no limit, so the caller's limit of descriptors is put in place from here,
//! a moment after the program has begun.

#![expect(
    unsafe_code,
    reason = "posix_spawn has no safe wrapper with file actions"
)]

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

use rustix::process::{Pid, Resource, prlimit};

use super::caller;
use super::spawn::{CLOSED, Failure, Program};
use super::spec::ProcessGroup;

/// Starts a program.
pub(super) fn start(program: &Program<'_>) -> Result<libc::pid_t, Failure> {
    let mut actions_memory = MaybeUninit::uninit();
    let mut actions = FileActions::new(&mut actions_memory)?;
    let mut end = 0;
    for source in program.numbers {
        match *source {
            CLOSED => actions.close(end)?,
            source => actions.dup2(source, end)?,
        }
        end += 1;
    }
    actions.close_from(end)?;
    if let Some(cwd) = program.cwd {
        actions.chdir(cwd)?;
    }
    let mut attributes_memory = MaybeUninit::uninit();
    let attributes = Attributes::new(&mut attributes_memory, program.group)?;
    let mut pid = 0;
    // SAFETY: every pointer is valid for the call: the strings of `program` and both arrays outlive it, the arrays end
    // with null, and actions and attributes are initialized. The callee writes to none of the strings.
    let code = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.path.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            program.argv.as_ptr().cast(),
            program.env.as_ptr().cast(),
        )
    };
    checked("posix_spawn", code)?;
    if let (Some(limit), Some(pid)) = (caller::open_files(), Pid::from_raw(pid)) {
        // It may have ended already, or belong to another user by now.
        let _ = prlimit(Some(pid), Resource::Nofile, limit);
    }
    Ok(pid)
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

    fn close(&mut self, number: RawFd) -> Result<(), Failure> {
        // SAFETY: `new` initialized the value; the number is only recorded. The child may not have it open.
        let code = unsafe { libc::posix_spawn_file_actions_addclose(self.0.as_mut_ptr(), number) };
        checked("close", code)
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
                std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
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

/// `POSIX_SPAWN_SETSID` of both C libraries.
const SET_SESSION: c_int = 0x80;

/// Signal mask, dispositions and session of the child.
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
            for signal in caller::ignored() {
                libc::sigdelset(set.as_mut_ptr(), signal);
            }
            checked(
                "posix_spawnattr_setsigdefault",
                libc::posix_spawnattr_setsigdefault(attributes.0.as_mut_ptr(), set.as_ptr()),
            )?;
            if group == ProcessGroup::New {
                flags |= SET_SESSION;
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
