//! `mitosis run`: arguments, the input, the summary.

mod caller;
mod output;
mod stop;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mitosis_bridge::PollConfig;

use super::allocation::AllocationArgs;
use super::capacity::CapacityArgs;
use super::failure::{Failure, OrFail};
use super::global::GlobalArgs;
use super::input::{ARGUMENTS_HELP, InputArgs, SpecArgs, refused_input};
use super::output as out;
use super::poll::PollArgs;
use super::retry::RetryArgs;
use crate::coordinator::Durability;
use crate::exit_code::Exit;
use crate::process::passed::Passed;
use crate::process::resolve_program;
use crate::protocol::HumanDuration;
use crate::protocol::task::UNLIMITED_CAPTURE_BYTES;
use crate::run::closing::Page;
use crate::run::error::RunError;
use crate::run::input::stdin_holds_data;
use crate::run::ledger::Ledger;
use crate::run::manifest::Header;
use crate::run::options::{Input, RunOptions, SpecDefaults};
use crate::run::progress::ProgressMode;
use crate::run::reading::Reading;
use crate::run::room::DEFAULT_WAIT;
use crate::run::screen::{Screen, Style};
use crate::run::session::{self, Again, Outcome};
use crate::run::summary::{Figures, Summary};
use crate::telemetry::logging::Role;
use caller::CallerArgs;
use output::OutputArgs;
use stop::StopArgs;

const HELP: &str = "\
Input: a FILE with one shell command per line. Blank lines and lines that begin with # are skipped, a backslash at the end joins
nothing, CRLF is fine, any byte but NUL as well, and a line is shorter than 128 KiB. A file named *.jsonl has one JSON task
per line instead, e.g. {\"args\":[\"convert\",\"a.png\",\"a.jpg\"],\"timeout\":\"30s\",\"env\":{\"QUALITY\":\"9\"}}.
All lines of a file are checked before the first one runs; a pipe is begun with its first lines.

@ARGUMENTS@

Output: each task's output is written whole when it ends, with -k in the order of the input, with --line-buffer line by
line meanwhile; with --output-dir to <line>.out and <line>.err; with --json and no --output-dir it stays with the state
(see `mitosis logs`).

State: a fresh directory, removed when every task completed, or after 30 days unused. To resume, name it with --state-dir: tasks that ended stay,
a changed line is a new task, tasks that are no longer in the file are cancelled. Without FILE what is left is run.

Examples:
  mitosis run tasks.txt --workers 8 --output-dir out
  mitosis run 'convert {} {.}.jpg' ::: *.png
  find . -name '*.png' -print0 | mitosis run -0 optipng
  mitosis run ./train --rate {1} --seed {2} ::: 0.1 0.01 ::: 1 2 3
  mitosis run --array 1-100 --timeout 10m --retries 2 -- ./simulate
  mitosis run -k --tag tasks.txt | tee log
  mitosis run --halt soon,fail=10% --joblog log tasks.txt
  mitosis run --array 1-9 --results r.csv './fit {} > $MITO_RESULT_DIR/result.json'
  mitosis run --state-dir ~/sweep tasks.txt        resume with: mitosis run --state-dir ~/sweep
  mitosis run --json --output-dir out tasks.jsonl > summary.json

Exit code: 0 all completed, 1 some failed or were cancelled, 2 usage, 3 the system failed, 130 interrupted. A single
command without --array lends its own code: 124 time limit, 126 and 127 could not be started, 128+N signal N.";

const UNREAD_STDIN: &str = "standard input holds data that was not read; put {} into the command to run it once per line, \
    or give `-` for a list of commands";

/// Run the commands of a file, a pipe or the command line, in parallel and durably.
#[derive(Debug, Args)]
#[command(after_help = HELP.replace("@ARGUMENTS@", ARGUMENTS_HELP))]
pub(super) struct RunArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Keep tasks and results here, and resume what is there.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    capacity: CapacityArgs,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    stop: StopArgs,
    /// Repeat tasks that failed or were cancelled in an earlier run on this state directory.
    #[arg(long, requires = "state_dir")]
    retry_failed: bool,
    #[command(flatten)]
    caller: CallerArgs,
    /// Begin tasks in random order.
    #[arg(long)]
    shuf: bool,
    /// When to show progress on stderr.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    progress: ProgressMode,
    /// Show progress also where stderr is no terminal; the same as --progress always.
    #[arg(
        long,
        visible_alias = "eta",
        overrides_with = "bar",
        conflicts_with = "progress"
    )]
    bar: bool,
    /// Accepted because hands type them: what they ask for is so anyway.
    #[arg(long, hide = true, aliases = ["no-notice", "gnu", "group"], overrides_with = "will_cite")]
    will_cite: bool,
    /// Write the summary as one JSON object to stdout, which then has nothing else.
    #[arg(long)]
    json: bool,
    /// Keep a fresh state directory after full success.
    #[arg(long)]
    keep_state: bool,
    /// What an accepted task survives: the death of any process, or a power cut.
    #[arg(long, value_name = "process|power", default_value_t)]
    durability: Durability,
    /// How long to wait while the disk of the state is full; then the run stops with code 3 and can be resumed.
    #[arg(long, value_name = "DURATION", default_value_t = HumanDuration(DEFAULT_WAIT))]
    disk_wait: HumanDuration,
    #[command(flatten)]
    allocation: AllocationArgs,
    #[command(flatten)]
    poll: PollArgs,
}

