//! The store on SQLite: one file, one process, three threads.
//!
//! [`SqliteStore`] is a handle: every method of [`Store`] is one job for the writing thread (which owns `Db`) or
//! for a reading one. Look-ups have a thread of their own, so that orders never wait behind the lists of users, which are
//! limited in number and time. SQLite is compiled in; the system's is never used.
//! Sets are read by one statement (`json_each`) and written row by row with a prepared one.
//!
//! ```text
//!   Store methods --jobs--> thread "store-write": Db (WAL, groups of jobs share a transaction)
//!                 --jobs--> thread "store-read":  Reader (sees every commit that was answered)
//!                 --jobs--> thread "store-list":  Reader with a time limit
//! ```

mod archive;
mod artifacts;
mod cancel;
mod capacity;
mod chains;
mod changes;
mod claim;
mod db;
mod filesystem;
mod holders;
mod levels;
mod lives;
mod lock;
mod parts;
mod query;
mod results;
mod retry;
mod rows;
mod schema;
mod select;
mod submit;
mod thread;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::OptionalExtension;
use uuid::Uuid;

pub use self::archive::SqliteArchive;
use self::db::{Db, LIST_LIMIT, Reader};
use self::filesystem::WalMode;
use self::lock::DirLock;
use self::thread::StoreThread;
use super::clock::{Clock, whole_us};
use super::{
    ArtifactRecord, Audit, CancelRest, CancelTarget, CancelWish, Cancelled, Changes, Claim,
    Claimed, Committed, Counts, EndCursor, Ended, Holder, HolderId, HolderKind, HolderRecord,
    HolderSession, Levels, Life, LiveHolder, NewTasks, OpenError, Part, QueuePlace, Registered,
    Registration, Reported, RetryTarget, Store, StoreError, StoreReader, Submitted, TaskQuery,
    UploadFence, Whereabouts,
};
use crate::coordinator::config::CoordinatorConfig;
use crate::protocol::Capacity;
use crate::protocol::api::{SubmittedTask, SuiteSummary, TaskDetail, TaskSummary};
use crate::protocol::session::{HeldLease, ManagerStatus};
use crate::protocol::{Artifact, CancelOrder, Lease, Mode, TaskResult};

/// Name of the database in the state directory.
const FILE_NAME: &str = "store.db";

/// A store in a state directory. Dropping it without [`Store::close`] waits for the jobs that were queued.
#[derive(Debug)]
pub struct SqliteStore {
    epoch: u32,
    instance: Uuid,
    clock: Arc<dyn Clock>,
    /// Closed, and dropped, before the writer: the last connection tidies the log away.
    readers: Option<Readers>,
    writer: Arc<StoreThread<Db>>,
}

/// The threads that read.
#[derive(Debug)]
struct Readers {
    look_ups: Arc<StoreThread<Reader>>,
    lists: Arc<StoreThread<Reader>>,
}

impl Readers {
    fn open(dir: &Path, path: &Path) -> Result<Self, OpenError> {
        let look_ups = Reader::new(schema::open_reader(path)?);
        let lists = Reader::of_lists(schema::open_reader(path)?, LIST_LIMIT)
            .map_err(|source| schema::backend(path, source))?;
        let spawn =
            |name, reader| StoreThread::spawn(name, reader).map_err(|error| no_thread(dir, error));
        Ok(Self {
            look_ups: spawn("store-read", look_ups)?,
            lists: spawn("store-list", lists)?,
        })
    }
}

