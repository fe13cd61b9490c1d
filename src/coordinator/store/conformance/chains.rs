//! Tasks that wait for the ends of others.

use super::*;
use crate::coordinator::store::{CancelTarget, CancelWish, EndCursor, Reported, RetryTarget};
use crate::protocol::chain::Chain;
use crate::protocol::report::FollowUps;
use crate::protocol::upstream::{Upstream, UpstreamEnd};

/// A spec named `id` that waits for others.
fn spec(id: &str, upstream: &[(&str, UpstreamEnd)]) -> TaskSpec {
    TaskSpec {
        id: Some(id.to_owned()),
        upstream: upstream
            .iter()
            .map(|(task, when)| Upstream {
                task: (*task).to_owned(),
                when: *when,
            })
            .collect(),
        ..TaskSpec::argv([id])
    }
}

fn batch(specs: Vec<TaskSpec>) -> NewTasks {
    let chain = Chain::of(specs.iter()).unwrap();
    let with_links = |(spec, links)| NewTask {
        links,
        ..new_task(None, spec)
    };
    NewTasks {
        suite: None,
        tasks: specs.into_iter().zip(chain.links).map(with_links).collect(),
    }
}

async fn submit(bench: &Bench<'_>, specs: Vec<TaskSpec>) -> Submitted {
    bench.store.submit(batch(specs)).await.unwrap()
}

/// `a`, then `b` and, should `a` fail, `rescue`; then `c` after `b`, and `last` after all, however they end.
fn graph() -> Vec<TaskSpec> {
    use UpstreamEnd::{Any, Failed, Ok};
    vec![
        spec("last", &[("c", Any), ("rescue", Any)]),
        spec("a", &[]),
        spec("b", &[("a", Ok)]),
        spec("c", &[("b", Ok)]),
        spec("rescue", &[("a", Failed)]),
    ]
}

async fn states(bench: &Bench<'_>, tasks: &[SubmittedTask]) -> Vec<TaskState> {
    let mut states = Vec::new();
    for task in tasks {
        states.push(bench.state(task.uuid).await);
    }
    states
}

pub(in super::super) async fn a_task_waits_for_the_ends_it_names(backend: &dyn Backend) {
    use TaskState::{Cancelled, Completed, Pending, Ready};
    let mut bench = Bench::new(backend).await;
    let submitted = submit(&bench, graph()).await;
    assert_eq!(
        (submitted.changes.accepted, submitted.changes.ready),
        (5, 1)
    );
    let tasks = submitted.response.tasks;
    let before = [Pending, Ready, Pending, Pending, Pending];
    assert_eq!(states(&bench, &tasks).await, before);
    let detail = bench.task(tasks[0].uuid).await;
    let names: Vec<_> = detail
        .upstream
        .iter()
        .map(|task| task.name.as_deref())
        .collect();
    assert_eq!(names, [Some("c"), Some("rescue")]);
    assert_eq!(detail.summary.waits_for, 2);
    let manager = bench.manager(1).await;
    for (name, ready, rest) in [
        ("a", 1, [Pending, Completed, Ready, Pending, Cancelled]),
        ("b", 1, [Pending, Completed, Completed, Ready, Cancelled]),
        ("c", 1, [Ready, Completed, Completed, Completed, Cancelled]),
    ] {
        // Time makes nothing of this due, and a restart forgets nothing.
        assert_eq!(bench.pass(Duration::from_secs(1)).await.ready, 0);
        bench.restart().await;
        let task = bench.claim_one(manager).await;
        assert_eq!(task.spec.args, [name]);
        let (_, changes) = bench.report_with_changes(manager, &task, exited(0)).await;
        assert_eq!(changes.ready, ready);
        // The acknowledgement is lost: nothing follows twice.
        let (verdict, changes) = bench.report_with_changes(manager, &task, exited(0)).await;
        assert_eq!((verdict, changes.ready), (Verdict::Duplicate, 0));
        assert_eq!(states(&bench, &tasks).await, rest);
    }
    let rescue = bench.task(tasks[4].uuid).await.result.unwrap();
    assert_eq!(rescue.reason, Reason::UpstreamFailed);
    let message = rescue.message.unwrap();
    assert!(
        message.starts_with("not needed: its upstream task `a`"),
        "{message}"
    );
}

