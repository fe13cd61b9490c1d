//! Files that only their owner may read: signing keys, tokens, endpoints.
//!
//! The coordinator (keys), clients (token files) and every long-lived role (endpoint file) use it. Reading refuses a
//! file that somebody else owns or can read, because its content then is no secret and may be somebody else's choice.
//! All calls block for a few small file operations; async callers put them on the blocking pool. It does not
//! interpret what it reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mitosis_bridge::ours::{self, Reason};
use secrecy::SecretString;

/// Longest private file that is read. Keys, tokens and endpoints are far below.
const MAX_BYTES: u64 = 64 << 10;

/// Why a private file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// There is none.
    #[error("there is no file {}", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("{} belongs to user id {owner}, not to the user who runs this program; use a file of your own", .path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Others may read or write it.
    #[error("{} is open to other users (mode {mode:03o}); run `chmod 600` on it, or make a new one if they may have read it", .path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, a pipe, or far too long.
    #[error("{} is not a regular file of at most {MAX_BYTES} bytes of text", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("failed to {operation} {}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// What [`create_once`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The file is new and has the given content.
    Created,
    /// The file existed, or another process was faster; its content is unchanged.
    Existed,
}

/// Reads a private file.
///
/// # Errors
/// When it is missing, not a regular file, not owned by this user, or open to others.
pub fn read(path: &Path) -> Result<SecretString, PrivateFileError> {
    // Non-blocking, so that a pipe put in the file's place cannot hold the caller up.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PrivateFileError::Missing {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(io_error("open", path, error)),
    };
    check(path, &file)?;
    let mut text = String::new();
    match file.take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(text.into()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(PrivateFileError::NotAFile {
                path: path.to_owned(),
            })
        }
        Err(error) => Err(io_error("read", path, error)),
    }
}

/// Checks the opened file and not its name, so that it cannot be exchanged in between.
fn check(path: &Path, file: &File) -> Result<(), PrivateFileError> {
    let metadata = file
        .metadata()
        .map_err(|error| io_error("look at", path, error))?;
    let path = path.to_owned();
    if metadata.len() > MAX_BYTES {
        return Err(PrivateFileError::NotAFile { path });
    }
    match ours::check_file(file).map_err(|error| io_error("look at", &path, error))? {
        Ok(()) => Ok(()),
        Err(Reason::Owner { uid: owner }) => Err(PrivateFileError::ForeignOwner { path, owner }),
        Err(Reason::Mode { mode }) => Err(PrivateFileError::OpenToOthers { path, mode }),
        Err(_) => Err(PrivateFileError::NotAFile { path }),
    }
}

/// Replaces the file in one step: a reader sees the old or the new content, never a part.
///
/// # Errors
/// When the directory refuses.
pub fn replace(path: &Path, content: &str) -> Result<(), PrivateFileError> {
    let draft = Draft::write(path, content)?;
    draft.sync()?;
    draft.put_in_place(path)?;
    sync_directory(path)
}

/// The same for what means nothing after a restart of the machine: it need not survive a power cut, and is not waited for.
///
/// # Errors
/// When the directory refuses.
pub fn replace_volatile(path: &Path, content: &str) -> Result<(), PrivateFileError> {
    Draft::write(path, content)?.put_in_place(path)
}

/// Creates the file unless it exists. It appears complete or not at all, also after a crash, and of several processes
/// that create it at once exactly one wins.
///
/// # Errors
/// When the directory refuses.
pub fn create_once(path: &Path, content: &str) -> Result<Creation, PrivateFileError> {
    let draft = Draft::write(path, content)?;
    draft.sync()?;
    match fs::hard_link(&draft.path, path) {
        Ok(()) => {
            drop(draft);
            sync_directory(path)?;
            Ok(Creation::Created)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Creation::Existed),
        Err(error) => Err(io_error("create", path, error)),
    }
}

/// A complete file under a name of its own; removed unless it was moved to its place.
struct Draft {
    path: PathBuf,
    in_place: bool,
    /// The written file.
    file: Option<File>,
}

impl Draft {
    fn write(target: &Path, content: &str) -> Result<Self, PrivateFileError> {
        let name = target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let path = target.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
        // O_EXCL (`create_new`) and not O_TRUNC: a link that somebody laid in the way is refused, not followed.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let mut file = file.map_err(|error| io_error("create", &path, error))?;
        let mut draft = Self {
            path,
            in_place: false,
            file: None,
        };
        file.write_all(content.as_bytes())
            .map_err(|error| io_error("write", &draft.path, error))?;
        draft.file = Some(file);
        Ok(draft)
    }

    fn sync(&self) -> Result<(), PrivateFileError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(|error| io_error("write", &self.path, error))
    }

    fn put_in_place(mut self, path: &Path) -> Result<(), PrivateFileError> {
        fs::rename(&self.path, path).map_err(|error| io_error("replace", path, error))?;
        self.in_place = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.in_place {
            // Nothing depends on it: a left-over draft is a private file nobody reads.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), PrivateFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("sync the directory of", path, error))
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> PrivateFileError {
    PrivateFileError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().expose_secret(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_first_creator_wins_and_later_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(create_once(&path, "one").unwrap(), Creation::Created);
        assert_eq!(create_once(&path, "two").unwrap(), Creation::Existed);
        assert_eq!(read(&path).unwrap().expose_secret(), "one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = read(&path).unwrap_err().to_string();
        assert!(
            text.contains("640") && text.contains("chmod 600") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(dir.path()),
            Err(PrivateFileError::NotAFile { .. })
        ));
        assert!(matches!(
            read(&dir.path().join("none")),
            Err(PrivateFileError::Missing { .. })
        ));
    }
}
