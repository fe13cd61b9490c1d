//! From selectors to tasks: what the grammar of [`Selection`] names at a service or in a store.
//!
//! A name has to mean one task; a set may be empty. The commands ask here and act on what they get.

use std::collections::HashSet;

use anyhow::anyhow;
use uuid::Uuid;

use super::failure::{Failure, OrFail};
use super::reach::Reach;
use crate::protocol::api::{TaskFilter, TaskPage};
use crate::protocol::{Selection, Selector};

/// Tasks read at once.
const PAGE: u32 = 1000;

/// The uuids of everything that is meant, each once: what is named in this order, then what is in the sets, oldest first.
pub(super) async fn uuids(reach: &Reach, selectors: &[Selector]) -> Result<Vec<Uuid>, Failure> {
    matching(reach, selectors, &TaskFilter::default()).await
}

/// The same without what is in the sets and has been repeated by a retry.
pub(super) async fn unrepeated(
    reach: &Reach,
    selectors: &[Selector],
) -> Result<Vec<Uuid>, Failure> {
    let unrepeated = TaskFilter {
        unrepeated: Some(true),
        ..TaskFilter::default()
    };
    matching(reach, selectors, &unrepeated).await
}

async fn matching(
    reach: &Reach,
    selectors: &[Selector],
    filter: &TaskFilter,
) -> Result<Vec<Uuid>, Failure> {
    let (names, sets): (Vec<_>, Vec<_>) = selectors.iter().cloned().partition(Selector::is_name);
    let mut found = Vec::new();
    for name in names {
        found.push(match name {
            // Whether it exists is said by whatever is done with it.
            Selector::Uuid(uuid) => uuid,
            name => one(reach, &name).await?,
        });
    }
    if !sets.is_empty() {
        found.extend(all(reach, &selection(sets)?, filter).await?);
    }
    let mut seen = HashSet::new();
    found.retain(|uuid| seen.insert(*uuid));
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

/// One page of the tasks that `filter` lets through and the selectors name; without selectors all of them.
pub(super) async fn page(
    reach: &Reach,
    filter: &TaskFilter,
    selectors: &[Selector],
) -> Result<TaskPage, Failure> {
    if selectors.is_empty() {
        return reach.tasks(filter).await;
    }
    let selection = selection(selectors.to_vec())?;
    reach.tasks(&selecting(&selection, filter)).await
}

/// These selectors together.
pub(super) fn selection(selectors: Vec<Selector>) -> Result<Selection, Failure> {
    Selection::of(selectors).or_usage()
}

fn selecting(selection: &Selection, filter: &TaskFilter) -> TaskFilter {
    TaskFilter {
        select: Some(selection.to_string()),
        ..filter.clone()
    }
}

async fn all(
    reach: &Reach,
    selection: &Selection,
    filter: &TaskFilter,
) -> Result<Vec<Uuid>, Failure> {
    let mut filter = TaskFilter {
        limit: Some(PAGE),
        ..filter.clone()
    };
    let mut found = Vec::new();
    loop {
        let page = reach.tasks(&selecting(selection, &filter)).await?;
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
    let selection = selection(vec![name.clone()])?;
    let page = reach.tasks(&selecting(&selection, &two)).await?;
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
