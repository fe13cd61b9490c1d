//! Stopping: what waits is answered, what is open is closed, and it all ends within a bound.

use super::*;
use crate::coordinator::http::DRAIN;
use crate::protocol::Desired;

#[tokio::test]
async fn long_polls_end_early_when_the_server_stops() {
    let server = Server::start().await;
    let (busy, idle) = (server.worker().await, server.worker().await);
    let task = server.submit(&["x"]).await[0];
    busy.fetch_task(PATIENCE).await.unwrap().unwrap();
    let seen = busy.control(&Desired::default(), Duration::ZERO).await;
    let seen = seen.unwrap();

    let user = server.user();
    let poll = Duration::from_secs(30);
    let waiting = tokio::spawn(async move { user.wait_task(task, poll).await });
    let listening = tokio::spawn(async move { busy.control(&seen, poll).await });
    let fetching = tokio::spawn(async move { idle.fetch_task(poll).await });
    // Nothing tells from outside that a poll is parked; one that comes too late is refused and fails the test.
    for _ in 0..20 {
        server.user().ready().await.unwrap();
    }
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(!in_time(waiting).await.unwrap().unwrap().done);
    assert_eq!(in_time(fetching).await.unwrap().unwrap(), None);
    in_time(listening).await.unwrap().unwrap();
    assert!(begun.elapsed() < 2 * DRAIN, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_closed_coordinator_stops_its_server() {
    let server = Server::start().await;
    server.user().ready().await.unwrap();
    server.coordinator.clone().close().await;
    in_time(server.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address_and_the_remedy() {
    let server = Server::start().await;
    let user = server.user();
    let (_dir, address) = server.stop().await;
    let error = user.managers().await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("mitosis up"),
        "{text}"
    );
}
