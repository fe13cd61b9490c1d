//! Cancel, retries, back-off, durability.

use super::*;
use crate::coordinator::store::{CancelTarget, CancelWish, RetryTarget};
use crate::protocol::task::Backoff;

async fn cancel(bench: &Bench<'_>, task: Uuid, wish: CancelWish) -> Changes {
    let target = CancelTarget::Task(task);
    bench.store.cancel(target, wish).await.unwrap().changes
}

pub(in super::super) async fn a_cancel_of_what_nobody_has_is_the_end(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let task = bench.submit_one(TaskSpec::argv(["true"])).await;
    let changes = cancel(&bench, task.uuid, CancelWish::Graceful).await;
    assert_eq!(changes.ended.len(), 1);
    let detail = bench.task(task.uuid).await;
    assert_eq!(detail.summary.state, TaskState::Cancelled);
    assert_eq!(detail.result.unwrap().reason, Reason::Cancelled);
    let manager = bench.manager(1).await;
    assert!(bench.claim(manager, 1).await.is_empty());
    let unknown = CancelTarget::Task(Uuid::nil());
    let answer = bench.store.cancel(unknown, CancelWish::Now).await;
    assert!(matches!(answer, Err(StoreError::NotFound { .. })));
}

pub(in super::super) async fn a_cancel_of_a_held_task_reaches_its_holder(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[1], started()).await;
    for task in &tasks {
        let changes = cancel(&bench, task.uuid, CancelWish::Graceful).await;
        assert_eq!(changes.cancels, [manager.holder]);
        assert!(bench.task(task.uuid).await.cancel_requested);
    }
    let orders = bench.store.cancel_orders(manager.holder).await.unwrap();
    let graceful: Vec<_> = orders.iter().map(|order| order.graceful).collect();
    assert_eq!(graceful, [true, true]);
    // A stronger wish wins, a weaker one does not undo it.
    cancel(&bench, tasks[1].uuid, CancelWish::Now).await;
    cancel(&bench, tasks[1].uuid, CancelWish::Graceful).await;
    let orders = bench.store.cancel_orders(manager.holder).await.unwrap();
    assert!(orders[0].graceful && !orders[1].graceful);
    assert_eq!(
        bench.report(manager, &tasks[0], started()).await,
        Verdict::Cancel
    );
    let (_, changes) = bench
        .report_with_changes(manager, &tasks[0], cancelled())
        .await;
    assert_eq!(changes.cancels, [manager.holder]);
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Cancelled);
    // The second was faster than its cancel: its real result stays.
    bench.report(manager, &tasks[1], exited(0)).await;
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Completed);
    let orders = bench.store.cancel_orders(manager.holder).await.unwrap();
    assert_eq!(orders, []);
}

pub(in super::super) async fn a_cancel_beyond_a_cut_path_ends_with_the_lease(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[0], started()).await;
    for task in &tasks {
        cancel(&bench, task.uuid, CancelWish::Graceful).await;
    }
    let changes = bench.pass(TERM).await;
    assert_eq!((changes.ended.len(), changes.ready), (2, 0));
    let detail = bench.task(tasks[0].uuid).await;
    assert_eq!(detail.summary.state, TaskState::Cancelled);
    assert_eq!(detail.result.unwrap().started_at_us, Some(10));
    // Too late: the end is stored.
    assert_eq!(
        bench.report(manager, &tasks[0], exited(0)).await,
        Verdict::Stale
    );
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Cancelled);
}

pub(in super::super) async fn a_cancelled_task_that_is_handed_back_is_cancelled(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    cancel(&bench, task.uuid, CancelWish::Graceful).await;
    bench.report(manager, &task, released()).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Cancelled);
}

pub(in super::super) async fn a_cancelled_suite_keeps_what_had_ended(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let suite = bench
        .submit_to(None, vec![TaskSpec::argv(["true"]); 3])
        .await
        .response
        .suite;
    let other = bench.submit_one(TaskSpec::argv(["true"])).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[0], exited(0)).await;
    let target = CancelTarget::suite(suite);
    let answer = bench
        .store
        .cancel(target, CancelWish::Graceful)
        .await
        .unwrap();
    let expected = [
        (TaskState::Assigned, 1),
        (TaskState::Completed, 1),
        (TaskState::Cancelled, 1),
    ];
    assert!(answer.rest.is_none());
    let counts = bench.store.counts(Some(suite)).await.unwrap();
    assert_eq!(counts, expected.into());
    assert_eq!(bench.state(other.uuid).await, TaskState::Ready);
}

