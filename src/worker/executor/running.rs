//! A started task: watched, signaled when it has to end, and cleared away with everything it left.
//!
//! The order after the leader's end matters. While it is a zombie its group number cannot be reused, so the rest of
//! the group is killed first; then it is reaped; then adopted descendants are killed until none is left; only then is
//! the output read, because only then nobody writes to it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::capture::{Captured, Plan};
use super::follow_ups;
use super::limits as usage_limits;
use super::prepare::Executor;
use super::stop::{Action, End, Event, Lifecycle, Limits, StopOrder};
use crate::process::groups::TaskGroup;
use crate::process::{self, Child, ExitInfo, ExitStatus, Pid, Signal};
use crate::protocol::WorkerTaskResp;
use crate::protocol::limits::Limits as UsageLimits;
use crate::protocol::report::{Reason, TaskResult};

/// How long descendants that were killed are waited for.
pub(super) const SWEEP_LIMIT: Duration = Duration::from_secs(2);
/// First look after a running task's output and orphans; a shorter task is never looked after.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Pause between two questions whether a child has ended that the runtime cannot watch.
const UNWATCHED_PAUSE: Duration = Duration::from_millis(10);

/// A task whose process exists.
///
/// Dropping it kills the leader's group; descendants outside the group are killed before the executor's next task.
#[derive(Debug)]
#[must_use = "a task that is not finished is killed"]
pub struct Running<'exec> {
    pub(super) executor: &'exec mut Executor,
    pub(super) child: Child,
    /// Of a task with a memory limit.
    pub(super) group: Option<TaskGroup>,
    pub(super) plan: Plan,
    pub(super) limits: Limits,
    pub(super) usage: UsageLimits,
    pub(super) lifecycle: Lifecycle,
    pub(super) started: Instant,
    pub(super) started_at_us: i64,
}

/// What is known about a task the moment it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Pid of the leader and number of its process group.
    pub pid: Pid,
    /// When the spawn call returned, in microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Executor {
    /// Runs a task from beginning to end: [`Self::prepare`], [`Self::start`], [`Running::finish`]; then takes what it
    /// left out of the slot.
    pub async fn run(
        &mut self,
        task: &WorkerTaskResp,
        mut stop: watch::Receiver<StopOrder>,
        on_started: impl FnOnce(Started),
    ) -> TaskResult {
        let prepared = match self.prepare(task, &mut stop).await {
            Ok(prepared) => prepared,
            Err(result) => return *result,
        };
        let mut result = match self.start(prepared).await {
            Ok(running) => {
                on_started(running.started());
                running.finish(stop.clone()).await
            }
            Err(result) => return *result,
        };
        self.keep_files(task, stop, &mut result).await;
        result
    }
}

