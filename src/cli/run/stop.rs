//! Arguments of `run` about how much runs at a time, and when the run ends before its tasks have.

use std::num::NonZeroU16;

use clap::Args;

use crate::run::halt::Halt;
use crate::run::options::default_workers;

/// How much at a time, and until when.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Control")]
pub(super) struct StopArgs {
    /// Worker processes, that is, tasks at a time [default: usable cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// At most N tasks at a time, however many workers there could be.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    /// After the first failed task cancel all others; the same as --halt now,fail=1.
    #[arg(long, conflicts_with = "halt")]
    fail_fast: bool,
    /// When to cancel the rest: now|soon,fail|success|done=N or N% of all tasks; soon lets running tasks end.
    #[arg(long, value_name = "WHEN,WHAT=N|N%")]
    halt: Option<Halt>,
}

impl StopArgs {
    /// Workers for tasks of which an array may allow only some at a time: a worker runs one, and workers beyond that
    /// would only be idle.
    pub(super) fn workers(&self, array_limit: Option<NonZeroU16>) -> u16 {
        let most = self.max_parallel.unwrap_or(u32::MAX);
        self.of_array(array_limit)
            .unwrap_or_else(default_workers)
            .min(u16::try_from(most).unwrap_or(u16::MAX))
    }

    /// Workers, if a number is asked for, by an option or by an array.
    fn of_array(&self, limit: Option<NonZeroU16>) -> Option<u16> {
        match limit {
            Some(limit) => Some(
                self.workers
                    .unwrap_or_else(default_workers)
                    .min(limit.get()),
            ),
            None => self.workers,
        }
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
            ("--halt", self.halt.map(|halt| halt.to_string())),
        ];
        let values = values
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let fail_fast = self.fail_fast.then(|| "--fail-fast".to_owned());
        values.flatten().chain(fail_fast).collect()
    }
}
