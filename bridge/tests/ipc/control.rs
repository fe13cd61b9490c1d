//! The control topic: the newest state reaches everybody, also who comes late or was stopped, and nobody blocks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mitosis_bridge::{Ring, ServerEvent, Wake};
use rustix::process::Signal;

use crate::support::fixture::{Fixture, reply};
use crate::support::wait::{pause, until, within};

impl Fixture {
    async fn publish(&self, state: impl Into<bytes::Bytes>) {
        within(self.handle.publish_control(state.into(), Wake::All))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_gets_the_current_state_from_a_silent_manager() {
    let mut fixture = Fixture::open().await;
    for state in ["first", "second", "current"] {
        fixture.publish(state).await;
    }
    // From here on the manager publishes nothing.
    let mut workers = Vec::new();
    for slot in [0, 9, 255] {
        let worker = fixture.join(slot).await;
        // It is there when the opening returns: nobody needs to wait for it.
        assert_eq!(&worker.handle.control().borrow()[..], b"current");
        workers.push(worker);
    }
    for worker in workers {
        worker.close().await;
    }
    fixture.close().await;
}

/// Ten thousand states, which no buffer holds, towards one that reads nothing; the others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_subscriber_blocks_nobody_and_catches_up() {
    const STATES: u32 = 10_000;
    let mut fixture = Fixture::with(|config| config.notices = 256).await;
    let mut stopped = fixture.start(1, "tell-control").await;
    let mut worker = fixture.start(2, "echo").await;
    let (quiet, busy) = (stopped.incarnation, worker.incarnation);
    stopped.stop().await;

    let published = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let (handle, published) = (fixture.handle.clone(), published.clone());
        async move {
            for number in 0..STATES {
                let state = format!("state {number}").into();
                handle.publish_control(state, Wake::All).await.unwrap();
            }
            published.store(true, Ordering::SeqCst);
        }
    });
    // The other worker gets tasks as long as states are published, and then some.
    let feeder = tokio::spawn({
        let (handle, published) = (fixture.handle.clone(), published.clone());
        async move {
            let mut key = 0;
            while !published.load(Ordering::SeqCst) || key < 100 {
                key += 1;
                handle.prepare(reply(key, "a task")).await.unwrap();
            }
            key
        }
    });
    let served = Arc::new(AtomicU64::new(0));
    let mut during = 0;
    let counter = tokio::spawn({
        let served = served.clone();
        async move {
            let tasks = feeder.await.unwrap();
            until(|| served.load(Ordering::SeqCst), |count| *count == tasks).await;
        }
    });
    while !counter.is_finished() {
        let Ok(event) =
            tokio::time::timeout(Duration::from_millis(50), fixture.events.recv()).await
        else {
            continue;
        };
        if let ServerEvent::Report {
            incarnation,
            payload,
            reply,
            ..
        } = event.expect("the poller lives")
        {
            assert_eq!(incarnation, busy, "the stopped one has said {payload:?}");
            served.fetch_add(1, Ordering::SeqCst);
            during += u64::from(!published.load(Ordering::SeqCst));
            reply.reply(payload, Ring::Lazy);
        }
    }
    within(counter).await.unwrap();
    within(publisher).await.unwrap();
    assert!(during > 0, "nothing was served while states were published");

    stopped.signal(Signal::CONT);
    let newest = format!("state {}", STATES - 1);
    let (who, payload) = heard(&mut fixture).await;
    assert_eq!((who, &payload[..]), (quiet, newest.as_bytes()));
    fixture.publish("end").await;
    assert_eq!(heard(&mut fixture).await, (quiet, "end".into()));
    stopped.ends_well().await;
    fixture.send_home(std::slice::from_mut(&mut worker)).await;
    fixture.close().await;
}

/// The next report, acknowledged.
async fn heard(fixture: &mut Fixture) -> (mitosis_bridge::Incarnation, bytes::Bytes) {
    let (who, _, payload, token) = fixture.report().await;
    token.reply("".into(), Ring::Now);
    (who, payload)
}

/// A worker that is stopped for whole seconds while others work: they are served as if it were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_for_seconds_keeps_its_task_and_the_others_work() {
    let mut fixture = Fixture::open().await;
    let stopped = fixture.start(1, "echo").await;
    fixture.until_parked(1).await;
    stopped.stop().await;
    fixture.prepare(1, "for the stopped").await;
    assert_eq!(fixture.handed_over().await, (1, stopped.incarnation));
    let worker = fixture.start(2, "echo").await;
    // Long enough for every bound of either poller but that of an idle worker to run out several times.
    let over = tokio::time::Instant::now() + Duration::from_secs(2);
    let mut key = 1;
    while tokio::time::Instant::now() < over {
        fixture.publish(format!("state {key}")).await;
        key += 1;
        fixture.prepare(key, format!("task {key}")).await;
        assert_eq!(fixture.handed_over().await, (key, worker.incarnation));
        let (who, confirms, payload, token) = fixture.report().await;
        assert_eq!((who, confirms), (worker.incarnation, key));
        assert_eq!(&payload[..], format!("task {key}").as_bytes());
        token.reply(payload, Ring::Lazy);
        pause(Duration::from_millis(1)).await;
    }
    assert!(key > 100, "{key} tasks");
    stopped.signal(Signal::CONT);
    let (who, confirms, payload, token) = fixture.report().await;
    assert_eq!((who, confirms), (stopped.incarnation, 1));
    assert_eq!(&payload[..], b"for the stopped");
    token.reply(payload, Ring::Lazy);
    fixture.send_home(&mut [stopped, worker]).await;
    fixture.close().await;
}
