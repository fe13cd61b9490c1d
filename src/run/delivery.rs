//! From ended tasks to what the user asked to see of them: output in the wanted order and place, rows for the files
//! about the run.
//!
//! Owned by the session loop; the printer thread does the writing. With `--keep-order` outputs wait for those before
//! them: a few of them here, all others where they are anyway, in the store and the kept files, from where they are
//! read again when it is their turn.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::RunError;
use super::follow::Shown;
use super::given::Given;
use super::ledger::{Ledger, Place};
use super::live::{self, Live};
use super::options::RunOptions;
use super::output;
use super::plan::{Earlier, Taken, outcome_of};
use super::printer::{Destination, Printer, TaskOutput};
use super::row::Row;
use super::stem::Named;
use super::turn::Turns;
use crate::coordinator::Coordinator;
use crate::protocol::api::{TaskDetail, TaskEnd};
use crate::protocol::output::dropped_words;
use crate::protocol::{LogStream, Outcome, TaskResult};

/// Outputs that wait in memory; each has at most two tails (8 KiB).
const WAITING_HERE: usize = 128;

/// Carries outputs and rows to the printer.
#[derive(Debug)]
pub struct Delivery<'a> {
    options: &'a RunOptions,
    coordinator: &'a Coordinator,
    printer: &'a Printer,
    turns: Option<Turns<Waiting>>,
    live: Option<Live<'a>>,
    given: Given,
    here: usize,
}

/// An output that waits for those before it.
#[derive(Debug)]
enum Waiting {
    Here(Box<TaskOutput>),
    Stored(Place, Uuid),
}

/// An end and what follows from it for the order of outputs.
#[derive(Debug)]
pub struct Delivered {
    /// The place of the task.
    pub place: Place,
    /// Places of the tasks that it submitted.
    pub follow_ups: Vec<Place>,
    /// The end.
    pub end: TaskEnd,
    /// What is said about it.
    pub note: Option<String>,
}

impl<'a> Delivery<'a> {
    /// Nothing is expected yet.
    #[must_use]
    pub fn new(
        options: &'a RunOptions,
        coordinator: &'a Coordinator,
        printer: &'a Printer,
        state_dir: &Path,
        given: Given,
    ) -> Self {
        let wanted = &options.output;
        let live = || {
            let dir = live::directory(state_dir);
            Live::new(coordinator, printer, dir, wanted.tag.as_ref())
        };
        Self {
            options,
            coordinator,
            printer,
            live: wanted.line_buffer.then(live),
            turns: wanted.keep_order.then(Turns::default),
            given,
            here: 0,
        }
    }

