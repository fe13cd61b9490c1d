//! One process per state directory: an advisory lock that ends with the process, whatever ends it.
//!
//! The lock is on a file of its own, so that copying or reading the database needs no lock. The file holds the pid of
//! its owner, for the error message of the next one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::coordinator::store::OpenError;

/// Name of the lock file in the state directory.
const FILE_NAME: &str = "store.lock";

/// The right to use a state directory; dropping it gives the right up.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory (for its owner alone) when it is missing, and takes it.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let io = |operation, path: PathBuf| {
            move |source| OpenError::Io {
                operation,
                path,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io("create the state directory", dir.to_owned()))?;
        let path = dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open the lock file", path.clone()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse {
                    dir: dir.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(errno) => return Err(io("lock", path)(errno.into())),
        }
        write_pid(&mut file).map_err(io("write the lock file", path))?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // The pid only improves the message; without it the message says "another process".
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
