//! A started task: watched, signaled when it has to end, and cleared away with everything it left.
//!
//! The order after the leader's end matters. While it is a zombie its group number cannot be reused, so the rest of
//! the group is killed first; then it is reaped; then adopted descendants are killed until none is left; only then is
//! the output read, because only then nobody writes to it.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::capture::Plan;
use super::fast_wait::{self, Waited};
use super::hints;
use super::prepare::Executor;
use super::standstill::StandstillWatch;
use super::stop::{Action, End, Event, Lifecycle, Limits, StopOrder};
use super::watch::Watch;
use crate::file_system::lacks_room;
use crate::process::groups::TaskGroup;
use crate::process::{self, Child, Pid, Signal};
use crate::protocol::WorkerTaskResp;
use crate::protocol::limits::Limits as UsageLimits;
use crate::protocol::report::{Outcome, Reason, ReportTaskOp, TaskResult};
use crate::protocol::task::OnLeftovers;

/// How long descendants that were killed are waited for.
pub(super) const SWEEP_LIMIT: Duration = Duration::from_secs(2);
/// From this age on a task's output is read along.
const READ_ALONG: Duration = Duration::from_millis(5);
/// First look after a running task's orphans, and the longest pause between two: each pause is twice the one before.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The same for a task with a memory limit, whose end may be seen only by a look, and while the disk is full.
const CLOSE_PAUSE: Duration = Duration::from_millis(200);
/// Pause between two looks whether everything that a leader left has ended.
const LEFTOVERS_PAUSE: Duration = Duration::from_millis(20);
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
    /// What becomes of processes that outlive the leader.
    pub(super) leftovers: OnLeftovers,
    pub(super) standstill: StandstillWatch,
    pub(super) lifecycle: Lifecycle,
    pub(super) watch: Watch,
    /// Whether it is a shell line that is executed without a shell.
    pub(super) is_direct: bool,
    pub(super) started: Instant,
    pub(super) started_at_us: i64,
}

