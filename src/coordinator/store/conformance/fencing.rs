//! Leases, late and repeated reports, terminal states.

use super::*;
use crate::coordinator::store::{CancelTarget, CancelWish, EndCursor};
use crate::protocol::Outcome;
use crate::protocol::session::LostTry;

pub(in super::super) async fn a_result_is_accepted_once_and_repeated_as_a_duplicate(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let submitted = bench.submit_one(TaskSpec::argv(["true"])).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Assigned);
    assert_eq!(
        bench.report(manager, &task, started()).await,
        Verdict::Accepted
    );
    assert_eq!(bench.state(task.uuid).await, TaskState::Running);
    assert_eq!(
        bench.report(manager, &task, started()).await,
        Verdict::Duplicate
    );
    let (verdict, changes) = bench.report_with_changes(manager, &task, exited(0)).await;
    assert_eq!(verdict, Verdict::Accepted);
    assert_eq!(changes.ended[0].end.outcome, Outcome::Completed);
    // The whole batch again, as after a lost acknowledgement.
    assert_eq!(
        bench.report(manager, &task, started()).await,
        Verdict::Duplicate
    );
    let (verdict, changes) = bench.report_with_changes(manager, &task, exited(0)).await;
    assert_eq!((verdict, changes.ended.len()), (Verdict::Duplicate, 0));
    let detail = bench.task(submitted.uuid).await;
    assert_eq!(detail.summary.state, TaskState::Completed);
    assert_eq!((detail.history.len(), detail.summary.attempts), (1, 1));
    assert_eq!(detail.history[0].end.as_deref(), Some("completed"));
}

pub(in super::super) async fn a_terminal_state_never_changes(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(3)).await;
    let before = bench.task(task.uuid).await;
    assert_eq!(before.summary.state, TaskState::Failed);
    for op in [exited(0), cancelled(), released()] {
        let (verdict, changes) = bench.report_with_changes(manager, &task, op).await;
        assert_eq!((verdict, changes.stale), (Verdict::Stale, 1));
    }
    let target = CancelTarget::Task(task.uuid);
    let answer = bench.store.cancel(target, CancelWish::Now).await.unwrap();
    assert_eq!(answer.tasks[0].1, TaskState::Failed);
    assert_eq!(bench.task(task.uuid).await, before);
}

pub(in super::super) async fn a_late_result_counts_until_a_newer_lease_is_granted(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let (one, two) = (bench.manager(1).await, bench.manager(2).await);
    let tasks = bench.claim(one, 2).await;
    for task in &tasks {
        bench.report(one, task, started()).await;
    }
    let changes = bench.pass(TERM).await;
    assert_eq!((changes.reclaimed.len(), changes.ready), (2, 2));
    // Nobody has a newer lease of the first task.
    assert_eq!(
        bench.report(one, &tasks[0], exited(0)).await,
        Verdict::Accepted
    );
    let history = bench.task(tasks[0].uuid).await.history;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].end.as_deref(), Some("completed"));
    let again = bench.claim(two, 2).await;
    assert_eq!(again.len(), 1);
    assert!(again[0].lease > tasks[1].lease);
    assert_eq!(again[0].attempt, 2);
    let (verdict, changes) = bench.report_with_changes(one, &tasks[1], exited(0)).await;
    assert_eq!((verdict, changes.stale), (Verdict::Stale, 1));
    assert_eq!(
        bench.report(two, &again[0], exited(0)).await,
        Verdict::Accepted
    );
    let history = bench.task(tasks[1].uuid).await.history;
    assert_eq!(history[0].end.as_deref(), Some("lost: lease expired"));
    assert_eq!(history[1].end.as_deref(), Some("completed"));
}

pub(in super::super) async fn a_start_under_a_lease_that_was_taken_back_is_stale(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.pass(TERM).await;
    assert_eq!(
        bench.report(manager, &task, started()).await,
        Verdict::Stale
    );
    assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
}

pub(in super::super) async fn only_the_holder_of_the_lease_may_report(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let (one, two) = (bench.manager(1).await, bench.manager(2).await);
    let task = bench.claim_one(one).await;
    assert_eq!(bench.report(two, &task, exited(0)).await, Verdict::NotOwner);
    let wrong_uuid = WorkerTaskResp {
        uuid: Uuid::from_u128(9),
        ..task.clone()
    };
    let unknown = WorkerTaskResp {
        ids: None,
        id: 999,
        ..task.clone()
    };
    let never = under(&task, Lease(task.lease.0 + 1));
    for bad in [wrong_uuid, unknown, never] {
        let verdict = bench.report(one, &bad, exited(0)).await;
        assert!(matches!(verdict, Verdict::Invalid { .. }), "{verdict:?}");
    }
    assert_eq!(bench.state(task.uuid).await, TaskState::Assigned);
}

