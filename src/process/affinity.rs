//! Which cores this thread may use, and children that begin on some of them.
//!
//! A child inherits the mask of the thread that spawns it. So the thread takes the child's mask for the moment of the
//! spawn, and nothing has to happen between fork and exec: `posix_spawn` stays on its fast path.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores this thread may use, in order; empty where the kernel does not tell.
#[must_use]
pub fn usable_cores() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    let cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    cores.filter_map(|core| u32::try_from(core).ok()).collect()
}

/// Does `work` while this thread may use `cores` alone; the work's children stay there. Nothing changes for no cores.
///
/// # Errors
/// When the thread may not use any of `cores`; the work has not been done then.
pub fn on_cores<T>(cores: &[u32], work: impl FnOnce() -> T) -> io::Result<T> {
    if cores.is_empty() {
        return Ok(work());
    }
    let before = sched_getaffinity(None)?;
    let mut wanted = CpuSet::new();
    for core in cores {
        match usize::try_from(*core) {
            Ok(core) if core < CpuSet::MAX_CPU => wanted.set(core),
            _ => return Err(io::Error::other(format!("there is no core {core}"))),
        }
    }
    sched_setaffinity(None, &wanted)?;
    let done = work();
    if let Err(error) = sched_setaffinity(None, &before) {
        // The cores were taken away meanwhile; the kernel chooses among those that are left.
        tracing::warn!(%error, "a thread cannot go back to the cores it had");
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_inherit_the_mask_and_the_thread_gets_its_own_back() {
        let before = usable_cores();
        let last = *before.last().unwrap();
        let child = on_cores(&[last], || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let list = status
                .lines()
                .find(|line| line.starts_with("Cpus_allowed_list:"));
            list.unwrap().split_whitespace().last().unwrap().to_owned()
        });
        assert_eq!(child.unwrap(), last.to_string());
        assert_eq!(usable_cores(), before);
    }

    #[test]
    fn cores_that_are_not_there_are_an_error_and_nothing_is_done() {
        assert!(on_cores(&[1023], || panic!("it was done")).is_err());
        assert!(on_cores(&[4096], || panic!("it was done")).is_err());
        assert_eq!(on_cores(&[], || 7).unwrap(), 7);
    }
}
