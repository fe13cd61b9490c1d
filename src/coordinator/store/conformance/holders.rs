//! Registration, inventory, renewal, leaving.

use super::*;
use crate::coordinator::store::ReclaimCause;
use crate::protocol::Capacity;

pub(in super::super) async fn an_inventory_is_settled_lease_by_lease(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(4).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 4).await;
    bench.report(manager, &tasks[1], started()).await;
    bench.report(manager, &tasks[2], exited(0)).await;
    // It still has 0 and 1, believes to have 2 (its end was committed), and has lost 3.
    let inventory = tasks[..3].iter().map(held).collect();
    let registered = bench.register(1, inventory).await;
    assert!(registered.session.number > manager.number);
    assert_eq!(registered.drop, [held(&tasks[2])]);
    let reclaimed = &registered.changes.reclaimed;
    assert_eq!(reclaimed.len(), 1);
    assert_eq!(reclaimed[0].lease, held(&tasks[3]));
    assert_eq!(reclaimed[0].cause, ReclaimCause::Inventory);
    assert_eq!(registered.changes.ready, 1);
    let mut states = Vec::new();
    for task in &tasks {
        states.push(bench.state(task.uuid).await);
    }
    assert_eq!(
        states,
        [
            TaskState::Assigned,
            TaskState::Running,
            TaskState::Completed,
            TaskState::Ready
        ]
    );
}

pub(in super::super) async fn an_inventory_takes_up_what_nobody_else_has(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(3).await;
    let (one, two) = (bench.manager(1).await, bench.manager(2).await);
    let tasks = bench.claim(one, 3).await;
    bench.report(one, &tasks[0], started()).await;
    bench.pass(TERM).await;
    bench.store.renew(two, None, Vec::new()).await.unwrap();
    // The oldest goes to somebody else meanwhile; the others wait.
    let taken = bench.claim(two, 1).await;
    assert_eq!(taken[0].id, tasks[0].id);
    let registered = bench.register(1, tasks.iter().map(held).collect()).await;
    assert_eq!(registered.drop, [held(&tasks[0])]);
    assert_eq!(bench.state(tasks[1].uuid).await, TaskState::Assigned);
    assert!(bench.claim(two, 9).await.is_empty());
    assert_eq!(
        bench.report(registered.session, &tasks[1], exited(0)).await,
        Verdict::Accepted
    );
}

pub(in super::super) async fn an_execution_goes_on_when_its_lease_is_taken_up_again(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, started()).await;
    bench.pass(TERM).await;
    let lost = bench.task(task.uuid).await.history;
    assert_eq!(lost[0].end.as_deref(), Some("lost: lease expired"));
    let registered = bench.register(1, vec![held(&task)]).await;
    assert_eq!(registered.drop, []);
    let detail = bench.task(task.uuid).await;
    assert_eq!(detail.summary.state, TaskState::Running);
    assert_eq!(
        (detail.history[0].end.as_ref(), detail.history.len()),
        (None, 1)
    );
}

pub(in super::super) async fn an_older_session_can_do_nothing(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let old = bench.manager(1).await;
    let new = bench.manager(1).await;
    assert!(matches!(
        bench.try_claim(old, 1).await,
        Err(StoreError::Replaced)
    ));
    let renewed = bench.store.renew(old, None, Vec::new()).await;
    assert!(matches!(renewed, Err(StoreError::Replaced)));
    let left = bench.store.leave(old).await;
    assert!(matches!(left, Err(StoreError::Replaced)));
    assert_eq!(bench.claim(new, 1).await.len(), 1);
}

pub(in super::super) async fn a_renewal_keeps_everything_and_silence_loses_it(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let (one, two) = (bench.manager(1).await, bench.manager(2).await);
    let kept = bench.claim_one(one).await;
    let lost = bench.claim_one(two).await;
    for _ in 0..3 {
        bench.clock.advance(TERM / 2);
        bench.store.renew(one, None, Vec::new()).await.unwrap();
    }
    let changes = bench.store.advance().await.unwrap();
    let leases: Vec<_> = changes.reclaimed.iter().map(|lost| lost.lease).collect();
    assert_eq!(leases, [held(&lost)]);
    assert_eq!(changes.gone, [two.holder]);
    assert_eq!(bench.state(kept.uuid).await, TaskState::Assigned);
    // The quiet one learns what it lost, and is live again.
    let told = bench.store.renew(two, None, leases.clone()).await.unwrap();
    assert_eq!(told, leases);
    assert_eq!(bench.claim(two, 1).await.len(), 1);
}

pub(in super::super) async fn a_suspect_that_was_kept_is_not_lost(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.pass(TERM).await;
    let session = bench.register(1, vec![held(&task)]).await.session;
    let lost = bench.store.renew(session, None, vec![held(&task)]).await;
    assert_eq!(lost.unwrap(), []);
}

