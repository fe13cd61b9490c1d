//! The directory and name prefix of one manager's transport, its lock, and its removal.
//!
//! Every file of the transport lives under the root or in `/dev/shm` behind the prefix; both carry the same 8 hex digits
//! of the instance. The server claims the root (one live owner, enforced by a lock), clears what a killed predecessor left,
//! and removes everything at close. Workers get path and prefix by their invitation and never clear anything.

mod abandoned;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Longest path of a root in bytes: socket paths under it must stay below 108.
pub const MAX_ROOT_BYTES: usize = 55;
/// Where POSIX shared memory is mounted.
pub(crate) const SHM_DIR: &str = "/dev/shm";
/// Tries to lock a root that another owner is just removing.
const LOCK_TRIES: usize = 16;
/// Pause between two tries; all of them together are far longer than a removal.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Why a root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The instance is not 8 lower-case hex digits.
    #[error("instance `{instance}` is not 8 lower-case hex digits")]
    Instance {
        /// What was given.
        instance: String,
    },
    /// The path leaves no room for socket names.
    #[error(
        "transport root {path} has {len} bytes, more than {MAX_ROOT_BYTES}: set XDG_RUNTIME_DIR or TMPDIR to a shorter directory"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The directory belongs to somebody else or others can enter it.
    #[error("directory {path} is not private to this user: {reason}")]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A live server holds it.
    #[error("transport root {path} is in use by a running manager")]
    InUse {
        /// The root.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("failed to {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Where one manager's transport lives. Plain data: nothing exists before a server opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportRoot {
    path: PathBuf,
    prefix: String,
}

