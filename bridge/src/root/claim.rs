//! The right to use a root: its lock, what is cleared when it is taken, and its removal.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{RootError, TransportRoot, abandoned, places};
use crate::ours::{self, Want};

/// Tries to lock a root that another owner is just removing.
const LOCK_TRIES: usize = 16;
/// Pause between two tries; all of them together are far longer than a removal.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl TransportRoot {
    /// Creates the root, locks it, and clears what a predecessor without a lock left.
    ///
    /// # Errors
    /// When a live owner has it, or it is not private.
    pub fn claim(&self) -> Result<RootClaim, RootError> {
        let place = self.place();
        if place.exists() {
            ours::check(place, Want::Place)?;
        } else {
            ours::private_dir(place)?;
        }
        let lock = self.lock_with_patience()?;
        let claim = RootClaim {
            root: self.clone(),
            _lock: lock,
        };
        claim.clear(Keep::Lock)?;
        ours::private_dir(&self.path.join("spill"))?;
        let mut places = places::ours();
        if !places.iter().any(|other| other == place) {
            places.push(place.to_owned());
        }
        for place in places {
            abandoned::sweep(&place, self);
        }
        Ok(claim)
    }

    /// Another manager that clears abandoned roots holds the lock for a moment, and takes the directory with it.
    fn lock_with_patience(&self) -> Result<File, RootError> {
        for _ in 0..LOCK_TRIES {
            ours::private_dir(&self.path)?;
            match self.lock() {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => {}
                Err(RootError::InUse { .. }) => std::thread::park_timeout(LOCK_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Err(RootError::InUse {
            path: self.path.clone(),
        })
    }

    /// `None` when the locked file was removed meanwhile by an owner that left: then its name must be locked anew.
    pub(super) fn lock(&self) -> Result<Option<File>, RootError> {
        let path = self.path.join("lock");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("open", &path)(source)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(RootError::InUse {
                    path: self.path.clone(),
                });
            }
            Err(errno) => return Err(failed("lock", &path)(errno.into())),
        }
        let same = |there: fs::Metadata| {
            file.metadata()
                .is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
        };
        Ok(fs::metadata(&path).is_ok_and(same).then_some(file))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Lock,
    Nothing,
}

/// The right to use a root; held by the server's poller until its ports are gone.
#[derive(Debug)]
pub struct RootClaim {
    pub(super) root: TransportRoot,
    pub(super) _lock: File,
}

impl RootClaim {
    /// Removes the root and everything below it. Returns how many segments were left, which is 0 unless a worker outlived
    /// the manager or died uncleaned just now.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(self) -> Result<usize, RootError> {
        let left = self.clear(Keep::Nothing)?;
        fs::remove_dir(&self.root.path).map_err(failed("remove", &self.root.path))?;
        Ok(left)
    }

    fn clear(&self, keep: Keep) -> Result<usize, RootError> {
        let root = &self.root.path;
        let found = self.root.shared_memory_files();
        let segments = found.map_err(failed("read", root))?;
        let entries = fs::read_dir(root).map_err(failed("read", root))?;
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if keep == Keep::Lock && name == "lock" {
                continue;
            }
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_dir {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        // The transport itself never removes its bookkeeping segment, so that one says nothing about a worker.
        let of_workers = |path: &&PathBuf| path.extension() != Some(OsStr::new("global_mgmt"));
        Ok(segments.iter().filter(of_workers).count())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    let path = path.to_owned();
    move |source| RootError::Io {
        action,
        path,
        source,
    }
}
