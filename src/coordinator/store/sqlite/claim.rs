//! Granting tasks: the first rows of each demand the holder can meet, merged, then leased as a set.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::OptionalExtension;

use super::capacity::capacity;
use super::db::{Db, json};
use super::rows::{RECORD_COLUMNS, Tracked, from_json, micros, record, record_columns, until};
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::{
    Claim, Claimed, ClaimedTask, HolderId, HolderSession, ReclaimCause, StoreError, Unstarted,
};
use crate::protocol::ids::Try;
use crate::protocol::{Capacity, Mode, TaskSpec, TaskState, WorkerTaskResp};

/// Most bytes of specs in one answer, so that a frame stays small; one task is always allowed.
const MAX_CLAIM_BYTES: i64 = 8 << 20;

/// Reads the first waiting tasks of one demand, straight from the partial index.
pub(super) const CANDIDATES: &str = "
    SELECT id, priority, spec_bytes FROM tasks
    WHERE state = 1 AND demand = ?1 ORDER BY priority DESC, id LIMIT ?2";

/// What a claim needs to know of its holder.
struct Claimant {
    tags: Vec<String>,
    capacity: Capacity,
    mode: Mode,
}

struct Candidate {
    id: i64,
    priority: i32,
    spec_bytes: i64,
}

impl Db {
    pub(super) fn claim(&mut self, claim: Claim) -> Result<Claimed, StoreError> {
        let claimant = self.claimant(claim.session)?;
        let holder = claim.session.holder;
        self.touch(holder)?;
        if claimant.mode != Mode::Run || claim.limit == 0 {
            return Ok(Claimed::default());
        }
        let mut fx = Effects::default();
        let mut ids = Vec::new();
        let mut ended = Vec::new();
        if claim.unstarted == Unstarted::Reissue {
            (ids, ended) = self.unstarted(holder, &mut fx)?;
            ids.truncate(usize::try_from(claim.limit).unwrap_or(usize::MAX));
        }
        let left = claim.limit - u32::try_from(ids.len()).unwrap_or(claim.limit);
        ids.extend(self.candidates(&claimant, left)?);
        let (mut tracked, tasks) = self.grant(holder, &ids)?;
        tracked.append(&mut ended);
        let changes = self.apply(&tracked, fx)?;
        Ok(Claimed { tasks, changes })
    }

