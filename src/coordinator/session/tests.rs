//! Sessions seen from the manager's end, over memory and over a WebSocket: a manager cannot tell them apart.

use crate::protocol::Capacity;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::comm::ws::WsConnector;
use crate::coordinator::auth::Scope;
use crate::coordinator::core::ModeTarget;
use crate::coordinator::store::clock::ManualClock;
use crate::coordinator::store::sqlite::SqliteStore;
use crate::coordinator::{CoordinatorConfig, WaitFor};
use crate::protocol::api::{SubmitRequest, SubmitTask};
use crate::protocol::ids::{Boot, Try};
use crate::protocol::report::Reason;
use crate::protocol::session::{HeldLease, Hello, Welcome};
use crate::protocol::{
    ControlState, PROTOCOL_VERSION, ReportTaskOp, TaskReport, TaskResult, TaskSpec, TaskState,
    Verdict, WorkerTaskResp,
};

mod following;
mod tuning;
use following::{
    a_part_comes_from_the_manager_that_runs_the_task,
    a_task_that_ends_meanwhile_is_answered_from_what_is_kept,
    a_task_that_goes_to_another_holder_is_followed_there, a_task_that_nobody_has_is_waited_for,
    readers_that_are_gone_make_room_and_no_request,
    without_its_manager_a_task_is_away_and_comes_back,
};
use tuning::{
    an_order_about_pollers_ends_with_the_managers_answer,
    an_order_that_nobody_can_carry_out_is_refused,
    orders_about_pollers_add_up_and_last_as_long_as_the_manager,
};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);
const MANAGER: Uuid = Uuid::from_u128(77);

/// Which link a test runs over.
#[derive(Debug, Clone, Copy)]
enum Link {
    Memory,
    WebSocket,
}

struct Bench {
    coordinator: Coordinator,
    connector: Arc<dyn Connector>,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl Bench {
    async fn new(link: Link) -> Self {
        let dir = TempDir::new().unwrap();
        let config = CoordinatorConfig::new(dir.path());
        let clock = Arc::new(ManualClock::default());
        let store = SqliteStore::open(&config, clock.clone()).await.unwrap();
        let coordinator = Coordinator::with_store(config, Arc::new(store)).await;
        let coordinator = coordinator.unwrap();
        let connector = match link {
            Link::Memory => coordinator.local_connector(),
            Link::WebSocket => websocket_connector(&coordinator).await,
        };
        Self {
            coordinator,
            connector,
            clock,
            _dir: dir,
        }
    }

    async fn submit(&self, tasks: usize) -> Vec<Uuid> {
        let task = SubmitTask {
            key: None,
            spec: TaskSpec::argv(["true"]),
        };
        let request = SubmitRequest {
            suite: None,
            tasks: vec![task; tasks],
        };
        let answer = self.coordinator.submit(request).await.unwrap();
        answer.tasks.iter().map(|task| task.uuid).collect()
    }

    async fn state(&self, task: Uuid) -> TaskState {
        self.coordinator.task(task).await.unwrap().summary.state
    }

    async fn link(&self) -> Peer {
        let end = self.connector.connect().await.unwrap();
        Peer { end }
    }

    /// A session that has said hello with this inventory.
    async fn session(&self, inventory: Vec<HeldLease>) -> (Peer, Welcome) {
        let peer = self.link().await;
        peer.send(ToCoordinator::Hello(hello(inventory))).await;
        match peer.next().await {
            ToManager::Welcome(welcome) => (peer, welcome),
            other => panic!("no welcome but {other:?}"),
        }
    }
}

/// Serves the coordinator on a free port until it is closed.
async fn websocket_connector(coordinator: &Coordinator) -> Arc<dyn Connector> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let token = coordinator.issue_token(Scope::Manager, "test");
    let serving = coordinator.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    Arc::new(WsConnector::new(&url, token.into()).unwrap())
}

fn hello(inventory: Vec<HeldLease>) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        manager: MANAGER,
        boot: Boot(1),
        earlier: Vec::new(),
        host: "host".into(),
        workers: 2,
        capacity: Capacity {
            milli_cpus: Some(2_000),
            ..Capacity::default()
        },
        tags: Vec::new(),
        metrics: None,
        inventory,
    }
}

