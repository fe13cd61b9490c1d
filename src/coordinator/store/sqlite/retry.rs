//! Repeating tasks that have ended: copies that name the old ones, in their suites, all in one transaction.
//!
//! A repeated task waits for what the old one waited for. Where a task it waited for is repeated too, now or earlier,
//! it waits for the newest repetition: a failed graph is repeated as a graph, and a task alone does not wait for a
//! failure that somebody has repeated since.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::chains::EdgeRow;
use super::db::{CHUNK, Db, json};
use super::query::task_ids;
use super::rows::{state, uuid};
use super::submit::{Planned, STORE_SCOPE, submitted};
use crate::coordinator::store::{Changes, RetryTarget, StoreError};
use crate::protocol::api::SubmittedTask;
use crate::protocol::{TaskSpec, TaskState};

pub(super) const OF_SUITE: &str = "
    SELECT t.id FROM tasks t INDEXED BY tasks_suite_state WHERE t.suite = ?1 AND t.state IN (5, 6)
        AND NOT EXISTS (SELECT 1 FROM tasks r WHERE r.retry_of = t.id)
    ORDER BY t.id";
/// By suite, so that only suites with failures are read.
pub(super) const FAILED: &str = "
    SELECT t.id FROM counts c CROSS JOIN tasks t INDEXED BY tasks_suite_state ON t.suite = c.suite AND t.state = 5
    WHERE c.state = 5 AND c.n > 0 AND c.suite > 0
        AND NOT EXISTS (SELECT 1 FROM tasks r WHERE r.retry_of = t.id)
    ORDER BY t.id";
const OLD: &str = "
    SELECT t.id, t.uuid, t.state, t.suite, t.follow_up_of, p.spec FROM json_each(?1) AS wanted
    JOIN tasks t ON t.id = wanted.value JOIN specs p ON p.task = t.id";
/// The newest repetition of each upstream task that has one: a repetition has a greater row id.
const EDGES: &str = "
    WITH RECURSIVE heirs (root, id) AS (
        SELECT DISTINCT e.upstream, e.upstream FROM json_each(?1) AS old JOIN upstreams e ON e.task = old.value
        UNION ALL
        SELECT heirs.root, t.id FROM heirs JOIN tasks t ON t.retry_of = heirs.id
    ), newest (root, id) AS (SELECT root, max(id) FROM heirs GROUP BY root)
    SELECT e.task, e.upstream, newest.id, e.wanted, e.name FROM json_each(?1) AS old
    JOIN upstreams e ON e.task = old.value JOIN newest ON newest.root = e.upstream";

/// A task to be repeated.
struct Old {
    id: i64,
    suite: i64,
    follow_up_of: Option<i64>,
    encoded: String,
    spec: TaskSpec,
}

impl Db {
    pub(super) fn retry(
        &mut self,
        target: RetryTarget,
    ) -> Result<(Vec<SubmittedTask>, Changes), StoreError> {
        let ids = self.ids_to_retry(target)?;
        let old = self.old_tasks(&ids)?;
        let mut new = HashMap::with_capacity(old.len());
        for task in &old {
            new.insert(task.id, self.next_id());
        }
        let mut edges = self.edges_of_copies(&ids, &new)?;
        let planned: Vec<_> = old
            .iter()
            .map(|task| Planned {
                id: new[&task.id],
                uuid: Uuid::now_v7(),
                suite: task.suite,
                key: None,
                spec: &task.spec,
                encoded: &task.encoded,
                retry_of: Some(task.id),
                follow_up_of: task.follow_up_of,
                edges: edges.remove(&new[&task.id]).unwrap_or_default(),
                staged: false,
            })
            .collect();
        let changes = self.insert(STORE_SCOPE, &planned)?;
        Ok((planned.iter().map(submitted).collect(), changes))
    }

    fn ids_to_retry(&self, target: RetryTarget) -> Result<Vec<i64>, StoreError> {
        let read = |sql: &str, parameter: Option<i64>| -> Result<Vec<i64>, StoreError> {
            let mut statement = self.conn.prepare_cached(sql)?;
            let rows =
                statement.query_map(rusqlite::params_from_iter(parameter), |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        };
        match target {
            RetryTarget::Suite(uuid) => read(OF_SUITE, Some(self.suite_id(uuid)?)),
            RetryTarget::Failed => read(FAILED, None),
            RetryTarget::Tasks(uuids) => {
                let known = task_ids(&self.conn, &uuids, "task")?;
                let mut seen = HashSet::new();
                let ids = uuids.iter().map(|uuid| known[uuid]);
                Ok(ids.filter(|id| seen.insert(*id)).collect())
            }
        }
    }

    /// What is known of tasks, in the order of their ids here; all must have ended.
    fn old_tasks(&self, ids: &[i64]) -> Result<Vec<Old>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let mut statement = self.conn.prepare_cached(OLD)?;
            let mut rows = statement.query([json(chunk)])?;
            while let Some(row) = rows.next()? {
                let state: TaskState = state(row, 2)?;
                if !state.is_terminal() {
                    return Err(StoreError::NotEnded(uuid(row, 1)?));
                }
                let encoded: String = row.get(5)?;
                let old = Old {
                    id: row.get(0)?,
                    suite: row.get(3)?,
                    follow_up_of: row.get(4)?,
                    spec: serde_json::from_str(&encoded)
                        .map_err(|_| StoreError::Corrupt { what: "a spec" })?,
                    encoded,
                };
                found.insert(old.id, old);
            }
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// The edges of the new tasks, by their row ids.
    fn edges_of_copies(
        &self,
        old: &[i64],
        new: &HashMap<i64, i64>,
    ) -> Result<HashMap<i64, Vec<EdgeRow>>, StoreError> {
        let mut edges: HashMap<i64, Vec<EdgeRow>> = HashMap::new();
        if !self.tally.has_chains {
            return Ok(edges);
        }
        let mut statement = self.conn.prepare_cached(EDGES)?;
        let mut rows = statement.query([json(old)])?;
        while let Some(row) = rows.next()? {
            let task = new[&row.get::<_, i64>(0)?];
            let newest: i64 = row.get(2)?;
            edges.entry(task).or_default().push(EdgeRow {
                task,
                upstream: new
                    .get(&row.get(1)?)
                    .or_else(|| new.get(&newest))
                    .copied()
                    .unwrap_or(newest),
                wanted: row.get(3)?,
                name: row.get(4)?,
            });
        }
        Ok(edges)
    }
}