impl SqliteStore {
    /// Takes the state directory, brings the schema up to date, and begins a new epoch.
    ///
    /// # Errors
    /// `InUse` when another process has the directory; `NewerSchema`; `Io` and `Backend` for what cannot be opened.
    pub async fn open(
        config: &CoordinatorConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let config = config.clone();
        let dir = config.state_dir.clone();
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(&config, clock));
        opening.await.unwrap_or_else(|panic| {
            Err(OpenError::Io {
                operation: "open the store in",
                path: dir,
                source: std::io::Error::other(panic),
            })
        })
    }

    fn open_blocking(config: &CoordinatorConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_as(config, clock, filesystem::wal_mode)
    }

    fn open_as(
        config: &CoordinatorConfig,
        clock: Arc<dyn Clock>,
        wal_mode: impl Fn(&Path) -> WalMode,
    ) -> Result<Self, OpenError> {
        let dir = &config.state_dir;
        let lock = DirLock::take(dir)?;
        let path = dir.join(FILE_NAME);
        let wal = wal_mode(dir);
        let conn = schema::open_writer(&path, config.durability, wal)?;
        let begin = || -> Result<(Db, Uuid), rusqlite::Error> {
            let mut db = Db::new(conn, lock, Arc::clone(&clock), config.lease)?;
            let instance = db.begin_life()?;
            Ok((db, instance))
        };
        let (db, instance) = begin().map_err(|source| schema::backend(&path, source))?;
        let epoch = db.epoch;
        let writer =
            StoreThread::spawn("store-write", db).map_err(|error| no_thread(dir, error))?;
        let readers = match wal {
            WalMode::Exclusive => None,
            WalMode::Shared => Some(Readers::open(dir, &path)?),
        };
        Ok(Self {
            epoch,
            instance,
            clock,
            readers,
            writer,
        })
    }

    /// From now on nothing can be written, as on a full disk.
    #[cfg(test)]
    pub(in crate::coordinator) async fn refuse_writes(&self) {
        let refuse = |db: &mut Db| Ok(db.conn.pragma_update(None, "query_only", true)?);
        self.write("close", refuse).await.unwrap();
    }

    /// Runs a change.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.call(operation, work).await
    }

    /// Runs a query that may be long, behind others like it alone.
    async fn list<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let thread = self.readers.as_ref().map(|readers| &readers.lists);
        if thread.is_some_and(|lists| lists.is_crowded()) {
            return Err(StoreError::Busy);
        }
        self.query(thread, operation, work).await
    }

    /// Runs a query that is always short, on a reading thread where there is one.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let thread = self.readers.as_ref().map(|readers| &readers.look_ups);
        self.query(thread, operation, work).await
    }

    /// Runs a query on a reading thread; on the writing one where there is none.
    async fn query<T: Send + 'static>(
        &self,
        thread: Option<&Arc<StoreThread<Reader>>>,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match thread {
            Some(reader) => reader.call(operation, |reader| work(&reader.conn)).await,
            None => self.writer.call(operation, |db| work(&db.conn)).await,
        }
    }
}

impl Db {
    /// One more epoch, a name for a new store, and a full new term for every lease.
    fn begin_life(&mut self) -> Result<Uuid, rusqlite::Error> {
        let transaction = self.conn.unchecked_transaction()?;
        let stored = |error: StoreError| match error {
            StoreError::Backend { source, .. } => {
                rusqlite::Error::ToSqlConversionFailure(Box::new(source))
            }
            other => rusqlite::Error::ToSqlConversionFailure(Box::new(other)),
        };
        self.meta_add("epoch", 1).map_err(stored)?;
        let epoch = self.meta_number("epoch").map_err(stored)?;
        self.renew_all().map_err(stored)?;
        let instance = kept(&self.conn, "instance", Uuid::new_v4().as_bytes())?;
        transaction.commit()?;
        self.epoch =
            u32::try_from(epoch).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, epoch))?;
        Ok(Uuid::from_slice(&instance).unwrap_or_default())
    }
}

