//! How fast orders take effect: from a cancel to the death of the last process of its task, and from a worker's death to
//! the task's next execution.
//!
//! A real coordinator with its HTTP face and a real manager with worker processes, in this process. Each task is a small
//! tree: a shell, a child, and a child that left the process group. It tells of its start through a pipe, and its
//! processes are watched by their descriptors, so nothing is polled. Every round takes one sample of each kind, in
//! turning order.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use uuid::Uuid;

use super::error::{BenchError, io, part};
use super::host::Host;
use super::interrupt::Interrupt;
use super::program::product;
use super::up::Up;
use super::workers::all_ready;
use mitosis::client::ApiClient;
use mitosis::coordinator::auth::Scope;
use mitosis::process::{Child, ProcessGroup, SpawnSpec, spawn, watch_readable};
use mitosis::protocol::TaskSpec;
use mitosis::protocol::api::{CancelRequest, SubmitRequest, SubmitTask, TaskEnd};
use mitosis::run::summary::Spread;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// A task of three processes, one of them in a session of its own. `$0` is the pipe.
const TREE: &str =
    "setsid sleep 1000 & a=$!; sleep 1000 & echo $MITO_ATTEMPT $PPID $$ $a $! > \"$0\"; wait";

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Samples of each kind.
    pub rounds: u32,
    /// Worker processes; with one, a killed worker's task waits for its successor.
    pub workers: u16,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From the call of the API for a graceful cancel (TERM) until the last process of the tree is dead.
    Cancel,
    /// The same for an immediate one (KILL).
    CancelNow,
    /// From the start of the command `mitosis cancel` until the last process of the tree is dead.
    CancelCommand,
    /// From the KILL of a worker until the next execution of its task has begun: its first line has arrived.
    Redispatch,
}

const KINDS: [Kind; 4] = [
    Kind::Cancel,
    Kind::CancelNow,
    Kind::CancelCommand,
    Kind::Redispatch,
];

/// The figures of one kind. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// What was measured.
    pub kind: Kind,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile; with fewer than 100 rounds the largest.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

/// All figures. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Samples of each kind.
    pub rounds: u32,
    /// Worker processes.
    pub workers: u16,
    /// One entry for each kind.
    pub results: Vec<Figures>,
    /// The machine.
    pub host: Host,
}

/// Runs all rounds; `after_round` hears the number of each.
///
/// # Errors
/// When a part does not come up, or an order has no effect.
pub fn measure(plan: &Plan, mut after_round: impl FnMut(u32)) -> Result<Measurement, BenchError> {
    let host = Host::look();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start a runtime"))?;
    let spreads = runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let mut spreads = KINDS.map(|_| Spread::default());
        for round in 0..plan.rounds {
            // A new one each time: the second early death of a worker's slot would be answered with a pause.
            let stage = Stage::open(plan).await?;
            let measured = interrupt.or(stage.round(round, plan, &mut spreads)).await;
            stage.close().await;
            measured?;
            after_round(round + 1);
        }
        Ok::<_, BenchError>(spreads)
    })?;
    let results = KINDS.into_iter().zip(&spreads);
    Ok(Measurement {
        rounds: plan.rounds,
        workers: plan.workers,
        results: results
            .filter_map(|(kind, spread)| Figures::of(kind, spread))
            .collect(),
        host,
    })
}

impl Figures {
    fn of(kind: Kind, spread: &Spread) -> Option<Self> {
        Some(Self {
            kind,
            p50_ns: spread.quantile_ns(0.5)?,
            p99_ns: spread.quantile_ns(0.99)?,
            max_ns: spread.quantile_ns(1.0)?,
        })
    }
}

/// Everything that runs meanwhile.
struct Stage {
    up: Up,
    client: ApiClient,
    ends: flume::Receiver<TaskEnd>,
    /// Tasks tell of themselves here.
    pipe: PathBuf,
}

/// A task whose tree is up.
struct Tree {
    uuid: Uuid,
    worker: Pid,
    processes: Vec<AsyncFd<OwnedFd>>,
}

type Lines = tokio::io::Lines<BufReader<pipe::Receiver>>;

