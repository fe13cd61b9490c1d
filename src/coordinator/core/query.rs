//! Reading: tasks, suites, counts, holders, of a running coordinator or of one that is not running. Nothing here
//! changes anything.

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::Coordinator;
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::sqlite::SqliteArchive;
use crate::coordinator::store::{
    Audit, Clock as _, Counts, HolderId, HolderKind, HolderRecord, Life, METRICS_LABEL, StoreError,
    StoreReader, SystemClock, TaskQuery,
};
use crate::coordinator::why::{Candidate, why};
use crate::protocol::api::{
    ManagerSummary, SuiteSummary, TaskDetail, TaskFilter, TaskPage, WorkerSummary,
};
use crate::protocol::capacity::Lack;
use crate::protocol::why::TaskWhy;
use crate::protocol::{Capacity, Selection, TaskState};

/// Entries of a page when the request names no limit.
pub(super) const DEFAULT_LIMIT: u32 = 100;
/// Most entries of a page.
pub(super) const MAX_LIMIT: u32 = 1000;
/// How long a holder that is gone is still listed.
pub(super) const LISTED_AFTER_LAST_SEEN: Duration = Duration::from_secs(24 * 3600);

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Give it back to get the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// Everything about one task.
async fn task(store: &dyn StoreReader, uuid: Uuid) -> Result<TaskDetail, CoordinatorError> {
    let found = store.task(uuid).await?;
    Ok(found.ok_or(StoreError::NotFound { what: "task", uuid })?)
}

async fn at_attempt(
    store: &dyn StoreReader,
    uuid: Uuid,
    attempt: u32,
) -> Result<TaskDetail, CoordinatorError> {
    let found = task(store, uuid).await?;
    if attempt == found.summary.attempts && found.result.is_some() {
        return Ok(found);
    }
    match store.attempt_result(uuid, attempt).await? {
        Some(result) => Ok(TaskDetail {
            result: Some(result),
            // They are the last attempt's.
            artifacts: Vec::new(),
            ..found
        }),
        None => Err(CoordinatorError::NoAttempt {
            task: uuid,
            attempt,
            why: no_attempt(&found, attempt),
        }),
    }
}

/// Why nothing is kept of an attempt.
fn no_attempt(task: &TaskDetail, attempt: u32) -> String {
    let mut history = task.history.iter();
    let record = history.find(|record| record.attempt == attempt);
    match record.map(|record| record.end.as_deref()) {
        Some(None) => "it has not ended; read what it has written so far without --attempt, or follow it with -f".to_owned(),
        Some(Some(end)) => format!("it is over ({end}) and left no report of what it wrote"),
        None => match task.summary.attempts {
            0 => "it has not been begun".to_owned(),
            attempts => format!("there were {attempts}"),
        },
    }
}

async fn tasks(store: &dyn StoreReader, filter: &TaskFilter) -> Result<TaskPage, CoordinatorError> {
    let query = parse_filter(filter)?;
    let limit = query.limit;
    let one_more = TaskQuery {
        limit: limit + 1,
        ..query
    };
    let mut tasks = store.tasks(one_more).await?;
    let next_cursor = next_cursor(&mut tasks, limit, |task| task.id);
    Ok(TaskPage { tasks, next_cursor })
}

async fn suites(
    store: &dyn StoreReader,
    cursor: Option<&str>,
    limit: Option<u32>,
) -> Result<Page<SuiteSummary>, CoordinatorError> {
    let (after, limit) = (parse_cursor(cursor)?, parse_limit(limit)?);
    let mut suites = store.suites(after, limit + 1).await?;
    let next_cursor = next_cursor(&mut suites, limit, |(id, _)| *id);
    Ok(Page {
        items: suites.into_iter().map(|(_, suite)| suite).collect(),
        next_cursor,
    })
}

async fn suite(store: &dyn StoreReader, uuid: Uuid) -> Result<SuiteSummary, CoordinatorError> {
    let found = store.suite(uuid).await?;
    Ok(found.ok_or(StoreError::NotFound {
        what: "suite",
        uuid,
    })?)
}

