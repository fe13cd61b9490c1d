//! What a scrape costs: its time, its CPU, and whether it wakes a worker.
//!
//! Coordinator and manager are in this process, as `mitosis up` has them, with real workers that have nothing to do. Windows
//! with scrapes and windows without are measured in turn; how often the kernel put the workers' threads to sleep meanwhile
//! is the number of their wake-ups. The scraper is in this process too, so that CPU per scrape is an upper bound.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::{BenchError, io, part};
use super::host::Host;
use super::interrupt::Interrupt;
use super::up::Up;
use super::workers::{all_cpu, all_ready, children};
use super::{cpu, switches};
use mitosis::client::ApiClient;
use mitosis::coordinator::auth::Scope;
use mitosis::run::summary::{Spread, median};
use mitosis::telemetry::metrics;

/// Time to calm down between the last task and the first window: an idle worker waits up to 5 s at a time.
const SETTLE: Duration = Duration::from_secs(6);
/// Tasks before the first window, for each worker: series that appear with their first event are there then.
const TASKS_PER_WORKER: u32 = 4;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Worker processes.
    pub workers: u16,
    /// Windows of each kind.
    pub rounds: u32,
    /// Length of a window.
    pub window: Duration,
    /// Scrapes in a window with scrapes.
    pub scrapes: u32,
}

/// The figures. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Worker processes.
    pub workers: u16,
    /// Windows of each kind; what is counted in windows is the median over them.
    pub rounds: u32,
    /// Length of a window.
    pub window_seconds: f64,
    /// Scrapes in a window with scrapes.
    pub scrapes: u32,
    /// Time of a scrape, from its request to its last byte.
    pub scrape_p50_ns: u64,
    /// 99th percentile; with fewer than 100 scrapes the largest.
    pub scrape_p99_ns: u64,
    /// Largest.
    pub scrape_max_ns: u64,
    /// CPU time of this process, the scraper included, per scrape.
    pub cpu_seconds_per_scrape: f64,
    /// Wake-ups of all workers in a window without scrapes.
    pub wakeups_quiet: f64,
    /// Wake-ups of all workers in a window with scrapes.
    pub wakeups_scraped: f64,
    /// The difference, per scrape; a scrape that woke every worker would make it the number of workers.
    pub wakeups_per_scrape: f64,
    /// CPU time of all workers in a window without scrapes.
    pub workers_cpu_seconds_quiet: f64,
    /// CPU time of all workers in a window with scrapes.
    pub workers_cpu_seconds_scraped: f64,
    /// Series of a scrape.
    pub series: usize,
    /// Its bytes.
    pub bytes: usize,
    /// The machine.
    pub host: Host,
}

/// What a window cost.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    own_cpu: Duration,
    workers_cpu: Duration,
    wakeups: u64,
}

/// Runs all rounds; `after_round` hears the number of each.
///
/// # Errors
/// When a part does not come up or a scrape fails.
pub fn measure(plan: &Plan, mut after_round: impl FnMut(u32)) -> Result<Measurement, BenchError> {
    let host = Host::look();
    metrics::install().map_err(part("install the recorder"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start a runtime"))?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let up = Up::open(plan.workers).await?;
        let measured = interrupt.or(rounds(&up, plan, &mut after_round)).await;
        up.close().await;
        measured.map(|seen| seen.measurement(plan, host))
    })
}

/// Everything that was seen.
#[derive(Debug, Default)]
struct Seen {
    scrapes: Spread,
    quiet: Vec<Window>,
    scraped: Vec<Window>,
    text: String,
}

async fn rounds(
    up: &Up,
    plan: &Plan,
    after_round: &mut impl FnMut(u32),
) -> Result<Seen, BenchError> {
    all_ready(&up.manager, plan.workers).await?;
    up.run_no_ops(u32::from(plan.workers) * TASKS_PER_WORKER)
        .await?;
    let token = up.coordinator.issue_token(Scope::User, "bench");
    let client = ApiClient::new(up.service.url(), token).map_err(part("make a client"))?;
    let workers = children().map_err(io("list the worker processes"))?;
    let mut seen = Seen {
        // The first one meets cold caches and does not count.
        text: client.metrics().await.map_err(part("scrape"))?,
        ..Seen::default()
    };
    tokio::time::sleep(SETTLE).await;
    for round in 0..plan.rounds {
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                let sleeping = async {
                    tokio::time::sleep(plan.window).await;
                    Ok(())
                };
                seen.quiet.push(Window::of(&workers, sleeping).await?);
            } else {
                let scraping = scrape(&client, plan, &mut seen.scrapes);
                let window = Window::of(&workers, scraping).await?;
                seen.scraped.push(window);
            }
        }
        after_round(round + 1);
    }
    seen.text = client.metrics().await.map_err(part("scrape"))?;
    Ok(seen)
}

