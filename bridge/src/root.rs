//! The directory of one manager's transport: where it may be, its lock, and its removal.
//!
//! Every file of the transport lives below the root, which nobody else can enter, so nothing of it has a name that others
//! could take, open or watch. A root is made anew at each start under a random name, in the first usable place. The server
//! claims it (one live owner, enforced by a lock), clears what a killed predecessor left, and removes everything at close.
//! Workers get the path by their invitation and never clear anything.

mod abandoned;
mod claim;
mod places;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ids::Incarnation;
use crate::ours::{self, NotOurs, Want};

pub use claim::RootClaim;

/// Longest path of a root in bytes: the names of sockets below it, 21 bytes at least, must stay below 108.
pub const MAX_ROOT_BYTES: usize = 55;
/// First part of a root's name.
const NAME: &str = "mitosis-";
/// Bytes of the random part of a root's name, as hex digits.
const RANDOM_DIGITS: usize = 16;
/// Bytes of a root's name: first part, instance, a dash, random part.
const MAX_NAME_BYTES: usize = NAME.len() + INSTANCE_DIGITS + 1 + RANDOM_DIGITS;
/// Digits of an instance.
const INSTANCE_DIGITS: usize = 8;
/// First part of the names of all segments below a root.
const PREFIX: &str = "mito_";

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
        "transport root {path} has {len} bytes, more than {MAX_ROOT_BYTES}: set TMPDIR to a shorter directory"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// No candidate can be used.
    #[error(
        "there is no usable directory for shared memory: mount a memory file system on /dev/shm (mount -t tmpfs tmpfs /dev/shm; in a container --shm-size or --tmpfs /dev/shm), or set TMPDIR to a directory of your own with a short path ({tried})"
    )]
    NoPlace {
        /// What was tried, and why each cannot be used.
        tried: String,
    },
    /// The directory belongs to somebody else or others can enter it.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// A live server holds it.
    #[error("transport root {path} is in use by a running manager")]
    InUse {
        /// The root.
        path: PathBuf,
    },
    /// No random name can be made.
    #[error("failed to make a random name")]
    Random {
        /// Why it failed.
        #[source]
        source: io::Error,
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
}

impl TransportRoot {
    /// A new root of an instance, under a random name in the first usable place: `/dev/shm`, `$XDG_RUNTIME_DIR`,
    /// `/run/user/<uid>`, `$TMPDIR`, `/tmp`. Looks at the file system: not for an async task.
    ///
    /// # Errors
    /// When the instance is malformed or no place is usable.
    pub fn for_instance(instance: &str) -> Result<Self, RootError> {
        let root = Self::anew(&usable_place()?, instance)?;
        tracing::info!(path = ?root.path, "the transport lives here");
        Ok(root)
    }

    fn anew(place: &Path, instance: &str) -> Result<Self, RootError> {
        check_instance(instance)?;
        let mut random = [0; RANDOM_DIGITS / 2];
        getrandom::fill(&mut random).map_err(|error| RootError::Random {
            source: io::Error::other(error),
        })?;
        let name = format!("{NAME}{instance}-{:016x}", u64::from_ne_bytes(random));
        Self::from_path(place.join(name))
    }

    /// The root of a running manager of this user and of this instance, if there is one.
    ///
    /// # Errors
    /// When the instance is malformed.
    pub fn find(instance: &str) -> Result<Option<Self>, RootError> {
        check_instance(instance)?;
        let roots = places::ours()
            .into_iter()
            .flat_map(|place| roots_in(&place));
        let of_instance = |root: &Self| root.instance() == Some(instance) && root.is_held();
        Ok(roots.into_iter().find(of_instance))
    }

    /// The root of an instance below a directory of the caller's choice, which is created private if it is missing.
    ///
    /// # Errors
    /// When the instance is malformed or the path too long.
    pub fn at(parent: &Path, instance: &str) -> Result<Self, RootError> {
        check_instance(instance)?;
        Self::from_path(parent.join(instance))
    }

