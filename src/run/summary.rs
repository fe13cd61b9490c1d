//! The figures at the end of a run: for people on stderr, for programs as one JSON object on stdout.
//!
//! The JSON keys are a contract, listed in the README and pinned by a test. Pure: numbers in, text out.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::ledger::{Counts, Ledger, Place};
use super::options::RunOptions;
use crate::protocol::api::TaskEnd;
use crate::protocol::byte_text;

/// Samples of a duration.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    samples_us: Vec<u64>,
}

impl Spread {
    /// Adds one, in microseconds; a clock that was set back counts as 0.
    pub fn add_us(&mut self, us: i64) {
        self.samples_us.push(u64::try_from(us).unwrap_or(0));
    }

    /// The sample below or at which a share of the samples lies (nearest rank), in nanoseconds. `None` without
    /// samples.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let mut samples = self.samples_us.clone();
        let rank = rank(samples.len(), share)?;
        let (_, sample, _) = samples.select_nth_unstable(rank);
        Some(sample.saturating_mul(1000))
    }
}

/// Index of the nearest rank among `len` samples.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product lies between 0 and the length of a vector"
)]
fn rank(len: usize, share: f64) -> Option<usize> {
    let last = len.checked_sub(1)?;
    let nearest = (share.clamp(0.0, 1.0) * len as f64).ceil() as usize;
    Some(nearest.saturating_sub(1).min(last))
}

/// The median of some figures; 0 without any.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (len, half) if len % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
        (_, half) => sorted[half],
    }
}

/// One failed task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its line in the input.
    pub line: u64,
    /// Its name.
    pub uuid: Uuid,
    /// Why it failed.
    pub reason: String,
    /// Exit code, if it exited.
    pub exit_code: Option<i32>,
    /// Signal number, if one ended it.
    pub signal: Option<i32>,
}

impl Failure {
    /// The failure that `end` tells of.
    #[must_use]
    pub fn of(line: u64, end: &TaskEnd) -> Self {
        Self {
            line,
            uuid: end.uuid,
            reason: end.result.reason.as_str().to_owned(),
            exit_code: end.result.exit_code,
            signal: end.result.signal,
        }
    }
}

/// Everything that is told at the end. Field names are the JSON keys; a figure without samples is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Tasks by state.
    pub tasks: Counts,
    /// Executions begun in this run, repetitions included.
    pub attempts: u64,
    /// From the first look at the input to the last end.
    pub wall_seconds: f64,
    /// Tasks ended in this run per second.
    pub tasks_per_second: f64,
    /// Median round trip of a worker's fetch over shared memory, parked time excluded where the manager had work.
    pub fetch_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub fetch_p99_ns: Option<u64>,
    /// Median time from acceptance to the beginning of the execution.
    pub queue_wait_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub queue_wait_p99_ns: Option<u64>,
    /// Median run time.
    pub run_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub run_p99_ns: Option<u64>,
    /// Worker processes.
    pub workers: u16,
    /// Share of the workers' time in which tasks ran, from 0 to 1; `null` when nothing ran.
    pub workers_busy: Option<f64>,
    /// Median time from the hand-over of a task to a worker until its execution has begun.
    pub start_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub start_p99_ns: Option<u64>,
    /// `process` or `power`.
    pub durability: String,
    /// True when a signal ended the run before its tasks had ended.
    pub interrupted: bool,
    /// Where the tasks are kept; `null` when the directory was removed after full success.
    #[serde(serialize_with = "byte_text::optional_path::serialize")]
    pub state_dir: Option<PathBuf>,
    /// The first 100 failures.
    pub failures: Vec<Failure>,
    /// The first tasks that took more than one attempt: line and attempts.
    #[serde(skip)]
    pub retried: Vec<(Place, u32)>,
    /// Tasks that failed in this run.
    #[serde(skip)]
    pub failed_now: u64,
}

/// What the manager knows at the end of a run. All zero when none was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Executions begun.
    pub executions: u64,
    /// Median round trip of a fetch.
    pub fetch_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub fetch_p99_ns: Option<u64>,
    /// Median time from hand-over to execution.
    pub start_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub start_p99_ns: Option<u64>,
    /// Time that all executions took together.
    pub busy: Duration,
    /// How long there was somebody to execute.
    pub served: Duration,
}

