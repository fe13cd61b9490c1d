//! Payloads too large for shared memory travel as a file in the transport root; the frame carries its name.
//!
//! Files are written and read off the poller, by whoever calls the bridge; the poller only opens one (and unlinks it when
//! it is a worker's), so that a frame that has been accepted keeps its data whatever happens to the name. A writer's file is
//! removed when its [`SpillFile`] is dropped; what a killed worker left is swept when it is retired.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::header::MAX_PAYLOAD;
use crate::ids::Incarnation;

/// Longest file name that is accepted from a peer.
const MAX_NAME: usize = 64;

/// The directory of spill files; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SpillDir {
    path: Arc<Path>,
}

/// A payload on its way out.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Inline(Bytes),
    Spilled(Arc<SpillFile>),
}

impl Body {
    /// What goes into the frame: bytes, length of the data, and whether the bytes are a file name.
    pub(crate) fn frame(&self) -> (&[u8], usize, bool) {
        match self {
            Self::Inline(bytes) => (bytes, bytes.len(), false),
            Self::Spilled(file) => (file.name.as_bytes(), file.len, true),
        }
    }
}

/// A written file; removed on drop.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    name: String,
    len: usize,
    left: AtomicBool,
}

impl SpillFile {
    /// Leaves the file to its reader.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        // The reader of a worker's file has removed it already.
        let _removed_or_gone = fs::remove_file(&self.path);
    }
}

/// A payload that came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Inline(Bytes),
    Spilled(OpenSpill),
}

/// An opened file whose content has not been read yet.
#[derive(Debug)]
pub(crate) struct OpenSpill {
    file: File,
    len: usize,
}

impl OpenSpill {
    /// Reads everything. Blocks: not for the poller.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut data = vec![0_u8; self.len];
        self.file.read_exact_at(&mut data, 0)?;
        Ok(data.into())
    }
}

/// Whether the reader removes the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Keep,
    Remove,
}

impl SpillDir {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            path: root.join("spill").into(),
        }
    }

    /// Writes a new file, readable by this user alone. Blocks: not for the poller.
    pub(crate) fn write(&self, owner: Incarnation, data: &[u8]) -> io::Result<SpillFile> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("{owner}-{:016x}", u64::from_ne_bytes(random));
        let path = self.path.join(&name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // From here on the guard removes what a failed write leaves.
        let guard = SpillFile {
            path,
            name,
            len: data.len(),
            left: AtomicBool::new(false),
        };
        file.write_all(data)?;
        Ok(guard)
    }

    /// Opens the file that a peer names. Everything about it is checked: name, owner, kind and size.
    pub(crate) fn open(&self, name: &[u8], len: usize, keep: Name) -> io::Result<OpenSpill> {
        let invalid = |words| Err(io::Error::new(io::ErrorKind::InvalidData, words));
        let plain = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| {
            !name.is_empty() && name.len() <= MAX_NAME && name.as_bytes().iter().all(plain)
        }) else {
            return invalid("the name of a spill file is malformed");
        };
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)?;
        let meta = file.metadata()?;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if !ours || !meta.is_file() || meta.len() != len as u64 || len > MAX_PAYLOAD {
            return invalid("a spill file is not what its frame says");
        }
        if keep == Name::Remove {
            fs::remove_file(&path)?;
        }
        Ok(OpenSpill { file, len })
    }

    /// Removes every file that an incarnation left. Blocks: not for the poller.
    pub(crate) fn sweep(&self, owner: Incarnation) {
        let prefix = format!("{owner}-");
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _removed_or_gone = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spill_dir() -> (tempfile::TempDir, SpillDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = SpillDir::new(root.path());
        fs::create_dir(&dir.path).unwrap();
        (root, dir)
    }

    fn count(dir: &SpillDir) -> usize {
        fs::read_dir(&dir.path).unwrap().count()
    }

    #[test]
    fn what_is_written_is_read_and_removed_by_the_reader() {
        let (_root, dir) = spill_dir();
        let written = dir.write(Incarnation(5), b"hello").unwrap();
        let opened = dir.open(written.name.as_bytes(), 5, Name::Remove).unwrap();
        assert_eq!(count(&dir), 0);
        assert_eq!(&opened.read().unwrap()[..], b"hello");
        drop(written);
    }

    #[test]
    fn an_unread_file_goes_with_its_writer() {
        let (_root, dir) = spill_dir();
        let written = dir.write(Incarnation(5), b"hello").unwrap();
        assert_eq!(count(&dir), 1);
        drop(written);
        assert_eq!(count(&dir), 0);
    }

    #[test]
    fn names_that_leave_the_directory_and_lies_about_the_size_are_refused() {
        let (root, dir) = spill_dir();
        fs::write(root.path().join("abc"), b"hello").unwrap();
        let written = dir.write(Incarnation(5), b"hello").unwrap();
        let name = written.name.as_bytes();
        for (name, len) in [
            (&b"../abc"[..], 5),
            (b"", 0),
            (b".", 0),
            (name, 4),
            (name, 6),
            (b"00", 5),
        ] {
            assert!(dir.open(name, len, Name::Keep).is_err(), "{name:?} {len}");
        }
        std::os::unix::fs::symlink(root.path().join("abc"), dir.path.join("ab")).unwrap();
        assert!(dir.open(b"ab", 5, Name::Keep).is_err());
    }

    #[test]
    fn a_sweep_takes_the_files_of_one_life_only() {
        let (_root, dir) = spill_dir();
        let kept = dir.write(Incarnation(6), b"b").unwrap();
        std::mem::forget(dir.write(Incarnation(5), b"a").unwrap());
        dir.sweep(Incarnation(5));
        assert_eq!(count(&dir), 1);
        assert!(kept.path.exists());
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_open_anything(name in prop::collection::vec(any::<u8>(), 0..80)) {
            let (_root, dir) = spill_dir();
            prop_assert!(dir.open(&name, 0, Name::Remove).is_err());
        }
    }
}
