//! Whether a directory or a file is ours alone: the one place where owner, kind and mode are judged.
//!
//! A path that somebody else owns, or may rename, or that is a link, is not used, whatever lies behind it. What may be
//! judged is pure ([`judge`]); the rest reads what the file system says. It creates nothing but private directories.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Others may do anything.
const ANYTHING_BY_OTHERS: u32 = 0o077;
/// In such a directory only its owner and the entry's owner may rename an entry.
const STICKY: u32 = 0o1000;
/// Owner of what belongs to a user that this user namespace does not know, by default.
const OVERFLOW_UID: u32 = 65_534;

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    /// It is somebody else's, or others may change it.
    #[error("{path} is not private to this user: {reason}")]
    Refused {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: Reason,
    },
    /// It cannot be looked at or made.
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

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Another kind of thing, or a symbolic link.
    #[error("it is not a {wanted}")]
    Kind {
        /// What it should be.
        wanted: &'static str,
    },
    /// Another user's.
    #[error("it belongs to user {uid}")]
    Owner {
        /// Whose it is.
        uid: u32,
    },
    /// Others have rights to it.
    #[error("its mode is {mode:04o}, so others can use it (chmod go-rwx)")]
    Mode {
        /// Its permissions.
        mode: u32,
    },
    /// Others may rename its entries.
    #[error("others may rename what lies in it (chmod go-w)")]
    Renamable,
}

/// What a path must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory that nobody else can enter.
    PrivateDir,
    /// A regular file that nobody else can open.
    PrivateFile,
    /// A directory, ours or the system's, whose entries nobody else can rename: something private can be made in it.
    Place,
}

/// What the file system says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// It is a directory; a link to one is not.
    pub is_dir: bool,
    /// It is a regular file.
    pub is_file: bool,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits with set-id and sticky bits.
    pub mode: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Effective user.
    pub uid: u32,
    /// In a user namespace that does not know the machine's root, what is root's seems to be this user's.
    pub unknown_root: Option<u32>,
}

impl Asker {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            unknown_root: (!maps_everybody(&map)).then_some(OVERFLOW_UID),
        }
    }

    fn is_root(self, uid: u32) -> bool {
        uid == 0 || self.unknown_root == Some(uid)
    }
}

/// Whether a user map is that of the whole machine (or cannot be read, which is then assumed).
fn maps_everybody(map: &str) -> bool {
    let whole = ["0", "0", "4294967295"];
    map.is_empty() || map.split_ascii_whitespace().take(3).eq(whole)
}

/// Decides whether what was found is what is wanted.
///
/// # Errors
/// With the reason when it is not.
pub fn judge(found: Found, asker: Asker, want: Want) -> Result<(), Reason> {
    let right_kind = match want {
        Want::PrivateDir | Want::Place => found.is_dir,
        Want::PrivateFile => found.is_file,
    };
    if !right_kind {
        let wanted = match want {
            Want::PrivateDir | Want::Place => "directory",
            Want::PrivateFile => "regular file",
        };
        return Err(Reason::Kind { wanted });
    }
    let system = want == Want::Place && asker.is_root(found.uid);
    if found.uid != asker.uid && !system {
        return Err(Reason::Owner { uid: found.uid });
    }
    let (mode, sticky) = (found.mode & 0o777, found.mode & STICKY != 0);
    match want {
        Want::PrivateDir | Want::PrivateFile if mode & ANYTHING_BY_OTHERS != 0 => {
            Err(Reason::Mode { mode })
        }
        Want::Place if mode & WRITABLE_BY_OTHERS != 0 && !sticky => Err(Reason::Renamable),
        _ => Ok(()),
    }
}

/// Checks a path without following a link at its end.
///
/// # Errors
/// When it is not what is wanted or cannot be looked at.
pub fn check(path: &Path, want: Want) -> Result<(), NotOurs> {
    let found = look(path).map_err(failed("look at", path))?;
    judge(found, Asker::current(), want).map_err(|reason| NotOurs::Refused {
        path: path.to_owned(),
        reason,
    })
}

