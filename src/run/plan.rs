//! From an input to the tasks of a run: what is new, what an earlier run finished, what is to be repeated.
//!
//! Tasks come in batches and are in the store when [`Intake::take`] returns; what the ledger then knows of them is where
//! they stand. What was accepted is noted in the state directory, so a run can be resumed without its list.
//!
//! - Every task of the input is submitted under its key; known ones stay what they are, by their newest repetition.
//! - With `retry_failed`, what failed or was cancelled is repeated as a new task.
//! - Tasks of an earlier input that are not in this one do not count. Those that have not ended are cancelled once the
//!   input was read to its end: a line that was changed or deleted is not wanted any more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use uuid::Uuid;

use super::error::RunError;
use super::feed::BATCH;
use super::input::InputTask;
use super::key::Keys;
use super::ledger::{Ledger, Past, Place};
use super::manifest::{Header, ManifestError, NoteWriter, NotedRow, noted_rows};
use super::options::SpecDefaults;
use super::quote::shell_word;
use super::summary::{Failure, plural};
use crate::coordinator::Coordinator;
use crate::coordinator::store::Life;
use crate::file_system::Unwritable;
use crate::protocol::api::{SubmitRequest, SubmitTask, SuiteRef, TaskFilter};
use crate::protocol::report::Reason;
use crate::protocol::{Outcome, TaskSpec, TaskState};
use crate::wall_clock::unix_us;

/// Name of the suite that holds a run's tasks.
pub const SUITE_NAME: &str = "run";
/// Tasks read at once.
const PAGE: u32 = 1000;
/// States of a task that has not ended.
const OPEN: &str = "pending,ready,assigned,running";

/// How an input becomes tasks.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Where the notes about the input are.
    pub state_dir: &'a Path,
    /// For specs that do not say.
    pub defaults: &'a SpecDefaults,
    /// Repeat what failed or was cancelled.
    pub retry_failed: bool,
    /// Have tasks begin in random order.
    pub shuffle: bool,
}

/// Accepts the tasks of a run.
#[derive(Debug)]
pub struct Intake<'a> {
    coordinator: &'a Coordinator,
    settings: Settings<'a>,
    header: Header,
    keys: Keys,
    notes: NoteWriter,
    /// True when the suite was empty: nothing in it can be somebody else's.
    fresh: bool,
    /// Tasks that an earlier run noted; they are taken from there.
    resumed: Option<Vec<NotedRow>>,
    /// False when an earlier run did not read its list to the end.
    was_whole: bool,
    repeated: u64,
    last_line: u64,
    first: Option<(i64, Uuid)>,
    /// Tasks that the store could not take, and why.
    waiting: Option<(Batch, Unwritable)>,
}

/// Tasks on their way into the store.
#[derive(Debug)]
struct Batch {
    request: SubmitRequest,
    lines: Vec<u64>,
}

/// What was taken at once.
#[derive(Debug, Default)]
pub struct Taken {
    /// Tasks that will end.
    pub open: Vec<Place>,
    /// Tasks that had ended before.
    pub earlier: Vec<Earlier>,
}

impl Taken {
    /// Puts a task where it belongs: among those that an earlier run ended, or those that are still to be run.
    fn sort_in(&mut self, task: OnLine, place: Place, ledger: &mut Ledger) {
        let Some(past) = task.life.and_then(|life| past(task.line, &life)) else {
            return self.open.push(place);
        };
        ledger.ended_earlier(task.id, task.uuid, &past);
        self.earlier.push(Earlier {
            place,
            id: task.id,
            uuid: task.uuid,
            is_silent: task.life.is_some_and(|life| life.is_silent),
        });
    }
}

/// A task that had ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// Where it stands.
    pub place: Place,
    /// Its row id.
    pub id: i64,
    /// Its name.
    pub uuid: Uuid,
    /// True when it has written nothing.
    pub is_silent: bool,
}

