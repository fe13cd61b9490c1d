//! The worker's only loop: waits for whatever happens next, lets [`super::state`] decide, performs what it decides.
//!
//! ```text
//!   control | peer lost | heartbeat refused | signal | reports answered | news of tasks | fetch answered | timer
//!        \__________________________________  select, in this order  ________________________________/
//!                                               |
//!                         state: event -> actions;  outbox: answer -> what is due
//!                                               |
//!              fetch / report: futures that live in the loop, never awaited to the side; start / end: the run queue
//! ```
//!
//! Nothing is awaited outside the select until the worker leaves, so control is heard at every moment. Owned by
//! [`super::entry`]; it does not know which transport or executor it drives.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use mitosis_bridge::MAX_BATCH;
use tokio::sync::watch;
use tracing::warn;

use crate::comm::{CommError, Fetched, WorkerComm};
use crate::protocol::{Desired, ReportTaskResp};
use crate::shutdown::ShutdownRequest;

use super::backoff::Jitter;
use super::clock::now;
use super::files::ArtifactSender;
use super::heartbeat::{HeartbeatRule, keep_beating};
use super::outbox::Outbox;
use super::runner::{News, RunQueue};
use super::signals::StopSignals;
use super::state::{Action, Event, Phase, WorkerState};
use super::status::WorkerStatus;

mod end;
mod happened;
mod perform;
mod verdict;

pub use end::Ended;

/// How long a graceful leave may take to deliver the last reports when nothing sets an earlier end.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);
/// How long delivering the last reports may take at least, also past the deadline of the task.
const FLUSH_AT_LEAST: Duration = Duration::from_secs(5);
/// How long an immediate leave may take in all: the kill, the task's end, the last report.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
/// How long saying goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// Whom the loop drives.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Gives tasks, takes reports.
    pub comm: &'a dyn WorkerComm,
    /// Delivers what tasks left.
    pub sender: &'a dyn ArtifactSender,
    /// Is told where the worker stands.
    pub status: &'a dyn WorkerStatus,
}

/// How the loop is to behave.
#[derive(Debug, Clone, Copy)]
pub struct LoopConfig {
    /// Most frames of reports on their way at once; 1 where the transport does not keep their order.
    pub report_window: usize,
    /// Most reports in one frame.
    pub report_batch: usize,
    /// When to send heartbeats.
    pub heartbeat: HeartbeatRule,
}

/// Tasks whose artifacts may be on their way before the slot's disk is looked at; with more, nothing is fetched unless
/// that has room. What is in line by then comes on top.
const FREE_DELIVERIES: usize = 4;
/// Most of them, however much room there is: each is remembered.
const MOST_DELIVERIES: usize = 10_000;
/// Most frames of reports on their way over IPC, whose service keeps their order.
const IPC_REPORT_WINDOW: usize = 4;
/// Most reports in one of them: what one fetch brings.
const IPC_REPORT_BATCH: usize = MAX_BATCH;
/// How often a managed worker stamps its status block while a task is in hand.
const STAMP_INTERVAL: Duration = Duration::from_secs(5);

impl LoopConfig {
    /// For a managed worker.
    #[must_use]
    pub fn managed() -> Self {
        Self {
            report_window: IPC_REPORT_WINDOW,
            report_batch: IPC_REPORT_BATCH,
            heartbeat: HeartbeatRule::WhileBusy(STAMP_INTERVAL),
        }
    }

    /// For an independent worker, whose registration says how often to send a heartbeat.
    #[must_use]
    pub fn independent(heartbeat: Duration) -> Self {
        Self {
            report_window: 1,
            report_batch: 1,
            heartbeat: HeartbeatRule::Always(heartbeat),
        }
    }
}

/// Runs the worker until it has left; then the queue is dropped, which abandons what may still run.
pub async fn run(
    parts: Parts<'_>,
    queue: RunQueue,
    signals: &mut StopSignals,
    config: LoopConfig,
) -> Ended {
    let (busy_tx, busy_rx) = watch::channel(false);
    let mut peer = Peer {
        signals,
        lost: parts.comm.lost(),
        heartbeat: keep_beating(parts.comm, config.heartbeat, busy_rx).boxed(),
    };
    let mut worker = Worker::new(parts, queue, config, busy_tx);
    worker.begin();
    while !worker.is_through() {
        let happened = worker.next(&mut peer).await;
        worker.on(happened);
    }
    worker.leave().await
}

/// What the loop listens to besides its own calls.
struct Peer<'a, 's> {
    signals: &'s mut StopSignals,
    lost: BoxFuture<'a, CommError>,
    heartbeat: BoxFuture<'a, CommError>,
}

/// Everything that can happen.
enum Happened {
    Control,
    Lost(CommError),
    Signal(ShutdownRequest),
    Answered(Answered),
    News(Vec<News>),
    Fetched(Result<Fetched, CommError>),
    Delivered,
    Timer,
}

