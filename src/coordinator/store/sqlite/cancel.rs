//! Cancelling tasks: what somebody has first, then what waits, so that nothing begins after the order however many it names.
//!
//! ```text
//!   one transaction:   held tasks are marked (their orders go out), up to a batch of waiting ones end
//!   where more wait:   none of them is granted from here on (`Withheld`); submissions that are just being let in are let in
//!                      whole, and all that waits is marked batch by batch
//!   afterwards:        marked rows are in no index that a claim reads; the timer ends them, some at a time
//! ```
//!
//! A marked row stays marked across a restart. An order that was not answered yet may then be half done, and is repeated by
//! whoever gave it.

use rusqlite::Connection;

use super::db::Db;
use super::query::suite_id;
use super::select;
use crate::coordinator::store::ledger::Effects;
use crate::coordinator::store::{
    CancelRest, CancelTarget, CancelWish, Cancelled, Changes, StoreError, TaskQuery,
};
use crate::protocol::TaskState;

/// Waiting tasks that end in the transaction of their order.
pub(super) const AT_ONCE: usize = 4096;
/// Waiting tasks that are marked in one transaction: some tens of milliseconds.
const MARKED_AT_ONCE: u32 = 16_384;
/// Marked tasks that end in one transaction.
const ENDED_AT_ONCE: i64 = 1024;

/// Rows that wait and were cancelled; a partial index holds these alone.
pub(super) const UNWANTED: &str = "
    SELECT id FROM tasks INDEXED BY tasks_unwanted WHERE state IN (0, 1) AND cancel > 0 ORDER BY id LIMIT ?1";

/// What is not granted while it is being marked.
#[derive(Debug, Default)]
pub(super) struct Withheld(Vec<(u64, Hold)>);

/// Row ids up to one, of a suite or of all.
#[derive(Debug, Clone, Copy)]
struct Hold {
    suite: Option<i64>,
    last: i64,
}

