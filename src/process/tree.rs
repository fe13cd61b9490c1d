//! Ending what outlives its parent: groups, and descendants that this process adopted.
//!
//! A process that leaves its group and lets its parent die (a daemon) escapes every group signal. A subreaper catches
//! it: the kernel makes it a child of the nearest living ancestor that asked for orphans, which is the worker, or the
//! manager once the worker is dead. So every child that was not started here ([`super::register`]) is such an escapee
//! and is killed; killing it can hand over its own children, so the sweep repeats until nothing is left.
//!
//! A process under another user id cannot be killed, and one inside a stuck system call does not die. Both are given
//! up after the limit, are in [`Swept::left`], and are never waited for again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpgid, getpid, kill_process,
    kill_process_group, waitid, waitpid,
};
use tokio::time::{Instant, sleep};

use super::{register, spawn};

/// Names that are remembered of the killed.
const MOST_NAMES: usize = 5;
/// Pause between two sweeps; a killed process is usually gone by the first look.
const PAUSE: Duration = Duration::from_millis(1);

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Adopted processes that were reaped.
    pub reaped: usize,
    /// How many of them were alive until they were killed.
    pub killed: usize,
    /// The names of some of those.
    pub names: Vec<String>,
    /// Adopted processes that are still there.
    pub left: Vec<Pid>,
}

/// Makes this process the parent of orphaned descendants, and lets it hear of its children's ends. Call it before the
/// first spawn; calling it again does nothing.
///
/// # Errors
/// When the kernel refuses (older than 3.4).
pub fn set_child_subreaper() -> io::Result<()> {
    spawn::stop_ignoring_children();
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Signals a process group. A group without a member is no error.
///
/// The number must not have been given to somebody else: its leader is alive or unreaped, or a member is known.
///
/// # Errors
/// When no member may be signaled.
pub fn kill_group(group: Pid, signal: Signal) -> io::Result<()> {
    gone_is_fine(kill_process_group(group, signal))
}

pub(super) fn gone_is_fine(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The children of this process that it did not start, the dead ones included.
#[must_use]
pub fn adopted_children() -> Vec<Pid> {
    let _gate = register::listing();
    adopted()
}

/// Signals every child of this process that it did not start.
pub fn signal_adopted(signal: Signal) {
    let _gate = register::listing();
    for pid in adopted() {
        // One that may not be signaled is dealt with when it is killed.
        let _ = kill_process(pid, signal);
    }
}

/// Reaps adopted children that have ended, kills none, and says how many it reaped. Costs one system call when there is
/// nothing.
pub fn reap_adopted() -> usize {
    if !matches!(peek(), Children::SomeDead) {
        return 0;
    }
    let _gate = register::listing();
    adopted()
        .into_iter()
        .filter(|pid| !matches!(reap(*pid), Reaped::No))
        .count()
}

/// Kills and reaps all adopted children, and those they leave, for at most `limit`. Costs one system call when this
/// process has no child at all.
pub async fn kill_adopted(limit: Duration) -> Swept {
    let mut swept = Swept::default();
    if matches!(peek(), Children::None) {
        return swept;
    }
    let deadline = Instant::now() + limit;
    let mut quiet = 0;
    loop {
        let left = sweep(&mut swept);
        let waited_for = left.iter().any(|pid| !register::is_stuck(raw(*pid)));
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        // The kernel's list may miss a child while another one exits, so an empty list counts when it is confirmed:
        // by "no child at all", or by a second look where children of our own are alive.
        let clear = left.is_empty() && (quiet >= 2 || matches!(peek(), Children::None));
        if clear || (!left.is_empty() && !waited_for) {
            return Swept { left, ..swept };
        }
        if Instant::now() >= deadline {
            left.iter().for_each(|pid| register::mark_stuck(raw(*pid)));
            return Swept { left, ..swept };
        }
        if waited_for {
            sleep(PAUSE).await;
        }
    }
}

/// Kills a process group and everything adopted, for at most `limit`.
///
/// `group` may be out of date, as a dead worker's last record can be: it is signaled only if its leader is an unreaped
/// child of this process or one of the adopted children belongs to it.
pub async fn kill_tree(group: Pid, limit: Duration) -> Swept {
    {
        let _gate = register::listing();
        let ours = register::is_own(raw(group))
            || adopted()
                .into_iter()
                .any(|pid| pid == group || getpgid(Some(pid)) == Ok(group));
        if ours {
            // Members under another user stay; the sweep below reports those that are adopted.
            let _ = kill_group(group, Signal::KILL);
        }
    }
    kill_adopted(limit).await
}

/// One round: signals every adopted child, reaps the dead ones, returns the others.
fn sweep(swept: &mut Swept) -> Vec<Pid> {
    let _gate = register::listing();
    let mut left = adopted();
    for pid in &left {
        // Not reaped while the gate is held, so the pid is still this child's.
        if kill_process(*pid, Signal::KILL) == Err(Errno::PERM) {
            register::mark_stuck(raw(*pid));
        }
    }
    left.retain(|pid| {
        let name = (swept.names.len() < MOST_NAMES).then(|| name_of(*pid));
        match reap(*pid) {
            Reaped::No => true,
            Reaped::Killed => {
                swept.killed += 1;
                swept.names.extend(name.flatten());
                swept.reaped += 1;
                false
            }
            Reaped::Ended => {
                swept.reaped += 1;
                false
            }
        }
    });
    left
}

/// The name of a process, also of a dead one that was not reaped.
fn name_of(pid: Pid) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

enum Reaped {
    /// It is alive.
    No,
    /// It had ended by itself.
    Ended,
    /// `SIGKILL` has ended it.
    Killed,
}

/// Reaps an adopted child if it is dead.
fn reap(pid: Pid) -> Reaped {
    let reaped = match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(None) => return Reaped::No,
        Ok(Some((_, status))) if status.terminating_signal() == Some(libc::SIGKILL) => {
            Reaped::Killed
        }
        Ok(Some(_)) | Err(_) => Reaped::Ended,
    };
    register::forget(raw(pid));
    reaped
}

enum Children {
    None,
    NoneDead,
    SomeDead,
}

/// Looks for children without reaping any.
fn peek() -> Children {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::All, options) {
        Ok(Some(_)) => Children::SomeDead,
        Ok(None) => Children::NoneDead,
        // The only error of this call is "no child".
        Err(_) => Children::None,
    }
}

/// Children minus our own. The caller holds the gate.
fn adopted() -> Vec<Pid> {
    let mut pids = children_of_threads().unwrap_or_else(|_| children_by_scan());
    pids.retain(|pid| !register::is_own(raw(*pid)));
    pids
}

/// The kernel's own list, one file per thread. Absent where the kernel is built without it.
fn children_of_threads() -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => pids.extend(text.split_ascii_whitespace().filter_map(parse_pid)),
            // A thread that ended meanwhile has handed its children to another one.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

fn children_by_scan() -> Vec<Pid> {
    let me = getpid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| parse_pid(entry.file_name().to_str()?));
    pids.filter(|pid| parent_of(*pid) == Some(me)).collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so the fields are counted from its end: state, parent.
    let fields = stat.rsplit_once(')')?.1;
    parse_pid(fields.split_ascii_whitespace().nth(1)?)
}

pub(super) fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