pub(in super::super) async fn a_failure_ends_all_that_can_no_longer_be_run(backend: &dyn Backend) {
    use TaskState::{Failed, Pending, Ready};
    let bench = Bench::new(backend).await;
    let tasks = submit(&bench, graph()).await.response.tasks;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    let (_, changes) = bench.report_with_changes(manager, &task, exited(1)).await;
    let ended: Vec<_> = changes.ended.iter().map(|end| end.end.uuid).collect();
    assert_eq!(ended, [tasks[1].uuid, tasks[2].uuid, tasks[3].uuid]);
    assert_eq!(changes.ready, 1);
    let after = [Pending, Failed, Failed, Failed, Ready];
    assert_eq!(states(&bench, &tasks).await, after);
    let rescue = bench.claim_one(manager).await;
    assert_eq!(rescue.spec.args, ["rescue"]);
    bench.report(manager, &rescue, exited(0)).await;
    assert_eq!(bench.claim_one(manager).await.spec.args, ["last"]);
    let audit = bench.store.audit().await.unwrap();
    assert_eq!((audit.accepted, audit.in_flight, audit.gap()), (5, 1, 0));
}

pub(in super::super) async fn a_cancel_of_an_upstream_task_cancels_what_needs_it(
    backend: &dyn Backend,
) {
    use TaskState::{Cancelled, Ready};
    let bench = Bench::new(backend).await;
    let tasks = submit(&bench, graph()).await.response.tasks;
    let target = CancelTarget::Task(tasks[1].uuid);
    let answer = bench.store.cancel(target, CancelWish::Now).await.unwrap();
    assert_eq!(answer.changes.ended.len(), 4);
    let after = [Ready, Cancelled, Cancelled, Cancelled, Cancelled];
    assert_eq!(states(&bench, &tasks).await, after);
    // A task that waits can itself be cancelled.
    let tasks = submit(&bench, graph()).await.response.tasks;
    let target = CancelTarget::Task(tasks[2].uuid);
    bench
        .store
        .cancel(target, CancelWish::Graceful)
        .await
        .unwrap();
    assert_eq!(bench.state(tasks[2].uuid).await, Cancelled);
    assert_eq!(bench.state(tasks[3].uuid).await, Cancelled);
    assert_eq!(bench.state(tasks[1].uuid).await, Ready);
}

pub(in super::super) async fn an_end_before_the_submit_counts(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let old = bench.submit_n(3).await;
    let manager = bench.manager(1).await;
    let claimed = bench.claim(manager, 2).await;
    bench.report(manager, &claimed[0], exited(0)).await;
    bench.report(manager, &claimed[1], exited(1)).await;
    let names: Vec<String> = old.iter().map(|task| task.uuid.to_string()).collect();
    let ok = |name: usize| (names[name].as_str(), UpstreamEnd::Ok);
    let specs = vec![
        spec("met", &[ok(0)]),
        spec("lost", &[ok(1)]),
        spec("behind", &[("lost", UpstreamEnd::Ok)]),
        spec("open", &[ok(0), ok(2)]),
    ];
    let submitted = submit(&bench, specs).await;
    assert_eq!(
        (submitted.changes.ready, submitted.changes.ended.len()),
        (1, 2)
    );
    let tasks = submitted.response.tasks;
    let expected = [
        TaskState::Ready,
        TaskState::Failed,
        TaskState::Failed,
        TaskState::Pending,
    ];
    assert_eq!(states(&bench, &tasks).await, expected);
    assert_eq!(bench.task(tasks[3].uuid).await.summary.waits_for, 1);
    let nobody = Uuid::nil().to_string();
    let unknown = batch(vec![spec("x", &[(&nobody, UpstreamEnd::Ok)])]);
    let answer = bench.store.submit(unknown).await;
    assert!(matches!(
        answer,
        Err(StoreError::NotFound {
            what: "upstream task",
            ..
        })
    ));
    assert_eq!(bench.store.audit().await.unwrap().gap(), 0);
}

pub(in super::super) async fn a_back_off_of_an_upstream_task_is_no_end(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let first = TaskSpec {
        max_attempts: Some(2),
        ..spec("a", &[])
    };
    let specs = vec![first, spec("b", &[("a", UpstreamEnd::Ok)])];
    let tasks = submit(&bench, specs).await.response.tasks;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(1)).await;
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Pending);
    assert_eq!(bench.pass(Duration::from_secs(1)).await.ready, 1);
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(0)).await;
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Ready);
}