/// Checks a place and every directory above it: whoever may rename one of them can put another in its stead.
///
/// # Errors
/// When one of them is not what it must be or cannot be looked at.
pub fn check_place(path: &Path) -> Result<(), NotOurs> {
    for above in path.ancestors().filter(|above| above.is_absolute()) {
        check(above, Want::Place)?;
    }
    Ok(())
}

/// Creates a directory for this user alone, or checks that an existing one is. One of our own that others can enter, as
/// after a copy, is narrowed.
///
/// # Errors
/// When it cannot be made or is somebody else's.
pub fn private_dir(path: &Path) -> Result<(), NotOurs> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("create", path)(source)),
    }
    match check(path, Want::PrivateDir) {
        Err(NotOurs::Refused {
            reason: Reason::Mode { .. },
            ..
        }) => {
            let ours = fs::Permissions::from_mode(0o700);
            fs::set_permissions(path, ours).map_err(failed("restrict", path))
        }
        checked => checked,
    }
}

fn look(path: &Path) -> io::Result<Found> {
    let meta = fs::symlink_metadata(path)?;
    Ok(Found {
        is_dir: meta.is_dir(),
        is_file: meta.is_file(),
        uid: meta.uid(),
        mode: meta.mode() & 0o7777,
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NotOurs {
    let path = path.to_owned();
    move |source| NotOurs::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Asker = Asker {
        uid: 1000,
        unknown_root: None,
    };

    fn dir(uid: u32, mode: u32) -> Found {
        Found {
            is_dir: true,
            is_file: false,
            uid,
            mode,
        }
    }

    #[test]
    fn only_what_nobody_else_can_use_is_private() {
        assert_eq!(judge(dir(1000, 0o700), ME, Want::PrivateDir), Ok(()));
        for (found, reason) in [
            (dir(1001, 0o700), Reason::Owner { uid: 1001 }),
            (dir(0, 0o700), Reason::Owner { uid: 0 }),
            (dir(1000, 0o750), Reason::Mode { mode: 0o750 }),
            (dir(1000, 0o701), Reason::Mode { mode: 0o701 }),
        ] {
            assert_eq!(judge(found, ME, Want::PrivateDir), Err(reason));
        }
        let wanted = "regular file";
        let refused = judge(dir(1000, 0o700), ME, Want::PrivateFile);
        assert_eq!(refused, Err(Reason::Kind { wanted }));
    }

    #[test]
    fn a_place_is_ours_or_the_systems_and_others_may_not_rename_in_it() {
        for good in [dir(1000, 0o755), dir(0, 0o755), dir(0, 0o1777)] {
            assert_eq!(judge(good, ME, Want::Place), Ok(()), "{good:?}");
        }
        for (found, reason) in [
            (dir(0, 0o777), Reason::Renamable),
            (dir(1000, 0o775), Reason::Renamable),
            (dir(1001, 0o1777), Reason::Owner { uid: 1001 }),
        ] {
            assert_eq!(judge(found, ME, Want::Place), Err(reason));
        }
    }

    #[test]
    fn in_a_namespace_that_does_not_know_root_the_systems_directories_are_recognized() {
        let inside = Asker {
            uid: 0,
            unknown_root: Some(OVERFLOW_UID),
        };
        assert_eq!(judge(dir(65_534, 0o1777), inside, Want::Place), Ok(()));
        assert!(judge(dir(65_534, 0o1777), ME, Want::Place).is_err());
        assert!(judge(dir(65_534, 0o700), inside, Want::PrivateDir).is_err());
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(!maps_everybody("         0       1000          1\n"));
    }

    #[test]
    fn links_and_shared_directories_are_seen_as_what_they_are() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        private_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(check(&real, Want::PrivateDir).is_ok());
        let words = private_dir(&link).unwrap_err().to_string();
        assert!(words.contains("it is not a directory"), "{words}");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            check_place(&real.join(".")),
            Err(NotOurs::Refused { .. })
        ));
        private_dir(&real).unwrap();
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o700);
    }
}
