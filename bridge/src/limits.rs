//! What the machine must offer for a number of workers, and how many of them fit.
//!
//! Called by a manager before it opens its server. Raises the soft limit of descriptors to the hard one; says in words
//! what an operator must change when that is not enough. What is reckoned is what a worker really takes, as tests measure
//! it. Segments are reserved in full when they are made, so a full file system is an error of an invitation and no signal;
//! the room for one more worker is looked at before each.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit};

use crate::root::{RootError, TransportRoot};

/// Descriptors of the manager for one worker: 24 of two services with their ports and connections, a topic, doorbell and
/// status block, the others for pidfd, log and pipes.
pub const DESCRIPTORS_PER_WORKER: u64 = 30;
/// Descriptors of everything else, with room for one restart that overlaps.
const DESCRIPTORS_BASE: u64 = 128;
/// Shared memory of one worker: its segments, which are reserved in full.
pub const SHM_BYTES_PER_WORKER: u64 = 1 << 20;
/// Shared memory of everything else: bookkeeping, and files of payloads that fit into no segment.
const SHM_BYTES_BASE: u64 = 512 << 10;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Soft limit of descriptors, after raising it; `None` is unlimited.
    pub descriptors: Option<u64>,
    /// Free bytes where the transport lives.
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
        "{workers} workers need {needed_mib} MiB in {place} and {free_mib} MiB are free: enlarge it (mount -o remount,size=…; in a container --shm-size or --ipc=host) or start fewer workers"
    )]
    SharedMemory {
        /// Workers asked for.
        workers: u16,
        /// Where.
        place: PathBuf,
        /// MiB needed.
        needed_mib: u64,
        /// MiB free.
        free_mib: u64,
    },
    /// The place cannot be used.
    #[error(
        "{place} cannot be used for shared memory: mount a memory file system there (mount -t tmpfs tmpfs {place}) or give the container one (--tmpfs {place}, --shm-size)"
    )]
    NoSharedMemory {
        /// Where it should be.
        place: PathBuf,
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

/// How many workers fit.
#[derive(Debug)]
pub struct Fit {
    /// As many as were asked for, or fewer.
    pub workers: u16,
    /// What all that were asked for would need; `None` when they fit.
    pub missing: Option<LimitsError>,
}

/// Checks, and where allowed raises, what `workers` workers need.
///
/// # Errors
/// When something is missing; the text says what to change.
pub fn ensure_limits(root: &TransportRoot, workers: u16) -> Result<Limits, LimitsError> {
    let descriptors = ensure_descriptors(workers)?;
    let shared_memory_free = free_in(root.place())?;
    enough_shared_memory(root.place(), workers, shared_memory_free)?;
    Ok(Limits {
        descriptors,
        shared_memory_free,
    })
}

/// How many of `wanted` workers fit in the place where a transport would be made now. Changes nothing.
///
/// # Errors
/// When there is no such place, which has room for one worker at least.
pub fn affordable(wanted: u16) -> Result<Fit, RootError> {
    let place = crate::root::usable_place()?;
    let free = free_in(&place).unwrap_or(u64::MAX);
    let descriptors = rustix::process::getrlimit(Resource::Nofile).maximum;
    let missing = check_descriptors(wanted, descriptors)
        .and_then(|()| enough_shared_memory(&place, wanted, free))
        .err();
    Ok(Fit {
        workers: how_many(wanted, descriptors, free),
        missing,
    })
}

/// Workers for which there are so many descriptors and so much memory.
fn how_many(wanted: u16, descriptors: Option<u64>, free: u64) -> u16 {
    let fit = |available: u64, base, each| available.saturating_sub(base) / each;
    let by_descriptors = descriptors.map_or(u64::MAX, |available| {
        fit(available, DESCRIPTORS_BASE, DESCRIPTORS_PER_WORKER)
    });
    let by_memory = fit(free, SHM_BYTES_BASE, SHM_BYTES_PER_WORKER);
    let fitting = by_descriptors.min(by_memory).min(u64::from(wanted));
    u16::try_from(fitting).unwrap_or(wanted)
}

/// Checks that one more worker has room now.
pub(crate) fn ensure_room(root: &TransportRoot) -> Result<(), LimitsError> {
    let (place, needed) = (root.place(), SHM_BYTES_PER_WORKER);
    enough(place, 1, needed, free_in(place)?)
}

/// Checks that a manager with one worker has room in a place.
pub(crate) fn ensure_place(place: &Path) -> Result<(), LimitsError> {
    enough_shared_memory(place, 1, free_in(place)?)
}

fn free_in(place: &Path) -> Result<u64, LimitsError> {
    let found = rustix::fs::statvfs(place).map_err(|errno| LimitsError::NoSharedMemory {
        place: place.to_owned(),
        source: errno.into(),
    })?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn enough_shared_memory(place: &Path, workers: u16, free: u64) -> Result<(), LimitsError> {
    let needed = SHM_BYTES_BASE + u64::from(workers) * SHM_BYTES_PER_WORKER;
    enough(place, workers, needed, free)
}

fn enough(place: &Path, workers: u16, needed: u64, free: u64) -> Result<(), LimitsError> {
    if free >= needed {
        return Ok(());
    }
    Err(LimitsError::SharedMemory {
        workers,
        place: place.to_owned(),
        needed_mib: needed.div_ceil(1 << 20),
        free_mib: free >> 20,
    })
}

fn descriptors_for(workers: u16) -> u64 {
    DESCRIPTORS_BASE + u64::from(workers) * DESCRIPTORS_PER_WORKER
}

fn check_descriptors(workers: u16, limit: Option<u64>) -> Result<(), LimitsError> {
    let needed = descriptors_for(workers);
    match limit.filter(|limit| *limit < needed) {
        None => Ok(()),
        Some(limit) => Err(LimitsError::Descriptors {
            workers,
            needed,
            limit,
        }),
    }
}

fn ensure_descriptors(workers: u16) -> Result<Option<u64>, LimitsError> {
    let limits = rustix::process::getrlimit(Resource::Nofile);
    if check_descriptors(workers, limits.current).is_ok() {
        return Ok(limits.current);
    }
    check_descriptors(workers, limits.maximum)?;
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
        let root = TransportRoot::for_instance("0123abcd").unwrap();
        let limits = ensure_limits(&root, 1).unwrap();
        assert!(limits.shared_memory_free > 0);
        let fit = affordable(1).unwrap();
        assert!(fit.workers == 1 && fit.missing.is_none());
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
        let error = free_in(Path::new("/does/not/exist")).unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("mount -t tmpfs tmpfs /does/not/exist"),
            "{words}"
        );
    }

    #[test]
    fn too_little_shared_memory_is_told_with_the_remedy() {
        let place = Path::new("/dev/shm");
        assert!(enough(place, 256, 1 << 28, 1 << 28).is_ok());
        let error = enough(place, 256, 1 << 28, (1 << 28) - 1).unwrap_err();
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

    #[test]
    fn small_places_carry_as_many_workers_as_fit() {
        let mib = 1 << 20;
        assert_eq!(how_many(2, Some(256), 16 * mib), 2);
        assert_eq!(how_many(64, None, 64 * mib), 63);
        assert!(check_descriptors(2, Some(256)).is_ok());
        assert!(check_descriptors(5, Some(256)).is_err());
        assert_eq!(how_many(4, None, u64::MAX), 4);
        assert_eq!(how_many(4, Some(8), u64::MAX), 0);
        assert_eq!(how_many(4, None, 0), 0);
    }
}
