//! Actor tests: both pollers with real doorbells and records over the in-process transport, and refusals over both.

mod fixture;
mod giving_up;
mod hostile;
mod refusals;
mod tuning;

use crate::FetchWish;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Gate, Ring, ServerEvent, Wake, Withdrawal};
use crate::client::FetchAnswer;
use crate::cost::Cost;
use crate::error::{BridgeError, CallError};
use crate::ids::{Incarnation, LocalId};
use fixture::{Fixture, LONG, reply, within};

fn task(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_parked_fetch_is_answered_when_a_reply_is_prepared() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let fetching = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.fetch(FetchWish::ONE).await }
    });
    fixture.until_parked(1).await;
    within(fixture.handle.prepare(reply(9, "a"))).await.unwrap();
    assert_eq!(
        within(fetching).await.unwrap().unwrap().only(),
        Some(task("a"))
    );
    assert_eq!(fixture.handed_over().await, (9, worker.incarnation));
}

#[tokio::test]
async fn a_caller_that_looks_for_its_answer_also_gets_one_that_comes_late() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    worker.handle.set_poll("busy".parse().unwrap());
    // At once, then after its budget: the fetch is parked, so the caller has long begun to look.
    within(fixture.handle.prepare(reply(9, "a"))).await.unwrap();
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    let late = async {
        fixture.until_parked(1).await;
        tokio::time::sleep(2 * crate::config::DEFAULT_SPIN).await;
        within(fixture.handle.prepare(reply(10, "b")))
            .await
            .unwrap();
    };
    let (fetched, ()) = tokio::join!(within(worker.handle.fetch(FetchWish::ONE)), late);
    assert_eq!(fetched.unwrap().only(), Some(task("b")));
}

#[tokio::test]
async fn a_lost_answer_is_repeated_and_told_once() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    fixture
        .hub
        .lose_answers
        .store(2, std::sync::atomic::Ordering::SeqCst);
    within(fixture.handle.prepare(reply(9, "a"))).await.unwrap();
    within(fixture.handle.prepare(reply(10, "b")))
        .await
        .unwrap();
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("b"))
    );
    assert_eq!(fixture.handed_over().await.0, 9);
    assert_eq!(fixture.handed_over().await.0, 10);
}

#[tokio::test]
async fn a_fetch_that_is_dropped_loses_nothing() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    for _ in 0..3 {
        let given_up = tokio::time::timeout(
            Duration::from_millis(20),
            worker.handle.fetch(FetchWish::ONE),
        )
        .await;
        assert!(given_up.is_err());
    }
    within(fixture.handle.prepare(reply(9, "a"))).await.unwrap();
    assert_eq!(fixture.handed_over().await.0, 9);
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
}

#[tokio::test]
async fn a_dropped_token_is_reported_as_abandoned() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let (result, ()) = tokio::join!(worker.handle.report("x".into(), LONG), async {
        drop(fixture.report().await);
    });
    assert!(matches!(result, Err(CallError::Abandoned)), "{result:?}");
    assert_eq!(fixture.handle.stats().abandoned, 1);
}

#[tokio::test]
async fn a_report_ends_at_its_deadline_and_the_late_answer_hurts_nobody() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let result = within(worker.handle.report("x".into(), Duration::from_millis(50))).await;
    assert!(
        matches!(result, Err(CallError::DeadlineExceeded)),
        "{result:?}"
    );
    let (_, late) = fixture.report().await;
    let (result, ()) = tokio::join!(worker.handle.report("y".into(), LONG), async {
        let (payload, token) = fixture.report().await;
        late.reply("late".into(), Ring::Now);
        token.reply(payload, Ring::Now);
    });
    assert_eq!(&result.unwrap()[..], b"y");
}

#[tokio::test]
async fn more_reports_than_the_port_holds_wait_their_turn() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let handle = worker.handle.clone();
            tokio::spawn(async move { handle.report(Bytes::from(format!("{number}")), LONG).await })
        })
        .collect();
    for _ in 0..100 {
        let (payload, token) = fixture.report().await;
        token.reply(payload, Ring::Now);
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(
            within(call).await.unwrap().unwrap(),
            format!("{number}").as_bytes()
        );
    }
}

