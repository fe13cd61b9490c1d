//! What workers cost while they wait, and how long they take to come up.
//!
//! A real manager with its real worker processes, beside as many processes that only open the same ports and leave:
//! interleaved rounds of starts, and after the first one a look at idle CPU and memory. The manager and its coordinator
//! live in this process, so their share is an upper bound of the manager's.

use std::time::{Duration, Instant};

use mitosis_bridge::{PollConfig, TransportRoot};
use serde::Serialize;

use super::error::{BenchError, io, part};
use super::host::Host;
use super::interrupt::Interrupt;
use super::ipc::placement::Placement;
use super::ipc::stage::BridgeStage;
use super::program::product;
use super::scratch::Scratch;
use super::{cpu, memory};
use mitosis::coordinator::{Coordinator, CoordinatorConfig};
use mitosis::manager::{Manager, ManagerConfig, ManagerHandle, WorkerProgram};
use mitosis::run::summary::median;
use mitosis::shutdown::ShutdownRequest;

/// How long all workers may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at the number of ready workers. Looking is one message to the manager's loop.
const LOOK: Duration = Duration::from_millis(2);
/// Time to calm down between the start and the idle measurement.
const SETTLE: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Worker processes.
    pub workers: u16,
    /// Starts of each kind.
    pub rounds: u32,
    /// How long idle workers are watched.
    pub idle: Duration,
    /// How pollers wait.
    pub poll: PollConfig,
}

/// The figures. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Worker processes.
    pub workers: u16,
    /// How pollers waited.
    pub poll: String,
    /// Rounds; starts are medians over them.
    pub rounds: u32,
    /// From the first spawn until the manager called every worker ready.
    pub ready_seconds: f64,
    /// From the first spawn until every process had opened the same ports and said hello.
    pub baseline_seconds: f64,
    /// The first over the second.
    pub ready_over_baseline: f64,
    /// How long idle workers were watched.
    pub idle_seconds: f64,
    /// CPU time of manager and workers meanwhile, as a share of one core; the coordinator in the same process included.
    pub idle_cpu: f64,
    /// The workers' part of it.
    pub idle_workers_cpu: f64,
    /// Proportional set size of a worker, mean over all.
    pub worker_pss_bytes: u64,
    /// The largest.
    pub worker_pss_max_bytes: u64,
    /// Proportional set size of the process with manager and coordinator.
    pub manager_pss_bytes: u64,
    /// Shared memory of the transport that is really taken.
    pub shared_memory_bytes: u64,
    /// The machine.
    pub host: Host,
}

/// Runs all rounds; `after_round` hears the two start times of each.
///
/// # Errors
/// When the manager or a process does not come up.
pub fn measure(
    plan: &Plan,
    mut after_round: impl FnMut(u32, Duration, Duration),
) -> Result<Measurement, BenchError> {
    let host = Host::look();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start a runtime"))?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let (mut ready, mut baseline) = (Vec::new(), Vec::new());
        let mut idle = Idle::default();
        for round in 1..=plan.rounds {
            // In turning order, the workers first: memory is looked at in a process that has done nothing else.
            let (managed, bare) = if round % 2 == 1 {
                let (managed, seen) = start_managed(plan, &mut interrupt, round == 1).await?;
                idle = seen.unwrap_or(idle);
                (managed, interrupt.or(start_bare(plan)).await?)
            } else {
                let bare = interrupt.or(start_bare(plan)).await?;
                (start_managed(plan, &mut interrupt, false).await?.0, bare)
            };
            after_round(round, managed, bare);
            ready.push(managed.as_secs_f64());
            baseline.push(bare.as_secs_f64());
        }
        Ok(Measurement::of(plan, host, [&ready, &baseline], &idle))
    })
}

impl Measurement {
    fn of(plan: &Plan, host: Host, starts: [&[f64]; 2], idle: &Idle) -> Self {
        let [ready_seconds, baseline_seconds] = starts.map(median);
        let workers = idle.worker_pss.len().max(1) as u64;
        Self {
            workers: plan.workers,
            poll: plan.poll.to_string(),
            rounds: plan.rounds,
            ready_seconds,
            baseline_seconds,
            ready_over_baseline: ready_seconds / baseline_seconds.max(1e-9),
            idle_seconds: idle.wall.as_secs_f64(),
            idle_cpu: idle.share(idle.workers_cpu + idle.manager_cpu),
            idle_workers_cpu: idle.share(idle.workers_cpu),
            worker_pss_bytes: idle.worker_pss.iter().sum::<u64>() / workers,
            worker_pss_max_bytes: idle.worker_pss.iter().copied().max().unwrap_or(0),
            manager_pss_bytes: idle.manager_pss,
            shared_memory_bytes: idle.shared_memory,
            host,
        }
    }
}

