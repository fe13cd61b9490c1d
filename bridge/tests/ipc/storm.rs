//! Many workers that come and go at once: whoever is connected is served between the steps of their coming and going.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::LocalId;

use crate::support::fixture::{Fixture, LONG};
use crate::support::size;
use crate::support::wait::within;

/// Slots that are filled and emptied again and again.
const SLOTS: u8 = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_respawns_holds_nobody_up() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(0).await;
    let storms = (1..=SLOTS).map(|slot| {
        let handle = fixture.handle.clone();
        tokio::spawn(async move {
            for _ in 0..size(8, 80) {
                let invited = handle.invite(LocalId(slot), Bytes::new());
                let incarnation = within(invited).await.unwrap().incarnation;
                within(handle.retire(incarnation)).await.unwrap();
            }
        })
    });
    let storms: Vec<_> = storms.collect();
    let began = Instant::now();
    let mut took = Vec::new();
    while !storms.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        within(worker.handle.echo(Bytes::from_static(b"a"), LONG))
            .await
            .unwrap();
        took.push(asked.elapsed());
    }
    for storm in storms {
        storm.await.unwrap();
    }
    took.sort_unstable();
    let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!(
        "storm of {:?}: {} echoes, middle {middle:?}, longest {longest:?}",
        began.elapsed(),
        took.len()
    );
    assert!(took.len() > usize::from(SLOTS));
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    worker.close().await;
    fixture.close().await;
}