/// A task on its line.
struct OnLine {
    line: u64,
    id: i64,
    uuid: Uuid,
    life: Option<Life>,
}

impl<'a> Intake<'a> {
    /// Accepts a new input, called `source`.
    ///
    /// # Errors
    /// When the store or the state directory refuses.
    pub async fn begin(
        coordinator: &'a Coordinator,
        settings: Settings<'a>,
        source: &str,
        single_command: bool,
    ) -> Result<Self, RunError> {
        let before = Header::read(settings.state_dir)?;
        let suite = match &before {
            Some(header) => header.suite,
            None => match existing_suite(coordinator).await? {
                Some(suite) => suite,
                None => coordinator.create_suite(SUITE_NAME).await?,
            },
        };
        let header = Header {
            source: source.to_owned(),
            single_command,
            suite,
            whole: false,
        };
        header.write(settings.state_dir)?;
        let notes = NoteWriter::create(settings.state_dir)?;
        Self::new(coordinator, settings, header, notes, None, true).await
    }

    /// Takes up what an earlier run accepted.
    ///
    /// # Errors
    /// Likewise, and when there was none.
    pub async fn resume(
        coordinator: &'a Coordinator,
        settings: Settings<'a>,
    ) -> Result<Self, RunError> {
        let header = Header::read(settings.state_dir)?
            .ok_or_else(|| RunError::NothingToResume(settings.state_dir.to_owned()))?;
        let mut rows = noted_rows(settings.state_dir)?;
        rows.reverse();
        let was_whole = header.whole;
        let header = Header {
            whole: false,
            ..header
        };
        // Before the notes are cut: whoever finds them cut must know it.
        header.write(settings.state_dir)?;
        let notes = NoteWriter::create(settings.state_dir)?;
        Self::new(coordinator, settings, header, notes, Some(rows), was_whole).await
    }

    async fn new(
        coordinator: &'a Coordinator,
        settings: Settings<'a>,
        header: Header,
        notes: NoteWriter,
        resumed: Option<Vec<NotedRow>>,
        was_whole: bool,
    ) -> Result<Self, RunError> {
        let counts = coordinator.counts(Some(header.suite)).await?;
        Ok(Self {
            coordinator,
            settings,
            header,
            keys: Keys::default(),
            notes,
            fresh: counts.values().sum::<u64>() == 0,
            resumed,
            was_whole,
            repeated: 0,
            last_line: 0,
            first: None,
            waiting: None,
        })
    }

    /// The suite of the tasks.
    #[must_use]
    pub fn suite(&self) -> Uuid {
        self.header.suite
    }

