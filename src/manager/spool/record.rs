//! What the spool holds, and how it lies in the file.
//!
//! ```text
//!   file    "MITOSPL1", then records
//!   record  payload length (u32, little endian) | crc32 of the payload (u32, little endian) | payload (MessagePack)
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::session::Commit;
use crate::protocol::{Lease, TaskRef, Try};

/// First bytes of a log; the digit is the version of the layout.
pub(super) const MAGIC: &[u8; 8] = b"MITOSPL1";
/// Bytes before a payload.
pub(super) const HEAD: usize = 8;
/// Longest payload. A report is some kilobytes; anything above this is damage.
pub(super) const LONGEST: usize = 16 << 20;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The next try of a lease, and why there is one.
    Try {
        /// The task.
        task: TaskRef,
        /// The store's fence.
        lease: Lease,
        /// The manager's fence.
        try_no: Try,
        /// Why there is one.
        cause: String,
    },
    /// An accepted report.
    Report(Arc<Commit>),
    /// Reports that the coordinator has, or does not want.
    Committed {
        /// Their numbers.
        seqs: Vec<u64>,
    },
}

/// The same as it is written: borrowed, so that a shared report is not cloned.
#[derive(Serialize)]
enum Written<'a> {
    Try(&'a TaskRef, Lease, Try, &'a str),
    Report(&'a Commit),
    Committed(&'a [u64]),
}

#[derive(Deserialize)]
enum Read {
    Try(TaskRef, Lease, Try, String),
    Report(Box<Commit>),
    Committed(Vec<u64>),
}

impl Record {
    /// Appends the record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let written = match self {
            Self::Try {
                task,
                lease,
                try_no,
                cause,
            } => Written::Try(task, *lease, *try_no, cause),
            Self::Report(commit) => Written::Report(commit),
            Self::Committed { seqs } => Written::Committed(seqs),
        };
        let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
        written
            .serialize(&mut serializer)
            .expect("records are plain data");
        let payload = &out[start + HEAD..];
        let length =
            u32::try_from(payload.len()).expect("a record is no longer than its frame was");
        let crc = crc32fast::hash(payload);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + HEAD].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at the start of `bytes` and says how long it is; `None` when there is no whole, valid one.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if length > LONGEST {
            return None;
        }
        let payload = rest.get(..length)?;
        if crc32fast::hash(payload) != u32::from_le_bytes(*crc) {
            return None;
        }
        let record = match rmp_serde::from_slice(payload).ok()? {
            Read::Try(task, lease, try_no, cause) => Self::Try {
                task,
                lease,
                try_no,
                cause,
            },
            Read::Report(commit) => Self::Report(Arc::from(commit)),
            Read::Committed(seqs) => Self::Committed { seqs },
        };
        Some((record, HEAD + length))
    }
}
