//! `mitosis bench workers`: what idle workers cost and how long they take to come up.

use std::time::Duration;

use clap::Args;
use mitosis_bridge::PollConfig;

use crate::workers::{Measurement, Plan, measure};
use mitosis::cli::failure::Failure;
use mitosis::cli::output;
use mitosis::cli::table::{fields, size};
use mitosis::exit_code::Exit;

const HELP: &str = "\
Every round starts a manager with its real workers, and as many processes that only open a worker's ports, in turning
order. After the first start the workers are watched while they have nothing to do. Manager and coordinator are in this
process.

Examples:
  mitosis bench workers
  mitosis bench workers --workers 64 --idle 5 --json";

/// Measure idle workers with their manager: CPU, memory, and the time until all are ready.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct WorkersArgs {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Starts of each kind; start times are medians over them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long idle workers are watched, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle: u32,
    /// How pollers wait: busy, adaptive, adaptive:<spin>, interval:<pause> or event.
    #[arg(long, value_name = "STRATEGY", default_value_t)]
    poll: PollConfig,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

impl WorkersArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let plan = Plan {
            workers: self.workers,
            rounds: self.rounds,
            idle: Duration::from_secs(self.idle.into()),
            poll: self.poll,
        };
        let measurement = measure(&plan, |round, ready, bare| {
            let (ready, bare) = (ready.as_secs_f64(), bare.as_secs_f64());
            output::note(&format!(
                "round {round}/{}: ready in {ready:.2} s, bare ports in {bare:.2} s",
                plan.rounds
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

fn text(measurement: &Measurement) -> String {
    let m = measurement;
    let seconds = |seconds: f64| Some(format!("{seconds:.2} s"));
    let share = |cpu: f64| {
        Some(format!(
            "{:.2} % of one core over {:.0} s",
            cpu * 100.0,
            m.idle_seconds
        ))
    };
    fields(&[
        ("workers", Some(format!("{}, {}", m.workers, m.poll))),
        ("all ready", seconds(m.ready_seconds)),
        ("bare ports", seconds(m.baseline_seconds)),
        ("ratio", Some(format!("{:.2}", m.ready_over_baseline))),
        ("idle CPU, all", share(m.idle_cpu)),
        ("idle CPU, workers", share(m.idle_workers_cpu)),
        (
            "PSS per worker",
            Some(format!(
                "{} (largest {})",
                size(m.worker_pss_bytes),
                size(m.worker_pss_max_bytes)
            )),
        ),
        ("PSS of the manager", Some(size(m.manager_pss_bytes))),
        ("shared memory", Some(size(m.shared_memory_bytes))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    #[test]
    fn every_figure_has_a_line_with_its_unit() {
        let measurement = Measurement {
            workers: 256,
            poll: "event".to_owned(),
            rounds: 3,
            ready_seconds: 2.5,
            baseline_seconds: 2.0,
            ready_over_baseline: 1.25,
            idle_seconds: 30.0,
            idle_cpu: 0.0071,
            idle_workers_cpu: 0.0044,
            worker_pss_bytes: 3 << 20,
            worker_pss_max_bytes: 4 << 20,
            manager_pss_bytes: 60 << 20,
            shared_memory_bytes: 100 << 20,
            host: Host::look(),
        };
        let text = text(&measurement);
        for words in [
            "2.50 s",
            "1.25",
            "0.71 % of one core over 30 s",
            "3.0 MiB (largest 4.0 MiB)",
        ] {
            assert!(text.contains(words), "{words} in:\n{text}");
        }
    }
}
