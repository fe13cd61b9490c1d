//! A file that only grows, and that a full disk does not stop: what finds no room is kept and written with the next.
//!
//! For the run's notes about itself. Bounded by what is noted while the disk is full, which is little, because no task ends
//! meanwhile. It does not sync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::file_system::lacks_room;

/// A file and what is still to be written to its end.
#[derive(Debug)]
pub(super) struct Appended {
    file: File,
    len: u64,
    waiting: Vec<u8>,
}

impl Appended {
    /// Goes on at the end of a file, which is at `len`.
    #[must_use]
    pub(super) fn at(file: File, len: u64) -> Self {
        Self {
            file,
            len,
            waiting: Vec::new(),
        }
    }

    /// Adds some bytes, now or as soon as there is room.
    ///
    /// # Errors
    /// When the file refuses them for another reason.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        match self.flush() {
            Err(error) if lacks_room(&error) => Ok(()),
            flushed => flushed,
        }
    }

    /// Writes what waits. A part that was written is written again at its place.
    ///
    /// # Errors
    /// When the file refuses it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.waiting, self.len)?;
        self.len += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        // The last chance; whoever depends on it has flushed.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_written_with_the_next() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut appended = Appended::at(full, 0);
        appended.append(b"one").unwrap();
        assert!(appended.flush().is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        appended.file = File::create(&path).unwrap();
        appended.append(b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
    }
}
