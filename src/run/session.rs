//! One run from its state directory to its summary: opens, submits, starts, listens, stops, sums up.
//!
//! Owned by the command; everything it opens is closed again in a fixed order, also when something fails on the way:
//! manager (its workers first), HTTP face, printer, coordinator, state directory. What happens while tasks run is
//! [`super::listen`]'s part.

use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::closing::Told;
use super::delivery::Delivery;
use super::engine::Engine;
use super::error::RunError;
use super::fit;
use super::given;
use super::halt::Halt;
use super::ledger::Ledger;
use super::listen::{Halting, Listener};
use super::notes;
use super::options::RunOptions;
use super::plan::{self, Intake};
use super::printer::Printer;
use super::progress::{Progress, Standing};
use super::reading::Reading;
use super::records::{RecordError, Records};
use super::room::{Look, Patience};
use super::state_dir::{Removal, StateDir};
use super::summary::{Figures, Summary, plural};
use super::verdict;
use crate::coordinator::{ARTIFACTS_DIR, Coordinator, CoordinatorConfig};
use crate::exit_code::Exit;
use crate::protocol::TaskResult;
use crate::shutdown::ShutdownSignals;

/// Name of the tasks in a report about a run that is resumed without its input.
const RESUMED: &str = "resumed run";

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub summary: Summary,
    /// How the process is to end.
    pub exit: Exit,
    /// The first failures of this run.
    pub failures: Vec<Told>,
    /// The command that goes on with what is left, or repeats what failed.
    pub again: Option<Again>,
    /// What the user should know at the end.
    pub hints: Vec<String>,
}

/// A command that goes on where a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// With what has not ended.
    Resume(String),
    /// With what failed or was cancelled.
    Repeat(String),
}

impl Again {
    /// The command alone.
    #[must_use]
    pub fn command(&self) -> &str {
        match self {
            Self::Resume(command) | Self::Repeat(command) => command,
        }
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resume(command) => write!(f, "resume with: {command}"),
            Self::Repeat(command) => write!(f, "repeat the failed with: {command}"),
        }
    }
}

/// Runs what is read, or what the state directory still has to do.
///
/// # Errors
/// When the run as a whole fails; failed tasks are part of the outcome.
pub async fn run(options: RunOptions, input: Option<Reading>) -> Result<Outcome, RunError> {
    let began = Instant::now();
    // First of all: from here on an interrupt ends the run in words.
    let mut signals = ShutdownSignals::install(options.stop_deadline())
        .map_err(RunError::io("install signal handlers"))?
        .ahead_of(options.ends);
    let records = prepare_files(&options, input.as_ref())?;
    let state_dir = open_state_dir(&options)?;
    announce(&options, &state_dir);
    let opened = Coordinator::open(CoordinatorConfig {
        durability: options.durability,
        capacity: Some(options.capacity()),
        ..CoordinatorConfig::new(state_dir.path())
    });
    let coordinator = match opened.await {
        Ok(coordinator) => coordinator,
        Err(error) => {
            state_dir.remove_unused();
            return Err(error.into());
        }
    };
    let begun = Cell::new(false);
    let work = Work {
        options: &options,
        coordinator: &coordinator,
        state_dir: state_dir.path(),
        input,
        records,
        begun: &begun,
    };
    let finished = match work.perform(&mut signals).await {
        Err(refused) if !begun.get() => {
            coordinator.close_for_removal().await;
            state_dir.remove_unused();
            return Err(refused);
        }
        finished => finished,
    };
    let single = match &finished {
        Ok(finished) => single_result(&coordinator, finished).await?,
        Err(_) => None,
    };
    let is_complete = finished.as_ref().is_ok_and(Finished::is_complete);
    if is_complete && state_dir.goes_after_success() {
        coordinator.close_for_removal().await;
    } else {
        coordinator.close().await;
    }
    conclude(
        &options,
        state_dir,
        finished?,
        single.as_ref(),
        began.elapsed(),
    )
}

/// Looks at every file that is to be written, so that what cannot be is refused while it costs nothing.
fn prepare_files(options: &RunOptions, input: Option<&Reading>) -> Result<Records, RunError> {
    if let Some(pattern) = &options.output.files {
        std::fs::create_dir_all(pattern.root())
            .map_err(RunError::io("make the output directory"))?;
    }
    let source = input.map_or(RESUMED, |input| &input.source);
    Ok(Records::open(&options.output.records, source)?)
}

