//! The names of one submission as a graph: who waits for whom, and what is wrong with it in words.
//!
//! Used wherever tasks come in together: `run` (before anything is written, to name lines and to derive keys), the
//! coordinator (the only one whose word counts), follow-ups. An order of lines is not asked for: a task may wait for
//! one that stands below it. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use super::strict::nearest;
use super::task::TaskSpec;
use super::upstream::UpstreamEnd;

/// Whom a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A task of the same submission, by its place from 0.
    Place(usize),
    /// A task that was accepted before.
    Uuid(Uuid),
}

/// One entry of `upstream` with its name resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whom.
    pub target: Target,
    /// What end of it.
    pub when: UpstreamEnd,
}

/// The graph of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// For each task its upstream tasks, in the order of its `upstream`.
    pub links: Vec<Vec<Link>>,
    /// Every place once, upstream tasks before those that wait for them.
    pub order: Vec<usize>,
}

/// What is wrong with a graph, and with which task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainError {
    /// Place of the task, from 0.
    pub index: usize,
    /// What.
    pub problem: ChainProblem,
}

/// What is wrong with a graph. The text completes "the task is refused: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainProblem {
    /// Two tasks have one name.
    #[error("another task before it has the `id` `{0}` too; give each its own")]
    SameId(String),
    /// A name that nobody has.
    #[error("`upstream` names `{name}`, and no task here has that `id`{}", meant.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// The name that may have been meant.
        meant: Option<String>,
    },
    /// Tasks that wait for each other.
    #[error("these tasks wait for each other in a circle: {}", .0.join(" -> "))]
    Circle(Vec<String>),
}

impl Chain {
    /// Resolves the names of tasks that are submitted together. Each spec is validated by itself before.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn of<'a>(specs: impl Iterator<Item = &'a TaskSpec> + Clone) -> Result<Self, ChainError> {
        let names = names(specs.clone())?;
        let links = specs
            .clone()
            .enumerate()
            .map(|(index, spec)| links(index, spec, &names))
            .collect::<Result<Vec<_>, _>>()?;
        let order = order(&links);
        if order.len() < links.len() {
            let specs: Vec<&TaskSpec> = specs.collect();
            return Err(circle(&links, &order, &specs));
        }
        Ok(Self { links, order })
    }
}

fn names<'a>(
    specs: impl Iterator<Item = &'a TaskSpec>,
) -> Result<HashMap<&'a str, usize>, ChainError> {
    let mut names = HashMap::new();
    for (index, spec) in specs.enumerate() {
        if let Some(id) = spec.id.as_deref()
            && names.insert(id, index).is_some()
        {
            let problem = ChainProblem::SameId(id.to_owned());
            return Err(ChainError { index, problem });
        }
    }
    Ok(names)
}

fn links(
    index: usize,
    spec: &TaskSpec,
    names: &HashMap<&str, usize>,
) -> Result<Vec<Link>, ChainError> {
    let link = |entry: &super::upstream::Upstream| {
        let target = match (entry.uuid(), names.get(entry.task.as_str())) {
            (Some(uuid), _) => Target::Uuid(uuid),
            (None, Some(place)) => Target::Place(*place),
            (None, None) => {
                let problem = ChainProblem::Unknown {
                    meant: nearest(&entry.task, names.keys().copied()),
                    name: entry.task.clone(),
                };
                return Err(ChainError { index, problem });
            }
        };
        Ok(Link {
            target,
            when: entry.when,
        })
    };
    spec.upstream.iter().map(link).collect()
}

/// Places of the upstream tasks of a place that are in the submission.
fn places(links: &[Link]) -> impl Iterator<Item = usize> + '_ {
    links.iter().filter_map(|link| match link.target {
        Target::Place(place) => Some(place),
        Target::Uuid(_) => None,
    })
}

/// Every place that is not in or behind a circle, upstream first.
fn order(links: &[Vec<Link>]) -> Vec<usize> {
    let mut waits: Vec<usize> = links.iter().map(|links| places(links).count()).collect();
    let mut dependants: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, links) in links.iter().enumerate() {
        for upstream in places(links) {
            dependants.entry(upstream).or_default().push(place);
        }
    }
    let mut order: Vec<usize> = (0..links.len())
        .filter(|place| waits[*place] == 0)
        .collect();
    let mut next = 0;
    while let Some(place) = order.get(next).copied() {
        next += 1;
        for dependant in dependants.get(&place).into_iter().flatten() {
            waits[*dependant] -= 1;
            if waits[*dependant] == 0 {
                order.push(*dependant);
            }
        }
    }
    order
}

