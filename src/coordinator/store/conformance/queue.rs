//! Submitting and claiming.

use super::*;
use crate::protocol::task::Resources;

pub(in super::super) async fn a_repeated_submit_adds_nothing(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    let batch = || NewTasks {
        suite: None,
        tasks: vec![
            new_task(Some("a"), TaskSpec::argv(["one"])),
            new_task(Some("b"), TaskSpec::argv(["two"])),
            new_task(Some("a"), TaskSpec::argv(["one"])),
            new_task(None, TaskSpec::argv(["three"])),
        ],
    };
    let first = bench.store.submit(batch()).await.unwrap();
    let existing: Vec<_> = first.response.tasks.iter().map(|t| t.existing).collect();
    assert_eq!(existing, [false, false, true, false]);
    assert_eq!(first.response.tasks[0].uuid, first.response.tasks[2].uuid);
    assert_eq!((first.changes.accepted, first.changes.ready), (3, 3));
    bench.restart().await;
    let second = bench.store.submit(batch()).await.unwrap();
    for place in [0, 1, 2] {
        let (old, new) = (first.response.tasks[place], second.response.tasks[place]);
        assert_eq!((new.uuid, new.existing), (old.uuid, true));
    }
    assert!(!second.response.tasks[3].existing);
    assert_eq!(second.changes.accepted, 1);
    assert_eq!(bench.counts().await, [(TaskState::Ready, 4)].into());
}

pub(in super::super) async fn a_submit_of_known_keys_makes_no_suite(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let batch = || NewTasks {
        suite: None,
        tasks: vec![new_task(Some("a"), TaskSpec::argv(["one"]))],
    };
    let first = bench.store.submit(batch()).await.unwrap();
    let second = bench.store.submit(batch()).await.unwrap();
    assert_eq!(first.response.suite, second.response.suite);
    assert_eq!(bench.store.suites(0, 10).await.unwrap().len(), 1);
}

pub(in super::super) async fn keys_belong_to_the_suite_that_is_named(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let submit = async |suite| {
        let tasks = vec![new_task(Some("a"), TaskSpec::argv(["one"]))];
        bench.store.submit(NewTasks { suite, tasks }).await.unwrap()
    };
    let name = |name: &str| Some(SuiteRef::New { name: name.into() });
    let one = submit(name("one")).await.response;
    let two = submit(name("two")).await.response;
    let none = submit(None).await.response;
    let all = [&one, &two, &none].map(|answer| answer.tasks[0]);
    assert!(all.iter().all(|task| !task.existing), "{all:?}");
    let again = submit(Some(SuiteRef::Uuid(one.suite))).await.response;
    assert_eq!(again.tasks[0].uuid, one.tasks[0].uuid);
    let unknown = bench
        .store
        .submit(NewTasks {
            suite: Some(SuiteRef::Uuid(Uuid::nil())),
            tasks: Vec::new(),
        })
        .await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

pub(in super::super) async fn the_highest_priority_is_claimed_first_then_the_oldest(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let priorities = [0, 5, -1, 5, 0];
    // Different demands too: the order holds across them.
    let specs = priorities.iter().enumerate().map(|(n, priority)| TaskSpec {
        priority: *priority,
        tags: if n % 2 == 0 {
            vec!["gpu".into()]
        } else {
            Vec::new()
        },
        ..TaskSpec::argv(["true"])
    });
    let tasks = bench.submit(specs.collect()).await;
    let manager = bench.manager(1).await;
    let mut claimed = bench.claim(manager, 2).await;
    claimed.extend(bench.claim(manager, 9).await);
    let order: Vec<_> = claimed.iter().map(|task| task.id).collect();
    let expected: Vec<_> = [1, 3, 0, 4, 2].map(|n: usize| tasks[n].id).to_vec();
    assert_eq!(order, expected);
    assert!(bench.claim(manager, 9).await.is_empty());
}

pub(in super::super) async fn a_holder_gets_only_what_it_can_ever_run(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let needs = |cpus, tags: &[&str]| TaskSpec {
        resources: Resources {
            cpus,
            ..Resources::default()
        },
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..TaskSpec::argv(["true"])
    };
    let tasks = bench
        .submit(vec![
            needs(Some(4.0), &[]),
            needs(Some(4.001), &[]),
            needs(None, &["linux", "gpu"]),
            needs(None, &["arm"]),
        ])
        .await;
    let manager = bench.manager(1).await;
    let claimed = bench.claim(manager, 9).await;
    let ids: Vec<_> = claimed.iter().map(|task| task.id).collect();
    assert_eq!(ids, [tasks[0].id, tasks[2].id]);
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Ready);
    assert_eq!(bench.state(tasks[3].uuid).await, TaskState::Ready);
}