impl TransportRoot {
    /// The root of an instance: `$XDG_RUNTIME_DIR/mitosis/<8 hex>`, else `<temp dir>/mitosis-<uid>/<8 hex>`.
    ///
    /// # Errors
    /// When the instance is malformed or every candidate path is too long.
    pub fn for_instance(instance: &str) -> Result<Self, RootError> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(runtime) = runtime.filter(|dir| dir.is_absolute() && dir.is_dir()) {
            let root = Self::at(&runtime.join("mitosis"), instance);
            if !matches!(root, Err(RootError::TooLong { .. })) {
                return root;
            }
        }
        let uid = rustix::process::geteuid().as_raw();
        Self::at(
            &std::env::temp_dir().join(format!("mitosis-{uid}")),
            instance,
        )
    }

    /// The root of an instance below a directory of the caller's choice, which is created private if it is missing.
    ///
    /// # Errors
    /// When the instance is malformed or the path too long.
    pub fn at(parent: &Path, instance: &str) -> Result<Self, RootError> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if instance.len() != 8 || !instance.bytes().all(hex) {
            return Err(RootError::Instance {
                instance: instance.to_owned(),
            });
        }
        let path = parent.join(instance);
        let len = path.as_os_str().len();
        if len > MAX_ROOT_BYTES {
            return Err(RootError::TooLong { path, len });
        }
        Ok(Self {
            path,
            prefix: format!("mito{instance}_"),
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prefix of every shared-memory name.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Rebuilds a root from an invitation.
    pub(crate) fn from_parts(path: PathBuf, prefix: String) -> Self {
        Self { path, prefix }
    }

    /// Shared-memory files with this prefix that exist now.
    ///
    /// # Errors
    /// When `/dev/shm` cannot be read.
    pub fn shared_memory_files(&self) -> io::Result<Vec<PathBuf>> {
        let ours = |entry: &fs::DirEntry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(&self.prefix)
        };
        let entries = fs::read_dir(SHM_DIR)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries
            .into_iter()
            .filter(ours)
            .map(|entry| entry.path())
            .collect())
    }

    /// Creates the root, locks it, and clears what a predecessor without a lock left.
    ///
    /// # Errors
    /// When a live owner has it, or it is not private.
    pub fn claim(&self) -> Result<RootClaim, RootError> {
        if let Some(parent) = self.path.parent() {
            if parent.exists() {
                unchangeable_by_others(parent)?;
            } else {
                private_dir(parent)?;
            }
        }
        let lock = self.lock_with_patience()?;
        let claim = RootClaim {
            root: self.clone(),
            _lock: lock,
        };
        claim.clear(Keep::Lock)?;
        private_dir(&self.path.join("spill"))?;
        if let Some(parent) = self.path.parent() {
            abandoned::sweep(parent, self);
        }
        Ok(claim)
    }

    /// Another manager that clears abandoned roots holds the lock for a moment, and takes the directory with it.
    fn lock_with_patience(&self) -> Result<File, RootError> {
        for _ in 0..LOCK_TRIES {
            private_dir(&self.path)?;
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
    fn lock(&self) -> Result<Option<File>, RootError> {
        let path = self.path.join("lock");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
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
    root: TransportRoot,
    _lock: File,
}

impl RootClaim {
    /// Removes the root and every shared-memory file of the prefix. Returns how many of the latter were left, which is 0
    /// unless a worker outlived the manager or died uncleaned.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(self) -> Result<usize, RootError> {
        let left = self.clear(Keep::Nothing)?;
        fs::remove_dir(&self.root.path).map_err(failed("remove", &self.root.path))?;
        // The parent is shared by instances: it goes with the last one, and is not empty before.
        if let Some(parent) = self.root.path.parent()
            && parent
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("mitosis"))
        {
            let _removed_or_shared = fs::remove_dir(parent);
        }
        Ok(left)
    }

    fn clear(&self, keep: Keep) -> Result<usize, RootError> {
        let root = &self.root.path;
        let entries = fs::read_dir(root).map_err(failed("read", root))?;
        for entry in entries.flatten() {
            if keep == Keep::Lock && entry.file_name() == "lock" {
                continue;
            }
            let path = entry.path();
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
        let files = self
            .root
            .shared_memory_files()
            .map_err(failed("read", Path::new(SHM_DIR)))?;
        let mut removed = 0;
        for file in files {
            // The transport itself never removes its per-domain bookkeeping segment, so that one says nothing about a
            // worker.
            let bookkeeping = file.extension().is_some_and(|kind| kind == "global_mgmt");
            removed += usize::from(fs::remove_file(&file).is_ok() && !bookkeeping);
        }
        Ok(removed)
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

/// Checks an existing parent, which is the caller's, who may share it: others may look at it, but whoever may rename its
/// entries could put a root of his own in the place of ours.
fn unchangeable_by_others(path: &Path) -> Result<(), RootError> {
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let meta = fs::metadata(path).map_err(failed("look at", path))?;
    let reason = if ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) {
        format!("it belongs to user {}", meta.uid())
    } else if meta.mode() & WRITABLE_BY_OTHERS != 0 && meta.mode() & STICKY == 0 {
        "others may rename what lies in it (chmod go-w, or set XDG_RUNTIME_DIR)".to_owned()
    } else {
        return Ok(());
    };
    Err(RootError::NotPrivate {
        path: path.to_owned(),
        reason,
    })
}

/// Creates a directory for this user alone, or checks that an existing one is.
fn private_dir(path: &Path) -> Result<(), RootError> {
    match DirBuilder::new().mode(0o700).recursive(false).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("create", path)(source)),
    }
    let meta = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let not_private = |reason: String| {
        Err(RootError::NotPrivate {
            path: path.to_owned(),
            reason,
        })
    };
    let uid = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return not_private("it is not a directory".to_owned());
    }
    if meta.uid() != uid {
        return not_private(format!("it belongs to user {}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        // Our own directory with wide permissions, such as after a copy: narrow it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(failed("restrict", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("m")
            .tempdir_in("/tmp")
            .unwrap()
    }

    #[test]
    fn path_and_prefix_carry_the_instance() {
        let root = TransportRoot::for_instance("0123abcd").unwrap();
        assert!(root.path().ends_with("0123abcd"));
        assert!(root.prefix().contains("0123abcd"));
        assert!(root.path().as_os_str().len() <= MAX_ROOT_BYTES);
    }

    #[test]
    fn malformed_instances_and_long_paths_are_refused() {
        for instance in ["", "0123abc", "0123abcde", "0123ABCD", "../../ab"] {
            let refused = TransportRoot::at(Path::new("/tmp"), instance);
            assert!(
                matches!(refused, Err(RootError::Instance { .. })),
                "{instance}"
            );
        }
        let long = TransportRoot::at(Path::new(&format!("/{}", "x".repeat(60))), "0123abcd");
        let words = long.unwrap_err().to_string();
        assert!(words.contains("XDG_RUNTIME_DIR"), "{words}");
    }

    #[test]
    fn a_root_has_one_owner_at_a_time_and_leaves_nothing() {
        let parent = parent();
        let root = TransportRoot::at(parent.path(), "0123abcd").unwrap();
        let claim = root.claim().unwrap();
        assert_eq!(fs::metadata(root.path()).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(root.claim(), Err(RootError::InUse { .. })));
        assert_eq!(claim.remove().unwrap(), 0);
        assert!(!root.path().exists());
        root.claim().unwrap().remove().unwrap();
    }

    #[test]
    fn what_a_killed_owner_left_is_cleared() {
        let parent = parent();
        let root = TransportRoot::at(parent.path(), "0123abce").unwrap();
        drop(root.claim().unwrap());
        fs::create_dir(root.path().join("nodes")).unwrap();
        fs::write(root.path().join("nodes/stale"), b"x").unwrap();
        let stale = Path::new(SHM_DIR).join(format!("{}stale", root.prefix()));
        fs::write(&stale, b"x").unwrap();
        let claim = root.claim().unwrap();
        assert!(!root.path().join("nodes").exists());
        assert!(!stale.exists());
        claim.remove().unwrap();
    }

    #[test]
    fn what_a_killed_owner_left_is_cleared_by_its_neighbours_and_a_living_one_is_left_alone() {
        let parent = parent();
        let [killed, living, starting] = ["0a0b0c0d", "1a1b1c1d", "2a2b2c2d"]
            .map(|instance| TransportRoot::at(parent.path(), instance).unwrap());
        drop(killed.claim().unwrap());
        let left = Path::new(SHM_DIR).join(format!("{}left", killed.prefix()));
        fs::write(&left, b"x").unwrap();
        let living_claim = living.claim().unwrap();
        assert!(!killed.path().exists() && !left.exists());
        let _claim = starting.claim().unwrap();
        assert!(living.path().join("lock").exists());
        drop(living_claim);
    }

    #[test]
    fn a_directory_that_is_no_directory_is_refused() {
        let parent = parent();
        let root = TransportRoot::at(parent.path(), "0123abcf").unwrap();
        std::os::unix::fs::symlink("/tmp", root.path()).unwrap();
        assert!(matches!(root.claim(), Err(RootError::NotPrivate { .. })));
    }

    /// A directory that belongs to another user: made so where we may, else one of the system's.
    fn foreign(parent: &Path) -> PathBuf {
        let path = parent.join("0123abc0");
        fs::create_dir(&path).unwrap();
        match std::os::unix::fs::chown(&path, Some(65534), None) {
            Ok(()) => path,
            Err(_) => PathBuf::from("/usr"),
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let parent = parent();
        let path = foreign(parent.path());
        let root = TransportRoot::from_parts(path, "mito0123abc0_".to_owned());
        let words = root.claim().unwrap_err().to_string();
        assert!(words.contains("belongs to user"), "{words}");
    }

    #[test]
    fn a_parent_in_which_others_may_rename_is_refused_unless_it_is_sticky() {
        let parent = parent();
        let root = TransportRoot::at(parent.path(), "0123abc1").unwrap();
        let allow = |mode| {
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        allow(0o777);
        let words = root.claim().unwrap_err().to_string();
        assert!(words.contains("chmod go-w"), "{words}");
        allow(0o1777);
        root.claim().unwrap().remove().unwrap();
        allow(0o755);
        root.claim().unwrap().remove().unwrap();
    }
}
