//! The state directory of a run: made fresh or given, and removed after full success.
//!
//! A fresh one lies below `$XDG_STATE_HOME/mitosis/runs` (default `~/.local/state`), or below the temporary directory
//! where that place has a file system on which SQLite's write-ahead log cannot work. This module makes and removes
//! directories; the coordinator locks them.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::file_system::network_name;

/// The directory of one run.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    removal: Removal,
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
}

impl StateDir {
    /// Makes a fresh directory that nobody else uses.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn fresh(removal: Removal) -> Result<Self, StateDirError> {
        let usual = default_root().join("runs");
        let (root, notice) = root_of_fresh(&usual, network_name);
        make(&root).map_err(|source| StateDirError::Create {
            path: root.clone(),
            source,
        })?;
        let path = make_unique(&root)?;
        Ok(Self {
            path,
            removal,
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
        make(path).map_err(|source| StateDirError::Create {
            path: path.to_owned(),
            source,
        })?;
        let notice = network_name(path).map(|name| {
            format!(
                "{} is on {name}, a network file system: its task database is used by this process alone; a directory on \
                 a local disk is faster and safer",
                path.display()
            )
        });
        // Children have other working directories, and the resume command must work from anywhere.
        let path = path
            .canonicalize()
            .map_err(|source| StateDirError::Create {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path,
            removal: Removal::Never,
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

    /// Removes the directory if it may go. True when it is gone.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove_after_success(self) -> io::Result<bool> {
        match self.removal {
            Removal::Never => Ok(false),
            Removal::AfterSuccess => std::fs::remove_dir_all(&self.path).map(|()| true),
        }
    }
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

/// Where fresh directories are made, and a sentence where that is not the usual place.
fn root_of_fresh(
    usual: &Path,
    network_name: impl Fn(&Path) -> Option<&'static str>,
) -> (PathBuf, Option<String>) {
    match make(usual).map(|()| network_name(usual)) {
        Ok(None) => (usual.to_owned(), None),
        Ok(Some(name)) => elsewhere(usual, &format!("is on {name}, a network file system")),
        Err(error) => elsewhere(usual, &format!("cannot be made ({error})")),
    }
}

fn private_temporary() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("mitosis-{user}"))
}

fn elsewhere(usual: &Path, why: &str) -> (PathBuf, Option<String>) {
    let root = private_temporary().join("runs");
    let notice = format!(
        "{} {why}; using {} instead",
        usual.display(),
        root.display()
    );
    (root, Some(notice))
}

fn make(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
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
        let (root, notice) = root_of_fresh(&usual, nfs);
        assert!(!root.starts_with(dir.path()));
        let notice = notice.unwrap();
        assert!(
            notice.contains("NFS") && notice.contains("instead"),
            "{notice}"
        );
        assert_eq!(root_of_fresh(&usual, |_| None), (usual.clone(), None));

        let given = StateDir::given_on(&usual, nfs).unwrap();
        assert_eq!(given.path(), usual.canonicalize().unwrap());
        let notice = given.notice().unwrap();
        assert!(
            notice.contains("NFS") && notice.contains("alone"),
            "{notice}"
        );
    }
}