impl Figures {
    fn busy_share(&self, workers: u16) -> Option<f64> {
        let available = self.served.as_secs_f64() * f64::from(workers);
        let ran = self.executions > 0 && available > 0.0;
        ran.then(|| (self.busy.as_secs_f64() / available).min(1.0))
    }
}

impl Summary {
    /// Sums up.
    #[must_use]
    pub fn of(
        ledger: &Ledger,
        figures: Figures,
        wall: Duration,
        options: &RunOptions,
        state_dir: Option<PathBuf>,
    ) -> Self {
        let tasks = ledger.counts();
        let ended_now = tasks.total - tasks.unfinished - tasks.earlier;
        let wall_seconds = wall.as_secs_f64();
        Self {
            tasks,
            attempts: figures.executions,
            wall_seconds,
            tasks_per_second: ended_now as f64 / wall_seconds.max(f64::MIN_POSITIVE),
            fetch_p50_ns: figures.fetch_p50_ns,
            fetch_p99_ns: figures.fetch_p99_ns,
            queue_wait_p50_ns: ledger.queue_wait().quantile_ns(0.5),
            queue_wait_p99_ns: ledger.queue_wait().quantile_ns(0.99),
            run_p50_ns: ledger.run_time().quantile_ns(0.5),
            run_p99_ns: ledger.run_time().quantile_ns(0.99),
            workers: options.workers,
            workers_busy: figures.busy_share(options.workers),
            start_p50_ns: figures.start_p50_ns,
            start_p99_ns: figures.start_p99_ns,
            durability: options.durability.to_string(),
            interrupted: tasks.unfinished > 0,
            state_dir,
            failures: ledger.failures().to_vec(),
            retried: ledger.retried().to_vec(),
            failed_now: ledger.tally().failed,
        }
    }

    /// How many tasks ended how.
    #[must_use]
    pub fn counts_in_words(&self) -> String {
        let counts = self.tasks;
        let tasks = plural(counts.total, "task");
        let mut words = format!("{tasks}: {} completed", counts.completed);
        for (count, word) in [
            (counts.failed, "failed"),
            (counts.cancelled, "cancelled"),
            (counts.skipped, "skipped"),
            (counts.unfinished, "not finished"),
        ] {
            if count > 0 {
                words.push_str(&format!(", {count} {word}"));
            }
        }
        if counts.follow_ups > 0 {
            let follow_ups = plural(counts.follow_ups, "follow-up");
            words.push_str(&format!(" ({follow_ups} among them)"));
        }
        if counts.retried > 0 {
            words.push_str(&format!(", {}", self.retried_in_words()));
        }
        if counts.earlier > 0 {
            words.push_str(&format!(" ({} of them in an earlier run)", counts.earlier));
        }
        words
    }

    /// `2 retried (line 3, line 7: 3 attempts)`.
    fn retried_in_words(&self) -> String {
        let named = self.retried.iter().map(|(place, attempts)| match attempts {
            2 => format!("line {place}"),
            more => format!("line {place}: {more} attempts"),
        });
        let mut named: Vec<String> = named.collect();
        if self.tasks.retried > named.len() as u64 {
            named.push("…".to_owned());
        }
        format!("{} retried ({})", self.tasks.retried, named.join(", "))
    }

    /// How long the parts of a task's way took, for whoever measures.
    #[must_use]
    pub fn spans_in_words(&self) -> Option<String> {
        let pairs = [
            ("fetch", self.fetch_p50_ns, self.fetch_p99_ns),
            ("start", self.start_p50_ns, self.start_p99_ns),
            ("queue wait", self.queue_wait_p50_ns, self.queue_wait_p99_ns),
            ("run time", self.run_p50_ns, self.run_p99_ns),
        ];
        let spans = pairs.into_iter().filter_map(|(what, p50, p99)| {
            let [p50, p99] = [p50?, p99?].map(|ns| span(Duration::from_nanos(ns)));
            Some(format!("{what} {p50}/{p99}"))
        });
        let spans: Vec<String> = spans.collect();
        (!spans.is_empty()).then(|| format!("p50/p99: {}", spans.join(", ")))
    }

    fn workers_in_words(&self) -> String {
        let workers = plural(u64::from(self.workers), "worker");
        match self.workers_busy {
            Some(share) => format!("{workers} {:.0}% busy", share * 100.0),
            None => workers,
        }
    }

    /// How fast it went, for a terminal.
    #[must_use]
    pub fn pace_in_words(&self) -> String {
        let rate = self.tasks_per_second;
        format!("{rate:.1} tasks/s, {}", self.workers_in_words())
    }

