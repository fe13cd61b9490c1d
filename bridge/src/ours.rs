//! Whether a directory or a file is ours alone: the one place where owner, kind and mode are judged.
//!
//! A path that somebody else owns, or may rename, or that is a link, is not used, whatever lies behind it. What may be
//! judged is pure ([`judge`]); the rest reads what the file system says. It creates nothing but private directories. A
//! group in which a user is alone (whose number is the user's own) is not somebody else: many systems give each user one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Others may write: the group, and everybody.
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;
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
    /// A symbolic link.
    #[error("it is a symbolic link (name the directory itself)")]
    Link,
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
    /// It is a symbolic link.
    pub is_link: bool,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits with set-id and sticky bits.
    pub mode: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Effective user.
    pub uid: u32,
    /// The user's own group, where there is one: that of the same number.
    pub gid: Option<u32>,
    /// In a user namespace that does not know the machine's root, what is root's seems to be this user's.
    pub unknown_root: Option<u32>,
}

impl Asker {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Self {
            uid,
            gid: (gid == uid).then_some(gid),
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
    if found.is_link {
        return Err(Reason::Link);
    }
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
    let own_group = found.uid == asker.uid && asker.gid == Some(found.gid);
    let writable = match own_group {
        true => WRITABLE_BY_ALL,
        false => WRITABLE_BY_ALL | WRITABLE_BY_GROUP,
    };
    match want {
        Want::PrivateDir | Want::PrivateFile if mode & ANYTHING_BY_OTHERS != 0 => {
            Err(Reason::Mode { mode })
        }
        Want::Place if mode & writable != 0 && !sticky => Err(Reason::Renamable),
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

/// The same with the directories above it, which are made where they are missing and otherwise may be the system's.
/// Returns the path without links, which nobody else can make another. A directory of our own that is open to others is
/// narrowed where it is empty or holds one of `marks`: then it was meant for this and nothing else.
///
/// # Errors
/// When it cannot be made, or is or may become somebody else's.
pub fn private_tree(path: &Path, marks: &[&str]) -> Result<PathBuf, NotOurs> {
    let whole = std::path::absolute(path).map_err(failed("find", path))?;
    // Nothing is made where it would be refused.
    let there = |above: &&Path| fs::symlink_metadata(above).is_ok();
    if let Some(above) = whole.ancestors().skip(1).find(there) {
        check_place(&above.canonicalize().map_err(failed("find", above))?)?;
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("create", path))?;
    let (above, name) = match (whole.parent(), whole.file_name()) {
        (Some(above), Some(name)) if !path.ends_with("..") => (above, name),
        _ => (whole.as_path(), ".".as_ref()),
    };
    let above = above.canonicalize().map_err(failed("find", above))?;
    check_place(&above)?;
    let path = if name == "." { above } else { above.join(name) };
    match check(&path, Want::PrivateDir) {
        Err(NotOurs::Refused {
            reason: Reason::Mode { .. },
            ..
        }) if is_meant(&path, marks) => private_dir(&path)?,
        checked => checked?,
    }
    Ok(path)
}

fn is_meant(dir: &Path, marks: &[&str]) -> bool {
    let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    is_empty || marks.iter().any(|mark| dir.join(mark).exists())
}

/// Checks an opened file and not its name, so that it cannot be exchanged in between.
///
/// # Errors
/// When it cannot be looked at, or with the reason why it is not ours alone.
pub fn check_file(file: &fs::File) -> io::Result<Result<(), Reason>> {
    let found = found(&file.metadata()?);
    Ok(judge(found, Asker::current(), Want::PrivateFile))
}

fn look(path: &Path) -> io::Result<Found> {
    Ok(found(&fs::symlink_metadata(path)?))
}

fn found(meta: &fs::Metadata) -> Found {
    Found {
        is_dir: meta.is_dir(),
        is_file: meta.is_file(),
        is_link: meta.is_symlink(),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode() & 0o7777,
    }
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
        gid: Some(1000),
        unknown_root: None,
    };

    fn dir(uid: u32, mode: u32) -> Found {
        Found {
            is_dir: true,
            is_file: false,
            is_link: false,
            uid,
            gid: 100,
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
    fn a_group_of_ones_own_is_nobody_else() {
        let own = Found {
            gid: 1000,
            ..dir(1000, 0o775)
        };
        assert_eq!(judge(own, ME, Want::Place), Ok(()));
        let open = Found { mode: 0o777, ..own };
        assert_eq!(judge(open, ME, Want::Place), Err(Reason::Renamable));
        let theirs = Found { uid: 0, ..own };
        assert_eq!(judge(theirs, ME, Want::Place), Err(Reason::Renamable));
        let shared = Asker { gid: None, ..ME };
        assert_eq!(judge(own, shared, Want::Place), Err(Reason::Renamable));
    }

    #[test]
    fn a_tree_is_made_private_and_what_was_not_meant_for_it_is_left() {
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let open = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let made = private_tree(&place.path().join("a/b"), &[]).unwrap();
        assert_eq!(mode(&made), 0o700);
        open(&made);
        private_tree(&made, &[]).unwrap();
        assert_eq!(mode(&made), 0o700, "it is empty");
        fs::write(made.join("lock"), b"").unwrap();
        open(&made);
        private_tree(&made, &["lock"]).unwrap();
        assert_eq!(mode(&made), 0o700, "it is ours by its mark");
        open(&made);
        let words = private_tree(&made, &[]).unwrap_err().to_string();
        assert!(words.contains("chmod go-rwx"), "{words}");
        assert_eq!(mode(&made), 0o755);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&made, &link).unwrap();
        let words = private_tree(&link, &["lock"]).unwrap_err().to_string();
        assert!(words.contains("symbolic link"), "{words}");
        let through = private_tree(&link.join("c"), &[]).unwrap();
        assert_eq!(through, made.canonicalize().unwrap().join("c"));
    }

    #[test]
    fn in_a_namespace_that_does_not_know_root_the_systems_directories_are_recognized() {
        let inside = Asker {
            uid: 0,
            gid: None,
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
        assert!(words.contains("it is a symbolic link"), "{words}");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            check_place(&real.join(".")),
            Err(NotOurs::Refused { .. })
        ));
        private_dir(&real).unwrap();
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o700);
    }
}
