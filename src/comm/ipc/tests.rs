//! The connection against a manager that says what the test wants.

use mitosis_bridge::{Dispatch, FetchWish, Word};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::*;
use crate::comm::Claim;
use crate::protocol::control::WorkerMode;
use crate::protocol::{
    CancelOrder, Lease, Mode, ReportTaskOp, TaskSpec, Try, Verdict, WorkerTaskResp,
};

const IDENTITY: IpcIdentity = IpcIdentity {
    local_id: LocalId(3),
    incarnation: Incarnation(77),
};

#[derive(Debug)]
struct FakeLink {
    fetches: Mutex<VecDeque<Result<FetchAnswer, CallError>>>,
    reports: Mutex<VecDeque<Result<Bytes, CallError>>>,
    reported: Mutex<Vec<Bytes>>,
    /// Keys of what was claimed.
    claims: Mutex<Vec<u64>>,
    control_tx: watch::Sender<Bytes>,
    gone_tx: watch::Sender<bool>,
    stamps: AtomicUsize,
    closed: AtomicUsize,
}

use std::sync::atomic::{AtomicUsize, Ordering};

impl FakeLink {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            fetches: Mutex::default(),
            reports: Mutex::default(),
            reported: Mutex::default(),
            claims: Mutex::default(),
            control_tx: watch::channel(Bytes::new()).0,
            gone_tx: watch::channel(false).0,
            stamps: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        })
    }

    fn fetch_answer(&self, answer: Result<FetchAnswer, CallError>) {
        self.fetches.lock().unwrap().push_back(answer);
    }

    fn publish(&self, state: &ControlState) {
        self.control_tx.send_replace(frame::encode(state).into());
    }
}

impl ManagerLink for Arc<FakeLink> {
    async fn fetch(&self, _wish: FetchWish) -> Result<FetchAnswer, CallError> {
        let next = self.fetches.lock().unwrap().pop_front();
        next.expect("the test has an answer")
    }

    fn claim(&self, reply: &Dispatch) -> Arc<dyn Claim> {
        self.claims.lock().unwrap().push(reply.key);
        Dispatched::own(*task()).claim
    }

    async fn report(&self, payload: Bytes, _deadline: Duration) -> Result<Bytes, CallError> {
        self.reported.lock().unwrap().push(payload);
        let next = self.reports.lock().unwrap().pop_front();
        next.expect("the test has an answer")
    }

    fn control(&self) -> watch::Receiver<Bytes> {
        self.control_tx.subscribe()
    }

    fn gone(&self) -> watch::Receiver<bool> {
        self.gone_tx.subscribe()
    }

    fn stamp(&self) {
        self.stamps.fetch_add(1, Ordering::Relaxed);
    }

