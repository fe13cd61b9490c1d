//! From an input to the tasks of a run: what is new, what an earlier run finished, what is to be repeated.
//!
//! Works on an open coordinator before any manager is started, so nothing changes under its hands.
//!
//! - Every task of the input is submitted under its key, all in one call; known ones stay what they are.
//! - Tasks of an earlier input that are not in this one do not count. Those that have not ended are cancelled: a line
//!   that was changed or deleted is not wanted any more.
//! - With `retry_failed`, what failed or was cancelled is repeated as a new task.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::error::RunError;
use super::key;
use super::ledger::{Ledger, Place};
use super::manifest::{Manifest, ManifestTask};
use super::options::{Input, SpecDefaults};
use super::quote::shell_word;
use super::summary::{Failure, plural};
use crate::coordinator::Coordinator;
use crate::protocol::api::{SubmitRequest, SubmitTask, SuiteRef, TaskFilter, TaskSummary};
use crate::protocol::report::Reason;
use crate::protocol::{Outcome, TaskSpec, TaskState};

/// Name of the suite that holds a run's tasks.
pub const SUITE_NAME: &str = "run";
/// Tasks read at once.
const PAGE: u32 = 1000;

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// The tasks; `None` resumes what the state directory holds.
    pub input: Option<Input>,
    /// Where the note about the input is.
    pub state_dir: &'a Path,
    /// For specs that do not say.
    pub defaults: &'a SpecDefaults,
    /// Repeat what failed or was cancelled.
    pub retry_failed: bool,
}

/// A run that can begin.
#[derive(Debug)]
pub struct Plan {
    /// Its books.
    pub ledger: Ledger,
    /// The suite of its tasks.
    pub suite: Uuid,
    /// Commands by line, ascending.
    pub commands: Vec<(u64, String)>,
    /// What was put into the commands.
    pub arguments: TaskArguments,
    /// The only task, where the run is one command.
    pub single: Option<Uuid>,
    /// Tasks that had ended before, by place.
    pub earlier: Vec<(Place, Uuid)>,
    /// What the user should know.
    pub notices: Vec<String>,
    /// True when no input was given.
    pub resumed: bool,
}

/// What was put into the commands of tasks (`:::` and its kin), by task; a task without arguments is not listed.
#[derive(Debug, Clone, Default)]
pub struct TaskArguments(Arc<HashMap<Uuid, Vec<String>>>);

impl TaskArguments {
    fn of_manifest(manifest: &Manifest) -> Self {
        let tasks = manifest.tasks.iter();
        let with_some = tasks.filter(|task| !task.arguments.is_empty());
        Self(Arc::new(
            with_some
                .map(|task| (task.uuid, task.arguments.clone()))
                .collect(),
        ))
    }

    /// The arguments of a task, in the order of their sources.
    #[must_use]
    pub fn of(&self, task: Uuid) -> &[String] {
        self.0.get(&task).map_or(&[], Vec::as_slice)
    }
}

impl Plan {
    /// The command of a line.
    #[must_use]
    pub fn command(&self, line: u64) -> &str {
        match self.commands.binary_search_by_key(&line, |(line, _)| *line) {
            Ok(index) => &self.commands[index].1,
            Err(_) => "",
        }
    }
}

