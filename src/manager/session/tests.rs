//! The session against a scripted coordinator on an in-memory link, with the clock stopped.

use crate::protocol::Capacity;
use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::comm::link::{self, CoordinatorEnd};
use crate::protocol::TaskSpec;
use crate::protocol::ids::{Boot, Lease, Try};

/// Hands out scripted links; afterwards nobody is there.
#[derive(Debug, Default)]
struct Script(Mutex<Vec<Result<ManagerEnd, ConnectError>>>);

#[async_trait]
impl Connector for Script {
    async fn connect(&self) -> Result<ManagerEnd, ConnectError> {
        let next = self.0.lock().unwrap().pop();
        next.unwrap_or_else(|| Err(unreachable_error()))
    }
}

fn unreachable_error() -> ConnectError {
    ConnectError::Unreachable {
        url: "memory".to_owned(),
        source: "nobody is there".into(),
    }
}

fn session(links: Vec<Result<ManagerEnd, ConnectError>>) -> Session {
    Session::new(Arc::new(Script(Mutex::new(links))))
}

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        manager: Uuid::nil(),
        boot: Boot(1),
        earlier: Vec::new(),
        host: "here".to_owned(),
        workers: 1,
        capacity: Capacity::default(),
        tags: Vec::new(),
        metrics: None,
        inventory: Vec::new(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: PROTOCOL_VERSION,
        epoch: 1,
        lease_ms: 120_000,
        renew_ms: 10_000,
        drop: Vec::new(),
        directive: ControlState::default(),
        url: None,
        upload_key: Vec::new(),
    }
}

fn task() -> WorkerTaskResp {
    WorkerTaskResp {
        id: 1,
        uuid: Uuid::nil(),
        lease: Lease(1),
        try_no: Try(0),
        attempt: 1,
        failures: 0,
        suite_uuid: Uuid::nil(),
        upstream_task_uuid: None,
        links: BTreeMap::new(),
        ids: None,
        spec: TaskSpec::argv(["true"]),
    }
}

async fn open() -> (Session, CoordinatorEnd) {
    let (mine, theirs) = link::pair();
    let mut session = session(vec![Ok(mine)]);
    assert!(matches!(session.next().await, SessionEvent::NeedHello));
    session.greet(hello());
    assert_eq!(
        theirs.frames_rx.recv_async().await,
        Ok(ToCoordinator::Hello(hello()))
    );
    theirs
        .frames_tx
        .send(ToManager::Welcome(welcome()))
        .unwrap();
    assert!(matches!(session.next().await, SessionEvent::Up { .. }));
    (session, theirs)
}