/// The bytes kept under a name; `candidate` from now on when there were none.
fn kept(
    conn: &rusqlite::Connection,
    name: &str,
    candidate: &[u8],
) -> Result<Vec<u8>, rusqlite::Error> {
    let mut insert = conn
        .prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    insert.execute((name, candidate))?;
    let mut select = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let value = select.query_row([name], |row| row.get(0)).optional()?;
    value.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn no_thread(dir: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io {
        operation: "start a thread for the store in",
        path: dir.to_owned(),
        source,
    }
}

#[async_trait]
impl StoreReader for SqliteStore {
    async fn task(&self, uuid: Uuid) -> Result<Option<TaskDetail>, StoreError> {
        self.read("show_task", move |conn| query::task(conn, uuid))
            .await
    }

    async fn whereabouts(&self, uuid: Uuid) -> Result<Option<Whereabouts>, StoreError> {
        self.read("whereabouts", move |conn| query::whereabouts(conn, uuid))
            .await
    }

    async fn beyond(&self, capacity: Capacity) -> Result<Option<(i64, Capacity)>, StoreError> {
        self.read("beyond", move |conn| capacity::beyond(conn, capacity))
            .await
    }

    async fn place(&self, uuid: Uuid) -> Result<Option<QueuePlace>, StoreError> {
        self.read("place", move |conn| capacity::place(conn, uuid))
            .await
    }

    async fn tasks(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        self.list("list_tasks", move |conn| query::tasks(conn, &query))
            .await
    }

    async fn suites(&self, after: i64, limit: u32) -> Result<Vec<(i64, SuiteSummary)>, StoreError> {
        self.list("list_suites", move |conn| query::suites(conn, after, limit))
            .await
    }

    async fn suite(&self, uuid: Uuid) -> Result<Option<SuiteSummary>, StoreError> {
        self.read("show_suite", move |conn| query::suite(conn, uuid))
            .await
    }

    async fn attempt_result(
        &self,
        task: Uuid,
        attempt: u32,
    ) -> Result<Option<TaskResult>, StoreError> {
        self.read("show_task", move |conn| {
            results::of_attempt(conn, task, attempt)
        })
        .await
    }

    async fn suites_named(&self, text: String) -> Result<Vec<SuiteSummary>, StoreError> {
        self.read("list_suites", move |conn| query::suites_named(conn, &text))
            .await
    }

    async fn counts(&self, suite: Option<Uuid>) -> Result<Counts, StoreError> {
        self.read("count", move |conn| query::counts(conn, suite))
            .await
    }

    async fn levels(&self) -> Result<Levels, StoreError> {
        self.read("levels", levels::levels).await
    }

    async fn counts_of(&self, tasks: Vec<Uuid>) -> Result<Counts, StoreError> {
        self.read("count", move |conn| lives::counts_of(conn, &tasks))
            .await
    }

    async fn artifacts(&self, task: Uuid) -> Result<Vec<ArtifactRecord>, StoreError> {
        self.read("list_artifacts", move |conn| query::artifacts(conn, task))
            .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn instance(&self) -> Uuid {
        self.instance
    }

    async fn secret(&self, name: &'static str, candidate: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.write("keep_key", move |db| Ok(kept(&db.conn, name, &candidate)?))
            .await
    }

    async fn submit(&self, batch: NewTasks) -> Result<Submitted, StoreError> {
        self.write("submit", move |db| db.submit(&batch)).await
    }

    async fn submit_part(&self, batch: NewTasks, part: Part) -> Result<Submitted, StoreError> {
        self.write("submit", move |db| db.submit_part(&batch, part))
            .await
    }

    async fn abandon(&self, submission: Uuid) -> Result<(), StoreError> {
        self.write("abandon", move |db| db.abandon(submission))
            .await
    }

    async fn retry(
        &self,
        target: RetryTarget,
    ) -> Result<(Vec<SubmittedTask>, Changes), StoreError> {
        self.write("retry", move |db| db.retry(target)).await
    }

    async fn register(&self, registration: Registration) -> Result<Registered, StoreError> {
        self.write("register", move |db| db.register(&registration))
            .await
    }

    async fn live_holder(&self, holder: Holder) -> Result<LiveHolder, StoreError> {
        self.read("find_holder", move |conn| query::live_holder(conn, holder))
            .await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.write("claim", move |db| db.claim(claim)).await
    }

    async fn commit(
        &self,
        holder: HolderId,
        reports: Vec<Reported>,
    ) -> Result<Committed, StoreError> {
        self.write("commit", move |db| db.commit_reports(holder, reports))
            .await
    }

    async fn renew(
        &self,
        session: HolderSession,
        status: Option<ManagerStatus>,
        suspects: Vec<HeldLease>,
    ) -> Result<Vec<HeldLease>, StoreError> {
        self.write("renew", move |db| db.renew(session, status, suspects))
            .await
    }

    async fn leave(&self, session: HolderSession) -> Result<Changes, StoreError> {
        self.write("leave", move |db| db.leave(session)).await
    }

    async fn advance(&self) -> Result<Changes, StoreError> {
        self.write("advance", Db::advance).await
    }

    async fn cancel(
        &self,
        target: CancelTarget,
        wish: CancelWish,
    ) -> Result<Cancelled, StoreError> {
        self.write("cancel", move |db| db.cancel(&target, wish))
            .await
    }

    async fn cancel_rest(&self, mut rest: CancelRest) -> Result<u64, StoreError> {
        let mut marked = 0;
        let outcome = loop {
            // What is marked has to be there; the next look at the clock tells of what became ready.
            match self.write("cancel", Db::admit_some).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => break Err(error),
            }
            let some = rest.clone();
            match self.write("cancel", move |db| db.mark(&some)).await {
                Ok((count, next)) => {
                    marked += count;
                    match next {
                        Some(after) => rest.query.after = after,
                        None => break Ok(marked),
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let release = self.write("cancel", move |db| {
            db.release(&rest);
            Ok(())
        });
        release.await.and(outcome)
    }

    async fn cancel_orders(&self, holder: HolderId) -> Result<Vec<CancelOrder>, StoreError> {
        self.read("list_cancels", move |conn| {
            query::cancel_orders(conn, holder)
        })
        .await
    }

    async fn set_mode(&self, holder: Holder, mode: Mode) -> Result<HolderId, StoreError> {
        self.write("set_mode", move |db| db.set_mode(holder, mode))
            .await
    }

    async fn set_mode_of_all(&self, mode: Mode) -> Result<Vec<HolderId>, StoreError> {
        self.write("set_mode", move |db| db.set_mode_of_all(mode))
            .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write("probe", |db| db.meta_add("probes", 1)).await
    }

    async fn last_end(&self) -> Result<EndCursor, StoreError> {
        self.write("find_end", |db| Ok(EndCursor(db.tally.last_end)))
            .await
    }

    async fn newest_lives(&self, tasks: Vec<i64>) -> Result<Vec<Life>, StoreError> {
        self.read("list_tasks", move |conn| lives::newest(conn, &tasks))
            .await
    }

    async fn submitted_by_tasks(&self, suite: Uuid) -> Result<Vec<Life>, StoreError> {
        self.read("list_tasks", move |conn| lives::submitted(conn, suite))
            .await
    }

    async fn ends(&self, after: EndCursor, limit: u32) -> Result<Vec<Ended>, StoreError> {
        self.read("list_ends", move |conn| query::ends(conn, after, limit))
            .await
    }

    async fn holders(
        &self,
        kind: HolderKind,
        heard_within: Duration,
    ) -> Result<Vec<HolderRecord>, StoreError> {
        let since_us = self.clock.wall_us().saturating_sub(whole_us(heard_within));
        self.list("list_holders", move |conn| {
            query::holders(conn, kind, since_us)
        })
        .await
    }

    async fn check_upload(&self, fence: UploadFence) -> Result<(), StoreError> {
        self.read("check_upload", move |conn| artifacts::check(conn, fence))
            .await
            .map(drop)
    }

    async fn keep_artifact(
        &self,
        fence: UploadFence,
        artifact: Artifact,
    ) -> Result<Option<Lease>, StoreError> {
        self.write("keep_artifact", move |db| {
            db.keep_artifact(fence, &artifact)
        })
        .await
    }

    async fn leave_untidy(&self) -> Result<(), StoreError> {
        self.write("close", |db| {
            let option = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            Ok(db.conn.set_db_config(option, true).map(drop)?)
        })
        .await
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        self.list("audit", query::audit).await
    }

    async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.lists.close().await;
            readers.look_ups.close().await;
        }
        self.writer.close().await;
    }
}