    /// Checks the fence of a session.
    fn claimant(&self, session: HolderSession) -> Result<Claimant, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT tags, mode, milli_cpus, mem_bytes, gpus FROM holders WHERE id = ?1 AND session = ?2 AND presence > 0",
        )?;
        let claimant = statement
            .query_row((session.holder.0, session.number), |row| {
                Ok(Claimant {
                    tags: from_json(row, 0)?.unwrap_or_default(),
                    mode: from_json(row, 1)?.unwrap_or_default(),
                    capacity: capacity(row, 2)?,
                })
            })
            .optional()?;
        claimant.ok_or(StoreError::Replaced)
    }

    /// A sign of life: gives everything the holder has a full new term. Written at most once in a tenth of a term.
    pub(super) fn touch(&self, holder: HolderId) -> Result<(), StoreError> {
        let term_end = self.term_end_us();
        let slack = micros((self.term / 10).min(Duration::from_secs(1)));
        let mut statement = self.conn.prepare_cached(
            "UPDATE holders SET presence = 1, expires_us = ?2, last_seen_us = ?3
             WHERE id = ?1 AND (presence = 2 OR expires_us < ?4)",
        )?;
        let now_us = self.clock.wall_us();
        statement.execute((holder.0, term_end, now_us, term_end - slack))?;
        Ok(())
    }

    /// What the holder has and never started: to be granted again, or ended where a cancel was asked for.
    fn unstarted(
        &self,
        holder: HolderId,
        fx: &mut Effects,
    ) -> Result<(Vec<i64>, Vec<Tracked>), StoreError> {
        let now_us = self.clock.wall_us();
        let held = self.load_held(holder)?.into_iter();
        let unstarted = held.filter(|task| task.record.state == TaskState::Assigned);
        let (mut again, mut ended) = (Vec::new(), Vec::new());
        for mut task in unstarted {
            if task.record.cancel.is_some() {
                let words = "the answer that carried it was lost";
                task.record
                    .take_back(ReclaimCause::Inventory, words, now_us, fx);
                ended.push(task);
            } else {
                again.push(task.record.task.id);
            }
        }
        Ok((again, ended))
    }

    /// Row ids of the tasks to grant, in order.
    fn candidates(&self, claimant: &Claimant, limit: u32) -> Result<Vec<i64>, StoreError> {
        let mut candidates = Vec::new();
        if limit == 0 {
            return Ok(Vec::new());
        }
        for demand in self.demands_met_by(claimant)? {
            let mut statement = self.conn.prepare_cached(CANDIDATES)?;
            let rows = statement.query_map((demand, limit), |row| {
                Ok(Candidate {
                    id: row.get(0)?,
                    priority: row.get(1)?,
                    spec_bytes: row.get(2)?,
                })
            })?;
            for row in rows {
                candidates.push(row?);
            }
        }
        candidates.sort_unstable_by_key(|candidate| (-i64::from(candidate.priority), candidate.id));
        candidates.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut bytes = 0;
        let fits = candidates.iter().take_while(|candidate| {
            let first = bytes == 0;
            bytes += candidate.spec_bytes;
            first || bytes <= MAX_CLAIM_BYTES
        });
        Ok(fits.map(|candidate| candidate.id).collect())
    }

    /// Demands with waiting tasks whose tags the holder carries and whose amounts it has at all.
    fn demands_met_by(&self, claimant: &Claimant) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, tags, milli_cpus, mem_bytes, gpus FROM demands WHERE ready > 0",
        )?;
        let mut met = Vec::new();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let tags: Vec<String> = from_json(row, 1)?.unwrap_or_default();
            let wanted = capacity(row, 2)?;
            if claimant.capacity.lack_of(&wanted).is_none()
                && tags.iter().all(|tag| claimant.tags.contains(tag))
            {
                met.push(row.get(0)?);
            }
        }
        Ok(met)
    }

    /// Leases tasks to a holder; both lists are in the order of `ids`.
    fn grant(
        &self,
        holder: HolderId,
        ids: &[i64],
    ) -> Result<(Vec<Tracked>, Vec<ClaimedTask>), StoreError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            ", p.spec, r.uuid FROM json_each(?1) AS wanted JOIN tasks t ON t.id = wanted.value \
             JOIN suites s ON s.id = t.suite JOIN specs p ON p.task = t.id LEFT JOIN tasks r ON r.id = coalesce(t.follow_up_of, t.retry_of)"
        );
        let now_us = self.clock.wall_us();
        let order: HashMap<i64, usize> = ids.iter().copied().zip(0..).collect();
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([json(ids)])?;
        let mut granted = Vec::with_capacity(ids.len());
        const SPEC: usize = RECORD_COLUMNS;
        const ORIGIN: usize = RECORD_COLUMNS + 1;
        while let Some(row) = rows.next()? {
            let mut task = Tracked::new(record(row)?);
            let lease = task.record.grant(self.epoch, holder, now_us);
            let record = &task.record;
            let mut spec = from_json::<TaskSpec>(row, SPEC)?.unwrap_or_default();
            // They have ended; a list of thousands need not travel.
            spec.upstream.clear();
            let claimed = ClaimedTask {
                queued: until(now_us, record.queued_us),
                task: WorkerTaskResp {
                    id: record.task.id,
                    uuid: record.task.uuid,
                    lease,
                    try_no: Try(0),
                    attempt: record.attempts + 1,
                    failures: record.failures,
                    suite_uuid: record.suite_uuid,
                    links: BTreeMap::new(),
                    upstream_task_uuid: row
                        .get::<_, Option<[u8; 16]>>(ORIGIN)?
                        .map(uuid::Uuid::from_bytes),
                    ids: None,
                    spec,
                },
            };
            granted.push((order[&record.task.id], task, claimed));
        }
        granted.sort_unstable_by_key(|(place, _, _)| *place);
        Ok(granted
            .into_iter()
            .map(|(_, task, claimed)| (task, claimed))
            .unzip())
    }
}
