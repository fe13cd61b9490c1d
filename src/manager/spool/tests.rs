//! The log against torn writes, damage and restarts.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::log::{Log, read_file};
use super::recovery::read;
use super::*;
use crate::comm::begun::Begun;
use crate::protocol::report::{Reason, ReportTaskOp, TaskReport, TaskResult};
use crate::protocol::session::Commit;
use crate::protocol::{Lease, TaskRef, Try};

fn report(seq: u64, task_id: i64, op: ReportTaskOp) -> Record {
    Record::Report(Arc::new(Commit {
        report: TaskReport {
            seq,
            task_id,
            task_uuid: Uuid::from_u128(7),
            lease: Lease(1),
            try_no: Try(1),
            op,
        },
        attempt: 1,
        lost_tries: Vec::new(),
    }))
}

fn start(seq: u64, task_id: i64) -> Record {
    report(seq, task_id, ReportTaskOp::Started { at_us: 5 })
}

fn end(seq: u64, task_id: i64) -> Record {
    let result = TaskResult::not_started(Reason::Exit, "x".repeat(50), 0);
    report(seq, task_id, ReportTaskOp::Failed(result))
}

fn seqs(commits: &[Arc<Commit>]) -> Vec<u64> {
    commits.iter().map(|commit| commit.report.seq).collect()
}

async fn written(spool: &mut Spool, through: u64) {
    spool.flush();
    let wait = async {
        while spool.latest().written < through {
            spool.progress().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{:?}", spool.latest());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_disk_that_cannot_be_written() {
    let (batches_tx, batches_rx) = flume::bounded(1);
    let (patience_tx, patience_rx) = flume::bounded::<std::convert::Infallible>(1);
    let (_progress_tx, progress_rx) = watch::channel(Progress::default());
    // As the thread does while its writes fail: it takes nothing before it is told to give up.
    let thread = std::thread::Builder::new().spawn(move || {
        let _told = patience_rx.recv();
        drop(batches_rx);
    });
    let mut spool = Spool {
        batches_tx: Some(batches_tx),
        patience_tx: Some(patience_tx),
        pending: Vec::new(),
        progress_rx,
        thread: Some(thread.unwrap()),
    };
    for seq in 1..=2 {
        spool.append(start(seq, 1));
        spool.flush();
    }
    assert_eq!(spool.pending.len(), 1, "the queue is full");
    let closed = tokio::time::timeout(Duration::from_secs(20), spool.close()).await;
    assert!(closed.is_ok());
}

#[tokio::test]
async fn open_reports_come_back_and_committed_ones_do_not() {
    for durability in [Durability::Process, Durability::Power] {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, recovered) =
            Spool::open(dir.path(), durability, SlotNotes::default()).unwrap();
        assert_eq!((recovered.next_ticket, recovered.finals.len()), (1, 0));
        for record in [start(1, 10), end(2, 10), start(3, 11), end(4, 12)] {
            spool.append(record);
        }
        spool.append(Record::Committed { seqs: vec![4] });
        written(&mut spool, 5).await;
        spool.close().await;
        let (spool, recovered) = Spool::open(dir.path(), durability, SlotNotes::default()).unwrap();
        assert_eq!(seqs(&recovered.finals), [2]);
        assert_eq!(seqs(&recovered.lost), [3], "an execution without an end");
        assert!(recovered.next_ticket > 5);
        assert_eq!(recovered.dropped_bytes, 0);
        spool.close().await;
    }
}

#[tokio::test]
async fn what_notes_tell_is_in_the_log_before_they_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let begun = |task_id| Begun {
        task_id,
        task_uuid: Uuid::from_u128(7),
        lease: Lease(1),
        try_no: Try(1),
        attempt: 1,
        at_us: 5,
    };
    let notes = SlotNotes {
        begun: vec![begun(10), begun(11)],
        ended: Vec::new(),
    };
    let (spool, first) = Spool::open(dir.path(), Durability::Process, notes.clone()).unwrap();
    assert_eq!((seqs(&first.lost), first.next_ticket), (vec![1, 2], 3));
    spool.close().await;
    // Killed right then: with the notes or without them, the same is known.
    for notes in [notes, SlotNotes::default()] {
        let (spool, again) = Spool::open(dir.path(), Durability::Process, notes).unwrap();
        assert_eq!(again.lost, first.lost);
        assert!(again.next_ticket > 2);
        spool.close().await;
    }
}

#[tokio::test]
async fn the_log_is_emptied_when_everything_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) =
        Spool::open(dir.path(), Durability::Process, SlotNotes::default()).unwrap();
    let records = 4000;
    for seq in 1..=records {
        spool.append(end(seq, 1));
    }
    written(&mut spool, records).await;
    assert!(spool.latest().bytes > 256 << 10);
    spool.append(Record::Committed {
        seqs: (1..=records).collect(),
    });
    written(&mut spool, records + 1).await;
    assert!(spool.latest().bytes < 100, "{:?}", spool.latest());
    spool.append(end(records + 2, 9));
    written(&mut spool, records + 2).await;
    drop(spool);
    let recovered = read_file(&dir.path().join("reports.log")).unwrap();
    assert_eq!(seqs(&recovered.finals), [records + 2]);
}

#[test]
fn a_log_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reports.log");
    std::fs::write(&path, "MITOSPL9 and more").unwrap();
    let error = Log::open(dir.path(), Durability::Process, SlotNotes::default()).unwrap_err();
    assert!(error.to_string().contains("version"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"MITOSPL9 and more");
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (1..50u64, 0..9i64).prop_map(|(seq, task)| start(seq, task)),
        (1..50u64, 0..9i64).prop_map(|(seq, task)| end(seq, task)),
        proptest::collection::vec(1..50u64, 0..5).prop_map(|seqs| Record::Committed { seqs }),
        ".{0,20}".prop_map(|cause| Record::Try {
            task: TaskRef {
                id: 1,
                uuid: Uuid::nil()
            },
            lease: Lease(3),
            try_no: Try(2),
            cause,
        }),
    ]
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut bytes = record::MAGIC.to_vec();
    records.iter().for_each(|record| record.encode(&mut bytes));
    bytes
}

proptest! {
    #[test]
    fn a_log_cut_anywhere_yields_a_prefix_of_its_records(
        records in proptest::collection::vec(any_record(), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encode(&records);
        let cut = cut.index(bytes.len() + 1);
        let recovered = read(&bytes[..cut]);
        // The number of whole records before the cut is what an honest reader could have seen.
        let whole = (0..=records.len()).rev().find(|n| encode(&records[..*n]).len() <= cut);
        let expected = read(&encode(&records[..whole.unwrap_or(0)]));
        prop_assert_eq!(&recovered.finals, &expected.finals);
        prop_assert_eq!(&recovered.lost, &expected.lost);
        prop_assert_eq!(recovered.dropped_bytes + recovered.valid_bytes, cut as u64);
    }

    #[test]
    fn garbage_and_flipped_bits_never_panic(
        records in proptest::collection::vec(any_record(), 0..10),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = encode(&records);
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        let _ = read(&bytes);
        let mut tail = encode(&records);
        tail.extend_from_slice(&garbage);
        let _ = read(&tail);
        let _ = read(&garbage);
    }
}