#[tokio::test(start_paused = true)]
async fn one_claim_is_in_flight_and_only_its_own_answer_counts() {
    let (mut session, theirs) = open().await;
    assert!(session.can_claim());
    session.claim(5);
    assert!(!session.can_claim() && session.can_commit());
    let Ok(ToCoordinator::Claim { id, limit: 5 }) = theirs.frames_rx.recv_async().await else {
        panic!("no claim");
    };
    let stray = ToManager::Claimed {
        id: id + 1,
        tasks: Vec::new(),
    };
    theirs.frames_tx.send(stray).unwrap();
    theirs
        .frames_tx
        .send(ToManager::Claimed {
            id,
            tasks: Vec::new(),
        })
        .unwrap();
    assert!(matches!(session.next().await, SessionEvent::Claimed { .. }));
    assert!(session.can_claim());
    theirs.frames_tx.send(ToManager::Hint(Hint::Work)).unwrap();
    assert!(
        matches!(session.next().await, SessionEvent::Hint(Hint::Work)),
        "the stray answer was skipped"
    );
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_in_time_also_after_a_busy_answer() {
    let (mut session, theirs) = open().await;
    let before = now();
    assert!(matches!(session.next().await, SessionEvent::RenewalDue));
    assert!(now() - before <= Duration::from_secs(11));
    session.renew(ManagerStatus::default());
    let Ok(ToCoordinator::Renew { id, .. }) = theirs.frames_rx.recv_async().await else {
        panic!("no renewal");
    };
    theirs
        .frames_tx
        .send(ToManager::Busy { id, after_ms: 500 })
        .unwrap();
    let before = now();
    assert!(matches!(session.next().await, SessionEvent::RenewalDue));
    assert!(now() - before <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_reported_and_tried_again_with_growing_pauses() {
    let (mut session, theirs) = open().await;
    drop(theirs);
    assert!(matches!(
        session.next().await,
        SessionEvent::Down { was_open: true, .. }
    ));
    let began = now();
    for _ in 0..8 {
        assert!(matches!(
            session.next().await,
            SessionEvent::Down {
                was_open: false,
                ..
            }
        ));
    }
    assert!(now() - began > Duration::from_secs(5), "the pauses grow");
}

#[tokio::test(start_paused = true)]
async fn a_silent_coordinator_loses_the_session() {
    let (mut session, _theirs) = open().await;
    session.renew(ManagerStatus::default());
    let event = session.next().await;
    assert!(
        matches!(&event, SessionEvent::Down { reason, .. } if reason.contains("unanswered")),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_for_good() {
    let (mine, theirs) = link::pair();
    let mut refused = session(vec![Ok(mine)]);
    refused.next().await;
    refused.greet(hello());
    let message = "no such token".to_owned();
    theirs
        .frames_tx
        .send(ToManager::Refused { message })
        .unwrap();
    let event = refused.next().await;
    assert!(
        matches!(&event, SessionEvent::Refused { message } if message == "no such token"),
        "{event:?}"
    );

    let error = ConnectError::Refused {
        reason: "401".to_owned(),
    };
    let event = session(vec![Err(error)]).next().await;
    assert!(matches!(event, SessionEvent::Refused { .. }), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_of_another_version_is_refused_in_words() {
    let (mine, theirs) = link::pair();
    let mut session = session(vec![Ok(mine)]);
    session.next().await;
    session.greet(hello());
    let welcome = Welcome {
        version: 99,
        ..welcome()
    };
    theirs.frames_tx.send(ToManager::Welcome(welcome)).unwrap();
    let event = session.next().await;
    assert!(
        matches!(&event, SessionEvent::Refused { message } if message.contains("version 99")),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_that_end_at_once_come_back_slower_each_time_although_they_were_welcomed() {
    let (links, ends): (Vec<_>, Vec<_>) = (0..8).map(|_| link::pair()).unzip();
    let mut session = session(links.into_iter().map(Ok).collect());
    let began = now();
    for theirs in ends.into_iter().rev() {
        while !matches!(session.next().await, SessionEvent::NeedHello) {}
        session.greet(hello());
        theirs
            .frames_tx
            .send(ToManager::Welcome(welcome()))
            .unwrap();
        assert!(matches!(session.next().await, SessionEvent::Up { .. }));
        let reason = "another session took over".to_owned();
        theirs.frames_tx.send(ToManager::Over { reason }).unwrap();
        let event = session.next().await;
        assert!(
            matches!(&event, SessionEvent::Down { kind: Loss::Ended, reason, .. } if reason.contains("took over")),
            "{event:?}"
        );
    }
    while !matches!(session.next().await, SessionEvent::Down { .. }) {}
    assert!(now() - began > Duration::from_secs(10), "the pauses grow");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_parts_counts_as_one() {
    let (mut session, theirs) = open().await;
    session.claim(5);
    let Ok(ToCoordinator::Claim { id, .. }) = theirs.frames_rx.recv_async().await else {
        panic!("no claim");
    };
    let tasks = vec![task()];
    let part = ToManager::ClaimedPart {
        id,
        tasks: tasks.clone(),
    };
    theirs.frames_tx.send(part).unwrap();
    theirs
        .frames_tx
        .send(ToManager::Claimed { id, tasks })
        .unwrap();
    let event = session.next().await;
    assert!(matches!(&event, SessionEvent::Claimed { tasks, .. } if tasks.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_broken_off_here_is_opened_anew() {
    let (mut session, _theirs) = open().await;
    let down = session.break_off("this machine slept");
    assert!(
        matches!(&down, Some(SessionEvent::Down { reason, was_open: true, .. }) if reason.contains("slept")),
        "{down:?}"
    );
    assert!(session.break_off("again").is_none(), "there is none");
    assert!(matches!(session.next().await, SessionEvent::Down { .. }));
}
