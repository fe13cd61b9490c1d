//! Nobody waits behind low slot numbers.

use std::collections::HashMap;

use mitosis_bridge::{Gate, Incarnation, ServerEvent};

use crate::support::fixture::{Fixture, reply};
use crate::support::size;
use crate::support::wait::within;

/// Hand-overs per worker, on the average.
const EACH: u64 = 60;

/// Workers that fetch as fast as they are answered, while there is work for everybody.
///
/// A turn of the manager's poller answers every slot that has asked, so while there is work no fetch outlives its turn,
/// whatever the number of its slot is: that is exact, and the count of parked fetches says it. How often a worker asks is
/// up to the system, which may let one of many run for long (25 times the average was seen) but no worker never. So
/// the least is bounded, and the medians of the lower and the upper half of the slots, which one lucky worker does not
/// move: a poller that preferred low numbers would give the upper half nothing before the lower one has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_served_whatever_its_slot_is() {
    let count: u16 = size(64, 256);
    let total = EACH * u64::from(count);
    let room = usize::try_from(total).unwrap();
    let mut fixture = Fixture::with(|config| config.notices = room).await;
    within(fixture.handle.set_gate(Gate::Shut)).await.unwrap();
    for key in 1..=total {
        let prepared = fixture.handle.prepare(reply(key, "a task"));
        within(prepared).await.unwrap();
    }
    let mut workers = Vec::new();
    let mut served: HashMap<Incarnation, (u16, u64)> = HashMap::new();
    // Spread over all slots.
    let stride = 256 / count;
    for index in 0..count {
        let slot = u8::try_from(index * stride).unwrap();
        let worker = fixture.start(slot, "greedy").await;
        served.insert(worker.incarnation, (index, 0));
        workers.push(worker);
    }
    fixture.until_parked(u64::from(count)).await;
    within(fixture.handle.set_gate(Gate::Open)).await.unwrap();
    for _ in 0..total {
        match fixture.event().await {
            ServerEvent::HandedOver { incarnation, .. } => {
                served.get_mut(&incarnation).unwrap().1 += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let parked = fixture.handle.stats().parked.count();
    assert_eq!(
        parked,
        u64::from(count),
        "only those before the gate opened"
    );
    let least = served.values().map(|(_, count)| *count).min().unwrap();
    let median = |upper: bool| {
        let half = served
            .values()
            .filter(|(index, _)| (*index >= count / 2) == upper);
        let mut counts: Vec<u64> = half.map(|(_, count)| *count).collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    let (lower, upper) = (median(false), median(true));
    eprintln!("least {least}, lower half {lower}, upper half {upper} of {EACH} on the average");
    assert!(least * 20 >= EACH, "{served:?}");
    assert!(lower <= upper * 2 && upper <= lower * 2, "{served:?}");
    fixture.send_home(&mut workers).await;
    fixture.close().await;
}
