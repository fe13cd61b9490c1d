//! The state machine alone; the stores' conformance suite covers it through the database.

use super::*;
use crate::protocol::TaskReport;

const HOLDER: HolderId = HolderId(7);

fn ready() -> Record {
    Record {
        task: TaskRef {
            id: 1,
            uuid: Uuid::from_u128(1),
        },
        suite: 1,
        suite_uuid: Uuid::nil(),
        demand: 1,
        state: TaskState::Ready,
        lease: Lease(0),
        settled: Settled::Open,
        holder: None,
        last_holder: None,
        cancel: None,
        attempts: 0,
        failures: 0,
        max_attempts: 1,
        backoff: None,
        retry_on: None,
        waits: 0,
        open_attempt: 0,
        queued_us: 0,
        claimed_us: None,
        started_us: None,
        finished_us: None,
        reason: None,
        exit_code: None,
        requeue_cause: None,
    }
}

fn report(record: &mut Record, op: ReportTaskOp, fx: &mut Effects) -> Verdict {
    let report = TaskReport {
        seq: 1,
        task_id: record.task.id,
        task_uuid: record.task.uuid,
        lease: record.lease,
        try_no: Try(1),
        op,
    };
    let commit = Commit {
        report,
        attempt: 0,
        lost_tries: Vec::new(),
    };
    record.report(HOLDER, commit, 100, fx)
}

#[test]
fn a_lease_counts_up_inside_an_epoch_and_jumps_with_the_next() {
    let mut record = ready();
    assert_eq!(record.grant(3, HOLDER, 0), Lease::new(3, 1));
    assert_eq!(record.grant(3, HOLDER, 0), Lease::new(3, 2));
    assert_eq!(record.grant(4, HOLDER, 0), Lease::new(4, 1));
}

#[test]
fn a_sender_that_counts_no_executions_has_them_counted_per_lease() {
    let mut record = ready();
    let mut fx = Effects::default();
    for expected in 1..=2 {
        record.grant(1, HOLDER, 0);
        report(&mut record, ReportTaskOp::Started { at_us: 5 }, &mut fx);
        report(&mut record, ReportTaskOp::Started { at_us: 5 }, &mut fx);
        assert_eq!((record.attempts, record.open_attempt), (expected, expected));
        record.take_back(ReclaimCause::Expired, "lease expired", 9, &mut fx);
    }
    let numbers: Vec<_> = fx.attempts.iter().map(|row| row.attempt).collect();
    assert_eq!(numbers, [1, 1, 2, 2]);
}

#[test]
fn a_back_off_of_zero_makes_the_task_ready_at_once() {
    let mut record = ready();
    record.max_attempts = 2;
    record.backoff = Some(Backoff {
        initial: Duration::ZERO.into(),
        max: Duration::ZERO.into(),
    });
    record.grant(1, HOLDER, 0);
    let mut fx = Effects::default();
    let failed = ReportTaskOp::Failed(TaskResult::not_started(Reason::SpawnFailed, "", 1));
    assert_eq!(report(&mut record, failed, &mut fx), Verdict::Accepted);
    assert_eq!((record.state, fx.due_us), (TaskState::Ready, None));
    assert_eq!(
        record.requeue_cause.as_deref(),
        Some("failed: spawn_failed")
    );
}

#[test]
fn taking_back_what_nobody_has_changes_nothing() {
    let mut record = ready();
    let mut fx = Effects::default();
    record.take_back(ReclaimCause::Left, "its holder left", 9, &mut fx);
    assert_eq!((record, fx.reclaimed), (ready(), vec![]));
}
