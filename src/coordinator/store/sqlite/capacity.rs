//! What tasks want and holders have, and a task's place among those that wait.

use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::query::number;
use crate::coordinator::store::{QueuePlace, StoreError};
use crate::protocol::Capacity;

/// The first task that has not ended and wants more of something than there is.
pub(super) fn beyond(
    conn: &Connection,
    there: Capacity,
) -> Result<Option<(i64, Capacity)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, milli_cpus, mem_bytes, gpus FROM tasks
         WHERE state < 4 AND (milli_cpus > ?1 OR mem_bytes > ?2 OR gpus > ?3) ORDER BY id LIMIT 1",
    )?;
    let amount = |amount: Option<u64>| {
        amount.map_or(i64::MAX, |amount| i64::try_from(amount).unwrap_or(i64::MAX))
    };
    let limits = [there.milli_cpus, there.mem_bytes, there.gpus].map(amount);
    let found = statement.query_row(limits, |row| Ok((row.get(0)?, capacity(row, 1)?)));
    Ok(found.optional()?)
}

/// Where a task stands in the queue.
pub(super) fn place(conn: &Connection, uuid: Uuid) -> Result<Option<QueuePlace>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT t.queued_us, (SELECT count(*) FROM tasks o WHERE o.state = 1
             AND (o.priority > t.priority OR (o.priority = t.priority AND o.id < t.id)))
         FROM tasks t WHERE t.uuid = ?1",
    )?;
    let place = statement.query_row([uuid.into_bytes()], |row| {
        Ok(QueuePlace {
            queued_us: row.get(0)?,
            ahead: number(row, 1)?,
        })
    });
    Ok(place.optional()?)
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
