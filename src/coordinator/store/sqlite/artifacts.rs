//! Artifacts as rows: what is kept of which task, under which lease it was made.

use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::db::Db;
use super::query;
use crate::coordinator::store::{ArtifactRecord, StoreError, UploadFence};
use crate::protocol::artifact::StoredArtifact;
use crate::protocol::{Artifact, ArtifactKind, Lease};

/// Row id of the task, when what is uploaded behind `fence` would be kept.
pub(super) fn check(conn: &Connection, fence: UploadFence) -> Result<i64, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT t.id, t.lease, h.uuid FROM tasks t LEFT JOIN holders h ON h.id = t.last_holder WHERE t.uuid = ?1",
    )?;
    let found = statement
        .query_row([fence.task.into_bytes()], |row| {
            let holder = row.get::<_, Option<[u8; 16]>>(2)?;
            Ok((
                row.get(0)?,
                query::lease(row, 1)?,
                holder.map(Uuid::from_bytes),
            ))
        })
        .optional()?;
    let (id, lease, holder) = found.ok_or(StoreError::NotFound {
        what: "task",
        uuid: fence.task,
    })?;
    let is_theirs = fence.holder.is_none_or(|claimed| Some(claimed) == holder);
    if lease == fence.lease && is_theirs {
        Ok(id)
    } else {
        Err(StoreError::Superseded(fence.task))
    }
}

/// What is kept of a task.
pub(super) fn of_task(conn: &Connection, task: i64) -> Result<Vec<ArtifactRecord>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT a.kind, a.lease, a.size_bytes, a.sha256, a.stored_us FROM artifacts a JOIN tasks t ON t.id = a.task
         WHERE a.task = ?1 AND a.lease = t.lease ORDER BY a.kind",
    )?;
    let rows = statement.query_map([task], record)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<ArtifactRecord> {
    let word: String = row.get(0)?;
    let unknown = rusqlite::types::FromSqlError::InvalidType;
    Ok(ArtifactRecord {
        lease: query::lease(row, 1)?,
        stored: StoredArtifact {
            artifact: Artifact {
                kind: ArtifactKind::parse(&word).ok_or(unknown)?,
                size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                sha256: row.get(3)?,
            },
            stored_at_us: row.get(4)?,
        },
    })
}

impl Db {
    pub(super) fn keep_artifact(
        &mut self,
        fence: UploadFence,
        artifact: &Artifact,
    ) -> Result<Option<Lease>, StoreError> {
        let now_us = self.clock.wall_us();
        let task = check(&self.conn, fence)?;
        let kind = artifact.kind.as_str();
        let mut before = self
            .conn
            .prepare_cached("SELECT lease FROM artifacts WHERE task = ?1 AND kind = ?2")?;
        let earlier = before
            .query_row((task, kind), |row| query::lease(row, 0))
            .optional()?;
        let mut keep = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO artifacts (task, kind, lease, size_bytes, sha256, stored_us)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        keep.execute((
            task,
            kind,
            fence.lease.0.cast_signed(),
            artifact.size_bytes.cast_signed(),
            &artifact.sha256,
            now_us,
        ))?;
        Ok(earlier.filter(|lease| *lease != fence.lease))
    }
}
