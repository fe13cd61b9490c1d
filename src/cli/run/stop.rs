//! Arguments of `run` about how much runs at a time, and when the run ends before its tasks have.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use clap::Args;
use mitosis_bridge::ids::MAX_WORKERS;

use crate::protocol::HumanDuration;
use crate::run::halt::Halt;
use crate::run::options::default_workers;

/// How many tasks at a time, as GNU parallel and xargs write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jobs {
    Exactly(u16),
    /// A share of the usable cores.
    Percent(u32),
    /// More or fewer than the usable cores.
    Beside(i32),
}

impl Jobs {
    /// The number, where so many are usable.
    fn of_cores(self, cores: u16) -> u16 {
        let number = match self {
            Self::Exactly(number) => i64::from(number),
            Self::Percent(percent) => (i64::from(cores) * i64::from(percent) + 50) / 100,
            Self::Beside(more) => i64::from(cores) + i64::from(more),
        };
        u16::try_from(number.clamp(1, MAX_WORKERS.into())).unwrap_or(MAX_WORKERS)
    }

    fn number(self) -> u16 {
        match self {
            Self::Exactly(number) => number,
            of_cores => of_cores.of_cores(default_workers()),
        }
    }
}

impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "write how many tasks at a time, 1 to {MAX_WORKERS}, or relative to the usable cores as 150%, +2 or -1"
            )
        };
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().map(Self::Percent).map_err(|_| refused());
        }
        if text.starts_with(['+', '-']) {
            return text.parse().map(Self::Beside).map_err(|_| refused());
        }
        match text.parse() {
            Ok(0) => Err(format!(
                "each task at a time is a process of its own here, so there is no `as many as possible`; write 1 to \
                 {MAX_WORKERS}, or leave it out for one per usable core"
            )),
            Ok(number) if number <= MAX_WORKERS => Ok(Self::Exactly(number)),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => number.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Beside(more) => write!(f, "{more:+}"),
        }
    }
}

/// How much at a time, and until when.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Control")]
pub(super) struct StopArgs {
    /// Worker processes, that is, tasks at a time [default: usable cores]; also 150% of the cores, +2 or -1.
    #[arg(short, long, value_name = "N", visible_short_aliases = ['j', 'P'], visible_aliases = ["jobs", "max-procs"],
        allow_hyphen_values = true)]
    workers: Option<Jobs>,
    /// At most N tasks at a time, however many workers there could be.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    /// Let at least this time pass between the beginnings of two tasks (e.g. 0.5, 2s).
    #[arg(long, value_name = "DURATION")]
    delay: Option<HumanDuration>,
    /// After the first failed task cancel all others; the same as --halt now,fail=1.
    #[arg(long, conflicts_with = "halt")]
    fail_fast: bool,
    /// When to cancel the rest: now|soon,fail|success|done=N or N% of all tasks; soon lets running tasks end.
    #[arg(long, alias = "halt-on-error", value_name = "WHEN,WHAT=N|N%")]
    halt: Option<Halt>,
}

impl StopArgs {
    /// Workers for tasks of which an array may allow only some at a time: a worker runs one, and workers beyond that
    /// would only be idle.
    pub(super) fn workers(&self, array_limit: Option<NonZeroU16>) -> u16 {
        let most = self.max_parallel.unwrap_or(u32::MAX);
        self.of_array(array_limit)
            .map_or_else(default_workers, Jobs::number)
            .min(u16::try_from(most).unwrap_or(u16::MAX))
    }

    /// Workers, if a number is asked for, by an option or by an array.
    fn of_array(&self, limit: Option<NonZeroU16>) -> Option<Jobs> {
        match limit {
            Some(limit) => {
                let workers = self.workers.map_or_else(default_workers, Jobs::number);
                Some(Jobs::Exactly(workers.min(limit.get())))
            }
            None => self.workers,
        }
    }

    pub(super) fn delay(&self) -> Option<HumanDuration> {
        self.delay.filter(|delay| !delay.0.is_zero())
    }

    pub(super) fn halt(&self) -> Option<Halt> {
        match self.fail_fast {
            true => Some(Halt::FAIL_FAST),
            false => self.halt,
        }
    }

    /// What a resuming command line repeats.
    pub(super) fn words(&self, array_limit: Option<NonZeroU16>) -> Vec<String> {
        let workers = self.of_array(array_limit);
        let values = [
            ("--workers", workers.map(|workers| workers.to_string())),
            (
                "--max-parallel",
                self.max_parallel.map(|most| most.to_string()),
            ),
            ("--delay", self.delay().map(|delay| delay.to_string())),
            ("--halt", self.halt.map(|halt| halt.to_string())),
        ];
        let values = values
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let fail_fast = self.fail_fast.then(|| "--fail-fast".to_owned());
        values.flatten().chain(fail_fast).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(text: &str) -> Result<Jobs, String> {
        text.parse()
    }

    #[test]
    fn tasks_at_a_time_are_a_number_or_relative_to_the_cores() {
        for (text, of_four) in [
            ("3", 3),
            ("50%", 2),
            ("200%", 8),
            ("+2", 6),
            ("-1", 3),
            ("-9", 1),
            ("9999%", 256),
        ] {
            let jobs = jobs(text).unwrap();
            assert_eq!(jobs.of_cores(4), of_four, "{text}");
            assert_eq!(jobs.to_string(), text);
        }
    }

    #[test]
    fn no_number_is_refused_with_what_to_write() {
        assert!(jobs("0").unwrap_err().contains("leave it out"));
        for text in ["", "257", "x", "%", "+", "1.5"] {
            assert!(jobs(text).unwrap_err().contains("1 to 256"), "{text}");
        }
    }
}