pub(in super::super) async fn terms_begin_anew_with_every_life(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.clock.advance(TERM - Duration::from_secs(1));
    bench.restart().await;
    let changes = bench.pass(TERM - Duration::from_secs(1)).await;
    assert_eq!(changes.reclaimed, []);
    assert_eq!(changes.next_due, Some(Duration::from_secs(1)));
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
}

pub(in super::super) async fn a_holder_without_end_keeps_what_it_has_however_long_it_stands_still(
    backend: &dyn Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let registration = Registration {
        endless: true,
        ..registration(1, Vec::new())
    };
    let session = bench.store.register(registration).await.unwrap().session;
    let task = bench.claim_one(session).await;
    for _ in 0..2 {
        let changes = bench.pass(100 * TERM).await;
        assert_eq!(changes.reclaimed, []);
        let renewed = bench.store.renew(session, None, Vec::new()).await.unwrap();
        assert_eq!(renewed, []);
    }
    assert_eq!(bench.state(task.uuid).await, TaskState::Assigned);
    // It dies with its coordinator: the next life knows nothing of it.
    bench.restart().await;
    bench.pass(TERM).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
}

pub(in super::super) async fn a_holder_that_leaves_gives_everything_back(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let manager = bench.manager(1).await;
    bench.claim(manager, 2).await;
    let changes = bench.store.leave(manager).await.unwrap();
    assert_eq!((changes.ready, changes.gone), (2, vec![manager.holder]));
    let known = bench.store.live_holder(manager_named(1)).await;
    assert!(matches!(known, Err(StoreError::NotFound { .. })));
    assert!(matches!(
        bench.try_claim(manager, 1).await,
        Err(StoreError::Replaced)
    ));
}

pub(in super::super) async fn a_worker_that_asks_again_gets_its_unstarted_task_again(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(2).await;
    let holder = Holder {
        kind: HolderKind::Worker,
        uuid: Uuid::from_u128(5),
    };
    let session = bench
        .store
        .register(Registration {
            holder,
            capacity: Capacity::default(),
            ..registration(5, Vec::new())
        })
        .await
        .unwrap()
        .session;
    let claim = Claim {
        session,
        limit: 1,
        unstarted: Unstarted::Reissue,
    };
    let fetch = async || {
        bench.store.claim(claim).await.unwrap().tasks[0]
            .task
            .clone()
    };
    let (first, again) = (fetch().await, fetch().await);
    assert_eq!((again.id, again.attempt), (first.id, 1));
    assert!(again.lease > first.lease);
    assert_eq!(
        bench.report(session, &first, started()).await,
        Verdict::Stale
    );
    assert_eq!(
        bench.report(session, &again, started()).await,
        Verdict::Accepted
    );
    assert_ne!(fetch().await.id, first.id);
}

pub(in super::super) async fn a_paused_holder_is_granted_nothing(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let set = async |mode| bench.store.set_mode(manager_named(1), mode).await.unwrap();
    assert_eq!(set(PAUSE).await, manager.holder);
    assert!(bench.claim(manager, 1).await.is_empty());
    let registered = bench.register(1, Vec::new()).await;
    assert_eq!(registered.mode, PAUSE);
    set(Mode::Run).await;
    assert_eq!(bench.claim(registered.session, 1).await.len(), 1);
}

pub(in super::super) async fn a_lease_whose_failure_was_accepted_is_no_longer_held(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let spec = TaskSpec {
        max_attempts: Some(2),
        backoff: Some(crate::protocol::task::Backoff {
            initial: Duration::ZERO.into(),
            max: Duration::ZERO.into(),
        }),
        ..TaskSpec::argv(["false"])
    };
    bench.submit(vec![spec; 2]).await;
    let manager = bench.manager(1).await;
    let tasks = bench.claim(manager, 2).await;
    bench.report(manager, &tasks[0], exited(1)).await;
    bench.report(manager, &tasks[1], released()).await;
    // The acknowledgement was lost, so the manager still believes in both.
    let inventory: Vec<_> = tasks.iter().map(held).collect();
    let registered = bench.register(1, inventory.clone()).await;
    assert_eq!(registered.drop, inventory);
    for task in &tasks {
        assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
    }
    assert_eq!(bench.claim(registered.session, 9).await.len(), 2);
}

pub(in super::super) async fn a_pause_for_all_reaches_those_who_come_later(backend: &dyn Backend) {
    let mut bench = Bench::new(backend).await;
    bench.manager(1).await;
    let paused = bench.store.set_mode_of_all(Mode::Pause).await.unwrap();
    assert_eq!(paused.len(), 1);
    bench.restart().await;
    for name in [1, 2] {
        assert_eq!(bench.register(name, Vec::new()).await.mode, Mode::Pause);
    }
    bench.store.set_mode_of_all(Mode::Run).await.unwrap();
    for name in [1, 2, 3] {
        assert_eq!(bench.register(name, Vec::new()).await.mode, Mode::Run);
    }
}