/// The numbers of reports that went together, and what was answered to them.
type Answered = (Vec<u64>, Result<Vec<ReportTaskResp>, CommError>);
type Sending<'a> = BoxFuture<'a, Answered>;
type Fetching<'a> = BoxFuture<'a, Result<Fetched, CommError>>;

struct Worker<'a> {
    parts: Parts<'a>,
    state: WorkerState,
    outbox: Outbox,
    jitter: Jitter,
    /// Newest wishes of the peer; closed when the peer is gone, which `lost` tells as well.
    control: watch::Receiver<Desired>,
    control_open: bool,
    queue: RunQueue,
    /// Read by the heartbeat.
    busy_tx: watch::Sender<bool>,
    fetching: Option<Fetching<'a>>,
    fetch_failures: u32,
    /// At most `report_window`; each answers once.
    sending: FuturesUnordered<Sending<'a>>,
    /// Artifacts on their way, of as many tasks as the disk has room for and at most [`MOST_DELIVERIES`].
    delivering: FuturesUnordered<BoxFuture<'a, ()>>,
    lost: Option<CommError>,
    /// When leaving ends, delivered or not.
    leave_by: Option<Instant>,
    actions: Vec<Action>,
    /// What follows from actions, fed once they are all performed.
    later: Vec<Event>,
}

impl<'a> Worker<'a> {
    fn new(
        parts: Parts<'a>,
        queue: RunQueue,
        config: LoopConfig,
        busy_tx: watch::Sender<bool>,
    ) -> Self {
        Self {
            parts,
            state: WorkerState::new(parts.comm.start_rule()),
            outbox: Outbox::new(config.report_window, config.report_batch, Jitter::new()),
            jitter: Jitter::new(),
            control: parts.comm.control(),
            control_open: true,
            queue,
            busy_tx,
            fetching: None,
            fetch_failures: 0,
            sending: FuturesUnordered::new(),
            delivering: FuturesUnordered::new(),
            lost: None,
            leave_by: None,
            actions: Vec::new(),
            later: Vec::new(),
        }
    }

    /// Takes in the control state that was there before the first fetch.
    fn begin(&mut self) {
        let desired = self.control.borrow_and_update().clone();
        self.feed(Event::Control(desired));
        self.settle();
    }

    fn is_through(&self) -> bool {
        if self.leave_by.is_some_and(|by| by <= now()) {
            return true;
        }
        let nothing_to_send =
            self.outbox.is_empty() && self.delivering.is_empty() || self.lost.is_some();
        self.state.phase() == Phase::Leaving && nothing_to_send
    }

    async fn next(&mut self, peer: &mut Peer<'_, '_>) -> Happened {
        let timer = self.next_timer();
        // Control beats data; what frees resources beats what takes them. No branch can be ready without end: each
        // is bounded by a window of one, or by the peer's own pace.
        tokio::select! {
            biased;
            changed = self.control.changed(), if self.control_open => {
                self.control_open = changed.is_ok();
                Happened::Control
            }
            error = &mut peer.lost, if self.lost.is_none() => Happened::Lost(error),
            request = peer.signals.next() => Happened::Signal(request),
            Some(answered) = self.sending.next() => Happened::Answered(answered),
            news = self.queue.news() => Happened::News(news),
            answer = wait_for(&mut self.fetching) => Happened::Fetched(answer),
            Some(()) = self.delivering.next() => Happened::Delivered,
            error = &mut peer.heartbeat, if self.lost.is_none() => Happened::Lost(error),
            () = sleep_until(timer), if timer.is_some() => Happened::Timer,
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let retry = if self.lost.is_none() {
            self.outbox.next_retry()
        } else {
            None
        };
        [self.state.next_timer(), retry, self.leave_by]
            .into_iter()
            .flatten()
            .min()
    }

    async fn leave(mut self) -> Ended {
        // What an immediate stop could not wait for is killed when the queue is dropped.
        let still_running = self.state.in_line() > 0;
        self.sending.clear();
        if !self.delivering.is_empty() {
            warn!(
                tasks = self.delivering.len(),
                "artifacts are not delivered and are lost"
            );
        }
        if self.lost.is_none() {
            self.parts.comm.leave(GOODBYE_LIMIT).await;
        }
        for report in self.outbox.left() {
            warn!(seq = report.seq, task = report.task_id, uuid = %report.task_uuid, "report not delivered");
        }
        Ended {
            stop: self.state.stopping(),
            lost: self.lost,
            handed_back: still_running || self.state.handed_back(),
            undelivered: self.outbox.len(),
            tally: *self.outbox.tally(),
        }
    }
}

/// Waits for the future in the slot; for ever while there is none. Safe to drop and call again.
async fn wait_for<T>(slot: &mut Option<BoxFuture<'_, T>>) -> T {
    match slot {
        Some(future) => Pin::new(future).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(timer: Option<Instant>) {
    if let Some(timer) = timer {
        tokio::time::sleep_until(timer.into()).await;
    }
}

#[cfg(test)]
mod tests;
