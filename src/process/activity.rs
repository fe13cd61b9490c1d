//! Whether a process that is silent could have spoken.
//!
//! On a crowded machine a healthy process may get no core for seconds. Such a process has a thread that is ready to run; a
//! stopped or hung one has none. Read from `/proc`, on demand only; nothing here decides what follows.

use std::fs;
use std::io;

use rustix::process::Pid;

/// True when a thread of the process runs, is ready to run, or is inside the kernel for a moment (a disk, a spawn).
/// False when all of them sleep or are stopped, or the process is gone.
#[must_use]
pub fn is_busy(pid: Pid) -> bool {
    // A thread, or the process, may end while this looks: then it is not busy.
    busy_thread(pid).unwrap_or(false)
}

fn busy_thread(pid: Pid) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
        let stat = fs::read(entry?.path().join("stat")).unwrap_or_default();
        if matches!(state(&stat), Some(b'R' | b'D')) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The state letter of a `stat` line (proc(5)): behind the name, which may contain anything but ends at the last `)`.
fn state(stat: &[u8]) -> Option<u8> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_state_stands_behind_a_name_of_any_kind() {
        assert_eq!(state(b"12 (sh) S 1 12"), Some(b'S'));
        assert_eq!(state(b"12 (a) R (b) D 1 12"), Some(b'D'));
        assert_eq!(state(b""), None);
        assert_eq!(state(b"12 (sh)"), None);
    }
}