#[tokio::test]
async fn the_owner_that_does_not_listen_holds_reports_back_and_loses_none() {
    let mut fixture = Fixture::open().await;
    let mut workers = Vec::new();
    for id in 0..4 {
        workers.push(fixture.join(id).await);
    }
    // Nobody takes events: reports time out at their senders, and sent again they fill the channel.
    let mut total = 0;
    while fixture.handle.stats().held_back == 0 {
        let calls: Vec<_> = workers
            .iter()
            .flat_map(|worker| {
                (0..64).map(|_| {
                    let handle = worker.handle.clone();
                    tokio::spawn(async move {
                        handle.report("x".into(), Duration::from_millis(200)).await
                    })
                })
            })
            .collect();
        for call in calls {
            let result = within(call).await.unwrap();
            assert!(
                matches!(result, Err(CallError::DeadlineExceeded)),
                "{result:?}"
            );
        }
        total += 256;
        assert!(total < 20_000, "nothing was ever held back");
    }
    // Once somebody listens, everything flows again.
    let worker = workers[0].handle.clone();
    let last = tokio::spawn(async move { worker.report("last".into(), LONG).await });
    loop {
        let (payload, token) = fixture.report().await;
        let is_last = &payload[..] == b"last";
        token.reply(payload, Ring::Now);
        if is_last {
            break;
        }
    }
    assert_eq!(&within(last).await.unwrap().unwrap()[..], b"last");
}

#[tokio::test]
async fn prepare_waits_for_room_for_the_notice() {
    let mut fixture = Fixture::with(|config| config.notices = 2).await;
    for key in 1..=2 {
        within(fixture.handle.prepare(reply(key, "a")))
            .await
            .unwrap();
    }
    let third = fixture.handle.prepare(reply(3, "a"));
    let waits = tokio::time::timeout(Duration::from_millis(50), third).await;
    assert!(waits.is_err());
    let withdrawn = within(fixture.handle.withdraw(vec![1, 3])).await.unwrap();
    assert_eq!(
        withdrawn,
        [(1, Withdrawal::Withdrawn), (3, Withdrawal::Unknown)]
    );
    within(fixture.handle.prepare(reply(3, "a"))).await.unwrap();
    // A refused one gives its room back.
    within(fixture.handle.withdraw(vec![3])).await.unwrap();
    for _ in 0..5 {
        let refused = within(fixture.handle.prepare(reply(2, "a"))).await;
        assert!(matches!(refused, Err(BridgeError::DuplicateKey(2))));
    }
    let worker = fixture.join(1).await;
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    assert_eq!(fixture.handed_over().await.0, 2);
}

#[tokio::test]
async fn nothing_passes_a_shut_gate_and_withdrawal_says_who_has_it() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    within(fixture.handle.prepare(reply(1, "a"))).await.unwrap();
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    within(fixture.handle.set_gate(Gate::Shut)).await.unwrap();
    within(fixture.handle.prepare(reply(2, "b"))).await.unwrap();
    let held = tokio::time::timeout(
        Duration::from_millis(50),
        worker.handle.fetch(FetchWish::ONE),
    )
    .await;
    assert!(held.is_err());
    let answers = within(fixture.handle.withdraw(vec![1, 2])).await.unwrap();
    let expected = [
        (1, Withdrawal::AlreadyHanded(worker.incarnation)),
        (2, Withdrawal::Withdrawn),
    ];
    assert_eq!(answers, expected);
    within(fixture.handle.prepare(reply(3, "c"))).await.unwrap();
    within(fixture.handle.set_gate(Gate::Open)).await.unwrap();
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("c"))
    );
}

#[tokio::test]
async fn capacity_is_freed_by_finish_and_by_retirement() {
    let mut fixture = Fixture::with(|config| config.capacity = Cost([1, 0, 0, 0])).await;
    let (one, two) = (fixture.join(1).await, fixture.join(2).await);
    for key in 1..=3 {
        within(fixture.handle.prepare(reply(key, "a")))
            .await
            .unwrap();
    }
    assert_eq!(
        within(one.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    let waits =
        tokio::time::timeout(Duration::from_millis(50), two.handle.fetch(FetchWish::ONE)).await;
    assert!(waits.is_err());
    within(fixture.handle.finish(one.incarnation))
        .await
        .unwrap();
    assert_eq!(
        within(two.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
    drop(two.client);
    within(fixture.handle.retire(two.incarnation))
        .await
        .unwrap();
    assert_eq!(
        within(one.handle.fetch(FetchWish::ONE))
            .await
            .unwrap()
            .only(),
        Some(task("a"))
    );
}

#[tokio::test]
async fn a_drain_sends_parked_and_later_fetches_away() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let fetching = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.fetch(FetchWish::ONE).await }
    });
    fixture.until_parked(1).await;
    within(fixture.handle.drain_fetches()).await.unwrap();
    assert_eq!(
        within(fetching).await.unwrap().unwrap(),
        FetchAnswer::Draining
    );
    assert_eq!(
        within(worker.handle.fetch(FetchWish::ONE)).await.unwrap(),
        FetchAnswer::Draining
    );
}

