//! No-op tasks through the whole path, beside a bare spawn loop and `xargs`.
//!
//! Every round measures all three, in turning order, so that whatever else the machine does hits them alike. The whole
//! path is this very executable running `run --json` on a file of `true` lines, start and end of all processes included.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::cpu;
use super::error::{BenchError, io};
use super::program::product;
use super::scratch::Scratch;
use mitosis::run::summary::median;

/// Processes at a time in every contestant.
const PARALLEL: u16 = 2;
/// What a default measurement should take at most.
const BUDGET: Duration = Duration::from_secs(60);
/// Tasks per round where the machine is fast enough for [`BUDGET`].
const DEFAULT_TASKS: u32 = 2000;
/// Spawns that show how fast the machine is.
const PROBE_TASKS: u32 = 100;
/// Time of a whole round as a multiple of its spawn loop, generously.
const ROUND_FACTOR: f64 = 6.0;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds.
    pub rounds: u32,
    /// Tasks per round and contestant; chosen by the speed of the machine when absent.
    pub tasks: Option<u32>,
    /// Worker processes of the whole path.
    pub workers: u16,
    /// Durability of the whole path.
    pub durability: String,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    /// Whole path: tasks per second, start and end of all processes included.
    pub tasks_per_second: f64,
    /// `xargs -d '\n' -I{} -P2 sh -c '{}'` on the same lines; absent where there is no such xargs.
    pub xargs_per_second: Option<f64>,
    /// `posix_spawn` and wait in two threads.
    pub spawn_per_second: f64,
    /// Median fetch round trip during the whole path.
    pub fetch_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub fetch_p99_ns: Option<u64>,
    /// CPU time of all processes of the whole path, the tasks included, per 1,000 tasks.
    pub cpu_seconds_per_1000_tasks: f64,
}

/// All rounds and their medians. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Every round, in order.
    pub rounds: Vec<Round>,
    /// Tasks per round and contestant.
    pub tasks_per_round: u32,
    /// Worker processes of the whole path.
    pub workers: u16,
    /// `process` or `power`.
    pub durability: String,
    /// Median over the rounds.
    pub tasks_per_second: f64,
    /// Median over the rounds.
    pub xargs_per_second: Option<f64>,
    /// Median over the rounds.
    pub spawn_per_second: f64,
    /// Median over the rounds.
    pub fetch_p50_ns: Option<u64>,
    /// Median over the rounds.
    pub fetch_p99_ns: Option<u64>,
    /// Median over the rounds.
    pub cpu_seconds_per_1000_tasks: f64,
}

/// Runs all rounds; `after_round` hears of each.
///
/// # Errors
/// When a contestant fails.
pub fn measure(
    plan: &Plan,
    mut after_round: impl FnMut(u32, &Round),
) -> Result<Measurement, BenchError> {
    let tasks = match plan.tasks {
        Some(tasks) => tasks,
        None => affordable_tasks(plan.rounds, spawn_loop(PROBE_TASKS)?),
    };
    let stage = Stage::new(tasks, plan)?;
    let mut rounds = Vec::new();
    for number in 0..plan.rounds {
        let round = stage.round(number)?;
        after_round(number + 1, &round);
        rounds.push(round);
    }
    Ok(Measurement::of(rounds, tasks, plan))
}

/// Tasks per round that keep a measurement within its budget, given spawns per second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a small positive range first"
)]
fn affordable_tasks(rounds: u32, spawns_per_second: f64) -> u32 {
    let seconds_per_round = BUDGET.as_secs_f64() / f64::from(rounds.max(1));
    let affordable = seconds_per_round * spawns_per_second / ROUND_FACTOR;
    affordable.clamp(f64::from(PROBE_TASKS), f64::from(DEFAULT_TASKS)) as u32
}