impl Withheld {
    /// True when the task is not to be granted.
    pub(super) fn has(&self, conn: &Connection, task: i64) -> Result<bool, StoreError> {
        for (_, hold) in self.0.iter().filter(|(_, hold)| task <= hold.last) {
            let Some(suite) = hold.suite else {
                return Ok(true);
            };
            let mut statement = conn.prepare_cached("SELECT suite FROM tasks WHERE id = ?1")?;
            if statement.query_row([task], |row| row.get::<_, i64>(0))? == suite {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Db {
    /// The first step of a cancel; what is left is named in its answer.
    pub(super) fn cancel(
        &mut self,
        target: &CancelTarget,
        wish: CancelWish,
    ) -> Result<Cancelled, StoreError> {
        match target {
            CancelTarget::Task(uuid) => {
                let id = super::query::task_id(&self.conn, *uuid)?;
                let id = id.ok_or(StoreError::NotFound {
                    what: "task",
                    uuid: *uuid,
                })?;
                self.cancel_ids(&[id], wish)
            }
            CancelTarget::Matching(query) => self.cancel_matching(query, wish),
        }
    }

    fn cancel_matching(
        &mut self,
        query: &TaskQuery,
        wish: CancelWish,
    ) -> Result<Cancelled, StoreError> {
        let everything = u32::MAX >> 1;
        let held = of_states(
            query,
            &[TaskState::Assigned, TaskState::Running],
            everything,
        );
        let mut ids = match &held {
            Some(held) => select::ids(&self.conn, held)?,
            None => Vec::new(),
        };
        let most = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
        let waiting = of_states(query, &[TaskState::Pending, TaskState::Ready], most + 1);
        let found = match &waiting {
            Some(waiting) => select::ids(&self.conn, waiting)?,
            None => Vec::new(),
        };
        let rest = if found.len() > AT_ONCE {
            waiting
                .map(|query| self.withhold(query, wish))
                .transpose()?
        } else {
            ids.extend(found);
            None
        };
        Ok(Cancelled {
            rest,
            ..self.cancel_ids(&ids, wish)?
        })
    }

    fn cancel_ids(&mut self, ids: &[i64], wish: CancelWish) -> Result<Cancelled, StoreError> {
        let now_us = self.clock.wall_us();
        let mut fx = Effects::default();
        let mut tasks = self.load(ids)?;
        for task in &mut tasks {
            task.record.ask_cancel(wish, now_us, &mut fx);
        }
        let changes = self.apply(&tasks, fx)?;
        let tasks = tasks
            .iter()
            .map(|task| (task.record.task.uuid, task.record.state));
        Ok(Cancelled {
            tasks: tasks.collect(),
            rest: None,
            changes,
        })
    }

    /// Keeps what a filter names from being granted, until [`Db::release`]. Where it names tasks by something that a claim
    /// does not see (a label), only the marks do that.
    fn withhold(&mut self, query: TaskQuery, wish: CancelWish) -> Result<CancelRest, StoreError> {
        let last = self.tally.last_task;
        let number = self.withheld.0.iter().map(|(number, _)| number + 1).max();
        let number = number.unwrap_or_default();
        let is_plain = query.select.as_ref().is_none_or(|selection| {
            selection.names().next().is_none()
                && selection.lists().next().is_none()
                && selection.labels().is_empty()
        });
        if is_plain {
            let suite = query.suite.map(|uuid| suite_id(&self.conn, uuid));
            let suite = suite.transpose()?;
            self.withheld.0.push((number, Hold { suite, last }));
        }
        Ok(CancelRest {
            query: TaskQuery {
                limit: MARKED_AT_ONCE,
                ..query
            },
            wish,
            last,
            number,
        })
    }

    /// Marks the next of what is left: how many, and where to go on, until nothing is left.
    pub(super) fn mark(&mut self, rest: &CancelRest) -> Result<(u64, Option<i64>), StoreError> {
        let mut ids = select::ids(&self.conn, &rest.query)?;
        let is_full = ids.len() >= MARKED_AT_ONCE as usize;
        ids.retain(|id| *id <= rest.last);
        let wish = super::rows::wish_number(Some(rest.wish));
        self.for_each(
            "UPDATE tasks SET cancel = max(cancel, ?2) WHERE id = ?1 AND state IN (0, 1)",
            &ids,
            |statement, id| statement.execute((id, wish)),
        )?;
        let next = ids
            .last()
            .copied()
            .filter(|last| is_full && *last < rest.last);
        Ok((ids.len() as u64, next))
    }

    /// What was withheld is marked.
    pub(super) fn release(&mut self, rest: &CancelRest) {
        self.withheld.0.retain(|(number, _)| *number != rest.number);
    }

    /// Ends some of what was marked. Its `next_due` is zero when there is more.
    pub(super) fn end_unwanted(&mut self) -> Result<Changes, StoreError> {
        let mut statement = self.conn.prepare_cached(UNWANTED)?;
        let rows = statement.query_map([ENDED_AT_ONCE], |row| row.get(0))?;
        let ids = rows.collect::<rusqlite::Result<Vec<i64>>>()?;
        drop(statement);
        if ids.is_empty() {
            return Ok(Changes::default());
        }
        // The wish is that of the mark, or a stronger one.
        let mut changes = self.cancel_ids(&ids, CancelWish::Graceful)?.changes;
        changes.next_due = Some(std::time::Duration::ZERO);
        Ok(changes)
    }
}

/// The part of a filter in some states; `None` where it lets none of them through.
fn of_states(query: &TaskQuery, wanted: &[TaskState], limit: u32) -> Option<TaskQuery> {
    let lets = |state: &TaskState| query.states.is_empty() || query.states.contains(state);
    let states: Vec<TaskState> = wanted.iter().copied().filter(lets).collect();
    (!states.is_empty()).then(|| TaskQuery {
        states,
        limit,
        ..query.clone()
    })
}
