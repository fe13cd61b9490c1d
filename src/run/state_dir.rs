//! The state directory of a run: made fresh or given, and removed after full success.
//!
//! A fresh one lies below `$XDG_STATE_HOME/mitosis/runs` (default `~/.local/state`), or below a temporary directory where
//! that place is somebody else's, cannot be made, or has a file system on which SQLite's write-ahead log cannot work. This
//! module makes and removes directories; the coordinator locks them, [`mitosis_bridge::ours`] says whether they are ours.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mitosis_bridge::ours::{self, NotOurs};

use crate::file_system::network_name;
use crate::file_system::removal::remove;

/// The directory of one run.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    removal: Removal,
    /// It was made for this run.
    is_new: bool,
    /// What the user should know about the choice of the place.
    notice: Option<String>,
}

/// When the directory is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// After full success: nobody asked for it and nothing is left to resume.
    AfterSuccess,
    /// Never.
    Never,
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made.
    #[error("the state directory {path} cannot be made; choose another with --state-dir")]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is somebody else's, or may become so.
    #[error("the state directory cannot be used; choose another with --state-dir")]
    NotOurs(#[from] NotOurs),
}

/// What a directory holds that was a state directory before.
pub const MARKS: &[&str] = &["store.lock", "manager.lock"];

impl StateDir {
    /// Makes a fresh directory that nobody else uses.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn fresh(removal: Removal) -> Result<Self, StateDirError> {
        let usual = default_root().join("runs");
        let (root, notice) = root_of_fresh(&usual, &temporary_roots(), network_name)?;
        prune(&root, SystemTime::now());
        let path = make_unique(&root)?;
        if removal == Removal::Never {
            let mark = path.join(KEPT);
            std::fs::write(&mark, "").map_err(|source| StateDirError::Create {
                path: path.clone(),
                source,
            })?;
        }
        Ok(Self {
            path,
            removal,
            is_new: true,
            notice,
        })
    }

    /// Takes the directory that the user named, making it if need be. On a network file system the store is used by
    /// one connection alone, and it is said.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn given(path: &Path) -> Result<Self, StateDirError> {
        Self::given_on(path, network_name)
    }

    fn given_on(
        path: &Path,
        network_name: impl Fn(&Path) -> Option<&'static str>,
    ) -> Result<Self, StateDirError> {
        let is_new = !path.exists();
        // Children have other working directories, and the resume command must work from anywhere.
        let path = ours::private_tree(path, MARKS)?;
        let notice = network_name(&path).map(|name| {
            format!(
                "{} is on {name}, a network file system: its task database is used by this process alone; a directory on \
                 a local disk is faster and safer",
                path.display()
            )
        });
        Ok(Self {
            path,
            removal: Removal::Never,
            is_new,
            notice,
        })
    }

    /// Where it is; absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A sentence about the place, if it is not the usual one.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// True when the directory is removed after full success.
    #[must_use]
    pub fn goes_after_success(&self) -> bool {
        self.removal == Removal::AfterSuccess
    }

    /// Removes the directory of a run that began nothing, where it was made for it.
    pub fn remove_unused(self) {
        if self.is_new {
            // It holds nothing; that it stays is no reason for another error.
            let _ = remove(&self.path);
        }
    }

    /// Removes the directory if it may go. True when it is gone.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove_after_success(self) -> io::Result<bool> {
        match self.removal {
            Removal::Never => Ok(false),
            Removal::AfterSuccess => remove(&self.path).map(|()| true),
        }
    }
}

/// A fresh directory that nobody used for so long is removed.
const PRUNED_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// In a fresh directory that is to be kept.
const KEPT: &str = "kept";

/// Removes what runs left here that failed or were interrupted and that nobody has gone on with for 30 days, unless they were
/// to be kept. What cannot be removed, or is in use, stays.
fn prune(root: &Path, now: SystemTime) {
    let oldest = now - PRUNED_AFTER;
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let dir = entry.path();
        let store = dir.join("store.db");
        let used = [&dir, &store, &dir.join("store.db-wal")];
        let used = used
            .into_iter()
            .filter_map(|path| path.metadata().ok()?.modified().ok());
        let is_old = used.max().is_some_and(|used| used < oldest);
        if !is_old || !is_run_name(&entry.file_name()) || dir.join(KEPT).exists() {
            continue;
        }
        let lock = std::fs::File::options()
            .write(true)
            .open(dir.join("store.lock"));
        let is_free = lock.is_ok_and(|lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        if is_free && ours::check(&dir, ours::Want::PrivateDir).is_ok() {
            tracing::info!(dir = %dir.display(), "an old run is removed: nobody has gone on with it for 30 days");
            let _ = remove(&dir);
        }
    }
}

