//! Lists and counts.

use super::*;
use crate::coordinator::store::{TaskQuery, Whereabouts};
use crate::protocol::task::Resources;

pub(in super::super) async fn lists_are_filtered_and_go_on_after_a_cursor(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let suite = bench
        .submit_to(None, vec![TaskSpec::argv(["true"]); 3])
        .await
        .response
        .suite;
    let others = bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(7)).await;
    let list = async |query: TaskQuery| {
        let tasks = bench.store.tasks(query).await.unwrap();
        tasks.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    let query = TaskQuery {
        limit: 2,
        ..TaskQuery::default()
    };
    assert_eq!(list(query.clone()).await, [1, 2]);
    let after = TaskQuery {
        after: 2,
        limit: 9,
        ..query.clone()
    };
    assert_eq!(list(after).await, [3, others[0].id, others[1].id]);
    let in_suite = TaskQuery {
        suite: Some(suite),
        after: 1,
        limit: 9,
        ..query.clone()
    };
    assert_eq!(list(in_suite.clone()).await, [2, 3]);
    let failed = TaskQuery {
        states: vec![TaskState::Failed, TaskState::Completed],
        ..query.clone()
    };
    assert_eq!(list(failed).await, [task.id]);
    let ready = TaskQuery {
        states: vec![TaskState::Ready],
        after: 0,
        ..in_suite
    };
    assert_eq!(list(ready).await, [2, 3]);
    let unknown = TaskQuery {
        suite: Some(Uuid::nil()),
        ..query
    };
    assert!(matches!(
        bench.store.tasks(unknown).await,
        Err(StoreError::NotFound { .. })
    ));
}

pub(in super::super) async fn a_task_is_where_it_is(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let task = bench.submit_n(1).await[0];
    let at = async || bench.store.whereabouts(task.uuid).await.unwrap();
    assert_eq!(at().await, Some(Whereabouts::Unheld));
    let manager = bench.manager(1).await;
    let claimed = bench.claim_one(manager).await;
    let holder = manager_named(1);
    let here = Some(Whereabouts::Held(holder, held(&claimed)));
    assert_eq!(at().await, here);
    bench.report(manager, &claimed, started()).await;
    assert_eq!(at().await, here);
    bench.report(manager, &claimed, released()).await;
    assert_eq!(at().await, Some(Whereabouts::Unheld));
    let again = bench.claim_one(manager).await;
    assert_eq!(at().await, Some(Whereabouts::Held(holder, held(&again))));
    bench.report(manager, &again, exited(7)).await;
    assert_eq!(at().await, Some(Whereabouts::Ended));
    assert_eq!(bench.store.whereabouts(Uuid::nil()).await.unwrap(), None);
}

pub(in super::super) async fn selectors_name_the_same_tasks_as_their_grammar(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let labelled = |value: &str| TaskSpec {
        labels: [("kind".to_owned(), value.to_owned())].into(),
        ..TaskSpec::argv(["true"])
    };
    let specs = vec![labelled("a"), labelled("b"), TaskSpec::argv(["true"])];
    let suite = bench.submit_to(None, specs).await.response;
    let others = bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(7)).await;
    let list = async |selector: &str, suite: Option<Uuid>, after: i64| {
        let query = TaskQuery {
            select: Some(selector.parse().unwrap()),
            suite,
            after,
            limit: 9,
            ..TaskQuery::default()
        };
        let tasks = bench.store.tasks(query).await.unwrap();
        tasks.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    let uuid = suite.tasks[1].uuid;
    assert_eq!(list(&uuid.to_string(), None, 0).await, [2]);
    let prefix = &uuid.simple().to_string()[..31];
    assert_eq!(list(prefix, None, 0).await, [2]);
    assert_eq!(list("3", None, 0).await, [3]);
    assert_eq!(list("2-4", None, 0).await, [2, 3, 4]);
    assert_eq!(list("2-4", None, 3).await, [4]);
    assert_eq!(list("2-4", Some(suite.suite), 0).await, [2, 3]);
    assert_eq!(list("last", None, 0).await, [others[1].id]);
    assert_eq!(list("last:2", Some(suite.suite), 0).await, [2, 3]);
    assert_eq!(list("last:99", None, 0).await.len(), 5);
    assert_eq!(list("failed", None, 0).await, [task.id]);
    assert_eq!(list("label:kind", None, 0).await, [1, 2]);
    assert_eq!(list("label:kind=b", None, 0).await, [2]);
    assert!(list("label:kind=c", None, 0).await.is_empty());
    assert!(list("label:a", None, 0).await.is_empty());
}

