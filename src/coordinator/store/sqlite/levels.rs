//! How the whole store stands, for gauges. Reads from indexes and counters alone; changes nothing.

use rusqlite::{Connection, OptionalExtension};

use super::query;
use crate::coordinator::store::{Levels, StoreError};

/// Most pairs of demand and priority that are looked at; what is beyond them is younger in most stores.
const MOST_HEADS: usize = 1000;

/// One transaction: the three numbers of the accounting belong together.
pub(super) fn levels(conn: &Connection) -> Result<Levels, StoreError> {
    // Where the caller has a transaction already, its own is that one.
    let transaction = conn
        .is_autocommit()
        .then(|| conn.unchecked_transaction())
        .transpose()?;
    // Tasks are never deleted and both sequences have no gaps, so that their last members are their lengths.
    let last = |sql: &str| -> Result<u64, StoreError> {
        let number: i64 = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(number.max(0).unsigned_abs())
    };
    let levels = Levels {
        counts: query::counts(conn, None)?,
        accepted: last("SELECT coalesce(max(id), 0) FROM tasks")?,
        ended: last("SELECT coalesce(max(end_seq), 0) FROM tasks WHERE end_seq IS NOT NULL")?,
        oldest_ready_us: oldest_ready(conn)?,
    };
    drop(transaction);
    Ok(levels)
}

/// Looks at the first task of every demand and priority, which is the one with the lowest number.
fn oldest_ready(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let mut demands = conn.prepare_cached("SELECT id FROM demands WHERE ready > 0")?;
    let demands: Vec<i64> = demands
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut head = conn.prepare_cached(
        "SELECT priority, queued_us FROM tasks WHERE state = 1 AND demand = ?1 AND priority < ?2
         ORDER BY priority DESC, id LIMIT 1",
    )?;
    let mut oldest: Option<i64> = None;
    let mut heads = 0;
    for demand in demands {
        let mut below = i64::MAX;
        while heads < MOST_HEADS {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let Some((priority, queued_us)) = head.query_row((demand, below), row).optional()?
            else {
                break;
            };
            oldest = Some(oldest.map_or(queued_us, |known| known.min(queued_us)));
            below = priority;
            heads += 1;
        }
    }
    Ok(oldest)
}
