//! The coordinator as its front ends see it: long polls, ends, workers, refusals.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::coordinator::ControlPosition;
use crate::coordinator::store::EndCursor;
use crate::coordinator::store::clock::ManualClock;
use crate::protocol::api::{
    RegisterWorkerRequest, ReportTaskBody, SubmitRequest, SubmitResponse, SubmitTask, TaskFilter,
};
use crate::protocol::report::Reason;
use crate::protocol::{
    Mode, ReportTaskOp, TaskResult, TaskSpec, TaskState, Verdict, WorkerTaskResp,
};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    coordinator: Coordinator,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let config = CoordinatorConfig::new(dir.path());
        let clock = Arc::new(ManualClock::default());
        let store = SqliteStore::open(&config, clock.clone()).await.unwrap();
        let coordinator = Coordinator::with_store(config, Arc::new(store)).await;
        Self {
            coordinator: coordinator.unwrap(),
            clock,
            _dir: dir,
        }
    }

    async fn submit(&self, tasks: usize) -> SubmitResponse {
        let task = SubmitTask {
            key: None,
            spec: TaskSpec::argv(["true"]),
        };
        let request = SubmitRequest {
            suite: None,
            tasks: vec![task; tasks],
        };
        self.coordinator.submit(request).await.unwrap()
    }

    async fn worker(&self, tags: &[&str]) -> Uuid {
        let request = RegisterWorkerRequest {
            worker_uuid: None,
            host: "host".into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            labels: std::collections::BTreeMap::new(),
        };
        self.coordinator
            .register_worker(request)
            .await
            .unwrap()
            .worker
    }

    async fn fetch(&self, worker: Uuid, wait: Duration) -> Option<WorkerTaskResp> {
        self.coordinator.fetch_task(worker, wait).await.unwrap()
    }

    async fn report(&self, worker: Uuid, task: &WorkerTaskResp, op: ReportTaskOp) -> Verdict {
        let body = ReportTaskBody {
            seq: 1,
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            op,
        };
        let answer = self.coordinator.report_task(worker, body).await.unwrap();
        assert_eq!(answer.acked_through, 1);
        answer.verdict
    }

    async fn state(&self, task: Uuid) -> TaskState {
        self.coordinator.task(task).await.unwrap().summary.state
    }

    /// Lets the timer see that time has passed.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.coordinator.shared.timer.notify_one();
    }

    async fn reaches(&self, task: Uuid, wanted: TaskState) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let state = self.state(task).await;
            if state == wanted {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "still {state}");
            tokio::task::yield_now().await;
        }
    }
}

fn started() -> ReportTaskOp {
    ReportTaskOp::Started { at_us: 1 }
}

fn exited() -> ReportTaskOp {
    ReportTaskOp::ended(TaskResult {
        exit_code: Some(0),
        started_at_us: Some(1),
        ..TaskResult::not_started(Reason::Exit, "", 2)
    })
}

#[tokio::test]
async fn a_bad_task_is_named_by_its_place_and_nothing_is_stored() {
    let bench = Bench::new().await;
    let submit = async |bad: SubmitTask| {
        let good = SubmitTask {
            key: None,
            spec: TaskSpec::argv(["true"]),
        };
        let request = SubmitRequest {
            suite: None,
            tasks: vec![good, bad],
        };
        let error = bench.coordinator.submit(request).await;
        error.expect_err("it is refused")
    };
    let empty = submit(SubmitTask::default()).await;
    assert!(empty.to_string().contains("task 1"), "{empty}");
    assert_eq!(empty.code(), "bad_task");
    let large = SubmitTask {
        key: None,
        spec: TaskSpec::argv(["x".repeat(1 << 20)]),
    };
    assert_eq!(submit(large).await.code(), "too_large");
    let long_key = SubmitTask {
        key: Some("k".repeat(2000)),
        spec: TaskSpec::argv(["true"]),
    };
    assert_eq!(submit(long_key).await.code(), "too_large");
    let nothing = bench.coordinator.submit(SubmitRequest::default()).await;
    assert!(matches!(nothing, Err(CoordinatorError::NothingSubmitted)));
    assert_eq!(bench.coordinator.audit().await.unwrap().accepted, 0);
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_a_submit() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let (task, _) = tokio::join!(bench.fetch(worker, PATIENCE), bench.submit(1));
    let task = task.expect("the submit woke it");
    assert_eq!((task.try_no.0, task.attempt), (1, 1));
    assert_eq!(
        bench.report(worker, &task, started()).await,
        Verdict::Accepted
    );
    assert_eq!(
        bench.report(worker, &task, exited()).await,
        Verdict::Accepted
    );
    assert_eq!(
        bench.report(worker, &task, exited()).await,
        Verdict::Duplicate
    );
    assert_eq!(bench.state(task.uuid).await, TaskState::Completed);
    assert_eq!(bench.fetch(worker, Duration::ZERO).await, None);
}