    /// How fast tasks began, for a terminal.
    #[must_use]
    pub fn start_in_words(&self) -> Option<String> {
        let [p50, p99] = [self.start_p50_ns?, self.start_p99_ns?];
        let [p50, p99] = [p50, p99].map(|ns| span(Duration::from_nanos(ns)));
        Some(format!("start p50 {p50}, p99 {p99}"))
    }
}

impl fmt::Display for Summary {
    /// One line for people, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = span(Duration::from_secs_f64(self.wall_seconds));
        let rate = self.tasks_per_second;
        write!(
            f,
            "{} in {wall} ({rate:.0} tasks/s, ",
            self.counts_in_words()
        )?;
        write!(f, "{})", self.workers_in_words())?;
        Ok(())
    }
}

/// A count with its noun.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A duration as people read it: three significant digits, one unit up to two minutes.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 120.0 {
        return humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    }
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A run of three tasks of which one failed.
    pub(crate) fn summary() -> Summary {
        Summary {
            tasks: Counts {
                total: 3,
                completed: 2,
                failed: 1,
                ..Counts::default()
            },
            attempts: 3,
            wall_seconds: 1.5,
            tasks_per_second: 2.0,
            fetch_p50_ns: Some(45_000),
            fetch_p99_ns: Some(310_000),
            queue_wait_p50_ns: None,
            queue_wait_p99_ns: None,
            run_p50_ns: Some(1_000_000),
            run_p99_ns: Some(2_000_000_000),
            workers: 2,
            workers_busy: Some(0.874),
            start_p50_ns: None,
            start_p99_ns: None,
            durability: "process".to_owned(),
            interrupted: false,
            state_dir: Some("/tmp/x".into()),
            failures: Vec::new(),
            retried: Vec::new(),
            failed_now: 1,
        }
    }

    #[test]
    fn the_keys_of_the_json_form_are_a_contract() {
        let value = serde_json::to_value(summary()).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys.join(" "),
            "attempts durability failures fetch_p50_ns fetch_p99_ns interrupted queue_wait_p50_ns queue_wait_p99_ns \
             run_p50_ns run_p99_ns start_p50_ns start_p99_ns state_dir tasks tasks_per_second wall_seconds workers \
             workers_busy"
        );
        let keys: Vec<_> = value["tasks"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            keys.join(" "),
            "cancelled completed earlier failed follow_ups retried skipped total unfinished"
        );
        assert!(value["queue_wait_p50_ns"].is_null());
    }

    #[test]
    fn people_read_only_what_happened() {
        assert_eq!(
            summary().to_string(),
            "3 tasks: 2 completed, 1 failed in 1.50 s (2 tasks/s, 2 workers 87% busy)"
        );
        assert_eq!(
            summary().spans_in_words().unwrap(),
            "p50/p99: fetch 45.0 us/310 us, run time 1.00 ms/2.00 s"
        );
        let mut summary = summary();
        summary.tasks.retried = 12;
        summary.retried = vec![(Place::line(3), 2), (Place::line(7), 4)];
        let words = summary.counts_in_words();
        assert!(
            words.ends_with("12 retried (line 3, line 7: 4 attempts, …)"),
            "{words}"
        );
    }

    #[test]
    fn spans_have_three_digits() {
        let text = |us| span(Duration::from_micros(us));
        assert_eq!(
            [0, 1234, 999_999, 65_000_000, 3_725_000_000].map(text),
            ["0.00 us", "1.23 ms", "1000 ms", "65.0 s", "1h 2m 5s"]
        );
    }

    #[test]
    fn a_median_is_between_the_middle_two() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn without_samples_there_is_no_quantile() {
        assert_eq!(Spread::default().quantile_ns(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_a_sample_with_its_share_at_or_below(
            samples in proptest::collection::vec(0i64..1000, 1..200), percent in 0u32..=100
        ) {
            let mut spread = Spread::default();
            samples.iter().for_each(|sample| spread.add_us(*sample));
            let share = f64::from(percent) / 100.0;
            let quantile = i64::try_from(spread.quantile_ns(share).unwrap() / 1000).unwrap();
            prop_assert!(samples.contains(&quantile));
            let below = samples.iter().filter(|sample| **sample <= quantile).count();
            prop_assert!(below as f64 >= share * samples.len() as f64);
        }
    }
}
