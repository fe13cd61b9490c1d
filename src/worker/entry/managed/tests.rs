//! A managed worker against the real server end of the bridge, over shared memory, in one process.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::Batching;
use mitosis_bridge::config::PollConfig;
use mitosis_bridge::cost::Cost;
use mitosis_bridge::ids::LocalId;
use mitosis_bridge::root::TransportRoot;
use mitosis_bridge::server::{
    PreparedReply, Ring, Server, ServerConfig, ServerEvent, ServerEvents, ServerHandle, Wake,
};
use mitosis_bridge::status::{StatusSnapshot, StatusView};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::error_chain::error_chain;
use crate::exit_code::Exit;
use crate::protocol::frame::{CwdPolicy, EnvPolicy, FetchTaskResponse, KeptOutput};
use crate::protocol::limits::TaskGroups;
use crate::protocol::{
    CancelOrder, ControlState, Lease, Mode, ReportTaskOp, ReportTaskResp, TaskReport, TaskSpec,
    Try, Verdict, WorkerTaskResp,
};
use crate::shutdown::ShutdownRequest;

const MANAGER: Uuid = Uuid::from_u128(0x5eed);
const SLOT: LocalId = LocalId(3);
const STUCK: Duration = Duration::from_secs(60);

/// A manager with one worker slot that keeps every report.
struct Manager {
    server: Option<Server>,
    handle: ServerHandle,
    events: ServerEvents,
    dir: tempfile::TempDir,
    status: StatusView,
    fds: Option<ClientFds>,
    reports: Vec<TaskReport>,
    left: bool,
    seq: u64,
}

impl Manager {
    async fn start(first: &ControlState) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let instance = &Uuid::new_v4().simple().to_string()[..8];
        let config = ServerConfig {
            manager: MANAGER,
            root: TransportRoot::at(dir.path(), instance).unwrap(),
            poll: PollConfig::default(),
            capacity: Cost([1000; 4]),
            notices: 16,
        };
        let (server, handle, events) = Server::open(config).await.unwrap();
        let setup = WorkerSetup {
            slot_dir: dir.path().join("slot"),
            output_dir: dir.path().join("output"),
            instance: "test".into(),
            env: EnvPolicy::AllowList,
            cwd: CwdPolicy::TaskDir,
            kept_output: KeptOutput::Stays,
            groups: TaskGroups::default(),
            live_dir: None,
            halt_after: Default::default(),
            apart: None,
            nice: 0,
            passed: Vec::new(),
            control: first.clone(),
        };
        let invitation = handle
            .invite(SLOT, frame::encode(&setup).into())
            .await
            .unwrap();
        Self {
            server: Some(server),
            handle,
            events,
            dir,
            status: invitation.status,
            fds: Some(ClientFds {
                doorbell: invitation.fds.doorbell,
                status: invitation.fds.status,
                board: invitation.fds.board,
            }),
            reports: Vec::new(),
            left: false,
            seq: first.seq,
        }
    }

    async fn give(&self, id: i64, line: &str) {
        let task = FetchTaskResponse::Alone(Box::new(task(id, line)));
        let prepared = PreparedReply {
            key: id.unsigned_abs(),
            cost: Cost([1; 4]),
            batching: Batching::Alone,
            not_after: Instant::now() + STUCK,
            payload: frame::encode(&task).into(),
        };
        self.handle.prepare(prepared).await.unwrap();
    }

    async fn want(&mut self, mode: Mode, cancels: Vec<CancelOrder>) {
        self.seq += 1;
        let state = ControlState {
            epoch: 1,
            seq: self.seq,
            mode,
            cancels,
            ..ControlState::default()
        };
        let state = Bytes::from(frame::encode(&state));
        self.handle.publish_control(state, Wake::All).await.unwrap();
    }

    /// Serves reports until the condition holds.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + STUCK;
        while !condition(self) {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!(
                    "stuck before {what}: {:?}, {:?}",
                    self.reports,
                    self.snapshot()
                );
            };
            self.on(event);
        }
    }

    fn on(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Report { payload, reply, .. } => {
                let mut reports: Vec<TaskReport> = frame::decode("reports", &payload).unwrap();
                let report = reports.remove(0);
                let answer = [ReportTaskResp::of(Verdict::Accepted, report.seq)];
                self.reports.push(report);
                reply.reply(frame::encode(&answer).into(), Ring::Now);
            }
            ServerEvent::Left { .. } => self.left = true,
            _ => {}
        }
    }

    fn ops(&self, id: i64) -> Vec<&ReportTaskOp> {
        let of_task = self.reports.iter().filter(|report| report.task_id == id);
        of_task.map(|report| &report.op).collect()
    }

    fn snapshot(&self) -> StatusSnapshot {
        self.status.snapshot()
    }

    async fn close(mut self) {
        if let Some(server) = self.server.take() {
            server.close(Duration::from_secs(5)).await;
        }
        drop(self.dir);
    }
}

