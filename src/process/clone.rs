//! `clone3`: the short way to start a program.
//!
//! The child shares this process's memory until its `exec` (`VM`) while the calling thread is suspended (`VFORK`), runs on
//! a stack of its own, has no signal handlers from its first moment (`CLEAR_SIGHAND`), and is born with its pidfd. What it
//! does is a few system calls in [`child`]; it takes no lock, allocates nothing and cannot panic. A step that fails is
//! told through the shared memory, so no pipe is needed for that.
//!
//! Old kernels and the filters of some container runtimes refuse the call; that is found out once.

#![expect(
    unsafe_code,
    reason = "clone3 has no safe wrapper, and its child runs in shared memory"
)]

use std::cell::OnceCell;
use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::caller;
use super::spawn::{Born, CLOSED, Failure, Program};
use super::spec::ProcessGroup;

/// Whether the kernel has refused the call.
static REFUSED: AtomicBool = AtomicBool::new(false);

const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const STACK_BYTES: usize = 128 << 10;
const GUARD_BYTES: usize = 16 << 10;
/// Size of the kernel's set of signals.
const SIGNAL_SET_BYTES: usize = 8;

/// What the child does, in the order of [`STEPS`].
const STEPS: [&str; 9] = [
    "setsid",
    "sigaction",
    "setrlimit",
    "dup2",
    "close_range",
    "chdir",
    "sigprocmask",
    "execve",
    "clone3",
];

