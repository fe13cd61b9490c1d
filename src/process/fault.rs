//! The last words of a process whose mapped memory is gone.
//!
//! A page of a mapped file that cannot be had (a full memory file system, a file that somebody cut) is a `SIGBUS`, which
//! ends a process without a word. The handler says one line and lets the signal end it as before. Installed once, by every
//! process of this program; children start with the default.

#![expect(
    unsafe_code,
    reason = "a signal handler can be installed through libc alone"
)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

const WORDS: &[u8] = b"mitosis: killed by SIGBUS: memory that it had mapped is gone; the file system behind it, mostly /dev/shm, is \
full, or somebody cut a file there: make room and start again\n";

/// Sees to it that this process does not end by `SIGBUS` without a word.
pub fn tell_lost_memory() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(c_int) = on_lost_memory;
    // SAFETY: `sigaction` is plain data for which zeroes are valid. The handler makes two system calls that are safe in a
    // signal handler, allocates nothing and takes no lock. With RESETHAND the second signal, which comes as soon as the
    // handler returns to the same instruction, has its default again.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, action, ptr::null_mut());
    }
}

extern "C" fn on_lost_memory(signal: c_int) {
    // SAFETY: both calls are async-signal-safe, and the buffer is static. Nobody is left to be told that either failed.
    // `raise` is for a signal that another process sent: there is no instruction that would fault again.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        libc::raise(signal);
    }
}