#[tokio::test]
async fn many_waiting_workers_share_what_comes() {
    let bench = Bench::new().await;
    let mut fetches = tokio::task::JoinSet::new();
    for n in 0..20 {
        let tags: &[&str] = if n % 2 == 0 { &["even"] } else { &[] };
        let worker = bench.worker(tags).await;
        let coordinator = bench.coordinator.clone();
        fetches.spawn(async move { coordinator.fetch_task(worker, PATIENCE).await });
    }
    for tasks in [1, 2, 17] {
        bench.submit(tasks).await;
        for _ in 0..tasks {
            let fetched = fetches.join_next().await.expect("a fetch is left");
            assert!(fetched.unwrap().unwrap().is_some(), "a wake-up was lost");
        }
    }
}

#[tokio::test]
async fn a_task_of_a_dropped_fetch_is_granted_again() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.submit(1).await;
    let lost = bench.fetch(worker, Duration::ZERO).await.unwrap();
    let again = bench.fetch(worker, Duration::ZERO).await.unwrap();
    assert_eq!(again.uuid, lost.uuid);
    assert!(again.lease > lost.lease);
    assert_eq!(bench.report(worker, &lost, started()).await, Verdict::Stale);
}

#[tokio::test]
async fn a_worker_hears_of_a_cancel_while_it_waits() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.submit(1).await;
    let task = bench.fetch(worker, Duration::ZERO).await.unwrap();
    let control = async |after, wait| {
        let desired = bench.coordinator.worker_control(worker, after, wait).await;
        desired.unwrap()
    };
    let before = control(None, PATIENCE).await;
    let seen = ControlPosition {
        epoch: before.epoch,
        seq: before.seq,
    };
    assert_eq!(control(Some(seen), Duration::from_millis(1)).await, before);
    let (after, cancel) = tokio::join!(
        control(Some(seen), PATIENCE),
        bench.coordinator.cancel(task.uuid, false)
    );
    assert_eq!(cancel.unwrap().state, TaskState::Assigned);
    let order = after.cancel_for(task.id, task.lease, task.try_no);
    assert!(!order.expect("the cancel is told").graceful);
    assert_eq!(
        bench.report(worker, &task, started()).await,
        Verdict::Cancel
    );
    let heartbeat = bench.coordinator.worker_heartbeat(worker).await.unwrap();
    assert_eq!(heartbeat, after);
}

#[tokio::test]
async fn a_quiet_worker_loses_its_task_and_may_come_back() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.submit(1).await;
    let task = bench.fetch(worker, Duration::ZERO).await.unwrap();
    bench.report(worker, &task, started()).await;
    bench.pass(Duration::from_secs(100)).await;
    bench.coordinator.worker_heartbeat(worker).await.unwrap();
    bench.pass(Duration::from_secs(100)).await;
    assert_eq!(bench.state(task.uuid).await, TaskState::Running);
    bench.pass(Duration::from_secs(100)).await;
    bench.reaches(task.uuid, TaskState::Ready).await;
    let again = bench.fetch(worker, Duration::ZERO).await.unwrap();
    assert_eq!((again.uuid, again.attempt), (task.uuid, 2));
}

#[tokio::test]
async fn a_worker_that_leaves_is_gone_and_its_task_waits_again() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.submit(1).await;
    let task = bench.fetch(worker, Duration::ZERO).await.unwrap();
    bench.coordinator.unregister_worker(worker).await.unwrap();
    assert_eq!(bench.state(task.uuid).await, TaskState::Ready);
    let gone = bench.coordinator.fetch_task(worker, Duration::ZERO).await;
    assert!(matches!(gone, Err(CoordinatorError::WorkerGone(uuid)) if uuid == worker));
    bench.coordinator.unregister_worker(worker).await.unwrap();
}