fn task(id: i64, line: &str) -> WorkerTaskResp {
    WorkerTaskResp {
        ids: None,
        id,
        uuid: Uuid::from_u128(u128::from(id.unsigned_abs())),
        lease: Lease::new(1, 1),
        try_no: Try(1),
        attempt: 1,
        failures: 0,
        suite_uuid: Uuid::nil(),
        upstream_task_uuid: None,
        links: Default::default(),
        spec: TaskSpec::shell_line(line),
    }
}

const EXPECTED: Expected = Expected {
    manager: MANAGER,
    local_id: SLOT,
};

/// The worker that the manager has invited, and what stands for its signals.
fn worker(
    manager: &mut Manager,
) -> (
    impl Future<Output = Ended> + use<>,
    mpsc::Sender<ShutdownRequest>,
) {
    let fds = manager.fds.take().expect("one worker per manager");
    let (requests_tx, requests_rx) = mpsc::channel(4);
    let worker = async move {
        let mut signals = StopSignals::Channel(requests_rx);
        let served = tokio::time::timeout(STUCK, serve(fds, EXPECTED, &mut signals)).await;
        served.expect("the worker ends").expect("it can start")
    };
    (worker, requests_tx)
}

const LEAVE: Mode = Mode::Shutdown {
    graceful: true,
    deadline_ms: 0,
};

#[tokio::test]
async fn tasks_travel_over_shared_memory_and_back() {
    let mut manager = Manager::start(&ControlState::default()).await;
    let (worker, _signals) = worker(&mut manager);
    let script = async {
        manager.give(1, "echo over the bridge").await;
        manager.give(2, "exit 3").await;
        let ended = |m: &Manager| m.ops(2).last().is_some_and(|op| op.is_final());
        manager.until("two ends", ended).await;
        manager.want(LEAVE, Vec::new()).await;
        manager.until("the goodbye", |m| m.left).await;
    };
    let (ended, ()) = tokio::join!(worker, script);
    assert_eq!(
        (ended.exit(), ended.tally.completed, ended.tally.failed),
        (Exit::Ok, 1, 1)
    );
    // Whether its beginning was told depends on how long it took.
    match manager.ops(1)[..] {
        [.., ReportTaskOp::Completed(result)] => {
            assert_eq!(result.stdout.tail, b"over the bridge\n");
        }
        ref other => panic!("{other:?}"),
    }
    let seqs: Vec<u64> = manager.reports.iter().map(|report| report.seq).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    let snapshot = manager.snapshot();
    assert_eq!(snapshot.outcomes, [1, 1, 0, 0]);
    assert_eq!((snapshot.task, snapshot.pid), (None, std::process::id()));
    manager.close().await;
}

