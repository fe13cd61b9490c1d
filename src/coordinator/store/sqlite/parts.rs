//! Submissions that come in parts: each part is one transaction of bounded size and may be repeated, and nothing of the
//! whole can be claimed before its last part is there.
//!
//! The tasks of an unfinished submission wait like those between two attempts, for a time that never comes. The transaction
//! of the last part is the acceptance; the rounds of the timer then move the rows, some thousand each, so that others get
//! their turn. What was begun and not finished is cancelled an hour after its newest part.
//!
//! | name in `meta` | says |
//! |---|---|
//! | `open-submission:<uuid>` | parts that came |
//! | `submission:<uuid>` | the same of an accepted one; kept for a day, for whoever did not hear the answer |
//! | `admit:<uuid>` | row ids that are still to be moved |

use std::time::Duration;

use rusqlite::OptionalExtension;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use super::db::{Db, json};
use super::rows::micros;
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::{CancelWish, Changes, NewTasks, Part, StoreError, Submitted};
use crate::protocol::api::{SubmitResponse, SubmittedTask};

/// When a task is due whose submission is not complete.
pub(super) const NEVER_US: i64 = i64::MAX / 4;
/// Row ids that one round of the timer looks at.
const ROUND: i64 = 4096;
/// How long an unfinished submission waits for its next part.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How long an accepted one is remembered.
const REMEMBERED_S: i64 = 24 * 3600;

/// A submission.
#[derive(Debug, Serialize, Deserialize)]
struct Submission {
    suite: i64,
    suite_uuid: Uuid,
    /// Row ids by part, as runs of a first one and a number; a part of new tasks is one run.
    parts: Vec<Vec<(i64, i64)>>,
    /// When the newest part came.
    at_us: i64,
}

impl Submission {
    /// The first and the last of its row ids.
    fn bounds(&self) -> (i64, i64) {
        let runs = || self.parts.iter().flatten();
        let first = runs().map(|(first, _)| *first).min();
        let last = runs().map(|(first, number)| first + number - 1).max();
        (first.unwrap_or(0), last.unwrap_or(-1))
    }
}

/// Row ids as runs.
fn runs(ids: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((first, number)) if *first + *number == id => *number += 1,
            _ => runs.push((id, 1)),
        }
    }
    runs
}

/// Rows from `next` to `last` that are still to be moved.
#[derive(Debug, Serialize, Deserialize)]
struct Admission {
    suite: i64,
    next: i64,
    last: i64,
}

fn open_name(submission: Uuid) -> String {
    format!("open-submission:{submission}")
}

fn done_name(submission: Uuid) -> String {
    format!("submission:{submission}")
}

impl Db {
    pub(super) fn submit_part(
        &mut self,
        batch: &NewTasks,
        part: Part,
    ) -> Result<Submitted, StoreError> {
        let (open, done) = (open_name(part.submission), done_name(part.submission));
        let place = usize::try_from(part.number).unwrap_or(usize::MAX);
        let finished: Option<Submission> = self.kept_value(&done)?;
        let is_finished = finished.is_some();
        let known = match finished {
            Some(finished) => Some(finished),
            None => self.kept_value(&open)?,
        };
        if let Some(known) = &known
            && let Some(runs) = known.parts.get(place)
        {
            return self.told_again(known.suite_uuid, runs);
        }
        let mut submission = match known {
            Some(known) if !is_finished => known,
            None if place == 0 => self.begin_submission(batch)?,
            known => return Err(missing(part, known.as_ref())),
        };
        if place != submission.parts.len() {
            return Err(missing(part, Some(&submission)));
        }
        let is_alone = part.is_last && place == 0;
        let suite = (submission.suite, submission.suite_uuid);
        let mut submitted = self.submit_into(suite, batch, !is_alone)?;
        let ids = submitted.response.tasks.iter().map(|task| task.id);
        submission.parts.push(runs(ids));
        submission.at_us = self.clock.wall_us();
        if part.is_last {
            self.forget_value(&open)?;
            self.keep_value(&done, &submission)?;
        } else {
            self.keep_value(&open, &submission)?;
        }
        if part.is_last && !is_alone {
            let (next, last) = submission.bounds();
            let admission = Admission {
                suite: submission.suite,
                next,
                last,
            };
            self.keep_value(&format!("admit:{}", part.submission), &admission)?;
            submitted.changes.next_due = Some(Duration::ZERO);
        }
        Ok(submitted)
    }

    pub(super) fn abandon(&self, submission: Uuid) -> Result<(), StoreError> {
        let name = open_name(submission);
        if let Some(mut known) = self.kept_value::<Submission>(&name)? {
            known.at_us = 0;
            self.keep_value(&name, &known)?;
        }
        Ok(())
    }

    fn begin_submission(&self, batch: &NewTasks) -> Result<Submission, StoreError> {
        let now_us = self.clock.wall_us();
        let since = (now_us / 1_000_000 - REMEMBERED_S).max(0).unsigned_abs();
        // Names begin with their time.
        let oldest = Uuid::new_v7(Timestamp::from_unix(NoContext, since, 0));
        let mut forget = self
            .conn
            .prepare_cached("DELETE FROM meta WHERE name >= 'submission:' AND name < ?1")?;
        forget.execute([done_name(oldest)])?;
        let (suite, suite_uuid) = self.suite_for(batch.suite.as_ref())?;
        Ok(Submission {
            suite,
            suite_uuid,
            parts: Vec::new(),
            at_us: now_us,
        })
    }