/// The manager's end of a session.
struct Peer {
    end: ManagerEnd,
}

impl Peer {
    async fn send(&self, frame: ToCoordinator) {
        self.end.frames_tx.send_async(frame).await.unwrap();
    }

    async fn next(&self) -> ToManager {
        self.try_next().await.expect("the session is open")
    }

    /// The next frame; `None` when the session is over.
    async fn try_next(&self) -> Option<ToManager> {
        let frame = tokio::time::timeout(PATIENCE, self.end.frames_rx.recv_async()).await;
        frame.expect("a frame comes in time").ok()
    }

    /// The next frame that is no directive.
    async fn answer(&self) -> ToManager {
        loop {
            match self.next().await {
                ToManager::Hint(Hint::Directive(_)) => {}
                frame => return frame,
            }
        }
    }

    /// The next directive that fulfils a condition.
    async fn directive(&self, wanted: impl Fn(&ControlState) -> bool) -> ControlState {
        loop {
            if let ToManager::Hint(Hint::Directive(state)) = self.next().await
                && wanted(&state)
            {
                return state;
            }
        }
    }

    async fn claim(&self, limit: u32) -> Vec<WorkerTaskResp> {
        self.send(ToCoordinator::Claim { id: 1, limit }).await;
        loop {
            match self.answer().await {
                ToManager::Claimed { id: 1, tasks } => return tasks,
                ToManager::Hint(Hint::Work) => {}
                other => panic!("no tasks but {other:?}"),
            }
        }
    }

    async fn commit(&self, task: &WorkerTaskResp, op: ReportTaskOp) -> Verdict {
        let commits = vec![report(task, op)];
        self.send(ToCoordinator::Commit { id: 2, commits }).await;
        match self.answer().await {
            ToManager::Committed { id: 2, verdicts } => verdicts[0].clone(),
            other => panic!("no verdicts but {other:?}"),
        }
    }

    async fn renew(&self) -> (Vec<HeldLease>, ControlState) {
        let status = ManagerStatus::default();
        self.send(ToCoordinator::Renew { id: 3, status }).await;
        match self.answer().await {
            ToManager::Renewed {
                id: 3,
                lost,
                directive,
            } => (lost, directive),
            other => panic!("no renewal but {other:?}"),
        }
    }

    async fn is_over(&self) {
        while self.try_next().await.is_some() {}
    }
}

fn report(task: &WorkerTaskResp, op: ReportTaskOp) -> Commit {
    Commit {
        report: TaskReport {
            seq: 1,
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: Try(1),
            op,
        },
        attempt: task.attempt,
        lost_tries: Vec::new(),
    }
}

fn exited() -> ReportTaskOp {
    ReportTaskOp::ended(TaskResult {
        exit_code: Some(0),
        started_at_us: Some(1),
        ..TaskResult::not_started(Reason::Exit, "", 2)
    })
}

fn cancelled() -> ReportTaskOp {
    ReportTaskOp::ended(TaskResult::not_started(Reason::Cancelled, "", 2))
}

fn held(task: &WorkerTaskResp) -> HeldLease {
    HeldLease {
        task: task.task(),
        lease: task.lease,
    }
}

async fn a_manager_of_another_version_is_refused_in_words(bench: Bench) {
    let peer = bench.link().await;
    let newer = Hello {
        version: PROTOCOL_VERSION + 1,
        ..hello(Vec::new())
    };
    peer.send(ToCoordinator::Hello(newer)).await;
    match peer.next().await {
        ToManager::Refused { message } => assert!(message.contains("version"), "{message}"),
        other => panic!("not refused but {other:?}"),
    }
    peer.is_over().await;
    assert_eq!(bench.coordinator.managers().await.unwrap(), []);
}

async fn a_session_begins_with_a_hello_or_not_at_all(bench: Bench) {
    let peer = bench.link().await;
    peer.send(ToCoordinator::Claim { id: 1, limit: 1 }).await;
    assert!(matches!(peer.next().await, ToManager::Refused { .. }));
    peer.is_over().await;
}