    async fn close(&self, _deadline: Duration) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

fn comm(link: &Arc<FakeLink>) -> IpcWorkerComm<Arc<FakeLink>> {
    IpcWorkerComm::new(Arc::clone(link), IDENTITY, &ControlState::default())
}

fn task() -> Box<WorkerTaskResp> {
    Box::new(WorkerTaskResp {
        ids: None,
        id: 7,
        uuid: Uuid::from_u128(7),
        lease: Lease::new(1, 2),
        try_no: Try(1),
        attempt: 1,
        failures: 0,
        suite_uuid: Uuid::nil(),
        upstream_task_uuid: None,
        links: Default::default(),
        spec: TaskSpec::argv(["true"]),
    })
}

fn dispatch(key: u64, frame: &FetchTaskResponse) -> Dispatch {
    Dispatch {
        key,
        word: Word::NONE,
        payload: frame::encode(frame).into(),
    }
}

fn reply(frame: &FetchTaskResponse) -> Result<FetchAnswer, CallError> {
    Ok(FetchAnswer::Replies(vec![dispatch(7, frame)]))
}

fn state(seq: u64, mode: Mode) -> ControlState {
    ControlState {
        epoch: 1,
        seq,
        mode,
        ..ControlState::default()
    }
}

fn report() -> TaskReport {
    TaskReport {
        seq: 1,
        task_id: 7,
        task_uuid: Uuid::from_u128(7),
        lease: Lease::new(1, 2),
        try_no: Try(1),
        op: ReportTaskOp::Started { at_us: 5 },
    }
}

#[tokio::test]
async fn every_answer_to_a_fetch_has_its_meaning() {
    let link = FakeLink::new();
    let comm: Box<dyn WorkerComm> = Box::new(comm(&link));
    let alone = FetchTaskResponse::Alone(task());
    let several = vec![
        dispatch(7, &FetchTaskResponse::Task(task())),
        dispatch(8, &alone),
    ];
    link.fetch_answer(Ok(FetchAnswer::Replies(several)));
    let Fetched::Tasks(tasks) = comm.fetch_tasks(FetchWish::ONE).await.unwrap() else {
        panic!("there are tasks");
    };
    let alone: Vec<bool> = tasks.iter().map(|task| task.alone).collect();
    assert_eq!(alone, [false, true]);
    assert_eq!(*tasks[1].task, *task());
    assert_eq!(
        *link.claims.lock().unwrap(),
        [7, 8],
        "each under its own word"
    );
    link.fetch_answer(Ok(FetchAnswer::Empty));
    let empty = comm.fetch_tasks(FetchWish::ONE).await.unwrap();
    assert!(matches!(empty, Fetched::Empty { retry_after } if retry_after.is_zero()));
    link.fetch_answer(Ok(FetchAnswer::Draining));
    let draining = comm.fetch_tasks(FetchWish::ONE).await.unwrap();
    assert!(matches!(draining, Fetched::Draining));
    assert_eq!(comm.start_rule(), StartRule::Immediately);
}

#[tokio::test]
async fn a_hand_over_that_nobody_can_read_ends_the_connection() {
    let link = FakeLink::new();
    let comm = comm(&link);
    let garbled = Dispatch {
        payload: Bytes::from_static(b"\xc1"),
        ..dispatch(7, &FetchTaskResponse::Task(task()))
    };
    link.fetch_answer(Ok(FetchAnswer::Replies(vec![garbled])));
    let error = comm.fetch_tasks(FetchWish::ONE).await.unwrap_err();
    assert!(matches!(error, CommError::Protocol { .. }), "{error}");
    assert!(matches!(comm.lost().await, CommError::Protocol { .. }));
}

#[tokio::test]
async fn reports_travel_as_a_frame_and_their_answers_are_read() {
    let link = FakeLink::new();
    let comm = comm(&link);
    let answer = vec![ReportTaskResp::of(Verdict::Accepted, 1)];
    link.reports
        .lock()
        .unwrap()
        .push_back(Ok(frame::encode(&answer).into()));
    assert_eq!(
        comm.report_tasks(&[Arc::new(report())]).await.unwrap(),
        answer
    );
    let sent: Vec<TaskReport> =
        frame::decode("reports", &link.reported.lock().unwrap()[0]).unwrap();
    assert_eq!(sent, [report()]);

    link.reports
        .lock()
        .unwrap()
        .push_back(Ok(Bytes::from_static(b"\xc1")));
    let garbled = comm.report_tasks(&[Arc::new(report())]).await.unwrap_err();
    assert!(matches!(garbled, CommError::Protocol { .. }), "{garbled}");
}

#[tokio::test]
async fn errors_of_the_bridge_keep_their_class() {
    let link = FakeLink::new();
    let comm = comm(&link);
    for error in [
        CallError::Full,
        CallError::DeadlineExceeded,
        CallError::Abandoned,
    ] {
        link.reports.lock().unwrap().push_back(Err(error));
        assert!(
            comm.report_tasks(&[Arc::new(report())])
                .await
                .unwrap_err()
                .is_retryable()
        );
    }
    for error in [CallError::Gone, CallError::Closed] {
        link.fetch_answer(Err(error));
        let error = comm.fetch_tasks(FetchWish::ONE).await.unwrap_err();
        assert!(
            matches!(error, CommError::PeerGone { peer: "manager" }),
            "{error}"
        );
    }
    let reason = "wrong token".to_owned();
    link.fetch_answer(Err(CallError::Refused { reason }));
    let error = comm.fetch_tasks(FetchWish::ONE).await.unwrap_err();
    assert!(matches!(&error, CommError::Refused { reason } if reason.contains("wrong token")));
}

#[tokio::test]
async fn control_follows_newer_states_of_this_worker_only() {
    let link = FakeLink::new();
    let comm = comm(&link);
    let mut control = comm.control();
    let mut newer = state(2, Mode::Run);
    newer.workers = vec![WorkerMode {
        local_id: LocalId(3),
        incarnation: Some(Incarnation(77)),
        mode: Mode::Pause,
    }];
    link.publish(&newer);
    assert_eq!(
        control
            .wait_for(|desired| desired.seq == 2)
            .await
            .unwrap()
            .mode,
        Mode::Pause
    );
    // An older state changes nothing, and neither does one that cannot be read.
    link.publish(&state(1, Mode::Run));
    tokio::task::yield_now().await;
    link.control_tx.send_replace(Bytes::from_static(b"\xc1"));
    while comm.skipped_control_states() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(comm.control().borrow().seq, 2);
    link.publish(&state(3, Mode::Run));
    assert_eq!(
        control
            .wait_for(|desired| desired.seq == 3)
            .await
            .unwrap()
            .mode,
        Mode::Run
    );
}

#[tokio::test]
async fn the_state_that_came_with_the_invitation_counts_from_the_beginning() {
    let link = FakeLink::new();
    let comm = IpcWorkerComm::new(Arc::clone(&link), IDENTITY, &state(4, Mode::Pause));
    assert_eq!(comm.control().borrow().mode, Mode::Pause);
    // One that was published between the invitation and now counts as well.
    link.publish(&state(5, Mode::Run));
    let later = IpcWorkerComm::new(Arc::clone(&link), IDENTITY, &state(4, Mode::Pause));
    assert_eq!(later.control().borrow().seq, 5);
}

#[tokio::test]
async fn a_cancel_that_was_published_before_the_task_is_known_with_the_task() {
    let link = FakeLink::new();
    let comm = comm(&link);
    let control = comm.control();
    let order = CancelOrder {
        task_id: 7,
        task_uuid: Uuid::nil(),
        lease: Lease::new(1, 2),
        try_no: None,
        graceful: true,
    };
    let mut cancelled = state(1, Mode::Run);
    cancelled.cancels = vec![order];
    link.publish(&cancelled);
    link.fetch_answer(reply(&FetchTaskResponse::Task(task())));
    // Nothing is awaited that could let the follower run in between.
    comm.fetch_tasks(FetchWish::ONE).await.unwrap();
    assert_eq!(control.borrow().cancels, [order]);
}

#[tokio::test]
async fn a_heartbeat_is_a_stamp_and_leaving_closes_the_link() {
    let link = FakeLink::new();
    let comm = comm(&link);
    comm.send_heartbeat().await.unwrap();
    comm.leave(Duration::from_secs(1)).await;
    let counts = (
        link.stamps.load(Ordering::Relaxed),
        link.closed.load(Ordering::Relaxed),
    );
    assert_eq!(counts, (1, 1));
}

#[tokio::test]
async fn a_manager_that_is_gone_is_told() {
    let link = FakeLink::new();
    let comm = comm(&link);
    let lost = comm.lost();
    link.gone_tx.send_replace(true);
    assert!(matches!(
        lost.await,
        CommError::PeerGone { peer: "manager" }
    ));
}
