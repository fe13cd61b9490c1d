//! From a task to a started process: everything that can fail before there is one to watch.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::capture::{Capture, Plan};
use super::command::Command;
use super::directories::Directories;
use super::environment::Environment;
use super::files::Files;
use super::interrupt::Interrupt;
use super::limits::{self, GroupPlace};
use super::running::{Running, SWEEP_LIMIT};
use super::standstill::Standstill;
use super::stop::{Lifecycle, Limits, StopOrder};
use super::watch::Watch;
use super::{ExecConfig, ExecError, stdin};
use crate::comm::begun::{Begun, Notes};
use crate::error_chain::error_chain;
use crate::process::groups::TaskGroup;
use crate::process::limited::Entry;
use crate::process::passed::Passed;
use crate::process::{self, Child, ProcessGroup, SpawnError, SpawnSpec, Stdio, spawn};
use crate::protocol::WorkerTaskResp;
use crate::protocol::byte_text;
use crate::protocol::frame::CwdPolicy;
use crate::protocol::limits::Limits as UsageLimits;
use crate::protocol::report::{Reason, TaskResult};
use crate::protocol::task::{DEFAULT_CAPTURE_BYTES, OnLeftovers, Stdin};
use crate::wall_clock::unix_us;
use crate::worker::files::Outgoing;

/// Pauses before a spawn is tried again that failed for a passing reason.
const RETRY_PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(160),
    Duration::from_millis(640),
];

/// Runs tasks, one after the other, in one slot.
#[derive(Debug)]
pub struct Executor {
    pub(super) capture: Capture,
    pub(super) directories: Directories,
    pub(super) files: Files,
    group_place: GroupPlace,
    notes: Option<Notes>,
    environment: Environment,
    pub(super) passed: Passed,
    /// Working directory of tasks that name none; base of relative ones.
    default_cwd: PathBuf,
    /// Whether the last task's processes and output may still be there: its [`Running`] was dropped.
    pub(super) unfinished: bool,
    /// What ends a short wait; without one there is none.
    pub(super) interrupt: Option<Interrupt>,
    standstill: Standstill,
}

/// A task that is ready to be started by the executor that prepared it.
#[derive(Debug)]
pub struct Prepared {
    command: Command,
    cwd: PathBuf,
    stdin: Option<OwnedFd>,
    /// Cores that the task is kept on; any when empty.
    cores: Vec<u32>,
    plan: Plan,
    limits: Limits,
    usage: UsageLimits,
    leftovers: OnLeftovers,
    begun: Begun,
}

impl Executor {
    /// Makes the slot's directories and files, and this process a subreaper.
    ///
    /// Blocks for some file calls; meant for a worker's start.
    ///
    /// # Errors
    /// When a directory or file cannot be made, or the configuration cannot be an environment.
    pub fn new(config: &ExecConfig) -> Result<Self, ExecError> {
        process::set_child_subreaper().map_err(ExecError::Subreaper)?;
        process::survive_file_size_limit();
        let slot = absolute(&config.slot_dir)?;
        let directories = Directories::create(&slot)?;
        let default_cwd = match &config.cwd {
            CwdPolicy::Fixed(cwd) => absolute(cwd)?,
            CwdPolicy::TaskDir => directories.exec().to_owned(),
        };
        let notes = config.begun.as_deref().map(|path| {
            Notes::open(path).map_err(|source| ExecError::Path {
                operation: "open",
                path: path.to_owned(),
                source,
            })
        });
        Ok(Self {
            notes: notes.transpose()?,
            capture: Capture::create(
                &slot,
                &absolute(&config.output_dir)?,
                config.live_dir.clone(),
            )?,
            environment: Environment::new(config, &directories, &default_cwd, std::env::vars_os())?,
            passed: config.passed.clone(),
            files: Files::new(config, Outgoing::new(directories.outgoing())),
            group_place: GroupPlace::new(config),
            directories,
            default_cwd,
            unfinished: false,
            interrupt: None,
            standstill: Standstill::default(),
        })
    }

    /// Lets the executor block its thread for some milliseconds after each start, in which most tasks end; `interrupt` is
    /// to be raised after an order. For an executor on a thread of its own.
    pub fn may_block(&mut self, interrupt: Interrupt) {
        self.interrupt = Some(interrupt);
    }

    /// Has the limits of tasks stand still with them.
    pub fn heed(&mut self, standstill: Standstill) {
        self.standstill = standstill;
    }