async fn a_welcome_tells_the_terms_and_the_manager_is_listed(bench: Bench) {
    let (peer, welcome) = bench.session(Vec::new()).await;
    assert_eq!(welcome.epoch, bench.coordinator.epoch());
    assert_eq!((welcome.lease_ms, welcome.renew_ms), (120_000, 10_000));
    let managers = bench.coordinator.managers().await.unwrap();
    assert_eq!((managers[0].uuid, managers[0].connected), (MANAGER, true));
    drop(peer);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.coordinator.managers().await.unwrap()[0].connected {
        assert!(tokio::time::Instant::now() < deadline, "still connected");
        tokio::task::yield_now().await;
    }
}

async fn a_reconnect_keeps_and_drops_lease_by_lease(bench: Bench) {
    bench.submit(3).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let tasks = peer.claim(3).await;
    peer.commit(&tasks[1], exited()).await;
    drop(peer);
    // It still has the first, does not know that the second was committed, and never heard of the third.
    let inventory = vec![held(&tasks[0]), held(&tasks[1])];
    let (peer, welcome) = bench.session(inventory).await;
    assert_eq!(welcome.drop, [held(&tasks[1])]);
    assert_eq!(bench.state(tasks[2].uuid).await, TaskState::Ready);
    assert_eq!(peer.commit(&tasks[0], exited()).await, Verdict::Accepted);
    let again = peer.claim(1).await;
    assert_eq!(again[0].uuid, tasks[2].uuid);
}

async fn a_newer_session_replaces_the_older_and_its_end_touches_nothing(bench: Bench) {
    bench.submit(2).await;
    let (old, _) = bench.session(Vec::new()).await;
    let first = old.claim(1).await;
    let (new, welcome) = bench.session(vec![held(&first[0])]).await;
    assert_eq!(welcome.drop, []);
    old.is_over().await;
    drop(old);
    assert_eq!(bench.state(first[0].uuid).await, TaskState::Assigned);
    assert_eq!(new.claim(9).await.len(), 1);
    assert_eq!(new.commit(&first[0], exited()).await, Verdict::Accepted);
}

async fn a_short_answer_is_followed_by_a_hint_when_work_comes(bench: Bench) {
    let (peer, _) = bench.session(Vec::new()).await;
    assert_eq!(peer.claim(2).await, []);
    bench.submit(3).await;
    assert_eq!(peer.answer().await, ToManager::Hint(Hint::Work));
    assert_eq!(peer.claim(2).await.len(), 2);
    // The answer was full: there is no hint before the next short one.
    bench.submit(1).await;
    let (lost, _) = peer.renew().await;
    assert_eq!(lost, []);
}

/// Tasks whose specs together are as long as a frame may be, which leaves no room for its envelope.
async fn a_claim_of_more_than_a_frame_can_carry_comes_in_parts(bench: Bench) {
    let spec = || TaskSpec::argv(std::iter::repeat_n("x".repeat(130_000), 8));
    let task = || SubmitTask {
        key: None,
        spec: spec(),
    };
    let request = SubmitRequest {
        suite: None,
        tasks: std::iter::repeat_with(task).take(16).collect(),
    };
    bench.coordinator.submit(request).await.unwrap();
    let (peer, _) = bench.session(Vec::new()).await;
    let mut claimed = 0;
    while claimed < 16 {
        peer.send(ToCoordinator::Claim { id: 1, limit: 16 }).await;
        loop {
            let (tasks, last) = match peer.answer().await {
                ToManager::ClaimedPart { id: 1, tasks } => (tasks, false),
                ToManager::Claimed { id: 1, tasks } => (tasks, true),
                other => panic!("no tasks but {other:?}"),
            };
            assert!(frame::size(&tasks) < crate::comm::link::MAX_FRAME_BYTES);
            claimed += tasks.len();
            if last {
                break;
            }
        }
    }
    assert_eq!(claimed, 16);
}

async fn a_manager_that_does_not_claim_is_told_of_work_once(bench: Bench) {
    let (peer, _) = bench.session(Vec::new()).await;
    assert_eq!(peer.claim(2).await, []);
    bench.submit(5).await;
    assert_eq!(peer.answer().await, ToManager::Hint(Hint::Work));
    bench.submit(5).await;
    // Whatever was to be said before the answer has been said.
    for _ in 0..20 {
        assert_eq!(peer.renew().await.0, [], "a renewal, and no hint before it");
    }
    assert_eq!(peer.claim(2).await.len(), 2);
}