/// Submits, compares and notes down.
///
/// # Errors
/// When the store, the note, or the input does not allow it.
pub async fn make(coordinator: &Coordinator, request: Request<'_>) -> Result<Plan, RunError> {
    let before = Manifest::read(request.state_dir)?;
    let accepted_at_us = now_us();
    let Prepared {
        mut manifest,
        commands,
        all_new,
    } = match request.input {
        Some(input) => submit(coordinator, input, before, request.defaults).await?,
        None => resume(before, request.state_dir)?,
    };
    let known = if all_new {
        HashMap::new()
    } else {
        let known = known_tasks(coordinator, manifest.suite).await?;
        check_known(&manifest, &known)?;
        known
    };
    let resumed = commands.is_none();
    // Before any repetition: the store was asked about the tasks as they are named now.
    let commands = commands.unwrap_or_else(|| stored_commands(&manifest, &known));
    let mut notices = Vec::new();
    let mut follow_ups = follow_ups(&manifest, &known);
    if request.retry_failed {
        let repeated = repeat(coordinator, &mut manifest, &mut follow_ups, &known).await?;
        notices.extend((repeated > 0).then(|| format!("{} repeated", plural(repeated, "task"))));
    }
    manifest.write(request.state_dir)?;
    let dropped = drop_unwanted(coordinator, &manifest, &follow_ups, &known).await?;
    notices.extend((dropped > 0).then(|| {
        format!(
            "{} of an earlier input cancelled: not in {}",
            plural(dropped, "unfinished task"),
            manifest.source
        )
    }));
    notices.extend(strangers(coordinator, manifest.suite).await?);
    let ledger = Ledger::new(
        manifest.tasks.iter().map(|task| (task.line, task.uuid)),
        accepted_at_us,
    );
    let plan = finish(manifest, commands, &follow_ups, &known, ledger);
    Ok(Plan {
        notices,
        resumed,
        ..plan
    })
}

/// A task that a task of the input submitted, directly or not.
#[derive(Debug, Clone, Copy)]
struct FollowUp {
    line: u64,
    uuid: Uuid,
}

/// What tasks of the input have submitted so far, in the order in which it was accepted; a repeated one stands where the
/// first stood.
fn follow_ups(manifest: &Manifest, known: &HashMap<Uuid, TaskSummary>) -> Vec<FollowUp> {
    let mut lines: HashMap<Uuid, u64> = manifest
        .tasks
        .iter()
        .map(|task| (task.uuid, task.line))
        .collect();
    let mut tasks: Vec<(&TaskSummary, Uuid)> = known
        .values()
        .filter_map(|task| Some((task, task.follow_up_of?)))
        .collect();
    tasks.sort_unstable_by_key(|(task, _)| task.id);
    let mut found: Vec<FollowUp> = Vec::new();
    let mut places: HashMap<Uuid, usize> = HashMap::new();
    for (task, of) in tasks {
        let Some(line) = lines.get(&of).copied() else {
            continue;
        };
        lines.insert(task.uuid, line);
        let uuid = task.uuid;
        match task.retry_of.and_then(|old| places.get(&old).copied()) {
            Some(place) => {
                found[place].uuid = uuid;
                places.insert(uuid, place);
            }
            None => {
                places.insert(uuid, found.len());
                found.push(FollowUp { line, uuid });
            }
        }
    }
    found
}

/// An input whose tasks are in the store.
struct Prepared {
    manifest: Manifest,
    commands: Option<Vec<(u64, String)>>,
    all_new: bool,
}

async fn submit(
    coordinator: &Coordinator,
    mut input: Input,
    before: Option<Manifest>,
    defaults: &SpecDefaults,
) -> Result<Prepared, RunError> {
    let keys = key::keys(&input.tasks);
    let of_tasks = input.tasks.iter_mut();
    let places: Vec<(u64, Vec<String>)> = of_tasks
        .map(|task| (task.line, std::mem::take(&mut task.arguments)))
        .collect();
    let commands = input
        .tasks
        .iter()
        .map(|task| (task.line, command_text(&task.spec)))
        .collect();
    let task = |(task, key): (super::input::InputTask, &String)| SubmitTask {
        key: Some(key.clone()),
        spec: defaults.applied(task.spec),
    };
    let tasks = input.tasks.into_iter().zip(&keys).map(task).collect();
    let suite = match &before {
        Some(manifest) => SuiteRef::Uuid(manifest.suite),
        None => existing_suite(coordinator).await?,
    };
    let request = SubmitRequest {
        suite: Some(suite),
        tasks,
    };
    let submitted = coordinator.submit(request).await?;
    let newest = newest_repetitions(before);
    let task = |(((line, arguments), key), task): (
        ((u64, Vec<String>), String),
        &crate::protocol::api::SubmittedTask,
    )| {
        let (uuid, retries) = newest.get(&key).copied().unwrap_or((task.uuid, 0));
        ManifestTask {
            line,
            key,
            uuid,
            arguments,
            retries,
        }
    };
    Ok(Prepared {
        all_new: submitted.tasks.iter().all(|task| !task.existing),
        manifest: Manifest {
            source: input.source,
            single_command: input.single_command,
            suite: submitted.suite,
            tasks: places
                .into_iter()
                .zip(keys)
                .zip(&submitted.tasks)
                .map(task)
                .collect(),
        },
        commands: Some(commands),
    })
}