/// True for a name that [`make_unique`] gives.
fn is_run_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.split_once('-').is_some_and(|(time, random)| {
        time.len() == 14
            && time.bytes().all(|byte| byte.is_ascii_digit())
            && random.len() == 8
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Where state lies by default: `$XDG_STATE_HOME/mitosis`, else `~/.local/state/mitosis`, else below the temporary
/// directory.
#[must_use]
pub fn default_root() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map_or_else(private_temporary, |root| root.join("mitosis"))
}

/// Where fresh directories are made, and a sentence where that is not the usual place: the first of the temporary places
/// that is ours or can be, and else a new one beside them.
fn root_of_fresh(
    usual: &Path,
    temporary: &[PathBuf],
    network_name: impl Fn(&Path) -> Option<&'static str>,
) -> Result<(PathBuf, Option<String>), StateDirError> {
    let why = match ours::private_tree(usual, MARKS) {
        Ok(root) => match network_name(&root) {
            None => return Ok((root, None)),
            Some(name) => format!("{} is on {name}, a network file system", usual.display()),
        },
        Err(error) => in_words(&error),
    };
    let root = elsewhere(temporary)?;
    let notice = format!("{why}; using {} instead", root.display());
    Ok((root, Some(notice)))
}

fn elsewhere(temporary: &[PathBuf]) -> Result<PathBuf, StateDirError> {
    let user = rustix::process::geteuid().as_raw();
    let mut refused = None;
    for place in temporary {
        let taken = place.join(format!("mitosis-{user}")).join("runs");
        match ours::private_tree(&taken, MARKS) {
            Ok(root) => return Ok(root),
            Err(error) => refused.get_or_insert(error),
        };
    }
    for place in temporary {
        let random = uuid::Uuid::new_v4().simple();
        if let Ok(root) = ours::private_tree(&place.join(format!("mitosis-{user}-{random}")), &[]) {
            return Ok(root);
        }
    }
    let nowhere = || io::Error::from(io::ErrorKind::NotFound);
    Err(refused.map_or_else(
        || StateDirError::Create {
            path: std::env::temp_dir(),
            source: nowhere(),
        },
        StateDirError::NotOurs,
    ))
}

/// An error and its cause.
fn in_words(error: &NotOurs) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error} ({cause})"))
}

fn private_temporary() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("mitosis-{user}"))
}

/// Temporary directories, each once.
fn temporary_roots() -> Vec<PathBuf> {
    let mut roots = vec![std::env::temp_dir(), PathBuf::from("/tmp")];
    roots.dedup();
    roots
}

/// A new directory whose name begins with the time, so that a listing shows the order of the runs.
fn make_unique(root: &Path) -> Result<PathBuf, StateDirError> {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let time: String = now.chars().filter(char::is_ascii_digit).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    let path = root.join(format!("{time}-{}", &random[..8]));
    // Not recursive: a directory that exists already is an error, never shared.
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(StateDirError::Create { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_directory_is_made_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("a/b");
        let state = StateDir::given(&wanted).unwrap();
        assert!(state.path().is_absolute() && state.notice().is_none());
        assert!(!state.remove_after_success().unwrap());
        assert!(wanted.is_dir());
    }

    #[test]
    fn two_fresh_directories_differ_and_go_after_success() {
        let dir = tempfile::tempdir().unwrap();
        let first = make_unique(dir.path()).unwrap();
        let second = make_unique(dir.path()).unwrap();
        assert_ne!(first, second);
        let state = StateDir {
            path: first.clone(),
            removal: Removal::AfterSuccess,
            is_new: true,
            notice: None,
        };
        assert!(state.remove_after_success().unwrap());
        assert!(!first.exists() && second.exists());
    }

    #[test]
    fn a_place_on_a_network_is_said_and_left_where_nobody_named_it() {
        let dir = tempfile::tempdir().unwrap();
        let usual = dir.path().join("usual");
        let nfs = |path: &Path| path.starts_with(dir.path()).then_some("NFS");
        let temporary = tempfile::tempdir().unwrap();
        let places = [temporary.path().to_owned()];
        let (root, notice) = root_of_fresh(&usual, &places, nfs).unwrap();
        assert!(root.starts_with(temporary.path()));
        let notice = notice.unwrap();
        assert!(
            notice.contains("NFS") && notice.contains("instead"),
            "{notice}"
        );
        let local = root_of_fresh(&usual, &places, |_| None).unwrap();
        assert_eq!(local, (usual.clone(), None));

        let given = StateDir::given_on(&usual, nfs).unwrap();
        assert_eq!(given.path(), usual.canonicalize().unwrap());
        let notice = given.notice().unwrap();
        assert!(
            notice.contains("NFS") && notice.contains("alone"),
            "{notice}"
        );
    }

    #[test]
    fn a_name_that_somebody_has_taken_is_stepped_round() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let user = rustix::process::geteuid().as_raw();
        // A link where the usual name would be, as a stranger can make one in a directory that all may write to.
        let taken = dir.path().join(format!("mitosis-{user}"));
        std::os::unix::fs::symlink(&file, &taken).unwrap();
        let places = [dir.path().to_owned()];
        let (root, notice) = root_of_fresh(&file.join("x"), &places, |_| None).unwrap();
        assert!(root.starts_with(dir.path()) && !root.starts_with(&taken));
        assert!(notice.unwrap().contains("instead"));
    }

    #[test]
    fn old_runs_go_unless_they_are_new_kept_or_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str| {
            let path = dir.path().join(name);
            ours::private_dir(&path).unwrap();
            std::fs::write(path.join("store.lock"), "").unwrap();
            path
        };
        let [old, kept, used] = ["00000001", "00000002", "00000003"]
            .map(|random| run(&format!("20260101000000-{random}")));
        let strange = run("mine");
        std::fs::write(kept.join(KEPT), "").unwrap();
        let lock = std::fs::File::open(used.join("store.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let now = SystemTime::now();
        prune(dir.path(), now + PRUNED_AFTER / 2);
        assert!(old.exists());
        prune(dir.path(), now + PRUNED_AFTER * 2);
        assert!(!old.exists() && kept.exists() && used.exists() && strange.exists());
    }
}
