//! A machine under test: a coordinator and a manager in this process, workers beside it, everything in one directory.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::coordinator::{Coordinator, CoordinatorConfig, WaitFor};
use mitosis::manager::{
    Manager, ManagerConfig, ManagerError, ManagerExit, ManagerHandle, WorkerProgram,
};
use mitosis::protocol::TaskSpec;
use mitosis::protocol::api::{SubmitRequest, SubmitTask, TaskDetail, WaitResponse};
use mitosis::shutdown::ShutdownRequest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uuid::Uuid;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for a condition, and names it when it does not come.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

pub(crate) struct Machine {
    dir: TempDir,
    workers: u16,
    pub(crate) coordinator: Coordinator,
    pub(crate) manager: ManagerHandle,
}

fn config(dir: &TempDir, workers: u16) -> ManagerConfig {
    ManagerConfig {
        worker_program: WorkerProgram::MitosisWorker(env!("CARGO_BIN_EXE_mitosis-worker").into()),
        ..ManagerConfig::new(dir.path().join("manager"), workers)
    }
}

impl Machine {
    pub(crate) async fn start(workers: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = CoordinatorConfig::new(dir.path().join("coordinator"));
        let coordinator = Coordinator::open(coordinator).await.unwrap();
        let connector = coordinator.local_connector();
        let manager = Manager::start(config(&dir, workers), connector)
            .await
            .unwrap();
        Self {
            dir,
            workers,
            coordinator,
            manager,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn submit(&self, specs: impl IntoIterator<Item = TaskSpec>) -> Vec<Uuid> {
        let task = |spec| SubmitTask { key: None, spec };
        let request = SubmitRequest {
            suite: None,
            tasks: specs.into_iter().map(task).collect(),
        };
        let accepted = self.coordinator.submit(request).await.unwrap();
        accepted.tasks.iter().map(|task| task.uuid).collect()
    }

    pub(crate) async fn wait(&self, tasks: &[Uuid], patience: Duration) -> WaitResponse {
        let what = WaitFor::Tasks(tasks.to_vec());
        self.coordinator.wait(&what, patience).await.unwrap()
    }

    pub(crate) async fn all_end(&self, tasks: &[Uuid]) {
        let answer = self.wait(tasks, PATIENCE).await;
        if !answer.done {
            let stats = self.manager.stats().await;
            let logs = self.logs();
            panic!("tasks did not end: {:?}\n{stats:#?}\n{logs}", answer.counts);
        }
    }

    fn logs(&self) -> String {
        let dir = self.path("manager/logs");
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
            .collect()
    }

    pub(crate) async fn task(&self, uuid: Uuid) -> TaskDetail {
        self.coordinator.task(uuid).await.unwrap()
    }

    /// Pids of this machine's processes whose command line contains `part` (arguments end with NUL).
    pub(crate) fn processes_with(&self, part: &str) -> Vec<Pid> {
        marked(self.manager.instance())
            .into_iter()
            .filter(|(_, command)| command.contains(part))
            .map(|(pid, _)| pid)
            .collect()
    }

    async fn signal_a_worker(&self, signal: Signal) {
        let mut workers = Vec::new();
        until("a worker runs", || {
            workers = self.processes_with("--worker-local-id");
            !workers.is_empty()
        })
        .await;
        kill_process(workers[0], signal).unwrap();
    }

    pub(crate) async fn kill_a_worker(&self) {
        self.signal_a_worker(Signal::KILL).await;
    }

    pub(crate) async fn stop_a_worker(&self) {
        self.signal_a_worker(Signal::STOP).await;
    }

    pub(crate) fn continue_workers(&self) {
        for worker in self.processes_with("--worker-local-id") {
            kill_process(worker, Signal::CONT).unwrap();
        }
    }

    pub(crate) async fn try_second_manager(&self) -> Result<ManagerHandle, ManagerError> {
        Manager::start(config(&self.dir, 1), self.coordinator.local_connector()).await
    }

    /// Ends the manager and checks that nothing of it is left.
    pub(crate) async fn end_manager(&self, request: ShutdownRequest) {
        let exit = in_time("the manager ends", self.manager.shutdown(request)).await;
        assert!(matches!(exit, ManagerExit::Asked), "{exit:?}");
        let instance = self.manager.instance();
        let left = marked(instance);
        assert!(left.is_empty(), "processes are left: {left:?}");
        let shared = std::fs::read_dir("/dev/shm").unwrap().flatten();
        let shared: Vec<_> = shared
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains(&instance[..8]))
            .collect();
        assert!(shared.is_empty(), "shared memory is left: {shared:?}");
    }

    pub(crate) async fn start_manager(&mut self) {
        let connector: Arc<_> = self.coordinator.local_connector();
        let manager = Manager::start(config(&self.dir, self.workers), connector).await;
        self.manager = manager.unwrap();
    }

    pub(crate) async fn stop(self, request: ShutdownRequest) {
        self.end_manager(request).await;
        self.coordinator.close().await;
    }
}

/// Processes that carry the mark of an installation, with their command lines.
fn marked(instance: &str) -> Vec<(Pid, String)> {
    let mark = format!("MITO_INSTANCE={instance}");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let look = |entry: std::fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let is_marked = environment
            .split(|byte| *byte == 0)
            .any(|item| item == mark.as_bytes());
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        is_marked.then(|| (pid, String::from_utf8_lossy(&command).into_owned()))
    };
    entries.filter_map(look).collect()
}

/// Runs a manager whose worker program is this one until it gives up.
pub(crate) async fn manager_with_program(program: &str) -> ManagerExit {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = CoordinatorConfig::new(dir.path().join("coordinator"));
    let coordinator = Coordinator::open(coordinator).await.unwrap();
    let config = ManagerConfig {
        worker_program: WorkerProgram::MitosisWorker(program.into()),
        ..config(&dir, 1)
    };
    let manager = Manager::start(config, coordinator.local_connector())
        .await
        .unwrap();
    let exit = in_time("the manager gives up", manager.wait()).await;
    coordinator.close().await;
    exit
}