/// The queries that need no running coordinator, for a type that has a [`StoreReader`].
macro_rules! queries {
    ($owner:ty, $owned:ident => $store:expr) => {
        impl $owner {
            /// Everything about one task.
            ///
            /// # Errors
            /// `NotFound`.
            pub async fn task(&self, uuid: Uuid) -> Result<TaskDetail, CoordinatorError> {
                let $owned = self;
                task($store, uuid).await
            }

            /// One page of tasks, oldest first.
            ///
            /// # Errors
            /// `BadQuery` for a state, cursor or limit that makes no sense; `NotFound` for an unknown suite.
            pub async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, CoordinatorError> {
                let $owned = self;
                tasks($store, filter).await
            }

            /// One page of suites, oldest first.
            ///
            /// # Errors
            /// `BadQuery` for a cursor or limit that makes no sense.
            pub async fn suites(
                &self,
                cursor: Option<&str>,
                limit: Option<u32>,
            ) -> Result<Page<SuiteSummary>, CoordinatorError> {
                let $owned = self;
                suites($store, cursor, limit).await
            }

            /// One suite with its counts.
            ///
            /// # Errors
            /// `NotFound`.
            pub async fn suite(&self, uuid: Uuid) -> Result<SuiteSummary, CoordinatorError> {
                let $owned = self;
                suite($store, uuid).await
            }

            /// A task with the result of one of its attempts in place of its last: how that one ended and what is kept of
            /// its output.
            ///
            /// # Errors
            /// `NotFound`; `NoAttempt` where nothing is kept of it.
            pub async fn task_at_attempt(
                &self,
                uuid: Uuid,
                attempt: u32,
            ) -> Result<TaskDetail, CoordinatorError> {
                let $owned = self;
                at_attempt($store, uuid, attempt).await
            }

            /// Suites that a text names, newest first, at most three and without counts: those of this name; without
            /// any, those whose name or uuid begins so.
            ///
            /// # Errors
            /// When the store fails.
            pub async fn suites_named(
                &self,
                text: String,
            ) -> Result<Vec<SuiteSummary>, CoordinatorError> {
                let $owned = self;
                Ok($store.suites_named(text).await?)
            }

            /// Tasks by state, of one suite or of all.
            ///
            /// # Errors
            /// `NotFound` when the suite does not exist.
            pub async fn counts(&self, suite: Option<Uuid>) -> Result<Counts, CoordinatorError> {
                let $owned = self;
                Ok($store.counts(suite).await?)
            }
        }
    };
}

queries!(Coordinator, coordinator => &*coordinator.shared.store);
queries!(Archive, archive => &archive.store);

/// The store of a coordinator that is not running, for reading: what `task`, `tasks` and `logs` show with
/// `--state-dir`. It takes no lock and changes nothing.
#[derive(Debug)]
pub struct Archive {
    store: SqliteArchive,
}

impl Archive {
    /// Opens the store in a state directory.
    ///
    /// # Errors
    /// `Open` when there is none, or it was written by another version.
    pub async fn open(state_dir: &Path) -> Result<Self, CoordinatorError> {
        let store = SqliteArchive::open(state_dir).await?;
        Ok(Self { store })
    }
}