    /// Makes everything ready to start `task`; nothing runs yet. `stop` is heard while its inputs are on their way.
    ///
    /// # Errors
    /// The result of a task that cannot be started, which says what to do about it.
    pub async fn prepare(
        &mut self,
        task: &WorkerTaskResp,
        stop: &mut watch::Receiver<StopOrder>,
    ) -> Result<Prepared, Box<TaskResult>> {
        let refused = |error: &dyn std::fmt::Display| {
            not_started(Reason::SpawnFailed, format!("the task is refused: {error}"))
        };
        task.spec.validate().map_err(|error| refused(&error))?;
        self.tidy().await?;
        self.fetch_inputs(task, stop).await?;
        let cwd = match &task.spec.cwd {
            Some(cwd) => self.default_cwd.join(&*byte_text::to_os(cwd)),
            None => self.default_cwd.clone(),
        };
        // A directory that is not there is what has to be told, and not what is not found in it.
        let of_cwd = || {
            task.spec
                .cwd
                .as_ref()
                .and_then(|_| SpawnError::of_cwd(&cwd))
        };
        let input = stdin::open(task.spec.stdin.as_ref(), &cwd).map_err(|error| {
            of_cwd().map_or_else(|| input_failed(task, &error), |cwd| spawn_failed(&cwd))
        })?;
        let command = Command::of(task, &mut self.environment, &cwd)
            .map_err(|error| spawn_failed(&of_cwd().unwrap_or(error)))?;
        Ok(Prepared {
            command,
            cwd,
            stdin: input,
            cores: cores(task).map_err(|words| not_started(Reason::SpawnFailed, words))?,
            plan: Plan {
                streams: task.spec.capture.streams,
                limit: task
                    .spec
                    .capture
                    .limit_bytes
                    .unwrap_or(DEFAULT_CAPTURE_BYTES),
                name: format!("{}.{}", task.uuid, task.attempt),
            },
            limits: Limits {
                time_limit: task.spec.timeout.map(|limit| limit.0),
                grace: task.spec.grace(),
            },
            usage: task.spec.limits.clone(),
            leftovers: task.spec.leftovers.unwrap_or(OnLeftovers::Kill),
            begun: Begun::of(task, 0),
        })
    }