fn resume(before: Option<Manifest>, state_dir: &Path) -> Result<Prepared, RunError> {
    let manifest = before.ok_or_else(|| RunError::NothingToResume(state_dir.to_owned()))?;
    Ok(Prepared {
        manifest,
        commands: None,
        all_new: false,
    })
}

/// The suite of an earlier run whose note was lost, or a new one.
async fn existing_suite(coordinator: &Coordinator) -> Result<SuiteRef, RunError> {
    let first = coordinator.suites(None, Some(PAGE)).await?;
    let found = first
        .items
        .into_iter()
        .find(|suite| suite.name == SUITE_NAME);
    Ok(found.map_or_else(
        || SuiteRef::New {
            name: SUITE_NAME.to_owned(),
        },
        |suite| SuiteRef::Uuid(suite.uuid),
    ))
}

/// Tasks that were repeated, by key: their newest repetition and its number.
fn newest_repetitions(before: Option<Manifest>) -> HashMap<String, (Uuid, u32)> {
    let tasks = before.map(|manifest| manifest.tasks).unwrap_or_default();
    tasks
        .into_iter()
        .filter(|task| task.retries > 0)
        .map(|task| (task.key, (task.uuid, task.retries)))
        .collect()
}

/// Every task of the suite.
async fn known_tasks(
    coordinator: &Coordinator,
    suite: Uuid,
) -> Result<HashMap<Uuid, TaskSummary>, RunError> {
    let mut known = HashMap::new();
    let mut filter = TaskFilter {
        suite: Some(suite),
        limit: Some(PAGE),
        ..TaskFilter::default()
    };
    loop {
        let page = coordinator.tasks(&filter).await?;
        known.extend(page.tasks.into_iter().map(|task| (task.uuid, task)));
        match page.next_cursor {
            Some(cursor) => filter.cursor = Some(cursor),
            None => return Ok(known),
        }
    }
}

/// A task that the store does not have would never end.
fn check_known(manifest: &Manifest, known: &HashMap<Uuid, TaskSummary>) -> Result<(), RunError> {
    let missing = |task: &&ManifestTask| !known.contains_key(&task.uuid);
    match manifest.tasks.iter().find(missing) {
        None => Ok(()),
        Some(task) => Err(RunError::Forgotten {
            task: task.uuid,
            line: task.line,
        }),
    }
}

/// Repeats what failed or was cancelled; returns how many.
async fn repeat(
    coordinator: &Coordinator,
    manifest: &mut Manifest,
    follow_ups: &mut [FollowUp],
    known: &HashMap<Uuid, TaskSummary>,
) -> Result<u64, RunError> {
    let ended_badly = |uuid: &Uuid| {
        let state = known.get(uuid).map(|known| known.state);
        matches!(state, Some(TaskState::Failed | TaskState::Cancelled))
    };
    let of_input = manifest.tasks.iter().map(|task| task.uuid);
    let submitted = follow_ups.iter().map(|follow_up| follow_up.uuid);
    let old: Vec<Uuid> = of_input.chain(submitted).filter(ended_badly).collect();
    // All at once, so that a task that waits for another is repeated with it.
    let new = coordinator.retry_tasks(old.clone()).await?;
    let new: HashMap<Uuid, Uuid> = old
        .into_iter()
        .zip(new.iter().map(|task| task.uuid))
        .collect();
    for task in &mut manifest.tasks {
        if let Some(uuid) = new.get(&task.uuid) {
            task.uuid = *uuid;
            task.retries += 1;
        }
    }
    for follow_up in follow_ups {
        follow_up.uuid = new.get(&follow_up.uuid).copied().unwrap_or(follow_up.uuid);
    }
    Ok(new.len() as u64)
}

