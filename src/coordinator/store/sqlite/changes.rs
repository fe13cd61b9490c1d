//! Changes to tasks that somebody or nobody holds: reports, and what time makes due.

use std::collections::HashMap;

use super::db::Db;
use super::rows::{Tracked, until};
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::{
    Changes, Committed, HolderId, NewTask, ReclaimCause, Reported, StoreError,
};
use crate::protocol::Verdict;

/// Tasks whose back-off ends in one transaction.
const DUE_BATCH: i64 = 4096;

impl Db {
    pub(super) fn commit_reports(
        &mut self,
        holder: HolderId,
        reports: Vec<Reported>,
    ) -> Result<Committed, StoreError> {
        self.touch(holder)?;
        let now_us = self.clock.wall_us();
        let task_of = |reported: &Reported| reported.commit.report.task_id;
        let mut ids: Vec<i64> = reports.iter().map(task_of).collect();
        ids.sort_unstable();
        ids.dedup();
        let tasks = self.load(&ids)?;
        let mut places: HashMap<i64, Tracked> = tasks
            .into_iter()
            .map(|task| (task.record.task.id, task))
            .collect();
        let mut fx = Effects::default();
        let mut changed = Vec::new();
        let mut submitting = HashMap::new();
        let mut verdicts = Vec::with_capacity(reports.len());
        for Reported { commit, follow_ups } in reports {
            let id = commit.report.task_id;
            let verdict = match places.get_mut(&id) {
                Some(task) => task.record.report(holder, commit, now_us, &mut fx),
                None => Verdict::Invalid {
                    message: format!("there is no task {id}"),
                },
            };
            if matches!(verdict, Verdict::Accepted | Verdict::Cancel) {
                changed.push(id);
            }
            if verdict == Verdict::Accepted && !follow_ups.is_empty() {
                submitting.insert(id, follow_ups);
            }
            verdicts.push(verdict);
        }
        changed.sort_unstable();
        changed.dedup();
        let changed: Vec<_> = changed.iter().filter_map(|id| places.remove(id)).collect();
        let mut changes = self.apply(&changed, fx)?;
        if !submitting.is_empty() {
            self.submit_with(&changed, submitting, &mut changes)?;
        }
        Ok(Committed { verdicts, changes })
    }

    /// Stores the follow-ups of the tasks that ended so that they count.
    fn submit_with(
        &mut self,
        tasks: &[Tracked],
        mut submitting: HashMap<i64, Vec<NewTask>>,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let suites: HashMap<i64, i64> = tasks
            .iter()
            .map(|task| (task.record.task.id, task.record.suite))
            .collect();
        let mut added = Changes::default();
        for ended in &mut changes.ended {
            let end = &mut ended.end;
            let accepted = end
                .result
                .follow_ups
                .as_ref()
                .map_or(0, |some| some.accepted);
            if let (1.., Some(tasks)) = (accepted, submitting.remove(&end.id)) {
                let (uuids, more) = self.add_follow_ups(suites[&end.id], end.id, &tasks)?;
                end.follow_ups = uuids;
                added.extend(more);
            }
        }
        changes.extend(added);
        Ok(())
    }

    pub(super) fn advance(&mut self) -> Result<Changes, StoreError> {
        let mut changes = self.end_backoffs()?;
        let unwanted = self.end_unwanted()?;
        let follows = unwanted.next_due;
        changes.extend(unwanted);
        for holder in self.expired_holders()? {
            changes.extend(self.take_back_all(holder, ReclaimCause::Expired, "lease expired")?);
            self.conn
                .prepare_cached("UPDATE holders SET presence = 2 WHERE id = ?1")?
                .execute([holder.0])?;
            changes.gone.push(holder);
        }
        let admitted = self.advance_submissions()?;
        let follows = follows.or(admitted.next_due);
        changes.extend(admitted);
        changes.next_due = follows.or(self.next_due()?);
        Ok(changes)
    }

    fn end_backoffs(&mut self) -> Result<Changes, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id FROM tasks WHERE state = 0 AND waits = 0 AND queued_us <= ?1
             ORDER BY queued_us LIMIT ?2",
        )?;
        let rows = statement.query_map((self.clock.wall_us(), DUE_BATCH), |row| row.get(0))?;
        let ids = rows.collect::<rusqlite::Result<Vec<i64>>>()?;
        drop(statement);
        if ids.is_empty() {
            return Ok(Changes::default());
        }
        let mut tasks = self.load(&ids)?;
        for task in &mut tasks {
            task.record.release_from_backoff();
        }
        self.apply(&tasks, Effects::default())
    }

    fn expired_holders(&self) -> Result<Vec<HolderId>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT id FROM holders WHERE presence = 1 AND expires_us <= ?1")?;
        let rows = statement.query_map([self.serving_us()], |row| row.get(0).map(HolderId))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Time until the earliest back-off or term ends.
    fn next_due(&self) -> Result<Option<std::time::Duration>, StoreError> {
        let earliest = |sql: &str, now: i64| -> Result<_, StoreError> {
            let mut statement = self.conn.prepare_cached(sql)?;
            let due: Option<i64> = statement.query_row([], |row| row.get(0))?;
            Ok(due.map(|due| until(due, now)))
        };
        let backoff = earliest(
            "SELECT min(queued_us) FROM tasks WHERE state = 0 AND waits = 0",
            self.clock.wall_us(),
        )?;
        let term = earliest(
            "SELECT min(expires_us) FROM holders WHERE presence = 1",
            self.serving_us(),
        )?;
        Ok(backoff.into_iter().chain(term).min())
    }
}