    /// Starts a prepared task. The calling thread is suspended until the program is executed; one with limits is waited
    /// for without that.
    ///
    /// # Errors
    /// The result of a task that cannot be started, which says what to do about it.
    pub async fn start(&mut self, prepared: Prepared) -> Result<Running<'_>, Box<TaskResult>> {
        let (plan, limits) = (prepared.plan.clone(), prepared.limits);
        let usage = prepared.usage.clone();
        let leftovers = prepared.leftovers;
        let group = self.group_place.group_for(&usage);
        let group = group.map_err(|words| not_started(Reason::SpawnFailed, words))?;
        let ends = self.capture.begin(&plan).map_err(|error| {
            let text = format!("the output cannot be captured: {error}");
            not_started(Reason::SpawnFailed, text)
        })?;
        self.note(prepared.begun);
        let spawned = self.spawn(prepared, ends, group.as_ref()).await;
        let (child, is_direct) = spawned.map_err(|error| spawn_failed(&error))?;
        let (started, started_at_us) = (Instant::now(), unix_us());
        let standstill = self.standstill.watch();
        self.unfinished = true;
        Ok(Running {
            executor: self,
            child,
            group,
            plan,
            limits,
            usage,
            leftovers,
            standstill,
            lifecycle: Lifecycle::new(started, limits),
            watch: Watch::default(),
            is_direct,
            started,
            started_at_us,
        })
    }

    /// From here on this counts as an execution, whoever dies.
    fn note(&mut self, begun: Begun) {
        let Some(notes) = &mut self.notes else { return };
        let at_us = unix_us();
        if let Err(error) = notes.note(&Begun { at_us, ..begun }) {
            tracing::warn!(%error, "the beginning of a task cannot be noted; a death now may hide it");
        }
    }

    /// Starts the program; a line that cannot be executed without a shell is left to one, whose words it then is. Says whether
    /// there was none.
    async fn spawn(
        &mut self,
        mut prepared: Prepared,
        ends: [Option<OwnedFd>; 2],
        group: Option<&TaskGroup>,
    ) -> Result<(Child, bool), SpawnError> {
        let spawned = loop {
            let spawned = self.try_spawn(&mut prepared, &ends, group).await;
            match &spawned {
                Err(error) if prepared.command.fall_back(error) => {}
                _ => break spawned,
            }
        };
        let is_direct = prepared.command.is_direct();
        self.environment.give_back(prepared.command.env);
        // Closes this side of the pipes: only the task has them now.
        drop(ends);
        Ok((spawned?, is_direct))
    }

    async fn try_spawn(
        &self,
        prepared: &mut Prepared,
        [stdout, stderr]: &[Option<OwnedFd>; 2],
        group: Option<&TaskGroup>,
    ) -> Result<Child, SpawnError> {
        let command = &mut prepared.command;
        let spec = SpawnSpec {
            program: command.program.clone(),
            argv: std::mem::take(&mut command.argv),
            env: std::mem::take(&mut command.env),
            cwd: Some(prepared.cwd.clone()),
            stdin: Stdio::Borrowed(self.capture.or_null(prepared.stdin.as_ref())),
            stdout: Stdio::Borrowed(self.capture.or_null(stdout.as_ref())),
            stderr: Stdio::Borrowed(self.capture.or_null(stderr.as_ref())),
            inherit: self.passed.for_task(),
            process_group: ProcessGroup::New,
        };
        // A wrapper has arguments of its own, and not all of the variables.
        let all = (prepared.usage != UsageLimits::default())
            .then(|| (spec.argv.clone(), spec.env.clone()));
        let (mut spec, entry) = limits::apply(spec, &prepared.usage, group)?;
        let mut pauses = RETRY_PAUSES.into_iter();
        let spawned = loop {
            let spawned = process::on_cores(&prepared.cores, || spawn(&spec));
            let spawned = spawned.map_err(SpawnError::Cores).flatten();
            match (spawned, pauses.next()) {
                (Err(error), Some(pause)) if error.is_retryable() => {
                    tracing::debug!(%error, ?pause, "the program is started again after a pause");
                    tokio::time::sleep(pause).await;
                }
                (spawned, _) => break spawned,
            }
        };
        (command.argv, command.env) = all.unwrap_or_else(|| {
            let (argv, env) = (&mut spec.argv, &mut spec.env);
            (std::mem::take(argv), std::mem::take(env))
        });
        // Closes this side of what the wrapper answers through.
        drop(spec);
        match entry {
            Some(entry) => enter(spawned?, entry).await,
            None => spawned,
        }
    }

    /// Brings the slot into the state in which a task may find it.
    async fn tidy(&mut self) -> Result<(), Box<TaskResult>> {
        let failed = |error: io::Error| {
            let text = format!("the worker's directories cannot be made ready: {error}");
            not_started(Reason::SpawnFailed, text)
        };
        if self.unfinished {
            process::kill_adopted(SWEEP_LIMIT).await;
            self.capture.renew().map_err(failed)?;
            self.unfinished = false;
        }
        self.directories.clean().await.map_err(failed)
    }
}

/// Waits for a wrapper to become its program.
async fn enter(mut child: Child, entry: Entry) -> Result<Child, SpawnError> {
    if let Err(error) = entry.entered().await {
        // Nothing ran: there is no status that anybody would want.
        let _ = child.wait().await;
        return Err(error);
    }
    Ok(child)
}

/// The cores of a task that is to stay on its own.
fn cores(task: &WorkerTaskResp) -> Result<Vec<u32>, &'static str> {
    let given = task
        .ids
        .as_ref()
        .map(|ids| &ids.cpus[..])
        .unwrap_or_default();
    match (task.spec.resources.pin, given) {
        (false, _) => Ok(Vec::new()),
        (true, []) => {
            Err("it asks for CPUs of its own, and only a manager gives them: this worker has none")
        }
        (true, cores) => Ok(cores.to_vec()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ExecError> {
    std::path::absolute(path).map_err(|source| ExecError::Path {
        operation: "resolve",
        path: path.to_owned(),
        source,
    })
}

fn not_started(reason: Reason, message: impl Into<String>) -> Box<TaskResult> {
    Box::new(TaskResult::not_started(reason, message, unix_us()))
}

fn spawn_failed(error: &SpawnError) -> Box<TaskResult> {
    not_started(Reason::SpawnFailed, error_chain(error))
}

fn input_failed(task: &WorkerTaskResp, error: &io::Error) -> Box<TaskResult> {
    match &task.spec.stdin {
        Some(Stdin::File(name)) => not_started(
            Reason::InputMissing,
            format!("standard input `{name}` cannot be opened: {error}"),
        ),
        _ => not_started(
            Reason::SpawnFailed,
            format!("standard input cannot be made: {error}"),
        ),
    }
}