/// Cancels what is known, has not ended, and is not wanted; returns how many.
async fn drop_unwanted(
    coordinator: &Coordinator,
    manifest: &Manifest,
    follow_ups: &[FollowUp],
    known: &HashMap<Uuid, TaskSummary>,
) -> Result<u64, RunError> {
    let mut wanted: HashSet<Uuid> = manifest.tasks.iter().map(|task| task.uuid).collect();
    wanted.extend(follow_ups.iter().map(|follow_up| follow_up.uuid));
    let mut dropped = 0;
    for task in known.values() {
        if !task.state.is_terminal() && !wanted.contains(&task.uuid) {
            coordinator.cancel(task.uuid, true).await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// A word about unfinished tasks of other suites: this run's manager takes them too.
async fn strangers(coordinator: &Coordinator, suite: Uuid) -> Result<Option<String>, RunError> {
    let open = |counts: std::collections::BTreeMap<TaskState, u64>| -> u64 {
        let open = counts.into_iter().filter(|(state, _)| !state.is_terminal());
        open.map(|(_, count)| count).sum()
    };
    let all = open(coordinator.counts(None).await?);
    let own = open(coordinator.counts(Some(suite)).await?);
    let others = all.saturating_sub(own);
    Ok((others > 0).then(|| {
        format!(
            "the state directory also holds {} of other suites; they are run too, but do not count",
            plural(others, "unfinished task")
        )
    }))
}

fn finish(
    manifest: Manifest,
    mut commands: Vec<(u64, String)>,
    follow_ups: &[FollowUp],
    known: &HashMap<Uuid, TaskSummary>,
    mut ledger: Ledger,
) -> Plan {
    commands.sort_unstable_by_key(|(line, _)| *line);
    let of_input = manifest.tasks.iter();
    let mut tasks: Vec<(Place, Uuid)> = of_input
        .map(|task| (Place::line(task.line), task.uuid))
        .collect();
    for follow_up in follow_ups {
        let place = ledger.add_follow_up(follow_up.line, follow_up.uuid);
        tasks.push((place, follow_up.uuid));
    }
    let mut earlier = Vec::new();
    for (place, uuid) in tasks {
        let Some((summary, outcome)) = known
            .get(&uuid)
            .and_then(|known| Some((known, outcome_of(known.state)?)))
        else {
            continue;
        };
        earlier.push((place, uuid));
        let for_upstream = summary.reason.as_deref() == Some(Reason::UpstreamFailed.as_str());
        ledger.ended_earlier(uuid, outcome, for_upstream, |line| Failure {
            line,
            uuid: summary.uuid,
            reason: summary.reason.clone().unwrap_or_default(),
            exit_code: summary.exit_code,
            signal: None,
        });
    }
    Plan {
        ledger,
        suite: manifest.suite,
        commands,
        arguments: TaskArguments::of_manifest(&manifest),
        single: manifest
            .tasks
            .first()
            .filter(|_| manifest.single_command)
            .map(|task| task.uuid),
        earlier,
        notices: Vec::new(),
        resumed: false,
    }
}

fn stored_commands(manifest: &Manifest, known: &HashMap<Uuid, TaskSummary>) -> Vec<(u64, String)> {
    let command = |task: &ManifestTask| {
        let command = known.get(&task.uuid).map(|task| task.command.clone());
        (task.line, command.unwrap_or_default())
    };
    manifest.tasks.iter().map(command).collect()
}

/// The outcome that a state stands for; `None` while a task has not ended.
#[must_use]
pub fn outcome_of(state: TaskState) -> Option<Outcome> {
    match state {
        TaskState::Completed => Some(Outcome::Completed),
        TaskState::Failed => Some(Outcome::Failed),
        TaskState::Cancelled => Some(Outcome::Cancelled),
        TaskState::Pending | TaskState::Ready | TaskState::Assigned | TaskState::Running => None,
    }
}

/// The command of a spec as people write it.
#[must_use]
pub fn command_text(spec: &TaskSpec) -> String {
    match spec.args.as_slice() {
        [line] if spec.shell => line.clone(),
        args => args
            .iter()
            .map(|arg| shell_word(arg))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