impl RunArgs {
    pub(super) fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        global.init_logging(Role::Run);
        let quiet = global.quiet > 0;
        // Before anything is opened whose number could be taken for one of the caller's.
        let passed = self.caller.passed()?;
        let defaults = self.defaults()?;
        if let Some(shown) = self.input.dry_run(&defaults, self.json)? {
            return Ok(shown);
        }
        let poll = self.poll.config()?;
        let input = self.input()?;
        let reads_stdin = input.as_ref().is_some_and(|input| input.reads_stdin);
        let json = self.json;
        let screen = Screen::of_stderr();
        let options = self.options(poll, quiet, defaults, passed)?;
        let reading = match input {
            Some(input) => {
                let source = input.source.clone();
                let reading =
                    Reading::begin(&options, input).map_err(|error| refused(&source, error))?;
                if reading.is_empty() {
                    return nothing_to_do(&source, &options);
                }
                Some(reading)
            }
            None => None,
        };
        let mut outcome = block_on(session::run(options, reading))?;
        // Only now whoever writes into the pipe has had the time to.
        if !quiet && !reads_stdin && stdin_holds_data() {
            outcome.hints.push(UNREAD_STDIN.to_owned());
        }
        report(
            &outcome,
            json,
            screen.style().filter(|_| !quiet),
            quiet,
            global.verbose > 0,
        )
    }

    /// What tasks get that do not say otherwise. Their output is passed on like a pipe's: all of it.
    fn defaults(&self) -> Result<SpecDefaults, Failure> {
        let shell_program = self.input.shell_program();
        if let Some(shell) = &shell_program {
            let name = shell.split_ascii_whitespace().next().unwrap_or_default();
            let path = std::env::var_os("PATH");
            let here = std::env::current_dir().or_system()?;
            resolve_program(name.as_ref(), path.as_deref(), &here)
                .map_err(|error| Failure::usage(anyhow::anyhow!("--shell={shell}: {error}")))?;
        }
        Ok(SpecDefaults {
            capture_bytes: Some(UNLIMITED_CAPTURE_BYTES),
            shell_program,
            env: self.caller.variables(),
            ..self.retry.added(self.spec.defaults())
        })
    }

    /// The tasks that the arguments name; `None` to resume.
    fn input(&self) -> Result<Option<Input>, Failure> {
        if self.input.names_nothing() && self.holds_a_run()? {
            return Ok(None);
        }
        let source = self.input.source()?;
        Ok(Some(Input {
            source: source.to_string(),
            single_command: source.is_single_command(),
            reads_stdin: source.reads_stdin(),
            opened: self.input.open(&source)?,
        }))
    }

    fn holds_a_run(&self) -> Result<bool, Failure> {
        match &self.state_dir {
            Some(state_dir) => Ok(Header::read(state_dir).or_system()?.is_some()),
            None => Ok(false),
        }
    }

    fn options(
        self,
        poll: PollConfig,
        quiet: bool,
        defaults: SpecDefaults,
        passed: Passed,
    ) -> Result<RunOptions, Failure> {
        let again = self.words_to_repeat(poll);
        Ok(RunOptions {
            workers: self.stop.workers(self.input.max_parallel()),
            totals: self.capacity.totals(),
            state_dir: self.state_dir,
            keep_state: self.keep_state,
            output: self.output.options(),
            defaults,
            halt: self.stop.halt(),
            retry_failed: self.retry_failed,
            progress: match self.bar {
                true => ProgressMode::Always,
                false => self.progress,
            },
            screen: Screen::of_stderr(),
            json: self.json,
            poll,
            durability: self.durability,
            disk_wait: self.disk_wait.0,
            ends: self.allocation.stop(),
            quiet,
            cwd: self.caller.cwd()?,
            delay: self.stop.delay(),
            nice: self.caller.nice()?,
            shuffle: self.shuf,
            passed,
            again,
        })
    }

    /// What a resuming command line repeats: all that is not stored with the tasks.
    fn words_to_repeat(&self, poll: PollConfig) -> Vec<String> {
        let mut words = self.stop.words(self.input.max_parallel());
        words.extend(self.output.words());
        words.extend(self.caller.words());
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        option(
            "--durability",
            (self.durability != Durability::default()).then(|| self.durability.to_string()),
        );
        option(
            "--poll",
            (poll != PollConfig::default()).then(|| poll.to_string()),
        );
        option(
            "--disk-wait",
            (self.disk_wait.0 != DEFAULT_WAIT).then(|| self.disk_wait.to_string()),
        );
        words.extend(self.capacity.words());
        words.extend(self.json.then(|| "--json".to_owned()));
        words
    }
}