#[tokio::test]
async fn the_newest_control_state_is_there_before_the_task() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    for number in 0..50_u32 {
        let state = Bytes::from(number.to_string());
        let published = fixture
            .handle
            .publish_control(state.clone(), Wake::Only(vec![]));
        within(published).await.unwrap();
        within(fixture.handle.prepare(reply(u64::from(number) + 1, "a")))
            .await
            .unwrap();
        assert_eq!(
            within(worker.handle.fetch(FetchWish::ONE))
                .await
                .unwrap()
                .only(),
            Some(task("a"))
        );
        assert_eq!(*worker.handle.control().borrow(), state);
        fixture.handed_over().await;
    }
}

#[tokio::test]
async fn a_retired_incarnation_is_unknown_and_its_reports_are_delivered_first() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let result = within(worker.handle.report("x".into(), Duration::from_millis(20))).await;
    assert!(matches!(result, Err(CallError::DeadlineExceeded)));
    let incarnation = worker.incarnation;
    within(fixture.handle.retire(incarnation)).await.unwrap();
    let event = fixture.events.try_recv();
    assert!(
        matches!(event, Some(ServerEvent::Report { .. })),
        "{event:?}"
    );
    let again = within(fixture.handle.retire(incarnation)).await;
    assert!(matches!(again, Err(BridgeError::UnknownIncarnation(who)) if who == incarnation));
    let stranger = within(fixture.handle.finish(Incarnation(1))).await;
    assert!(matches!(stranger, Err(BridgeError::UnknownIncarnation(_))));
    let mut gone = worker.handle.gone();
    within(gone.wait_for(|gone| *gone)).await.unwrap();
    assert!(matches!(
        within(worker.handle.fetch(FetchWish::ONE)).await,
        Err(CallError::Gone)
    ));
}

#[tokio::test]
async fn a_panic_of_the_poller_reaches_everybody() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let fetching = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.fetch(FetchWish::ONE).await }
    });
    fixture.until_parked(1).await;
    fixture.panic().await;
    assert!(within(fixture.events.recv()).await.is_none());
    assert!(matches!(
        within(fixture.handle.set_gate(Gate::Shut)).await,
        Err(BridgeError::Closed)
    ));
    assert!(matches!(
        within(fixture.handle.prepare(reply(1, "a"))).await,
        Err(BridgeError::Closed)
    ));
    assert!(matches!(
        within(fetching).await.unwrap(),
        Err(CallError::Gone)
    ));
}

#[tokio::test]
async fn dropping_the_server_mid_flight_ends_every_call() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let (fetch, report) = (worker.handle.clone(), worker.handle.clone());
    let fetching = tokio::spawn(async move { fetch.fetch(FetchWish::ONE).await });
    let reporting = tokio::spawn(async move { report.report("x".into(), LONG).await });
    let (_, token) = fixture.report().await;
    let Fixture {
        server,
        handle,
        events,
        ..
    } = fixture;
    drop(server);
    token.reply("too late".into(), Ring::Now);
    let fetched = within(fetching).await.unwrap();
    assert!(
        matches!(fetched, Ok(FetchAnswer::Draining) | Err(CallError::Gone)),
        "{fetched:?}"
    );
    let reported = within(reporting).await.unwrap();
    assert!(
        matches!(reported, Err(CallError::Gone | CallError::Abandoned)),
        "{reported:?}"
    );
    assert!(matches!(
        within(handle.drain_fetches()).await,
        Err(BridgeError::Closed)
    ));
    drop(events);
}

#[tokio::test]
async fn closing_waits_for_tokens_and_answers_the_parked() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let (fetch, report) = (worker.handle.clone(), worker.handle.clone());
    let fetching = tokio::spawn(async move { fetch.fetch(FetchWish::ONE).await });
    let reporting = tokio::spawn(async move { report.report("x".into(), LONG).await });
    let (_, token) = fixture.report().await;
    fixture.until_parked(1).await;
    let Fixture { server, events, .. } = fixture;
    let closing = tokio::spawn(server.close(LONG));
    assert_eq!(
        within(fetching).await.unwrap().unwrap(),
        FetchAnswer::Draining
    );
    assert!(!closing.is_finished());
    token.reply("noted".into(), Ring::Now);
    assert_eq!(&within(reporting).await.unwrap().unwrap()[..], b"noted");
    within(closing).await.unwrap();
    drop(events);
}

