//! Tasks by their newest life: what a run that is resumed asks about its lines, and by what suites and waits count.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use uuid::Uuid;

use super::db::{CHUNK, json};
use super::query::{suite_id, task_ids};
use super::rows::{reason, state, uuid};
use crate::coordinator::store::{Counts, Life, StoreError};
use crate::protocol::TaskState;

/// A repetition has a greater row id than what it repeats.
const NEWEST: &str = "
    WITH RECURSIVE heirs (root, id) AS (
        SELECT value, value FROM json_each(?1)
        UNION ALL
        SELECT heirs.root, t.id FROM heirs JOIN tasks t ON t.retry_of = heirs.id
    ), newest (root, id) AS (SELECT root, max(id) FROM heirs GROUP BY root)
    SELECT newest.root, t.id, t.uuid, t.state, t.reason, t.exit_code,
        coalesce(r.result->>'$.stdout.bytes', 0) + coalesce(r.result->>'$.stderr.bytes', 0)
    FROM newest JOIN tasks t ON t.id = newest.id LEFT JOIN results r ON r.task = t.id";

const SUBMITTED: &str = "
    WITH RECURSIVE heirs (root, of, id) AS (
        SELECT t.id, t.follow_up_of, t.id FROM tasks t
        WHERE t.suite = ?1 AND t.follow_up_of IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM tasks old WHERE old.id = t.retry_of AND old.follow_up_of IS NOT NULL)
        UNION ALL
        SELECT heirs.root, heirs.of, t.id FROM heirs JOIN tasks t ON t.retry_of = heirs.id
    ), newest (root, of, id) AS (SELECT root, of, max(id) FROM heirs GROUP BY root)
    SELECT newest.of, t.id, t.uuid, t.state, t.reason, t.exit_code,
        coalesce(r.result->>'$.stdout.bytes', 0) + coalesce(r.result->>'$.stderr.bytes', 0)
    FROM newest JOIN tasks t ON t.id = newest.id LEFT JOIN results r ON r.task = t.id
    ORDER BY newest.root";

/// The states of the newest lives of some tasks, each life once.
const STATES: &str = "
    WITH RECURSIVE heirs (root, id) AS (
        SELECT value, value FROM json_each(?1)
        UNION ALL
        SELECT heirs.root, t.id FROM heirs JOIN tasks t ON t.retry_of = heirs.id
    ), newest (id) AS (SELECT DISTINCT max(id) FROM heirs GROUP BY root)
    SELECT t.id, t.state FROM newest JOIN tasks t ON t.id = newest.id";

/// Earlier lives by suite and state: every task of a family but the newest. Read from the repetitions, of which there
/// are few: people make them.
const EARLIER: &str = "
    WITH RECURSIVE family (root, id) AS (
        SELECT DISTINCT o.id, o.id FROM tasks r INDEXED BY tasks_retried JOIN tasks o ON o.id = r.retry_of
        WHERE r.retry_of IS NOT NULL AND o.retry_of IS NULL AND (?1 IS NULL OR o.suite = ?1)
        UNION ALL
        SELECT family.root, t.id FROM family JOIN tasks t ON t.retry_of = family.id
    ), newest (id) AS (SELECT max(id) FROM family GROUP BY root)
    SELECT t.suite, t.state, count(*) FROM family JOIN tasks t ON t.id = family.id
    WHERE family.id NOT IN (SELECT id FROM newest) GROUP BY t.suite, t.state";

/// The newest lives of some tasks by state. Two names of one task count once.
pub(super) fn counts_of(conn: &Connection, tasks: &[Uuid]) -> Result<Counts, StoreError> {
    let ids = task_ids(conn, tasks, "task")?;
    let ids: Vec<i64> = ids.into_values().collect();
    let mut states: BTreeMap<i64, TaskState> = BTreeMap::new();
    for chunk in ids.chunks(CHUNK) {
        let mut statement = conn.prepare_cached(STATES)?;
        let rows = statement.query_map([json(chunk)], |row| Ok((row.get(0)?, state(row, 1)?)))?;
        for row in rows {
            let (id, state) = row?;
            states.insert(id, state);
        }
    }
    let mut counts = Counts::new();
    for state in states.into_values() {
        *counts.entry(state).or_default() += 1;
    }
    Ok(counts)
}

/// How many tasks of each suite have been repeated since, by state; of one suite, or of all.
pub(super) fn earlier(
    conn: &Connection,
    suite: Option<i64>,
) -> Result<HashMap<i64, Counts>, StoreError> {
    let mut earlier: HashMap<i64, Counts> = HashMap::new();
    let mut statement = conn.prepare_cached(EARLIER)?;
    let mut rows = statement.query([suite])?;
    while let Some(row) = rows.next()? {
        let count = u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
        let counts = earlier.entry(row.get(0)?).or_default();
        counts.insert(state(row, 1)?, count);
    }
    Ok(earlier)
}

/// Counts without those of earlier lives; states without tasks are left out.
pub(super) fn without(mut counts: Counts, earlier: Option<&Counts>) -> Counts {
    for (state, count) in earlier.into_iter().flatten() {
        if let Some(all) = counts.get_mut(state) {
            *all = all.saturating_sub(*count);
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// The newest life of each task.
pub(super) fn newest(conn: &Connection, tasks: &[i64]) -> Result<Vec<Life>, StoreError> {
    let mut lives = Vec::with_capacity(tasks.len());
    for chunk in tasks.chunks(CHUNK) {
        let mut statement = conn.prepare_cached(NEWEST)?;
        let rows = statement.query_map([json(chunk)], life)?;
        for row in rows {
            lives.push(row?);
        }
    }
    Ok(lives)
}

/// What tasks of a suite submitted.
pub(super) fn submitted(conn: &Connection, suite: Uuid) -> Result<Vec<Life>, StoreError> {
    let suite = suite_id(conn, suite)?;
    let mut statement = conn.prepare_cached(SUBMITTED)?;
    let rows = statement.query_map([suite], life)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn life(row: &rusqlite::Row<'_>) -> rusqlite::Result<Life> {
    let word: Option<String> = row.get(4)?;
    Ok(Life {
        root: row.get(0)?,
        id: row.get(1)?,
        uuid: uuid(row, 2)?,
        state: state(row, 3)?,
        reason: word.as_deref().and_then(reason),
        exit_code: row.get(5)?,
        is_silent: row.get::<_, i64>(6)? == 0,
    })
}
