//! Calls between a server and clients in this process.

use mitosis_bridge::FetchWish;
use std::time::Duration;

use bytes::Bytes;
use mitosis_bridge::{CallError, MAX_ECHO, Ring, ServerEvent};

use crate::support::fixture::{Fixture, LONG};
use crate::support::wait::within;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_fetches_reports_and_leaves() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(7).await;
    assert_eq!(&worker.setup.setup[..], b"setup of 7");
    fixture.prepare(1, "task").await;
    let answer = within(worker.handle.fetch(FetchWish::ONE)).await.unwrap();
    assert_eq!(answer.only(), Some(Bytes::from_static(b"task")));
    assert_eq!(fixture.handed_over().await, (1, worker.incarnation));
    let handle = worker.handle.clone();
    let reporting = tokio::spawn(async move { handle.report("done".into(), LONG).await });
    let (who, confirms, payload, token) = fixture.report().await;
    assert_eq!(
        (who, confirms, &payload[..]),
        (worker.incarnation, 1, &b"done"[..])
    );
    token.reply("noted".into(), Ring::Now);
    assert_eq!(&within(reporting).await.unwrap().unwrap()[..], b"noted");
    let incarnation = worker.incarnation;
    worker.close().await;
    let left = fixture.event().await;
    assert!(matches!(left, ServerEvent::Left { incarnation: who } if who == incarnation));
    let closed = fixture.event().await;
    assert!(matches!(closed, ServerEvent::Closed { incarnation: who } if who == incarnation));
    within(fixture.handle.retire(incarnation)).await.unwrap();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_comes_from_the_poller_and_a_long_one_is_refused_in_words() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(3).await;
    for len in [0, 1, MAX_ECHO] {
        let payload = Bytes::from(vec![7; len]);
        let echo = within(worker.handle.echo(payload.clone(), LONG)).await;
        assert_eq!(echo.unwrap(), payload);
    }
    // Within a frame, and through a file.
    for len in [MAX_ECHO + 1, 64 << 10] {
        let echo = within(worker.handle.echo(vec![7; len].into(), LONG)).await;
        assert!(
            matches!(&echo, Err(CallError::Refused { reason }) if reason.contains("1024 bytes")),
            "{echo:?}"
        );
    }
    // Nobody behind the poller has heard of any.
    assert!(fixture.events.try_recv().is_none());
    worker.close().await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_answer_is_found_without_a_ring() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(0).await;
    let handle = worker.handle.clone();
    let reporting = tokio::spawn(async move { handle.report("x".into(), LONG).await });
    let (.., token) = fixture.report().await;
    token.reply("y".into(), Ring::Lazy);
    let answered = tokio::time::timeout(Duration::from_secs(2), reporting).await;
    assert_eq!(&answered.unwrap().unwrap().unwrap()[..], b"y");
    worker.close().await;
    fixture.close().await;
}
