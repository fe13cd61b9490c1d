//! Records of the ledger as rows, and back.
//!
//! [`Db::load`] reads the hot columns of many tasks in one statement, [`Db::apply`] writes records and effects back, each
//! row bound to a prepared statement, and keeps every counter: tasks by suite and state, ready tasks by demand, the
//! sequence of ends.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, params};
use uuid::Uuid;

use super::chains::FROM_THE_FIRST;
use super::db::{Db, json};
use super::results;
use crate::coordinator::store::clock::whole_us;
use crate::coordinator::store::ledger::{AttemptWrite, Effects, Finish, Record, Settled};
use crate::coordinator::store::{CancelWish, Changes, EndCursor, Ended, HolderId, StoreError};
use crate::protocol::api::TaskEnd;
use crate::protocol::ids::{Lease, TaskRef};
use crate::protocol::report::Reason;
use crate::protocol::{Outcome, TaskState};

/// The columns that [`record`] reads, in its order.
macro_rules! record_columns {
    () => {
        "t.id, t.uuid, t.suite, s.uuid, t.demand, t.state, t.lease, t.settled, t.holder, t.last_holder, t.cancel, \
         t.attempts, t.failures, t.max_attempts, t.backoff, t.open_attempt, t.queued_us, t.claimed_us, t.started_us, \
         t.finished_us, t.reason, t.exit_code, t.requeue_cause, t.retry_on, t.waits"
    };
}
/// How many they are.
pub(super) const RECORD_COLUMNS: usize = 25;
pub(super) use record_columns;

/// Reads a record from a row that begins with [`record_columns`].
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        task: TaskRef {
            id: row.get(0)?,
            uuid: uuid(row, 1)?,
        },
        suite: row.get(2)?,
        suite_uuid: uuid(row, 3)?,
        demand: row.get(4)?,
        state: state(row, 5)?,
        lease: Lease(row.get::<_, i64>(6)?.cast_unsigned()),
        settled: settled(row.get(7)?),
        holder: row.get::<_, Option<i64>>(8)?.map(HolderId),
        last_holder: row.get::<_, Option<i64>>(9)?.map(HolderId),
        cancel: wish(row.get(10)?),
        attempts: row.get(11)?,
        failures: row.get(12)?,
        max_attempts: row.get(13)?,
        backoff: from_json(row, 14)?,
        open_attempt: row.get(15)?,
        queued_us: row.get(16)?,
        claimed_us: row.get(17)?,
        started_us: row.get(18)?,
        finished_us: row.get(19)?,
        reason: row
            .get::<_, Option<String>>(20)?
            .as_deref()
            .and_then(reason),
        exit_code: row.get(21)?,
        requeue_cause: row.get(22)?,
        retry_on: from_json(row, 23)?,
        waits: row.get(24)?,
    })
}

/// A uuid column.
pub(super) fn uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(index)?))
}

/// A state column.
pub(super) fn state(row: &Row<'_>, index: usize) -> rusqlite::Result<TaskState> {
    let number: i64 = row.get(index)?;
    let mut states = TaskState::ALL.into_iter();
    let state = states.find(|state| state_number(*state) == number);
    state.ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

/// A column that holds JSON or NULL.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    index: usize,
) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(index)? else {
        return Ok(None);
    };
    let value = serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
    })?;
    Ok(Some(value))
}

/// The number a state is stored as.
pub(super) fn state_number(state: TaskState) -> i64 {
    match state {
        TaskState::Pending => 0,
        TaskState::Ready => 1,
        TaskState::Assigned => 2,
        TaskState::Running => 3,
        TaskState::Completed => 4,
        TaskState::Failed => 5,
        TaskState::Cancelled => 6,
    }
}

/// The outcome that a terminal state stands for.
pub(super) fn outcome(state: TaskState) -> Option<Outcome> {
    match state {
        TaskState::Completed => Some(Outcome::Completed),
        TaskState::Failed => Some(Outcome::Failed),
        TaskState::Cancelled => Some(Outcome::Cancelled),
        _ => None,
    }
}

pub(super) fn reason(word: &str) -> Option<Reason> {
    Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == word)
}

fn settled(number: i64) -> Settled {
    match number {
        1 => Settled::Ended(Outcome::Completed),
        2 => Settled::Ended(Outcome::Failed),
        3 => Settled::Ended(Outcome::Cancelled),
        4 => Settled::Released,
        _ => Settled::Open,
    }
}

