//! Accepting and repeating tasks: everything of one call in one transaction, as sets.

use std::collections::HashMap;

use rusqlite::{Statement, params};
use serde::Serialize;
use uuid::Uuid;

use super::chains::{EdgeRow, wanted_number};
use super::db::{CHUNK, Db, Demand, json};
use super::parts::NEVER_US;
use super::rows::{Moves, state_number};
use crate::coordinator::store::{Changes, NewTask, NewTasks, StoreError, Submitted};
use crate::protocol::api::{SubmitResponse, SubmittedTask, SuiteRef};
use crate::protocol::chain::Target;
use crate::protocol::{TaskSpec, TaskState};

/// The key scope of tasks that were submitted without naming a suite.
pub(super) const STORE_SCOPE: i64 = 0;
/// Name of a suite that was made because none was named.
const UNNAMED: &str = "unnamed";

const INSERT_TASK: &str = "
    INSERT INTO tasks (id, uuid, suite, demand, state, priority, max_attempts, backoff, accepted_us, queued_us,
                       milli_cpus, mem_bytes, gpus, named, retry_of, spec_bytes, follow_up_of, retry_on, waits)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
const INSERT_SPEC: &str = "INSERT INTO specs (task, spec) VALUES (?1, ?2)";
const INSERT_LABEL: &str = "INSERT INTO labels (key, value, task) VALUES (?1, ?2, ?3)";
const INSERT_KEY: &str = "INSERT INTO task_keys (scope, key, task) VALUES (?1, ?2, ?3)";

/// A task about to be inserted.
pub(super) struct Planned<'a> {
    pub(super) id: i64,
    pub(super) uuid: Uuid,
    pub(super) suite: i64,
    pub(super) key: Option<&'a str>,
    pub(super) spec: &'a TaskSpec,
    pub(super) encoded: &'a str,
    pub(super) retry_of: Option<i64>,
    pub(super) follow_up_of: Option<i64>,
    pub(super) edges: Vec<EdgeRow>,
    /// Its submission is not complete.
    pub(super) staged: bool,
}

/// A task that has a key already.
struct Known {
    task: SubmittedTask,
    suite: Suite,
}

/// A suite by both names.
#[derive(Clone, Copy)]
struct Suite {
    id: i64,
    uuid: Uuid,
}

impl Db {
    pub(super) fn submit(&mut self, batch: &NewTasks) -> Result<Submitted, StoreError> {
        let named = match &batch.suite {
            None => None,
            Some(SuiteRef::Uuid(uuid)) => Some(self.suite_named(*uuid)?),
            Some(SuiteRef::New { name }) => Some(self.create_suite(name)?),
        };
        let scope = named.map_or(STORE_SCOPE, |suite| suite.id);
        let known = self.known_keys(scope, &batch.tasks)?;
        let is_known =
            |task: &NewTask| task.key.as_ref().is_some_and(|key| known.contains_key(key));
        let suite = match (named, known.values().next()) {
            (Some(suite), _) => suite,
            (None, Some(first)) if batch.tasks.iter().all(is_known) => first.suite,
            (None, _) => self.create_suite(UNNAMED)?,
        };
        let (planned, tasks) = self.plan(&batch.tasks, &known, suite.id, None)?;
        let changes = self.insert(scope, &planned)?;
        Ok(Submitted {
            response: SubmitResponse {
                suite: suite.uuid,
                tasks,
            },
            changes,
        })
    }

    /// Stores what a task that has just completed submitted, in its suite.
    pub(super) fn add_follow_ups(
        &mut self,
        suite: i64,
        of: i64,
        tasks: &[NewTask],
    ) -> Result<(Vec<Uuid>, Changes), StoreError> {
        let (planned, tasks) = self.plan(tasks, &HashMap::new(), suite, Some(of))?;
        let changes = self.insert(STORE_SCOPE, &planned)?;
        Ok((tasks.iter().map(|task| task.uuid).collect(), changes))
    }

    /// Stores the tasks of a part of a submission in its suite, to wait for the last part or not.
    pub(super) fn submit_into(
        &mut self,
        (id, uuid): (i64, Uuid),
        batch: &NewTasks,
        staged: bool,
    ) -> Result<Submitted, StoreError> {
        let known = self.known_keys(id, &batch.tasks)?;
        let (mut planned, tasks) = self.plan(&batch.tasks, &known, id, None)?;
        planned.iter_mut().for_each(|task| task.staged = staged);
        let changes = self.insert(id, &planned)?;
        Ok(Submitted {
            response: SubmitResponse { suite: uuid, tasks },
            changes,
        })
    }

    /// The suite that a submit asks for, made if need be.
    pub(super) fn suite_for(&self, wanted: Option<&SuiteRef>) -> Result<(i64, Uuid), StoreError> {
        let suite = match wanted {
            None => self.create_suite(UNNAMED)?,
            Some(SuiteRef::Uuid(uuid)) => self.suite_named(*uuid)?,
            Some(SuiteRef::New { name }) => self.create_suite(name)?,
        };
        Ok((suite.id, suite.uuid))
    }

