//! No wake-up is lost between processes: real doorbells, both pollers falling asleep all the time, moments by chance.

use std::time::Duration;

use mitosis_bridge::{Ring, ServerEvent, Wake};

use crate::support::chance::Chance;
use crate::support::fixture::{Fixture, reply};
use crate::support::size;
use crate::support::wait::{pause, within};

/// Feeds tasks with pauses around the time that falling asleep takes, so that the ends of a sleep and of a call meet.
async fn feed(handle: mitosis_bridge::ServerHandle, mut chance: Chance, tasks: u64) {
    for key in 1..=tasks {
        handle.prepare(reply(key, key.to_string())).await.unwrap();
        match chance.below(8) {
            0 => pause(chance.moment(Duration::from_millis(2))).await,
            1..=3 => {
                for _ in 0..chance.below(20) {
                    tokio::task::yield_now().await;
                }
            }
            4 => {
                let state = key.to_string().into();
                handle.publish_control(state, Wake::All).await.unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_processes_and_every_message_is_seen() {
    let mut chance = Chance::new();
    let tasks = size(10_000, 200_000);
    // Everybody blocks as soon as there is nothing to do.
    let mut fixture = Fixture::with(|config| config.notices = 16).await;
    let mut workers = Vec::new();
    for slot in [0, 63, 64, 255] {
        workers.push(fixture.start(slot, "echo").await);
    }
    let feeder = Chance::seeded(chance.below(u64::MAX));
    let feeding = tokio::spawn(feed(fixture.handle.clone(), feeder, tasks));
    let (mut handed, mut reported) = (0, vec![false; usize::try_from(tasks).unwrap() + 1]);
    let mut left = tasks;
    while left > 0 {
        match fixture.event().await {
            ServerEvent::HandedOver { .. } => handed += 1,
            ServerEvent::Report { payload, reply, .. } => {
                let key: u64 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
                let seen = &mut reported[usize::try_from(key).unwrap()];
                assert!(!std::mem::replace(seen, true), "{key} came twice");
                left -= 1;
                let ring = [Ring::Now, Ring::Lazy][usize::try_from(chance.below(2)).unwrap()];
                reply.reply(payload, ring);
            }
            other => panic!("{other:?}"),
        }
    }
    within(feeding).await.unwrap();
    assert_eq!(handed, tasks);
    let stats = fixture.handle.stats();
    assert!(stats.sleeps > 100 && stats.wakeups > 100, "{stats:?}");
    for worker in &workers {
        assert_eq!(worker.status.snapshot().lost_wakeups, 0);
    }
    fixture.send_home(&mut workers).await;
    // Looks at the manager's own count.
    fixture.close().await;
}