pub(in super::super) async fn a_failed_graph_is_repeated_as_a_graph(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let specs = || {
        let ok = UpstreamEnd::Ok;
        vec![
            spec("b", &[("a", ok)]),
            spec("a", &[]),
            spec("c", &[("b", ok)]),
        ]
    };
    let response = submit(&bench, specs()).await.response;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(1)).await;
    let target = RetryTarget::Suite(response.suite);
    let (new, changes) = bench.store.retry(target).await.unwrap();
    assert_eq!((new.len(), changes.ready), (3, 1));
    for name in ["a", "b", "c"] {
        let task = bench.claim_one(manager).await;
        assert_eq!(task.spec.args, [name]);
        bench.report(manager, &task, exited(0)).await;
    }
    // One alone waits for the newest repetition of what it waited for; the old ones keep their ends.
    let old = response.tasks[0].uuid;
    let alone = RetryTarget::Tasks(vec![old]);
    assert_eq!(bench.store.retry(alone).await.unwrap().1.ready, 1);
    assert_eq!(bench.state(old).await, TaskState::Failed);
}

pub(in super::super) async fn a_long_chain_ends_with_its_first_task(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let specs: Vec<TaskSpec> = (0..3000)
        .map(|n| match n {
            0 => spec("t0", &[]),
            n => spec(
                &format!("t{n}"),
                &[(&format!("t{}", n - 1), UpstreamEnd::Ok)],
            ),
        })
        .collect();
    submit(&bench, specs).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    let (_, changes) = bench.report_with_changes(manager, &task, exited(1)).await;
    assert_eq!(changes.ended.len(), 3000);
    assert_eq!(bench.counts().await, [(TaskState::Failed, 3000)].into());
}

/// A report with two follow-ups, the second after the first.
fn submitting(task: &WorkerTaskResp) -> Reported {
    let mut end = commit(task, exited(0));
    if let ReportTaskOp::Completed(result) = &mut end.report.op {
        result.follow_ups = Some(Box::new(FollowUps {
            accepted: 2,
            ..FollowUps::default()
        }));
    }
    let specs = vec![
        spec("first", &[]),
        spec("second", &[("first", UpstreamEnd::Ok)]),
    ];
    Reported {
        commit: end,
        follow_ups: batch(specs).tasks,
    }
}

pub(in super::super) async fn follow_ups_come_with_the_end_of_their_task_and_once(
    backend: &dyn Backend,
) {
    let mut bench = Bench::new(backend).await;
    let response = bench
        .submit_to(None, vec![TaskSpec::argv(["true"])])
        .await
        .response;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    let reports = vec![submitting(&task), submitting(&task)];
    let committed = bench.store.commit(manager.holder, reports).await.unwrap();
    assert_eq!(committed.verdicts, [Verdict::Accepted, Verdict::Duplicate]);
    assert_eq!(
        (committed.changes.accepted, committed.changes.ready),
        (2, 1)
    );
    let follow_ups = committed.changes.ended[0].end.follow_ups.clone();
    bench.restart().await;
    let again = vec![submitting(&task)];
    let committed = bench.store.commit(manager.holder, again).await.unwrap();
    assert_eq!(committed.verdicts, [Verdict::Duplicate]);
    assert_eq!(bench.counts().await.values().sum::<u64>(), 3);
    // Who reads the ends later learns the same.
    let ends = bench.store.ends(EndCursor::default(), 9).await.unwrap();
    assert_eq!(ends[0].end.follow_ups, follow_ups);
    let second = bench.task(follow_ups[1]).await;
    assert_eq!(second.summary.follow_up_of, Some(task.uuid));
    assert_eq!(second.summary.suite, response.suite);
    assert_eq!(second.summary.state, TaskState::Pending);
    let first = bench.claim_one(manager).await;
    assert_eq!(
        (first.uuid, first.upstream_task_uuid),
        (follow_ups[0], Some(task.uuid))
    );
    assert_eq!(bench.store.audit().await.unwrap().gap(), 0);
}

pub(in super::super) async fn a_stale_end_and_a_cancelled_task_submit_nothing(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.pass(TERM).await;
    let other = bench.manager(2).await;
    let again = bench.claim(other, 2).await;
    let stale = vec![submitting(&tasks[0])];
    let committed = bench.store.commit(manager.holder, stale).await.unwrap();
    assert_eq!(committed.verdicts, [Verdict::Stale]);
    let target = CancelTarget::Task(again[1].uuid);
    bench
        .store
        .cancel(target, CancelWish::Graceful)
        .await
        .unwrap();
    let late = vec![submitting(&again[1])];
    let committed = bench.store.commit(other.holder, late).await.unwrap();
    assert_eq!(
        (committed.verdicts, committed.changes.accepted),
        (vec![Verdict::Accepted], 0)
    );
    let noted = bench
        .task(again[1].uuid)
        .await
        .result
        .unwrap()
        .follow_ups
        .unwrap();
    assert_eq!((noted.accepted, noted.rejected), (0, 2));
    assert!(noted.problems[0].contains("cancel"), "{noted:?}");
    assert_eq!(bench.counts().await.values().sum::<u64>(), 2);
}