#[tokio::test]
async fn the_status_block_names_the_running_task_and_a_cancel_ends_it() {
    let mut manager = Manager::start(&ControlState::default()).await;
    let (worker, _signals) = worker(&mut manager);
    let script = async {
        manager.give(7, "exec sleep 1000").await;
        manager.until("the start", |m| m.ops(7).len() == 1).await;
        let status = manager.status.clone();
        let in_hand = async {
            loop {
                match status.snapshot().task {
                    Some(task) if task.pgid != 0 => break task,
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        let in_hand = tokio::time::timeout(STUCK, in_hand)
            .await
            .expect("a process group");
        assert_eq!(
            (in_hand.task_id, in_hand.lease, in_hand.attempt),
            (7, Lease::new(1, 1).0, 1)
        );
        let order = CancelOrder {
            task_id: 7,
            task_uuid: Uuid::nil(),
            lease: Lease::new(1, 1),
            try_no: Some(Try(1)),
            graceful: true,
        };
        manager.want(Mode::Run, vec![order]).await;
        manager.until("the end", |m| m.ops(7).len() == 2).await;
        assert!(matches!(manager.ops(7)[1], ReportTaskOp::Cancelled(_)));
        manager.want(LEAVE, Vec::new()).await;
        manager.until("the goodbye", |m| m.left).await;
    };
    let (ended, ()) = tokio::join!(worker, script);
    assert_eq!((ended.exit(), ended.tally.cancelled), (Exit::Ok, 1));
    manager.close().await;
}

#[tokio::test]
async fn a_worker_whose_manager_dies_ends_its_task_and_says_so() {
    let mut manager = Manager::start(&ControlState::default()).await;
    let (worker, _signals) = worker(&mut manager);
    let script = async {
        manager.give(1, "exec sleep 1000").await;
        manager.until("the start", |m| m.ops(1).len() == 1).await;
        drop(manager.server.take());
    };
    let (ended, ()) = tokio::join!(worker, script);
    assert_eq!(ended.exit(), Exit::ManagerGone);
    manager.close().await;
}

#[tokio::test]
async fn a_signal_hands_the_task_back_after_its_deadline() {
    let mut manager = Manager::start(&ControlState::default()).await;
    let (worker, signals) = worker(&mut manager);
    let script = async {
        manager.give(1, "exec sleep 1000").await;
        manager.until("the start", |m| m.ops(1).len() == 1).await;
        let deadline = Duration::from_millis(50);
        signals
            .send(ShutdownRequest::Graceful { deadline })
            .await
            .unwrap();
        manager.until("the goodbye", |m| m.left).await;
        assert!(matches!(manager.ops(1)[1], ReportTaskOp::Released { .. }));
    };
    let (ended, ()) = tokio::join!(worker, script);
    assert_eq!(ended.exit(), Exit::HandedBack);
    manager.close().await;
}

#[tokio::test]
async fn the_control_state_of_the_invitation_holds_from_the_beginning() {
    let paused = ControlState {
        epoch: 1,
        seq: 1,
        mode: Mode::Pause,
        ..ControlState::default()
    };
    let mut manager = Manager::start(&paused).await;
    let (worker, _signals) = worker(&mut manager);
    let script = async {
        manager.give(1, "true").await;
        manager.want(LEAVE, Vec::new()).await;
        manager.until("the goodbye", |m| m.left).await;
        assert!(manager.ops(1).is_empty());
    };
    let (ended, ()) = tokio::join!(worker, script);
    assert_eq!(ended.exit(), Exit::Ok);
    manager.close().await;
}

#[tokio::test]
async fn an_invitation_for_somebody_else_is_refused() {
    let mut manager = Manager::start(&ControlState::default()).await;
    let fds = manager.fds.take().unwrap();
    let other = Expected {
        local_id: LocalId(4),
        ..EXPECTED
    };
    let mut signals = StopSignals::Channel(mpsc::channel(1).1);
    let error = serve(fds, other, &mut signals).await.expect_err("refused");
    assert_eq!(error.exit(), Exit::Refused);
    assert!(
        error_chain(&error).contains("worker 3"),
        "{}",
        error_chain(&error)
    );
    manager.close().await;
}
