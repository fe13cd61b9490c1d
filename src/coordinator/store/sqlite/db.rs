//! The writing connection with what it remembers, and its transactions.
//!
//! Numbers that would cost a query each time (next row id, last end) are kept in a [`Tally`] that is put back whenever
//! a transaction or a part of it is undone. Used on the writing thread alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use super::cancel::Withheld;
use super::claim::WantsRead;
use super::lock::DirLock;
use super::thread::Context;
use crate::coordinator::store::StoreError;
use crate::coordinator::store::clock::{Clock, whole_us};

/// Rows of one JSON document. Sets are cut at this size so that a document stays at some megabytes.
pub(super) const CHUNK: usize = 4096;

/// Numbers kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Row id of the newest task.
    pub(super) last_task: i64,
    /// Number of the newest end.
    pub(super) last_end: i64,
    /// True once any task waits or waited for another: without, ends have nobody to look for.
    pub(super) has_chains: bool,
}

/// What a claim matches a holder against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Demand {
    /// Sorted tags as JSON.
    pub(super) tags: String,
    /// CPUs in thousandths (0 for one slot's share), bytes of memory, GPUs.
    pub(super) amounts: [i64; 3],
}

/// The writing side of the store.
pub(super) struct Db {
    pub(super) conn: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) term: Duration,
    pub(super) epoch: u32,
    pub(super) tally: Tally,
    pub(super) demands: HashMap<Demand, i64>,
    pub(super) wants: WantsRead,
    pub(super) withheld: Withheld,
    at_begin: Tally,
    at_mark: Tally,
    /// Released after the connection is closed: fields are dropped in this order.
    _lock: DirLock,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("epoch", &self.epoch)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// Adds the classification of this module to an error of the database.
impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, OutOfMemory,
            SystemIoFailure,
        };
        // Only lists are ever interrupted.
        if source.sqlite_error_code() == Some(OperationInterrupted) {
            return Self::TookTooLong { limit: LIST_LIMIT };
        }
        let retryable = matches!(
            source.sqlite_error_code(),
            Some(DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory | SystemIoFailure)
        );
        Self::Backend {
            operation: "a transaction",
            retryable,
            source: Arc::new(source),
        }
    }
}

impl Db {
    pub(super) fn new(
        conn: Connection,
        lock: DirLock,
        clock: Arc<dyn Clock>,
        term: Duration,
    ) -> Result<Self, rusqlite::Error> {
        let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let tally = Tally {
            last_task: number("SELECT coalesce(max(id), 0) FROM tasks")?,
            last_end: number(
                "SELECT coalesce(max(end_seq), 0) FROM tasks WHERE end_seq IS NOT NULL",
            )?,
            has_chains: number("SELECT EXISTS (SELECT 1 FROM upstreams)")? != 0,
        };
        Ok(Self {
            conn,
            clock,
            term,
            epoch: 0,
            tally,
            demands: HashMap::new(),
            wants: WantsRead::default(),
            withheld: Withheld::default(),
            at_begin: tally,
            at_mark: tally,
            _lock: lock,
        })
    }

    /// Serving time in whole microseconds.
    pub(super) fn serving_us(&self) -> i64 {
        whole_us(self.clock.serving())
    }

    /// When a term that begins now ends, in serving time.
    pub(super) fn term_end_us(&self) -> i64 {
        self.serving_us().saturating_add(whole_us(self.term))
    }

    /// The end of a term that no clock ends.
    pub(super) const ENDLESS_US: i64 = i64::MAX / 4;

    /// A number kept under a name; 0 when there is none.
    pub(super) fn meta_number(&self, name: &str) -> Result<i64, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE name = ?",
        )?;
        Ok(statement
            .query_row([name], |row| row.get(0))
            .optional()?
            .unwrap_or(0))
    }

    /// Adds to a number kept under a name.
    pub(super) fn meta_add(&self, name: &str, by: i64) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, CAST(CAST(?2 AS TEXT) AS BLOB))
             ON CONFLICT (name) DO UPDATE
             SET value = CAST(CAST(CAST(CAST(value AS TEXT) AS INTEGER) + ?2 AS TEXT) AS BLOB)",
        )?;
        statement.execute((name, by))?;
        Ok(())
    }

    /// Runs a statement once for each of a set. It is prepared once, and a row that is bound to it costs two thirds of one
    /// that travels as JSON (ARCHITECTURE.md, Decisions).
    pub(super) fn for_each<T>(
        &self,
        sql: &str,
        set: impl IntoIterator<Item = T>,
        execute: impl Fn(&mut rusqlite::Statement<'_>, T) -> rusqlite::Result<usize>,
    ) -> Result<(), StoreError> {
        let mut set = set.into_iter().peekable();
        if set.peek().is_none() {
            return Ok(());
        }
        let mut statement = self.conn.prepare_cached(sql)?;
        for row in set {
            execute(&mut statement, row)?;
        }
        Ok(())
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn put_back(&mut self, tally: Tally) {
        self.tally = tally;
        // Demands may have been made by what was undone.
        self.demands.clear();
        self.wants.clear();
    }
}

impl Context for Db {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.at_begin = self.tally;
        self.run("BEGIN IMMEDIATE")
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let committed = self.run("COMMIT");
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    fn roll_back(&mut self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::error!(%error, "a transaction of the store cannot be undone");
        }
        self.put_back(self.at_begin);
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        self.at_mark = self.tally;
        self.run("SAVEPOINT job")
    }

    fn accept(&mut self) -> Result<(), StoreError> {
        self.run("RELEASE job")
    }

    fn undo_to_mark(&mut self) -> Result<(), StoreError> {
        self.run("ROLLBACK TO job")?;
        self.run("RELEASE job")?;
        self.put_back(self.at_mark);
        Ok(())
    }
}

/// How long a user's list may take.
pub(super) const LIST_LIMIT: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock: some tenths of a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 20_000;

/// A reading connection.
pub(super) struct Reader {
    pub(super) conn: Connection,
    /// For lists alone.
    limit: Option<TimeLimit>,
}

/// When the query that runs is given up.
struct TimeLimit {
    each: Duration,
    deadline: Arc<Mutex<Instant>>,
}

impl Reader {
    /// For what is always short.
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn, limit: None }
    }

    /// For what a user may make long: each is given up after `each`.
    pub(super) fn of_lists(mut conn: Connection, each: Duration) -> rusqlite::Result<Self> {
        let deadline = Arc::new(Mutex::new(Instant::now()));
        let looked_at = Arc::clone(&deadline);
        let is_over = move || {
            let deadline = looked_at.lock().unwrap_or_else(PoisonError::into_inner);
            Instant::now() >= *deadline
        };
        conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(is_over))?;
        Ok(Self {
            conn,
            limit: Some(TimeLimit { each, deadline }),
        })
    }
}

impl Context for Reader {
    fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(limit) = &self.limit {
            let mut deadline = limit
                .deadline
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *deadline = Instant::now() + limit.each;
        }
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn roll_back(&mut self) {
        if !self.conn.is_autocommit() {
            // Nothing was written; at worst the next BEGIN reports the trouble.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn accept(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn undo_to_mark(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A set as one JSON array.
pub(super) fn json<T: Serialize>(set: &[T]) -> String {
    serde_json::to_string(set).expect("rows are plain data")
}