    /// Takes note of tasks that were accepted, and delivers what earlier runs could not: missing output files, and rows of
    /// files that begin anew.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn expect(&mut self, taken: &Taken) -> Result<(), RunError> {
        if let Some(turns) = &mut self.turns {
            taken.open.iter().for_each(|place| turns.expect(*place));
        }
        for earlier in &taken.earlier {
            self.earlier(*earlier).await?;
        }
        self.print_due().await
    }

    /// Gives what an earlier run still owed of a task: a row, an output file that is missing, an output that was not
    /// written before it was killed.
    async fn earlier(&mut self, earlier: Earlier) -> Result<(), RunError> {
        let Earlier {
            place,
            id,
            uuid,
            is_silent,
        } = earlier;
        let wants_rows = !self.options.output.records.is_empty();
        let missing = match (&self.options.output.files, self.options.destination()) {
            (Some(pattern), _) if !pattern.needs_task() => {
                !output::is_saved(&pattern.stem(place, Named::default()))
            }
            (Some(_), _) => true,
            (None, Destination::Streams) => !is_silent && !self.given.contains(id),
            (None, _) => false,
        };
        if !wants_rows && !missing {
            return Ok(());
        }
        let mut detail = self.coordinator.task(uuid).await?;
        let ended = detail.result.take().zip(outcome_of(detail.summary.state));
        let Some((result, outcome)) = ended else {
            return Ok(());
        };
        if wants_rows {
            let row = Row::of(place, &detail, outcome, result.clone());
            self.printer.row(row).await;
        }
        let is_file = self.options.output.files.is_some();
        if !missing || (is_file && output::is_saved(&self.stem(place, Some(&detail)))) {
            return Ok(());
        }
        match &mut self.turns {
            Some(turns) => {
                turns.expect(place);
                turns.ended(place, Waiting::Stored(place, uuid));
            }
            None => {
                let output = self.output(id, place, Some(&detail), result, None);
                self.printer.output(output).await;
            }
        }
        Ok(())
    }

    /// Shows what running tasks have written, where that is wanted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn running(&mut self, ledger: &Ledger) -> Result<(), RunError> {
        match &mut self.live {
            Some(live) => live.show(ledger).await,
            None => Ok(()),
        }
    }

    /// Delivers a task that has ended just now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn ended(&mut self, ended: Delivered) -> Result<(), RunError> {
        let Delivered {
            place,
            follow_ups,
            end,
            note,
        } = ended;
        let detail = match self.options.output.needs_details() {
            true => Some(self.coordinator.task(end.uuid).await?),
            false => None,
        };
        self.row(place, detail.as_ref(), end.outcome, &end.result)
            .await;
        let shown = match (&mut self.live, &detail) {
            (Some(live), Some(detail)) => live.end(end.uuid, detail.summary.attempts),
            _ => Shown::default(),
        };
        let Some(turns) = &mut self.turns else {
            let mut output = self.output(end.id, place, detail.as_ref(), end.result, note);
            output.seen = [shown.stdout, shown.stderr];
            self.printer.output(output).await;
            return Ok(());
        };
        follow_ups.into_iter().for_each(|place| turns.expect(place));
        // What is said about a failure does not wait.
        if let Some(note) = note {
            self.printer.note(note).await;
        }
        let waiting = if self.here < WAITING_HERE {
            self.here += 1;
            Waiting::Here(Box::new(self.output(
                end.id,
                place,
                detail.as_ref(),
                end.result,
                None,
            )))
        } else {
            Waiting::Stored(place, end.uuid)
        };
        if let Some(turns) = &mut self.turns {
            turns.ended(place, waiting);
        }
        self.print_due().await
    }

    async fn print_due(&mut self) -> Result<(), RunError> {
        while let Some(due) = self.turns.as_mut().and_then(Turns::next_due) {
            self.print(due).await?;
        }
        Ok(())
    }

    /// Delivers what still waits: the tasks before it will not end in this run.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn finish(&mut self) -> Result<(), RunError> {
        while let Some(waiting) = self.turns.as_mut().and_then(Turns::next_waiting) {
            self.print(waiting).await?;
        }
        Ok(())
    }

    async fn print(&mut self, waiting: Waiting) -> Result<(), RunError> {
        let output = match waiting {
            Waiting::Here(output) => {
                self.here -= 1;
                *output
            }
            Waiting::Stored(place, uuid) => {
                let mut detail = self.coordinator.task(uuid).await?;
                let Some(result) = detail.result.take() else {
                    return Ok(());
                };
                self.output(detail.summary.id, place, Some(&detail), result, None)
            }
        };
        self.printer.output(output).await;
        Ok(())
    }

    async fn row(
        &self,
        place: Place,
        detail: Option<&TaskDetail>,
        outcome: Outcome,
        result: &TaskResult,
    ) {
        if self.options.output.records.is_empty() {
            return;
        }
        if let Some(detail) = detail {
            let row = Row::of(place, detail, outcome, result.clone());
            self.printer.row(row).await;
        }
    }

    fn output(
        &self,
        task: i64,
        place: Place,
        detail: Option<&TaskDetail>,
        result: TaskResult,
        note: Option<String>,
    ) -> TaskOutput {
        let tag = self.options.output.tag.as_ref();
        let tag = tag
            .zip(detail)
            .map(|(tag, detail)| tag.of(&detail.spec, place.line));
        TaskOutput {
            task,
            stem: self.stem(place, detail),
            tag,
            seen: [0; 2],
            note: with_gaps(place, &result, note),
            stdout: result.stdout,
            stderr: result.stderr,
        }
    }

    fn stem(&self, place: Place, detail: Option<&TaskDetail>) -> PathBuf {
        let named = detail.map_or_else(Named::default, |detail| Named {
            id: detail.spec.id.as_deref(),
            arguments: &detail.spec.arguments,
        });
        match &self.options.output.files {
            Some(pattern) => pattern.stem(place, named),
            None => PathBuf::new(),
        }
    }
}

/// The note of a task, after what there is to say about bytes that were not kept.
fn with_gaps(place: Place, result: &TaskResult, note: Option<String>) -> Option<String> {
    let streams = [
        (LogStream::Stdout, &result.stdout),
        (LogStream::Stderr, &result.stderr),
    ];
    let gaps = streams.into_iter().filter_map(|(stream, output)| {
        let words = dropped_words(stream, output.gap?);
        Some(format!("{words} (task {place})"))
    });
    let notes: Vec<String> = gaps.chain(note).collect();
    (!notes.is_empty()).then(|| notes.join("\n"))
}
