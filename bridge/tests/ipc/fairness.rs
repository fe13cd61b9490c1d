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
/// A turn of the manager's poller answers every slot that has asked before it takes new ones, so a worker that asks is
/// served within one turn, whatever its number is. What differs is how often the system lets a worker ask: two cores are
/// shared by all of them. Hence the bounds: nobody gets less than a fifth or more than five times the average, and the
/// upper half of the slots gets its half within a fifth. A poller that preferred low numbers would give the last ones
/// nothing before the first ones have everything.
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
    let counts: Vec<u64> = served.values().map(|(_, count)| *count).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    let upper: u64 = served
        .values()
        .filter(|(index, _)| *index >= count / 2)
        .map(|(_, served)| served)
        .sum();
    eprintln!("{least} to {most} of {EACH} on the average; the upper half {upper} of {total}");
    assert!(*least * 5 >= EACH, "{least} of {EACH}: {counts:?}");
    assert!(*most <= EACH * 5, "{most} of {EACH}: {counts:?}");
    let half = total / 2;
    assert!(
        (half - half / 5..=half + half / 5).contains(&upper),
        "{upper} of {total}"
    );
    fixture.send_home(&mut workers).await;
    fixture.close().await;
}