#[tokio::test]
async fn a_paused_worker_fetches_nothing() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.submit(1).await;
    let target = ModeTarget::Worker(worker);
    bench
        .coordinator
        .set_mode(target, Mode::Pause)
        .await
        .unwrap();
    assert_eq!(bench.fetch(worker, Duration::ZERO).await, None);
    let resumed = async {
        bench
            .coordinator
            .set_mode(ModeTarget::All, Mode::Run)
            .await
            .unwrap();
    };
    let (task, ()) = tokio::join!(bench.fetch(worker, PATIENCE), resumed);
    assert!(task.is_some());
}

#[tokio::test]
async fn a_wait_ends_with_the_last_task_or_with_its_time() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let suite = bench.submit(2).await.suite;
    let what = WaitFor::Suite(suite);
    let early = bench.coordinator.wait(&what, Duration::ZERO).await.unwrap();
    assert!(!early.done);
    let finish = async {
        while let Some(task) = bench.fetch(worker, Duration::ZERO).await {
            bench.report(worker, &task, exited()).await;
        }
    };
    let (waited, ()) = tokio::join!(bench.coordinator.wait(&what, PATIENCE), finish);
    let waited = waited.unwrap();
    assert!(waited.done);
    assert_eq!(waited.counts, [(TaskState::Completed, 2)].into());
    let unknown = WaitFor::Tasks(vec![Uuid::nil()]);
    let refused = bench.coordinator.wait(&unknown, PATIENCE).await;
    assert_eq!(refused.expect_err("unknown").code(), "not_found");
}