/// The first circle: from any place left over, upstream leads back to one that was seen.
fn circle(links: &[Vec<Link>], order: &[usize], specs: &[&TaskSpec]) -> ChainError {
    let mut is_ordered = vec![false; links.len()];
    order.iter().for_each(|place| is_ordered[*place] = true);
    let next = |place: usize| {
        places(&links[place])
            .find(|upstream| !is_ordered[*upstream])
            .expect("what is left over waits for something left over")
    };
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let mut path = Vec::new();
    let mut place = (0..links.len())
        .find(|place| !is_ordered[*place])
        .expect("a circle leaves something over");
    while !seen.contains_key(&place) {
        seen.insert(place, path.len());
        path.push(place);
        place = next(place);
    }
    circle_of(&path[seen[&place]..], specs)
}

fn circle_of(members: &[usize], specs: &[&TaskSpec]) -> ChainError {
    let name = |place: &usize| specs[*place].id.clone().unwrap_or_default();
    let first = members.iter().min().copied().unwrap_or_default();
    let start = members.iter().position(|place| *place == first);
    let (before, after) = members.split_at(start.unwrap_or_default());
    let around = after.iter().chain(before).chain(&after[..1]);
    ChainError {
        index: first,
        problem: ChainProblem::Circle(around.map(name).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::upstream::Upstream;

    fn spec(id: &str, upstream: &[&str]) -> TaskSpec {
        TaskSpec {
            id: (!id.is_empty()).then(|| id.to_owned()),
            upstream: upstream.iter().copied().map(Upstream::ok).collect(),
            ..TaskSpec::argv(["true"])
        }
    }

    fn chain(specs: &[TaskSpec]) -> Result<Chain, ChainError> {
        Chain::of(specs.iter())
    }

    #[track_caller]
    fn refused(specs: &[TaskSpec], index: usize, words: &str) {
        let error = chain(specs).expect_err("must be refused");
        let text = error.problem.to_string();
        assert_eq!(error.index, index, "{text}");
        assert!(text.contains(words), "`{text}` lacks `{words}`");
    }

    #[test]
    fn names_become_places_wherever_they_stand() {
        let other = Uuid::from_u128(5);
        let specs = [
            spec("", &["b", &other.to_string()]),
            spec("a", &[]),
            spec("b", &["a"]),
        ];
        let chain = chain(&specs).unwrap();
        let targets = |place: usize| -> Vec<Target> {
            chain.links[place].iter().map(|link| link.target).collect()
        };
        assert_eq!(targets(0), [Target::Place(2), Target::Uuid(other)]);
        assert_eq!(targets(2), [Target::Place(1)]);
        assert_eq!(chain.order, [1, 2, 0]);
    }

    #[test]
    fn tasks_without_names_are_no_graph() {
        let chain = chain(&[spec("", &[]), spec("", &[])]).unwrap();
        assert_eq!(chain.links, [vec![], vec![]]);
        assert_eq!(chain.order, [0, 1]);
    }

    #[test]
    fn what_is_no_graph_is_refused_in_words() {
        refused(&[spec("a", &[]), spec("a", &[])], 1, "`id` `a`");
        refused(
            &[spec("build", &[]), spec("", &["biuld"])],
            1,
            "did you mean `build`",
        );
        refused(&[spec("", &["nobody"])], 0, "no task here has that `id`");
        refused(
            &[
                spec("", &["c"]),
                spec("a", &["b"]),
                spec("b", &["c"]),
                spec("c", &["a"]),
            ],
            1,
            "a -> b -> c -> a",
        );
    }

    #[test]
    fn a_long_chain_is_ordered_without_depth() {
        let specs: Vec<TaskSpec> = (0..50_000)
            .map(|n| spec(&format!("t{n}"), &[&format!("t{}", n + 1)]))
            .chain([spec("t50000", &[])])
            .collect();
        let order = chain(&specs).unwrap().order;
        assert_eq!((order[0], order[50_000]), (50_000, 0));
    }
}
