//! The command line of `mitosis bench`: arguments in, figures and an exit code out.

mod control;
mod ipc;
mod overhead;
mod scrape;
mod workers;

use std::fmt::Write as _;

use clap::{Args, Parser, Subcommand};

use crate::BenchError;
use crate::ipc::client;
use crate::tasks::{self, Measurement, Plan};
use mitosis::cli::failure::{Failure, OrFail};
use mitosis::cli::global::GlobalArgs;
use mitosis::cli::output;
use mitosis::coordinator::Durability;
use mitosis::exit_code::Exit;
use mitosis::telemetry::logging::Role;

const BENCH_HELP: &str = "\
Every instrument prints a table, or with --json one JSON object.

Examples:
  mitosis bench ipc                        round trips between processes
  mitosis bench ipc --sweep --svg p.svg    poll strategies: latency against CPU
  mitosis bench workers                    256 idle workers
  mitosis bench tasks                      no-op tasks per second
  mitosis bench control                    cancels and deaths of workers
  mitosis bench scrape                     /metrics of 256 workers
  mitosis bench overhead                   tasks with and without recorded metrics";

/// Measure this machine and this program.
#[derive(Debug, Parser)]
#[command(name = "mitosis-bench", bin_name = "mitosis bench", version, after_help = BENCH_HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Instrument,
}

#[derive(Debug, Subcommand)]
enum Instrument {
    Tasks(TasksArgs),
    Ipc(Box<ipc::IpcArgs>),
    Workers(workers::WorkersArgs),
    Control(control::ControlArgs),
    Scrape(scrape::ScrapeArgs),
    Overhead(overhead::OverheadArgs),
    /// Be a client process of a measurement; started by `ipc` and `workers`.
    #[command(hide = true)]
    Client,
    #[command(hide = true)]
    Carry(overhead::CarryArgs),
}

const TASKS_HELP: &str = "\
Every round measures, in turning order: a bare posix_spawn loop of `true` in two threads, `xargs -d '\\n' -I{} -P2 sh -c
'{}'` on lines of `true`, and this program's `run` on the same lines, from its start to its end. Figures are medians.

Examples:
  mitosis bench tasks
  mitosis bench tasks --json --rounds 9 --tasks 10000";

/// Run no-op tasks through the whole path, beside xargs and a bare spawn loop.
#[derive(Debug, Args)]
#[command(after_help = TASKS_HELP)]
pub(super) struct TasksArgs {
    /// Rounds; figures are medians over them.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Tasks per round and contestant [default: 2000, fewer where that would take more than a minute].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    tasks: Option<u32>,
    /// Worker processes of `run`; the others always run two processes at a time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// What an accepted task of `run` survives: the death of any process, or a power cut.
    #[arg(long, value_name = "process|power", default_value_t)]
    durability: Durability,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

/// What a failed measurement means for the exit code.
fn failed(error: BenchError) -> Failure {
    match error {
        BenchError::Interrupted => Failure::interrupted(error),
        other => Failure::system(other),
    }
}

/// Parses the arguments of this process, measures, and says how the process is to end.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data and end well; a closed stdout is the reader's choice.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
        }
    };
    cli.global.init_logging(Role::Client);
    cli.command.run().unwrap_or_else(|failure| failure.report())
}

impl Instrument {
    fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Tasks(args) => args.run(),
            Self::Ipc(args) => args.run(),
            Self::Workers(args) => args.run(),
            Self::Control(args) => args.run(),
            Self::Scrape(args) => args.run(),
            Self::Overhead(args) => args.run(),
            Self::Carry(args) => args.run(),
            Self::Client => client::serve().or_system().map(|()| Exit::Ok),
        }
    }
}

impl TasksArgs {
    fn run(self) -> Result<Exit, Failure> {
        let plan = Plan {
            rounds: self.rounds,
            tasks: self.tasks,
            workers: self.workers,
            durability: self.durability.to_string(),
        };
        let measurement = tasks::measure(&plan, |number, round| {
            let rate = round.tasks_per_second;
            output::note(&format!("round {number}/{}: run {rate:.0}/s", plan.rounds));
        })
        .or_system()?;
        if self.json {
            output::json(&measurement)?;
        } else {
            output::text(&table(&measurement))?;
        }
        Ok(Exit::Ok)
    }
}

fn table(measurement: &Measurement) -> String {
    let mut text = format!(
        "{} tasks per round, durability {}, {} workers\n",
        measurement.tasks_per_round, measurement.durability, measurement.workers
    );
    text.push_str("  round     run/s   xargs/s   spawn/s  fetch p50  fetch p99  cpu s/1000\n");
    let number = |figure: Option<f64>| {
        figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))
    };
    let micros = |ns: Option<u64>| {
        ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1} us", ns as f64 / 1e3))
    };
    let mut row = |name: &str, rates: [Option<f64>; 3], fetch: [Option<u64>; 2], cpu: f64| {
        let [run, xargs, spawn] = rates.map(number);
        let [p50, p99] = fetch.map(micros);
        let _ = writeln!(
            text,
            "{name:>7} {run:>9} {xargs:>9} {spawn:>9} {p50:>10} {p99:>10} {cpu:>11.3}"
        );
    };
    for (index, round) in measurement.rounds.iter().enumerate() {
        row(
            &(index + 1).to_string(),
            [
                Some(round.tasks_per_second),
                round.xargs_per_second,
                Some(round.spawn_per_second),
            ],
            [round.fetch_p50_ns, round.fetch_p99_ns],
            round.cpu_seconds_per_1000_tasks,
        );
    }
    row(
        "median",
        [
            Some(measurement.tasks_per_second),
            measurement.xargs_per_second,
            Some(measurement.spawn_per_second),
        ],
        [measurement.fetch_p50_ns, measurement.fetch_p99_ns],
        measurement.cpu_seconds_per_1000_tasks,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Round;

    #[test]
    fn the_table_has_a_row_per_round_and_the_medians() {
        let round = Round {
            tasks_per_second: 1000.4,
            xargs_per_second: None,
            spawn_per_second: 2600.0,
            fetch_p50_ns: Some(45_600),
            fetch_p99_ns: None,
            cpu_seconds_per_1000_tasks: 1.5,
        };
        let measurement = Measurement {
            rounds: vec![round],
            tasks_per_round: 10,
            workers: 2,
            durability: "process".to_owned(),
            tasks_per_second: 1000.4,
            xargs_per_second: None,
            spawn_per_second: 2600.0,
            fetch_p50_ns: Some(45_600),
            fetch_p99_ns: None,
            cpu_seconds_per_1000_tasks: 1.5,
        };
        let text = table(&measurement);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[3],
            " median      1000         -      2600    45.6 us          -       1.500"
        );
    }
}
