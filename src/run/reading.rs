//! An input on its way into a run: looked at whole where that is possible, then read batch by batch on a thread of its own.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | batches | [`BATCHES`] | the thread that reads | it waits, and with it whoever writes into the pipe | the input is at its end |
//!
//! The thread is not joined: a read from a pipe that nobody writes to ends with the process.

use super::error::RunError;
use super::feed::survey;
use super::fit::Fit;
use super::input::{InputError, InputTask};
use super::opened::Opened;
use super::options::{Input, RunOptions};
use super::stem::{Named, Stems};

/// Batches that may lie between the thread and the run.
const BATCHES: usize = 2;

/// What came of a read.
type Batch = Result<Vec<InputTask>, InputError>;

/// An input that is being read.
#[derive(Debug)]
pub struct Reading {
    /// Where the tasks come from, for people.
    pub source: String,
    /// True for one command whose exit code becomes the run's.
    pub single_command: bool,
    /// How many tasks there are, where all have been looked at.
    pub expected: Option<u64>,
    first: Option<Vec<InputTask>>,
    batches_rx: flume::Receiver<Batch>,
    /// Names of output files so far, where they can only be known one by one.
    stems: Stems,
}

impl Reading {
    /// Looks at every task of what can be read twice, and waits for the first of what cannot. Blocks.
    ///
    /// # Errors
    /// When the input cannot be read, or anything that was looked at is refused.
    pub fn begin(options: &RunOptions, input: Input) -> Result<Self, RunError> {
        let Input {
            source,
            single_command,
            opened,
            ..
        } = input;
        let is_stream = opened.is_stream();
        let expected = match is_stream {
            true => None,
            false => Some(look(options, &opened)?),
        };
        let (batches_tx, batches_rx) = flume::bounded(BATCHES);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read(&opened, &batches_tx))
            .map_err(RunError::io("start the thread that reads the input"))?;
        let mut reading = Self {
            source,
            single_command,
            expected,
            first: None,
            batches_rx,
            stems: Stems::default(),
        };
        if let Ok(first) = reading.batches_rx.recv() {
            let first = first?;
            reading.check(options, &first)?;
            reading.first = Some(first);
        }
        Ok(reading)
    }

    /// True when there is no task at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// True for a pipe.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.expected.is_none()
    }

    /// The next tasks; `None` at the end. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Batch> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        self.batches_rx.recv_async().await.ok()
    }

    /// Holds tasks of a pipe against the machine and against each other; the others have been looked at before.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn check(&mut self, options: &RunOptions, tasks: &[InputTask]) -> Result<(), RunError> {
        if !self.is_stream() {
            return Ok(());
        }
        let mut fit = Fit::new(options);
        fit.look(tasks);
        fit.verdict()?;
        add_stems(options, &mut self.stems, tasks)
    }
}

fn look(options: &RunOptions, opened: &Opened) -> Result<u64, RunError> {
    let mut fit = Fit::new(options);
    let mut stems = Stems::default();
    let count = survey(opened.feed(), |tasks| {
        fit.look(tasks);
        add_stems(options, &mut stems, tasks)
    })?;
    opened.check_unchanged()?;
    fit.verdict()?;
    Ok(count)
}

fn add_stems(options: &RunOptions, stems: &mut Stems, tasks: &[InputTask]) -> Result<(), RunError> {
    let Some(pattern) = &options.output.files else {
        return Ok(());
    };
    for task in tasks {
        let named = Named {
            id: task.spec.id.as_deref(),
            arguments: &task.arguments,
        };
        stems.add(pattern, task.line, named)?;
    }
    Ok(())
}

fn read(opened: &Opened, batches_tx: &flume::Sender<Batch>) {
    for batch in opened.feed() {
        // The run does not want more, or cannot.
        if batches_tx.send(batch).is_err() {
            return;
        }
    }
    if let Err(error) = opened.check_unchanged() {
        let _ = batches_tx.send(Err(error));
    }
}