impl Stage {
    async fn open(plan: &Plan) -> Result<Self, BenchError> {
        let up = Up::open(plan.workers).await?;
        let token = up.coordinator.issue_token(Scope::Admin, "bench");
        let client = ApiClient::new(up.service.url(), token).map_err(part("make a client"))?;
        let pipe = up.scratch.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|errno| io("make a pipe")(errno.into()))?;
        Ok(Self {
            ends: up.coordinator.ends(),
            up,
            client,
            pipe,
        })
    }

    async fn close(self) {
        self.up.close().await;
    }

    /// One sample of each kind.
    async fn round(
        &self,
        round: u32,
        plan: &Plan,
        spreads: &mut [Spread; KINDS.len()],
    ) -> Result<(), BenchError> {
        // Writable as well, so that it has no end between two tasks.
        let receiver = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&self.pipe);
        let mut lines = BufReader::new(receiver.map_err(io("open a pipe"))?).lines();
        // The first task of a new process meets cold caches; it does not count.
        self.limited(Kind::CancelNow, plan, &mut lines).await?;
        for turn in 0..KINDS.len() {
            let nth = (turn + round as usize) % KINDS.len();
            let sample = self.limited(KINDS[nth], plan, &mut lines).await?;
            spreads[nth].add_us(i64::try_from(sample.as_micros()).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    async fn limited(
        &self,
        kind: Kind,
        plan: &Plan,
        lines: &mut Lines,
    ) -> Result<Duration, BenchError> {
        let limited = tokio::time::timeout(PATIENCE, self.sample(kind, plan, lines));
        limited.await.unwrap_or_else(|_| Err(no_effect(kind)))
    }

    /// Brings up a tree, gives an order, and waits for its effect.
    async fn sample(
        &self,
        kind: Kind,
        plan: &Plan,
        lines: &mut Lines,
    ) -> Result<Duration, BenchError> {
        all_ready(&self.up.manager, plan.workers).await?;
        let mut tree = self.plant(lines).await?;
        let began = Instant::now();
        let took = match kind {
            Kind::Cancel | Kind::CancelNow => {
                self.cancel(tree.uuid, kind == Kind::Cancel).await?;
                tree.dead().await?;
                began.elapsed()
            }
            Kind::CancelCommand => {
                let mut command = self.cancel_command(tree.uuid)?;
                tree.dead().await?;
                let took = began.elapsed();
                command
                    .wait()
                    .await
                    .map_err(io("wait for `mitosis cancel`"))?;
                took
            }
            Kind::Redispatch => {
                rustix::process::kill_process(tree.worker, Signal::KILL)
                    .map_err(|errno| io("kill a worker")(errno.into()))?;
                tree = Tree::read(tree.uuid, 2, lines).await?;
                let took = began.elapsed();
                self.cancel(tree.uuid, false).await?;
                took
            }
        };
        self.until_ended(tree.uuid).await?;
        Ok(took)
    }

    async fn plant(&self, lines: &mut Lines) -> Result<Tree, BenchError> {
        let pipe = self.pipe.to_string_lossy().into_owned();
        let spec = TaskSpec::argv(["sh", "-c", TREE, &pipe]);
        let tasks = vec![SubmitTask { key: None, spec }];
        let request = SubmitRequest { suite: None, tasks };
        let accepted = self.up.coordinator.submit(request).await;
        let accepted = accepted.map_err(part("submit a task"))?;
        Tree::read(accepted.tasks[0].uuid, 1, lines).await
    }

    async fn cancel(&self, uuid: Uuid, graceful: bool) -> Result<(), BenchError> {
        let cancelled = self.client.cancel_task(uuid, CancelRequest { graceful });
        cancelled.await.map(|_| ()).map_err(part("cancel a task"))
    }

    /// Starts the command. As a child that the manager in this process knows, or it would be taken for a leftover.
    fn cancel_command(&self, uuid: Uuid) -> Result<Child, BenchError> {
        let program = product()?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(io("open /dev/null"))?;
        let uuid = uuid.to_string();
        let words: [&OsStr; 5] = [
            program.as_os_str(),
            "cancel".as_ref(),
            uuid.as_ref(),
            "--state-dir".as_ref(),
            self.up.state_dir.as_os_str(),
        ];
        let argv = words.map(|word| CString::new(word.as_bytes()));
        let argv: Result<_, _> = argv.into_iter().collect();
        let spec = SpawnSpec {
            argv: argv.map_err(|error| io("name `mitosis`")(error.into()))?,
            env: Vec::new(),
            cwd: None,
            stdin: null.as_fd().into(),
            stdout: null.as_fd().into(),
            stderr: null.as_fd().into(),
            inherit: Vec::new(),
            process_group: ProcessGroup::Inherit,
            program: program.clone(),
        };
        spawn(&spec).map_err(part("start `mitosis cancel`"))
    }

    async fn until_ended(&self, uuid: Uuid) -> Result<(), BenchError> {
        loop {
            let end = self.ends.recv_async().await.map_err(part("hear of ends"))?;
            if end.uuid == uuid {
                return Ok(());
            }
        }
    }
}

impl Tree {
    /// Waits for the line that this attempt writes.
    async fn read(uuid: Uuid, attempt: i32, lines: &mut Lines) -> Result<Self, BenchError> {
        let line = lines.next_line().await.map_err(io("read a pipe"))?;
        let line = line.unwrap_or_default();
        let numbers: Vec<i32> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let [found, worker, processes @ ..] = numbers.as_slice() else {
            return Err(BenchError::NothingToMeasure(format!(
                "a task wrote `{line}`"
            )));
        };
        let worker = Pid::from_raw(*worker).filter(|_| *found == attempt);
        let worker = worker.ok_or_else(|| {
            BenchError::NothingToMeasure(format!("attempt {attempt} was awaited, not `{line}`"))
        })?;
        let watched = processes
            .iter()
            .filter_map(|pid| Pid::from_raw(*pid))
            .map(watch);
        Ok(Self {
            uuid,
            worker,
            processes: watched.collect::<Result<_, _>>()?,
        })
    }

    /// Waits until all its processes are dead.
    async fn dead(&self) -> Result<(), BenchError> {
        for process in &self.processes {
            // A descriptor of a process is readable from its death on.
            let readable = process.readable().await;
            readable.map_err(io("watch a process"))?.retain_ready();
        }
        Ok(())
    }
}

fn watch(pid: Pid) -> Result<AsyncFd<OwnedFd>, BenchError> {
    let opened = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK);
    let fd = opened.map_err(|errno| io("watch a process")(errno.into()))?;
    watch_readable(fd).map_err(|(_, error)| io("watch a process")(error))
}

fn no_effect(kind: Kind) -> BenchError {
    BenchError::NothingToMeasure(format!(
        "{kind:?} had no effect within {} s",
        PATIENCE.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_quantiles_of_a_kind() {
        let mut spread = Spread::default();
        assert_eq!(Figures::of(Kind::Cancel, &spread), None);
        for us in 1..=100 {
            spread.add_us(us);
        }
        let figures = Figures::of(Kind::Redispatch, &spread).unwrap();
        assert_eq!(
            (figures.p50_ns, figures.p99_ns, figures.max_ns),
            (50_000, 99_000, 100_000)
        );
        let text = serde_json::to_string(&figures).unwrap();
        assert!(text.contains(r#""kind":"redispatch""#), "{text}");
    }
}