#[tokio::test]
async fn a_slow_subscriber_misses_no_end_and_holds_nobody_up() {
    let bench = Bench::new().await;
    let ends = bench.coordinator.ends();
    // More than the channel and the ring hold together.
    let total = 2_000;
    let suite = bench.submit(total).await.suite;
    bench.coordinator.cancel_all(suite, true).await.unwrap();
    let done = bench.coordinator.wait(&WaitFor::All, Duration::ZERO).await;
    assert!(done.unwrap().done);
    let mut ids = Vec::new();
    while ids.len() < total {
        let end = tokio::time::timeout(PATIENCE, ends.recv_async()).await;
        ids.push(end.expect("an end comes in time").unwrap().id);
    }
    assert_eq!(ids, (1..=i64::try_from(total).unwrap()).collect::<Vec<_>>());
    // A later subscriber hears what is new, or everything, as it asks.
    let all = bench.coordinator.ends_after(EndCursor::default());
    let new = bench.coordinator.ends();
    let task = bench.submit(1).await.tasks[0];
    bench.coordinator.cancel(task.uuid, true).await.unwrap();
    assert_eq!(new.recv_async().await.unwrap().uuid, task.uuid);
    assert_eq!(all.recv_async().await.unwrap().id, 1);
    bench.coordinator.close().await;
    assert!(new.recv_async().await.is_err());
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_still_told() {
    let bench = Bench::new().await;
    let task = bench.submit(1).await.tasks[0];
    let ends = bench.coordinator.ends();
    let cancel = bench.coordinator.cancel(task.uuid, true);
    // Polled once, then dropped: the change is on its way.
    assert!(futures_util::FutureExt::now_or_never(cancel).is_none());
    let end = tokio::time::timeout(PATIENCE, ends.recv_async()).await;
    assert_eq!(end.expect("the end is told").unwrap().uuid, task.uuid);
}

#[tokio::test]
async fn pages_follow_one_another_and_bad_filters_are_refused_in_words() {
    let bench = Bench::new().await;
    bench.submit(5).await;
    let mut filter = TaskFilter {
        limit: Some(2),
        state: Some("ready, assigned".into()),
        ..TaskFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = bench.coordinator.tasks(&filter).await.unwrap();
        seen.push(page.tasks.len());
        match page.next_cursor {
            Some(cursor) => filter.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(seen, [2, 2, 1]);
    let suites = bench.coordinator.suites(None, None).await.unwrap();
    assert_eq!((suites.items.len(), suites.next_cursor), (1, None));
    let bad = |state: Option<&str>, cursor: Option<&str>, limit| TaskFilter {
        suite: None,
        state: state.map(str::to_owned),
        cursor: cursor.map(str::to_owned),
        limit,
        ..TaskFilter::default()
    };
    for filter in [
        bad(Some("done"), None, None),
        bad(None, Some("x"), None),
        bad(None, None, Some(0)),
        bad(None, None, Some(1001)),
    ] {
        let error = bench.coordinator.tasks(&filter).await.expect_err("refused");
        assert_eq!(error.code(), "bad_query", "{error}");
    }
}

#[tokio::test]
async fn a_failed_task_is_ready_again_when_the_timer_says_so() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let spec = TaskSpec {
        max_attempts: Some(2),
        ..TaskSpec::argv(["false"])
    };
    let tasks = vec![SubmitTask { key: None, spec }];
    let request = SubmitRequest { suite: None, tasks };
    bench.coordinator.submit(request).await.unwrap();
    let task = bench.fetch(worker, Duration::ZERO).await.unwrap();
    let failed = ReportTaskOp::Failed(TaskResult::not_started(Reason::SpawnFailed, "", 1));
    assert_eq!(bench.report(worker, &task, failed).await, Verdict::Accepted);
    assert_eq!(bench.state(task.uuid).await, TaskState::Pending);
    let passes = bench.pass(Duration::from_secs(1));
    let (again, ()) = tokio::join!(bench.fetch(worker, PATIENCE), passes);
    assert_eq!(again.expect("it is due").uuid, task.uuid);
}

#[tokio::test]
async fn the_signing_seed_is_kept_with_the_store() {
    use secrecy::ExposeSecret;
    let dir = TempDir::new().unwrap();
    let open = async || {
        Coordinator::open(CoordinatorConfig::new(dir.path()))
            .await
            .unwrap()
    };
    let first = open().await;
    let seed = *first.signing_seed().expose_secret();
    let (epoch, instance) = (first.epoch(), first.instance());
    first.close().await;
    let second = open().await;
    assert_eq!(*second.signing_seed().expose_secret(), seed);
    assert_eq!((second.epoch(), second.instance()), (epoch + 1, instance));
    second.close().await;
}

#[tokio::test]
async fn a_store_that_nobody_serves_can_be_read_and_is_not_changed() {
    let dir = TempDir::new().unwrap();
    let missing = Archive::open(dir.path()).await.expect_err("there is none");
    assert!(missing.to_string().contains("no store"), "{missing}");
    let config = CoordinatorConfig::new(dir.path());
    let coordinator = Coordinator::open(config.clone()).await.unwrap();
    let task = SubmitTask {
        key: None,
        spec: TaskSpec::argv(["true"]),
    };
    let request = SubmitRequest {
        suite: None,
        tasks: vec![task],
    };
    let submitted = coordinator.submit(request).await.unwrap();
    let (epoch, uuid) = (coordinator.epoch(), submitted.tasks[0].uuid);
    // Beside a running coordinator, and after it.
    let archive = Archive::open(dir.path()).await.unwrap();
    assert_eq!(
        archive.task(uuid).await.unwrap(),
        coordinator.task(uuid).await.unwrap()
    );
    coordinator.close().await;
    let archive = Archive::open(dir.path()).await.unwrap();
    assert_eq!(
        archive.suite(submitted.suite).await.unwrap().counts.len(),
        1
    );
    let page = archive.tasks(&TaskFilter::default()).await.unwrap();
    assert_eq!(page.tasks.len(), 1);
    let coordinator = Coordinator::open(config).await.unwrap();
    assert_eq!(coordinator.epoch(), epoch + 1);
    coordinator.close().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_not_ready() {
    let dir = TempDir::new().unwrap();
    let config = CoordinatorConfig::new(dir.path());
    let clock = Arc::new(crate::coordinator::store::SystemClock::start());
    let store = Arc::new(SqliteStore::open(&config, clock).await.unwrap());
    let coordinator = Coordinator::with_store(config, store.clone()).await;
    let coordinator = coordinator.unwrap();
    coordinator.ready().await.unwrap();
    store.refuse_writes().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // The last good answer is kept for a moment.
    while coordinator.ready().await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still ready");
        tokio::task::yield_now().await;
    }
    coordinator.counts(None).await.expect("reading goes on");
}
