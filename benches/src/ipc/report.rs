//! A worker's report of any size, for the path that ends in a real spool.

use bytes::Bytes;
use uuid::Uuid;

use mitosis::protocol::frame::encode;
use mitosis::protocol::{Lease, ReportTaskOp, TaskReport, Try};

/// Tasks that reports are about, in turn; the number in the report is new each time.
const TASKS: i64 = 64;

/// A final report, encoded as a worker sends it, padded to `bytes` where it is shorter.
pub(super) fn frame(seq: u64, bytes: usize) -> Bytes {
    let bare = encode(&report(seq, 0)).len();
    let frame = encode(&report(seq, bytes.saturating_sub(bare)));
    // A longer text has a longer length in front of it.
    let surplus = frame.len().saturating_sub(bytes);
    if surplus == 0 || bytes < bare {
        return frame.into();
    }
    encode(&report(seq, bytes.saturating_sub(bare + surplus))).into()
}

fn report(seq: u64, padding: usize) -> TaskReport {
    let task = i64::try_from(seq).unwrap_or(0) % TASKS;
    TaskReport {
        seq,
        task_id: task,
        task_uuid: Uuid::from_u128(7),
        lease: Lease::new(1, 1),
        try_no: Try(1),
        op: ReportTaskOp::Released {
            reason: "x".repeat(padding),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mitosis::protocol::frame::decode;

    #[test]
    fn a_report_has_the_size_that_was_asked_for() {
        for bytes in [256, 300, 4096, 65_536, 70_000] {
            let frame = frame(9, bytes);
            assert_eq!(frame.len(), bytes);
            let report: TaskReport = decode("report", &frame).unwrap();
            assert_eq!(report.seq, 9);
            assert!(report.op.is_final());
        }
    }

    #[test]
    fn no_report_is_shorter_than_its_fields() {
        assert!(frame(1, 1).len() > 1);
    }
}