fn settled_number(settled: Settled) -> i64 {
    match settled {
        Settled::Open => 0,
        Settled::Ended(Outcome::Completed) => 1,
        Settled::Ended(Outcome::Failed) => 2,
        Settled::Ended(Outcome::Cancelled) => 3,
        Settled::Released => 4,
    }
}

fn wish(number: i64) -> Option<CancelWish> {
    match number {
        1 => Some(CancelWish::Graceful),
        2 => Some(CancelWish::Now),
        _ => None,
    }
}

pub(super) fn wish_number(wish: Option<CancelWish>) -> i64 {
    match wish {
        None => 0,
        Some(CancelWish::Graceful) => 1,
        Some(CancelWish::Now) => 2,
    }
}

/// A record in a transaction, with the state it was read in.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) record: Record,
    before: TaskState,
}

impl Tracked {
    pub(super) fn new(record: Record) -> Self {
        Self {
            before: record.state,
            record,
        }
    }
}

pub(super) const UPDATE_TASK: &str = "
    UPDATE tasks SET
        state = ?2, lease = ?3, settled = ?4, holder = ?5, last_holder = ?6, cancel = ?7, attempts = ?8, failures = ?9,
        waits = ?10, open_attempt = ?11, queued_us = ?12, claimed_us = ?13, started_us = ?14, finished_us = ?15,
        reason = ?16, exit_code = ?17, requeue_cause = ?18, end_seq = coalesce(end_seq, ?19)
    WHERE id = ?1";

const UPSERT_ATTEMPT: &str = "
    INSERT INTO attempts (task, attempt, lease, try_no, holder, started_us, ended_us, end, cause)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (task, attempt) DO UPDATE SET ended_us = excluded.ended_us, end = excluded.end";

const ADD_COUNT: &str = "
    INSERT INTO counts (suite, state, n) VALUES (?1, ?2, ?3)
    ON CONFLICT (suite, state) DO UPDATE SET n = n + excluded.n";

const ADD_READY: &str = "UPDATE demands SET ready = ready + ?2 WHERE id = ?1";

/// The suite number of the whole store in the counts.
pub(super) const WHOLE_STORE: i64 = 0;

/// Moves between states, gathered.
#[derive(Debug, Default)]
pub(super) struct Moves {
    counts: BTreeMap<(i64, i64), i64>,
    ready: BTreeMap<i64, i64>,
}

impl Moves {
    /// Adds `n` tasks to a state, or takes them from it.
    pub(super) fn add(&mut self, suite: i64, demand: i64, state: TaskState, n: i64) {
        for suite in [suite, WHOLE_STORE] {
            *self.counts.entry((suite, state_number(state))).or_default() += n;
        }
        if state == TaskState::Ready {
            *self.ready.entry(demand).or_default() += n;
        }
    }
}

