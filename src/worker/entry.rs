//! From a command line to an exit code: what happens before and after the loop.
//!
//! ```text
//!   descriptors or token --> runtime --> signals --> connection --> executor --> run::run --> exit code
//! ```
//!
//! Whatever must happen while the process has one thread (taking inherited descriptors, reading the token) happens
//! first. `mitosis worker` and `mitosis-worker` both end up in [`run_from_args`].

mod error;
mod independent;
mod managed;
mod slot;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::Parser;
use mitosis_bridge::client::ClientFds;
use tracing::{error, info};

use crate::error_chain::error_chain;
use crate::exit_code::Exit;
use crate::guard;
use crate::telemetry::logging::{self, LogFormat, LogSettings, Role};
use crate::telemetry::verbosity::follow_signals;

use super::args::{Environment, WorkerArgs, WorkerMode};
use super::run::Ended;
use super::secret;
use super::signals::StopSignals;

pub use error::StartError;

/// Threads for blocking work: wiping directories and moving large output, for one task at a time.
const BLOCKING_THREADS: usize = 2;
/// How long such a thread stays without work; 256 idle workers should not keep any.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long blocking work may hold up the end.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs one task at a time for a Mitosis manager or coordinator.
#[derive(Debug, Parser)]
#[command(name = "mitosis-worker", version)]
struct Line {
    #[command(flatten)]
    worker: WorkerArgs,
    /// Form of log lines on stderr; MITOSIS_LOG selects how much.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// The program `mitosis-worker`: `mitosis worker` without the rest, and the word `worker` is allowed.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    if words.get(1).is_some_and(|word| word == "worker") {
        words.remove(1);
    }
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => {
            // Help and version end well; a closed stdout is the reader's choice.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
        }
    };
    let settings = LogSettings {
        format: line.log_format,
        ..LogSettings::default()
    };
    // Only a second subscriber in one process can fail, and then the first one stays.
    let _ = logging::init(settings, Role::Worker(line.worker.worker_local_id));
    run_from_args(line.worker)
}

/// Runs a worker to its end. Builds its own runtime: must not be called inside one, and before other threads exist.
/// Logging is the caller's.
#[must_use]
pub fn run_from_args(args: WorkerArgs) -> Exit {
    guard::panics_end_with(guard::WORKER_PANICKED);
    if !args.managed
        && let Err(error) = secret::deny_inspection()
    {
        error!(%error, "cannot keep the token from other processes");
        return Exit::System;
    }
    let deadline = args.shutdown_deadline();
    let environment = if args.managed {
        Environment::default()
    } else {
        Environment::read()
    };
    let mode = match args.validate(environment) {
        Ok(mode) => mode,
        Err(error) => {
            // Nobody can be told that stderr is closed.
            let _ = writeln!(
                std::io::stderr(),
                "error: {error}\n\nFor more information, try '--help'."
            );
            return Exit::Usage;
        }
    };
    match start(mode, deadline) {
        Ok(ended) => {
            info!(
                reason = ended.reason(),
                code = ended.exit().code(),
                "worker stops"
            );
            info!("worker metrics: {}", ended.tally);
            ended.exit()
        }
        Err(error) => {
            error!("{}", error_chain(&error));
            error.exit()
        }
    }
}

fn start(mode: WorkerMode, deadline: Duration) -> Result<Ended, StartError> {
    match mode {
        WorkerMode::Managed { manager, local_id } => {
            info!(%manager, %local_id, "worker mode: managed");
            let expected = mitosis_bridge::client::Expected { manager, local_id };
            // Before the runtime takes descriptors of its own.
            let fds =
                ClientFds::inherited().map_err(|source| StartError::connect(expected, source))?;
            drive(async {
                let mut signals = StopSignals::managed(deadline).map_err(no_signals)?;
                tokio::spawn(follow_signals());
                managed::serve(fds, expected, &mut signals).await
            })
        }
        WorkerMode::Independent(independent) => {
            info!(coordinator = %independent.coordinator, "worker mode: independent");
            secret::check(&independent.token)?;
            drive(async {
                let mut signals = StopSignals::independent(deadline).map_err(no_signals)?;
                tokio::spawn(follow_signals());
                independent::serve(*independent, &mut signals).await
            })
        }
    }
}

fn no_signals(source: io::Error) -> StartError {
    StartError::System {
        action: "install the signal handlers",
        source,
    }
}

/// One thread beside the poller: there are 256 of these processes on a machine.
fn drive(serve: impl Future<Output = Result<Ended, StartError>>) -> Result<Ended, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build()
        .map_err(|source| StartError::System {
            action: "start the runtime",
            source,
        })?;
    let ended = runtime.block_on(serve);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

#[cfg(test)]
mod tests;
