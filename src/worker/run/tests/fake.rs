//! A peer, a runner and a status that do what a test tells them and remember what the loop did.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::super::*;
use crate::comm::Dispatched;
use crate::comm::StartRule;
use crate::protocol::report::Reason;
use crate::protocol::{
    Artifact, ArtifactKind, CancelOrder, Lease, Mode, ReportTaskOp, TaskReport, TaskSpec, Try,
    Verdict, WorkerTaskResp,
};
use crate::protocol::{ReportTaskResp, TaskResult};
use crate::worker::executor::{StopOrder, StopReason};
use crate::worker::runner::{Gatekeeper, TELL_WITHIN, TaskRunner, drive, run_queue};
use crate::worker::state::HandOver;
use crate::worker::tally::Tally;
use mitosis_bridge::FetchWish;

/// How long a scenario may take before it counts as stuck. Paused clocks jump there at once.
const STUCK: Duration = Duration::from_secs(120);

pub(super) fn task(id: i64, spec: TaskSpec) -> WorkerTaskResp {
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
        spec,
    }
}

pub(super) fn cancel(id: i64, graceful: bool) -> CancelOrder {
    CancelOrder {
        task_id: id,
        task_uuid: Uuid::nil(),
        lease: Lease::new(1, 1),
        try_no: None,
        graceful,
    }
}

pub(super) fn shutdown(graceful: bool, deadline_ms: u64) -> Mode {
    Mode::Shutdown {
        graceful,
        deadline_ms,
    }
}

/// What the peer has seen; tests wait on it.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) fetches: usize,
    pub(super) heartbeats: usize,
    /// Every attempt, in order.
    pub(super) reports: Vec<TaskReport>,
    pub(super) left: bool,
}

impl Seen {
    /// The ops about a task, in order and without repetitions: `started`, `completed`, …
    pub(super) fn story(&self, id: i64) -> Vec<&'static str> {
        let mut seqs = Vec::new();
        let of_task = self.reports.iter().filter(|report| report.task_id == id);
        let first = of_task.filter(|report| {
            let new = !seqs.contains(&report.seq);
            seqs.push(report.seq);
            new
        });
        first.map(|report| word(&report.op)).collect()
    }
}

fn word(op: &ReportTaskOp) -> &'static str {
    match op {
        ReportTaskOp::Started { .. } => "started",
        ReportTaskOp::Completed(_) => "completed",
        ReportTaskOp::Failed(_) => "failed",
        ReportTaskOp::Cancelled(_) => "cancelled",
        ReportTaskOp::Released { .. } => "released",
    }
}

/// A peer under the control of the test.
#[derive(Debug)]
pub(super) struct FakeComm {
    rule: StartRule,
    tasks: Mutex<VecDeque<Result<Fetched, CommError>>>,
    more: Notify,
    /// Answers to the next reports; `Accepted` when there is none left.
    answers: Mutex<VecDeque<Result<Verdict, CommError>>>,
    /// The control state that becomes known in the moment the next task arrives.
    with_task: Mutex<Option<Desired>>,
    control_tx: watch::Sender<Desired>,
    lost_tx: watch::Sender<Option<CommError>>,
    heartbeat: Mutex<Option<CommError>>,
    seen_tx: watch::Sender<Seen>,
}

impl FakeComm {
    pub(super) fn new(rule: StartRule) -> Self {
        Self {
            rule,
            tasks: Mutex::default(),
            more: Notify::new(),
            answers: Mutex::default(),
            with_task: Mutex::default(),
            control_tx: watch::channel(Desired::default()).0,
            lost_tx: watch::channel(None).0,
            heartbeat: Mutex::default(),
            seen_tx: watch::channel(Seen::default()).0,
        }
    }

    pub(super) fn answer_fetch(&self, answer: Result<Fetched, CommError>) {
        self.tasks.lock().unwrap().push_back(answer);
        self.more.notify_one();
    }

    pub(super) fn give(&self, task: WorkerTaskResp) {
        self.give_all(vec![Dispatched::own(task)]);
    }

    pub(super) fn give_all(&self, tasks: Vec<Dispatched>) {
        self.answer_fetch(Ok(Fetched::Tasks(tasks)));
    }

    pub(super) fn answer_reports(
        &self,
        answers: impl IntoIterator<Item = Result<Verdict, CommError>>,
    ) {
        self.answers.lock().unwrap().extend(answers);
    }

    pub(super) fn want(&self, mode: Mode, cancels: Vec<CancelOrder>) {
        self.control_tx.send_modify(|desired| {
            *desired = Desired {
                epoch: 1,
                seq: desired.seq + 1,
                mode,
                cancels,
            };
        });
    }

