//! `mitosis bench control`: how fast cancels and the deaths of workers take effect.

use std::fmt::Write as _;

use clap::Args;

use crate::control::{Kind, Measurement, Plan, measure};
use mitosis::cli::failure::Failure;
use mitosis::cli::output;
use mitosis::exit_code::Exit;

const HELP: &str = "\
Every round cancels running tasks of three processes (gracefully, at once, and by the command `mitosis cancel`) and waits
for the death of the last process, and kills a worker and waits for the next execution of its task, in turning order.
Coordinator and manager are in this process.

Examples:
  mitosis bench control
  mitosis bench control --rounds 200 --json";

/// Measure control: cancel to the last process dead, worker killed to its task re-dispatched.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ControlArgs {
    /// Samples of each kind.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Worker processes; with one, the task of a killed worker waits for the next life of its worker.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

impl ControlArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let plan = Plan {
            rounds: self.rounds,
            workers: self.workers,
        };
        let measurement = measure(&plan, |round| {
            if round % 10 == 0 {
                output::note(&format!("round {round}/{}", plan.rounds));
            }
        })
        .map_err(super::failed)?;
        if self.json {
            output::json(&measurement)?;
        } else {
            output::text(&table(&measurement))?;
        }
        Ok(Exit::Ok)
    }
}

fn table(measurement: &Measurement) -> String {
    let Measurement {
        rounds, workers, ..
    } = measurement;
    let mut text = format!("{rounds} rounds, {workers} workers\n");
    let _ = writeln!(text, "{:<48} {:>9} {:>9} {:>9}", "", "p50", "p99", "max");
    for result in &measurement.results {
        let [p50, p99, max] = [result.p50_ns, result.p99_ns, result.max_ns]
            .map(|ns| format!("{:.2} ms", ns as f64 / 1e6));
        let name = match result.kind {
            Kind::Cancel => "cancel (TERM) to last process dead",
            Kind::CancelNow => "cancel --now (KILL) to last process dead",
            Kind::CancelCommand => "command `mitosis cancel` to last process dead",
            Kind::Redispatch => "worker killed to its task executed again",
        };
        let _ = writeln!(text, "{name:<48} {p50:>9} {p99:>9} {max:>9}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;
    use crate::control::Figures;

    #[test]
    fn every_kind_has_a_line_in_milliseconds() {
        let measurement = Measurement {
            rounds: 7,
            workers: 2,
            results: vec![Figures {
                kind: Kind::Redispatch,
                p50_ns: 1_500_000,
                p99_ns: 20_000_000,
                max_ns: 99_990_000,
            }],
            host: Host::look(),
        };
        let text = table(&measurement);
        assert!(text.starts_with("7 rounds, 2 workers\n"), "{text}");
        let line = text.lines().last().unwrap();
        assert!(line.ends_with("1.50 ms  20.00 ms  99.99 ms"), "{line}");
    }
}
