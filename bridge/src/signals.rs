//! Keeps signals away from the poller thread: they belong to the owner's runtime.
#![expect(unsafe_code, reason = "the signal mask is only reachable through libc")]

/// Blocks every signal in the calling thread. Threads that it starts inherit the mask.
pub(crate) fn block_all() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initializes the set that it is given a valid pointer to; `pthread_sigmask` only reads it and
    // changes the mask of the calling thread; the old mask is not asked for.
    let result = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    debug_assert_eq!(result, 0, "blocking all signals cannot fail");
}