pub(in super::super) async fn a_cancel_of_many_that_wait_holds_at_once_and_ends_them_afterwards(
    backend: &dyn Backend,
) {
    const MANY: usize = 5_000;
    let bench = Bench::new(backend).await;
    let many = bench
        .submit_to(None, vec![TaskSpec::argv(["true"]); MANY])
        .await
        .response
        .suite;
    let other = bench.submit_one(TaskSpec::argv(["true"])).await;
    let manager = bench.manager(1).await;
    let running = bench.claim(manager, 2).await;
    let cancel = bench
        .store
        .cancel(CancelTarget::suite(many), CancelWish::Graceful);
    let answer = cancel.await.unwrap();
    // What somebody has hears of it first.
    assert_eq!(answer.changes.cancels, [manager.holder]);
    let orders = bench.store.cancel_orders(manager.holder).await.unwrap();
    assert_eq!(orders.len(), running.len());
    // Nothing of it is granted, marked or not; what it does not name is.
    let granted = |tasks: Vec<crate::protocol::WorkerTaskResp>| -> Vec<Uuid> {
        tasks.iter().map(|task| task.uuid).collect()
    };
    assert_eq!(granted(bench.claim(manager, 10).await), [other.uuid]);
    let rest = answer.rest.expect("too many for one transaction");
    let marked = bench.store.cancel_rest(rest).await.unwrap();
    assert_eq!(marked, (MANY - running.len()) as u64);
    assert!(granted(bench.claim(manager, 10).await).is_empty());
    let mut rounds = 0;
    while bench.store.advance().await.unwrap().next_due == Some(Duration::ZERO) {
        rounds += 1;
        assert!(rounds < MANY, "they never end");
    }
    let counts = bench.store.counts(Some(many)).await.unwrap();
    let expected = [
        (TaskState::Assigned, 2),
        (TaskState::Cancelled, MANY as u64 - 2),
    ];
    assert_eq!(counts, expected.into());
    assert_eq!(bench.store.audit().await.unwrap().gap(), 0);
}

pub(in super::super) async fn a_failure_is_tried_again_after_its_back_off(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    let second = Duration::from_secs(1);
    let spec = TaskSpec {
        max_attempts: Some(3),
        backoff: Some(Backoff {
            initial: (10 * second).into(),
            max: (15 * second).into(),
        }),
        ..TaskSpec::argv(["false"])
    };
    let submitted = bench.submit_one(spec).await;
    let manager = bench.manager(1).await;
    for (attempt, pause) in [(1, 10), (2, 15)] {
        let task = bench.claim_one(manager).await;
        assert_eq!(task.attempt, attempt);
        let (_, changes) = bench.report_with_changes(manager, &task, exited(1)).await;
        let drawn = changes.next_due.unwrap();
        assert!(
            (pause * second * 3 / 4..=pause * second).contains(&drawn),
            "{drawn:?}"
        );
        assert_eq!(bench.state(task.uuid).await, TaskState::Pending);
        // The acknowledgement is lost and the report comes again: one failure all the same.
        assert_eq!(
            bench.report(manager, &task, exited(1)).await,
            Verdict::Duplicate
        );
        bench.restart().await;
        assert_eq!(bench.pass(drawn - second).await.ready, 0);
        assert_eq!(bench.pass(second).await.ready, 1);
    }
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(1)).await;
    let detail = bench.task(submitted.uuid).await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    assert_eq!((detail.summary.attempts, detail.history.len()), (3, 3));
    let causes: Vec<_> = detail
        .history
        .iter()
        .map(|attempt| attempt.cause.as_deref())
        .collect();
    assert_eq!(causes, [None, Some("failed: exit"), Some("failed: exit")]);
}