#[tokio::test]
async fn a_client_that_closes_waits_for_its_acknowledgements() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let reporting = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.report("x".into(), LONG).await }
    });
    let (_, token) = fixture.report().await;
    let closing = tokio::spawn(worker.client.close(LONG));
    tokio::task::yield_now().await;
    token.reply("noted".into(), Ring::Now);
    assert_eq!(&within(reporting).await.unwrap().unwrap()[..], b"noted");
    within(closing).await.unwrap();
    let left = within(fixture.events.recv()).await;
    assert!(
        matches!(left, Some(ServerEvent::Left { incarnation }) if incarnation == worker.incarnation)
    );
    assert!(matches!(
        within(worker.handle.fetch(FetchWish::ONE)).await,
        Err(CallError::Closed)
    ));
    let report = within(worker.handle.report("y".into(), LONG)).await;
    assert!(matches!(report, Err(CallError::Closed)), "{report:?}");
}

#[tokio::test]
async fn a_client_closes_in_time_when_nobody_acknowledges() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let reporting = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.report("x".into(), LONG).await }
    });
    let kept = fixture.report().await;
    let began = Instant::now();
    within(worker.client.close(Duration::from_millis(50))).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(
        within(reporting).await.unwrap(),
        Err(CallError::Closed)
    ));
    drop(kept);
}

#[tokio::test]
async fn an_invitation_that_is_not_used_hangs_up() {
    let mut fixture = Fixture::open().await;
    let invitation = within(fixture.handle.invite(LocalId(1), Bytes::new()))
        .await
        .unwrap();
    let incarnation = invitation.incarnation;
    drop(invitation);
    let closed = within(fixture.events.recv()).await;
    assert!(matches!(closed, Some(ServerEvent::Closed { incarnation: who }) if who == incarnation));
    within(fixture.handle.retire(incarnation)).await.unwrap();
    // The gauge is written when the poller next rests.
    fixture.until_incarnations(0).await;
}

#[tokio::test]
async fn sizes_beyond_the_limits_are_refused_in_words() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let giant = Bytes::from(vec![0; crate::MAX_PAYLOAD + 1]);
    let refused = within(fixture.handle.prepare(reply(1, giant.clone())))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("exceeds the limit"),
        "{refused}"
    );
    let refused = within(worker.handle.report(giant.clone(), LONG)).await;
    assert!(matches!(refused, Err(CallError::TooLarge { .. })));
    let refused = within(fixture.handle.publish_control(giant.clone(), Wake::All)).await;
    assert!(matches!(refused, Err(BridgeError::ControlTooLarge { .. })));
    let refused = within(fixture.handle.invite(LocalId(2), giant)).await;
    assert!(matches!(refused, Err(BridgeError::SetupTooLarge { .. })));
}

#[tokio::test]
async fn everybody_is_served_while_the_ports_of_a_new_worker_are_made() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(0).await;
    fixture.hub.hold_openings.store(true, Ordering::SeqCst);
    let inviting = tokio::spawn({
        let handle = fixture.handle.clone();
        async move { handle.invite(LocalId(1), Bytes::new()).await }
    });
    for _ in 0..100 {
        let echoed = within(worker.handle.echo(Bytes::from_static(b"a"), LONG)).await;
        assert_eq!(echoed.unwrap(), "a");
    }
    assert!(!inviting.is_finished());
    fixture.hub.hold_openings.store(false, Ordering::SeqCst);
    within(inviting).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_invitation_under_way_ends_with_the_server() {
    let fixture = Fixture::open().await;
    fixture.hub.hold_openings.store(true, Ordering::SeqCst);
    let inviting = tokio::spawn({
        let handle = fixture.handle.clone();
        async move { handle.invite(LocalId(1), Bytes::new()).await }
    });
    let handle = fixture.handle.clone();
    // Behind the invitation in the queue: it has begun.
    within(handle.set_gate(Gate::Open)).await.unwrap();
    within(fixture.server.close(Duration::from_secs(1))).await;
    let ended = within(inviting).await.unwrap();
    assert!(matches!(ended, Err(BridgeError::Closed)), "{ended:?}");
}
