//! `mitosis bench overhead`: what recording metrics costs.

use std::fmt::Write as _;

use clap::Args;

use crate::overhead::{Cost, Measurement, Plan, Recorder, carry, measure};
use crate::ratio::Ratio;
use mitosis::cli::failure::Failure;
use mitosis::cli::output;
use mitosis::exit_code::Exit;

const HELP: &str = "\
Each half of a pair is a process with coordinator, manager and workers that runs no-op tasks: with the recorder that `up`
installs, and without one. The halves are measured in turning order. The bound is of the mean ratio at 95 % confidence;
CPU time counts every process of a half from its start to its end.

Examples:
  mitosis bench overhead
  mitosis bench overhead --pairs 4 --tasks 2000 --json";

/// Measure the metrics' overhead: CPU time per task and IPC round trip, with a recorder and without.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct OverheadArgs {
    /// Pairs; a bound takes at least four.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Tasks of each half.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tasks: u32,
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

impl OverheadArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let plan = Plan {
            pairs: self.pairs,
            tasks: self.tasks,
            workers: self.workers,
        };
        let measurement = measure(&plan, |number, pair| {
            let cpu = [pair.installed, pair.absent].map(|half| half.cpu_seconds_per_10000_tasks);
            output::note(&format!(
                "pair {number}/{}: {:.2} and {:.2} CPU s per 10,000 tasks",
                plan.pairs, cpu[0], cpu[1]
            ));
        })
        .map_err(super::failed)?;
        if self.json {
            output::json(&measurement)?;
        } else {
            output::text(&text(&measurement))?;
        }
        Ok(Exit::Ok)
    }
}

/// Be one half of a pair; started by `bench overhead`.
#[derive(Debug, Args)]
pub(crate) struct CarryArgs {
    /// Whether a recorder is installed.
    #[arg(long)]
    recorder: Recorder,
    /// Tasks to run.
    #[arg(long)]
    tasks: u32,
    /// Worker processes.
    #[arg(long)]
    workers: u16,
}

impl CarryArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let said = carry(self.recorder, self.tasks, self.workers).map_err(super::failed)?;
        output::text(&said)?;
        Ok(Exit::Ok)
    }
}

fn text(measurement: &Measurement) -> String {
    let m = measurement;
    let mut text = format!(
        "{} pairs, {} tasks each, {} workers\n",
        m.pairs.len(),
        m.tasks,
        m.workers
    );
    let _ = writeln!(
        text,
        "{:<22} {:>14} {:>12}",
        "", "CPU s/10,000", "fetch p50"
    );
    let costs = [
        ("recorder installed", m.installed),
        ("no recorder", m.absent),
    ];
    for (
        name,
        Cost {
            cpu_seconds_per_10000_tasks: cpu,
            fetch_p50_ns,
        },
    ) in costs
    {
        let fetch = format!("{:.1} us", fetch_p50_ns as f64 / 1e3);
        let _ = writeln!(text, "{name:<22} {cpu:>14.3} {fetch:>12}");
    }
    let bound = |ratio: Ratio| {
        ratio
            .upper_95
            .map_or_else(|| "-".to_owned(), |bound| format!("{bound:.3}"))
    };
    let _ = writeln!(
        text,
        "{:<22} {:>14.3} {:>12.3}",
        "ratio, median", m.cpu.median, m.fetch_p50.median
    );
    let _ = writeln!(
        text,
        "{:<22} {:>14} {:>12}",
        "ratio, 95 % below",
        bound(m.cpu),
        bound(m.fetch_p50)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;
    use crate::overhead::Pair;

    #[test]
    fn both_halves_their_ratio_and_its_bound_have_a_line() {
        let cost = |cpu| Cost {
            cpu_seconds_per_10000_tasks: cpu,
            fetch_p50_ns: 45_600,
        };
        let (installed, absent) = (cost(10.2), cost(10.0));
        let measurement = Measurement {
            pairs: vec![Pair { installed, absent }],
            tasks: 10,
            workers: 2,
            installed,
            absent,
            cpu: Ratio {
                median: 1.02,
                upper_95: Some(1.034),
            },
            fetch_p50: Ratio {
                median: 1.0,
                upper_95: None,
            },
            host: Host::look(),
        };
        let text = text(&measurement);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[2].ends_with("10.200      45.6 us"), "{text}");
        assert!(lines[5].ends_with("1.034            -"), "{text}");
    }
}
