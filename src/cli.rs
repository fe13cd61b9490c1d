//! The command line: arguments in, output and an exit code out. Nothing of the system lives here.
//!
//! One file per group of commands below [`cli`](self); each has its clap types and one `run` that calls a role, the
//! client, or `run`. stdout is data; progress, logs and errors go to stderr. What a failure means for the exit code is
//! decided in [`failure`], the numbers stand in [`crate::exit_code`].

mod allocation;
mod artifacts;
mod bench;
mod capacity;
mod explain;
pub mod failure;
mod foreign;
mod format;
pub mod global;
mod input;
mod kept_log;
mod lists;
mod logs;
mod manager;
mod manual;
mod orders;
pub mod output;
mod patience;
mod poll;
mod reach;
mod retry;
mod roles;
mod run;
mod select;
mod show;
pub mod sibling;
mod submission;
mod submit;
mod suite;
mod surroundings;
pub mod table;
mod tasks;
mod token;
mod tune;
mod wait;
mod words;

use std::sync::LazyLock;

use clap::{CommandFactory, Parser, Subcommand};

use crate::exit_code::Exit;
use crate::telemetry::logging::Role;
use crate::telemetry::verbosity::follow_signals;
use crate::worker;
use crate::worker::args::WorkerArgs;
use failure::{Failure, OrFail};
use global::GlobalArgs;

/// Version and, for a release built inside a git checkout, its revision.
static VERSION: LazyLock<String> = LazyLock::new(|| match option_env!("MITOSIS_REVISION") {
    Some(revision) => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
    None => env!("CARGO_PKG_VERSION").to_owned(),
});

const EXAMPLES: &str = "\
Examples:
  mitosis run tasks.txt                      run every line of a file, in parallel, losing none
  mitosis run 'sort {} > {.}.sorted' ::: *.txt
                                             one command per argument, as with GNU parallel
  mitosis run --array 1-100 -- ./sim         one command per index (MITO_ARRAY_INDEX)
  mitosis up                                 a long-lived service on this machine
  mitosis submit tasks.jsonl --wait          hand tasks to it and wait for them
  mitosis tasks                              see where they stand

Exit codes: 0 all completed, 1 some task failed or was cancelled, 2 usage, 3 the system failed, 4 the time of a wait was over,
130 interrupted.";

/// Run many command-line tasks on one machine or many, without losing any.
#[derive(Debug, Parser)]
#[command(name = "mitosis", version = VERSION.as_str(), after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Up(Box<roles::UpArgs>),
    Submit(Box<submit::SubmitArgs>),
    Wait(wait::WaitArgs),
    Tasks(tasks::TasksArgs),
    Task(tasks::TaskArgs),
    Logs(logs::LogsArgs),
    Cancel(orders::CancelArgs),
    Retry(orders::RetryArgs),
    Pause(orders::PauseArgs),
    Resume(orders::ResumeArgs),
    Drain(orders::DrainArgs),
    Suites(lists::SuitesArgs),
    Managers(lists::ManagersArgs),
    Workers(lists::WorkersArgs),
    Tune(tune::TuneArgs),
    Token(token::TokenArgs),
    Coordinator(roles::CoordinatorArgs),
    Manager(Box<manager::ManagerArgs>),
    Worker(Box<WorkerArgs>),
    Bench(bench::BenchArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// Parses the arguments of this process, runs the command and says how the process is to end.
#[must_use]
pub fn main() -> Exit {
    let words = words::with_command_marked(std::env::args_os().collect(), Cli::command);
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(mut error) => {
            if let Some(sentence) = foreign::explained(&words, &mut error) {
                return Failure::usage(anyhow::anyhow!(sentence)).report();
            }
            // Help and version are data and end well; a closed stdout is the reader's choice.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
        }
    };
    match cli.command.run(&cli.global) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}

impl Command {
    fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        match self {
            // These have a runtime of their own kind, or none.
            Self::Worker(args) => {
                global.init_logging(Role::Worker(args.worker_local_id));
                return Ok(worker::run_from_args(*args));
            }
            Self::Run(args) => return args.run(global),
            Self::Bench(args) => return args.run(global),
            Self::Completions(args) => return args.run(Cli::command()),
            Self::Man(args) => return args.run(Cli::command()),
            _ => {}
        }
        global.init_logging(self.role());
        runtime()?.block_on(self.run_async(global))
    }

    fn role(&self) -> Role {
        match self {
            Self::Up(_) => Role::Up,
            Self::Coordinator(_) => Role::Coordinator,
            Self::Manager(_) => Role::Manager,
            _ => Role::Client,
        }
    }

    async fn run_async(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        if self.role() != Role::Client {
            tokio::spawn(follow_signals());
        }
        match self {
            Self::Up(args) => args.run().await,
            Self::Coordinator(args) => args.run().await,
            Self::Manager(args) => args.run().await,
            Self::Submit(args) => args.run(global).await,
            Self::Wait(args) => args.run(global).await,
            Self::Tasks(args) => args.run(global).await,
            Self::Task(args) => args.run().await,
            Self::Logs(args) => args.run(global).await,
            Self::Cancel(args) => args.run().await,
            Self::Retry(args) => args.run().await,
            Self::Pause(args) => args.run().await,
            Self::Resume(args) => args.run().await,
            Self::Drain(args) => args.run().await,
            Self::Suites(args) => args.run().await,
            Self::Managers(args) => args.run().await,
            Self::Workers(args) => args.run().await,
            Self::Tune(args) => args.run().await,
            Self::Token(args) => args.run().await,
            Self::Worker(_)
            | Self::Run(_)
            | Self::Bench(_)
            | Self::Completions(_)
            | Self::Man(_) => {
                unreachable!("handled without this runtime")
            }
        }
    }
}

/// A runtime for one command. Two threads: one for the role's loop, one for whoever calls.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .or_system()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_a_help_text() {
        fn check(command: &clap::Command) {
            let path = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{path}: {} has no help",
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
