//! A run while its tasks run: takes ends, signals and time as they come, until every task has ended or the manager has
//! gone.
//!
//! Owned by [`super::session`]. What the ends mean is the ledger's business, what becomes of outputs the delivery's,
//! what is written the printer's; when the rest is cancelled is said by [`super::halt`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::closing::{self, Page, Told};
use super::delivery::{Delivered, Delivery};
use super::engine::Engine;
use super::error::RunError;
use super::halt::{Halt, When};
use super::input::InputTask;
use super::ledger::{Ledger, Place, Recorded};
use super::notes;
use super::options::RunOptions;
use super::plan::{Intake, command_text};
use super::printer::{Destination, Printer};
use super::progress::Standing;
use super::reading::Reading;
use super::room::{self, Advice, Look, Patience};
use super::stem::{Named, StemPattern, Stems};
use super::suspend::Suspension;
use crate::coordinator::Coordinator;
use crate::protocol::api::{TaskEnd, TaskFilter};
use crate::protocol::{Outcome, TaskState};
use crate::shutdown::{ShutdownRequest, ShutdownSignals};

/// Tasks read at once.
const PAGE: u32 = 1000;
/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long committed ends are waited for once the manager has gone.
const LAST_ENDS: Duration = Duration::from_secs(5);
/// Failures that are told one by one; the rest is in the summary's count.
const TOLD_FAILURES: u64 = 100;

/// The run while its tasks run.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) coordinator: &'a Coordinator,
    pub(super) printer: &'a Printer,
    pub(super) delivery: Delivery<'a>,
    pub(super) ledger: Ledger,
    pub(super) intake: Intake<'a>,
    /// The input, until it is at its end or not wanted any more.
    pub(super) reading: Option<Reading>,
    /// Why the input was not read to its end, in words.
    pub(super) unread: Option<String>,
    pub(super) interrupted: bool,
    pub(super) halting: Halting,
    /// The first failures of this run.
    pub(super) failures: Vec<Told>,
    pub(super) look: Look,
    pub(super) patience: Patience,
    /// The state directory could not be written for too long.
    pub(super) gave_up: bool,
}

/// How far a run is with ending before all of its tasks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halting {
    /// It is not.
    No,
    /// Nothing new begins; what runs is waited for.
    Soon(Halt),
    /// The rest is cancelled.
    Done(Halt),
}

impl Halting {
    /// The rule that ended the run.
    pub(super) fn rule(self) -> Option<Halt> {
        match self {
            Self::No => None,
            Self::Soon(rule) | Self::Done(rule) => Some(rule),
        }
    }
}

