//! Tests of the executor with real processes.

mod direct;
mod ends;
mod files;
mod leftovers;
mod output;
mod surroundings;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Pid;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::process::testing::{processes_with, wait_for};
use crate::protocol::report::{Reason, TaskResult};
use crate::protocol::{Lease, TaskSpec, Try, WorkerTaskResp};

/// An executor in a slot of its own.
struct Slot {
    dir: TempDir,
    executor: Executor,
}

impl Slot {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ExecConfig)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), change)
    }

    fn at(dir: TempDir, change: impl FnOnce(&mut ExecConfig)) -> Self {
        let mut config = ExecConfig {
            slot_dir: dir.path().join("slot"),
            output_dir: dir.path().join("output"),
            instance: "test-instance".to_owned(),
            env: EnvPolicy::AllowList,
            cwd: CwdPolicy::TaskDir,
            worker_id: "manager/7".to_owned(),
            coordinator_url: None,
            kept_output: KeptOutput::Stays,
            groups: TaskGroups::default(),
            begun: None,
            live_dir: None,
            passed: Default::default(),
        };
        change(&mut config);
        let executor = Executor::new(&config).unwrap();
        Self { dir, executor }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&mut self, spec: TaskSpec) -> TaskResult {
        self.run_task(&task(spec)).await
    }

    async fn run_task(&mut self, task: &WorkerTaskResp) -> TaskResult {
        let (_orders, stop) = watch::channel(StopOrder::None);
        self.executor.run(task, stop, |_| {}).await
    }

    /// Makes a task ready while nobody gives an order.
    async fn prepare(&mut self, task: &WorkerTaskResp) -> Result<Prepared, Box<TaskResult>> {
        let (_orders, mut stop) = watch::channel(StopOrder::None);
        self.executor.prepare(task, &mut stop).await
    }

    async fn shell(&mut self, line: &str) -> TaskResult {
        self.run(TaskSpec::shell_line(line)).await
    }

    /// Runs a task and gives an order once its standard output says `ready`. Returns after every process of the task
    /// was looked for.
    async fn stopped_when_ready(&mut self, spec: TaskSpec, order: StopOrder) -> TaskResult {
        let task = task(spec);
        let (orders, stop) = watch::channel(StopOrder::None);
        let stdout = self.path("slot/stdout");
        let ready = wait_for("ready task", move || {
            let text = std::fs::read_to_string(&stdout).ok()?;
            text.contains("ready").then_some(())
        });
        let give_order = async {
            ready.await;
            orders.send_replace(order);
        };
        let run = self.executor.run(&task, stop, |_| {});
        let (result, ()) = tokio::join!(run, give_order);
        assert_eq!(alive(&task), [], "after {result:?}");
        result
    }
}

fn task(spec: TaskSpec) -> WorkerTaskResp {
    WorkerTaskResp {
        ids: None,
        id: 42,
        uuid: Uuid::new_v4(),
        lease: Lease::new(1, 1),
        try_no: Try(1),
        attempt: 3,
        failures: 0,
        suite_uuid: Uuid::from_u128(5),
        upstream_task_uuid: None,
        links: Default::default(),
        spec,
    }
}

/// Whatever still runs with this task's name in its environment.
fn alive(task: &WorkerTaskResp) -> Vec<Pid> {
    processes_with(&format!("MITO_TASK_UUID={}", task.uuid))
}

#[track_caller]
fn stdout(result: &TaskResult) -> &str {
    assert_eq!(
        (result.reason, result.exit_code),
        (Reason::Exit, Some(0)),
        "{result:?}"
    );
    std::str::from_utf8(&result.stdout.tail).unwrap()
}

fn limits(spec: TaskSpec, timeout_ms: u64, grace_ms: u64) -> TaskSpec {
    TaskSpec {
        timeout: Some(Duration::from_millis(timeout_ms).into()),
        grace: Some(Duration::from_millis(grace_ms).into()),
        ..spec
    }
}