    /// The answer to a part that is known.
    fn told_again(&self, suite: Uuid, runs: &[(i64, i64)]) -> Result<Submitted, StoreError> {
        let ids: Vec<i64> = runs
            .iter()
            .flat_map(|(first, number)| *first..first + number)
            .collect();
        let mut statement = self.conn.prepare_cached(
            "SELECT t.id, t.uuid FROM json_each(?1) AS wanted CROSS JOIN tasks t ON t.id = wanted.value
             ORDER BY wanted.key",
        )?;
        let rows = statement.query_map([json(&ids)], |row| {
            Ok(SubmittedTask {
                id: row.get(0)?,
                uuid: super::rows::uuid(row, 1)?,
                existing: true,
            })
        })?;
        let tasks = rows.collect::<rusqlite::Result<_>>()?;
        Ok(Submitted {
            response: SubmitResponse { suite, tasks },
            changes: Changes::default(),
        })
    }

    /// Whether rows of accepted submissions are still to be moved: what waits in them is as good as ready.
    pub(super) fn is_admitting(&self) -> Result<bool, StoreError> {
        Ok(self.first_value::<Admission>("admit:")?.is_some())
    }

    /// Moves some of them; true while there are more.
    pub(super) fn admit_some(&mut self) -> Result<bool, StoreError> {
        if self.is_admitting()? {
            self.advance_submissions()?;
        }
        self.is_admitting()
    }

    /// Moves some rows of one accepted submission, and cancels some of one that nobody goes on with.
    pub(super) fn advance_submissions(&mut self) -> Result<Changes, StoreError> {
        let mut changes = Changes::default();
        if let Some((name, mut admission)) = self.first_value::<Admission>("admit:")? {
            let until = admission.last.min(admission.next + ROUND - 1);
            let (suite, now_us) = (admission.suite, self.clock.wall_us());
            let mut tasks = self.load(&self.staged(suite, admission.next, until)?)?;
            for task in &mut tasks {
                task.record.admit(now_us);
            }
            changes.extend(self.apply(&tasks, Effects::default())?);
            admission.next = until + 1;
            if until >= admission.last {
                self.forget_value(&name)?;
            } else {
                self.keep_value(&name, &admission)?;
            }
            changes.next_due = Some(Duration::ZERO);
        } else if let Some((name, submission)) =
            self.first_value::<Submission>("open-submission:")?
        {
            changes.extend(self.cancel_abandoned(&name, &submission)?);
        }
        Ok(changes)
    }

    fn cancel_abandoned(
        &mut self,
        name: &str,
        submission: &Submission,
    ) -> Result<Changes, StoreError> {
        let now_us = self.clock.wall_us();
        if now_us < submission.at_us.saturating_add(micros(ABANDONED)) {
            return Ok(Changes::default());
        }
        let (first, last) = submission.bounds();
        let mut some = self.staged(submission.suite, first, last)?;
        some.truncate(usize::try_from(ROUND).unwrap_or(usize::MAX));
        if some.is_empty() {
            self.forget_value(name)?;
        }
        let mut fx = Effects::default();
        let mut tasks = self.load(&some)?;
        for task in &mut tasks {
            task.record.ask_cancel(CancelWish::Now, now_us, &mut fx);
        }
        let mut changes = self.apply(&tasks, fx)?;
        changes.next_due = Some(Duration::ZERO);
        Ok(changes)
    }

    /// Tasks of a suite that wait for the end of their submission.
    fn staged(&self, suite: i64, first: i64, last: i64) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id FROM tasks WHERE id BETWEEN ?1 AND ?2 AND suite = ?3 AND state = 0 AND queued_us = ?4",
        )?;
        let rows = statement.query_map((first, last, suite, NEVER_US), |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn kept_value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        let kept = statement.query_row([name], |row| row.get::<_, Vec<u8>>(0));
        kept.optional()?.map(|bytes| value(&bytes)).transpose()
    }

    /// The first value whose name begins so; `prefix` ends with a colon.
    fn first_value<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Option<(String, T)>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT name, value FROM meta WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT 1",
        )?;
        let behind = prefix.replace(':', ";");
        let row = statement.query_row([prefix, &behind], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        });
        let Some((name, bytes)) = row.optional()? else {
            return Ok(None);
        };
        Ok(Some((name, value(&bytes)?)))
    }

    fn keep_value<T: Serialize>(&self, name: &str, kept: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(kept).map_err(|_| StoreError::Corrupt { what: WHAT })?;
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?;
        statement.execute((name, bytes))?;
        Ok(())
    }

    fn forget_value(&self, name: &str) -> Result<(), StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("DELETE FROM meta WHERE name = ?1")?;
        statement.execute([name])?;
        Ok(())
    }
}

/// What these values are, in an error.
const WHAT: &str = "the state of a submission";

fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt { what: WHAT })
}

fn missing(part: Part, known: Option<&Submission>) -> StoreError {
    let there = known.map_or(0, |known| known.parts.len());
    StoreError::PartMissing {
        submission: part.submission,
        there: u32::try_from(there).unwrap_or(u32::MAX),
    }
}
