//! What tasks want and holders have, and a task's place among those that wait.

use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::db::json;
use crate::coordinator::store::{MOST_AHEAD, QueuePlace, StoreError};
use crate::protocol::Capacity;

/// The first task that has not ended and wants more of something than there is. Tasks are looked at only where some demand
/// ever named so much.
pub(super) fn beyond(
    conn: &Connection,
    there: Capacity,
) -> Result<Option<(i64, Capacity)>, StoreError> {
    let amount = |amount: Option<u64>| {
        amount.map_or(i64::MAX, |amount| i64::try_from(amount).unwrap_or(i64::MAX))
    };
    let limits = [there.milli_cpus, there.mem_bytes, there.gpus].map(amount);
    let mut demands = conn.prepare_cached(
        "SELECT id FROM demands WHERE milli_cpus > ?1 OR mem_bytes > ?2 OR gpus > ?3",
    )?;
    let demands = demands.query_map(limits, |row| row.get(0))?;
    let demands: Vec<i64> = demands.collect::<rusqlite::Result<_>>()?;
    if demands.is_empty() {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached(
        "SELECT id, milli_cpus, mem_bytes, gpus FROM tasks
         WHERE state < 4 AND demand IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT 1",
    )?;
    let found = statement.query_row([json(&demands)], |row| Ok((row.get(0)?, capacity(row, 1)?)));
    Ok(found.optional()?)
}

/// Rows of the queue above a priority.
pub(super) const AHEAD_BY_PRIORITY: &str = "
    SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_queue
    WHERE state = 1 AND cancel = 0 AND priority > ?1 LIMIT ?2)";
/// Rows of the queue of a priority, before a row id.
pub(super) const AHEAD_BY_AGE: &str = "
    SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_queue
    WHERE state = 1 AND cancel = 0 AND priority = ?1 AND id < ?3 LIMIT ?2)";

/// Where a task stands in the queue; counted up to [`MOST_AHEAD`].
pub(super) fn place(conn: &Connection, uuid: Uuid) -> Result<Option<QueuePlace>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT id, priority, queued_us FROM tasks WHERE uuid = ?1")?;
    let task = statement.query_row([uuid.into_bytes()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
    });
    let Some((id, priority, queued_us)) = task.optional()? else {
        return Ok(None);
    };
    let mut above = conn.prepare_cached(AHEAD_BY_PRIORITY)?;
    let most = i64::try_from(MOST_AHEAD).unwrap_or(i64::MAX);
    let mut ahead: i64 = above.query_row((priority, most), |row| row.get(0))?;
    if ahead < most {
        let mut older = conn.prepare_cached(AHEAD_BY_AGE)?;
        ahead += older.query_row((priority, most - ahead, id), |row| row.get::<_, i64>(0))?;
    }
    Ok(Some(QueuePlace {
        queued_us,
        ahead: ahead.unsigned_abs(),
    }))
}

/// A capacity from three columns.
pub(super) fn capacity(row: &Row<'_>, first: usize) -> rusqlite::Result<Capacity> {
    let amount =
        |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(i64::unsigned_abs));
    Ok(Capacity {
        milli_cpus: amount(first)?,
        mem_bytes: amount(first + 1)?,
        gpus: amount(first + 2)?,
    })
}
