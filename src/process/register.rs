//! Which children of this process were started by it, as opposed to adopted.
//!
//! [`super::spawn()`] enters a child, whoever reaps it removes it, and [`super::tree`] treats every other child as
//! adopted and therefore killable. Two races would make it kill the wrong one, and are closed here:
//!
//! - A child exists before its pid is known. So a spawn holds the gate shared from before the call until the pid is
//!   entered, and whoever lists children holds the gate alone.
//! - A pid is free the moment its process is reaped. So reaping and removing are one step under the register's lock:
//!   a later child with the same pid cannot be entered before the old entry is gone.
//!
//! Both locks are held for the time of a few system calls and never across an await.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::spec::ExitInfo;

static GATE: RwLock<()> = RwLock::new(());
static REGISTER: Mutex<Register> = Mutex::new(Register {
    own: BTreeSet::new(),
    stuck: BTreeSet::new(),
});

/// Pids as the kernel counts them.
struct Register {
    /// Started here and not reaped.
    own: BTreeSet<i32>,
    /// Adopted, killed, and still there when the killer's patience ended.
    stuck: BTreeSet<i32>,
}

fn register() -> MutexGuard<'static, Register> {
    // A panic between two set operations leaves both sets valid.
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a child is started; see the module's first race.
pub(super) fn spawning() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held while children are listed and signaled; no child is started or entered meanwhile.
pub(super) fn listing() -> RwLockWriteGuard<'static, ()> {
    GATE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a child just started; the caller holds [`spawning`].
pub(super) fn enter(pid: i32) {
    let mut register = register();
    register.stuck.remove(&pid);
    register.own.insert(pid);
}

/// True when this process started `pid` and has not reaped it.
pub(super) fn is_own(pid: i32) -> bool {
    register().own.contains(&pid)
}

/// Reaps a child of our own if it has ended, and removes it.
pub(super) fn reap_own(pid: i32) -> io::Result<Option<ExitInfo>> {
    let mut register = register();
    let reaped = super::spawn::wait4(pid);
    if !matches!(reaped, Ok(None)) {
        register.own.remove(&pid);
    }
    reaped
}

/// Gives a child of our own up: from now on it counts as adopted, and the next sweep reaps it.
pub(super) fn disown(pid: i32) {
    register().own.remove(&pid);
}

/// Marks an adopted child that does not die, so that nobody waits for it a second time.
pub(super) fn mark_stuck(pid: i32) {
    register().stuck.insert(pid);
}

/// True when somebody waited for this adopted child in vain.
pub(super) fn is_stuck(pid: i32) -> bool {
    register().stuck.contains(&pid)
}

/// Forgets a reaped adopted child.
pub(super) fn forget(pid: i32) {
    register().stuck.remove(&pid);
}
