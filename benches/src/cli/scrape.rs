//! `mitosis bench scrape`: what a scrape of a machine with many workers costs.

use std::time::Duration;

use clap::Args;

use crate::scrape::{Measurement, Plan, measure};
use mitosis::cli::failure::Failure;
use mitosis::cli::output;
use mitosis::cli::table::{fields, size};
use mitosis::exit_code::Exit;

const HELP: &str = "\
Windows with scrapes and windows without are measured in turn, over workers that have nothing to do. Wake-ups are what the
kernel counts for all threads of all workers. Coordinator, manager and scraper are in this process.

Examples:
  mitosis bench scrape
  mitosis bench scrape --workers 16 --rounds 1 --window 2 --json";

/// Measure scrapes of /metrics: time, CPU, and wake-ups of workers.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ScrapeArgs {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Windows of each kind; figures are medians over them.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a window in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    window: u32,
    /// Scrapes in a window with scrapes.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scrapes: u32,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

impl ScrapeArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let plan = Plan {
            workers: self.workers,
            rounds: self.rounds,
            window: Duration::from_secs(self.window.into()),
            scrapes: self.scrapes,
        };
        let measurement = measure(&plan, |round| {
            output::note(&format!("round {round}/{}", plan.rounds));
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
    let millis = |ns: u64| format!("{:.2} ms", ns as f64 / 1e6);
    let pair = |quiet: f64, scraped: f64, unit: &str| {
        let window = m.window_seconds;
        Some(format!(
            "{quiet:.0}{unit} in {window:.0} s, {scraped:.0}{unit} with {} scrapes",
            m.scrapes
        ))
    };
    let [p50, p99, max] = [m.scrape_p50_ns, m.scrape_p99_ns, m.scrape_max_ns].map(millis);
    fields(&[
        ("workers", Some(m.workers.to_string())),
        (
            "scrape",
            Some(format!("p50 {p50}, p99 {p99}, largest {max}")),
        ),
        (
            "CPU per scrape",
            Some(format!("{:.2} ms", m.cpu_seconds_per_scrape * 1e3)),
        ),
        (
            "wake-ups of workers",
            pair(m.wakeups_quiet, m.wakeups_scraped, ""),
        ),
        (
            "more per scrape",
            Some(format!("{:.2}", m.wakeups_per_scrape)),
        ),
        (
            "CPU of workers",
            pair(
                m.workers_cpu_seconds_quiet * 1e3,
                m.workers_cpu_seconds_scraped * 1e3,
                " ms",
            ),
        ),
        (
            "text",
            Some(format!("{} series, {}", m.series, size(m.bytes as u64))),
        ),
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
            rounds: 5,
            window_seconds: 5.0,
            scrapes: 20,
            scrape_p50_ns: 9_500_000,
            scrape_p99_ns: 12_000_000,
            scrape_max_ns: 12_340_000,
            cpu_seconds_per_scrape: 0.0071,
            wakeups_quiet: 260.0,
            wakeups_scraped: 262.0,
            wakeups_per_scrape: 0.1,
            workers_cpu_seconds_quiet: 0.02,
            workers_cpu_seconds_scraped: 0.021,
            series: 2800,
            bytes: 200 << 10,
            host: Host::look(),
        };
        let text = text(&measurement);
        for words in [
            "p50 9.50 ms, p99 12.00 ms, largest 12.34 ms",
            "7.10 ms",
            "260 in 5 s, 262 with 20 scrapes",
            "2800 series, 200.0 KiB",
        ] {
            assert!(text.contains(words), "{words} in:\n{text}");
        }
    }
}