    /// Where the tasks come from, for people.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.header.source
    }

    /// True when the state directory held no tasks of an earlier run.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The only task, where the run is one command.
    #[must_use]
    pub fn single(&self) -> Option<Uuid> {
        let first = self.first.filter(|_| self.header.single_command);
        first.map(|(_, uuid)| uuid)
    }

    /// Why tasks wait to be accepted, if any do. Nothing more is to be taken until [`Self::take_waiting`] has taken them.
    #[must_use]
    pub fn waits_for(&self) -> Option<Unwritable> {
        self.waiting.as_ref().map(|(_, why)| why.clone())
    }

    /// Tries again to accept what found no room.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn take_waiting(&mut self, ledger: &mut Ledger) -> Result<Taken, RunError> {
        match self.waiting.take() {
            Some((batch, _)) => self.accept(ledger, batch).await,
            None => Ok(Taken::default()),
        }
    }

    /// Accepts tasks. When this returns they are durable, and `ledger` counts them; or they wait for room on the disk.
    ///
    /// # Errors
    /// When the store or the state directory refuses.
    pub async fn take(
        &mut self,
        ledger: &mut Ledger,
        tasks: Vec<InputTask>,
    ) -> Result<Taken, RunError> {
        let keys = self.keys.of_batch(&tasks);
        let lines: Vec<u64> = tasks.iter().map(|task| task.line).collect();
        let task = |(task, key): (InputTask, String)| {
            let mut spec = self.settings.defaults.applied(task.spec);
            if self.settings.shuffle {
                // Only now: the order is not part of what a task is.
                spec.priority = random_priority();
            }
            if !task.arguments.is_empty() {
                spec.arguments = task.arguments;
            }
            SubmitTask {
                key: Some(key),
                spec,
            }
        };
        let request = SubmitRequest {
            suite: Some(SuiteRef::Uuid(self.header.suite)),
            tasks: tasks.into_iter().zip(keys).map(task).collect(),
        };
        self.accept(ledger, Batch { request, lines }).await
    }

    async fn accept(&mut self, ledger: &mut Ledger, batch: Batch) -> Result<Taken, RunError> {
        let submitted = match self.coordinator.submit(batch.request.clone()).await {
            Err(error) if error.is_retryable() => {
                let why = Unwritable::of_database("the task database", &error);
                self.waiting = Some((batch, why));
                return Ok(Taken::default());
            }
            submitted => submitted?,
        };
        let lines = batch.lines;
        let known = submitted.tasks.iter().filter(|task| task.existing);
        let mut lives = self.lives(known.map(|task| task.id).collect()).await?;
        let on_line = |(line, task): (u64, crate::protocol::api::SubmittedTask)| {
            let life = lives.remove(&task.id);
            let (id, uuid) = life.map_or((task.id, task.uuid), |life| (life.id, life.uuid));
            OnLine {
                line,
                id,
                uuid,
                life,
            }
        };
        let tasks = lines
            .into_iter()
            .zip(submitted.tasks)
            .map(on_line)
            .collect();
        self.enter(ledger, tasks).await
    }

    /// Takes some of the tasks that an earlier run accepted; `None` after the last.
    ///
    /// # Errors
    /// When the store or the state directory refuses, or the store lacks one.
    pub async fn take_noted(&mut self, ledger: &mut Ledger) -> Result<Option<Taken>, RunError> {
        let mut tasks: Vec<(u64, i64)> = Vec::new();
        while tasks.len() < BATCH
            && let Some(row) = self.resumed.as_mut().and_then(Vec::pop)
        {
            let room = (BATCH - tasks.len()) as u64;
            if row.count > room {
                let rest = NotedRow {
                    line: row.line + room,
                    id: row.id + i64::try_from(room).unwrap_or(i64::MAX),
                    count: row.count - room,
                };
                self.resumed.iter_mut().for_each(|rows| rows.push(rest));
            }
            tasks.extend(row.tasks().take(BATCH - tasks.len()));
        }
        if tasks.is_empty() {
            return Ok(None);
        }
        let mut lives = self
            .lives(tasks.iter().map(|(_, id)| *id).collect())
            .await?;
        let mut on_lines = Vec::with_capacity(tasks.len());
        for (line, id) in tasks {
            let life = lives
                .remove(&id)
                .ok_or(RunError::Forgotten { task: id, line })?;
            on_lines.push(OnLine {
                line,
                id: life.id,
                uuid: life.uuid,
                life: Some(life),
            });
        }
        self.enter(ledger, on_lines).await.map(Some)
    }

    async fn lives(&self, ids: Vec<i64>) -> Result<HashMap<i64, Life>, RunError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let lives = self.coordinator.newest_lives(ids).await?;
        Ok(lives.into_iter().map(|life| (life.root, life)).collect())
    }

    /// Enters tasks in ledger and notes, repeated where that is wanted.
    async fn enter(
        &mut self,
        ledger: &mut Ledger,
        mut tasks: Vec<OnLine>,
    ) -> Result<Taken, RunError> {
        if self.settings.retry_failed {
            self.repeat(&mut tasks).await?;
        }
        if let (None, Some(first)) = (self.first, tasks.first()) {
            self.first = Some((first.id, first.uuid));
        }
        self.notes
            .note(tasks.iter().map(|task| (task.line, task.id)))?;
        let at_us = unix_us();
        let mut taken = Taken::default();
        for task in tasks {
            self.last_line = self.last_line.max(task.line);
            let place = Place::line(task.line);
            // A line that has no task of its own has that of an equal line: it was counted there.
            if !ledger.add(task.line, task.id, at_us) {
                continue;
            }
            taken.sort_in(task, place, ledger);
        }
        Ok(taken)
    }

    /// Repeats what failed or was cancelled, all of a batch at once: a task that waits for another is repeated with it.
    async fn repeat(&mut self, tasks: &mut [OnLine]) -> Result<(), RunError> {
        let ended_badly = |task: &&mut OnLine| task.life.is_some_and(|life| is_bad_end(life.state));
        let mut bad: Vec<&mut OnLine> = tasks.iter_mut().filter(ended_badly).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let old = bad.iter().map(|task| task.uuid).collect();
        let new = self.coordinator.retry_tasks(old).await?;
        self.repeated += new.len() as u64;
        for (task, new) in bad.iter_mut().zip(new) {
            (task.id, task.uuid, task.life) = (new.id, new.uuid, None);
        }
        Ok(())
    }

    /// The input is at its end: nothing of it is missing. Adds what tasks have submitted, cancels what is not wanted any
    /// more, and returns what the user should know.
    ///
    /// # Errors
    /// When the store or the state directory refuses.
    pub async fn finish(&mut self, ledger: &mut Ledger) -> Result<(Taken, Vec<String>), RunError> {
        let mut notices = Vec::new();
        let mut taken = Taken::default();
        if !self.fresh {
            if !self.was_whole {
                taken = self.take_unnoted(ledger).await?;
                notices.push(format!(
                    "the run before had not read {} to its end; what it had accepted is run",
                    self.header.source
                ));
            }
            let follow_ups = self.take_follow_ups(ledger).await?;
            taken.open.extend(follow_ups.open);
            taken.earlier.extend(follow_ups.earlier);
        }
        let repeated = self.repeated;
        notices.extend((repeated > 0).then(|| format!("{} repeated", plural(repeated, "task"))));
        self.close_notes()?;
        if !self.fresh {
            let dropped = self.drop_unwanted(ledger).await?;
            notices.extend((dropped > 0).then(|| {
                format!(
                    "{} of an earlier input cancelled: not in {}",
                    plural(dropped, "unfinished task"),
                    self.header.source
                )
            }));
        }
        notices.extend(strangers(self.coordinator, self.header.suite).await?);
        Ok((taken, notices))
    }

    /// Notes that the input was read to its end, unless there is no room for that: then the next run looks for itself.
    fn close_notes(&mut self) -> Result<(), ManifestError> {
        let mut closed = self.notes.flush();
        if closed.is_ok() {
            self.header.whole = true;
            closed = self.header.write(self.settings.state_dir);
        }
        match closed {
            Err(error) if error.lacks_room() => Ok(()),
            closed => closed,
        }
    }

    /// Tasks that were accepted and not noted any more before a run was killed.
    async fn take_unnoted(&mut self, ledger: &mut Ledger) -> Result<Taken, RunError> {
        let mut all = Taken::default();
        let mut filter = self.filter(None);
        loop {
            let page = self.coordinator.tasks(&filter).await?;
            let of_input = page
                .tasks
                .iter()
                .filter(|task| task.retry_of.is_none() && task.follow_up_of.is_none());
            let mut lives = self
                .lives(of_input.clone().map(|task| task.id).collect())
                .await?;
            let mut tasks = Vec::new();
            for task in of_input {
                let Some(life) = lives.remove(&task.id) else {
                    continue;
                };
                if ledger.line_of(life.id).is_none() {
                    self.last_line += 1;
                    tasks.push(OnLine {
                        line: self.last_line,
                        id: life.id,
                        uuid: life.uuid,
                        life: Some(life),
                    });
                }
            }
            let taken = self.enter(ledger, tasks).await?;
            all.open.extend(taken.open);
            all.earlier.extend(taken.earlier);
            match page.next_cursor {
                Some(cursor) => filter.cursor = Some(cursor),
                None => return Ok(all),
            }
        }
    }

    /// What tasks of the input have submitted so far, in the order in which it was accepted; a repeated one stands where
    /// the first stood.
    async fn take_follow_ups(&mut self, ledger: &mut Ledger) -> Result<Taken, RunError> {
        let follow_ups = self
            .coordinator
            .submitted_by_tasks(self.header.suite)
            .await?;
        let submitters = self
            .lives(follow_ups.iter().map(|life| life.root).collect())
            .await?;
        let mut lines: BTreeMap<i64, u64> = BTreeMap::new();
        let mut tasks = Vec::new();
        for life in follow_ups {
            let of = submitters.get(&life.root).map_or(life.root, |of| of.id);
            let Some(line) = lines.get(&of).copied().or_else(|| ledger.line_of(of)) else {
                continue;
            };
            lines.insert(life.id, line);
            tasks.push(OnLine {
                line,
                id: life.id,
                uuid: life.uuid,
                life: Some(life),
            });
        }
        if self.settings.retry_failed {
            self.repeat(&mut tasks).await?;
        }
        let mut taken = Taken::default();
        for task in tasks {
            let place = ledger.add_follow_up(task.line, task.uuid);
            taken.sort_in(task, place, ledger);
        }
        Ok(taken)
    }

    /// Cancels what has not ended and is not wanted; returns how many.
    async fn drop_unwanted(&self, ledger: &Ledger) -> Result<u64, RunError> {
        let mut dropped = 0;
        let mut filter = self.filter(Some(OPEN.to_owned()));
        loop {
            let page = self.coordinator.tasks(&filter).await?;
            for task in page.tasks {
                if ledger.line_of(task.id).is_none() && !ledger.awaits_follow_up(task.uuid) {
                    self.coordinator.cancel(task.uuid, true).await?;
                    dropped += 1;
                }
            }
            match page.next_cursor {
                Some(cursor) => filter.cursor = Some(cursor),
                None => return Ok(dropped),
            }
        }
    }

    fn filter(&self, state: Option<String>) -> TaskFilter {
        TaskFilter {
            suite: Some(self.header.suite),
            state,
            limit: Some(PAGE),
            ..TaskFilter::default()
        }
    }
}

