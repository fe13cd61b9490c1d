//! How workers' pollers wait is changed while they wait.

use bytes::Bytes;

use super::fixture::{Fixture, within};
use crate::config::PollConfig;
use crate::ids::LocalId;
use crate::server::ServerEvent;

async fn tune(fixture: &Fixture, slots: &[u8], poll: &str) {
    let poll: PollConfig = poll.parse().unwrap();
    let polls = slots.iter().map(|slot| (LocalId(*slot), poll)).collect();
    within(fixture.handle.tune(polls)).await.unwrap();
}

#[tokio::test]
async fn a_worker_waits_as_the_server_does_until_it_is_tuned_alone() {
    let mut fixture = Fixture::open().await;
    let (one, two) = (fixture.join(1).await, fixture.join(2).await);
    Fixture::until_poll(&one.status, "event").await;
    Fixture::until_poll(&two.status, "event").await;
    tune(&fixture, &[1], "interval:2ms").await;
    Fixture::until_poll(&one.status, "interval:2ms").await;
    Fixture::until_poll(&two.status, "event").await;
    assert_eq!(fixture.handle.stats().poll.to_string(), "event");
}

/// A tuning that woke nobody would be taken up when an idle worker's wait runs out: five seconds each time.
#[tokio::test]
async fn a_sleeper_takes_every_tuning_up_at_once() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    within(async {
        for turn in 0..100 {
            let poll = ["adaptive:0", "event"][turn % 2];
            tune(&fixture, &[1], poll).await;
            Fixture::until_poll(&worker.status, poll).await;
        }
    })
    .await;
    assert_eq!(worker.status.snapshot().lost_wakeups, 0);
}

#[tokio::test]
async fn the_next_life_of_a_slot_has_its_tuning_and_so_has_one_that_never_lived() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    tune(&fixture, &[1, 9], "interval:3ms").await;
    drop(worker.client);
    let closed = within(fixture.events.recv()).await;
    assert!(matches!(closed, Some(ServerEvent::Closed { .. })));
    within(fixture.handle.retire(worker.incarnation))
        .await
        .unwrap();
    let next = [fixture.join(1).await, fixture.join(9).await];
    for worker in &next {
        Fixture::until_poll(&worker.status, "interval:3ms").await;
    }
}

#[tokio::test]
async fn a_tuning_between_invitation_and_start_is_not_missed() {
    let fixture = Fixture::open().await;
    let invited = fixture.handle.invite(LocalId(4), Bytes::new());
    let invitation = within(invited).await.unwrap();
    tune(&fixture, &[4], "busy").await;
    let incarnation = invitation.incarnation;
    let status = invitation.status.clone();
    let transport = fixture.hub.client(incarnation);
    let expected = crate::client::Expected {
        local_id: LocalId(4),
        ..fixture.expected
    };
    let fds = super::fixture::fds(invitation);
    let opened = crate::client::Client::open_with(fds, expected, move |_, _, _| Ok(transport));
    let _client = within(opened).await.unwrap();
    Fixture::until_poll(&status, "busy").await;
}

#[tokio::test]
async fn the_server_changes_its_own_poller_alone() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    Fixture::until_poll(&worker.status, "event").await;
    fixture.handle.set_poll("busy".parse().unwrap());
    let before = fixture.handle.stats();
    within(async {
        while fixture.handle.stats().spins <= before.spins {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fixture.handle.set_poll("event".parse().unwrap());
    let asleep = fixture.handle.stats().sleeps;
    within(async {
        while fixture.handle.stats().sleeps <= asleep {
            tokio::task::yield_now().await;
        }
    })
    .await;
    Fixture::until_poll(&worker.status, "event").await;
}