async fn a_report_with_an_odd_child_task_stops_no_other(bench: Bench) {
    bench.submit(21).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let tasks = peer.claim(21).await;
    let mut commits: Vec<Commit> = tasks.iter().map(|task| report(task, exited())).collect();
    // As long as a line may be, and a few bytes longer once it is written as this program writes it.
    let arguments = std::iter::repeat_n(format!("\"{}\"", "x".repeat(130_000)), 8);
    let mut line = format!(
        "{{\"timeout\":\"90m\",\"args\":[{}",
        arguments.collect::<Vec<_>>().join(",")
    );
    let rest = crate::protocol::task::MAX_SPEC_BYTES - line.len() - ",\"\"]}".len();
    line.push_str(&format!(",\"{}\"]}}", "x".repeat(rest)));
    if let ReportTaskOp::Completed(result) = &mut commits[10].report.op {
        let lines = crate::protocol::report::FollowUps::written(line);
        result.follow_ups = Some(Box::new(lines));
    }
    peer.send(ToCoordinator::Commit { id: 2, commits }).await;
    match peer.answer().await {
        ToManager::Committed { id: 2, verdicts } => {
            assert_eq!(verdicts, vec![Verdict::Accepted; 21]);
        }
        other => panic!("no verdicts but {other:?}"),
    }
    let detail = bench.coordinator.task(tasks[10].uuid).await.unwrap();
    let follow_ups = detail.result.unwrap().follow_ups.unwrap();
    assert_eq!((follow_ups.accepted, follow_ups.rejected), (0, 1));
    assert!(follow_ups.problems[0].contains("line 1"), "{follow_ups:?}");
}

async fn a_twin_is_refused_and_the_first_keeps_what_it_runs(bench: Bench) {
    bench.submit(2).await;
    let (first, _) = bench.session(Vec::new()).await;
    let tasks = first.claim(2).await;
    let twin = bench.link().await;
    let copied = Hello {
        boot: Boot(2),
        earlier: vec![Boot(1)],
        ..hello(Vec::new())
    };
    twin.send(ToCoordinator::Hello(copied)).await;
    let id = loop {
        if let ToManager::Inquiry { id } = first.next().await {
            break id;
        }
    };
    first.send(ToCoordinator::Present { id }).await;
    match twin.next().await {
        ToManager::Refused { message } => assert!(message.contains("copy"), "{message}"),
        other => panic!("not refused but {other:?}"),
    }
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Assigned);
    assert_eq!(first.commit(&tasks[0], exited()).await, Verdict::Accepted);
    let managers = bench.coordinator.managers().await.unwrap();
    assert!(
        managers[0]
            .trouble
            .as_ref()
            .unwrap()
            .contains("second process")
    );
}

async fn a_stranger_under_a_known_name_takes_nothing_back(bench: Bench) {
    bench.submit(1).await;
    let (first, _) = bench.session(Vec::new()).await;
    let tasks = first.claim(1).await;
    drop(first);
    let stranger = bench.link().await;
    let unknown = Hello {
        boot: Boot(2),
        ..hello(Vec::new())
    };
    stranger.send(ToCoordinator::Hello(unknown)).await;
    match stranger.next().await {
        ToManager::Over { reason } => assert!(reason.contains("leases"), "{reason}"),
        other => panic!("not sent away but {other:?}"),
    }
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Assigned);
    // The next life of the same directory knows the one before, and settles what that had.
    let next = bench.link().await;
    let successor = Hello {
        boot: Boot(3),
        earlier: vec![Boot(1)],
        ..hello(Vec::new())
    };
    next.send(ToCoordinator::Hello(successor)).await;
    assert!(matches!(next.next().await, ToManager::Welcome(_)));
    assert_eq!(bench.state(tasks[0].uuid).await, TaskState::Ready);
}

