//! Holders: registration with inventory, renewal, leaving, modes.

use std::collections::HashSet;

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::db::{Db, json};
use super::rows::{from_json, micros};
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::{
    Changes, Holder, HolderId, HolderKind, HolderSession, ReclaimCause, Registered, Registration,
    SUBJECT_LABEL, StoreError,
};
use crate::protocol::session::{HeldLease, ManagerStatus};
use crate::protocol::{Boot, Mode};

/// The number a kind is stored as.
pub(super) fn kind_number(kind: HolderKind) -> i64 {
    match kind {
        HolderKind::Manager => 0,
        HolderKind::Worker => 1,
    }
}

/// The kind stored as a number.
pub(super) fn kind(number: i64) -> HolderKind {
    match number {
        0 => HolderKind::Manager,
        _ => HolderKind::Worker,
    }
}

impl Db {
    pub(super) fn register(
        &mut self,
        registration: &Registration,
    ) -> Result<Registered, StoreError> {
        if registration.holder.kind == HolderKind::Manager {
            self.check_identity(registration)?;
        }
        let mode = self.mode_for(registration)?;
        let session = self.begin_session(registration, mode)?;
        let (drop, changes) = self.settle_inventory(session.holder, &registration.inventory)?;
        Ok(Registered {
            session,
            drop,
            mode,
            changes,
        })
    }