impl Measurement {
    fn of(rounds: Vec<Round>, tasks_per_round: u32, plan: &Plan) -> Self {
        let figure = |get: fn(&Round) -> f64| median(&rounds.iter().map(get).collect::<Vec<_>>());
        let some = |get: fn(&Round) -> Option<f64>| {
            let figures: Vec<f64> = rounds.iter().filter_map(get).collect();
            (!figures.is_empty()).then(|| median(&figures))
        };
        let nanoseconds = |get: fn(&Round) -> Option<u64>| {
            let mut figures: Vec<u64> = rounds.iter().filter_map(get).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied()
        };
        Self {
            tasks_per_second: figure(|round| round.tasks_per_second),
            xargs_per_second: some(|round| round.xargs_per_second),
            spawn_per_second: figure(|round| round.spawn_per_second),
            fetch_p50_ns: nanoseconds(|round| round.fetch_p50_ns),
            fetch_p99_ns: nanoseconds(|round| round.fetch_p99_ns),
            cpu_seconds_per_1000_tasks: figure(|round| round.cpu_seconds_per_1000_tasks),
            rounds,
            tasks_per_round,
            workers: plan.workers,
            durability: plan.durability.clone(),
        }
    }
}

/// What all rounds share; its directory goes with it.
struct Stage {
    scratch: Scratch,
    lines: PathBuf,
    program: PathBuf,
    tasks: u32,
    workers: u16,
    durability: String,
    has_xargs: bool,
}

impl Stage {
    fn new(tasks: u32, plan: &Plan) -> Result<Self, BenchError> {
        let scratch = Scratch::new()?;
        let lines = scratch.path().join("tasks.txt");
        let stage = Self {
            program: product()?,
            lines,
            scratch,
            tasks,
            workers: plan.workers,
            durability: plan.durability.clone(),
            has_xargs: has_xargs(),
        };
        std::fs::write(&stage.lines, "true\n".repeat(tasks as usize))
            .map_err(io("write the task file"))?;
        Ok(stage)
    }

    fn round(&self, number: u32) -> Result<Round, BenchError> {
        let mut spawn = 0.0;
        let mut xargs = None;
        let mut whole = None;
        for contestant in 0..3 {
            match (contestant + number) % 3 {
                0 => spawn = spawn_loop(self.tasks)?,
                1 if self.has_xargs => xargs = Some(self.xargs()?),
                1 => {}
                _ => whole = Some(self.whole_path()?),
            }
        }
        let whole = whole.expect("each of three turns is taken once");
        Ok(Round {
            tasks_per_second: whole.tasks_per_second,
            xargs_per_second: xargs,
            spawn_per_second: spawn,
            fetch_p50_ns: whole.fetch_p50_ns,
            fetch_p99_ns: whole.fetch_p99_ns,
            cpu_seconds_per_1000_tasks: whole.cpu_seconds * 1000.0 / f64::from(self.tasks),
        })
    }

    fn xargs(&self) -> Result<f64, BenchError> {
        let lines = std::fs::File::open(&self.lines).map_err(io("open the task file"))?;
        let parallel = format!("-P{PARALLEL}");
        let began = Instant::now();
        let output = Command::new("xargs")
            .args(["-d", "\\n", "-I{}", &parallel, "sh", "-c", "{}"])
            .stdin(lines)
            .output()
            .map_err(io("run xargs"))?;
        let seconds = began.elapsed().as_secs_f64();
        succeeded("xargs", &output)?;
        Ok(f64::from(self.tasks) / seconds)
    }

    fn whole_path(&self) -> Result<WholePath, BenchError> {
        let cpu_before = cpu::of_children().map_err(io("read /proc/self/stat"))?;
        let began = Instant::now();
        let output = Command::new(&self.program)
            .args(["run", "--json", "--progress", "never", "--workers"])
            .arg(self.workers.to_string())
            .arg("--durability")
            .arg(&self.durability)
            .arg(&self.lines)
            .env("XDG_STATE_HOME", self.scratch.path())
            .stdin(Stdio::null())
            .output()
            .map_err(io("run mitosis"))?;
        let seconds = began.elapsed().as_secs_f64();
        succeeded("mitosis run", &output)?;
        let cpu_after = cpu::of_children().map_err(io("read /proc/self/stat"))?;
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| BenchError::Summary(error.to_string()))?;
        let completed = summary["tasks"]["completed"].as_u64();
        if completed != Some(u64::from(self.tasks)) {
            return Err(BenchError::Summary(format!(
                "it has {completed:?} completed tasks"
            )));
        }
        Ok(WholePath {
            tasks_per_second: f64::from(self.tasks) / seconds,
            fetch_p50_ns: summary["fetch_p50_ns"].as_u64(),
            fetch_p99_ns: summary["fetch_p99_ns"].as_u64(),
            cpu_seconds: cpu_after - cpu_before,
        })
    }
}

