//! The client's loop: answers, control states, calls, then a wait.
//!
//! It owns every port of the worker. It never awaits, never waits for room in a channel, and sleeps only in
//! [`super::bell`]. Control states are drained before an answer is delivered, so that whoever gets a task has every order
//! that was given before it.

mod answers;
mod closing;
mod requests;
mod rest;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::bell::Bell;
use crate::batch::Dispatch;
use crate::config::{PollConfig, PollStrategy};
use crate::error::CallError;
use crate::handover::FetchWish;
use crate::header::RequestKind;
use crate::pending::{CallId, PendingTable};
use crate::spill::{Body, Incoming, OpenSpill};
use crate::status::Word;
use crate::transport::ClientTransport;
use crate::transport::ipc::ACTIVE_REPORTS;

/// Reports taken from the channel and not yet answered; the others wait in the channel.
const MAX_CALLS: usize = 64;
/// Pause before something that could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a fetch is waited for before it is asked again: longer than any long poll.
const FETCH_PATIENCE: Duration = Duration::from_secs(45);

/// How to wait if the manager has not said so in a way that can be read.
const UNTOLD: PollConfig = PollConfig {
    strategy: PollStrategy::Event,
    spin: Duration::ZERO,
};

/// What the async side tells the poller.
#[derive(Debug)]
pub(super) enum Command {
    Fetch { asked: Instant, wish: FetchWish },
    Close { until: Instant },
}

/// A report, or another request of its service, to send; `done` ends exactly once.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) kind: RequestKind,
    pub(super) body: Body,
    pub(super) asked: Instant,
    pub(super) until: Instant,
    pub(super) done: oneshot::Sender<Result<Incoming, CallError>>,
}

/// Result of a fetch.
#[derive(Debug)]
pub(super) enum Fetched {
    Replies(Vec<Dispatch>),
    /// One whose bytes lie in a file.
    Large {
        key: u64,
        word: Word,
        file: OpenSpill,
    },
    Empty,
    Draining,
    Failed(CallError),
}

/// The poller's ends of the channels.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) commands_rx: flume::Receiver<Command>,
    pub(super) reports_rx: flume::Receiver<Report>,
    pub(super) answers_tx: flume::Sender<Fetched>,
    pub(super) control_tx: watch::Sender<Bytes>,
    pub(super) gone_tx: watch::Sender<bool>,
    pub(super) abort: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Fetch<P> {
    Idle,
    /// To be sent, not before the time.
    Wanted {
        asked: Instant,
        not_before: Instant,
    },
    Sent {
        asked: Instant,
        sent: Instant,
        correlation: u64,
        pending: P,
    },
}

#[derive(Debug)]
struct InFlight<P> {
    id: CallId,
    asked: Instant,
    correlation: u64,
    pending: P,
    /// Keeps a spill file until the answer is here.
    _body: Body,
}

#[derive(Debug)]
struct Queued {
    id: CallId,
    kind: RequestKind,
    asked: Instant,
    body: Body,
}

/// How far the end is.
#[derive(Debug)]
enum Stage<P> {
    Open,
    /// Waiting for acknowledgements.
    Closing {
        until: Instant,
    },
    /// The goodbye is sent.
    Leaving {
        until: Instant,
        pending: P,
    },
    Over,
}

/// The actor. Field order is drop order: requests before the transport's ports and node.
#[derive(Debug)]
pub(super) struct Poller<C: ClientTransport> {
    fetch: Fetch<C::Pending>,
    in_flight: Vec<InFlight<C::Pending>>,
    stage: Stage<C::Pending>,
    queued: VecDeque<Queued>,
    pub(super) transport: C,
    calls: PendingTable<oneshot::Sender<Result<Incoming, CallError>>>,
    pub(super) shared: Arc<Shared>,
    pub(super) bell: Bell,
    ends: Ends,
    confirms: u64,
    /// What the fetch under way asks for.
    wish: FetchWish,
    correlation: u64,
    gone: bool,
    /// Reports are not sent before this: the last one could not be.
    hold_reports_until: Option<Instant>,
    /// Clock reading when the last wait ran out without a ring.
    timed_out_ns: Option<u64>,
    /// The last turn found nothing and was followed by no wait.
    spun: bool,
    next_hang_up_check: Instant,
    /// The manager's word on how to wait, and what it says.
    poll_word: u64,
    poll: PollConfig,
}

