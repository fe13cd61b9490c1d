//! What every store must do, as tests over `&dyn Store`.
//!
//! An implementation gives a [`Backend`] and calls [`conformance_tests!`] with it; each test opens a store of its own.
//! The time is a [`ManualClock`], so that terms and back-off run out when a test says so.

pub(super) mod artifacts;
pub(super) mod chains;
pub(super) mod fencing;
pub(super) mod holders;
pub(super) mod levels;
pub(super) mod life;
pub(super) mod model;
pub(super) mod queue;
pub(super) mod reading;

use crate::protocol::Capacity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::clock::ManualClock;
use super::{
    Changes, Claim, Holder, HolderKind, HolderSession, NewTask, NewTasks, Part, Registered,
    Registration, Store, StoreError, Submitted, Unstarted,
};
use crate::protocol::api::{SubmittedTask, SuiteRef, TaskDetail};
use crate::protocol::ids::{Boot, Lease, Try};
use crate::protocol::report::Reason;
use crate::protocol::session::{Commit, HeldLease};
use crate::protocol::{
    Mode, ReportTaskOp, TaskReport, TaskResult, TaskSpec, TaskState, Verdict, WorkerTaskResp,
};

/// The term of every lease in these tests.
pub(super) const TERM: Duration = Duration::from_secs(120);

/// An implementation under test.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    /// Opens the store; every time the same one.
    async fn open(&self, clock: Arc<ManualClock>) -> Arc<dyn Store>;
}

/// Runs every test of the suite on a backend that the expression makes.
macro_rules! conformance_tests {
    ($backend:expr; $($module:ident :: { $($test:ident),+ $(,)? }),+ $(,)?) => {
        $($(
            #[tokio::test]
            async fn $test() {
                $crate::coordinator::store::conformance::$module::$test(&$backend).await;
            }
        )+)+
    };
}
pub(super) use conformance_tests;

/// A store with its clock.
pub(super) struct Bench<'a> {
    backend: &'a dyn Backend,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<dyn Store>,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(backend: &'a dyn Backend) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = backend.open(Arc::clone(&clock)).await;
        Self {
            backend,
            clock,
            store,
        }
    }

    /// Ends this life of the store and begins the next, on the same data.
    pub(super) async fn restart(&mut self) {
        self.store.close().await;
        self.store = self.backend.open(Arc::clone(&self.clock)).await;
    }

    /// Lets time pass, and what it makes due.
    pub(super) async fn pass(&self, time: Duration) -> Changes {
        self.clock.advance(time);
        self.store.advance().await.unwrap()
    }

    pub(super) async fn submit_to(
        &self,
        suite: Option<SuiteRef>,
        specs: Vec<TaskSpec>,
    ) -> Submitted {
        let tasks = specs.into_iter().map(|spec| new_task(None, spec)).collect();
        self.store.submit(NewTasks { suite, tasks }).await.unwrap()
    }

    pub(super) async fn submit(&self, specs: Vec<TaskSpec>) -> Vec<SubmittedTask> {
        self.submit_to(None, specs).await.response.tasks
    }

    pub(super) async fn submit_one(&self, spec: TaskSpec) -> SubmittedTask {
        self.submit(vec![spec]).await[0]
    }

    /// Submits `true`, `n` times.
    pub(super) async fn submit_n(&self, n: usize) -> Vec<SubmittedTask> {
        self.submit(vec![TaskSpec::argv(["true"]); n]).await
    }

    pub(super) async fn register(&self, name: u128, inventory: Vec<HeldLease>) -> Registered {
        self.store
            .register(registration(name, inventory))
            .await
            .unwrap()
    }

    /// A manager with an empty inventory.
    pub(super) async fn manager(&self, name: u128) -> HolderSession {
        self.register(name, Vec::new()).await.session
    }

    pub(super) async fn claim(&self, session: HolderSession, limit: u32) -> Vec<WorkerTaskResp> {
        self.try_claim(session, limit).await.unwrap()
    }

    pub(super) async fn try_claim(
        &self,
        session: HolderSession,
        limit: u32,
    ) -> Result<Vec<WorkerTaskResp>, StoreError> {
        let claim = Claim {
            session,
            limit,
            unstarted: Unstarted::Keep,
        };
        let claimed = self.store.claim(claim).await?;
        Ok(claimed.tasks.into_iter().map(|task| task.task).collect())
    }

    /// Claims exactly one task.
    pub(super) async fn claim_one(&self, session: HolderSession) -> WorkerTaskResp {
        let mut tasks = self.claim(session, 1).await;
        tasks.pop().expect("one task is ready")
    }

    pub(super) async fn report(
        &self,
        session: HolderSession,
        task: &WorkerTaskResp,
        op: ReportTaskOp,
    ) -> Verdict {
        self.report_with_changes(session, task, op).await.0
    }

    pub(super) async fn report_with_changes(
        &self,
        session: HolderSession,
        task: &WorkerTaskResp,
        op: ReportTaskOp,
    ) -> (Verdict, Changes) {
        let commits = vec![commit(task, op).into()];
        let committed = self.store.commit(session.holder, commits).await.unwrap();
        (committed.verdicts[0].clone(), committed.changes)
    }

    pub(super) async fn task(&self, uuid: Uuid) -> TaskDetail {
        self.store.task(uuid).await.unwrap().expect("task exists")
    }

    pub(super) async fn state(&self, uuid: Uuid) -> TaskState {
        self.task(uuid).await.summary.state
    }

    pub(super) async fn counts(&self) -> BTreeMap<TaskState, u64> {
        self.store.counts(None).await.unwrap()
    }
}

