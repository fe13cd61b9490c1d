//! Ends that a worker knows and has not told yet, on file in its slot.
//!
//! Ends are told in batches, so a killed worker takes some to its grave that nobody has heard of. It writes each to a file
//! first, with one system call and without waiting for the disk: the page cache keeps it whoever dies. Who reads them:
//!
//! - the manager that outlives the worker: what it held and had ended has ended;
//! - the next life of the manager, before it empties the slots: what its spool does not know goes to the coordinator, which
//!   decides by lease as it does about every report.
//!
//! ```text
//!   ended.0, ended.1:  length u32 | crc32 u32 | number u64 | MessagePack of Ended      little endian, behind each other
//! ```
//!
//! Two files, so that the one is begun anew only when everything in it has been told for long: both together hold many times
//! what an outbox does. An end that is too long for that ([`LONGEST`]) is not written; a death may repeat its task.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::protocol::frame;
use crate::protocol::{Lease, ReportTaskOp, Try};

/// Names of the files in a slot's directory.
pub const FILES: [&str; 2] = ["ended.0", "ended.1"];
/// Length of a file after which the other one is begun.
const HALF: u64 = 512 << 10;
/// Longest end that is written.
const LONGEST: usize = 16 << 10;
/// Length, checksum and number.
const HEAD: usize = 16;

/// The end of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
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
    /// How it ended.
    pub op: ReportTaskOp,
}

/// The writing end: one worker at a time.
#[derive(Debug)]
pub struct Ends {
    files: [File; 2],
    current: usize,
    at: u64,
    next: u64,
}

impl Ends {
    /// Begins anew: whatever an earlier worker of the slot left has been read.
    ///
    /// # Errors
    /// When the files cannot be made.
    pub fn create(slot: &Path) -> io::Result<Self> {
        let create = |name: &str| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(slot.join(name))
        };
        let [one, other] = FILES;
        Ok(Self {
            files: [create(one)?, create(other)?],
            current: 0,
            at: 0,
            next: 1,
        })
    }

    /// Writes an end down; false when it is too long for that. One system call.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&mut self, ended: &Ended) -> io::Result<bool> {
        let payload = frame::encode(ended);
        if payload.len() > LONGEST {
            return Ok(false);
        }
        if self.at >= HALF {
            self.current = 1 - self.current;
            self.at = 0;
            self.files[self.current].set_len(0)?;
        }
        let record = record(self.next, &payload);
        self.files[self.current].write_all_at(&record, self.at)?;
        self.at += record.len() as u64;
        self.next += 1;
        Ok(true)
    }
}

fn record(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + payload.len());
    let length = u32::try_from(payload.len()).expect("an end that is written is short");
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&number.to_le_bytes());
    record.extend_from_slice(payload);
    let crc = crc32fast::hash(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The ends that were written in a slot, oldest first; none when there are no files.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn read(slot: &Path) -> io::Result<Vec<Ended>> {
    let mut ends = Vec::new();
    for path in FILES.map(|name| slot.join(name)) {
        match std::fs::read(&path) {
            Ok(bytes) => ends.extend(records(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    ends.sort_by_key(|(number, _)| *number);
    Ok(ends.into_iter().map(|(_, ended)| ended).collect())
}

/// Where the files of a slot are.
#[must_use]
pub fn paths(slot: &Path) -> [PathBuf; 2] {
    FILES.map(|name| slot.join(name))
}

/// The whole records at the beginning of a file.
fn records(mut bytes: &[u8]) -> Vec<(u64, Ended)> {
    let mut found = Vec::new();
    while let Some((ended, rest)) = first(bytes) {
        found.push(ended);
        bytes = rest;
    }
    found
}

fn first(bytes: &[u8]) -> Option<((u64, Ended), &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, checked) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let whole = checked.get(..length.checked_add(8)?)?;
    if crc32fast::hash(whole) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (number, payload) = whole.split_first_chunk::<8>()?;
    let ended = frame::decode("end of a task", payload).ok()?;
    Some((
        (u64::from_le_bytes(*number), ended),
        &checked[whole.len()..],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskResult;
    use crate::protocol::report::Reason;
    use proptest::prelude::*;

    fn ended(task_id: i64, bytes: usize) -> Ended {
        let mut result = TaskResult::not_started(Reason::Exit, "", 1);
        result.stdout.tail = vec![b'x'; bytes];
        Ended {
            task_id,
            task_uuid: Uuid::from_u128(9),
            lease: Lease(7),
            try_no: Try(1),
            attempt: 1,
            op: ReportTaskOp::ended(result),
        }
    }

    fn numbers(slot: &Path) -> Vec<i64> {
        let ends = read(slot).unwrap();
        ends.iter().map(|ended| ended.task_id).collect()
    }

    #[test]
    fn what_was_written_is_read_in_order_and_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(numbers(dir.path()).is_empty());
        let mut ends = Ends::create(dir.path()).unwrap();
        for task in 0..400 {
            assert!(ends.write(&ended(task, 4 << 10)).unwrap());
        }
        let kept = numbers(dir.path());
        assert!(
            kept.len() >= 120,
            "as many as an outbox holds twice: {}",
            kept.len()
        );
        let newest: Vec<i64> = (400 - i64::try_from(kept.len()).unwrap()..400).collect();
        assert_eq!(kept, newest);
        assert!(!ends.write(&ended(1000, LONGEST)).unwrap());
        assert_eq!(numbers(dir.path()), kept, "too long to be kept");
        Ends::create(dir.path()).unwrap();
        assert!(numbers(dir.path()).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_cut_off_or_damaged_spoils_nothing_before_it(count in 1_i64..6, cut in any::<prop::sample::Index>(), flip in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let mut ends = Ends::create(dir.path()).unwrap();
            (0..count).for_each(|task| assert!(ends.write(&ended(task, 10)).unwrap()));
            let path = dir.path().join(FILES[0]);
            let mut bytes = std::fs::read(&path).unwrap();
            let one = bytes.len() / usize::try_from(count).unwrap();
            let at = cut.index(bytes.len());
            if flip { bytes[at] ^= 1; } else { bytes.truncate(at); }
            std::fs::write(&path, &bytes).unwrap();
            let read = numbers(dir.path());
            prop_assert!(read.len() >= at / one, "{} of {at} / {one}", read.len());
            prop_assert!(read.iter().copied().eq(0..i64::try_from(read.len()).unwrap()));
        }
    }
}