    fn from_path(path: PathBuf) -> Result<Self, RootError> {
        let len = path.as_os_str().len();
        if len > MAX_ROOT_BYTES {
            return Err(RootError::TooLong { path, len });
        }
        Ok(Self { path })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in which it lies, which decides how much room there is.
    pub(crate) fn place(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// First part of the name of every segment.
    pub(crate) fn prefix(&self) -> &'static str {
        PREFIX
    }

    /// What of it belongs to one incarnation: a root within the root, where the transport has its files.
    pub(crate) fn life(&self, incarnation: Incarnation) -> Self {
        Self {
            path: self.path.join(incarnation.to_string()),
        }
    }

    /// Makes the directory of an incarnation.
    pub(crate) fn make_life(&self, incarnation: Incarnation) -> Result<Self, NotOurs> {
        let life = self.life(incarnation);
        ours::private_dir(&life.path)?;
        Ok(life)
    }

    /// Removes the directory of an incarnation and everything in it. One that is gone is as good.
    pub(crate) fn remove_life(&self, incarnation: Incarnation) -> io::Result<()> {
        match fs::remove_dir_all(self.life(incarnation).path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the root that an invitation names.
    pub(crate) fn invited(path: PathBuf) -> Self {
        Self { path }
    }

    /// Segments below it that exist now; none when it does not exist.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn shared_memory_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = segments_in(&self.path)?;
        for entry in entries(&self.path)? {
            if is_life(&entry.file_name()) {
                found.extend(segments_in(&entry.path())?);
            }
        }
        Ok(found)
    }

    /// The instance in the name of a root that [`TransportRoot::for_instance`] made.
    fn instance(&self) -> Option<&str> {
        let name = self.path.file_name()?.to_str()?.strip_prefix(NAME)?;
        let (instance, random) = name.split_once('-')?;
        let made = random.len() == RANDOM_DIGITS && random.bytes().all(is_hex);
        (made && check_instance(instance).is_ok()).then_some(instance)
    }

    /// Whether a living owner holds its lock.
    fn is_held(&self) -> bool {
        let locked = self.path.join("lock").exists();
        locked && matches!(self.lock(), Err(RootError::InUse { .. }))
    }
}

/// The place where a root would be made now.
pub(crate) fn usable_place() -> Result<PathBuf, RootError> {
    places::choose(places::ours())
}

/// Roots of this user in a place, whoever holds them.
fn roots_in(place: &Path) -> Vec<TransportRoot> {
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    let roots = entries
        .flatten()
        .map(|entry| TransportRoot { path: entry.path() });
    roots
        .filter(|root| root.instance().is_some())
        .filter(|root| ours::check(&root.path, Want::PrivateDir).is_ok())
        .collect()
}

/// What is in a directory; nothing when there is none.
fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

fn segments_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let named = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
    };
    let entries = entries(dir)?.into_iter();
    Ok(entries.filter(named).map(|entry| entry.path()).collect())
}

fn is_life(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.len() == 16 && name.iter().copied().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn check_instance(instance: &str) -> Result<(), RootError> {
    if instance.len() == INSTANCE_DIGITS && instance.bytes().all(is_hex) {
        return Ok(());
    }
    Err(RootError::Instance {
        instance: instance.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn parent() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("m")
            .tempdir_in("/tmp")
            .unwrap()
    }

    #[test]
    fn a_root_is_made_anew_each_time_and_found_while_it_is_held() {
        let made = || TransportRoot::for_instance("0123abcd").unwrap();
        let (root, other) = (made(), made());
        assert_ne!(root, other);
        assert!(root.path().as_os_str().len() <= MAX_ROOT_BYTES);
        assert_eq!(root.instance(), Some("0123abcd"));
        assert_eq!(TransportRoot::find("0123abcd").unwrap(), None);
        let claim = root.claim().unwrap();
        let found = TransportRoot::find("0123abcd").unwrap();
        assert_eq!(found.as_ref(), Some(&root));
        claim.remove().unwrap();
        assert_eq!(TransportRoot::find("0123abcd").unwrap(), None);
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
        assert!(words.contains("set TMPDIR"), "{words}");
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
        let stale = root.path().join(format!("{PREFIX}stale"));
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
            .map(|instance| TransportRoot::anew(parent.path(), instance).unwrap());
        drop(killed.claim().unwrap());
        fs::write(killed.path().join(format!("{PREFIX}left")), b"x").unwrap();
        // Of somebody else, or of another kind: none of ours.
        let strange = parent.path().join("mitosis-0a0b0c0d");
        fs::create_dir(&strange).unwrap();
        fs::write(strange.join("lock"), b"").unwrap();
        let living_claim = living.claim().unwrap();
        assert!(!killed.path().exists() && strange.exists());
        let _claim = starting.claim().unwrap();
        assert!(living.path().join("lock").exists());
        drop(living_claim);
    }

    #[test]
    fn a_directory_that_is_no_directory_is_refused() {
        let parent = parent();
        let root = TransportRoot::at(parent.path(), "0123abcf").unwrap();
        std::os::unix::fs::symlink("/tmp", root.path()).unwrap();
        assert!(matches!(root.claim(), Err(RootError::NotOurs(_))));
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
        let root = TransportRoot::invited(path);
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
