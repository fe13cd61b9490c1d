//! Keeps the worker slots filled: starts, watches, kills, counts.
//!
//! Owned by the manager's loop. Decisions about slots are in [`super::slots`], a single life is in
//! [`super::worker_process`]; this module joins the two. What a dead worker held is the reactor's business.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mitosis_bridge::SharedGate;
use mitosis_bridge::status::{Revocation, StatusView};
use rustix::process::pidfd_send_signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::process::{self, ExitStatus, Pid, Signal};
use crate::protocol::{ControlState, Incarnation, LocalId};
use crate::telemetry::names;

use super::config::Limits;
use super::identity::random_u64;
use super::metrics::Workers;
use super::patience::Look;
use super::reactor::Ended;
use super::slots::{Aftermath, Population, Slots};
use super::state::WorkerEnd;
use super::worker_process::{Launcher, WorkerNote, task_group};

/// Notes of lives that wait for the loop: three per worker, for all of them at once.
pub(super) const NOTES: usize = 1024;

/// Exit reasons in the order of their counters.
const REASONS: [&str; 5] = ["asked", "exit", "signal", "startup", "unresponsive"];

/// What the loop has to know.
#[derive(Debug)]
pub(super) enum SupervisorEvent {
    /// A worker is over; everything it said is in the bridge's events.
    Ended(Ended),
    /// No worker can be started on this machine; the words say what happened to the last one.
    Hopeless(String),
}

#[derive(Debug)]
struct Live {
    local_id: LocalId,
    pid: Pid,
    pidfd: OwnedFd,
    status: StatusView,
    /// Why the manager killed it, if it did.
    killed: Option<WorkerEnd>,
}

impl Live {
    fn look(&self) -> Look {
        let status = self.status.snapshot();
        let stamps = [status.poller_idle_for(), status.executor_idle_for()];
        Look {
            cpu: process::cpu_time(self.pid),
            still: stamps.into_iter().flatten().min().unwrap_or(Duration::MAX),
        }
    }
}

/// How many workers start at the same time: enough that no core waits for one that waits for a file.
fn starts_at_once() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// The supervisor.
#[derive(Debug)]
pub(super) struct Supervisor {
    slots: Slots,
    launcher: Launcher,
    lives: JoinSet<()>,
    live: HashMap<Incarnation, Live>,
    notes_rx: mpsc::Receiver<WorkerNote>,
    workers: Workers,
    closing: bool,
    /// Since when everything is stopped.
    frozen_at: Option<Instant>,
    starts: u64,
    exits: [u64; REASONS.len()],
}

impl Supervisor {
    /// A supervisor with vacant slots; [`Self::fill`] starts the first workers.
    pub(super) fn new(
        workers: u16,
        limits: &Limits,
        launcher: Launcher,
        notes_rx: mpsc::Receiver<WorkerNote>,
        board: Workers,
    ) -> Self {
        Self {
            slots: Slots::new(workers, limits.startup, starts_at_once(), Instant::now()),
            launcher,
            lives: JoinSet::new(),
            live: HashMap::new(),
            notes_rx,
            workers: board,
            closing: false,
            frozen_at: None,
            starts: 0,
            exits: [0; REASONS.len()],
        }
    }

    /// Starts what is due and kills what did not come up.
    pub(super) fn fill(&mut self, control: &ControlState, now: Instant) {
        while self.lives.try_join_next().is_some() {}
        for local_id in self.slots.take_due(now) {
            let life = self.launcher.clone().live(local_id, control.clone());
            self.lives.spawn(life);
        }
        let live = &self.live;
        let cpu = |incarnation| process::cpu_time(live.get(&incarnation)?.pid);
        for incarnation in self.slots.overdue(now, cpu) {
            self.kill(incarnation, WorkerEnd::Startup);
        }
    }