impl Coordinator {
    /// Why a task is not running, or how its time was spent.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn why(&self, uuid: Uuid) -> Result<TaskWhy, CoordinatorError> {
        let store = &*self.shared.store;
        let task = task(store, uuid).await?;
        let place = store.place(uuid).await?;
        let place = place.ok_or(StoreError::NotFound { what: "task", uuid })?;
        let mut candidates = Vec::new();
        for kind in [HolderKind::Manager, HolderKind::Worker] {
            let records = store.holders(kind, LISTED_AFTER_LAST_SEEN).await?;
            candidates.extend(records.into_iter().map(|record| Candidate {
                connected: match kind {
                    HolderKind::Manager => self.is_connected(record.id),
                    HolderKind::Worker => record.live,
                },
                record,
            }));
        }
        let now_us = SystemClock::start().wall_us();
        Ok(why(&task, place, &candidates, now_us))
    }

    /// The first task that has not ended and wants more than this, with what it lacks.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn beyond(&self, there: Capacity) -> Result<Option<(i64, Lack)>, CoordinatorError> {
        let found = self.shared.store.beyond(there).await?;
        Ok(found.and_then(|(id, wanted)| Some((id, there.lack_of(&wanted)?))))
    }

    /// The newest life of each task, by row id, in no order: the task itself, or its latest repetition.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn newest_lives(&self, tasks: Vec<i64>) -> Result<Vec<Life>, CoordinatorError> {
        Ok(self.shared.store.newest_lives(tasks).await?)
    }

    /// Tasks of a suite that tasks submitted, oldest first, each by its newest life; the root is the submitting task.
    ///
    /// # Errors
    /// `NotFound` when there is no such suite.
    pub async fn submitted_by_tasks(&self, suite: Uuid) -> Result<Vec<Life>, CoordinatorError> {
        Ok(self.shared.store.submitted_by_tasks(suite).await?)
    }

    /// Managers that are live or were heard within a day.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn managers(&self) -> Result<Vec<ManagerSummary>, CoordinatorError> {
        let records = self
            .shared
            .store
            .holders(HolderKind::Manager, LISTED_AFTER_LAST_SEEN)
            .await?;
        let summary = |mut record: HolderRecord| ManagerSummary {
            trouble: self.trouble(&mut record),
            uuid: record.holder.uuid,
            live: record.live,
            metrics: record.labels.remove(METRICS_LABEL),
            connected: self.is_connected(record.id),
            host: record.host,
            workers: record.slots,
            leases: record.leases,
            last_seen_us: record.last_seen_us,
        };
        Ok(records.into_iter().map(summary).collect())
    }

    /// What an operator should know of a manager, in words.
    fn trouble(&self, record: &mut HolderRecord) -> Option<String> {
        let said = record.status.trouble.take().filter(|_| record.live);
        let post = self.shared.posts.get(record.id);
        let seen = post.and_then(|post| post.mishaps());
        let both: Vec<String> = said.into_iter().chain(seen).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// Independent workers that are live or were heard within a day.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn workers(&self) -> Result<Vec<WorkerSummary>, CoordinatorError> {
        let records = self
            .shared
            .store
            .holders(HolderKind::Worker, LISTED_AFTER_LAST_SEEN)
            .await?;
        let summary = |record: HolderRecord| WorkerSummary {
            uuid: record.holder.uuid,
            host: record.host,
            task: record.task,
            last_seen_us: record.last_seen_us,
        };
        Ok(records.into_iter().map(summary).collect())
    }

    /// The books: accepted = finished + in flight.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit(&self) -> Result<Audit, CoordinatorError> {
        Ok(self.shared.store.audit().await?)
    }

    fn is_connected(&self, id: HolderId) -> bool {
        let post = self.shared.posts.get(id);
        post.is_some_and(|post| post.is_heard())
    }
}

pub(super) fn parse_filter(filter: &TaskFilter) -> Result<TaskQuery, CoordinatorError> {
    let words = filter.state.as_deref().unwrap_or_default().split(',');
    let words = words.map(str::trim).filter(|word| !word.is_empty());
    let states: Result<Vec<_>, _> = words.map(parse_state).collect();
    Ok(TaskQuery {
        suite: filter.suite,
        states: states?,
        select: filter.select.as_deref().map(parse_select).transpose()?,
        unrepeated: filter.unrepeated.unwrap_or_default(),
        after: parse_cursor(filter.cursor.as_deref())?,
        limit: parse_limit(filter.limit)?,
    })
}

fn parse_state(word: &str) -> Result<TaskState, CoordinatorError> {
    TaskState::parse(word).ok_or_else(|| CoordinatorError::BadQuery {
        field: "state",
        value: word.to_owned(),
        expected: "write pending, ready, assigned, running, completed, failed or cancelled, separated by commas",
    })
}

fn parse_select(text: &str) -> Result<Selection, CoordinatorError> {
    text.parse().map_err(|_| CoordinatorError::BadQuery {
        field: "select",
        value: text.to_owned(),
        expected: "write a uuid or its first digits, a number, a range such as 3-7, last, last:5, a state, or label:key=value; several as a JSON list",
    })
}

fn parse_cursor(cursor: Option<&str>) -> Result<i64, CoordinatorError> {
    let Some(cursor) = cursor else { return Ok(0) };
    cursor.parse().map_err(|_| CoordinatorError::BadQuery {
        field: "cursor",
        value: cursor.to_owned(),
        expected: "give the `next_cursor` of the page before",
    })
}

fn parse_limit(limit: Option<u32>) -> Result<u32, CoordinatorError> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        limit => Err(CoordinatorError::BadQuery {
            field: "limit",
            value: limit.to_string(),
            expected: "write a number from 1 to 1000",
        }),
    }
}

/// Cuts the one entry that was read beyond the page, and says where the next page begins.
fn next_cursor<T>(items: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> i64) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if items.len() <= limit {
        return None;
    }
    items.truncate(limit);
    items.last().map(|last| id(last).to_string())
}
