//! The state directory of a run: made fresh or given, and removed after full success.
//!
//! A fresh one lies below `$XDG_STATE_HOME/mitosis/runs` (default `~/.local/state`), or below the temporary directory
//! where that place has a file system on which SQLite's write-ahead log cannot work. This module makes and removes
//! directories; the coordinator locks them.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
    /// Its file system does not share memory between processes as SQLite's write-ahead log needs it.
    #[error(
        "{path} is on {file_system}, a network file system on which the task database cannot be kept safely; choose a \
         directory on a local disk with --state-dir"
    )]
    NetworkFileSystem {
        /// Where.
        path: PathBuf,
        /// Its name.
        file_system: &'static str,
    },
}

impl StateDir {
    /// Makes a fresh directory that nobody else uses.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn fresh(removal: Removal) -> Result<Self, StateDirError> {
        let usual = default_root().join("runs");
        let (root, notice) = match make(&usual).map(|()| network_file_system(&usual)) {
            Ok(None) => (usual, None),
            Ok(Some(name)) => elsewhere(&usual, &format!("is on {name}, a network file system")),
            Err(error) => elsewhere(&usual, &format!("cannot be made ({error})")),
        };
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

    /// Takes the directory that the user named, making it if need be.
    ///
    /// # Errors
    /// When it cannot be made or its file system is not fit.
    pub fn given(path: &Path) -> Result<Self, StateDirError> {
        make(path).map_err(|source| StateDirError::Create {
            path: path.to_owned(),
            source,
        })?;
        if let Some(file_system) = network_file_system(path) {
            return Err(StateDirError::NetworkFileSystem {
                path: path.to_owned(),
                file_system,
            });
        }
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
            notice: None,
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

/// The name of the file system of `path`, if processes on several machines may share it.
fn network_file_system(path: &Path) -> Option<&'static str> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The type of the field differs between architectures; the magic numbers have 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "32 bits are meant"
    )]
    let magic = stat.f_type as u32;
    named_file_system(magic)
}

fn named_file_system(magic: u32) -> Option<&'static str> {
    const NETWORK: [(u32, &str); 9] = [
        (0x6969, "NFS"),
        (0x0bd0_0bd0, "Lustre"),
        (0x4750_4653, "GPFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x00c3_6400, "Ceph"),
        (0x1983_0326, "BeeGFS"),
        (0x5346_414f, "AFS"),
    ];
    NETWORK
        .into_iter()
        .find(|(known, _)| *known == magic)
        .map(|(_, name)| name)
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
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(named_file_system(0x6969), Some("NFS"));
        assert_eq!(named_file_system(0xef53), None);
        assert_eq!(network_file_system(Path::new("/proc")), None);
    }
}