    pub(super) fn cancel_with_next_task(&self, order: CancelOrder) {
        *self.with_task.lock().unwrap() = Some(Desired {
            epoch: 1,
            seq: 1,
            mode: Mode::Run,
            cancels: vec![order],
        });
    }

    pub(super) fn lose(&self, error: CommError) {
        self.lost_tx.send_replace(Some(error));
    }

    pub(super) fn refuse_heartbeats(&self, error: CommError) {
        *self.heartbeat.lock().unwrap() = Some(error);
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen_tx.borrow().clone()
    }

    /// Waits until the condition holds.
    pub(super) async fn until(&self, condition: impl Fn(&Seen) -> bool) {
        let mut seen_rx = self.seen_tx.subscribe();
        let reached = tokio::time::timeout(STUCK, seen_rx.wait_for(|seen| condition(seen)));
        assert!(reached.await.is_ok(), "stuck at {:?}", self.seen());
    }

    /// Waits until the task has ended like this, its beginning told or not.
    pub(super) async fn until_ended(&self, id: i64, end: &str) {
        self.until(|seen| seen.story(id).last() == Some(&end)).await;
    }

    /// Waits until the task's story is this.
    pub(super) async fn until_story(&self, id: i64, story: &[&str]) {
        self.until(|seen| seen.story(id) == story).await;
    }
}

#[async_trait]
impl WorkerComm for FakeComm {
    async fn fetch_tasks(&self, _wish: FetchWish) -> Result<Fetched, CommError> {
        self.seen_tx.send_modify(|seen| seen.fetches += 1);
        loop {
            let next = self.tasks.lock().unwrap().pop_front();
            if let Some(answer) = next {
                if let Some(desired) = self.with_task.lock().unwrap().take() {
                    self.control_tx.send_replace(desired);
                }
                return answer;
            }
            self.more.notified().await;
        }
    }

    async fn report_tasks(
        &self,
        reports: &[Arc<TaskReport>],
    ) -> Result<Vec<ReportTaskResp>, CommError> {
        let mut answers = Vec::new();
        for report in reports {
            self.seen_tx
                .send_modify(|seen| seen.reports.push(TaskReport::clone(report)));
            let answer = self.answers.lock().unwrap().pop_front();
            let verdict = answer.unwrap_or(Ok(Verdict::Accepted))?;
            answers.push(ReportTaskResp {
                url: Some("/upload".to_owned()),
                ..ReportTaskResp::of(verdict, 0)
            });
        }
        Ok(answers)
    }

    async fn send_heartbeat(&self) -> Result<(), CommError> {
        self.seen_tx.send_modify(|seen| seen.heartbeats += 1);
        self.heartbeat.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn control(&self) -> watch::Receiver<Desired> {
        self.control_tx.subscribe()
    }

    fn start_rule(&self) -> StartRule {
        self.rule
    }

    async fn lost(&self) -> CommError {
        let mut lost_rx = self.lost_tx.subscribe();
        let lost = lost_rx
            .wait_for(Option::is_some)
            .await
            .expect("the sender is in self");
        lost.clone().expect("waited for")
    }

    async fn leave(&self, _deadline: Duration) {
        self.seen_tx.send_modify(|seen| seen.left = true);
    }
}

/// A runner whose tasks do what their first argument says: `exit`, `leave` (an artifact), `wait` (until ordered to
/// end), `told` (until the test says so), `panic`.
#[derive(Debug, Default)]
pub(super) struct FakeRunner {
    /// Ids of the tasks that were begun, and the orders each got.
    pub(super) begun: Mutex<Vec<i64>>,
    pub(super) orders: Mutex<Vec<StopOrder>>,
    pub(super) tell: Notify,
}

impl FakeRunner {
    pub(super) fn begun(&self) -> Vec<i64> {
        self.begun.lock().unwrap().clone()
    }

    pub(super) fn orders(&self) -> Vec<StopOrder> {
        self.orders.lock().unwrap().clone()
    }
}

#[async_trait]
impl TaskRunner for FakeRunner {
    async fn run(
        &self,
        task: Arc<WorkerTaskResp>,
        mut orders: watch::Receiver<StopOrder>,
        _status: &dyn WorkerStatus,
    ) -> TaskResult {
        self.begun.lock().unwrap().push(task.id);
        let mut result = TaskResult {
            exit_code: Some(0),
            message: None,
            ..TaskResult::not_started(Reason::Exit, "", 1)
        };
        // Long enough for its beginning to be told.
        tokio::time::sleep(2 * TELL_WITHIN).await;
        match task.spec.args[0].as_str() {
            "exit" => {}
            "leave" => result.artifacts.push(Artifact {
                kind: ArtifactKind::Result,
                size_bytes: 1,
                sha256: String::new(),
            }),
            "panic" => panic!("the runner broke"),
            "told" => self.tell.notified().await,
            "wait" => {
                let order = *orders
                    .wait_for(|order| *order != StopOrder::None)
                    .await
                    .unwrap();
                self.orders.lock().unwrap().push(order);
                result.exit_code = None;
                result.reason = match order {
                    StopOrder::Graceful(StopReason::HandBack)
                    | StopOrder::Immediate(StopReason::HandBack) => Reason::Preempted,
                    _ => Reason::Cancelled,
                };
            }
            other => panic!("no behavior `{other}`"),
        }
        result
    }
}

/// Remembers what it is told.
#[derive(Debug, Default)]
pub(super) struct FakeStatus {
    pub(super) phases: Mutex<Vec<Phase>>,
    pub(super) in_hand: Mutex<Vec<Option<i64>>>,
    pub(super) groups: Mutex<Vec<Option<u32>>>,
    pub(super) tally: Mutex<Tally>,
}

impl WorkerStatus for FakeStatus {
    fn phase(&self, phase: Phase) {
        let mut phases = self.phases.lock().unwrap();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }

