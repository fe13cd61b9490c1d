//! How long tasks take, by what they are: what is expected of the next one. Pure.
//!
//! Owned by the reactor. Tasks are of one kind when suite and program are the same; a moving average follows changes within
//! a few tasks. What was never seen is expected to take for ever, so that it is handed out by itself.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use uuid::Uuid;

use crate::protocol::task::TaskSpec;

/// Kinds that are remembered; beyond that everything is learned anew.
const MOST_KINDS: usize = 1024;
/// Part of the average that the newest task has.
const WEIGHT: f64 = 0.25;

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    seconds: HashMap<u64, f64>,
}

/// A number for everything that is expected to take alike.
fn kind(suite: Uuid, spec: &TaskSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    suite.hash(&mut hasher);
    let line = spec.args.last().map_or("", String::as_str);
    let program = match &spec.shell {
        true => line.split_ascii_whitespace().next(),
        false => spec.args.first().map(String::as_str),
    };
    program.hash(&mut hasher);
    hasher.finish()
}

impl Durations {
    /// How long a task is expected to take.
    pub(crate) fn expected(&self, suite: Uuid, spec: &TaskSpec) -> Duration {
        let seconds = self.seconds.get(&kind(suite, spec));
        seconds.map_or(Duration::MAX, |seconds| Duration::from_secs_f64(*seconds))
    }

    /// A task took so long.
    pub(crate) fn learn(&mut self, suite: Uuid, spec: &TaskSpec, took: Duration) {
        if self.seconds.len() >= MOST_KINDS {
            self.seconds.clear();
        }
        let took = took.as_secs_f64();
        let average = self.seconds.entry(kind(suite, spec)).or_insert(took);
        *average += WEIGHT * (took - *average);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_one_program_and_suite_are_expected_to_take_alike() {
        let mut durations = Durations::default();
        let (sleep, copy) = (
            TaskSpec::argv(["sleep", "1"]),
            TaskSpec::shell_line("cp a b"),
        );
        let suite = Uuid::from_u128(1);
        assert_eq!(durations.expected(suite, &sleep), Duration::MAX);
        durations.learn(suite, &sleep, Duration::from_secs(1));
        durations.learn(suite, &copy, Duration::from_millis(2));
        let other = TaskSpec::argv(["sleep", "9"]);
        assert_eq!(durations.expected(suite, &other), Duration::from_secs(1));
        let copies = TaskSpec::shell_line("cp  c d");
        assert_eq!(durations.expected(suite, &copies), Duration::from_millis(2));
        assert_eq!(durations.expected(Uuid::nil(), &sleep), Duration::MAX);
    }

    #[test]
    fn the_average_follows_a_change() {
        let mut durations = Durations::default();
        let task = TaskSpec::argv(["a"]);
        durations.learn(Uuid::nil(), &task, Duration::from_secs(1));
        for _ in 0..20 {
            durations.learn(Uuid::nil(), &task, Duration::from_millis(1));
        }
        assert!(durations.expected(Uuid::nil(), &task) < Duration::from_millis(10));
    }
}
