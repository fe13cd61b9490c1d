//! Tasks that wait for others: their edges in, and what ends mean for them out, as sets.
//!
//! An end costs one look at the index of edges, and only in a store that has any. What it releases or dooms is read,
//! decided by the ledger, and written in the same transaction; a whole chain that can no longer be run is two reads and
//! one set of writes, however long it is.

use rusqlite::Row;

use super::db::{CHUNK, Db, json};
use super::rows::{outcome, state, uuid};
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::ledger::chain::{Edge, Followed, follow};
use crate::coordinator::store::{Changes, StoreError};
use crate::protocol::Outcome;
use crate::protocol::upstream::UpstreamEnd;

/// Below the row id of every task.
pub(super) const FROM_THE_FIRST: i64 = 0;

/// Edges of waiting tasks above a row id to tasks that have ended.
pub(super) const FROM_ENDED: &str = "
    SELECT e.upstream, u.uuid, e.name, e.task, e.wanted, u.state
    FROM json_each(?1) AS given CROSS JOIN upstreams e ON e.upstream = given.value AND e.task > ?2
    CROSS JOIN tasks t ON t.id = e.task AND t.state = 0 AND t.waits > 0
    CROSS JOIN tasks u ON u.id = e.upstream AND u.state >= 4";

/// Edges of waiting tasks to these, which will not be run, and on along every edge that this may doom in turn: a task
/// that is not run never completes, so all but `any` (1).
pub(super) const BEYOND: &str = "
    WITH RECURSIVE lost (task) AS (
        SELECT value FROM json_each(?1)
        UNION
        SELECT e.task FROM lost CROSS JOIN upstreams e ON e.upstream = lost.task AND e.wanted <> 1
        CROSS JOIN tasks t ON t.id = e.task AND t.state = 0 AND t.waits > 0
    )
    SELECT e.upstream, u.uuid, e.name, e.task, e.wanted
    FROM lost CROSS JOIN upstreams e ON e.upstream = lost.task
    CROSS JOIN tasks t ON t.id = e.task AND t.state = 0 AND t.waits > 0
    CROSS JOIN tasks u ON u.id = e.upstream";

const INSERT_EDGE: &str =
    "INSERT INTO upstreams (task, upstream, wanted, name) VALUES (?1, ?2, ?3, ?4)";

/// An edge on its way into the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EdgeRow {
    pub(super) task: i64,
    pub(super) upstream: i64,
    pub(super) wanted: i64,
    pub(super) name: Option<String>,
}

/// A task that has ended, by its row id.
type End = (i64, Outcome);

/// The number an end is stored as.
pub(super) fn wanted_number(wanted: UpstreamEnd) -> i64 {
    match wanted {
        UpstreamEnd::Ok => 0,
        UpstreamEnd::Any => 1,
        UpstreamEnd::Failed => 2,
    }
}

/// The end stored as a number.
pub(super) fn wanted(number: i64) -> UpstreamEnd {
    match number {
        0 => UpstreamEnd::Ok,
        1 => UpstreamEnd::Any,
        _ => UpstreamEnd::Failed,
    }
}

fn edge(row: &Row<'_>) -> rusqlite::Result<Edge> {
    Ok(Edge {
        upstream: row.get(0)?,
        name: Edge::name(row.get(2)?, uuid(row, 1)?),
        task: row.get(3)?,
        wanted: wanted(row.get(4)?),
    })
}

impl Db {
    /// Stores edges of new tasks, and lets ends that are there already have their effect.
    pub(super) fn insert_edges(&mut self, edges: &[EdgeRow]) -> Result<Changes, StoreError> {
        let Some(first) = edges.iter().map(|edge| edge.task).min() else {
            return Ok(Changes::default());
        };
        self.tally.has_chains = true;
        self.for_each(INSERT_EDGE, edges, |statement, edge| {
            statement.execute((edge.task, edge.upstream, edge.wanted, &edge.name))
        })?;
        let mut upstream: Vec<i64> = edges.iter().map(|edge| edge.upstream).collect();
        upstream.sort_unstable();
        upstream.dedup();
        self.follow(&upstream, first - 1)
    }

    /// What follows for waiting tasks above a row id of those of `upstream` that have ended.
    pub(super) fn follow(&mut self, upstream: &[i64], above: i64) -> Result<Changes, StoreError> {
        let (mut edges, ends) = self.edges_from_ended(upstream, above)?;
        if edges.is_empty() {
            return Ok(Changes::default());
        }
        let mut followed = follow(ends.iter().copied(), &edges);
        if !followed.doomed.is_empty() {
            let doomed: Vec<i64> = followed.doomed.keys().copied().collect();
            edges.extend(self.edges_beyond(&doomed)?);
            followed = follow(ends, &edges);
        }
        self.settle(followed)
    }

    fn edges_from_ended(
        &self,
        upstream: &[i64],
        above: i64,
    ) -> Result<(Vec<Edge>, Vec<End>), StoreError> {
        let mut statement = self.conn.prepare_cached(FROM_ENDED)?;
        let mut rows = statement.query((json(upstream), above))?;
        let (mut edges, mut ends) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let edge = edge(row)?;
            if ends.last().is_none_or(|(last, _)| *last != edge.upstream) {
                let outcome = outcome(state(row, 5)?).ok_or(StoreError::Corrupt {
                    what: "the state of an ended task",
                })?;
                ends.push((edge.upstream, outcome));
            }
            edges.push(edge);
        }
        Ok((edges, ends))
    }

    fn edges_beyond(&self, doomed: &[i64]) -> Result<Vec<Edge>, StoreError> {
        let mut statement = self.conn.prepare_cached(BEYOND)?;
        let rows = statement.query_map([json(doomed)], edge)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn settle(&mut self, mut followed: Followed) -> Result<Changes, StoreError> {
        let now_us = self.clock.wall_us();
        let mut ids: Vec<i64> = followed
            .met
            .keys()
            .chain(followed.doomed.keys())
            .copied()
            .collect();
        ids.sort_unstable();
        let mut changes = Changes::default();
        for some in ids.chunks(CHUNK) {
            let mut fx = Effects::default();
            let mut tasks = self.load(some)?;
            for task in &mut tasks {
                let id = task.record.task.id;
                match followed.doomed.remove(&id) {
                    Some(doom) => task.record.upstream_lost(doom, now_us, &mut fx),
                    None => task.record.upstream_met(followed.met[&id], now_us),
                }
            }
            changes.extend(self.write(&tasks, fx)?);
        }
        Ok(changes)
    }
}
