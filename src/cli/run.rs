//! `mitosis run`: arguments, the input, the summary.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mitosis_bridge::PollConfig;

use super::allocation::AllocationArgs;
use super::capacity::CapacityArgs;
use super::failure::{Failure, OrFail};
use super::global::GlobalArgs;
use super::input::{ARGUMENTS_HELP, InputArgs, SpecArgs};
use super::output;
use super::poll::PollArgs;
use crate::coordinator::Durability;
use crate::exit_code::Exit;
use crate::run::ledger::Ledger;
use crate::run::manifest::Manifest;
use crate::run::options::{Input, RunOptions, default_workers};
use crate::run::progress::ProgressMode;
use crate::run::session::{self, Outcome};
use crate::run::summary::{Figures, Summary};
use crate::telemetry::logging::Role;

const HELP: &str = "\
Input: a FILE with one shell command per line. Blank lines and lines that begin with # are skipped, a backslash at the end joins
nothing, CRLF is fine, the text must be UTF-8 and a line shorter than 128 KiB. A file named *.jsonl has one JSON task
per line instead, e.g. {\"args\":[\"convert\",\"a.png\",\"a.jpg\"],\"timeout\":\"30s\",\"env\":{\"QUALITY\":\"9\"}}.
All lines are checked before the first one runs.

@ARGUMENTS@

Output: each task's output is written whole when it ends; with --output-dir to <line>.out and <line>.err; with --json
and no --output-dir it stays with the state (see `mitosis logs`).

State: a fresh directory, removed when every task completed. To resume, name it with --state-dir: tasks that ended stay,
a changed line is a new task, tasks that are no longer in the file are cancelled. Without FILE what is left is run.

Examples:
  mitosis run tasks.txt --workers 8 --output-dir out
  mitosis run 'convert {} {.}.jpg' ::: *.png
  find . -name '*.png' -print0 | mitosis run -0 optipng
  mitosis run ./train --rate {1} --seed {2} ::: 0.1 0.01 ::: 1 2 3
  mitosis run --array 1-100 --timeout 10m --retries 2 -- ./simulate
  mitosis run --state-dir ~/sweep tasks.txt        resume with: mitosis run --state-dir ~/sweep
  mitosis run --json --output-dir out tasks.jsonl > summary.json

Exit code: 0 all completed, 1 some failed or were cancelled, 2 usage, 3 the system failed, 130 interrupted. A single
command without --array lends its own code: 124 time limit, 126 and 127 could not be started, 128+N signal N.";

/// Run the commands of a file, a pipe or the command line, in parallel and durably.
#[derive(Debug, Args)]
#[command(after_help = HELP.replace("@ARGUMENTS@", ARGUMENTS_HELP))]
pub(super) struct RunArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Worker processes, that is, tasks at a time [default: usable cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Keep tasks and results here, and resume what is there.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Write outputs to DIR/<line>.out and DIR/<line>.err.
    #[arg(short, long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    capacity: CapacityArgs,
    /// After the first failed task cancel all others.
    #[arg(long)]
    fail_fast: bool,
    /// Repeat tasks that failed or were cancelled in an earlier run on this state directory.
    #[arg(long, requires = "state_dir")]
    retry_failed: bool,
    /// When to show progress on stderr.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    progress: ProgressMode,
    /// Write the summary as one JSON object to stdout, which then has nothing else.
    #[arg(long)]
    json: bool,
    /// Keep a fresh state directory after full success.
    #[arg(long)]
    keep_state: bool,
    /// What an accepted task survives: the death of any process, or a power cut.
    #[arg(long, value_name = "process|power", default_value_t)]
    durability: Durability,
    #[command(flatten)]
    allocation: AllocationArgs,
    #[command(flatten)]
    poll: PollArgs,
}

impl RunArgs {
    pub(super) fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        global.init_logging(Role::Run);
        let quiet = global.quiet > 0;
        if let Some(shown) = self.input.dry_run(&self.spec.defaults(), self.json)? {
            return Ok(shown);
        }
        let poll = self.poll.config()?;
        let input = self.input()?;
        if let Some(input) = &input
            && input.tasks.is_empty()
        {
            return self.nothing_to_do(&input.source, poll, quiet);
        }
        let json = self.json;
        let options = self.options(poll, quiet);
        let outcome = block_on(session::run(options, input))?;
        report(&outcome, json, quiet)
    }

    /// The tasks that the arguments name; `None` to resume.
    fn input(&self) -> Result<Option<Input>, Failure> {
        if self.input.names_nothing() && self.holds_a_run()? {
            return Ok(None);
        }
        let source = self.input.source()?;
        let tasks = self.input.read(&source)?;
        Ok(Some(Input {
            source: source.to_string(),
            single_command: source.is_single_command(),
            tasks,
        }))
    }

    fn holds_a_run(&self) -> Result<bool, Failure> {
        match &self.state_dir {
            Some(state_dir) => Ok(Manifest::read(state_dir).or_system()?.is_some()),
            None => Ok(false),
        }
    }

    fn nothing_to_do(self, source: &str, poll: PollConfig, quiet: bool) -> Result<Exit, Failure> {
        if !quiet {
            output::note(&format!("nothing to do: {source} has no tasks"));
        }
        if self.json {
            let (nothing, options) = (Ledger::default(), self.options(poll, quiet));
            output::json(&Summary::of(
                &nothing,
                Figures::default(),
                Duration::ZERO,
                &options,
                None,
            ))?;
        }
        Ok(Exit::Ok)
    }

    fn options(self, poll: PollConfig, quiet: bool) -> RunOptions {
        let again = self.words_to_repeat(poll);
        RunOptions {
            workers: self.limited_workers().unwrap_or_else(default_workers),
            totals: self.capacity.totals(),
            state_dir: self.state_dir,
            keep_state: self.keep_state,
            output_dir: self.output_dir,
            defaults: self.spec.defaults(),
            fail_fast: self.fail_fast,
            retry_failed: self.retry_failed,
            progress: self.progress,
            json: self.json,
            poll,
            durability: self.durability,
            ends: self.allocation.stop(),
            quiet,
            again,
        }
    }

    /// Workers, if a number is asked for: a worker runs one task at a time, so an array's limit is one of theirs.
    fn limited_workers(&self) -> Option<u16> {
        match self.input.max_parallel() {
            Some(most) => Some(self.workers.unwrap_or_else(default_workers).min(most.get())),
            None => self.workers,
        }
    }

    /// What a resuming command line repeats: all that is not stored with the tasks.
    fn words_to_repeat(&self, poll: PollConfig) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        let workers = self.limited_workers();
        option("--workers", workers.map(|workers| workers.to_string()));
        option(
            "--output-dir",
            self.output_dir
                .as_ref()
                .map(|dir| dir.to_string_lossy().into_owned()),
        );
        option(
            "--durability",
            (self.durability != Durability::default()).then(|| self.durability.to_string()),
        );
        option(
            "--poll",
            (poll != PollConfig::default()).then(|| poll.to_string()),
        );
        words.extend(self.capacity.words());
        for (given, name) in [(self.fail_fast, "--fail-fast"), (self.json, "--json")] {
            if given {
                words.push(name.to_owned());
            }
        }
        words
    }
}

/// Runs a session on a runtime of its own.
fn block_on<F>(session: F) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<Outcome, crate::run::error::RunError>>,
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

fn report(outcome: &Outcome, json: bool, quiet: bool) -> Result<Exit, Failure> {
    if json {
        output::json(&outcome.summary)?;
    }
    if !quiet {
        output::note(&outcome.summary.to_string());
    }
    for line in &outcome.hints {
        output::note(line);
    }
    Ok(outcome.exit)
}