    fn suite_named(&self, uuid: Uuid) -> Result<Suite, StoreError> {
        let id = self.suite_id(uuid)?;
        Ok(Suite { id, uuid })
    }

    /// Row id of a suite.
    pub(super) fn suite_id(&self, uuid: Uuid) -> Result<i64, StoreError> {
        super::query::suite_id(&self.conn, uuid)
    }

    fn create_suite(&self, name: &str) -> Result<Suite, StoreError> {
        let uuid = Uuid::now_v7();
        let mut statement = self
            .conn
            .prepare_cached("INSERT INTO suites (uuid, name, created_us) VALUES (?1, ?2, ?3)")?;
        let id = statement.insert((uuid.into_bytes(), name, self.clock.wall_us()))?;
        Ok(Suite { id, uuid })
    }

    /// Which keys of the batch have a task already.
    fn known_keys(
        &self,
        scope: i64,
        tasks: &[NewTask],
    ) -> Result<HashMap<String, Known>, StoreError> {
        let keys: Vec<&str> = tasks
            .iter()
            .filter_map(|task| task.key.as_deref())
            .collect();
        let mut known = HashMap::new();
        for chunk in keys.chunks(CHUNK) {
            let mut statement = self.conn.prepare_cached(
                "SELECT k.key, t.id, t.uuid, s.uuid, s.id
                 FROM json_each(?2) AS wanted
                 CROSS JOIN task_keys k ON k.scope = ?1 AND k.key = wanted.value
                 CROSS JOIN tasks t ON t.id = k.task CROSS JOIN suites s ON s.id = t.suite",
            )?;
            let rows = statement.query_map((scope, json(chunk)), |row| {
                let task = SubmittedTask {
                    id: row.get(1)?,
                    uuid: super::rows::uuid(row, 2)?,
                    existing: true,
                };
                let suite = Suite {
                    id: row.get(4)?,
                    uuid: super::rows::uuid(row, 3)?,
                };
                Ok((row.get(0)?, Known { task, suite }))
            })?;
            for row in rows {
                let (key, found) = row?;
                known.insert(key, found);
            }
        }
        Ok(known)
    }

    /// Separates new tasks from known ones; the answer has all, in order.
    fn plan<'a>(
        &mut self,
        tasks: &'a [NewTask],
        known: &HashMap<String, Known>,
        suite: i64,
        follow_up_of: Option<i64>,
    ) -> Result<(Vec<Planned<'a>>, Vec<SubmittedTask>), StoreError> {
        let mut planned = Vec::with_capacity(tasks.len());
        let mut linked = Vec::new();
        let mut answer = Vec::with_capacity(tasks.len());
        let mut seen: HashMap<&str, SubmittedTask> = HashMap::new();
        for task in tasks {
            let key = task.key.as_deref();
            let earlier = key.and_then(|key| {
                let known = known.get(key).map(|known| known.task);
                known.or_else(|| seen.get(key).copied())
            });
            if let Some(earlier) = earlier {
                answer.push(SubmittedTask {
                    existing: true,
                    ..earlier
                });
                continue;
            }
            let new = Planned {
                id: self.next_id(),
                uuid: Uuid::now_v7(),
                suite,
                key,
                spec: &task.spec,
                encoded: &task.encoded,
                retry_of: None,
                follow_up_of,
                edges: Vec::new(),
                staged: false,
            };
            if !task.links.is_empty() {
                linked.push((planned.len(), task));
            }
            answer.push(submitted(&new));
            if let Some(key) = key {
                seen.insert(key, submitted(&new));
            }
            planned.push(new);
        }
        let known = self.linked_by_uuid(linked.iter().map(|(_, task)| *task))?;
        for (place, task) in linked {
            planned[place].edges = edges(planned[place].id, task, &answer, &known);
        }
        Ok((planned, answer))
    }

    /// Row ids of the tasks that links name by uuid.
    fn linked_by_uuid<'a>(
        &self,
        tasks: impl Iterator<Item = &'a NewTask>,
    ) -> Result<HashMap<Uuid, i64>, StoreError> {
        let mut uuids: Vec<Uuid> = tasks
            .flat_map(|task| &task.links)
            .filter_map(|link| match link.target {
                Target::Uuid(uuid) => Some(uuid),
                Target::Place(_) => None,
            })
            .collect();
        uuids.sort_unstable();
        uuids.dedup();
        super::query::task_ids(&self.conn, &uuids, "upstream task")
    }

    pub(super) fn next_id(&mut self) -> i64 {
        self.tally.last_task += 1;
        self.tally.last_task
    }

    /// Stores tasks.
    pub(super) fn insert(
        &mut self,
        scope: i64,
        planned: &[Planned<'_>],
    ) -> Result<Changes, StoreError> {
        let now = self.clock.wall_us();
        let mut moves = Moves::default();
        let mut demands = Vec::with_capacity(planned.len());
        for task in planned {
            let demand = self.demand_id(demand_of(task.spec))?;
            moves.add(task.suite, demand, first_state(task), 1);
            demands.push(demand);
        }
        self.for_each(
            INSERT_TASK,
            planned.iter().zip(demands),
            |statement, (task, demand)| insert_task(statement, task, demand, now),
        )?;
        self.for_each(INSERT_SPEC, planned, |statement, task| {
            statement.execute((task.id, task.encoded))
        })?;
        let labels = planned.iter().flat_map(|task| {
            let labels = task.spec.labels.iter();
            labels.map(|(key, value)| (key, value, task.id))
        });
        self.for_each(INSERT_LABEL, labels, |statement, label| {
            statement.execute(label)
        })?;
        let keys = planned.iter().filter_map(|task| Some((task.key?, task.id)));
        self.for_each(INSERT_KEY, keys, |statement, (key, id)| {
            statement.execute((scope, key, id))
        })?;
        self.write_moves(&moves)?;
        if planned.is_empty() {
            return Ok(Changes::default());
        }
        let accepted = i64::try_from(planned.len()).unwrap_or(i64::MAX);
        self.meta_add("accepted", accepted)?;
        let edges: Vec<EdgeRow> = planned.iter().flat_map(|task| task.edges.clone()).collect();
        let is_ready = |task: &&Planned<'_>| first_state(task) == TaskState::Ready;
        let ready = planned.iter().filter(is_ready).count();
        let mut changes = Changes {
            accepted: planned.len() as u64,
            ready: ready as u64,
            ..Changes::default()
        };
        changes.extend(self.insert_edges(&edges)?);
        Ok(changes)
    }

    fn demand_id(&mut self, demand: Demand) -> Result<i64, StoreError> {
        if let Some(id) = self.demands.get(&demand) {
            return Ok(*id);
        }
        let [cpus, mem, gpus] = demand.amounts;
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO demands (tags, milli_cpus, mem_bytes, gpus) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tags, milli_cpus, mem_bytes, gpus) DO UPDATE SET tags = excluded.tags RETURNING id",
        )?;
        let id = statement.query_row((&demand.tags, cpus, mem, gpus), |row| row.get(0))?;
        drop(statement);
        self.demands.insert(demand, id);
        Ok(id)
    }
}