struct WholePath {
    tasks_per_second: f64,
    fetch_p50_ns: Option<u64>,
    fetch_p99_ns: Option<u64>,
    cpu_seconds: f64,
}

/// Spawns and awaits `true`, in as many threads as the others have processes; spawns per second.
fn spawn_loop(tasks: u32) -> Result<f64, BenchError> {
    let next = std::sync::atomic::AtomicU32::new(0);
    let work = || -> io::Result<()> {
        while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < tasks {
            Command::new("true").stdin(Stdio::null()).status()?;
        }
        Ok(())
    };
    let began = Instant::now();
    std::thread::scope(|scope| -> io::Result<()> {
        let mut threads = Vec::new();
        for _ in 0..PARALLEL {
            threads.push(
                std::thread::Builder::new()
                    .name("spawner".to_owned())
                    .spawn_scoped(scope, work)?,
            );
        }
        for thread in threads {
            thread.join().expect("the spawn loop has no panic")?;
        }
        Ok(())
    })
    .map_err(io("spawn `true`"))?;
    Ok(f64::from(tasks) / began.elapsed().as_secs_f64())
}

/// True when xargs has the GNU option that splits at line ends alone.
fn has_xargs() -> bool {
    Command::new("xargs")
        .args(["-d", "\\n", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(super) fn succeeded(
    what: &'static str,
    output: &std::process::Output,
) -> Result<(), BenchError> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let end: Vec<&str> = stderr.lines().rev().take(3).collect();
    Err(BenchError::Failed {
        what,
        status: output.status.to_string(),
        stderr: end.into_iter().rev().collect::<Vec<_>>().join(" | "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(tasks_per_second: f64, xargs_per_second: Option<f64>) -> Round {
        Round {
            tasks_per_second,
            xargs_per_second,
            spawn_per_second: 1.0,
            fetch_p50_ns: Some(5),
            fetch_p99_ns: None,
            cpu_seconds_per_1000_tasks: 2.0,
        }
    }

    fn plan() -> Plan {
        Plan {
            rounds: 3,
            tasks: None,
            workers: 2,
            durability: "process".to_owned(),
        }
    }

    #[test]
    fn the_figures_are_medians_and_a_missing_contestant_stays_missing() {
        let rounds = vec![round(3.0, None), round(1.0, None), round(2.0, None)];
        let measurement = Measurement::of(rounds, 10, &plan());
        assert_eq!(measurement.tasks_per_second, 2.0);
        assert_eq!(measurement.xargs_per_second, None);
        assert_eq!(
            (measurement.fetch_p50_ns, measurement.fetch_p99_ns),
            (Some(5), None)
        );
        let value = serde_json::to_value(&measurement).unwrap();
        for key in [
            "rounds",
            "tasks_per_second",
            "xargs_per_second",
            "spawn_per_second",
            "fetch_p50_ns",
            "fetch_p99_ns",
            "cpu_seconds_per_1000_tasks",
            "durability",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_slow_machine_gets_fewer_tasks() {
        assert_eq!(affordable_tasks(5, 2600.0), 2000);
        assert_eq!(affordable_tasks(5, 500.0), 1000);
        assert_eq!(affordable_tasks(5, 1.0), PROBE_TASKS);
    }

    #[test]
    fn the_spawn_loop_spawns() {
        assert!(spawn_loop(4).unwrap() > 0.0);
    }
}
