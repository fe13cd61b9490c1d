//! Executions that a managed worker has begun, as it notes them for whoever comes after a death.
//!
//! A report says that an execution began, but it has to reach the manager's spool first, and a `kill -9` of worker or
//! manager may be faster. So the worker writes 64 bytes to a file of its slot right before each start; the page cache
//! keeps them whoever dies. Who reads it:
//!
//! - the manager that outlives the worker, to tell an execution that is lost from a hand-over that never was one;
//! - the next life of the manager, before it empties the slots: what no report tells of becomes a lost execution.
//!
//! The note comes before the start, so no execution is without one; a start that was noted and then cut off by a death
//! before its `exec` (one spawn, up to a millisecond) counts as an execution. The file is a ring: a worker has few executions whose reports are not
//! acknowledged ([`crate::comm`] bounds its outbox), and older ones are known to the manager.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use uuid::Uuid;

use crate::protocol::{Lease, Try, WorkerTaskResp};

/// Name of the file in a slot's directory.
pub const FILE: &str = "begun";
/// Notes that are kept: more than a full outbox is about.
const NOTES: u64 = 128;
/// Length of a note: 56 bytes of fields, their checksum, nothing.
const LENGTH: usize = 64;
const FIELDS: usize = 56;

/// One execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The store's row id.
    pub task_id: i64,
    /// The name users see.
    pub task_uuid: Uuid,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    pub try_no: Try,
    /// Number of the execution.
    pub attempt: u32,
    /// When, in microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Begun {
    /// An execution of this hand-over.
    #[must_use]
    pub fn of(task: &WorkerTaskResp, at_us: i64) -> Self {
        Self {
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: task.try_no,
            attempt: task.attempt,
            at_us,
        }
    }

    fn encode(&self, number: u64) -> [u8; LENGTH] {
        let mut note = [0; LENGTH];
        let fields: [&[u8]; 7] = [
            &number.to_le_bytes(),
            &self.task_id.to_le_bytes(),
            self.task_uuid.as_bytes(),
            &self.lease.0.to_le_bytes(),
            &self.at_us.to_le_bytes(),
            &self.try_no.0.to_le_bytes(),
            &self.attempt.to_le_bytes(),
        ];
        let bytes = fields.into_iter().flatten();
        note.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        let crc = crc32fast::hash(&note[..FIELDS]);
        note[FIELDS..FIELDS + 4].copy_from_slice(&crc.to_le_bytes());
        note
    }

    /// `None` for a place that was never written, or is damaged.
    fn decode(note: &[u8]) -> Option<(u64, Self)> {
        let (fields, rest) = note.split_at_checked(FIELDS)?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (number, rest) = fields.split_first_chunk::<8>()?;
        let (task_id, rest) = rest.split_first_chunk::<8>()?;
        let (uuid, rest) = rest.split_first_chunk::<16>()?;
        let (lease, rest) = rest.split_first_chunk::<8>()?;
        let (at_us, rest) = rest.split_first_chunk::<8>()?;
        let (try_no, rest) = rest.split_first_chunk::<4>()?;
        let (attempt, _) = rest.split_first_chunk::<4>()?;
        let begun = Self {
            task_id: i64::from_le_bytes(*task_id),
            task_uuid: Uuid::from_bytes(*uuid),
            lease: Lease(u64::from_le_bytes(*lease)),
            try_no: Try(u32::from_le_bytes(*try_no)),
            attempt: u32::from_le_bytes(*attempt),
            at_us: i64::from_le_bytes(*at_us),
        };
        Some((u64::from_le_bytes(*number), begun))
    }
}

/// The writing end: one worker at a time.
#[derive(Debug)]
pub struct Notes {
    file: File,
    next: u64,
}

impl Notes {
    /// Opens the file of a slot and goes on behind what earlier workers of the slot noted.
    ///
    /// # Errors
    /// When it cannot be made, or is damaged in length.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let last = numbered(path)?.last().map_or(0, |(number, _)| *number);
        Ok(Self {
            file,
            next: last + 1,
        })
    }

    /// Notes an execution that is about to begin. One system call.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn note(&mut self, begun: &Begun) -> io::Result<()> {
        let place = (self.next % NOTES) * LENGTH as u64;
        self.file.write_all_at(&begun.encode(self.next), place)?;
        self.next += 1;
        Ok(())
    }
}

/// The newest executions that were noted, oldest first; none when there is no file.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Begun>> {
    let notes = numbered(path)?;
    Ok(notes.into_iter().map(|(_, begun)| begun).collect())
}

fn numbered(path: &Path) -> io::Result<Vec<(u64, Begun)>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut notes: Vec<_> = bytes.chunks(LENGTH).filter_map(Begun::decode).collect();
    notes.sort_by_key(|(number, _)| *number);
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(number: u32) -> Begun {
        Begun {
            task_id: i64::from(number) - 3,
            task_uuid: Uuid::from_u128(number.into()),
            lease: Lease(u64::from(number) << 33),
            try_no: Try(number),
            attempt: number + 7,
            at_us: -1,
        }
    }

    #[test]
    fn the_newest_notes_are_read_in_order_also_of_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(&path).unwrap(), []);
        for first in [0, 50, 250] {
            let mut notes = Notes::open(&path).unwrap();
            for number in first..first + 150 {
                notes.note(&begun(number)).unwrap();
            }
            let newest: Vec<Begun> = (first + 22..first + 150).map(begun).collect();
            assert_eq!(read(&path).unwrap(), newest);
        }
    }

    #[test]
    fn a_damaged_note_is_none_and_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut notes = Notes::open(&path).unwrap();
        (0..3).for_each(|number| notes.note(&begun(number)).unwrap());
        notes
            .file
            .write_all_at(b"x", 2 * LENGTH as u64 + 9)
            .unwrap();
        assert_eq!(read(&path).unwrap(), [begun(0), begun(2)]);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }
}