pub(in super::super) async fn a_later_life_grants_greater_leases(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        for _ in 0..2 {
            let task = bench.claim_one(manager).await;
            leases.push(task.lease);
            bench.report(manager, &task, released()).await;
        }
        bench.restart().await;
    }
    assert!(leases.is_sorted_by(|a, b| a < b), "{leases:?}");
    assert_eq!(leases[2].epoch(), leases[1].epoch() + 1);
}

pub(in super::super) async fn a_handed_back_task_is_ready_again_and_its_lease_is_over(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, started()).await;
    let (verdict, changes) = bench.report_with_changes(manager, &task, released()).await;
    assert_eq!((verdict, changes.ready), (Verdict::Accepted, 1));
    let detail = bench.task(task.uuid).await;
    assert_eq!(
        (detail.summary.state, detail.lease),
        (TaskState::Ready, None)
    );
    assert_eq!(detail.history[0].end.as_deref(), Some("released: drained"));
    assert_eq!(
        bench.report(manager, &task, released()).await,
        Verdict::Duplicate
    );
    assert_eq!(
        bench.report(manager, &task, exited(0)).await,
        Verdict::Stale
    );
}

pub(in super::super) async fn lost_tries_are_recorded_as_executions(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    let mut report = commit(&task, exited(0));
    report.attempt = 3;
    report.report.try_no = Try(4);
    report.lost_tries = (1..=2)
        .map(|attempt| LostTry {
            try_no: Try(attempt),
            attempt,
            started_at_us: 5,
            ended_at_us: (attempt == 1).then_some(7),
            cause: format!("worker {attempt} killed by signal 9"),
        })
        .collect();
    let committed = bench
        .store
        .commit(manager.holder, vec![report.into()])
        .await;
    assert_eq!(committed.unwrap().verdicts, [Verdict::Accepted]);
    let detail = bench.task(task.uuid).await;
    assert_eq!(detail.summary.attempts, 3);
    let ends: Vec<_> = detail
        .history
        .iter()
        .map(|attempt| {
            (
                attempt.attempt,
                attempt.try_no.0,
                attempt.end.clone().unwrap(),
            )
        })
        .collect();
    let lost = |n| (n, n, format!("lost: worker {n} killed by signal 9"));
    assert_eq!(ends, [lost(1), lost(2), (3, 4, "completed".to_owned())]);
    // A loss is over when it was seen, and at the latest when the next execution began.
    let result = detail.result.unwrap();
    let ended: Vec<_> = detail.history.iter().map(|one| one.ended_at_us).collect();
    assert_eq!(ended[..2], [Some(7), result.started_at_us]);
    assert!(ended[2] > result.started_at_us);
}

pub(in super::super) async fn a_task_that_never_started_leaves_no_execution(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench
        .report(manager, &task, failed_with(Reason::SpawnFailed))
        .await;
    let detail = bench.task(task.uuid).await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    assert_eq!((detail.history.len(), detail.summary.attempts), (0, 0));
    assert_eq!(detail.summary.reason.as_deref(), Some("spawn_failed"));
}

pub(in super::super) async fn ends_are_numbered_without_gaps_and_kept_whole(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    bench.submit_n(3).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 3).await;
    let mut result = exited(0);
    if let ReportTaskOp::Completed(result) = &mut result {
        result.stdout.tail = vec![0xff, b'x'];
        result.stdout.bytes = 2;
    }
    let commits: Vec<_> = tasks
        .iter()
        .map(|task| commit(task, result.clone()).into())
        .collect();
    let committed = bench.store.commit(manager.holder, commits).await.unwrap();
    bench.restart().await;
    let ends = bench.store.ends(EndCursor::default(), 10).await.unwrap();
    let cursors: Vec<_> = ends.iter().map(|end| end.cursor.0).collect();
    assert_eq!(cursors, [1, 2, 3]);
    assert_eq!(bench.store.last_end().await.unwrap(), EndCursor(3));
    for (told, kept) in committed.changes.ended.iter().zip(&ends) {
        assert_eq!(told.end, kept.end);
    }
    let later = bench.store.ends(EndCursor(2), 10).await.unwrap();
    assert_eq!(later.len(), 1);
}