    /// A manager's name is bound to the token that it came with first, and what it holds to lives that know each other.
    fn check_identity(&self, registration: &Registration) -> Result<(), StoreError> {
        let holder = registration.holder;
        let manager = holder.uuid;
        let mut statement = self.conn.prepare_cached(
            "SELECT h.boot, h.labels, h.host,
                    h.presence = 1 AND EXISTS (SELECT 1 FROM tasks t WHERE t.holder = h.id)
             FROM holders h WHERE h.kind = ?1 AND h.uuid = ?2",
        )?;
        type Labels = std::collections::BTreeMap<String, String>;
        let known = statement
            .query_row((kind_number(holder.kind), manager.into_bytes()), |row| {
                let labels = from_json::<Labels>(row, 1)?.unwrap_or_default();
                let boot = Boot(row.get::<_, i64>(0)?.cast_unsigned());
                Ok((boot, labels, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some((boot, mut labels, host, holds)) = known else {
            return Ok(());
        };
        let bound = labels.remove(SUBJECT_LABEL);
        let shown = registration.labels.get(SUBJECT_LABEL);
        if let Some(bound) = bound.filter(|bound| Some(bound) != shown) {
            return Err(StoreError::Bound { manager, bound });
        }
        let continued = boot == registration.boot || registration.earlier.contains(&boot);
        match holds && !continued {
            true => Err(StoreError::Stranger { manager, host }),
            false => Ok(()),
        }
    }

    /// The mode that an operator set holds for later lives too, except the order to leave, which is done with.
    fn mode_for(&self, registration: &Registration) -> Result<Mode, StoreError> {
        let holder = registration.holder;
        let mut statement = self
            .conn
            .prepare_cached("SELECT mode, boot FROM holders WHERE kind = ?1 AND uuid = ?2")?;
        let known = statement
            .query_row(
                (kind_number(holder.kind), holder.uuid.into_bytes()),
                |row| Ok((from_json::<Mode>(row, 0)?, row.get::<_, i64>(1)?)),
            )
            .optional()?;
        let Some((mode, boot)) = known else {
            return self.mode_of_all();
        };
        let mode = mode.unwrap_or_default();
        let same_life = boot == registration.boot.0.cast_signed();
        let is_done = matches!(mode, Mode::Shutdown { .. }) && !same_life;
        Ok(if is_done { Mode::Run } else { mode })
    }

    fn begin_session(
        &self,
        registration: &Registration,
        mode: Mode,
    ) -> Result<HolderSession, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO holders (kind, uuid, boot, session, host, slots, milli_cpus, tags, labels, mode, status,
                                  presence, expires_us, last_seen_us, mem_bytes, gpus)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?12, ?13, ?14)
             ON CONFLICT (kind, uuid) DO UPDATE SET
                 boot = excluded.boot, session = session + 1, host = excluded.host, slots = excluded.slots,
                 milli_cpus = excluded.milli_cpus, tags = excluded.tags, labels = excluded.labels,
                 mode = excluded.mode, presence = 1, expires_us = excluded.expires_us,
                 last_seen_us = excluded.last_seen_us, mem_bytes = excluded.mem_bytes, gpus = excluded.gpus
             RETURNING id, session",
        )?;
        let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let capacity = registration.capacity;
        let values = rusqlite::params![
            kind_number(registration.holder.kind),
            registration.holder.uuid.into_bytes(),
            registration.boot.0.cast_signed(),
            registration.host,
            registration.slots,
            capacity.milli_cpus.map(amount),
            json(&registration.tags),
            encoded(&registration.labels),
            encoded(&mode),
            encoded(&ManagerStatus::default()),
            match registration.endless {
                true => Self::ENDLESS_US,
                false => self.term_end_us(),
            },
            self.clock.wall_us(),
            capacity.mem_bytes.map(amount),
            capacity.gpus.map(amount),
        ];
        Ok(statement.query_row(values, |row| {
            Ok(HolderSession {
                holder: HolderId(row.get(0)?),
                number: row.get(1)?,
            })
        })?)
    }

    /// Keeps what is the holder's, names the rest of the inventory, and takes back what the inventory lacks.
    fn settle_inventory(
        &mut self,
        holder: HolderId,
        inventory: &[HeldLease],
    ) -> Result<(Vec<HeldLease>, Changes), StoreError> {
        let now_us = self.clock.wall_us();
        let held = self.load_held(holder)?;
        let mut ids: Vec<i64> = inventory.iter().map(|held| held.task.id).collect();
        ids.extend(held.iter().map(|task| task.record.task.id));
        ids.sort_unstable();
        ids.dedup();
        let mut tasks = self.load(&ids)?;
        let mut fx = Effects::default();
        let (mut kept, mut drop) = (HashSet::new(), Vec::new());
        for line in inventory {
            let place = tasks.binary_search_by_key(&line.task.id, |task| task.record.task.id);
            let keeps = place.is_ok_and(|place| {
                let record = &mut tasks[place].record;
                record.task == line.task && record.keep(holder, line.lease, &mut fx)
            });
            if keeps {
                kept.insert(line.task.id);
            } else {
                drop.push(*line);
            }
        }
        for task in &mut tasks {
            let record = &mut task.record;
            if record.holder == Some(holder) && !kept.contains(&record.task.id) {
                let words = "its holder came back without it";
                record.take_back(ReclaimCause::Inventory, words, now_us, &mut fx);
            }
        }
        let changes = self.apply(&tasks, fx)?;
        Ok((drop, changes))
    }

    pub(super) fn renew(
        &self,
        session: HolderSession,
        status: Option<ManagerStatus>,
        suspects: Vec<HeldLease>,
    ) -> Result<Vec<HeldLease>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "UPDATE holders SET presence = 1, last_seen_us = ?4, status = coalesce(?5, status),
                 expires_us = CASE presence WHEN 1 THEN max(expires_us, ?3) ELSE ?3 END
             WHERE id = ?1 AND session = ?2 AND presence > 0",
        )?;
        let renewed = statement.execute(rusqlite::params![
            session.holder.0,
            session.number,
            self.term_end_us(),
            self.clock.wall_us(),
            status.as_ref().map(encoded),
        ])?;
        if renewed == 0 {
            return Err(StoreError::Replaced);
        }
        self.without_held(session.holder, suspects)
    }

    /// Of `suspects`, what the holder does not have.
    fn without_held(
        &self,
        holder: HolderId,
        suspects: Vec<HeldLease>,
    ) -> Result<Vec<HeldLease>, StoreError> {
        if suspects.is_empty() {
            return Ok(suspects);
        }
        let ids: Vec<i64> = suspects.iter().map(|suspect| suspect.task.id).collect();
        let held: HashSet<_> = self
            .load(&ids)?
            .into_iter()
            .filter(|task| task.record.holder == Some(holder))
            .map(|task| (task.record.task, task.record.lease))
            .collect();
        let is_lost = |suspect: &HeldLease| !held.contains(&(suspect.task, suspect.lease));
        Ok(suspects.into_iter().filter(is_lost).collect())
    }

    pub(super) fn leave(&mut self, session: HolderSession) -> Result<Changes, StoreError> {
        // The number moves on, so that nothing of this session acts after its end.
        let mut statement = self.conn.prepare_cached(
            "UPDATE holders SET presence = 0, session = session + 1
             WHERE id = ?1 AND session = ?2 AND presence > 0",
        )?;
        let left = statement.execute((session.holder.0, session.number))?;
        drop(statement);
        if left == 0 {
            return Err(StoreError::Replaced);
        }
        let mut changes =
            self.take_back_all(session.holder, ReclaimCause::Left, "its holder left")?;
        changes.gone.push(session.holder);
        Ok(changes)
    }

    /// Takes back everything a holder has.
    pub(super) fn take_back_all(
        &mut self,
        holder: HolderId,
        cause: ReclaimCause,
        words: &str,
    ) -> Result<Changes, StoreError> {
        let now_us = self.clock.wall_us();
        let mut fx = Effects::default();
        let mut tasks = self.load_held(holder)?;
        for task in &mut tasks {
            task.record.take_back(cause, words, now_us, &mut fx);
        }
        self.apply(&tasks, fx)
    }

    pub(super) fn set_mode(&self, holder: Holder, mode: Mode) -> Result<HolderId, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "UPDATE holders SET mode = ?3 WHERE kind = ?1 AND uuid = ?2 RETURNING id",
        )?;
        let id = statement
            .query_row(
                (
                    kind_number(holder.kind),
                    holder.uuid.into_bytes(),
                    encoded(&mode),
                ),
                |row| row.get(0),
            )
            .optional()?;
        id.map(HolderId).ok_or_else(|| unknown(holder))
    }

    /// Sets the mode of all, in one piece.
    pub(super) fn set_mode_of_all(&self, mode: Mode) -> Result<Vec<HolderId>, StoreError> {
        let leaves = matches!(mode, Mode::Shutdown { .. });
        if !leaves {
            let mut keep = self.conn.prepare_cached(
                "INSERT INTO meta (name, value) VALUES ('mode_of_all', ?1)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?;
            keep.execute([encoded(&mode).into_bytes()])?;
        }
        let mut statement = self.conn.prepare_cached(
            "UPDATE holders SET mode = ?1 WHERE presence = 1 OR NOT ?2 RETURNING id",
        )?;
        let ids = statement.query_map((encoded(&mode), leaves), |row| Ok(HolderId(row.get(0)?)))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// The mode of whoever comes for the first time.
    fn mode_of_all(&self) -> Result<Mode, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE name = 'mode_of_all'")?;
        let kept = statement.query_row([], |row| row.get::<_, Vec<u8>>(0));
        let kept = kept.optional()?.unwrap_or_default();
        // What no version of this program writes is nobody's wish.
        Ok(serde_json::from_slice(&kept).unwrap_or_default())
    }

    /// Serving begins: every open lease gets a full new term.
    pub(super) fn renew_all(&self) -> Result<(), StoreError> {
        let term = micros(self.term).saturating_add(self.serving_us());
        self.conn.execute(
            "UPDATE holders SET expires_us = ?1 WHERE presence = 1",
            [term],
        )?;
        Ok(())
    }
}

/// The error for a holder that is not there.
pub(super) fn unknown(holder: Holder) -> StoreError {
    let uuid: Uuid = holder.uuid;
    StoreError::NotFound {
        what: holder.kind.as_str(),
        uuid,
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what is stored of a holder is plain data")
}
