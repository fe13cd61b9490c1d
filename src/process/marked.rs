//! Ending every process of an installation by the mark in its environment.
//!
//! When a worker and its manager die together, their tasks go on under somebody else's parentage and no register knows
//! them. What remains is the environment they were started with: it names the installation ([`MARK`]). The next start
//! on the same state directory kills them before anything is run a second time.
//!
//! Processes that changed their user or wiped their environment are out of reach.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getuid, pidfd_open, pidfd_send_signal};

use super::tree::parse_pid;

/// The variable that marks every process of an installation.
pub const MARK: &str = "MITO_INSTANCE";

/// Longest time to wait for the killed to be gone.
const LIMIT: Duration = Duration::from_secs(2);

/// Kills every process of this user that carries the mark of `instance`, except the caller, until none is left.
/// Returns how many were killed.
///
/// Blocks for up to two seconds: call it before the runtime starts, or on a thread for blocking work.
///
/// # Errors
/// When `/proc` cannot be read, or when a marked process is still there after the limit (its pid is in the text).
pub fn kill_marked(instance: &str) -> io::Result<usize> {
    let mark = format!("{MARK}={instance}");
    let deadline = Instant::now() + LIMIT;
    let mut killed = BTreeSet::new();
    loop {
        // A process may start another one between two looks, so only a look that finds nobody ends it.
        let found = marked(mark.as_bytes())?;
        if found.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() >= deadline {
            let pids: Vec<String> = found.iter().map(|(pid, _)| pid.to_string()).collect();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("killed processes do not end: {}", pids.join(", ")),
            ));
        }
        for (pid, pidfd) in &found {
            // It may be gone by itself, which is what is wanted.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            killed.insert(pid.as_raw_nonzero());
        }
        for (_, pidfd) in &found {
            wait_for_end(pidfd, deadline.saturating_duration_since(Instant::now()));
        }
    }
}

fn wait_for_end(pidfd: &OwnedFd, patience: Duration) {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let patience = Timespec::try_from(patience).unwrap_or_default();
    // Interrupted or timed out: the caller looks again and minds the time.
    let _ = poll(&mut fds, Some(&patience));
}

fn marked(mark: &[u8]) -> io::Result<Vec<(Pid, OwnedFd)>> {
    let (me, user) = (getpid(), getuid().as_raw());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else {
            continue;
        };
        // Processes come and go while this looks, so a failed look means "not there".
        let of_user = entry.metadata().is_ok_and(|meta| meta.uid() == user);
        if pid == me || !of_user {
            continue;
        }
        // The pidfd comes first: if the pid changed hands before the environment was read, the signal goes to the
        // dead process and not to the one that was not meant.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark)
        {
            found.push((pid, pidfd));
        }
    }
    Ok(found)
}
