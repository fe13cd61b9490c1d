//! Runs one task at a time as a child process and says how it ended.
//!
//! The worker's main loop owns the [`Executor`] and is the only one that talks to it; nothing here fetches, reports or
//! retries. A task passes through three steps so that the loop can look at its orders between them:
//!
//! ```text
//!   prepare(task) --> Prepared --start--> Running --finish(orders)--> TaskResult
//!        |                        |          pid, started_at_us
//!        +---- TaskResult (not started) -----+
//! ```
//!
//! | part | holds |
//! |---|---|
//! | [`stop`] | when to signal and why it ended: pure decisions over events and time |
//! | `environment` | the variables of a task: constant part once, the rest per task |
//! | `directories` | the slot's directories, made once and wiped only when not empty |
//! | `command`, `direct` | what is executed, and whether a line needs a shell |
//! | `capture`, `compact` | output: pipes, files and their limit |
//! | `watch`, `fast_wait`, `interrupt` | waiting for what a task writes and for its end |
//! | `hints` | what a failed task's author may not know |
//! | `ending` | a task that has ended: what is cleared away and what is said |
//! | `standstill` | time in which nothing ran, which is not the task's |
//! | `stdin` | what descriptor 0 reads |
//! | `files` | inputs before the start, what was left after the end |
//! | `limits` | what a task may use at most: control group, wrapper, words |
//! | `follow_ups` | what the task wrote to `MITO_NEW_TASK` |
//! | `value` | what the task wrote to `result.json` |
//!
//! File calls that are short (a stat, a read of 4 KiB from the page cache, an unlink of a file that is not there) are
//! made on the runtime's thread: handing them to another one costs more than they do. Whatever grows with the task
//! (wiping a tree, moving or cutting output) goes to the pool for blocking work.

mod capture;
mod command;
mod compact;
mod direct;
mod directories;
mod ending;
mod environment;
mod fast_wait;
mod files;
mod follow_ups;
mod hints;
mod interrupt;
mod limits;
mod prepare;
mod running;
mod standstill;
mod stdin;
pub mod stop;
#[cfg(test)]
mod tests;
mod value;
mod watch;

use std::io;
use std::path::PathBuf;

use crate::comm::begun;
use crate::process::passed::Passed;
use crate::protocol::frame::{CwdPolicy, EnvPolicy, KeptOutput, WorkerSetup};
use crate::protocol::limits::TaskGroups;

pub use interrupt::Interrupt;
pub use prepare::{Executor, Prepared};
pub use running::{Life, Running, Started};
pub use standstill::Standstill;
pub use stop::{StopOrder, StopReason};

/// What an executor needs to know once.
#[derive(Debug, Clone)]
pub struct ExecConfig {
    /// Directory that belongs to this worker's slot alone: task directories and output in the making.
    pub slot_dir: PathBuf,
    /// Where output that is longer than the tail is kept.
    pub output_dir: PathBuf,
    /// Value of `MITO_INSTANCE`.
    pub instance: String,
    /// The environment tasks start from.
    pub env: EnvPolicy,
    /// The working directory of tasks that name none.
    pub cwd: CwdPolicy,
    /// Value of `MITO_WORKER_ID`.
    pub worker_id: String,
    /// The coordinator's URL, for artifacts and inputs.
    pub coordinator_url: Option<String>,
    /// What becomes of kept output.
    pub kept_output: KeptOutput,
    /// Where control groups of tasks are made.
    pub groups: TaskGroups,
    /// Where executions are noted before they begin; `None` where their report is waited for.
    pub begun: Option<PathBuf>,
    /// Where the output of the running task lies under its name, for whoever follows it.
    pub live_dir: Option<PathBuf>,
    /// Descriptors that tasks get.
    pub passed: Passed,
}

impl ExecConfig {
    /// The configuration of a managed worker.
    #[must_use]
    pub fn from_setup(setup: &WorkerSetup, worker_id: impl Into<String>, passed: Passed) -> Self {
        Self {
            slot_dir: setup.slot_dir.clone(),
            output_dir: setup.output_dir.clone(),
            instance: setup.instance.clone(),
            env: setup.env,
            cwd: setup.cwd.clone(),
            worker_id: worker_id.into(),
            // A manager makes every address whole.
            coordinator_url: None,
            kept_output: setup.kept_output,
            groups: setup.groups.clone(),
            begun: Some(setup.slot_dir.join(begun::FILE)),
            live_dir: setup.live_dir.clone(),
            passed,
        }
    }
}

/// Why an executor cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A directory or file of the slot.
    #[error("cannot {operation} `{}`", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel does not hand orphans to this process.
    #[error("cannot become the parent of orphaned task processes")]
    Subreaper(#[source] io::Error),
    /// A value of the configuration cannot be a variable.
    #[error("the {0} contains a NUL byte")]
    Nul(&'static str),
}