/// Scrapes spread evenly over a window.
async fn scrape(client: &ApiClient, plan: &Plan, spread: &mut Spread) -> Result<(), BenchError> {
    let mut ticks = tokio::time::interval(plan.window / plan.scrapes);
    for _ in 0..plan.scrapes {
        ticks.tick().await;
        let began = Instant::now();
        client.metrics().await.map_err(part("scrape"))?;
        spread.add_us(i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX));
    }
    // The last scrape's part of the window.
    ticks.tick().await;
    Ok(())
}

impl Window {
    async fn of(
        workers: &[u32],
        work: impl Future<Output = Result<(), BenchError>>,
    ) -> Result<Self, BenchError> {
        // The workers are looked at outside of this process's time: looking costs it more than they use.
        let workers_before = (all_cpu(workers)?, wakeups(workers)?);
        let own_before = cpu::of_this_process();
        work.await?;
        let own_cpu = cpu::of_this_process().saturating_sub(own_before);
        Ok(Self {
            own_cpu,
            workers_cpu: all_cpu(workers)?.saturating_sub(workers_before.0),
            wakeups: wakeups(workers)?.saturating_sub(workers_before.1),
        })
    }
}

fn wakeups(workers: &[u32]) -> Result<u64, BenchError> {
    let each = workers.iter().map(|pid| switches::of_process(*pid));
    each.sum::<std::io::Result<u64>>()
        .map_err(io("count the wake-ups of a worker"))
}

impl Seen {
    fn measurement(&self, plan: &Plan, host: Host) -> Measurement {
        let of = |windows: &[Window], figure: fn(&Window) -> f64| {
            median(&windows.iter().map(figure).collect::<Vec<_>>())
        };
        let both = |figure| [of(&self.quiet, figure), of(&self.scraped, figure)];
        let per_scrape = |[quiet, scraped]: [f64; 2]| (scraped - quiet) / f64::from(plan.scrapes);
        let own = both(|window| window.own_cpu.as_secs_f64());
        let cpu = both(|window| window.workers_cpu.as_secs_f64());
        let wakeups = both(|window| window.wakeups as f64);
        let time = |share| self.scrapes.quantile_ns(share).unwrap_or(0);
        let is_series = |line: &&str| !line.is_empty() && !line.starts_with('#');
        Measurement {
            workers: plan.workers,
            rounds: plan.rounds,
            window_seconds: plan.window.as_secs_f64(),
            scrapes: plan.scrapes,
            scrape_p50_ns: time(0.5),
            scrape_p99_ns: time(0.99),
            scrape_max_ns: time(1.0),
            cpu_seconds_per_scrape: per_scrape(own),
            wakeups_quiet: wakeups[0],
            wakeups_scraped: wakeups[1],
            wakeups_per_scrape: per_scrape(wakeups),
            workers_cpu_seconds_quiet: cpu[0],
            workers_cpu_seconds_scraped: cpu[1],
            series: self.text.lines().filter(is_series).count(),
            bytes: self.text.len(),
            host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scrape_costs_is_the_difference_of_the_windows() {
        let window = |own_ms, wakeups| Window {
            own_cpu: Duration::from_millis(own_ms),
            workers_cpu: Duration::ZERO,
            wakeups,
        };
        let seen = Seen {
            quiet: vec![window(100, 50), window(120, 52), window(110, 51)],
            scraped: vec![window(210, 61); 3],
            text: "# TYPE a gauge\na 1\n\nb{c=\"d\"} 2\n".to_owned(),
            ..Seen::default()
        };
        let plan = Plan {
            workers: 2,
            rounds: 3,
            window: Duration::from_secs(5),
            scrapes: 10,
        };
        let figures = seen.measurement(&plan, Host::look());
        assert!((figures.cpu_seconds_per_scrape - 0.01).abs() < 1e-9);
        assert!((figures.wakeups_per_scrape - 1.0).abs() < 1e-9);
        assert_eq!((figures.series, figures.wakeups_quiet), (2, 51.0));
    }
}
