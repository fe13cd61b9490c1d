//! Requests for the output of running tasks on their way to a manager, and its answers on their way back.

use super::*;
use crate::coordinator::{CoordinatorError, Follow, Followed, MOST_FOLLOWERS};
use crate::protocol::LogStream;
use crate::protocol::output::{OutputPart, PartAnswer, PartRequest};

/// Longer than the test: only an answer ends such a call.
const LONG: Duration = Duration::from_secs(60);

fn from(attempt: u32, offset: u64, wait: Duration) -> Follow {
    Follow {
        stream: LogStream::Stdout,
        attempt,
        offset,
        wait,
    }
}

fn part(attempt: u32, offset: u64, text: &str) -> OutputPart {
    OutputPart {
        attempt,
        offset,
        bytes: text.into(),
    }
}

type Call = tokio::task::JoinHandle<Result<Followed, CoordinatorError>>;

impl Bench {
    /// A call that is on its way.
    fn follow(&self, task: Uuid, follow: Follow) -> Call {
        let coordinator = self.coordinator.clone();
        tokio::spawn(async move { coordinator.follow(task, follow).await })
    }

    /// A session that holds a task which runs.
    async fn running(&self) -> (Peer, WorkerTaskResp) {
        self.submit(1).await;
        let (peer, _) = self.session(Vec::new()).await;
        let task = peer.claim(1).await.remove(0);
        let started = ReportTaskOp::Started { at_us: 1 };
        assert_eq!(peer.commit(&task, started).await, Verdict::Accepted);
        (peer, task)
    }
}

impl Peer {
    async fn reading(&self) -> (u64, PartRequest) {
        loop {
            match self.answer().await {
                ToManager::Read { id, request } => return (id, request),
                ToManager::Hint(Hint::Work) => {}
                other => panic!("nothing is read but {other:?}"),
            }
        }
    }

    async fn answer_reading(&self, id: u64, answer: PartAnswer) {
        self.send(ToCoordinator::Output { id, answer }).await;
    }
}

#[track_caller]
fn running(followed: Result<Followed, CoordinatorError>) -> OutputPart {
    match followed {
        Ok(Followed::Running(part)) => part,
        other => panic!("it runs, but {other:?}"),
    }
}

pub(super) async fn a_part_comes_from_the_manager_that_runs_the_task(bench: Bench) {
    let (peer, task) = bench.running().await;
    let call = bench.follow(task.uuid, from(0, 0, LONG));
    let (id, request) = peer.reading().await;
    let expected = PartRequest {
        lease: held(&task),
        stream: LogStream::Stdout,
        attempt: 0,
        offset: 0,
    };
    assert_eq!(request, expected);
    // An answer to something else is nobody's.
    let stray = PartAnswer::Part(part(1, 0, "stray"));
    peer.answer_reading(id + 1, stray).await;
    peer.answer_reading(id, PartAnswer::Part(part(1, 0, "one\n")))
        .await;
    assert_eq!(running(call.await.unwrap()), part(1, 0, "one\n"));
    // Nothing new is waited for, and asked for again.
    let call = bench.follow(task.uuid, from(1, 4, LONG));
    for answer in [
        PartAnswer::Part(part(1, 4, "")),
        PartAnswer::NotNow,
        PartAnswer::Part(part(1, 9, "two\n")),
    ] {
        let (id, request) = peer.reading().await;
        assert_eq!((request.attempt, request.offset), (1, 4));
        peer.answer_reading(id, answer).await;
    }
    assert_eq!(running(call.await.unwrap()), part(1, 9, "two\n"));
}

pub(super) async fn a_task_that_ends_meanwhile_is_answered_from_what_is_kept(bench: Bench) {
    let (peer, task) = bench.running().await;
    let call = bench.follow(task.uuid, from(1, 4, LONG));
    let (id, _) = peer.reading().await;
    assert_eq!(peer.commit(&task, exited()).await, Verdict::Accepted);
    peer.answer_reading(id, PartAnswer::NotHere).await;
    match call.await.unwrap() {
        Ok(Followed::Ended(ended)) => assert_eq!(ended.summary.state, TaskState::Completed),
        other => panic!("it has ended, but {other:?}"),
    }
}

