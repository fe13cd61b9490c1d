//! One run from its state directory to its summary: opens, submits, starts, listens, stops, sums up.
//!
//! Owned by the command; everything it opens is closed again in a fixed order, also when something fails on the way:
//! manager (its workers first), HTTP face, printer, coordinator, state directory. What the ends of tasks mean is the
//! ledger's business, what is written the printer's.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::engine::Engine;
use super::error::RunError;
use super::fit;
use super::ledger::{Ledger, Place, Recorded};
use super::notes;
use super::options::{Input, RunOptions};
use super::output;
use super::plan::{self, Plan};
use super::printer::{Destination, Printer, TaskOutput};
use super::progress::Standing;
use super::state_dir::{Removal, StateDir};
use super::summary::{Figures, Summary};
use super::verdict;
use crate::coordinator::{ARTIFACTS_DIR, Coordinator, CoordinatorConfig};
use crate::exit_code::Exit;
use crate::protocol::api::TaskEnd;
use crate::protocol::{Outcome as TaskOutcome, TaskResult, TaskState};
use crate::shutdown::{ShutdownRequest, ShutdownSignals};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long committed ends are waited for once the manager has gone.
const LAST_ENDS: Duration = Duration::from_secs(5);
/// Failures that are told one by one; the rest is in the summary's count.
const TOLD_FAILURES: u64 = 100;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub summary: Summary,
    /// How the process is to end.
    pub exit: Exit,
    /// What the user should know at the end, e.g. how to resume.
    pub hints: Vec<String>,
}

/// Runs `input`, or what the state directory still has to do.
///
/// # Errors
/// When the run as a whole fails; failed tasks are part of the outcome.
pub async fn run(options: RunOptions, input: Option<Input>) -> Result<Outcome, RunError> {
    let began = Instant::now();
    // First of all: from here on an interrupt ends the run in words.
    let mut signals = ShutdownSignals::install(options.stop_deadline())
        .map_err(RunError::io("install signal handlers"))?
        .ahead_of(options.ends);
    if let Some(directory) = &options.output_dir {
        std::fs::create_dir_all(directory).map_err(RunError::io("make the output directory"))?;
    }
    if let Some(input) = &input {
        fit::check(&options, &input.tasks)?;
    }
    let state_dir = open_state_dir(&options)?;
    announce(&options, &state_dir);
    let coordinator = Coordinator::open(CoordinatorConfig {
        durability: options.durability,
        capacity: Some(options.capacity()),
        ..CoordinatorConfig::new(state_dir.path())
    })
    .await?;
    let request = plan::Request {
        input,
        state_dir: state_dir.path(),
        defaults: &options.defaults,
        retry_failed: options.retry_failed,
    };
    let plan = match plan::make(&coordinator, request).await {
        Ok(plan) => fit::check_open(&coordinator, &options).await.map(|()| plan),
        Err(error) => Err(error),
    };
    let finished = match plan {
        Ok(plan) => perform(&options, &coordinator, state_dir.path(), plan, &mut signals).await,
        Err(error) => Err(error),
    };
    let single = match &finished {
        Ok(finished) => single_result(&coordinator, finished).await?,
        Err(_) => None,
    };
    coordinator.close().await;
    conclude(
        &options,
        state_dir,
        finished?,
        single.as_ref(),
        began.elapsed(),
    )
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
    engine: Figures,
    unwritten: super::printer::Report,
}

/// Does what is left to do.
async fn perform(
    options: &RunOptions,
    coordinator: &Coordinator,
    state_dir: &Path,
    plan: Plan,
    signals: &mut ShutdownSignals,
) -> Result<Finished, RunError> {
    plan.notices.iter().for_each(|notice| say(notice));
    let standing = Standing {
        counts: plan.ledger.counts(),
        running: 0,
    };
    let printer = Printer::spawn(options.destination(), options.progress, standing)
        .map_err(RunError::io("start the printer thread"))?;
    write_missing(coordinator, &printer, options, &plan).await?;
    let ends = coordinator.ends();
    let single = plan.single;
    let mut session = Session {
        options,
        coordinator,
        printer: &printer,
        plan,
        interrupted: false,
    };
    let mut engine = Figures::default();
    if !session.plan.ledger.is_done() {
        let started = Engine::start(options, coordinator, state_dir).await?;
        let heard = session.listen(&ends, &started, signals).await;
        engine = started.stop().await;
        heard?;
        session.hear_last(&ends).await?;
    }
    let (ledger, interrupted) = (session.plan.ledger, session.interrupted);
    Ok(Finished {
        ledger,
        single,
        interrupted,
        engine,
        unwritten: printer.finish().await,
    })
}