/// Starts a program; `None` where the kernel refuses the call.
pub(super) fn start(program: &Program<'_>) -> Option<Result<Born, Failure>> {
    if REFUSED.load(Ordering::Relaxed) || !SUPPORTED {
        return None;
    }
    let started = STACK.with(|stack| {
        let stack = match stack.get() {
            Some(stack) => stack,
            None => {
                let fresh = Stack::map().map_err(|error| ("mmap", number(&error)))?;
                stack.get_or_init(|| fresh)
            }
        };
        start_on(stack, program)
    });
    match started {
        Err(("clone3", libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {
            REFUSED.store(true, Ordering::Relaxed);
            tracing::debug!("the kernel refuses clone3; programs are started by posix_spawn");
            None
        }
        started => Some(started),
    }
}

fn start_on(stack: &Stack, program: &Program<'_>) -> Result<Born, Failure> {
    let mut ignore = [0; 64];
    let mut ignored = 0;
    for (place, signal) in ignore.iter_mut().zip(caller::ignored()) {
        *place = signal;
        ignored += 1;
    }
    let mut reset = [0; 4];
    for (place, signal) in reset.iter_mut().zip(caller::ignored_here()) {
        *place = signal;
    }
    let order = Order {
        program,
        reset,
        ignore: &ignore[..ignored],
        open_files: caller::open_files().map(|limit| libc::rlimit {
            rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
        }),
        failed: AtomicUsize::new(STEPS.len()),
        errno: AtomicI32::new(0),
    };
    let mut pidfd: RawFd = -1;
    let args = libc::clone_args {
        flags: u64::from(FLAGS.unsigned_abs()) | CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: stack.usable() as u64,
        stack_size: (STACK_BYTES - GUARD_BYTES) as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: `args` describes a stack that nobody else uses (it is this thread's, which is suspended meanwhile) and a
    // place for the pidfd; `order` and all it points to outlive the call, because the call returns when the child has
    // executed its program or ended.
    let pid = unsafe { clone3(&args, &order) };
    if pid < 0 {
        let errno = i32::try_from(-pid).unwrap_or(libc::EINVAL);
        return Err(("clone3", errno));
    }
    let pid = libc::pid_t::try_from(pid).expect("a pid fits its type");
    // SAFETY: the kernel has put a descriptor there that nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match STEPS.get(order.failed.load(Ordering::Acquire)) {
        None => Ok(Born {
            pid,
            pidfd: Some(pidfd),
        }),
        Some(step) => {
            // SAFETY: the child has ended and is in no register: nobody else reaps it.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            Err((step, order.errno.load(Ordering::Acquire)))
        }
    }
}

fn number(error: &io::Error) -> c_int {
    error.raw_os_error().unwrap_or(libc::ENOMEM)
}

/// What the child is told, and what it tells. Both see the same memory.
struct Order<'a> {
    program: &'a Program<'a>,
    /// Signals whose default comes back; 0 is none.
    reset: [c_int; 4],
    ignore: &'a [c_int],
    open_files: Option<libc::rlimit>,
    /// The place in [`STEPS`] of what failed; their number while nothing has.
    failed: AtomicUsize,
    errno: AtomicI32,
}

/// The child: becomes the program, or says why not and ends.
extern "C" fn child(order: &Order<'_>) -> ! {
    // SAFETY: this is the child of `clone3`, on its own stack, with a table of descriptors and signal dispositions of its
    // own. The parent's thread is suspended, so what `order` points to does not change.
    let failed = unsafe { become_program(order) };
    // The calls above have set the suspended thread's `errno`; it looks at it again only after a call of its own.
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    order.errno.store(errno, Ordering::Release);
    order.failed.store(failed, Ordering::Release);
    // SAFETY: ends this process alone, without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Returns the place of the step that failed.
///
/// # Safety
/// Only in a child that was cloned with shared memory and whose parent's thread waits.
unsafe fn become_program(order: &Order<'_>) -> usize {
    let program = order.program;
    // SAFETY: plain system calls. Every pointer is into `order` or to this stack and valid, arrays end with null, and
    // none of the calls takes a lock or allocates.
    unsafe {
        if program.group == ProcessGroup::New && libc::setsid() == -1 {
            return 0;
        }
        for signal in order.reset.iter().filter(|signal| **signal != 0) {
            // Not by the C library, which refuses its own signals. The kernel's structure is no longer than this.
            let default = [0_u64; 4];
            let (new, old) = (default.as_ptr(), ptr::null_mut::<c_void>());
            if libc::syscall(libc::SYS_rt_sigaction, *signal, new, old, SIGNAL_SET_BYTES) == -1 {
                return 1;
            }
        }
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = libc::SIG_IGN;
        for signal in order.ignore {
            // The two that nobody can ignore are never in the set; the C library's own are refused, which is as well.
            libc::sigaction(*signal, &raw const action, ptr::null_mut());
        }
        if let Some(limit) = &order.open_files
            && libc::setrlimit(libc::RLIMIT_NOFILE, limit) == -1
        {
            return 2;
        }
        let mut first_closed: c_uint = 0;
        for (target, source) in (0..).zip(program.numbers) {
            first_closed += 1;
            if *source == CLOSED {
                // It need not be open.
                libc::close(target);
            } else if libc::dup2(*source, target) == -1 {
                return 3;
            }
        }
        if libc::syscall(libc::SYS_close_range, first_closed, c_uint::MAX, 0) == -1 {
            return 4;
        }
        if let Some(cwd) = program.cwd
            && libc::chdir(cwd.as_ptr()) == -1
        {
            return 5;
        }
        let mut empty = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(empty.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), ptr::null_mut()) == -1 {
            return 6;
        }
        libc::execve(
            program.path.as_ptr(),
            program.argv.as_ptr(),
            program.env.as_ptr(),
        );
        7
    }
}

const SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// The call itself: in the parent the pid, or the negative error; the child goes to [`child`] and never comes back.
///
/// # Safety
/// `args` asks for shared memory, a suspended parent, and a stack that is free; `order` is what [`child`] needs.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &libc::clone_args, order: &Order<'_>) -> i64 {
    let result;
    // SAFETY: the kernel preserves all registers but rax, rcx and r11. The child begins behind the call with its own stack,
    // which is aligned as a call needs it, and touches nothing of this frame.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") order,
            in("r9") child as extern "C" fn(&Order<'_>) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// The call itself, as above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &libc::clone_args, order: &Order<'_>) -> i64 {
    let result;
    // SAFETY: the kernel preserves all registers but x0. The child begins behind the call with its own stack, which is
    // aligned as a call needs it, and touches nothing of this frame.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x9",
            "blr x10",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x9") order,
            in("x10") child as extern "C" fn(&Order<'_>) -> !,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &libc::clone_args, _: &Order<'_>) -> i64 {
    i64::from(-libc::ENOSYS)
}

thread_local! {
    /// The stack of this thread's children, one after the other.
    static STACK: OnceCell<Stack> = const { OnceCell::new() };
}

/// A mapping whose lowest pages cannot be touched.
#[derive(Debug)]
struct Stack(NonNull<c_void>);

impl Stack {
    fn map() -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), STACK_BYTES, protection, flags)? };
        let stack = Self(NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?);
        // SAFETY: the lowest part of the mapping just made; nobody uses it yet.
        unsafe { mprotect(base, GUARD_BYTES, MprotectFlags::empty())? };
        Ok(stack)
    }

    /// The lowest address that may be used.
    fn usable(&self) -> *mut u8 {
        // SAFETY: inside the mapping.
        unsafe { self.0.as_ptr().cast::<u8>().add(GUARD_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no child is on it: its thread ends here and not inside a call.
        let _ = unsafe { munmap(self.0.as_ptr(), STACK_BYTES) };
    }
}

/// As if the kernel refused the call, or not.
#[cfg(test)]
pub(super) fn refuse(refused: bool) {
    REFUSED.store(refused, Ordering::Relaxed);
}
