//! A note beside the store about the input of a run: which task belongs to which line.
//!
//! The store is the truth about tasks; this file only remembers what the store does not know (the lines, and which
//! repetition of a task is the newest), so that `run --state-dir DIR` without a file can resume. It is replaced as a
//! whole after every submit. Should it be lost, a run with the same file finds its tasks by their keys.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE_NAME: &str = "run.json";

/// The input of the last run on a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where the tasks came from, for people.
    pub source: String,
    /// True when the run was one command, whose exit code is the run's.
    pub single_command: bool,
    /// The suite that holds the tasks.
    pub suite: Uuid,
    /// The tasks of the input, in its order.
    pub tasks: Vec<ManifestTask>,
}

/// One task of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestTask {
    /// Its line.
    pub line: u64,
    /// Its key without the number of a repetition.
    pub key: String,
    /// Its name; that of the newest repetition.
    pub uuid: Uuid,
    /// What was put into its command, for whoever reads results by arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// How often it was repeated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Why the note cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system refuses.
    #[error("failed to {action} {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not ours.
    #[error("{path} is damaged; resume by giving the input again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Manifest {
    /// The note in a state directory, if there is one.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, ManifestError> {
        let path = state_dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| ManifestError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ManifestError::Io {
                action: "read",
                path,
                source,
            }),
        }
    }

    /// Replaces the note in a state directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> Result<(), ManifestError> {
        let path = state_dir.join(FILE_NAME);
        let draft = state_dir.join("run.json.new");
        let bytes = serde_json::to_vec(self).map_err(|source| ManifestError::Io {
            action: "write",
            path: path.clone(),
            source: source.into(),
        })?;
        std::fs::write(&draft, bytes)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|source| ManifestError::Io {
                action: "write",
                path,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
        let manifest = Manifest {
            source: "tasks.txt".to_owned(),
            single_command: false,
            suite: Uuid::from_u128(1),
            tasks: vec![ManifestTask {
                line: 3,
                key: "k.1".to_owned(),
                uuid: Uuid::from_u128(2),
                arguments: vec!["a b".to_owned()],
                retries: 0,
            }],
        };
        manifest.write(dir.path()).unwrap();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(manifest));
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        let error = Manifest::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