    /// When [`Self::fill`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.slots.next_deadline()
    }

    /// Waits for a note. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> WorkerNote {
        match self.notes_rx.recv().await {
            Some(note) => note,
            // The launcher holds a sender as long as this lives.
            None => std::future::pending().await,
        }
    }

    /// Takes a note in.
    pub(super) fn noted(&mut self, note: WorkerNote, now: Instant) -> Option<SupervisorEvent> {
        match note {
            WorkerNote::Launched {
                local_id,
                incarnation,
                pid,
                pidfd,
                status,
            } => {
                self.workers.up(local_id, status.clone());
                let live = Live {
                    local_id,
                    pid,
                    pidfd,
                    status,
                    killed: None,
                };
                self.launched(incarnation, live, now);
                None
            }
            WorkerNote::NotLaunched { local_id, reason } => {
                tracing::error!(worker = %local_id, reason, "a worker cannot be started");
                self.aftermath(local_id, WorkerEnd::Startup, reason, now)
            }
            WorkerNote::Gone {
                local_id,
                incarnation,
                exit,
                begun,
                ended,
                log_tail,
            } => {
                let came_up = self.slots.is_ready(local_id);
                let how = self.classify(incarnation, exit.map(|exit| exit.status), came_up);
                self.live.remove(&incarnation);
                self.workers.gone(local_id);
                self.report(local_id, how, &log_tail);
                let said = format!(
                    "worker {local_id} {}",
                    describe(how, exit.map(|exit| exit.status))
                );
                let words = if log_tail.is_empty() {
                    said
                } else {
                    format!("{said}; it said: {log_tail}")
                };
                if let Some(hopeless) = self.aftermath(local_id, how, words, now) {
                    return Some(hopeless);
                }
                Some(SupervisorEvent::Ended(Ended {
                    incarnation,
                    local_id,
                    how,
                    begun,
                    ended,
                }))
            }
        }
    }

    fn launched(&mut self, incarnation: Incarnation, live: Live, now: Instant) {
        self.starts += 1;
        metrics::counter!(names::MANAGER_WORKER_STARTS).increment(1);
        if !self.slots.is_ready(live.local_id) {
            self.slots.launched(live.local_id, incarnation, now);
        }
        self.live.insert(incarnation, live);
        // It was on its way when everybody was told to go.
        if self.closing {
            self.signal(incarnation, Signal::TERM);
        }
    }

    /// A worker's handshake succeeded.
    pub(super) fn joined(&mut self, local_id: LocalId, incarnation: Incarnation, now: Instant) {
        self.slots.joined(local_id, incarnation, now);
    }

    fn classify(
        &self,
        incarnation: Incarnation,
        status: Option<ExitStatus>,
        came_up: bool,
    ) -> WorkerEnd {
        let killed = self.live.get(&incarnation).and_then(|live| live.killed);
        match (killed, status) {
            (Some(end), _) => end,
            _ if self.closing => WorkerEnd::Asked,
            _ if !came_up => WorkerEnd::Startup,
            (None, Some(ExitStatus::Code(code))) => WorkerEnd::Code(code),
            (None, Some(ExitStatus::Signal(signal))) => WorkerEnd::Signal(signal),
            (None, None) => WorkerEnd::Unresponsive,
        }
    }

    fn report(&mut self, local_id: LocalId, how: WorkerEnd, log_tail: &str) {
        let reason = how.as_str();
        let index = REASONS.iter().position(|known| *known == reason);
        self.exits[index.expect("every reason has a counter")] += 1;
        metrics::counter!(names::MANAGER_WORKER_EXITS, "reason" => reason).increment(1);
        if how == WorkerEnd::Asked {
            tracing::debug!(worker = %local_id, "worker left");
        } else {
            tracing::warn!(worker = %local_id, reason, log_tail, "worker {local_id} {how}");
        }
    }

    fn aftermath(
        &mut self,
        local_id: LocalId,
        how: WorkerEnd,
        words: String,
        now: Instant,
    ) -> Option<SupervisorEvent> {
        let aftermath = self.slots.gone(local_id, how, random_u64(), now);
        (aftermath == Aftermath::Hopeless && !self.closing)
            .then_some(SupervisorEvent::Hopeless(words))
    }

    /// Kills a worker that does not react.
    pub(super) fn kill(&mut self, incarnation: Incarnation, how: WorkerEnd) {
        if let Some(live) = self.live.get_mut(&incarnation)
            && live.killed.is_none()
        {
            tracing::warn!(worker = %live.local_id, "worker {} {how}", live.local_id);
            live.killed = Some(how);
            self.signal(incarnation, Signal::KILL);
        }
    }

    /// What is seen of a living worker.
    pub(super) fn look(&self, incarnation: Incarnation) -> Option<Look> {
        self.live.get(&incarnation).map(Live::look)
    }

    /// Takes a hand-over back that a worker has not begun. Of a dead one it is known what it began.
    pub(super) fn revoke(&self, incarnation: Incarnation, key: u64) -> Revocation {
        let live = self.live.get(&incarnation);
        live.map_or(Revocation::Begun, |live| live.status.withdraw(key))
    }

    /// The slot of a living worker, and what it tells.
    pub(super) fn place(&self, incarnation: Incarnation) -> Option<(LocalId, StatusView)> {
        let live = self.live.get(&incarnation)?;
        Some((live.local_id, live.status.clone()))
    }

    /// Starts nothing any more; whoever ends from here on was asked to.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.slots.close();
    }

    /// Ends those that are not ready yet; nobody waits for a start that is of no use any more. Only while no task can be on
    /// its way to them.
    pub(super) fn kill_unready(&self) {
        for (incarnation, live) in &self.live {
            if !self.slots.is_ready(live.local_id) {
                self.signal(*incarnation, Signal::KILL);
            }
        }
    }

    /// Signals every worker; used for the steps of a shutdown.
    pub(super) fn signal_all(&self, signal: Signal) {
        for incarnation in self.live.keys() {
            self.signal(*incarnation, signal);
        }
    }

    /// Stops every worker, so that nothing new is begun, and then what the tasks are.
    pub(super) fn freeze(&mut self) {
        self.signal_all(Signal::STOP);
        self.signal_tasks(Signal::STOP);
        self.frozen_at.get_or_insert_with(Instant::now);
    }

    /// Lets them go on, tasks first: a worker that looks finds its task as it was.
    pub(super) fn thaw(&mut self, gate: &SharedGate) {
        if let Some(frozen_at) = self.frozen_at.take() {
            // Before anybody looks at the time: limits of tasks stood still as well.
            gate.note_standstill(frozen_at.elapsed());
        }
        self.signal_tasks(Signal::CONT);
        self.signal_all(Signal::CONT);
    }

    /// Signals the process group of every task.
    fn signal_tasks(&self, signal: Signal) {
        for live in self.live.values() {
            let Some(group) = task_group(&live.status) else {
                continue;
            };
            match rustix::process::kill_process_group(group, signal) {
                // It ended in this moment.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => {
                    let error = io::Error::from(errno);
                    tracing::error!(worker = %live.local_id, %error, "a task cannot be signaled");
                }
            }
        }
    }

    fn signal(&self, incarnation: Incarnation, signal: Signal) {
        let Some(live) = self.live.get(&incarnation) else {
            return;
        };
        match pidfd_send_signal(&live.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => {
                let error = io::Error::from(errno);
                tracing::error!(worker = %live.local_id, %error, "a worker cannot be signaled");
            }
        }
    }

    /// Workers by state.
    pub(super) fn population(&self) -> Population {
        self.slots.population()
    }

    /// Worker processes started.
    pub(super) fn starts(&self) -> u64 {
        self.starts
    }

    /// Worker processes that ended, by reason.
    pub(super) fn exits(&self) -> Vec<(&'static str, u64)> {
        REASONS.into_iter().zip(self.exits).collect()
    }
}

/// An end in words; a worker that did not come up may have exited by itself.
fn describe(how: WorkerEnd, status: Option<ExitStatus>) -> String {
    match (how, status) {
        (WorkerEnd::Startup, Some(ExitStatus::Code(code))) => {
            format!("exited with code {code} before it was ready")
        }
        _ => how.to_string(),
    }
}