/// Writes the files about a run that has no tasks: whoever reads them finds them empty, not missing.
///
/// # Errors
/// When one cannot be written.
pub fn record_nothing(options: &RunOptions, source: &str) -> Result<(), RecordError> {
    let mut records = Records::open(&options.output.records, source)?;
    records.begin()?;
    records.finish()
}

fn open_state_dir(options: &RunOptions) -> Result<StateDir, RunError> {
    let state_dir = match &options.state_dir {
        Some(path) => StateDir::given(path)?,
        None if options.keep_state => StateDir::fresh(Removal::Never)?,
        None => StateDir::fresh(Removal::AfterSuccess)?,
    };
    Ok(state_dir)
}

fn announce(options: &RunOptions, state_dir: &StateDir) {
    if let Some(notice) = state_dir.notice() {
        say(notice);
    }
    if !options.quiet && options.state_dir.is_none() {
        say(&format!("state in {}", state_dir.path().display()));
    }
}

/// A line on stderr before the printer lives.
fn say(text: &str) {
    use std::io::Write as _;
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "mitosis: {text}");
}

/// A run that has ended, one way or another.
struct Finished {
    ledger: Ledger,
    single: Option<Uuid>,
    interrupted: bool,
    /// It ended because its state could not be written.
    gave_up: bool,
    halted: Option<Halt>,
    failures: Vec<Told>,
    engine: Figures,
    unwritten: super::printer::Report,
    /// Why the input was not read to its end, where it was at fault.
    unread: Option<String>,
    /// Where the tasks come from, for people.
    source: String,
}

impl Finished {
    /// True when every task has completed.
    fn is_complete(&self) -> bool {
        let counts = self.ledger.counts();
        counts.completed == counts.total && self.unread.is_none()
    }
}

/// What is left to do, and what it takes.
struct Work<'a> {
    options: &'a RunOptions,
    coordinator: &'a Coordinator,
    state_dir: &'a Path,
    input: Option<Reading>,
    records: Records,
    /// Set once tasks may run.
    begun: &'a Cell<bool>,
}

impl Work<'_> {
    async fn perform(self, signals: &mut ShutdownSignals) -> Result<Finished, RunError> {
        let Self {
            options,
            coordinator,
            state_dir,
            input,
            mut records,
            begun,
        } = self;
        fit::check_open(coordinator, options).await?;
        let settings = plan::Settings {
            state_dir,
            defaults: &options.defaults,
            retry_failed: options.retry_failed,
            shuffle: options.shuffle,
        };
        let intake = match &input {
            Some(input) => {
                Intake::begin(coordinator, settings, &input.source, input.single_command).await?
            }
            None => Intake::resume(coordinator, settings).await?,
        };
        let mut ledger = Ledger::default();
        ledger.announce(input.as_ref().and_then(|input| input.expected).unwrap_or(0));
        records.begin()?;
        let standing = Standing {
            counts: ledger.counts(),
            running: 0,
            waits_for_disk: false,
        };
        let progress = Progress::new(options.progress, options.screen, standing);
        let (given, given_writer) = given::open(state_dir)?;
        let printer = Printer::spawn(options.destination(), records, progress, Some(given_writer))
            .map_err(RunError::io("start the printer thread"))?;
        let mut listener = Listener {
            options,
            coordinator,
            printer: &printer,
            delivery: Delivery::new(options, coordinator, &printer, state_dir, given),
            ledger,
            intake,
            reading: input,
            unread: None,
            interrupted: false,
            halting: Halting::No,
            failures: Vec::new(),
            look: Look::at(state_dir.to_owned()),
            patience: Patience::new(options.disk_wait),
            gave_up: false,
        };
        let engine = execute(&mut listener, state_dir, signals, begun).await?;
        listener.delivery.finish().await?;
        let single = listener.intake.single();
        let (ledger, interrupted) = (listener.ledger, listener.interrupted);
        Ok(Finished {
            ledger,
            single,
            interrupted,
            gave_up: listener.gave_up,
            halted: listener.halting.rule(),
            failures: listener.failures,
            engine,
            unread: listener.unread,
            source: listener.intake.source().to_owned(),
            unwritten: printer.finish().await,
        })
    }
}