pub(super) fn new_task(key: Option<&str>, spec: TaskSpec) -> NewTask {
    NewTask {
        key: key.map(str::to_owned),
        encoded: serde_json::to_string(&spec).unwrap(),
        spec,
        links: Vec::new(),
    }
}

pub(super) fn registration(name: u128, inventory: Vec<HeldLease>) -> Registration {
    Registration {
        holder: manager_named(name),
        boot: Boot(1),
        earlier: Vec::new(),
        host: "host".to_owned(),
        slots: 4,
        capacity: Capacity {
            milli_cpus: Some(4_000),
            ..Capacity::default()
        },
        tags: vec!["gpu".to_owned(), "linux".to_owned()],
        labels: BTreeMap::new(),
        inventory,
        endless: false,
    }
}

pub(super) fn manager_named(name: u128) -> Holder {
    Holder {
        kind: HolderKind::Manager,
        uuid: Uuid::from_u128(name),
    }
}

/// A report about the first try of a lease.
pub(super) fn commit(task: &WorkerTaskResp, op: ReportTaskOp) -> Commit {
    let began = match &op {
        ReportTaskOp::Started { .. } => true,
        op => op
            .result()
            .is_some_and(|(_, result)| result.started_at_us.is_some()),
    };
    Commit {
        report: TaskReport {
            seq: 1,
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: Try(1),
            op,
        },
        attempt: if began { task.attempt } else { 0 },
        lost_tries: Vec::new(),
    }
}

pub(super) fn held(task: &WorkerTaskResp) -> HeldLease {
    HeldLease {
        task: task.task(),
        lease: task.lease,
    }
}

pub(super) fn under(task: &WorkerTaskResp, lease: Lease) -> WorkerTaskResp {
    WorkerTaskResp {
        lease,
        ..task.clone()
    }
}

pub(super) fn started() -> ReportTaskOp {
    ReportTaskOp::Started { at_us: 10 }
}

pub(super) fn released() -> ReportTaskOp {
    ReportTaskOp::Released {
        reason: "drained".to_owned(),
    }
}

pub(super) fn exited(code: i32) -> ReportTaskOp {
    ReportTaskOp::ended(TaskResult {
        exit_code: Some(code),
        started_at_us: Some(10),
        ..TaskResult::not_started(Reason::Exit, "", 20)
    })
}

pub(super) fn failed_with(reason: Reason) -> ReportTaskOp {
    ReportTaskOp::Failed(TaskResult::not_started(reason, "", 20))
}

pub(super) fn cancelled() -> ReportTaskOp {
    ReportTaskOp::Cancelled(TaskResult::not_started(Reason::Cancelled, "", 20))
}

pub(super) const PAUSE: Mode = Mode::Pause;
