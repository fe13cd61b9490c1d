//! What the end of a task means for those that wait for it.
//!
//! | waits for | completed | failed | cancelled |
//! |---|---|---|---|
//! | `ok` | met | failed | cancelled |
//! | `any` | met | met | met |
//! | `failed` | cancelled: not needed | met | cancelled |
//!
//! A task whose wait can never be met ends without being run, with the reason `upstream_failed`; its own end counts for
//! those that wait for it, and so on. [`follow`] goes through a whole graph at once, so that an implementation reads
//! edges and writes records as sets. The first upstream task that ended wrong decides how a task ends.

use std::collections::{BTreeMap, HashMap, VecDeque};

use uuid::Uuid;

use super::{Effects, Record};
use crate::protocol::report::Reason;
use crate::protocol::upstream::UpstreamEnd;
use crate::protocol::{Outcome, TaskResult, TaskState};

/// One task that waits for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Row id of the task waited for.
    pub upstream: i64,
    /// Its name for people: the `id` it was named by, else its uuid.
    pub name: String,
    /// Row id of the task that waits.
    pub task: i64,
    /// The end it waits for.
    pub wanted: UpstreamEnd,
}

impl Edge {
    /// The name for people.
    #[must_use]
    pub fn name(id: Option<String>, uuid: Uuid) -> String {
        id.map_or_else(|| uuid.to_string(), |id| format!("`{id}`"))
    }
}

/// What follows for tasks that wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// How many of its waits are met, by row id.
    pub met: BTreeMap<i64, u32>,
    /// Tasks that will never be run, by row id.
    pub doomed: BTreeMap<i64, Doom>,
}

/// Why a task will never be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doom {
    /// How it ends.
    pub outcome: Outcome,
    /// Why, in words.
    pub words: String,
}

/// How a task ends whose upstream task ended so; `None` when that is what it waited for.
#[must_use]
pub fn doom_of(wanted: UpstreamEnd, upstream: Outcome) -> Option<Outcome> {
    match (wanted, upstream) {
        (UpstreamEnd::Any, _)
        | (UpstreamEnd::Ok, Outcome::Completed)
        | (UpstreamEnd::Failed, Outcome::Failed) => None,
        (UpstreamEnd::Ok, Outcome::Failed) => Some(Outcome::Failed),
        (UpstreamEnd::Ok | UpstreamEnd::Failed, Outcome::Cancelled)
        | (UpstreamEnd::Failed, Outcome::Completed) => Some(Outcome::Cancelled),
    }
}

/// Goes from ends along the edges of tasks that wait, until nothing more follows. Edges that are not reached are fine.
#[must_use]
pub fn follow(ended: impl IntoIterator<Item = (i64, Outcome)>, edges: &[Edge]) -> Followed {
    let mut from: HashMap<i64, Vec<&Edge>> = HashMap::new();
    for edge in edges {
        from.entry(edge.upstream).or_default().push(edge);
    }
    let mut followed = Followed::default();
    let mut queue: VecDeque<(i64, Outcome)> = ended.into_iter().collect();
    while let Some((upstream, outcome)) = queue.pop_front() {
        for edge in from.remove(&upstream).unwrap_or_default() {
            if followed.doomed.contains_key(&edge.task) {
                continue;
            }
            match doom_of(edge.wanted, outcome) {
                None => *followed.met.entry(edge.task).or_default() += 1,
                Some(end) => {
                    followed.met.remove(&edge.task);
                    let words = words(edge, outcome);
                    followed.doomed.insert(
                        edge.task,
                        Doom {
                            outcome: end,
                            words,
                        },
                    );
                    queue.push_back((edge.task, end));
                }
            }
        }
    }
    followed
}

fn words(edge: &Edge, upstream: Outcome) -> String {
    let end = match upstream {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "was cancelled",
    };
    let need = match (edge.wanted, upstream) {
        (UpstreamEnd::Failed, Outcome::Completed) => "not needed",
        _ => "not run",
    };
    format!("{need}: its upstream task {} {end}", edge.name)
}

impl Record {
    /// Some of the task's waits are met; with the last one it may be claimed.
    pub fn upstream_met(&mut self, waits: u32, now_us: i64) {
        if self.state != TaskState::Pending || self.waits == 0 {
            return;
        }
        self.waits = self.waits.saturating_sub(waits);
        if self.waits == 0 {
            self.state = TaskState::Ready;
            self.queued_us = now_us;
        }
    }