async fn a_cancel_is_pushed_and_repeated_until_its_task_has_ended(bench: Bench) {
    let uuids = bench.submit(2).await;
    let (peer, welcome) = bench.session(Vec::new()).await;
    let tasks = peer.claim(2).await;
    let answer = bench.coordinator.cancel(uuids[0], true).await.unwrap();
    assert_eq!(answer.state, TaskState::Assigned);
    let pushed = peer.directive(|state| !state.cancels.is_empty()).await;
    assert!(pushed.seq > welcome.directive.seq && pushed.epoch == welcome.directive.epoch);
    let order = pushed.cancels[0];
    assert!(order.concerns(tasks[0].id, tasks[0].lease, Try(5)) && order.graceful);
    let (_, repeated) = peer.renew().await;
    assert_eq!(repeated, pushed);
    // A reconnect is told again.
    let (peer, welcome) = bench.session(tasks.iter().map(held).collect()).await;
    assert_eq!(welcome.directive.cancels, pushed.cancels);
    assert_eq!(peer.commit(&tasks[0], cancelled()).await, Verdict::Accepted);
    let (_, after) = peer.renew().await;
    assert_eq!(after.cancels, []);
    assert!(after.seq > pushed.seq);
    assert_eq!(bench.state(uuids[0]).await, TaskState::Cancelled);
}

async fn requests_overlap_and_each_is_answered_under_its_id(bench: Bench) {
    bench.submit(40).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let tasks = peer.claim(20).await;
    let started = ReportTaskOp::Started { at_us: 1 };
    let status = ManagerStatus::default();
    for (id, task) in (100_u64..).step_by(10).zip(&tasks) {
        let begin = vec![report(task, started.clone())];
        let end = vec![report(task, exited())];
        peer.send(ToCoordinator::Commit { id, commits: begin })
            .await;
        peer.send(ToCoordinator::Claim {
            id: id + 1,
            limit: 1,
        })
        .await;
        peer.send(ToCoordinator::Commit {
            id: id + 2,
            commits: end,
        })
        .await;
        let id = id + 3;
        let status = status.clone();
        peer.send(ToCoordinator::Renew { id, status }).await;
    }
    let mut answered = Vec::new();
    while answered.len() < 80 {
        match peer.answer().await {
            ToManager::Claimed { id, tasks } => {
                assert_eq!(tasks.len(), 1);
                answered.push(id);
            }
            ToManager::Committed { id, verdicts } => {
                // Order within the lane: the end was accepted, so it came after its beginning.
                assert_eq!(verdicts, [Verdict::Accepted], "commit {id}");
                answered.push(id);
            }
            ToManager::Renewed { id, .. } => answered.push(id),
            ToManager::Hint(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    answered.sort_unstable();
    let expected = (0..20_u64).flat_map(|n| (0..4).map(move |k| 100 + 10 * n + k));
    assert_eq!(answered, expected.collect::<Vec<_>>());
    let detail = bench.coordinator.task(tasks[0].uuid).await.unwrap();
    assert_eq!(
        (detail.summary.state, detail.history.len()),
        (TaskState::Completed, 1)
    );
}

async fn a_goodbye_hands_everything_back_and_a_broken_link_does_not(bench: Bench) {
    let uuids = bench.submit(1).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let tasks = peer.claim(1).await;
    drop(peer);
    let (peer, _) = bench.session(vec![held(&tasks[0])]).await;
    assert_eq!(bench.state(uuids[0]).await, TaskState::Assigned);
    peer.send(ToCoordinator::Goodbye).await;
    peer.is_over().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.state(uuids[0]).await != TaskState::Ready {
        assert!(tokio::time::Instant::now() < deadline, "not handed back");
    }
    assert_eq!(bench.coordinator.managers().await.unwrap()[0].leases, 0);
}

async fn a_late_manager_learns_what_it_has_lost(bench: Bench) {
    let uuids = bench.submit(1).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let tasks = peer.claim(1).await;
    bench.clock.advance(Duration::from_secs(121));
    bench.coordinator.shared.timer.notify_one();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.state(uuids[0]).await != TaskState::Ready {
        assert!(tokio::time::Instant::now() < deadline, "not taken back");
        tokio::task::yield_now().await;
    }
    // The state is in the store before the news is in memory.
    let told = loop {
        let (lost, _) = peer.renew().await;
        if !lost.is_empty() {
            break lost;
        }
        assert!(tokio::time::Instant::now() < deadline, "never told");
    };
    assert_eq!(told, [held(&tasks[0])]);
    let (lost, _) = peer.renew().await;
    assert_eq!(lost, []);
    assert!(peer.claim(1).await[0].lease > tasks[0].lease);
}

async fn a_paused_manager_is_told_and_granted_nothing_until_it_runs_again(bench: Bench) {
    bench.submit(1).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let target = ModeTarget::Manager(MANAGER);
    bench
        .coordinator
        .set_mode(target, Mode::Pause)
        .await
        .unwrap();
    peer.directive(|state| state.mode == Mode::Pause).await;
    assert_eq!(peer.claim(1).await, []);
    bench.coordinator.set_mode(target, Mode::Run).await.unwrap();
    peer.directive(|state| state.mode == Mode::Run).await;
    assert_eq!(peer.claim(1).await.len(), 1);
}

async fn closing_the_coordinator_ends_sessions_and_waits(bench: Bench) {
    bench.submit(1).await;
    let (peer, _) = bench.session(Vec::new()).await;
    let waiting = bench.coordinator.clone();
    let waiter = tokio::spawn(async move { waiting.wait(&WaitFor::All, PATIENCE).await });
    tokio::task::yield_now().await;
    bench.coordinator.close().await;
    peer.is_over().await;
    let answer = tokio::time::timeout(PATIENCE, waiter)
        .await
        .unwrap()
        .unwrap();
    assert!(answer.is_err() || !answer.unwrap().done);
}

#[tokio::test]
async fn a_name_stays_with_the_token_that_it_came_with_first() {
    let bench = Bench::new(Link::WebSocket).await;
    let (first, _) = bench.session(Vec::new()).await;
    drop(first);
    // A manager of the coordinator's own process, under the same name.
    let end = bench.coordinator.local_connector().connect().await.unwrap();
    let other = Peer { end };
    other.send(ToCoordinator::Hello(hello(Vec::new()))).await;
    match other.next().await {
        ToManager::Refused { message } => assert!(message.contains("`test`"), "{message}"),
        answer => panic!("not refused but {answer:?}"),
    }
}

/// Runs each test over each link.
macro_rules! over_each_link {
    ($($test:ident),+ $(,)?) => {
        mod over_memory {
            use super::{Bench, Link};

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(Bench::new(Link::Memory).await).await;
                }
            )+
        }

        mod over_websocket {
            use super::{Bench, Link};

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(Bench::new(Link::WebSocket).await).await;
                }
            )+
        }
    };
}

