//! Reading. Every function works on either connection and changes nothing.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::capacity::capacity;
use super::chains::wanted;
use super::db::{CHUNK, json};
use super::holders::{kind, kind_number};
use super::lives;
use super::results;
use super::rows::{from_json, outcome, reason, state, uuid};
use super::select;
use crate::coordinator::store::{
    ArtifactRecord, Audit, Counts, EndCursor, Ended, Holder, HolderId, HolderKind, HolderRecord,
    HolderSession, LiveHolder, StoreError, TaskQuery, Whereabouts,
};
use crate::protocol::api::{
    AttemptRecord, SuiteSummary, TaskDetail, TaskEnd, TaskSummary, UpstreamRecord,
};
use crate::protocol::ids::{Lease, TaskRef, Try};
use crate::protocol::session::HeldLease;
use crate::protocol::{CancelOrder, Selector, TaskSpec, TaskState};

/// Suites that are read at most when one is named: enough to say that it is not the only one.
const NAMED: u32 = 3;
/// Longest command shown in a list, in characters.
const COMMAND_CHARS: usize = 200;

/// The columns that [`summary`] reads, in its order.
macro_rules! summary_columns {
    () => {
        "t.id, t.uuid, s.uuid, t.state, t.reason, t.exit_code, t.attempts, t.priority, p.spec, t.accepted_us, \
         t.started_us, t.finished_us, t.waits, t.queued_us, o.uuid, f.uuid"
    };
}

/// The tables behind [`summary_columns`], beside the tasks `t`.
macro_rules! summary_tables {
    () => {
        " JOIN suites s ON s.id = t.suite JOIN specs p ON p.task = t.id \
         LEFT JOIN tasks o ON o.id = t.retry_of LEFT JOIN tasks f ON f.id = t.follow_up_of "
    };
}

/// Row id of a suite.
pub(super) fn suite_id(conn: &Connection, uuid: Uuid) -> Result<i64, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id FROM suites WHERE uuid = ?1")?;
    let id = statement
        .query_row([uuid.into_bytes()], |row| row.get(0))
        .optional()?;
    id.ok_or(StoreError::NotFound {
        what: "suite",
        uuid,
    })
}

/// Row id of a task.
pub(super) fn task_id(conn: &Connection, uuid: Uuid) -> Result<Option<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id FROM tasks WHERE uuid = ?1")?;
    Ok(statement
        .query_row([uuid.into_bytes()], |row| row.get(0))
        .optional()?)
}

/// Row ids of tasks by uuid.
pub(super) fn task_ids(
    conn: &Connection,
    uuids: &[Uuid],
    what: &'static str,
) -> Result<HashMap<Uuid, i64>, StoreError> {
    let mut ids = HashMap::with_capacity(uuids.len());
    for chunk in uuids.chunks(CHUNK) {
        let names: Vec<String> = chunk.iter().map(|uuid| uuid.simple().to_string()).collect();
        let mut statement = conn.prepare_cached(
            "SELECT t.uuid, t.id FROM json_each(?1) AS wanted JOIN tasks t ON t.uuid = unhex(wanted.value)",
        )?;
        let mut rows = statement.query([json(&names)])?;
        while let Some(row) = rows.next()? {
            ids.insert(uuid(row, 0)?, row.get(1)?);
        }
    }
    match uuids.iter().find(|uuid| !ids.contains_key(uuid)) {
        Some(uuid) => Err(StoreError::NotFound { what, uuid: *uuid }),
        None => Ok(ids),
    }
}