/// What happens to the processes of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The leader runs.
    Started(Started),
    /// All are gone, and their numbers may be somebody else's. What they left is taken care of from here on.
    Gone,
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
    /// Runs a task from beginning to end, as [`Self::run_watched`].
    pub async fn run(
        &mut self,
        task: &WorkerTaskResp,
        stop: watch::Receiver<StopOrder>,
        on_started: impl FnOnce(Started),
    ) -> TaskResult {
        let mut on_started = Some(on_started);
        let watch = |life| {
            if let (Life::Started(started), Some(on_started)) = (life, on_started.take()) {
                on_started(started);
            }
        };
        self.run_watched(task, stop, watch).await
    }

    /// Runs a task from beginning to end: [`Self::prepare`], [`Self::start`], [`Running::finish`]; then takes what it
    /// left out of the slot. `watch` hears of its processes.
    pub async fn run_watched(
        &mut self,
        task: &WorkerTaskResp,
        mut stop: watch::Receiver<StopOrder>,
        mut watch: impl FnMut(Life),
    ) -> TaskResult {
        let prepared = match self.prepare(task, &mut stop).await {
            Ok(prepared) => prepared,
            Err(result) => return self.explained(task, *result),
        };
        let result = match self.start(prepared).await {
            Ok(running) => {
                watch(Life::Started(running.started()));
                running.finish(stop.clone()).await
            }
            Err(result) => return self.explained(task, *result),
        };
        watch(Life::Gone);
        let mut result = self.explained(task, result);
        self.keep_files(task, stop, &mut result).await;
        result
    }

    /// The result, with what the author of a failed task may not know.
    fn explained(&self, task: &WorkerTaskResp, mut result: TaskResult) -> TaskResult {
        if ReportTaskOp::outcome_of(&result) == Outcome::Failed
            && let Some(hint) = hints::hint(&task.spec, &result, &self.passed.numbers())
        {
            result.note(&hint);
        }
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
        let is_ordered = *stop.borrow() != StopOrder::None;
        if is_ordered {
            stop.mark_changed();
        } else if self.wait_shortly() == Waited::Exited && !self.is_waiting_for_leftovers() {
            return self.exited(stop).await;
        }
        if self.executor.capture.expects_much() {
            self.read_along();
        }
        let mut looks = Looks::of(self.started, self.group.is_some());
        let mut orders_open = true;
        let mut has_exited = false;
        loop {
            let wake_at = self.lifecycle.wake_at();
            let wake_at = wake_at.map_or(looks.next, |at| at.min(looks.next));
            let Self {
                child,
                executor,
                watch,
                plan,
                ..
            } = &mut self;
            let event = tokio::select! {
                biased;
                () = exited(child), if !has_exited => Event::Time,
                order = stop.changed(), if orders_open => {
                    orders_open = order.is_ok();
                    Event::Order(*stop.borrow_and_update())
                }
                () = tokio::time::sleep_until(wake_at.into()) => Event::Time,
                read = watch.turn(&mut executor.capture, plan), if watch.is_reading() => {
                    match read {
                        Ok(()) => Event::Time,
                        Err(error) => looks.finds_no_place(&error),
                    }
                }
            };
            // The exit comes before anything else that has happened by now: what has ended by itself is not signaled
            // and keeps its real result.
            if self.child.has_exited() {
                if !self.is_waiting_for_leftovers() {
                    return self.exited(stop).await;
                }
                has_exited = true;
                looks.come_closer(Instant::now(), LEFTOVERS_PAUSE);
            }
            let now = Instant::now();
            let stood_still = self.standstill.since_last(now, wake_at);
            self.lifecycle.stood_still(stood_still);
            match self.lifecycle.handle(now, event) {
                Some(Action::Terminate) => self.terminate(),
                Some(Action::Kill) => self.kill(),
                Some(Action::Finish(end)) => return self.conclude(end, None, stop).await,
                None => {}
            }
            if now >= looks.next {
                self.look_after(now, &mut looks);
            }
        }
    }

    /// Waits for a task that may be a short one, where this thread may be blocked.
    fn wait_shortly(&mut self) -> Waited {
        let Some(interrupt) = &self.executor.interrupt else {
            return Waited::Runs;
        };
        let capture = &mut self.executor.capture;
        fast_wait::wait(&self.child, interrupt, capture, &self.plan, self.started)
    }

    /// Has the runtime watch what the task writes.
    fn read_along(&mut self) {
        if let Err(error) = self.watch.begin(&self.executor.capture) {
            tracing::warn!(%error, "the runtime cannot watch the task's output; it is looked at instead");
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
        if self.leftovers == OnLeftovers::Wait && self.child.has_exited() {
            process::signal_adopted(Signal::TERM);
        }
    }

    /// Whether the leader has left processes that belong to the task and are given the time to end.
    fn is_waiting_for_leftovers(&self) -> bool {
        if self.leftovers != OnLeftovers::Wait || self.lifecycle.is_killing() {
            return false;
        }
        process::reap_adopted();
        // The kernel's list may miss one while another ends.
        !process::adopted_children().is_empty() || !process::adopted_children().is_empty()
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

    /// What a long-running task needs from time to time.
    fn look_after(&mut self, now: Instant, looks: &mut Looks) {
        self.read_along();
        if self.ran_out_of_memory() && self.lifecycle.handle(now, Event::OutOfMemory).is_some() {
            // The kernel may have killed one process only; the task is over all the same.
            self.kill();
        }
        process::reap_adopted();
        if !self.watch.is_reading() {
            let read = self.watch.try_all(&mut self.executor.capture, &self.plan);
            if let Err(error) = read {
                let event = looks.finds_no_place(&error);
                if event == Event::OutputLost && self.lifecycle.handle(now, event).is_some() {
                    self.kill();
                }
                return;
            }
        }
        looks.done(now);
    }

    async fn exited(mut self, stop: watch::Receiver<StopOrder>) -> TaskResult {
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
            Some(Action::Finish(end)) => self.conclude(end, info, stop).await,
            _ => self.conclude(lost, None, stop).await,
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

/// When a running task is looked after.
#[derive(Debug)]
struct Looks {
    next: Instant,
    pause: Duration,
    longest: Duration,
    /// It was said that the output finds no place.
    told: bool,
}

impl Looks {
    fn of(started: Instant, has_memory_limit: bool) -> Self {
        Self {
            next: started + READ_ALONG,
            pause: FIRST_LOOK,
            longest: if has_memory_limit {
                CLOSE_PAUSE
            } else {
                LONGEST_PAUSE
            },
            told: false,
        }
    }

    fn done(&mut self, now: Instant) {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(self.longest);
    }

    fn come_closer(&mut self, now: Instant, pause: Duration) {
        self.next = self.next.min(now + pause);
    }

    /// The output finds no place: it waits for a full disk, and for nothing else.
    fn finds_no_place(&mut self, error: &io::Error) -> Event {
        if !lacks_room(error) {
            return Event::OutputLost;
        }
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(%error, "the running task's output finds no place and waits");
        }
        self.next = Instant::now() + CLOSE_PAUSE;
        Event::Time
    }
}