over_each_link!(
    a_manager_of_another_version_is_refused_in_words,
    a_session_begins_with_a_hello_or_not_at_all,
    a_welcome_tells_the_terms_and_the_manager_is_listed,
    a_reconnect_keeps_and_drops_lease_by_lease,
    a_newer_session_replaces_the_older_and_its_end_touches_nothing,
    a_short_answer_is_followed_by_a_hint_when_work_comes,
    a_claim_of_more_than_a_frame_can_carry_comes_in_parts,
    a_manager_that_does_not_claim_is_told_of_work_once,
    a_report_with_an_odd_child_task_stops_no_other,
    a_twin_is_refused_and_the_first_keeps_what_it_runs,
    a_stranger_under_a_known_name_takes_nothing_back,
    a_cancel_is_pushed_and_repeated_until_its_task_has_ended,
    requests_overlap_and_each_is_answered_under_its_id,
    a_goodbye_hands_everything_back_and_a_broken_link_does_not,
    a_late_manager_learns_what_it_has_lost,
    a_paused_manager_is_told_and_granted_nothing_until_it_runs_again,
    an_order_about_pollers_ends_with_the_managers_answer,
    orders_about_pollers_add_up_and_last_as_long_as_the_manager,
    an_order_that_nobody_can_carry_out_is_refused,
    a_part_comes_from_the_manager_that_runs_the_task,
    a_task_that_ends_meanwhile_is_answered_from_what_is_kept,
    a_task_that_goes_to_another_holder_is_followed_there,
    without_its_manager_a_task_is_away_and_comes_back,
    a_task_that_nobody_has_is_waited_for,
    readers_that_are_gone_make_room_and_no_request,
    closing_the_coordinator_ends_sessions_and_waits,
);