    /// A wait of the task can never be met.
    pub fn upstream_lost(&mut self, doom: Doom, now_us: i64, fx: &mut Effects) {
        if self.state != TaskState::Pending || self.waits == 0 {
            return;
        }
        let result = TaskResult::not_started(Reason::UpstreamFailed, doom.words, now_us);
        self.end(doom.outcome, result, now_us, fx);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edge(upstream: i64, task: i64, wanted: UpstreamEnd) -> Edge {
        Edge {
            upstream,
            name: format!("`t{upstream}`"),
            task,
            wanted,
        }
    }

    fn outcomes(followed: &Followed) -> Vec<(i64, Outcome)> {
        let doomed = followed.doomed.iter();
        doomed.map(|(task, doom)| (*task, doom.outcome)).collect()
    }

    #[test]
    fn a_failure_runs_through_the_chain_to_whoever_waits_for_one() {
        let edges = [
            edge(1, 2, UpstreamEnd::Ok),
            edge(2, 3, UpstreamEnd::Ok),
            edge(3, 4, UpstreamEnd::Failed),
            edge(3, 5, UpstreamEnd::Any),
            edge(4, 6, UpstreamEnd::Ok),
        ];
        let followed = follow([(1, Outcome::Failed)], &edges);
        assert_eq!(
            outcomes(&followed),
            [(2, Outcome::Failed), (3, Outcome::Failed)]
        );
        assert_eq!(followed.met, [(4, 1), (5, 1)].into());
        assert_eq!(
            followed.doomed[&3].words,
            "not run: its upstream task `t2` failed"
        );
    }

    #[test]
    fn what_waits_for_a_failure_that_did_not_come_is_not_needed() {
        let edges = [
            edge(1, 2, UpstreamEnd::Failed),
            edge(2, 3, UpstreamEnd::Ok),
            edge(2, 4, UpstreamEnd::Any),
        ];
        let followed = follow([(1, Outcome::Completed)], &edges);
        assert_eq!(
            outcomes(&followed),
            [(2, Outcome::Cancelled), (3, Outcome::Cancelled)]
        );
        assert!(followed.doomed[&2].words.starts_with("not needed"));
        assert_eq!(followed.met, [(4, 1)].into());
    }

    #[test]
    fn one_wrong_end_is_enough_whatever_else_is_met() {
        let edges = [edge(1, 3, UpstreamEnd::Ok), edge(2, 3, UpstreamEnd::Ok)];
        let ends = [(1, Outcome::Completed), (2, Outcome::Cancelled)];
        let followed = follow(ends, &edges);
        assert_eq!(outcomes(&followed), [(3, Outcome::Cancelled)]);
        assert!(followed.met.is_empty());
    }

    fn wanted() -> impl Strategy<Value = UpstreamEnd> {
        prop::sample::select(UpstreamEnd::ALL.to_vec())
    }

    proptest! {
        /// Against the definition, task by task: edges lead from lower to higher numbers.
        #[test]
        fn every_reached_task_is_doomed_by_a_wrong_end_or_has_its_right_ends_counted(
            shape in prop::collection::vec((0..12_i64, 1..12_i64, wanted()), 0..40),
            first in prop::sample::select(Outcome::ALL.to_vec()),
        ) {
            let mut edges: Vec<Edge> = Vec::new();
            for (upstream, step, wanted) in shape {
                let task = upstream + step;
                if !edges.iter().any(|known| (known.upstream, known.task) == (upstream, task)) {
                    edges.push(edge(upstream, task, wanted));
                }
            }
            let followed = follow([(0, first)], &edges);
            let end_of = |task: i64| match task {
                0 => Some(first),
                _ => followed.doomed.get(&task).map(|doom| doom.outcome),
            };
            for task in 1..24 {
                let ends: Vec<Option<Outcome>> = edges
                    .iter()
                    .filter(|edge| edge.task == task)
                    .filter_map(|edge| Some(doom_of(edge.wanted, end_of(edge.upstream)?)))
                    .collect();
                let dooms: Vec<Outcome> = ends.iter().copied().flatten().collect();
                match end_of(task) {
                    Some(end) => prop_assert!(dooms.contains(&end), "{task}: {dooms:?}"),
                    None => {
                        prop_assert!(dooms.is_empty(), "{task}: {dooms:?}");
                        let met = followed.met.get(&task).copied().unwrap_or(0);
                        prop_assert_eq!(met as usize, ends.len());
                    }
                }
            }
        }
    }
}