/// Accepts the input and executes it. What an earlier run left is settled before anything begins, unless the input is a
/// pipe: its end may be far away.
async fn execute(
    listener: &mut Listener<'_>,
    state_dir: &Path,
    signals: &mut ShutdownSignals,
    begun: &Cell<bool>,
) -> Result<Figures, RunError> {
    let ends = listener.coordinator.ends();
    let is_stream = listener.reading.as_ref().is_some_and(Reading::is_stream);
    if listener.reading.is_none() {
        listener.take_noted().await?;
    } else if (!listener.intake.is_fresh() || listener.options.shuffle)
        && !is_stream
        && !listener.read_all(signals).await?
    {
        return Ok(Figures::default());
    }
    if listener.ledger.is_done() {
        return Ok(Figures::default());
    }
    let (options, coordinator) = (listener.options, listener.coordinator);
    let first = async {
        match &mut listener.reading {
            Some(reading) => {
                let batch = reading.next().await;
                listener.on_batch(batch).await
            }
            None => Ok(()),
        }
    };
    let (started, taken) = tokio::join!(Engine::start(options, coordinator, state_dir), first);
    let started = started?;
    begun.set(true);
    let heard = match taken {
        Ok(()) => listener.listen(&ends, &started, signals).await,
        Err(error) => Err(error),
    };
    let figures = started.stop().await;
    heard?;
    listener.hear_last(&ends).await?;
    Ok(figures)
}

/// The result of the only task, also when it ended in an earlier run.
async fn single_result(
    coordinator: &Coordinator,
    finished: &Finished,
) -> Result<Option<TaskResult>, RunError> {
    match (finished.single, finished.ledger.single()) {
        (None, _) => Ok(None),
        (Some(_), Some(result)) => Ok(Some(result.clone())),
        (Some(uuid), None) => Ok(coordinator.task(uuid).await?.result),
    }
}

fn conclude(
    options: &RunOptions,
    state_dir: StateDir,
    finished: Finished,
    single: Option<&TaskResult>,
    wall: Duration,
) -> Result<Outcome, RunError> {
    let counts = finished.ledger.counts();
    // Of a pipe that was cut off nobody knows what it still would have brought.
    let cut_off = finished.interrupted && !finished.ledger.is_closed();
    let exit = match &finished.unread {
        _ if finished.gave_up => Exit::System,
        Some(_) => Exit::Usage,
        None if cut_off => Exit::Interrupted,
        None => verdict::exit(counts, finished.interrupted, finished.halted, single),
    };
    let path = state_dir.path().to_owned();
    if let Some(first) = finished.unwritten.first {
        return Err(RunError::Output {
            count: finished.unwritten.failures,
            first,
            state_dir: path,
        });
    }
    let has_artifacts = holds_artifacts(&path);
    let removed = exit == Exit::Ok
        && counts.failed + counts.cancelled == 0
        && !has_artifacts
        && state_dir
            .remove_after_success()
            .map_err(RunError::io("remove the state directory"))?;
    let mut hints = Vec::new();
    if has_artifacts {
        hints.push(format!(
            "files that tasks left are kept; fetch them with: mitosis task NUMBER --artifacts DIR --state-dir {}",
            path.display()
        ));
    }
    let missing = finished.ledger.missing();
    if missing > 0 && counts.unfinished > 0 {
        let missing = plural(missing, "task");
        let source = &finished.source;
        hints.push(format!(
            "{missing} of {source} had not been read: give {source} again with the command that resumes to run all of it"
        ));
    }
    let again = if counts.unfinished > 0 {
        Some(Again::Resume(notes::resume_command(&path, &options.again)))
    } else if counts.failed + counts.cancelled > 0 && single.is_none() {
        let mut words = options.again.clone();
        words.push("--retry-failed".to_owned());
        Some(Again::Repeat(notes::resume_command(&path, &words)))
    } else {
        None
    };
    let kept = (!removed).then_some(path);
    let summary = Summary::of(&finished.ledger, finished.engine, wall, options, kept);
    Ok(Outcome {
        summary,
        exit,
        failures: finished.failures,
        again,
        hints,
    })
}

/// True when the coordinator keeps something that a task left.
fn holds_artifacts(state_dir: &Path) -> bool {
    let kept = std::fs::read_dir(state_dir.join(ARTIFACTS_DIR));
    kept.is_ok_and(|mut entries| entries.next().is_some())
}