/// Writes output files of tasks that ended in a run that could not write them any more.
async fn write_missing(
    coordinator: &Coordinator,
    printer: &Printer,
    options: &RunOptions,
    plan: &Plan,
) -> Result<(), RunError> {
    let Some(directory) = &options.output_dir else {
        return Ok(());
    };
    for (place, uuid) in &plan.earlier {
        if output::is_saved(directory, *place) {
            continue;
        }
        if let Some(result) = coordinator.task(*uuid).await?.result {
            printer.output(task_output(*place, result, None)).await;
        }
    }
    Ok(())
}

fn task_output(place: Place, result: TaskResult, note: Option<String>) -> TaskOutput {
    TaskOutput {
        place,
        stdout: result.stdout,
        stderr: result.stderr,
        note,
    }
}

/// The run while its tasks run.
struct Session<'a> {
    options: &'a RunOptions,
    coordinator: &'a Coordinator,
    printer: &'a Printer,
    plan: Plan,
    interrupted: bool,
}

impl Session<'_> {
    /// Takes ends, signals and time as they come, until every task has ended or the manager has gone.
    async fn listen(
        &mut self,
        ends: &flume::Receiver<TaskEnd>,
        engine: &Engine,
        signals: &mut ShutdownSignals,
    ) -> Result<(), RunError> {
        let shows = self.options.progress.shows();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.plan.ledger.is_done() {
            tokio::select! {
                end = ends.recv_async() => match end {
                    Ok(end) => self.on_end(end).await?,
                    // The coordinator is ours and closes later; its pump is gone only if its task was lost.
                    Err(flume::RecvError::Disconnected) => return Ok(()),
                },
                request = signals.next() => self.on_signal(request, engine).await,
                gone = engine.gone() => {
                    // Ours was not the wish if we had none, but it was somebody's.
                    self.interrupted = true;
                    return gone;
                }
                _ = ticks.tick(), if shows => self.printer.progress(Standing {
                    counts: self.plan.ledger.counts(),
                    running: engine.running().await,
                }),
            }
        }
        Ok(())
    }

    async fn on_end(&mut self, end: TaskEnd) -> Result<(), RunError> {
        let Recorded::Ended {
            place,
            first_failure,
        } = self.plan.ledger.record(&end)
        else {
            return Ok(());
        };
        let notes = [
            self.note_about(place, &end),
            notes::refused_follow_ups(place, &end.result),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        let note = (!notes.is_empty()).then(|| notes.join("\n"));
        self.printer
            .output(task_output(place, end.result, note))
            .await;
        if first_failure && self.options.fail_fast {
            self.coordinator.cancel_all(self.plan.suite, true).await?;
            let rest = self.plan.ledger.counts().unfinished;
            if rest > 0 {
                self.printer
                    .note(format!("mitosis: --fail-fast: cancelling {rest} more"))
                    .await;
            }
        }
        Ok(())
    }

    fn note_about(&self, place: Place, end: &TaskEnd) -> Option<String> {
        let failed = self.plan.ledger.counts().failed;
        // The result of a single command is its exit code and its output; a note would only repeat them.
        let untold = end.outcome != TaskOutcome::Failed || failed > TOLD_FAILURES;
        if untold || (self.plan.single.is_some() && end.result.message.is_none()) {
            return None;
        }
        let unseen = self.options.destination() != Destination::Streams;
        let mut note = notes::failure(place, self.plan.command(place.line), &end.result, unseen);
        if failed == TOLD_FAILURES {
            note.push_str("\nmitosis: further failures are only counted");
        }
        Some(note)
    }

    async fn on_signal(&mut self, request: ShutdownRequest, engine: &Engine) {
        self.interrupted = true;
        let note = match request {
            ShutdownRequest::Preempted { deadline } => {
                notes::preempted(engine.running().await, deadline)
            }
            ShutdownRequest::Graceful { deadline } => {
                notes::stopping(engine.running().await, deadline)
            }
            ShutdownRequest::Immediate => "mitosis: stopping at once".to_owned(),
        };
        self.printer.note(note).await;
        engine.request_stop(request);
    }

    /// Takes the ends that were committed while the manager left.
    async fn hear_last(&mut self, ends: &flume::Receiver<TaskEnd>) -> Result<(), RunError> {
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
    let exit = verdict::exit(counts, finished.interrupted, single);
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
    if counts.unfinished > 0 {
        let command = notes::resume_command(&path, &options.again);
        hints.push(format!("resume with: {command}"));
    } else if counts.failed + counts.cancelled > 0 && single.is_none() {
        let mut again = options.again.clone();
        again.push("--retry-failed".to_owned());
        hints.push(format!(
            "repeat the failed with: {}",
            notes::resume_command(&path, &again)
        ));
    }
    let kept = (!removed).then_some(path);
    let summary = Summary::of(&finished.ledger, finished.engine, wall, options, kept);
    Ok(Outcome {
        summary,
        exit,
        hints,
    })
}

/// True when the coordinator keeps something that a task left.
fn holds_artifacts(state_dir: &Path) -> bool {
    let kept = std::fs::read_dir(state_dir.join(ARTIFACTS_DIR));
    kept.is_ok_and(|mut entries| entries.next().is_some())
}