pub(in super::super) async fn what_wants_more_than_there_is_is_found_and_not_claimed(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let wanting = |resources| TaskSpec {
        resources,
        ..TaskSpec::argv(["true"])
    };
    let gpu = wanting(Resources {
        gpus: 1,
        ..Resources::default()
    });
    let memory = wanting(Resources {
        mem_bytes: Some(3 << 30),
        ..Resources::default()
    });
    let cpus = wanting(Resources {
        cpus: Some(4.0),
        ..Resources::default()
    });
    bench.submit_to(None, vec![gpu, memory, cpus]).await;
    let small = Capacity {
        milli_cpus: Some(4_000),
        mem_bytes: Some(2 << 30),
        gpus: Some(0),
    };
    let registration = Registration {
        capacity: small,
        ..registration(1, Vec::new())
    };
    let manager = bench.store.register(registration).await.unwrap().session;
    assert_eq!(bench.claim_one(manager).await.id, 3);
    assert!(bench.claim(manager, 9).await.is_empty());
    let beyond = async |capacity| bench.store.beyond(capacity).await.unwrap();
    assert_eq!(beyond(small).await.map(|(id, _)| id), Some(1));
    let with_gpu = Capacity {
        gpus: Some(1),
        ..small
    };
    let found = beyond(with_gpu).await;
    assert_eq!(
        found.map(|(id, wanted)| (id, wanted.mem_bytes)),
        Some((2, Some(3 << 30)))
    );
    assert_eq!(beyond(Capacity::default()).await, None);
}

pub(in super::super) async fn a_place_in_the_queue_counts_what_goes_before(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let with_priority = |priority| TaskSpec {
        priority,
        ..TaskSpec::argv(["true"])
    };
    let specs = vec![with_priority(0), with_priority(5), with_priority(0)];
    let tasks = bench.submit_to(None, specs).await.response.tasks;
    let ahead = async |place: usize| {
        let place = bench.store.place(tasks[place].uuid).await.unwrap();
        place.expect("the task exists").ahead
    };
    assert_eq!((ahead(0).await, ahead(1).await, ahead(2).await), (1, 0, 2));
    let manager = bench.manager(1).await;
    bench.claim_one(manager).await;
    assert_eq!((ahead(0).await, ahead(2).await), (0, 1));
    assert_eq!(bench.store.place(Uuid::nil()).await.unwrap(), None);
}

pub(in super::super) async fn counts_follow_every_change(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let answer = bench
        .submit_to(
            Some(SuiteRef::New { name: "s".into() }),
            vec![TaskSpec::argv(["true"]); 3],
        )
        .await
        .response;
    let (other, suite) = (bench.submit_n(1).await, answer.suite);
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[0], exited(0)).await;
    bench.report(manager, &tasks[1], started()).await;
    let expected = [
        (TaskState::Ready, 1),
        (TaskState::Running, 1),
        (TaskState::Completed, 1),
    ];
    let summary = bench.store.suite(suite).await.unwrap().unwrap();
    assert_eq!(
        (summary.name.as_str(), summary.counts),
        ("s", expected.into())
    );
    assert_eq!(
        bench.store.counts(Some(suite)).await.unwrap(),
        expected.into()
    );
    let suites = bench.store.suites(0, 10).await.unwrap();
    assert_eq!(suites.len(), 2);
    assert_eq!(suites[1].1.counts, [(TaskState::Ready, 1)].into());
    assert_eq!(bench.store.suites(suites[0].0, 10).await.unwrap().len(), 1);
    let some = vec![tasks[0].uuid, other[0].uuid];
    let counts = bench.store.counts_of(some).await.unwrap();
    assert_eq!(
        counts,
        [(TaskState::Ready, 1), (TaskState::Completed, 1)].into()
    );
    let unknown = bench
        .store
        .counts_of(vec![tasks[0].uuid, Uuid::nil()])
        .await;
    assert!(matches!(unknown, Err(StoreError::NotFound { uuid, .. }) if uuid == Uuid::nil()));
    assert_eq!(
        bench
            .store
            .counts(None)
            .await
            .unwrap()
            .values()
            .sum::<u64>(),
        4
    );
}

pub(in super::super) async fn a_task_shows_who_has_it_and_how_it_ended(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let spec = TaskSpec {
        env: [("A".to_owned(), "1".to_owned())].into(),
        ..TaskSpec::argv(["echo", "two words"])
    };
    let batch = NewTasks {
        suite: None,
        tasks: vec![new_task(Some("line 1"), spec.clone())],
    };
    let uuid = bench.store.submit(batch).await.unwrap().response.tasks[0].uuid;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    assert_eq!((task.uuid, &task.spec), (uuid, &spec));
    let detail = bench.task(uuid).await;
    assert_eq!(detail.lease, Some(task.lease));
    assert_eq!(detail.holder, Some(manager_named(1).to_string()));
    assert_eq!(detail.key.as_deref(), Some("line 1"));
    assert_eq!(detail.summary.command, "echo 'two words'");
    bench.report(manager, &task, exited(7)).await;
    let detail = bench.task(uuid).await;
    assert_eq!((detail.lease, detail.summary.exit_code), (None, Some(7)));
    assert_eq!(detail.result.unwrap().exit_code, Some(7));
    assert_eq!(bench.store.task(Uuid::nil()).await.unwrap(), None);
    let holders = bench
        .store
        .holders(HolderKind::Manager, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!((holders.len(), holders[0].leases), (1, 0));
}
