//! Reading a log back: the longest valid prefix, and what of it is still open.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::protocol::session::Commit;
use crate::protocol::{Lease, TaskRef, Try};

use super::record::{MAGIC, Record};

/// What an earlier life left.
#[derive(Debug, Default, PartialEq)]
pub struct Recovered {
    /// Ends and releases that are not committed, in order.
    pub finals: Vec<Arc<Commit>>,
    /// Starts whose end was never reported: what became of them is unknown.
    pub lost: Vec<Arc<Commit>>,
    /// Numbers of records start here.
    pub next_ticket: u64,
    /// Bytes at the end of the log that were no record.
    pub dropped_bytes: u64,
    /// Bytes of the valid prefix.
    pub(super) valid_bytes: u64,
}

/// Collects the open reports of a log.
///
/// A start is open until its end is known, not until it is committed: the end says more.
#[derive(Debug, Default)]
pub(super) struct Open {
    reports: BTreeMap<u64, Arc<Commit>>,
    starts: HashMap<(i64, Lease), u64>,
    highest: u64,
    records: u64,
}

impl Open {
    /// Applies a record.
    pub(super) fn apply(&mut self, record: Record) {
        self.records += 1;
        match record {
            Record::Try { .. } => {}
            Record::Report(commit) => {
                let seq = commit.report.seq;
                self.highest = self.highest.max(seq);
                let lease = (commit.report.task_id, commit.report.lease);
                let earlier = if commit.report.op.is_final() {
                    self.starts.remove(&lease)
                } else {
                    self.starts.insert(lease, seq)
                };
                if let Some(start) = earlier {
                    self.reports.remove(&start);
                }
                self.reports.insert(seq, commit);
            }
            Record::Committed { seqs } => {
                for seq in seqs {
                    self.highest = self.highest.max(seq);
                    self.close(seq);
                }
            }
        }
    }

    fn close(&mut self, seq: u64) {
        if let Some(commit) = self.reports.remove(&seq)
            && !commit.report.op.is_final()
        {
            self.starts
                .remove(&(commit.report.task_id, commit.report.lease));
        }
    }

    /// Reports that are not committed.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Arc<Commit>> {
        self.reports.values()
    }

    /// True when nothing would be lost with the log.
    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    fn into_recovered(self) -> Recovered {
        let (finals, lost) = self
            .reports
            .into_values()
            .partition(|commit| commit.report.op.is_final());
        Recovered {
            finals,
            lost,
            // Records other than reports have numbers too, so the highest number seen may be short by their count.
            next_ticket: self.highest + self.records + 1,
            ..Recovered::default()
        }
    }
}

/// Reads a log. Anything may be in it: what is no record ends it.
pub(super) fn read(bytes: &[u8]) -> Recovered {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Recovered {
            next_ticket: 1,
            dropped_bytes: bytes.len() as u64,
            ..Recovered::default()
        };
    };
    let mut open = Open::default();
    while let Some((record, length)) = Record::decode(rest) {
        open.apply(record);
        rest = &rest[length..];
    }
    Recovered {
        dropped_bytes: rest.len() as u64,
        valid_bytes: (bytes.len() - rest.len()) as u64,
        ..open.into_recovered()
    }
}

/// One line for the operator about a try that was recorded; used where a log is shown.
impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Try {
                task: TaskRef { uuid, .. },
                try_no: Try(number),
                cause,
                ..
            } => write!(f, "task {uuid}: try {number} because {cause}"),
            Self::Report(commit) => write!(f, "report {}", commit.report.seq),
            Self::Committed { seqs } => write!(f, "{} reports committed", seqs.len()),
        }
    }
}
