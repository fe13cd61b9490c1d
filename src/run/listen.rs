//! A run while its tasks run: takes ends, signals and time as they come, until every task has ended or the manager has
//! gone.
//!
//! Owned by [`super::session`]. What the ends mean is the ledger's business, what becomes of outputs the delivery's,
//! what is written the printer's; when the rest is cancelled is said by [`super::halt`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::closing::{self, Page, Told};
use super::delivery::{Delivered, Delivery};
use super::engine::Engine;
use super::error::RunError;
use super::halt::{Halt, When};
use super::ledger::{Place, Recorded};
use super::notes;
use super::options::RunOptions;
use super::plan::Plan;
use super::printer::{Destination, Printer};
use super::progress::Standing;
use crate::coordinator::Coordinator;
use crate::protocol::api::TaskEnd;
use crate::protocol::{Outcome, TaskState};
use crate::shutdown::{ShutdownRequest, ShutdownSignals};

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
    pub(super) plan: Plan,
    pub(super) interrupted: bool,
    pub(super) halting: Halting,
    /// The first failures of this run.
    pub(super) failures: Vec<Told>,
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
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.plan.ledger.is_done() {
            let halting = matches!(self.halting, Halting::Soon(_));
            let ticking = shows || halting || self.options.output.line_buffer;
            tokio::select! {
                end = ends.recv_async() => match end {
                    Ok(end) => {
                        self.on_end(end).await?;
                        self.halt_if_due(engine).await?;
                    }
                    // The coordinator is ours and closes later; its pump is gone only if its task was lost.
                    Err(flume::RecvError::Disconnected) => return Ok(()),
                },
                request = signals.next() => self.on_signal(request, engine).await,
                gone = engine.gone() => {
                    // Ours was not the wish if we had none, but it was somebody's.
                    self.interrupted = true;
                    return gone;
                }
                _ = ticks.tick(), if ticking => {
                    let running = engine.running().await;
                    self.printer.progress(Standing {
                        counts: self.plan.ledger.counts(),
                        running,
                    });
                    self.cancel_when_idle(running).await?;
                    self.delivery.running().await?;
                }
            }
        }
        Ok(())
    }

    async fn on_end(&mut self, end: TaskEnd) -> Result<(), RunError> {
        let Recorded::Ended { place, follow_ups } = self.plan.ledger.record(&end) else {
            return Ok(());
        };
        let notes = [
            self.note_about(place, &end),
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

    fn note_about(&mut self, place: Place, end: &TaskEnd) -> Option<String> {
        let failed = self.plan.ledger.counts().failed;
        // The result of a single command is its exit code and its output; a note would only repeat them.
        let untold = end.outcome != Outcome::Failed || failed > TOLD_FAILURES;
        if untold || (self.plan.single.is_some() && end.result.message.is_none()) {
            return None;
        }
        let command = self.plan.command(place.line);
        let told = Told::of(place, command, &end.result);
        let streams = self.options.destination() == Destination::Streams;
        // Without order its error output stands right above.
        let unseen = !streams || self.options.output.keep_order;
        let mut note = match self.options.screen.style() {
            Some(style) => Page::here(style).failure_with_end(&told, &end.result, unseen),
            None => notes::failure(place, command, &end.result, unseen),
        };
        if self.failures.len() < closing::LISTED_AGAIN {
            self.failures.push(told);
        }
        if failed == TOLD_FAILURES {
            note.push_str("\nmitosis: further failures are only counted");
        }
        Some(note)
    }

    /// Ends the run early where its rule says so.
    async fn halt_if_due(&mut self, engine: &Engine) -> Result<(), RunError> {
        if self.interrupted {
            // It is ending already, and what is left may be resumed.
            return Ok(());
        }
        let tally = self.plan.ledger.tally();
        let due = self.options.halt.filter(|rule| rule.is_due(tally));
        let Some(rule) = due.filter(|_| self.halting == Halting::No) else {
            return Ok(());
        };
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
        let rest = self.plan.ledger.counts().unfinished;
        if rest > 0 {
            self.coordinator.cancel_all(self.plan.suite, true).await?;
            self.printer.note(notes::halted(rule, rest)).await;
        }
        Ok(())
    }

    async fn on_signal(&mut self, request: ShutdownRequest, engine: &Engine) {
        self.interrupted = true;
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
        while !self.plan.ledger.is_done() {
            let counts = self.coordinator.counts(Some(self.plan.suite)).await?;
            // Every task that is not open in the store has an end that is on its way to us.
            if self.plan.ledger.counts().unfinished <= open_tasks(counts) {
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

fn open_tasks(counts: BTreeMap<TaskState, u64>) -> u64 {
    let open = counts.into_iter().filter(|(state, _)| !state.is_terminal());
    open.map(|(_, count)| count).sum()
}
