//! The hand-over between a poller that falls asleep and somebody who has news for it.
//!
//! Used in three places with one flag each: local senders -> own poller ([`crate::waker`]), workers -> manager's poller
//! (the board's flag), manager -> worker's poller (the status block's flag). Nobody makes a system call towards an awake
//! poller, and no wake-up is lost.
//!
//! ```text
//!   sleeper                                   sender
//!   S1  flag := 1                             N1  publish (queue push, shared-memory frame, bitmap bit)
//!   S2  fence(SeqCst)                         N2  fence(SeqCst)
//!   S3  look at every source once more        N3  if flag == 1 and swap(flag, 0) == 1: ring
//!   S4  nothing: block until rung
//!   S5  swap(flag, 0), drain the bell, look at every source
//! ```
//!
//! Why no wake-up is lost: the two fences are totally ordered. If N2 comes before S2, everything published at N1 is
//! visible at S3, and the sleeper does not block. If S2 comes before N2, the sender's load at N3 sees the 1 of S1, or a
//! later value. A later value is 0 written by another sender's swap, who then rings this same sleep, or by S5, after which
//! the sleeper looks at every source before it blocks again (and if that look came before N1, the next S1 and S2 did too, and
//! the argument starts over with them). So the sleeper is rung or has seen the news.
//!
//! A sender that dies between its swap and its ring takes the wake-up with it; its death hangs up its doorbell, which
//! wakes the sleeper as well. A sender that is stopped there delays the others by at most the sleeper's bounded wait.
//!
//! `bridge/tests/sleep_model.rs` compiles this file with the atomics of loom and tries every interleaving; the waker's
//! stress test tries it on the machine.

use crate::atomic::{AtomicU32, Ordering, fence};

/// S1 and S2: from here on senders ring. Look at every source once more before blocking.
pub(crate) fn announce(flag: &AtomicU32) {
    // A swap and not a store: a chain of swaps has one order for everybody, without which a model checker finds orders that
    // no machine has. It is the same instruction on x86-64.
    flag.swap(1, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

/// S5: awake again. `true` when nobody had claimed the right to ring.
pub(crate) fn retract(flag: &AtomicU32) -> bool {
    flag.swap(0, Ordering::SeqCst) == 1
}

/// N2 and N3, after publishing: whether the caller must ring.
#[must_use]
pub(crate) fn claim(flag: &AtomicU32) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) == 1 && flag.swap(0, Ordering::SeqCst) == 1
}