pub(in super::super) async fn ten_thousand_tasks_are_one_submit(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let tasks = bench.submit_n(10_000).await;
    assert_eq!(tasks.len(), 10_000);
    assert!(tasks.is_sorted_by(|a, b| a.id < b.id));
    let manager = bench.manager(1).await;
    let mut left = 10_000;
    while left > 0 {
        let claimed = bench.claim(manager, 1_000).await;
        left -= claimed.len();
        let commits = claimed.iter().map(|task| commit(task, exited(0)));
        let commits: Vec<_> = commits.map(Into::into).collect();
        let committed = bench.store.commit(manager.holder, commits).await.unwrap();
        assert_eq!(committed.changes.ended.len(), claimed.len());
    }
    assert_eq!(
        bench.counts().await,
        [(TaskState::Completed, 10_000)].into()
    );
    let audit = bench.store.audit().await.unwrap();
    assert_eq!((audit.finished, audit.gap()), (10_000, 0));
}

pub(in super::super) async fn an_answer_is_bounded_in_bytes(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let big = TaskSpec::argv(["x".repeat(900_000)]);
    bench.submit(vec![big; 12]).await;
    let manager = bench.manager(1).await;
    let first = bench.claim(manager, 100).await.len();
    assert!((1..12).contains(&first), "{first}");
    let second = bench.claim(manager, 100).await.len();
    assert_eq!(first + second, 12);
}

pub(in super::super) async fn a_submission_in_parts_begins_as_a_whole(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    let submission = uuid::Uuid::now_v7();
    let tasks = || vec![new_task(None, TaskSpec::argv(["one"])); 3];
    let part = |number, is_last| Part {
        submission,
        number,
        is_last,
    };
    let send = async |bench: &Bench, number, is_last| {
        let suite = None;
        let batch = NewTasks {
            suite,
            tasks: tasks(),
        };
        bench.store.submit_part(batch, part(number, is_last)).await
    };
    let early = send(&bench, 1, false).await;
    assert!(matches!(
        early,
        Err(StoreError::PartMissing { there: 0, .. })
    ));
    let first = send(&bench, 0, false).await.unwrap();
    assert_eq!((first.changes.accepted, first.changes.ready), (3, 0));
    let again = send(&bench, 0, false).await.unwrap();
    assert_eq!(again.changes.accepted, 0);
    assert_eq!(again.response.tasks[2].uuid, first.response.tasks[2].uuid);
    bench.restart().await;
    bench.clock.advance(TERM);
    bench.store.advance().await.unwrap();
    let manager = bench.manager(1).await;
    assert_eq!(
        bench.claim(manager, 9).await.len(),
        0,
        "nothing of it runs yet"
    );
    let last = send(&bench, 1, true).await.unwrap();
    assert_eq!(last.response.suite, first.response.suite);
    while bench.store.advance().await.unwrap().next_due == Some(Duration::ZERO) {}
    let repeated = send(&bench, 1, true).await.unwrap();
    assert_eq!(repeated.response.tasks[0].uuid, last.response.tasks[0].uuid);
    assert_eq!(bench.counts().await, [(TaskState::Ready, 6)].into());
    assert_eq!(bench.claim(manager, 9).await.len(), 6);
    assert_eq!(bench.store.audit().await.unwrap().gap(), 0);
}

pub(in super::super) async fn a_submission_that_is_given_up_is_cancelled(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let part = Part {
        submission: uuid::Uuid::now_v7(),
        number: 0,
        is_last: false,
    };
    let batch = NewTasks {
        suite: None,
        tasks: vec![new_task(None, TaskSpec::argv(["one"])); 3],
    };
    bench.store.submit_part(batch, part).await.unwrap();
    bench.store.advance().await.unwrap();
    assert_eq!(bench.counts().await, [(TaskState::Pending, 3)].into());
    bench.clock.advance(Duration::from_secs(3601));
    while bench.store.advance().await.unwrap().next_due == Some(Duration::ZERO) {}
    assert_eq!(bench.counts().await, [(TaskState::Cancelled, 3)].into());
    assert_eq!(bench.store.audit().await.unwrap().gap(), 0);
}

pub(in super::super) async fn a_submission_of_one_part_can_be_claimed_at_once(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let part = Part {
        submission: uuid::Uuid::now_v7(),
        number: 0,
        is_last: true,
    };
    let batch = || NewTasks {
        suite: None,
        tasks: vec![new_task(None, TaskSpec::argv(["one"])); 3],
    };
    let first = bench.store.submit_part(batch(), part).await.unwrap();
    assert_eq!(first.changes.ready, 3);
    let again = bench.store.submit_part(batch(), part).await.unwrap();
    assert_eq!((again.changes.ready, again.response.tasks.len()), (0, 3));
    assert_eq!(bench.counts().await, [(TaskState::Ready, 3)].into());
}
