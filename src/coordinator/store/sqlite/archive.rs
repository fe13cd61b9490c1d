//! A store that nobody serves, opened for reading alone.
//!
//! It takes no lock and begins no epoch, so looking at a finished run changes nothing. A coordinator may start beside
//! it: the archive then sees its commits.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::db::Reader;
use super::thread::StoreThread;
use super::{FILE_NAME, capacity, levels, lives, no_thread, query, results, schema};
use crate::coordinator::store::{
    ArtifactRecord, Counts, Levels, OpenError, QueuePlace, StoreError, StoreReader, TaskQuery,
    Whereabouts,
};
use crate::protocol::api::{SuiteSummary, TaskDetail, TaskSummary};
use crate::protocol::{Capacity, TaskResult};

/// The reading half of a [`super::SqliteStore`].
#[derive(Debug)]
pub struct SqliteArchive {
    thread: Arc<StoreThread<Reader>>,
}

impl SqliteArchive {
    /// Opens the store in a state directory.
    ///
    /// # Errors
    /// `Missing` when there is none; `OlderSchema` and `NewerSchema`; `Backend`.
    pub async fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let dir = state_dir.to_owned();
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(&dir));
        opening.await.unwrap_or_else(|panic| {
            Err(OpenError::Io {
                operation: "open the store in",
                path: state_dir.to_owned(),
                source: std::io::Error::other(panic),
            })
        })
    }

    fn open_blocking(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE_NAME);
        if !path.exists() {
            return Err(OpenError::Missing {
                dir: dir.to_owned(),
            });
        }
        let conn = schema::open_reader(&path)?;
        let thread = StoreThread::spawn("store-archive", Reader::new(conn));
        let thread = thread.map_err(|error| no_thread(dir, error))?;
        Ok(Self { thread })
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let call = self.thread.call(operation, |reader| work(&reader.conn));
        call.await
    }
}

#[async_trait]
impl StoreReader for SqliteArchive {
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
        self.read("list_tasks", move |conn| query::tasks(conn, &query))
            .await
    }

    async fn suites(&self, after: i64, limit: u32) -> Result<Vec<(i64, SuiteSummary)>, StoreError> {
        self.read("list_suites", move |conn| query::suites(conn, after, limit))
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