    fn in_hand(&self, held: Option<HandOver>) {
        self.in_hand
            .lock()
            .unwrap()
            .push(held.map(|held| held.task.id));
    }

    fn process_group(&self, leader: Option<u32>) {
        self.groups.lock().unwrap().push(leader);
    }

    fn executor_progress(&self) {}

    fn tally(&self, tally: &Tally) {
        *self.tally.lock().unwrap() = *tally;
    }
}

/// Remembers what was to be delivered, and takes as long as the test says.
#[derive(Debug, Default)]
pub(super) struct FakeSender {
    /// Task and address of each delivery, in order.
    pub(super) begun: Mutex<Vec<(i64, Option<String>)>>,
    pub(super) is_slow: std::sync::atomic::AtomicBool,
    /// The disk has no room for more that waits.
    pub(super) is_full: std::sync::atomic::AtomicBool,
    pub(super) tell: Notify,
}

#[async_trait]
impl ArtifactSender for FakeSender {
    async fn deliver(&self, report: &TaskReport, url: Option<&str>) {
        let delivery = (report.task_id, url.map(str::to_owned));
        self.begun.lock().unwrap().push(delivery);
        if self.is_slow.load(std::sync::atomic::Ordering::Relaxed) {
            self.tell.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        !self.is_full.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Everything around one loop.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) comm: FakeComm,
    pub(super) runner: FakeRunner,
    pub(super) status: FakeStatus,
    pub(super) sender: FakeSender,
    pub(super) signals_tx: mpsc::Sender<ShutdownRequest>,
    signals_rx: Mutex<Option<mpsc::Receiver<ShutdownRequest>>>,
    pub(super) config: LoopConfig,
}

impl Stage {
    /// As a managed worker.
    pub(super) fn managed() -> Self {
        Self::new(StartRule::Immediately, LoopConfig::managed())
    }

    /// As an independent worker.
    pub(super) fn independent() -> Self {
        let config = LoopConfig::independent(Duration::from_secs(10));
        Self::new(StartRule::AfterVerdict, config)
    }

    fn new(rule: StartRule, config: LoopConfig) -> Self {
        let (signals_tx, signals_rx) = mpsc::channel(4);
        Self {
            comm: FakeComm::new(rule),
            runner: FakeRunner::default(),
            status: FakeStatus::default(),
            sender: FakeSender::default(),
            signals_tx,
            signals_rx: Mutex::new(Some(signals_rx)),
            config,
        }
    }

    /// Runs the loop beside the script until both have ended.
    pub(super) async fn play(&self, script: impl Future<Output = ()>) -> Ended {
        self.play_with(&self.runner, script).await
    }

    pub(super) async fn play_with(
        &self,
        runner: &dyn TaskRunner,
        script: impl Future<Output = ()>,
    ) -> Ended {
        let signals_rx = self.signals_rx.lock().unwrap().take();
        let mut signals = StopSignals::Channel(signals_rx.expect("a stage is played once"));
        let parts = Parts {
            comm: &self.comm,
            sender: &self.sender,
            status: &self.status,
        };
        let (queue, end) = run_queue(None);
        let both = async {
            let driven = drive(end, runner, &self.status, Gatekeeper::default(), None);
            tokio::join!(run(parts, queue, &mut signals, self.config), driven, script).0
        };
        match tokio::time::timeout(STUCK, both).await {
            Ok(ended) => ended,
            Err(_) => panic!("the worker does not end; {:?}", self.comm.seen()),
        }
    }

    pub(super) fn give(&self, id: i64, behavior: &str) {
        self.comm.give(task(id, TaskSpec::argv([behavior])));
    }
}

pub(super) fn away() -> CommError {
    CommError::Retryable {
        reason: "away".into(),
        after: None,
    }
}