impl Running<'_> {
    /// Who runs since when.
    #[must_use]
    pub fn started(&self) -> Started {
        Started {
            pid: self.child.pid(),
            at_us: self.started_at_us,
        }
    }

    /// Waits for the end, enforcing time limit and orders, and clears away what is left.
    ///
    /// `stop` holds the newest order; one that is there already counts. Its sender may be dropped: no further orders.
    /// A result with [`Reason::Preempted`] was ended by [`super::StopReason::HandBack`] and is to be released.
    pub async fn finish(mut self, mut stop: watch::Receiver<StopOrder>) -> TaskResult {
        if *stop.borrow() != StopOrder::None {
            stop.mark_changed();
        }
        let mut look_at = self.started + FIRST_LOOK;
        let mut orders_open = true;
        loop {
            let wake_at = self
                .lifecycle
                .wake_at()
                .map_or(look_at, |at| at.min(look_at));
            let event = tokio::select! {
                biased;
                () = exited(&mut self.child) => Event::Time,
                order = stop.changed(), if orders_open => {
                    orders_open = order.is_ok();
                    Event::Order(*stop.borrow_and_update())
                }
                () = tokio::time::sleep_until(wake_at.into()) => Event::Time,
            };
            // The exit comes before anything else that has happened by now: what has ended by itself is not signaled
            // and keeps its real result.
            if self.child.has_exited() {
                return self.exited().await;
            }
            let now = Instant::now();
            match self.lifecycle.handle(now, event) {
                Some(Action::Terminate) => self.terminate(),
                Some(Action::Kill) => self.kill(),
                Some(Action::Finish(end)) => return self.conclude(end, None).await,
                None => {}
            }
            if now >= look_at {
                if self.ran_out_of_memory()
                    && self.lifecycle.handle(now, Event::OutOfMemory).is_some()
                {
                    // The kernel may have killed one process only; the task is over all the same.
                    self.kill();
                }
                self.look_after().await;
                look_at = Instant::now() + LOOK_PAUSE;
            }
        }
    }

    /// The whole tree where the task has a control group, else the process group; the rest is swept afterwards.
    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    fn terminate(&self) {
        self.signal(Signal::TERM);
        // A stopped process acts on TERM only once it is continued.
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = self.child.signal_group(signal) {
            tracing::warn!(pid = %self.child.pid(), ?signal, %error, "the task's group cannot be signaled");
        }
    }

    fn ran_out_of_memory(&self) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(TaskGroup::ran_out_of_memory)
    }

    /// What a long-running task needs from time to time: its output kept within the limit, its dead orphans reaped.
    async fn look_after(&mut self) {
        process::reap_adopted();
        if let Err(error) = self.executor.capture.hold_limit(&self.plan).await {
            tracing::warn!(%error, "the running task's output cannot be cut");
        }
    }

    async fn exited(mut self) -> TaskResult {
        if self.ran_out_of_memory() {
            // The end of the leader is its consequence.
            self.lifecycle.handle(Instant::now(), Event::OutOfMemory);
        }
        // The leader is a zombie: its group number is still its own.
        self.kill();
        let reaped = self.child.reap();
        let info = reaped.unwrap_or_else(|error| {
            tracing::error!(pid = %self.child.pid(), %error, "the task's exit status is lost");
            None
        });
        let lost = End {
            reason: Reason::WorkerLost,
            status: None,
            killed: false,
        };
        let event = info.map(|info| Event::Exited(info.status));
        let action = event.and_then(|event| self.lifecycle.handle(Instant::now(), event));
        match action {
            Some(Action::Finish(end)) => self.conclude(end, info).await,
            _ => self.conclude(lost, None).await,
        }
    }

    /// Clears away what the leader left and puts the result together.
    async fn conclude(self, end: End, info: Option<ExitInfo>) -> TaskResult {
        let wall_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let Self {
            executor,
            child,
            group,
            plan,
            limits,
            usage,
            started_at_us,
            ..
        } = self;
        let leader = (!child.is_reaped()).then(|| child.pid());
        // A leader that cannot be killed counts as adopted from here on.
        drop(child);
        let mut left = process::kill_adopted(SWEEP_LIMIT).await.left;
        left.extend(leader.filter(|pid| !left.contains(pid)));
        if let Some(group) = group
            && let Err(error) = group.remove().await
        {
            tracing::warn!(%error, "the task's control group cannot be removed now");
        }
        let mut captured = executor.capture.finish(&plan).await;
        if !left.is_empty() {
            tracing::warn!(processes = ?left, "processes of the task cannot be killed");
            // They may go on writing, so the next task gets other files.
            let renewed = executor.capture.renew();
            let trouble = renewed
                .err()
                .map(|error| format!("the output files cannot be renewed: {error}"));
            captured.trouble = captured.trouble.or(trouble);
        }
        executor.unfinished = false;
        let trouble = captured.trouble.take();
        let message = message(end, (limits, &usage), &left, trouble);
        // Wall time comes from the monotonic clock, so a clock that is set meanwhile does not distort it.
        let ended_at_us = started_at_us.saturating_add(wall_us);
        let result = result(end, info, message, captured, (started_at_us, ended_at_us));
        let completed = result.reason == Reason::Exit && result.exit_code == Some(0);
        TaskResult {
            follow_ups: follow_ups::read(executor.directories.new_task(), completed).map(Box::new),
            ..result
        }
    }
}

/// Resolves when the process has ended.
async fn exited(child: &mut Child) {
    let Err(error) = child.exited().await else {
        return;
    };
    tracing::warn!(pid = %child.pid(), %error, "the runtime cannot watch the task; its end is asked for instead");
    while !child.has_exited() {
        tokio::time::sleep(UNWATCHED_PAUSE).await;
    }
}

/// What the reason alone does not say.
fn message(
    end: End,
    (limits, usage): (Limits, &UsageLimits),
    left: &[Pid],
    trouble: Option<String>,
) -> Option<String> {
    let mut parts: Vec<String> = usage_limits::words(end, usage).into_iter().collect();
    match (end.reason, end.status) {
        (Reason::Timeout, _) => {
            let limit = limits.time_limit.unwrap_or_default();
            parts.push(format!("ran longer than its time limit of {limit:?}"));
        }
        (Reason::Signal, Some(ExitStatus::Signal(libc::SIGKILL))) => parts.push(
            "killed by somebody else; the kernel does that to a process when memory runs out"
                .into(),
        ),
        (Reason::WorkerLost, _) => parts.push("the program's exit status is lost".into()),
        _ => {}
    }
    if end.killed {
        let grace = limits.grace;
        parts.push(format!(
            "did not end within its grace period of {grace:?} and was killed"
        ));
    }
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
        parts.push(format!(
            "processes that cannot be killed are left: {}",
            pids.join(", ")
        ));
    }
    parts.extend(trouble);
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn result(
    end: End,
    info: Option<ExitInfo>,
    message: Option<String>,
    captured: Captured,
    span_us: (i64, i64),
) -> TaskResult {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (exit_code, signal) = match end.status {
        Some(ExitStatus::Code(code)) => (Some(code), None),
        Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    TaskResult {
        reason: end.reason,
        exit_code,
        signal,
        message,
        handed_over_at_us: None,
        started_at_us: Some(span_us.0),
        ended_at_us: span_us.1,
        cpu_user_us: info.map_or(0, |info| micros(info.user)),
        cpu_system_us: info.map_or(0, |info| micros(info.system)),
        max_rss_bytes: info.map_or(0, |info| info.max_rss_bytes),
        stdout: captured.stdout,
        stderr: captured.stderr,
        follow_ups: None,
        artifacts: Vec::new(),
        value: None,
    }
}
