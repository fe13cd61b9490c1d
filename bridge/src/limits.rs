//! Start-up check of what the machine must offer for a number of workers.
//!
//! Called by a manager before it opens its server. Raises the soft limit of descriptors to the hard one; says in words
//! what an operator must change when that is not enough. The room for one more worker is looked at again at each
//! invitation: a page that the memory file system cannot give is no error of a call but a fatal signal, so it must not
//! come to that.

use rustix::process::{Resource, Rlimit};

use crate::root::SHM_DIR;

/// Descriptors of the manager for one worker: two services with their ports and connections, doorbell, status block,
/// pidfd, and the overlap of a restart.
const DESCRIPTORS_PER_WORKER: u64 = 40;
/// Descriptors of everything else.
const DESCRIPTORS_BASE: u64 = 256;
/// Shared memory that one worker really touches, with headroom for its largest frames.
const SHM_BYTES_PER_WORKER: u64 = 1 << 20;
/// Shared memory of everything else.
const SHM_BYTES_BASE: u64 = 16 << 20;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Soft limit of descriptors, after raising it; `None` is unlimited.
    pub descriptors: Option<u64>,
    /// Free bytes in `/dev/shm`.
    pub shared_memory_free: u64,
}

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// Too few descriptors.
    #[error(
        "{workers} workers need {needed} file descriptors and the hard limit is {limit}: raise it with `ulimit -Hn {needed}`, LimitNOFILE= in the service unit, or start fewer workers"
    )]
    Descriptors {
        /// Workers asked for.
        workers: u16,
        /// Descriptors needed.
        needed: u64,
        /// Descriptors allowed.
        limit: u64,
    },
    /// Too little shared memory.
    #[error(
        "{workers} workers need {needed_mib} MiB in /dev/shm and {free_mib} MiB are free: enlarge it (mount -o remount,size=…; in a container --shm-size or --ipc=host) or start fewer workers"
    )]
    SharedMemory {
        /// Workers asked for.
        workers: u16,
        /// MiB needed.
        needed_mib: u64,
        /// MiB free.
        free_mib: u64,
    },
    /// There is no usable `/dev/shm`.
    #[error(
        "{dir} cannot be used for shared memory: mount a memory file system there (mount -t tmpfs tmpfs {dir}) or give the container one (--tmpfs {dir}, --shm-size)"
    )]
    NoSharedMemory {
        /// Where it should be.
        dir: &'static str,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// The limit cannot be raised.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Checks, and where allowed raises, what `workers` workers need.
///
/// # Errors
/// When something is missing; the text says what to change.
pub fn ensure_limits(workers: u16) -> Result<Limits, LimitsError> {
    let descriptors = ensure_descriptors(workers)?;
    let shared_memory_free = free_in(SHM_DIR)?;
    let needed = SHM_BYTES_BASE + u64::from(workers) * SHM_BYTES_PER_WORKER;
    enough_shared_memory(workers, needed, shared_memory_free)?;
    Ok(Limits {
        descriptors,
        shared_memory_free,
    })
}

/// Checks that one more worker has room now.
pub(crate) fn ensure_room() -> Result<(), LimitsError> {
    enough_shared_memory(1, SHM_BYTES_PER_WORKER, free_in(SHM_DIR)?)
}

fn free_in(dir: &'static str) -> Result<u64, LimitsError> {
    let found = rustix::fs::statvfs(dir).map_err(|errno| LimitsError::NoSharedMemory {
        dir,
        source: errno.into(),
    })?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn enough_shared_memory(workers: u16, needed: u64, free: u64) -> Result<(), LimitsError> {
    if free >= needed {
        return Ok(());
    }
    Err(LimitsError::SharedMemory {
        workers,
        needed_mib: needed >> 20,
        free_mib: free >> 20,
    })
}

fn ensure_descriptors(workers: u16) -> Result<Option<u64>, LimitsError> {
    let needed = DESCRIPTORS_BASE + u64::from(workers) * DESCRIPTORS_PER_WORKER;
    let limits = rustix::process::getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limits.current) {
        return Ok(limits.current);
    }
    if let Some(limit) = limits.maximum.filter(|limit| *limit < needed) {
        return Err(LimitsError::Descriptors {
            workers,
            needed,
            limit,
        });
    }
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised).map_err(|errno| LimitsError::System {
        action: "raise the limit of file descriptors",
        source: errno.into(),
    })?;
    Ok(limits.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_workers_fit_and_the_text_says_what_to_change() {
        let limits = ensure_limits(1).unwrap();
        assert!(limits.shared_memory_free > 0);
        let words = LimitsError::Descriptors {
            workers: 256,
            needed: 10_000,
            limit: 1024,
        }
        .to_string();
        assert!(words.contains("ulimit -Hn 10000") && words.contains("256 workers"));
    }

    #[test]
    fn a_missing_memory_file_system_is_told_with_the_remedy() {
        let error = free_in("/does/not/exist").unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("mount -t tmpfs tmpfs /does/not/exist"),
            "{words}"
        );
    }

    #[test]
    fn too_little_shared_memory_is_told_with_the_remedy() {
        assert!(enough_shared_memory(256, 1 << 28, 1 << 28).is_ok());
        let error = enough_shared_memory(256, 1 << 28, (1 << 28) - 1).unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("256 workers need 256 MiB in /dev/shm and 255 MiB are free"),
            "{words}"
        );
        assert!(
            words.contains("--shm-size") && words.contains("remount"),
            "{words}"
        );
    }
}
