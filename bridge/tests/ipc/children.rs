//! Workers as real processes: many of them, one that is stopped, and the end of their manager. Deaths have a module of their own.

pub(crate) mod roles;

use mitosis_bridge::FetchWish;
use mitosis_bridge::{Incarnation, ServerEvent, Wake};
use rustix::process::Signal;

use crate::support::child::ROLE;
use crate::support::fixture::Fixture;
use crate::support::size;
use crate::support::wait::{until, within};

/// Not a test of its own: the entry of the processes that the tests start. Without a role it does nothing.
#[test]
fn a_worker_process_plays_its_role() {
    if let Ok(role) = std::env::var(ROLE) {
        roles::play(&role);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_process_works_and_leaves_nothing() {
    let mut fixture = Fixture::open().await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    let mut worker = fixture.start(5, "echo").await;
    for key in 1..=20 {
        fixture.prepare(key, format!("task {key}")).await;
        let mut handed = false;
        fixture
            .serve_until(|event| match event {
                ServerEvent::HandedOver {
                    key: handed_key, ..
                } => {
                    assert_eq!(*handed_key, key);
                    handed = true;
                    false
                }
                ServerEvent::Report {
                    confirms, payload, ..
                } => {
                    assert!(handed, "a report came before its hand-over");
                    assert_eq!(
                        (*confirms, &payload[..]),
                        (key, format!("task {key}").as_bytes())
                    );
                    true
                }
                other => panic!("{other:?}"),
            })
            .await;
    }
    let snapshot = worker.status.snapshot();
    assert!(
        snapshot.pid > 0 && snapshot.round_trip[0].count() >= 20,
        "{snapshot:?}"
    );
    fixture.send_home(std::slice::from_mut(&mut worker)).await;
    fixture.shared_memory_settles(baseline).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_to_a_worker_that_died_is_told_and_its_cost_comes_back() {
    let mut fixture = Fixture::with(|config| {
        config.capacity = mitosis_bridge::Cost([1, 0, 0, 0]);
    })
    .await;
    let mut dead = fixture.start(1, "echo").await;
    fixture.until_parked(1).await;
    dead.stop().await;
    fixture.prepare(1, "a").await;
    fixture.prepare(2, "b").await;
    assert_eq!(fixture.handed_over().await, (1, dead.incarnation));
    dead.signal(Signal::KILL);
    dead.was_killed().await;
    within(fixture.handle.retire(dead.incarnation))
        .await
        .unwrap();
    while let Some(event) = fixture.events.try_recv() {
        assert!(matches!(event, ServerEvent::Closed { .. }), "{event:?}");
    }
    let heir = fixture.join(1).await;
    let answer = within(heir.handle.fetch(FetchWish::ONE)).await.unwrap();
    assert_eq!(answer.only(), Some("b".into()));
    heir.close().await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_slows_nobody_and_catches_up() {
    let mut fixture = Fixture::open().await;
    let mut stopped = fixture.start(1, "echo").await;
    fixture.until_parked(1).await;
    stopped.stop().await;
    let worker = fixture.join(2).await;
    for number in 0..300_u64 {
        let state = format!("state {number}");
        within(
            fixture
                .handle
                .publish_control(state.clone().into(), Wake::All),
        )
        .await
        .unwrap();
        within(fixture.handle.set_gate(mitosis_bridge::Gate::Open))
            .await
            .unwrap();
        let control = worker.handle.control();
        until(
            || control.borrow().clone(),
            |seen| *seen == state.as_bytes(),
        )
        .await;
    }
    // Two hand-overs: one worker is stopped, the other works.
    let fetching = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.fetch(FetchWish::ONE).await }
    });
    fixture.until_parked(2).await;
    fixture.prepare(1, "a").await;
    fixture.prepare(2, "b").await;
    let mut who: Vec<Incarnation> =
        vec![fixture.handed_over().await.1, fixture.handed_over().await.1];
    who.sort();
    assert_eq!(who, [stopped.incarnation, worker.incarnation]);
    within(fetching).await.unwrap().unwrap();
    stopped.signal(Signal::CONT);
    fixture
        .serve_until(|event| matches!(event, ServerEvent::Report { .. }))
        .await;
    worker.close().await;
    fixture.send_home(std::slice::from_mut(&mut stopped)).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_end_when_their_manager_is_gone() {
    let mut fixture = Fixture::open().await;
    let mut worker = fixture.start(1, "until-gone").await;
    let Fixture { server, root, .. } = fixture;
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
    worker.ends_well().await;
    assert!(!root.path().exists());
    // It outlived its manager, so its own files are the next manager's to clear; they are few and known.
    for file in root.shared_memory_files().unwrap() {
        std::fs::remove_file(file).unwrap();
    }
}

async fn many_workers_share_the_work(count: u16, tasks_each: u64) {
    let mut fixture = Fixture::with(|config| config.notices = 4096).await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    let mut processes = Vec::new();
    for id in 0..count {
        processes.push(fixture.spawn(u8::try_from(id).unwrap(), "echo").await);
    }
    for _ in 0..count {
        let joined = fixture.event().await;
        assert!(matches!(joined, ServerEvent::Joined { .. }), "{joined:?}");
    }
    let tasks = tasks_each * u64::from(count);
    let feeder = fixture.handle.clone();
    let feeding = tokio::spawn(async move {
        for key in 1..=tasks {
            let payload = key.to_string();
            feeder
                .prepare(crate::support::fixture::reply(key, payload))
                .await
                .unwrap();
        }
    });
    let mut handed = vec![0_u8; usize::try_from(tasks).unwrap() + 1];
    let mut reported = handed.clone();
    let mut left = tasks;
    fixture
        .serve_until(|event| {
            match event {
                ServerEvent::HandedOver { key, .. } => handed[usize::try_from(*key).unwrap()] += 1,
                ServerEvent::Report { payload, .. } => {
                    let key: u64 = std::str::from_utf8(payload).unwrap().parse().unwrap();
                    reported[usize::try_from(key).unwrap()] += 1;
                    left -= 1;
                }
                other => panic!("{other:?}"),
            }
            left == 0
        })
        .await;
    within(feeding).await.unwrap();
    assert!(
        handed[1..]
            .iter()
            .chain(&reported[1..])
            .all(|count| *count == 1)
    );
    fixture.send_home(&mut processes).await;
    fixture.shared_memory_settles(baseline).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_workers_share_the_work() {
    many_workers_share_the_work(32, 50).await;
}

/// As many as a manager may have. Takes half a minute on two cores, so it runs on request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_fifty_six_workers_share_the_work() {
    if size(false, true) {
        many_workers_share_the_work(256, 10).await;
    }
}
