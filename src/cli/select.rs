//! From selectors to tasks: what the grammar of [`Selector`] names at a service or in a store.
//!
//! A name has to mean one task; a set may be empty. The commands ask here and act on what they get.

use std::collections::{BTreeMap, HashSet};

use anyhow::anyhow;
use uuid::Uuid;

use super::failure::Failure;
use super::reach::Reach;
use crate::protocol::Selector;
use crate::protocol::api::{TaskFilter, TaskPage, TaskSummary};

/// Tasks read at once.
const PAGE: u32 = 1000;

/// The uuids of everything that is named, each once, in the order of the selectors.
pub(super) async fn uuids(reach: &Reach, selectors: &[Selector]) -> Result<Vec<Uuid>, Failure> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for selector in selectors {
        let named = match selector {
            // Whether it exists is said by whatever is done with it.
            Selector::Uuid(uuid) => vec![*uuid],
            name if name.is_name() => vec![one(reach, name).await?],
            set => all(reach, set).await?,
        };
        found.extend(named.into_iter().filter(|uuid| seen.insert(*uuid)));
    }
    Ok(found)
}

/// The uuid of the one task that is named.
pub(super) async fn uuid(reach: &Reach, selector: &Selector) -> Result<Uuid, Failure> {
    match &uuids(reach, std::slice::from_ref(selector)).await?[..] {
        [uuid] => Ok(*uuid),
        several => Err(Failure::usage(anyhow!(
            "`{selector}` names {} tasks, and one is wanted",
            several.len()
        ))),
    }
}

/// One page of the tasks that `filter` lets through and any of the selectors names; without selectors all of them.
pub(super) async fn page(
    reach: &Reach,
    filter: &TaskFilter,
    selectors: &[Selector],
) -> Result<TaskPage, Failure> {
    if selectors.is_empty() {
        return reach.tasks(filter).await;
    }
    let mut found = BTreeMap::new();
    let mut is_cut = false;
    for selector in selectors {
        let page = reach.tasks(&selecting(selector, filter)).await?;
        is_cut |= page.next_cursor.is_some();
        found.extend(page.tasks.into_iter().map(|task| (task.id, task)));
    }
    let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
    is_cut |= found.len() > limit;
    let tasks: Vec<TaskSummary> = found.into_values().take(limit).collect();
    // A cursor is the last number that was shown, which holds for every selector.
    let next_cursor = tasks.last().filter(|_| is_cut).map(|task| task.id);
    Ok(TaskPage {
        next_cursor: next_cursor.map(|id| id.to_string()),
        tasks,
    })
}

fn selecting(selector: &Selector, filter: &TaskFilter) -> TaskFilter {
    TaskFilter {
        select: Some(selector.to_string()),
        ..filter.clone()
    }
}

async fn all(reach: &Reach, selector: &Selector) -> Result<Vec<Uuid>, Failure> {
    let mut filter = TaskFilter {
        limit: Some(PAGE),
        ..TaskFilter::default()
    };
    let mut found = Vec::new();
    loop {
        let page = reach.tasks(&selecting(selector, &filter)).await?;
        found.extend(page.tasks.iter().map(|task| task.uuid));
        match page.next_cursor {
            Some(cursor) => filter.cursor = Some(cursor),
            None => return Ok(found),
        }
    }
}

async fn one(reach: &Reach, name: &Selector) -> Result<Uuid, Failure> {
    let two = TaskFilter {
        limit: Some(2),
        ..TaskFilter::default()
    };
    let page = reach.tasks(&selecting(name, &two)).await?;
    match &page.tasks[..] {
        [] if *name == Selector::Last(1) => Err(Failure::usage(anyhow!("there is no task yet"))),
        [] => Err(Failure::usage(anyhow!(
            "there is no task {name}; `mitosis tasks` lists them"
        ))),
        [task] => Ok(task.uuid),
        [first, second, ..] => Err(Failure::usage(anyhow!(
            "{name} names several tasks, among them {} and {}; give more digits",
            first.uuid,
            second.uuid
        ))),
    }
}