fn nothing_to_do(source: &str, options: &RunOptions) -> Result<Exit, Failure> {
    if !options.quiet {
        out::note(&format!("nothing to do: {source} has no tasks"));
    }
    session::record_nothing(options, source).map_err(Failure::usage)?;
    if options.json {
        let nothing = Ledger::default();
        out::json(&Summary::of(
            &nothing,
            Figures::default(),
            Duration::ZERO,
            options,
            None,
        ))?;
    }
    Ok(Exit::Ok)
}

/// An input that was refused before anything was run.
fn refused(source: &str, error: RunError) -> Failure {
    match error {
        RunError::Input(error) => refused_input(source, error),
        error if error.is_usage() => Failure::usage(error),
        error => Failure::system(error),
    }
}

/// Runs a session on a runtime of its own.
fn block_on<F>(session: F) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<Outcome, RunError>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .or_system()?;
    let outcome = runtime.block_on(session);
    outcome.map_err(|error| {
        if error.is_usage() {
            Failure::usage(error)
        } else {
            Failure::system(error)
        }
    })
}

/// Tells what came of a run; `style` is that of the terminal to whose user more is told than to a file.
fn report(
    outcome: &Outcome,
    json: bool,
    style: Option<Style>,
    quiet: bool,
    verbose: bool,
) -> Result<Exit, Failure> {
    if json {
        out::json(&outcome.summary)?;
    }
    if let Some(style) = style {
        let again = outcome.again.as_ref().map(Again::command);
        let page = Page::here(style);
        out::report(&page.closing(&outcome.summary, &outcome.failures, again));
    } else {
        if !quiet {
            out::note(&outcome.summary.to_string());
            let spans = outcome.summary.spans_in_words();
            spans
                .iter()
                .filter(|_| verbose)
                .for_each(|line| out::note(line));
        }
        if let Some(again) = &outcome.again {
            out::note(&again.to_string());
        }
    }
    for line in &outcome.hints {
        out::note(line);
    }
    Ok(outcome.exit)
}