pub(in super::super) async fn a_lost_holder_costs_no_allowed_failure(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    for _ in 0..3 {
        let task = bench.claim_one(manager).await;
        bench.report(manager, &task, started()).await;
        bench.pass(TERM).await;
        assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
    }
    let task = bench.claim_one(manager).await;
    assert_eq!(task.attempt, 4);
    bench.report(manager, &task, exited(0)).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Completed);
}

pub(in super::super) async fn some_failures_are_final(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let spec = TaskSpec {
        max_attempts: Some(9),
        ..TaskSpec::argv(["true"])
    };
    bench.submit(vec![spec.clone(), spec]).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench
        .report(manager, &tasks[0], failed_with(Reason::Strikes))
        .await;
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Failed);
    // A cancel that came too late for the run is still heard: there is no further attempt.
    cancel(&bench, tasks[1].uuid, CancelWish::Graceful).await;
    bench.report(manager, &tasks[1], exited(1)).await;
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Failed);
}

pub(in super::super) async fn only_the_kinds_that_are_named_are_tried_again(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let spec = TaskSpec {
        max_attempts: Some(3),
        retry_on: vec![Reason::Timeout],
        ..TaskSpec::argv(["true"])
    };
    bench.submit(vec![spec.clone(), spec]).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench
        .report(manager, &tasks[0], failed_with(Reason::Timeout))
        .await;
    bench.report(manager, &tasks[1], exited(1)).await;
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Pending);
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Failed);
}

pub(in super::super) async fn a_retry_is_a_new_task_that_names_the_old(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let batch = bench
        .submit_to(None, vec![TaskSpec::argv(["false", "x"]); 3])
        .await
        .response;
    let old = batch.tasks[0].uuid;
    let early = bench.store.retry(RetryTarget::Tasks(vec![old])).await;
    assert!(matches!(early, Err(StoreError::NotEnded(uuid)) if uuid == old));
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 3).await;
    for (task, code) in tasks.iter().zip([1, 0, 2]) {
        bench.report(manager, task, exited(code)).await;
    }
    let (new, changes) = bench
        .store
        .retry(RetryTarget::Tasks(vec![old]))
        .await
        .unwrap();
    assert_eq!((new.len(), changes.accepted), (1, 1));
    let detail = bench.task(new[0].uuid).await;
    assert_eq!(detail.summary.retry_of, Some(old));
    assert_eq!(detail.spec, TaskSpec::argv(["false", "x"]));
    assert_eq!(detail.summary.suite, batch.suite);
    assert_eq!(bench.state(old).await, TaskState::Failed);
    // Of the suite only the third is left: the first has its successor, the second completed.
    let (rest, _) = bench
        .store
        .retry(RetryTarget::Suite(batch.suite))
        .await
        .unwrap();
    assert_eq!(rest.len(), 1);
    let retried = bench.task(rest[0].uuid).await.summary.retry_of;
    assert_eq!(retried, Some(batch.tasks[2].uuid));
}

pub(in super::super) async fn everything_survives_a_restart(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    let submitted = bench.submit_n(3).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[0], exited(0)).await;
    bench.report(manager, &tasks[1], started()).await;
    cancel(&bench, tasks[1].uuid, CancelWish::Graceful).await;
    let mut before = Vec::new();
    for task in &submitted {
        before.push(bench.task(task.uuid).await);
    }
    let (epoch, instance) = (bench.store.epoch(), bench.store.instance());
    let kept = bench.store.secret("key", vec![1]).await.unwrap();
    bench.restart().await;
    for (task, before) in submitted.iter().zip(before) {
        assert_eq!(bench.task(task.uuid).await, before);
    }
    assert_eq!(bench.store.epoch(), epoch + 1);
    assert_eq!(bench.store.instance(), instance);
    assert_eq!(bench.store.secret("key", vec![2]).await.unwrap(), kept);
    // The same session goes on, and the cancel is not forgotten.
    assert_eq!(bench.claim(manager, 9).await.len(), 1);
    let orders = bench.store.cancel_orders(manager.holder).await.unwrap();
    assert_eq!(orders.len(), 1);
    let audit = bench.store.audit().await.unwrap();
    assert_eq!((audit.accepted, audit.gap()), (3, 0));
}