/// A place in a random order.
fn random_priority() -> i32 {
    let drawn = Uuid::new_v4().as_u64_pair().1;
    i32::from_le_bytes(std::array::from_fn(|place| drawn.to_le_bytes()[place + 4]))
}

fn is_bad_end(state: TaskState) -> bool {
    matches!(state, TaskState::Failed | TaskState::Cancelled)
}

/// How a task of a line ended, if it has.
fn past(line: u64, life: &Life) -> Option<Past> {
    let reason = life.reason.map(Reason::as_str).unwrap_or_default();
    Some(Past {
        outcome: outcome_of(life.state)?,
        for_upstream: life.reason == Some(Reason::UpstreamFailed),
        failure: Failure {
            line,
            uuid: life.uuid,
            reason: reason.to_owned(),
            exit_code: life.exit_code,
            signal: None,
        },
    })
}

/// The suite of an earlier run whose note was lost.
async fn existing_suite(coordinator: &Coordinator) -> Result<Option<Uuid>, RunError> {
    let first = coordinator.suites(None, Some(PAGE)).await?;
    let mut suites = first.items.into_iter();
    let found = suites.find(|suite| suite.name == SUITE_NAME);
    Ok(found.map(|suite| suite.uuid))
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

#[cfg(test)]
mod tests;