/// Processes that open a worker's ports and nothing else.
async fn start_bare(plan: &Plan) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let stage = BridgeStage::open(plan.workers, Placement::default()).await?;
    let took = began.elapsed();
    stage.leave().await?;
    Ok(took)
}

/// A manager's workers; with a look at them while they idle, if wanted.
async fn start_managed(
    plan: &Plan,
    interrupt: &mut Interrupt,
    watch: bool,
) -> Result<(Duration, Option<Idle>), BenchError> {
    let scratch = Scratch::new()?;
    let coordinator = Coordinator::open(CoordinatorConfig::new(scratch.path().join("state")));
    let coordinator = coordinator.await.map_err(part("open a coordinator"))?;
    let mut config = ManagerConfig::new(scratch.path().join("manager"), plan.workers);
    config.worker_program = WorkerProgram::Mitosis(product()?);
    config.poll = plan.poll;
    let began = Instant::now();
    let manager = Manager::start(config, coordinator.local_connector()).await;
    let manager = manager.map_err(part("start a manager"))?;
    let measured = async {
        all_ready(&manager, plan.workers).await?;
        let took = began.elapsed();
        let idle = if watch {
            Some(Idle::watch(&manager, plan).await?)
        } else {
            None
        };
        Ok((took, idle))
    };
    let measured = interrupt.or(measured).await;
    let deadline = PATIENCE;
    manager
        .shutdown(ShutdownRequest::Graceful { deadline })
        .await;
    coordinator.close().await;
    measured
}

/// Waits until a manager calls all its workers ready.
pub(super) async fn all_ready(manager: &ManagerHandle, workers: u16) -> Result<(), BenchError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let ready = manager.stats().await.status.workers_ready;
        if ready >= u32::from(workers) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(BenchError::NothingToMeasure(format!(
                "only {ready} of {workers} workers are ready after {} s",
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What was seen of idle workers.
#[derive(Debug, Default)]
struct Idle {
    wall: Duration,
    workers_cpu: Duration,
    manager_cpu: Duration,
    worker_pss: Vec<u64>,
    manager_pss: u64,
    shared_memory: u64,
}

impl Idle {
    async fn watch(manager: &ManagerHandle, plan: &Plan) -> Result<Self, BenchError> {
        tokio::time::sleep(SETTLE).await;
        let workers = children().map_err(io("list the worker processes"))?;
        // The workers are looked at outside of the manager's time: looking costs this process more than they do.
        let workers_before = all_cpu(&workers)?;
        let began = (Instant::now(), cpu::of_this_process());
        tokio::time::sleep(plan.idle).await;
        let (wall, manager_cpu) = (began.0.elapsed(), cpu::of_this_process() - began.1);
        let workers_cpu = all_cpu(&workers)?.saturating_sub(workers_before);
        let worker_pss = workers.iter().map(|pid| memory::pss_bytes(*pid));
        let root = TransportRoot::find(&manager.instance()[..8]).map_err(part("find the root"))?;
        Ok(Self {
            wall,
            workers_cpu,
            manager_cpu,
            worker_pss: worker_pss.collect::<Result<_, _>>()?,
            manager_pss: memory::pss_bytes(std::process::id())?,
            shared_memory: root.map_or(Ok(0), |root| memory::of_root(&root))?,
        })
    }

    fn share(&self, cpu: Duration) -> f64 {
        let wall = self.wall.as_secs_f64();
        if wall > 0.0 {
            cpu.as_secs_f64() / wall
        } else {
            0.0
        }
    }
}

pub(super) fn all_cpu(pids: &[u32]) -> Result<Duration, BenchError> {
    let each = pids.iter().map(|pid| cpu::of_process(*pid));
    each.sum::<std::io::Result<Duration>>()
        .map_err(io("read the CPU time of a worker"))
}

/// Children of every thread of this process: the workers, for nothing else is started here meanwhile.
pub(super) fn children() -> std::io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let list = std::fs::read_to_string(thread?.path().join("children"))?;
        pids.extend(
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_means_are_computed_from_what_was_seen() {
        let plan = Plan {
            workers: 2,
            rounds: 3,
            idle: Duration::from_secs(10),
            poll: "event".parse().unwrap(),
        };
        let idle = Idle {
            wall: Duration::from_secs(10),
            workers_cpu: Duration::from_millis(50),
            manager_cpu: Duration::from_millis(50),
            worker_pss: vec![1000, 3000],
            manager_pss: 9000,
            shared_memory: 4096,
        };
        let measurement = Measurement::of(
            &plan,
            Host::look(),
            [&[3.0, 1.0, 2.0], &[1.0, 1.0, 4.0]],
            &idle,
        );
        assert_eq!(measurement.ready_over_baseline, 2.0);
        assert!((measurement.idle_cpu - 0.01).abs() < 1e-9);
        assert_eq!(
            (
                measurement.worker_pss_bytes,
                measurement.worker_pss_max_bytes
            ),
            (2000, 3000)
        );
    }
}
