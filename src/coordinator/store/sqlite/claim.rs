//! Granting tasks: the first rows of the queue that the holder can have, leased as a set.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

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

/// Most rows at the front of the queue that a claim passes over because they are for others. Beyond that it asks each demand
/// that its holder meets.
const MOST_SKIPPED: usize = 8192;

/// Reads what waits in its order.
pub(super) const QUEUE: &str = "
    SELECT id, priority, spec_bytes, demand FROM tasks INDEXED BY tasks_queue
    WHERE state = 1 AND cancel = 0 ORDER BY priority DESC, id";

/// Reads the first waiting tasks of one demand.
pub(super) const OF_DEMAND: &str = "
    SELECT id, priority, spec_bytes FROM tasks INDEXED BY tasks_ready
    WHERE state = 1 AND cancel = 0 AND demand = ?1 ORDER BY priority DESC, id LIMIT ?2";

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

impl Candidate {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            priority: row.get(1)?,
            spec_bytes: row.get(2)?,
        })
    }
}

impl Claimant {
    /// Whether it carries the tags and has the amounts at all.
    fn meets(&self, wanted: &Wanted) -> bool {
        self.capacity.lack_of(&wanted.amounts).is_none()
            && wanted.tags.iter().all(|tag| self.tags.contains(tag))
    }
}

/// What the tasks of a demand want.
#[derive(Debug)]
pub(super) struct Wanted {
    tags: Vec<String>,
    amounts: Capacity,
}

/// Demands as they were read: they never change.
#[derive(Debug, Default)]
pub(super) struct WantsRead(HashMap<i64, Wanted>);

impl WantsRead {
    /// Most demands that are remembered; beyond that they are read anew.
    const MOST: usize = 65_536;

    fn of(&mut self, conn: &Connection, demand: i64) -> Result<&Wanted, StoreError> {
        if self.0.len() >= Self::MOST && !self.0.contains_key(&demand) {
            self.0.clear();
        }
        match self.0.entry(demand) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let mut statement = conn.prepare_cached(
                    "SELECT tags, milli_cpus, mem_bytes, gpus FROM demands WHERE id = ?1",
                )?;
                let wanted = statement.query_row([demand], |row| {
                    Ok(Wanted {
                        tags: from_json(row, 0)?.unwrap_or_default(),
                        amounts: capacity(row, 1)?,
                    })
                })?;
                Ok(place.insert(wanted))
            }
        }
    }

    /// Forgets everything: a demand may have been made by what was undone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
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
    fn candidates(&mut self, claimant: &Claimant, limit: u32) -> Result<Vec<i64>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut candidates = match self.take_from_the_front(claimant, limit)? {
            Some(candidates) => candidates,
            None => self.ask_each_demand(claimant, limit)?,
        };
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

    /// The first rows of the queue that the holder can have; `None` when too many are for others.
    fn take_from_the_front(
        &mut self,
        claimant: &Claimant,
        limit: u32,
    ) -> Result<Option<Vec<Candidate>>, StoreError> {
        let Self {
            conn,
            wants,
            withheld,
            ..
        } = self;
        let mut statement = conn.prepare_cached(QUEUE)?;
        let mut rows = statement.query([])?;
        let mut met = HashMap::new();
        let (mut found, mut skipped) = (Vec::new(), 0);
        while found.len() < limit as usize
            && let Some(row) = rows.next()?
        {
            let candidate = Candidate::read(row)?;
            let demand: i64 = row.get(3)?;
            let is_met = match met.get(&demand) {
                Some(is_met) => *is_met,
                None => {
                    let is_met = claimant.meets(wants.of(conn, demand)?);
                    met.insert(demand, is_met);
                    is_met
                }
            };
            if is_met && !withheld.has(conn, candidate.id)? {
                found.push(candidate);
                continue;
            }
            skipped += 1;
            if skipped > MOST_SKIPPED {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The first rows of every demand with waiting tasks that the holder meets.
    fn ask_each_demand(
        &mut self,
        claimant: &Claimant,
        limit: u32,
    ) -> Result<Vec<Candidate>, StoreError> {
        let Self {
            conn,
            wants,
            withheld,
            ..
        } = self;
        let mut waiting = conn.prepare_cached("SELECT id FROM demands WHERE ready > 0")?;
        let waiting = waiting.query_map([], |row| row.get(0))?;
        let waiting: Vec<i64> = waiting.collect::<rusqlite::Result<_>>()?;
        let mut found = Vec::new();
        let mut statement = conn.prepare_cached(OF_DEMAND)?;
        for demand in waiting {
            if !claimant.meets(wants.of(conn, demand)?) {
                continue;
            }
            for candidate in statement.query_map((demand, limit), Candidate::read)? {
                let candidate = candidate?;
                if !withheld.has(conn, candidate.id)? {
                    found.push(candidate);
                }
            }
        }
        Ok(found)
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