pub(super) async fn a_task_that_goes_to_another_holder_is_followed_there(bench: Bench) {
    let (peer, task) = bench.running().await;
    let call = bench.follow(task.uuid, from(0, 0, LONG));
    let (id, _) = peer.reading().await;
    peer.answer_reading(id, PartAnswer::Part(part(1, 0, "first")))
        .await;
    call.await.unwrap().unwrap();
    let reason = "drained".to_owned();
    peer.commit(&task, ReportTaskOp::Released { reason }).await;
    let call = bench.follow(task.uuid, from(1, 5, LONG));
    // The coordinator still believes that it is here.
    let (id, _) = peer.reading().await;
    peer.answer_reading(id, PartAnswer::NotHere).await;
    let again = peer.claim(1).await.remove(0);
    let (id, request) = peer.reading().await;
    assert_eq!(request.lease, held(&again));
    assert!(again.lease > task.lease);
    peer.answer_reading(id, PartAnswer::Part(part(2, 0, "second")))
        .await;
    assert_eq!(running(call.await.unwrap()), part(2, 0, "second"));
}

pub(super) async fn without_its_manager_a_task_is_away_and_comes_back(bench: Bench) {
    let (peer, task) = bench.running().await;
    let call = bench.follow(task.uuid, from(1, 0, Duration::ZERO));
    peer.reading().await;
    // It left without an answer.
    drop(peer);
    assert!(matches!(call.await.unwrap(), Ok(Followed::Away)));
    let call = bench.follow(task.uuid, from(1, 0, LONG));
    let (peer, _) = bench.session(vec![held(&task)]).await;
    let (id, _) = peer.reading().await;
    peer.answer_reading(id, PartAnswer::Part(part(1, 0, "back")))
        .await;
    assert_eq!(running(call.await.unwrap()), part(1, 0, "back"));
}

pub(super) async fn a_task_that_nobody_has_is_waited_for(bench: Bench) {
    let task = bench.submit(1).await[0];
    let now = bench
        .coordinator
        .follow(task, from(0, 0, Duration::ZERO))
        .await;
    assert!(matches!(now, Ok(Followed::Waiting)));
    let call = bench.follow(task, from(0, 0, LONG));
    bench.coordinator.cancel(task, true).await.unwrap();
    match call.await.unwrap() {
        Ok(Followed::Ended(ended)) => assert_eq!(ended.summary.state, TaskState::Cancelled),
        other => panic!("it was cancelled, but {other:?}"),
    }
    let unknown = bench
        .coordinator
        .follow(Uuid::nil(), from(0, 0, LONG))
        .await;
    assert!(matches!(
        unknown,
        Err(CoordinatorError::Store(StoreError::NotFound { .. }))
    ));
}

pub(super) async fn readers_that_are_gone_make_room_and_no_request(bench: Bench) {
    let (peer, task) = bench.running().await;
    let calls: Vec<Call> = (0..MOST_FOLLOWERS)
        .map(|_| bench.follow(task.uuid, from(1, 0, LONG)))
        .collect();
    // Once each has asked, each has its place.
    for _ in 0..MOST_FOLLOWERS {
        peer.reading().await;
    }
    let one_more = bench.coordinator.follow(task.uuid, from(1, 0, LONG)).await;
    assert!(matches!(
        one_more,
        Err(CoordinatorError::TooManyFollowers { .. })
    ));
    for call in calls {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    let last = bench.follow(task.uuid, from(1, 7, LONG));
    let (id, request) = peer.reading().await;
    assert_eq!(request.offset, 7);
    peer.answer_reading(id, PartAnswer::Part(part(1, 7, "room")))
        .await;
    assert_eq!(running(last.await.unwrap()), part(1, 7, "room"));
}