fn insert_task(
    statement: &mut Statement<'_>,
    task: &Planned<'_>,
    demand: i64,
    now: i64,
) -> rusqlite::Result<usize> {
    let spec = task.spec;
    let [cpus, mem, gpus] = amounts_of(spec);
    let named = &spec.resources.named;
    statement.execute(params![
        task.id,
        task.uuid.into_bytes(),
        task.suite,
        demand,
        state_number(first_state(task)),
        spec.priority,
        spec.max_attempts(),
        spec.backoff.as_ref().map(text),
        now,
        if task.staged { NEVER_US } else { now },
        cpus,
        mem,
        gpus,
        (!named.is_empty()).then(|| text(named)),
        task.retry_of,
        count(task.encoded.len()),
        task.follow_up_of,
        (!spec.retry_on.is_empty()).then(|| text(&spec.retry_on)),
        count(task.edges.len()),
    ])
}

pub(super) fn submitted(task: &Planned<'_>) -> SubmittedTask {
    SubmittedTask {
        id: task.id,
        uuid: task.uuid,
        existing: false,
    }
}

fn first_state(task: &Planned<'_>) -> TaskState {
    if task.edges.is_empty() && !task.staged {
        TaskState::Ready
    } else {
        TaskState::Pending
    }
}

/// The edges of a task whose links name places of `batch` or tasks by uuid.
fn edges(
    id: i64,
    task: &NewTask,
    batch: &[SubmittedTask],
    known: &HashMap<Uuid, i64>,
) -> Vec<EdgeRow> {
    let mut edges: Vec<EdgeRow> = task
        .links
        .iter()
        .zip(&task.spec.upstream)
        .map(|(link, entry)| {
            let (upstream, name) = match link.target {
                Target::Place(place) => (batch[place].id, Some(entry.task.clone())),
                Target::Uuid(uuid) => (known[&uuid], None),
            };
            EdgeRow {
                task: id,
                upstream,
                wanted: wanted_number(link.when),
                name,
            }
        })
        .collect();
    // Two names may mean one task: by `id` and by uuid, or two equal keys.
    edges.sort_by_key(|edge| edge.upstream);
    edges.dedup_by_key(|edge| edge.upstream);
    edges
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("parts of a spec are plain data")
}

fn demand_of(spec: &TaskSpec) -> Demand {
    let mut tags: Vec<&str> = spec.tags.iter().map(String::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    Demand {
        tags: json(&tags),
        amounts: amounts_of(spec),
    }
}

/// CPUs in thousandths, bytes of memory, GPUs.
fn amounts_of(spec: &TaskSpec) -> [i64; 3] {
    let wanted = &spec.resources;
    let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let mem = wanted.mem_bytes.unwrap_or(0);
    [wanted.milli_cpus(), mem, u64::from(wanted.gpus)].map(amount)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