pub(super) fn task(conn: &Connection, wanted: Uuid) -> Result<Option<TaskDetail>, StoreError> {
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        ", k.key, t.lease, h.kind, h.uuid, t.cancel > 0, r.result, r.tails, t.holder IS NOT NULL, \
         t.claimed_us FROM tasks t",
        summary_tables!(),
        "LEFT JOIN task_keys k ON k.task = t.id LEFT JOIN holders h ON h.id = t.last_holder \
         LEFT JOIN results r ON r.task = t.id WHERE t.uuid = ?1"
    );
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([wanted.into_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let (summary, spec) = summary(row)?;
    let result = match row.get::<_, Option<String>>(21)? {
        None => None,
        Some(text) => {
            let tails: Option<Vec<u8>> = row.get(22)?;
            Some(results::read(&text, tails.as_deref())?)
        }
    };
    let is_held: bool = row.get(23)?;
    let detail = TaskDetail {
        spec,
        key: row.get(16)?,
        lease: is_held.then_some(lease(row, 17)?),
        holder: holder(row, 18)?.map(|holder| holder.to_string()),
        claimed_at_us: row.get(24)?,
        cancel_requested: row.get(20)?,
        result,
        history: history(conn, summary.id)?,
        upstream: upstream(conn, summary.id)?,
        artifacts: super::artifacts::of_task(conn, summary.id)?
            .into_iter()
            .map(|record| record.stored)
            .collect(),
        summary,
    };
    Ok(Some(detail))
}

pub(super) fn whereabouts(
    conn: &Connection,
    wanted: Uuid,
) -> Result<Option<Whereabouts>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT t.id, t.state, t.lease, h.kind, h.uuid FROM tasks t LEFT JOIN holders h ON h.id = t.holder
         WHERE t.uuid = ?1",
    )?;
    let mut rows = statement.query([wanted.into_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    if state(row, 1)?.is_terminal() {
        return Ok(Some(Whereabouts::Ended));
    }
    let task = TaskRef {
        id: row.get(0)?,
        uuid: wanted,
    };
    let lease = lease(row, 2)?;
    Ok(Some(match holder(row, 3)? {
        Some(holder) => Whereabouts::Held(holder, HeldLease { task, lease }),
        None => Whereabouts::Unheld,
    }))
}

fn upstream(conn: &Connection, task: i64) -> Result<Vec<UpstreamRecord>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT u.id, u.uuid, e.name, e.wanted, u.state FROM upstreams e JOIN tasks u ON u.id = e.upstream
         WHERE e.task = ?1 ORDER BY u.id",
    )?;
    let rows = statement.query_map([task], |row| {
        Ok(UpstreamRecord {
            id: row.get(0)?,
            uuid: uuid(row, 1)?,
            name: row.get(2)?,
            when: wanted(row.get(3)?),
            state: state(row, 4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What is kept of one task.
pub(super) fn artifacts(conn: &Connection, task: Uuid) -> Result<Vec<ArtifactRecord>, StoreError> {
    let id = task_id(conn, task)?;
    let id = id.ok_or(StoreError::NotFound {
        what: "task",
        uuid: task,
    })?;
    super::artifacts::of_task(conn, id)
}

fn history(conn: &Connection, task: i64) -> Result<Vec<AttemptRecord>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT a.attempt, a.lease, a.try_no, h.kind, h.uuid, a.started_us, a.ended_us, a.end, a.cause
         FROM attempts a LEFT JOIN holders h ON h.id = a.holder WHERE a.task = ?1 ORDER BY a.attempt",
    )?;
    let rows = statement.query_map([task], |row| {
        Ok(AttemptRecord {
            attempt: row.get(0)?,
            lease: lease(row, 1)?,
            try_no: Try(row.get(2)?),
            holder: holder(row, 3)?.map_or_else(String::new, |holder| holder.to_string()),
            started_at_us: row.get(5)?,
            ended_at_us: row.get(6)?,
            end: row.get(7)?,
            cause: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn tasks(conn: &Connection, query: &TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
    let ids = select::ids(conn, query)?;
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        " FROM json_each(?1) AS wanted CROSS JOIN tasks t ON t.id = wanted.value",
        summary_tables!(),
        "ORDER BY wanted.key"
    );
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([json(&ids)], |row| summary(row).map(|(summary, _)| summary))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn suites(
    conn: &Connection,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, SuiteSummary)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, uuid, name, created_us FROM suites WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let rows = statement.query_map((after, limit), |row| Ok((row.get(0)?, suite_row(row)?)))?;
    let mut found = rows.collect::<rusqlite::Result<Vec<(i64, SuiteSummary)>>>()?;
    let earlier = lives::earlier(conn, None)?;
    for (id, suite) in &mut found {
        suite.counts = lives::without(counts_of_id(conn, *id)?, earlier.get(id));
    }
    Ok(found)
}

pub(super) fn suite(conn: &Connection, uuid: Uuid) -> Result<Option<SuiteSummary>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT id, uuid, name, created_us FROM suites WHERE uuid = ?1")?;
    let found = statement
        .query_row([uuid.into_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, suite_row(row)?))
        })
        .optional()?;
    let Some((id, mut suite)) = found else {
        return Ok(None);
    };
    let earlier = lives::earlier(conn, Some(id))?;
    suite.counts = lives::without(counts_of_id(conn, id)?, earlier.get(&id));
    Ok(Some(suite))
}

/// Suites that a text names, newest first and without counts, at most [`NAMED`]: those of this name; without any, those
/// whose name or uuid begins so.
pub(super) fn suites_named(conn: &Connection, text: &str) -> Result<Vec<SuiteSummary>, StoreError> {
    let read = |condition: &str, values: [Value; 3]| -> Result<Vec<SuiteSummary>, StoreError> {
        let mut statement = conn.prepare_cached(&format!(
            "SELECT id, uuid, name, created_us FROM suites WHERE {condition} ORDER BY id DESC LIMIT {NAMED}"
        ))?;
        let rows = statement.query_map(values, suite_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    let name = Value::Text(text.to_owned());
    let exact = read(
        "name = ?1 AND ?2 IS NULL AND ?3 IS NULL",
        [name.clone(), Value::Null, Value::Null],
    )?;
    if !exact.is_empty() {
        return Ok(exact);
    }
    let uuids = match text.parse::<Selector>() {
        Ok(prefix @ Selector::Prefix(_)) => prefix.uuids(),
        _ => None,
    };
    let bytes = |uuid: Uuid| Value::Blob(uuid.into_bytes().to_vec());
    let [least, greatest] = uuids.map_or([Value::Null, Value::Null], |(least, greatest)| {
        [bytes(least), bytes(greatest)]
    });
    read(
        "substr(name, 1, length(?1)) = ?1 OR uuid BETWEEN ?2 AND ?3",
        [name, least, greatest],
    )
}

fn suite_row(row: &Row<'_>) -> rusqlite::Result<SuiteSummary> {
    Ok(SuiteSummary {
        uuid: uuid(row, 1)?,
        name: row.get(2)?,
        created_at_us: row.get(3)?,
        counts: Counts::new(),
    })
}

pub(super) fn counts(conn: &Connection, suite: Option<Uuid>) -> Result<Counts, StoreError> {
    let id = match suite {
        None => super::rows::WHOLE_STORE,
        Some(uuid) => suite_id(conn, uuid)?,
    };
    counts_of_id(conn, id)
}

fn counts_of_id(conn: &Connection, suite: i64) -> Result<Counts, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT state, n FROM counts WHERE suite = ?1 AND n > 0")?;
    let rows = statement.query_map([suite], |row| Ok((state(row, 0)?, number(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn ends(
    conn: &Connection,
    after: EndCursor,
    limit: u32,
) -> Result<Vec<Ended>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT t.end_seq, t.id, t.uuid, t.state, s.uuid, r.result, r.tails, t.attempts
         FROM tasks t JOIN suites s ON s.id = t.suite JOIN results r ON r.task = t.id
         WHERE t.end_seq > ?1 ORDER BY t.end_seq LIMIT ?2",
    )?;
    let mut rows = statement.query((after.0, limit))?;
    let mut ends = Vec::new();
    while let Some(row) = rows.next()? {
        let outcome = outcome(state(row, 3)?).ok_or(StoreError::Corrupt {
            what: "the state of an ended task",
        })?;
        let tails: Option<Vec<u8>> = row.get(6)?;
        ends.push(Ended {
            cursor: EndCursor(row.get(0)?),
            suite: uuid(row, 4)?,
            end: TaskEnd {
                id: row.get(1)?,
                uuid: uuid(row, 2)?,
                outcome,
                attempts: row.get(7)?,
                result: results::read(&row.get::<_, String>(5)?, tails.as_deref())?,
                follow_ups: Vec::new(),
            },
        });
        let end = &mut ends.last_mut().expect("one was pushed").end;
        if end
            .result
            .follow_ups
            .as_ref()
            .is_some_and(|some| some.accepted > 0)
        {
            end.follow_ups = follow_ups(conn, end.id)?;
        }
    }
    Ok(ends)
}

/// What a task submitted; without repetitions of it.
fn follow_ups(conn: &Connection, task: i64) -> Result<Vec<Uuid>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT uuid FROM tasks WHERE follow_up_of = ?1 AND retry_of IS NULL ORDER BY id",
    )?;
    let rows = statement.query_map([task], |row| uuid(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn cancel_orders(
    conn: &Connection,
    holder: HolderId,
) -> Result<Vec<CancelOrder>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, uuid, lease, cancel FROM tasks WHERE holder = ?1 AND cancel > 0 ORDER BY id",
    )?;
    let rows = statement.query_map([holder.0], |row| {
        Ok(CancelOrder {
            task_id: row.get(0)?,
            task_uuid: uuid(row, 1)?,
            lease: lease(row, 2)?,
            try_no: None,
            graceful: row.get::<_, i64>(3)? == 1,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn live_holder(conn: &Connection, holder: Holder) -> Result<LiveHolder, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, session, tags, mode FROM holders WHERE kind = ?1 AND uuid = ?2 AND presence > 0",
    )?;
    let live = statement
        .query_row(
            (kind_number(holder.kind), holder.uuid.into_bytes()),
            |row| {
                Ok(LiveHolder {
                    session: HolderSession {
                        holder: HolderId(row.get(0)?),
                        number: row.get(1)?,
                    },
                    tags: from_json(row, 2)?.unwrap_or_default(),
                    mode: from_json(row, 3)?.unwrap_or_default(),
                })
            },
        )
        .optional()?;
    live.ok_or_else(|| super::holders::unknown(holder))
}

pub(super) fn holders(
    conn: &Connection,
    wanted: HolderKind,
    since_us: i64,
) -> Result<Vec<HolderRecord>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT h.id, h.kind, h.uuid, h.session, h.host, h.slots, h.status, h.mode, h.presence = 1, h.last_seen_us,
                (SELECT count(*) FROM tasks WHERE holder = h.id),
                (SELECT uuid FROM tasks WHERE holder = h.id ORDER BY lease DESC LIMIT 1), h.labels,
                h.milli_cpus, h.mem_bytes, h.gpus, h.tags
         FROM holders h WHERE h.kind = ?1 AND (h.presence = 1 OR h.last_seen_us >= ?2) ORDER BY h.uuid",
    )?;
    let rows = statement.query_map((kind_number(wanted), since_us), |row| {
        let id = HolderId(row.get(0)?);
        Ok(HolderRecord {
            id,
            holder: Holder {
                kind: kind(row.get(1)?),
                uuid: uuid(row, 2)?,
            },
            session: HolderSession {
                holder: id,
                number: row.get(3)?,
            },
            host: row.get(4)?,
            slots: row.get(5)?,
            capacity: capacity(row, 13)?,
            tags: from_json(row, 16)?.unwrap_or_default(),
            status: from_json(row, 6)?.unwrap_or_default(),
            mode: from_json(row, 7)?.unwrap_or_default(),
            live: row.get(8)?,
            last_seen_us: row.get(9)?,
            leases: number(row, 10)?,
            task: row.get::<_, Option<[u8; 16]>>(11)?.map(Uuid::from_bytes),
            labels: from_json(row, 12)?.unwrap_or_default(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Counts the rows themselves, not the counters: an audit that trusts the books finds nothing.
pub(super) fn audit(conn: &Connection) -> Result<Audit, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT (SELECT coalesce(CAST(CAST(max(value) AS TEXT) AS INTEGER), 0) FROM meta WHERE name = 'accepted'),
                count(*) FILTER (WHERE state >= 4), count(*) FILTER (WHERE state < 4) FROM tasks",
    )?;
    Ok(statement.query_row([], |row| {
        Ok(Audit {
            accepted: number(row, 0)?,
            finished: number(row, 1)?,
            in_flight: number(row, 2)?,
        })
    })?)
}

/// Reads a summary, and the spec it was made from, from a row that begins with [`summary_columns`].
fn summary(row: &Row<'_>) -> rusqlite::Result<(TaskSummary, TaskSpec)> {
    let spec: TaskSpec = from_json(row, 8)?.unwrap_or_default();
    let state: TaskState = state(row, 3)?;
    let word: Option<String> = row.get(4)?;
    let mut summary = TaskSummary {
        id: row.get(0)?,
        uuid: uuid(row, 1)?,
        suite: uuid(row, 2)?,
        state,
        reason: word
            .as_deref()
            .and_then(reason)
            .map(|reason| reason.as_str().to_owned()),
        exit_code: row.get(5)?,
        attempts: row.get(6)?,
        priority: row.get(7)?,
        command: command(&spec),
        accepted_at_us: row.get(9)?,
        started_at_us: row.get(10)?,
        finished_at_us: row.get(11)?,
        waits_for: if state == TaskState::Pending {
            row.get(12)?
        } else {
            0
        },
        due_at_us: None,
        retry_of: row.get::<_, Option<[u8; 16]>>(14)?.map(Uuid::from_bytes),
        follow_up_of: row.get::<_, Option<[u8; 16]>>(15)?.map(Uuid::from_bytes),
    };
    if state == TaskState::Pending && summary.waits_for == 0 {
        summary.due_at_us = Some(row.get(13)?);
    }
    Ok((summary, spec))
}

/// The command as a person would type it, cut where it is long.
fn command(spec: &TaskSpec) -> String {
    let quoted = |arg: &String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.clone()
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    let whole = match spec.args.split_first() {
        Some((line, [])) if spec.shell => line.clone(),
        _ => spec.args.iter().map(quoted).collect::<Vec<_>>().join(" "),
    };
    match whole.char_indices().nth(COMMAND_CHARS) {
        None => whole,
        Some((end, _)) => format!("{}…", &whole[..end]),
    }
}

/// A count, which is never negative.
pub(super) fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(index)?.max(0).unsigned_abs())
}

pub(super) fn lease(row: &Row<'_>, index: usize) -> rusqlite::Result<Lease> {
    Ok(Lease(row.get::<_, i64>(index)?.cast_unsigned()))
}

/// A holder from its kind and uuid, two columns that are NULL together.
fn holder(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Holder>> {
    let (number, bytes) = (row.get(index)?, row.get::<_, Option<[u8; 16]>>(index + 1)?);
    let (Some(number), Some(bytes)) = (number, bytes) else {
        return Ok(None);
    };
    Ok(Some(Holder {
        kind: kind(number),
        uuid: Uuid::from_bytes(bytes),
    }))
}