impl<C: ClientTransport> Poller<C> {
    pub(super) fn new(shared: Arc<Shared>, transport: C, bell: Bell, ends: Ends) -> Self {
        Self {
            fetch: Fetch::Idle,
            in_flight: Vec::with_capacity(ACTIVE_REPORTS),
            stage: Stage::Open,
            queued: VecDeque::new(),
            transport,
            calls: PendingTable::new(),
            shared,
            bell,
            ends,
            confirms: 0,
            wish: FetchWish::ONE,
            correlation: 0,
            gone: false,
            hold_reports_until: None,
            timed_out_ns: None,
            spun: false,
            next_hang_up_check: Instant::now(),
            poll_word: 0,
            poll: UNTOLD,
        }
    }

    /// Runs until closed or aborted, then ends every call and drops everything.
    pub(super) fn run(mut self) {
        let mut last_work = Instant::now();
        while !matches!(self.stage, Stage::Over) && !self.ends.abort.load(Ordering::SeqCst) {
            if self.turn() {
                last_work = Instant::now();
                self.shared.status.poller_progress();
                if std::mem::take(&mut self.spun) {
                    self.shared.status.count_spin_hit();
                }
            } else {
                self.rest(last_work);
            }
        }
        self.fail_all(|| CallError::Closed);
    }

    /// `true` when there was anything to do.
    fn turn(&mut self) -> bool {
        let mut busy = self.take_commands();
        busy |= self.take_reports();
        busy |= self.poll_fetch();
        busy |= self.poll_reports();
        busy |= self.take_control();
        busy |= self.send();
        busy |= self.expire();
        busy |= self.advance_close();
        busy |= self.notice_hang_up();
        self.timed_out_ns = None;
        busy
    }

    fn take_commands(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.ends.commands_rx.try_recv() {
            any = true;
            match command {
                Command::Fetch { .. } if self.gone => {
                    self.fetched(Fetched::Failed(CallError::Gone))
                }
                Command::Fetch { .. } if !matches!(self.stage, Stage::Open) => {
                    self.fetched(Fetched::Failed(CallError::Closed));
                }
                Command::Fetch { asked, wish } => {
                    self.wish = wish;
                    self.fetch = Fetch::Wanted {
                        asked,
                        not_before: asked,
                    };
                }
                Command::Close { until } => {
                    self.stage = Stage::Closing { until };
                    if let Fetch::Wanted { asked, .. } = self.fetch {
                        self.want_again(asked, Duration::ZERO);
                    }
                }
            }
        }
        any
    }

    fn take_reports(&mut self) -> bool {
        let mut any = false;
        while self.calls.len() < MAX_CALLS {
            let Ok(report) = self.ends.reports_rx.try_recv() else {
                break;
            };
            any = true;
            let refusal = match self.stage {
                _ if self.gone => Some(CallError::Gone),
                Stage::Open => None,
                _ => Some(CallError::Closed),
            };
            if let Some(refusal) = refusal {
                // A caller that gave up does not want the reason.
                drop(report.done.send(Err(refusal)));
                continue;
            }
            let id = self.calls.register(report.until, report.done);
            self.queued.push_back(Queued {
                id,
                kind: report.kind,
                asked: report.asked,
                body: report.body,
            });
        }
        any
    }

    /// Delivers the answer to a fetch. The channel has room: there is one answer per command and one command at a time.
    fn fetched(&self, fetched: Fetched) {
        let delivered = self.ends.answers_tx.try_send(fetched);
        debug_assert!(
            !matches!(delivered, Err(flume::TrySendError::Full(_))),
            "a fetch was answered twice"
        );
    }

    /// Publishes the newest control state to the async side.
    pub(super) fn take_control(&mut self) -> bool {
        match self.transport.newest_control() {
            Ok(Some(state)) => {
                self.ends.control_tx.send_replace(state);
                true
            }
            Ok(None) => false,
            Err(error) => {
                // The next state replaces this one; the ports still work.
                tracing::warn!(%error, source = ?error.source, "a control state was lost");
                false
            }
        }
    }

    fn expire(&mut self) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let expired = self.calls.expire(Instant::now());
        let any = !expired.is_empty();
        for (id, done) in expired {
            self.queued.retain(|queued| queued.id != id);
            self.in_flight.retain(|in_flight| in_flight.id != id);
            drop(done.send(Err(CallError::DeadlineExceeded)));
        }
        any
    }
}
