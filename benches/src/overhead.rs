//! What recording metrics costs: the same tasks with a recorder and without one, in pairs.
//!
//! A recorder cannot be taken out of a process again, so that each half of a pair is a process of its own: this executable
//! with a hidden command, which is a coordinator and a manager with real workers ([`carry`]). What workers and pollers
//! count in shared memory is counted in both halves; it has no switch.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::cpu;
use super::error::{BenchError, io, part};
use super::host::Host;
use super::interrupt::Interrupt;
use super::ratio::Ratio;
use super::up::Up;
use super::workers::all_ready;
use mitosis::run::summary::median;
use mitosis::telemetry::metrics;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Pairs.
    pub pairs: u32,
    /// Tasks of each half.
    pub tasks: u32,
    /// Worker processes.
    pub workers: u16,
}

/// Whether a half has a recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Recorder {
    /// As `mitosis up` has one.
    Installed,
    /// None: what is recorded goes nowhere.
    Absent,
}

/// What one half cost. Field names are the JSON keys.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// CPU time of all its processes from start to end, the tasks included, per 10,000 tasks.
    pub cpu_seconds_per_10000_tasks: f64,
    /// Median fetch round trip, from buckets.
    pub fetch_p50_ns: u64,
}

/// Two halves that were measured one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// With a recorder.
    pub installed: Cost,
    /// Without one.
    pub absent: Cost,
}

/// All pairs and what they say. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Every pair, in order.
    pub pairs: Vec<Pair>,
    /// Tasks of each half.
    pub tasks: u32,
    /// Worker processes.
    pub workers: u16,
    /// Medians with a recorder.
    pub installed: Cost,
    /// Medians without one.
    pub absent: Cost,
    /// Installed over absent, CPU time.
    pub cpu: Ratio,
    /// Installed over absent, fetch round trip.
    pub fetch_p50: Ratio,
    /// The machine.
    pub host: Host,
}

/// What a half says at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    fetch_p50_ns: u64,
}

/// Runs all pairs, the halves in turning order; `after_pair` hears of each.
///
/// # Errors
/// When a half fails.
pub fn measure(
    plan: &Plan,
    mut after_pair: impl FnMut(u32, &Pair),
) -> Result<Measurement, BenchError> {
    let host = Host::look();
    let mut pairs = Vec::new();
    for number in 0..plan.pairs {
        let (installed, absent) = if number % 2 == 0 {
            let installed = half(plan, Recorder::Installed)?;
            (installed, half(plan, Recorder::Absent)?)
        } else {
            let absent = half(plan, Recorder::Absent)?;
            (half(plan, Recorder::Installed)?, absent)
        };
        let pair = Pair { installed, absent };
        after_pair(number + 1, &pair);
        pairs.push(pair);
    }
    Ok(Measurement::of(pairs, plan, host))
}

impl Measurement {
    fn of(pairs: Vec<Pair>, plan: &Plan, host: Host) -> Self {
        let medians = |half: fn(&Pair) -> Cost| {
            let figure = |of: fn(Cost) -> f64| {
                median(&pairs.iter().map(|p| of(half(p))).collect::<Vec<_>>())
            };
            let mut fetch: Vec<u64> = pairs.iter().map(|pair| half(pair).fetch_p50_ns).collect();
            fetch.sort_unstable();
            Cost {
                cpu_seconds_per_10000_tasks: figure(|cost| cost.cpu_seconds_per_10000_tasks),
                fetch_p50_ns: fetch.get(fetch.len() / 2).copied().unwrap_or(0),
            }
        };
        let ratio = |of: fn(Cost) -> f64| {
            let of_pair = |pair: &Pair| (of(pair.installed), of(pair.absent));
            Ratio::of(&pairs.iter().map(of_pair).collect::<Vec<_>>())
        };
        Self {
            tasks: plan.tasks,
            workers: plan.workers,
            installed: medians(|pair| pair.installed),
            absent: medians(|pair| pair.absent),
            cpu: ratio(|cost| cost.cpu_seconds_per_10000_tasks),
            fetch_p50: ratio(|cost| cost.fetch_p50_ns as f64),
            pairs,
            host,
        }
    }
}

/// One half, as a process.
fn half(plan: &Plan, recorder: Recorder) -> Result<Cost, BenchError> {
    let program = std::env::current_exe().map_err(io("find the running executable"))?;
    let before = cpu::of_children().map_err(io("read /proc/self/stat"))?;
    let recorder = clap::ValueEnum::to_possible_value(&recorder).expect("no value is skipped");
    let output = Command::new(program)
        .args(["carry", "--recorder", recorder.get_name()])
        .args(["--tasks", &plan.tasks.to_string()])
        .args(["--workers", &plan.workers.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(io("run this program"))?;
    if output.status.code() == Some(130) {
        return Err(BenchError::Interrupted);
    }
    super::tasks::succeeded("a half of a pair", &output)?;
    let after = cpu::of_children().map_err(io("read /proc/self/stat"))?;
    let said: Said = serde_json::from_slice(&output.stdout)
        .map_err(|error| BenchError::Summary(error.to_string()))?;
    Ok(Cost {
        cpu_seconds_per_10000_tasks: (after - before) * 1e4 / f64::from(plan.tasks),
        fetch_p50_ns: said.fetch_p50_ns,
    })
}

/// Be one half: run the tasks, and print what is known here alone.
///
/// # Errors
/// When a part does not come up or a task is lost.
pub fn carry(recorder: Recorder, tasks: u32, workers: u16) -> Result<String, BenchError> {
    if recorder == Recorder::Installed {
        metrics::install().map_err(part("install the recorder"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start a runtime"))?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let up = Up::open(workers).await?;
        let carried = interrupt.or(async {
            all_ready(&up.manager, workers).await?;
            up.run_no_ops(tasks).await?;
            Ok(up.manager.stats().await.fetch_round_trip.quantile(0.5))
        });
        let carried = carried.await;
        up.close().await;
        let p50 = carried?.unwrap_or_default();
        let said = Said {
            fetch_p50_ns: u64::try_from(p50.as_nanos()).unwrap_or(u64::MAX),
        };
        serde_json::to_string(&said).map_err(|error| BenchError::Summary(error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs_and_figures_are_medians() {
        let cost = |cpu, fetch_p50_ns| Cost {
            cpu_seconds_per_10000_tasks: cpu,
            fetch_p50_ns,
        };
        let pair = |cpu| Pair {
            installed: cost(cpu * 1.02, 2000),
            absent: cost(cpu, 1000),
        };
        let plan = Plan {
            pairs: 5,
            tasks: 10,
            workers: 2,
        };
        let pairs = [9.0, 1.0, 5.0, 7.0, 3.0].map(pair).to_vec();
        let measurement = Measurement::of(pairs, &plan, Host::look());
        assert!((measurement.cpu.median - 1.02).abs() < 1e-9);
        assert!((measurement.fetch_p50.median - 2.0).abs() < 1e-9);
        assert_eq!(measurement.absent, cost(5.0, 1000));
    }
}
