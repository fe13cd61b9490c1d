//! Files that are read whole and must not change meanwhile.
//!
//! A list that somebody is still writing would give half a line as a task. Size and time of the last change are compared
//! before and after; what is no plain file (a pipe, a terminal) has neither and is taken as it comes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::time::SystemTime;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was written to.
    #[error("it changed while it was read; run this again when it is complete, or give a copy")]
    Changed,
}

/// The content of an open file.
///
/// # Errors
/// When it cannot be read, or is not what it was when the reading began.
pub fn read(file: &mut File) -> Result<Vec<u8>, ReadError> {
    read_with(file, |file, bytes| file.read_to_end(bytes))
}

/// The content of an open file from a place on, which is where it stands.
///
/// # Errors
/// As [`read`].
pub(super) fn read_from(file: &mut File, from: u64) -> Result<Vec<u8>, ReadError> {
    read_at(file, from, |file, bytes| file.read_to_end(bytes))
}

/// What tells that a file is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, SystemTime)>);

impl Stamp {
    /// Of an open file; all that are no plain file have the same.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        stamp(&file.metadata()?).map(Self)
    }
}

fn read_with(
    file: &mut File,
    read: impl FnOnce(&mut File, &mut Vec<u8>) -> io::Result<usize>,
) -> Result<Vec<u8>, ReadError> {
    read_at(file, 0, read)
}

fn read_at(
    file: &mut File,
    from: u64,
    read: impl FnOnce(&mut File, &mut Vec<u8>) -> io::Result<usize>,
) -> Result<Vec<u8>, ReadError> {
    let before = stamp(&file.metadata()?)?;
    let mut bytes = Vec::new();
    read(file, &mut bytes)?;
    let after = stamp(&file.metadata()?)?;
    // Files of /proc say that they are empty and are not.
    let whole = before.is_none_or(|(size, _)| size <= from || size - from == bytes.len() as u64);
    if before == after && whole {
        Ok(bytes)
    } else {
        Err(ReadError::Changed)
    }
}

/// Size and last change of a plain file.
fn stamp(metadata: &Metadata) -> io::Result<Option<(u64, SystemTime)>> {
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(Some((metadata.len(), metadata.modified()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_stays_is_read_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let mut open = File::open(file.path()).unwrap();
        assert_eq!(read(&mut open).unwrap(), b"a\nb\n");
        let mut of_the_kernel = File::open("/proc/self/stat").unwrap();
        assert!(!read(&mut of_the_kernel).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_grows_or_shrinks_while_it_is_read_is_refused() {
        for meanwhile in [b"a\nb\nc".as_slice(), b"a\n"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(b"a\nb\n").unwrap();
            let mut open = File::open(file.path()).unwrap();
            let changed = read_with(&mut open, |open, bytes| {
                std::fs::write(file.path(), meanwhile)?;
                open.read_to_end(bytes)
            });
            assert!(matches!(changed, Err(ReadError::Changed)), "{changed:?}");
        }
    }

    #[test]
    fn a_file_that_is_rewritten_in_place_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let old = SystemTime::now() - std::time::Duration::from_secs(60);
        file.as_file().set_modified(old).unwrap();
        let mut open = File::open(file.path()).unwrap();
        let changed = read_with(&mut open, |open, bytes| {
            std::fs::write(file.path(), b"c\nd\n")?;
            open.read_to_end(bytes)
        });
        assert!(matches!(changed, Err(ReadError::Changed)), "{changed:?}");
    }
}
