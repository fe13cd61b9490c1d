//! Tasks by their newest life: what a run that is resumed asks about its lines.

use rusqlite::Connection;
use uuid::Uuid;

use super::db::{CHUNK, json};
use super::query::suite_id;
use super::rows::{reason, state, uuid};
use crate::coordinator::store::{Life, StoreError};

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