impl Db {
    /// Reads tasks by row id, in order of their ids; unknown ones are left out.
    pub(super) fn load(&self, ids: &[i64]) -> Result<Vec<Tracked>, StoreError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM json_each(?1) AS wanted JOIN tasks t ON t.id = wanted.value JOIN suites s ON s.id = t.suite \
             ORDER BY t.id"
        );
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([json(ids)], record)?;
        Ok(rows
            .map(|row| row.map(Tracked::new))
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Reads every task that a holder has.
    pub(super) fn load_held(&self, holder: HolderId) -> Result<Vec<Tracked>, StoreError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM tasks t JOIN suites s ON s.id = t.suite WHERE t.holder = ?1 ORDER BY t.id"
        );
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([holder.0], record)?;
        Ok(rows
            .map(|row| row.map(Tracked::new))
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Writes records and effects back with all that follows for tasks that wait for them, and says what changed.
    pub(super) fn apply(&mut self, tasks: &[Tracked], fx: Effects) -> Result<Changes, StoreError> {
        let mut changes = self.write(tasks, fx)?;
        if self.tally.has_chains && !changes.ended.is_empty() {
            let ended: Vec<i64> = changes.ended.iter().map(|end| end.end.id).collect();
            changes.extend(self.follow(&ended, FROM_THE_FIRST)?);
        }
        Ok(changes)
    }

    /// Writes records and effects back, and says what changed.
    pub(super) fn write(&mut self, tasks: &[Tracked], fx: Effects) -> Result<Changes, StoreError> {
        let now_us = self.clock.wall_us();
        let ends = self.number_ends(&fx.finished);
        self.for_each(UPDATE_TASK, tasks, |statement, task| {
            let record = &task.record;
            statement.execute(params![
                record.task.id,
                state_number(record.state),
                record.lease.0.cast_signed(),
                settled_number(record.settled),
                record.holder.map(|holder| holder.0),
                record.last_holder.map(|holder| holder.0),
                wish_number(record.cancel),
                record.attempts,
                record.failures,
                record.waits,
                record.open_attempt,
                record.queued_us,
                record.claimed_us,
                record.started_us,
                record.finished_us,
                record.reason.map(Reason::as_str),
                record.exit_code,
                record.requeue_cause,
                ends.get(&record.task.id),
            ])
        })?;
        self.write_attempts(&fx.attempts)?;
        self.write_results(&fx.finished)?;
        self.for_each(
            results::INSERT_OF_ATTEMPT,
            &fx.failed,
            |statement, failed| {
                let (result, tails) = results::columns(&failed.result);
                statement.execute((failed.task_id, failed.attempt, result, tails))
            },
        )?;
        let ready = self.count_moves(tasks)?;
        let ended = fx.finished.into_iter().map(|finish| {
            let cursor = EndCursor(ends[&finish.task.id]);
            ended(finish, cursor)
        });
        let mut cancels = fx.cancels;
        cancels.sort_unstable();
        cancels.dedup();
        Ok(Changes {
            ready,
            ended: ended.collect(),
            reclaimed: fx.reclaimed,
            cancels,
            stale: fx.stale,
            next_due: fx.due_us.map(|due| until(due, now_us)),
            ..Changes::default()
        })
    }

    /// Gives every end its number.
    fn number_ends(&mut self, finished: &[Finish]) -> BTreeMap<i64, i64> {
        let number = |finish: &Finish| {
            self.tally.last_end += 1;
            (finish.task.id, self.tally.last_end)
        };
        finished.iter().map(number).collect()
    }

    fn write_attempts(&self, attempts: &[AttemptWrite]) -> Result<(), StoreError> {
        self.for_each(UPSERT_ATTEMPT, attempts, |statement, attempt| {
            statement.execute(params![
                attempt.task_id,
                attempt.attempt,
                attempt.lease.0.cast_signed(),
                attempt.try_no.0,
                attempt.holder.map(|holder| holder.0),
                attempt.started_us,
                attempt.ended_us,
                attempt.end,
                attempt.cause,
            ])
        })
    }

    fn write_results(&self, finished: &[Finish]) -> Result<(), StoreError> {
        self.for_each(results::INSERT, finished, |statement, finish| {
            let (result, tails) = results::columns(&finish.result);
            statement.execute((finish.task.id, result, tails))
        })
    }

    /// Keeps the counters; returns how many tasks became ready.
    fn count_moves(&self, tasks: &[Tracked]) -> Result<u64, StoreError> {
        let mut moves = Moves::default();
        let mut ready = 0;
        for Tracked { record, before } in tasks {
            if record.state == *before {
                continue;
            }
            moves.add(record.suite, record.demand, *before, -1);
            moves.add(record.suite, record.demand, record.state, 1);
            ready += u64::from(record.state == TaskState::Ready);
        }
        self.write_moves(&moves)?;
        Ok(ready)
    }

    /// Adds moves to the counters.
    pub(super) fn write_moves(&self, moves: &Moves) -> Result<(), StoreError> {
        self.for_each(
            ADD_COUNT,
            &moves.counts,
            |statement, ((suite, state), n)| match *n {
                0 => Ok(0),
                n => statement.execute((suite, state, n)),
            },
        )?;
        self.for_each(ADD_READY, &moves.ready, |statement, (demand, n)| match *n {
            0 => Ok(0),
            n => statement.execute((demand, n)),
        })
    }
}

fn ended(finish: Finish, cursor: EndCursor) -> Ended {
    Ended {
        cursor,
        suite: finish.suite_uuid,
        end: TaskEnd {
            id: finish.task.id,
            uuid: finish.task.uuid,
            outcome: finish.outcome,
            attempts: finish.attempts,
            result: finish.result,
            follow_ups: Vec::new(),
        },
    }
}

/// Time from `now_us` to `due_us`; zero when that is over.
pub(super) fn until(due_us: i64, now_us: i64) -> Duration {
    Duration::from_micros(due_us.saturating_sub(now_us).max(0).unsigned_abs())
}

/// A duration in whole microseconds, for columns.
pub(super) fn micros(duration: Duration) -> i64 {
    whole_us(duration)
}