impl Listener<'_> {
    /// Takes ends, signals and time as they come, until every task has ended or the manager has gone.
    pub(super) async fn listen(
        &mut self,
        ends: &flume::Receiver<TaskEnd>,
        engine: &Engine,
        signals: &mut ShutdownSignals,
    ) -> Result<(), RunError> {
        let shows = self.options.progress.shows(self.options.screen);
        let mut suspension =
            Suspension::install().map_err(RunError::io("install a signal handler"))?;
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut looks = tokio::time::interval(room::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.ledger.is_done() {
            let halting = matches!(self.halting, Halting::Soon(_));
            let ticking = shows || halting || self.options.output.line_buffer;
            tokio::select! {
                batch = next_batch(&mut self.reading), if self.intake.waits_for().is_none() => {
                    self.on_batch(batch).await?;
                }
                _ = looks.tick() => self.look_at_disk(Some(engine)).await?,
                end = ends.recv_async() => match end {
                    Ok(end) => {
                        self.patience.relax();
                        self.on_end(end).await?;
                        self.halt_if_due(engine).await?;
                        // The last of the running tasks may have ended with this one; nobody else says so.
                        if matches!(self.halting, Halting::Soon(_)) {
                            self.cancel_when_idle(engine.running().await).await?;
                        }
                    }
                    // The coordinator is ours and closes later; its pump is gone only if its task was lost.
                    Err(flume::RecvError::Disconnected) => return Ok(()),
                },
                request = signals.next() => self.on_signal(request, engine).await,
                () = suspension.wished() => engine.stand_still().await?,
                gone = engine.gone() => {
                    // Ours was not the wish if we had none, but it was somebody's.
                    self.interrupted = true;
                    return gone;
                }
                _ = ticks.tick(), if ticking => {
                    let running = engine.running().await;
                    self.printer.progress(Standing {
                        counts: self.ledger.counts(),
                        running,
                        waits_for_disk: self.patience.is_tried(),
                    });
                    self.cancel_when_idle(running).await?;
                    self.delivery.running(&self.ledger).await?;
                }
            }
        }
        Ok(())
    }

    /// Accepts tasks of the input, or closes the books at its end.
    pub(super) async fn on_batch(
        &mut self,
        batch: Option<Result<Vec<InputTask>, super::input::InputError>>,
    ) -> Result<(), RunError> {
        let refused = match batch {
            None => return self.input_is_over().await,
            Some(Err(error)) => RunError::Input(error),
            Some(Ok(tasks)) => match self
                .reading
                .as_mut()
                .map(|reading| reading.check(self.options, &tasks))
            {
                Some(Err(error)) => error,
                _ => {
                    let taken = self.intake.take(&mut self.ledger, tasks).await?;
                    return self.delivery.expect(&taken).await;
                }
            },
        };
        // What was accepted before is run to its end.
        let source = self.reading.take().map(|reading| reading.source);
        let source = source.unwrap_or_default();
        let words = format!("{source} is read no further, what came before is run:\n{refused}");
        self.printer.note(format!("mitosis: {words}")).await;
        self.unread = Some(words);
        self.ledger.close();
        Ok(())
    }

    async fn input_is_over(&mut self) -> Result<(), RunError> {
        self.reading = None;
        let (taken, notices) = self.intake.finish(&mut self.ledger).await?;
        self.ledger.close();
        for notice in notices {
            self.printer.note(format!("mitosis: {notice}")).await;
        }
        self.delivery.expect(&taken).await
    }

    /// Takes up what an earlier run accepted.
    pub(super) async fn take_noted(&mut self) -> Result<(), RunError> {
        let files = self.options.output.files.as_ref();
        let names_are_known = !files.is_some_and(StemPattern::needs_task);
        let mut held_back = Vec::new();
        while let Some(taken) = self.intake.take_noted(&mut self.ledger).await? {
            match names_are_known {
                true => self.delivery.expect(&taken).await?,
                false => held_back.push(taken),
            }
        }
        self.check_stems().await?;
        for taken in held_back {
            self.delivery.expect(&taken).await?;
        }
        self.input_is_over().await
    }

    /// Holds that no two tasks write to one file, where the pattern alone does not say so and the input was not there to
    /// be looked at.
    async fn check_stems(&self) -> Result<(), RunError> {
        let pattern = self.options.output.files.as_ref();
        let Some(pattern) = pattern.filter(|pattern| pattern.needs_task()) else {
            return Ok(());
        };
        let mut stems = Stems::default();
        let mut filter = TaskFilter {
            suite: Some(self.intake.suite()),
            limit: Some(PAGE),
            ..TaskFilter::default()
        };
        loop {
            let page = self.coordinator.tasks(&filter).await?;
            for task in &page.tasks {
                let Some(line) = self.ledger.line_of(task.id) else {
                    continue;
                };
                let spec = self.coordinator.task(task.uuid).await?.spec;
                let named = Named {
                    id: spec.id.as_deref(),
                    arguments: &spec.arguments,
                };
                stems.add(pattern, line, named)?;
            }
            match page.next_cursor {
                Some(cursor) => filter.cursor = Some(cursor),
                None => return Ok(()),
            }
        }
    }

    /// Accepts the whole input before anything is begun; false when a signal came first.
    pub(super) async fn read_all(
        &mut self,
        signals: &mut ShutdownSignals,
    ) -> Result<bool, RunError> {
        while self.reading.is_some() {
            let waits = self.intake.waits_for().is_some();
            tokio::select! {
                batch = next_batch(&mut self.reading), if !waits => self.on_batch(batch).await?,
                () = tokio::time::sleep(room::LOOK), if waits => self.look_at_disk(None).await?,
                _ = signals.next() => {
                    self.interrupted = true;
                    self.reading = None;
                    return Ok(false);
                }
            }
        }
        Ok(!self.gave_up)
    }

    async fn on_end(&mut self, end: TaskEnd) -> Result<(), RunError> {
        let Recorded::Ended { place, follow_ups } = self.ledger.record(&end) else {
            return Ok(());
        };
        let notes = [
            self.note_about(place, &end).await?,
            notes::refused_follow_ups(place, &end.result),
            notes::leftovers(place, &end.result),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        let note = (!notes.is_empty()).then(|| notes.join("\n"));
        let delivered = Delivered {
            place,
            follow_ups,
            end,
            note,
        };
        self.delivery.ended(delivered).await
    }

    async fn note_about(
        &mut self,
        place: Place,
        end: &TaskEnd,
    ) -> Result<Option<String>, RunError> {
        let failed = self.ledger.counts().failed;
        // The result of a single command is its exit code and its output; a note would only repeat them.
        let untold = end.outcome != Outcome::Failed || failed > TOLD_FAILURES;
        if untold || (self.intake.single().is_some() && end.result.message.is_none()) {
            return Ok(None);
        }
        let command = command_text(&self.coordinator.task(end.uuid).await?.spec);
        let told = Told::of(place, &command, &end.result);
        let streams = self.options.destination() == Destination::Streams;
        // Without order its error output stands right above.
        let unseen = !streams || self.options.output.keep_order;
        let mut note = match self.options.screen.style() {
            Some(style) => Page::here(style).failure_with_end(&told, &end.result, unseen),
            None => notes::failure(place, &command, &end.result, unseen),
        };
        if self.failures.len() < closing::LISTED_AGAIN {
            self.failures.push(told);
        }
        if failed == TOLD_FAILURES {
            note.push_str("\nmitosis: further failures are only counted");
        }
        Ok(Some(note))
    }

    /// Ends the run early where its rule says so.
    async fn halt_if_due(&mut self, engine: &Engine) -> Result<(), RunError> {
        if self.interrupted {
            // It is ending already, and what is left may be resumed.
            return Ok(());
        }
        let tally = self.ledger.tally();
        let due = self.options.halt.filter(|rule| rule.is_due(tally));
        let Some(rule) = due.filter(|_| self.halting == Halting::No) else {
            return Ok(());
        };
        self.reading = None;
        match rule.when {
            When::Now => self.cancel_rest(rule).await,
            When::Soon => {
                self.halting = Halting::Soon(rule);
                // What lies ready is back in the buffer when this returns, so nothing begins any more.
                engine.pause().await?;
                self.cancel_when_idle(engine.running().await).await
            }
        }
    }

    /// Cancels what is left once nothing runs any more.
    async fn cancel_when_idle(&mut self, running: u64) -> Result<(), RunError> {
        match self.halting {
            Halting::Soon(rule) if running == 0 => self.cancel_rest(rule).await,
            _ => Ok(()),
        }
    }

    async fn cancel_rest(&mut self, rule: Halt) -> Result<(), RunError> {
        self.halting = Halting::Done(rule);
        let rest = self.ledger.counts().unfinished;
        self.reading = None;
        self.ledger.forgo_missing();
        if rest > 0 {
            self.coordinator
                .cancel_all(self.intake.suite(), true)
                .await?;
            self.printer.note(notes::halted(rule, rest)).await;
        }
        Ok(())
    }

    /// Looks whether the run can write what it has to, and ends it when it could not for too long.
    async fn look_at_disk(&mut self, engine: Option<&Engine>) -> Result<(), RunError> {
        if self.intake.waits_for().is_some() {
            let taken = self.intake.take_waiting(&mut self.ledger).await?;
            self.delivery.expect(&taken).await?;
        }
        let kept = match engine {
            Some(engine) => engine.unwritable().await,
            None => None,
        };
        let stored = self.intake.waits_for();
        let stored = stored.or_else(|| self.coordinator.failing());
        let looked = self.look.look().await.cloned();
        let found = kept.or(stored).or(looked);
        match self.patience.looked(found.as_ref(), Instant::now()) {
            _ if self.interrupted || self.gave_up => {}
            Advice::GoOn => {}
            Advice::Say(words) => self.printer.note(format!("mitosis: {words}")).await,
            Advice::GiveUp(words) => {
                self.printer
                    .note(format!("mitosis: stopping: {words}"))
                    .await;
                self.gave_up = true;
                self.reading = None;
                let deadline = Duration::ZERO;
                engine
                    .inspect(|engine| engine.request_stop(ShutdownRequest::Graceful { deadline }));
            }
        }
        Ok(())
    }

    async fn on_signal(&mut self, request: ShutdownRequest, engine: &Engine) {
        self.interrupted = true;
        self.reading = None;
        let note = match request {
            ShutdownRequest::Graceful { deadline } => {
                notes::stopping(engine.running().await, deadline)
            }
            ShutdownRequest::Preempted { deadline } => {
                notes::preempted(engine.running().await, deadline)
            }
            ShutdownRequest::Immediate => "mitosis: stopping at once".to_owned(),
        };
        self.printer.note(note).await;
        engine.request_stop(request);
    }

    /// Takes the ends that were committed while the manager left.
    pub(super) async fn hear_last(
        &mut self,
        ends: &flume::Receiver<TaskEnd>,
    ) -> Result<(), RunError> {
        let deadline = tokio::time::Instant::now() + LAST_ENDS;
        while !self.ledger.is_idle() {
            let counts = self.coordinator.counts(Some(self.intake.suite())).await?;
            // Every task that is not open in the store has an end that is on its way to us.
            if self.ledger.outstanding() <= open_tasks(counts) {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, ends.recv_async()).await {
                Ok(Ok(end)) => self.on_end(end).await?,
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The next tasks of the input; never resolves once it is over.
async fn next_batch(
    reading: &mut Option<Reading>,
) -> Option<Result<Vec<InputTask>, super::input::InputError>> {
    match reading {
        Some(reading) => reading.next().await,
        None => std::future::pending().await,
    }
}

fn open_tasks(counts: BTreeMap<TaskState, u64>) -> u64 {
    let open = counts.into_iter().filter(|(state, _)| !state.is_terminal());
    open.map(|(_, count)| count).sum()
}
