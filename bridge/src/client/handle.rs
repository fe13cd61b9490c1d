//! Calls to the manager: cheap to clone, usable from any spawned future.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot, watch};

use super::Shared;
use super::poller::{Command, Fetched, Report};
use crate::batch::Dispatch;
use crate::config::{PollConfig, unpack};
use crate::error::CallError;
use crate::gate::SharedGate;
use crate::handover::FetchWish;
use crate::header::{MAX_PAYLOAD, REPORT_SLICE, RequestKind};
use crate::ids::Incarnation;
use crate::spill::{Body, Incoming, OpenSpill};
use crate::status::{StatusBlock, Word};

/// Answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchAnswer {
    /// Work, as the manager prepared it; at least one.
    Replies(Vec<Dispatch>),
    /// Nothing came within the long poll; ask again.
    Empty,
    /// No more work: leave.
    Draining,
}

impl FetchAnswer {
    /// The payload of an answer that brings one reply, as to [`FetchWish::ONE`].
    #[must_use]
    pub fn only(self) -> Option<Bytes> {
        match self {
            Self::Replies(mut replies) if replies.len() == 1 => {
                replies.pop().map(|reply| reply.payload)
            }
            Self::Replies(_) | Self::Empty | Self::Draining => None,
        }
    }
}

/// What a `fetch` that was given up has left for the next one.
#[derive(Debug, Default)]
struct FetchTurn {
    /// The poller has been asked and its answer has not been taken.
    asked: bool,
    /// An answer whose file is still to be read.
    large: Option<(u64, Word, Arc<OpenSpill>)>,
}

/// Ends of the channels that a handle needs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    /// Filled by every clone; full: the caller waits; closed: the poller has ended.
    pub(super) commands_tx: flume::Sender<Command>,
    /// Filled by every clone; full: the caller waits until its deadline; closed: the poller has ended.
    pub(super) reports_tx: flume::Sender<Report>,
    /// Filled by the poller, once per fetch command, so never full; closed: the poller has ended.
    pub(super) answers_rx: flume::Receiver<Fetched>,
    pub(super) control: watch::Receiver<Bytes>,
    pub(super) gone: watch::Receiver<bool>,
    pub(super) closed: watch::Receiver<bool>,
}

/// Makes calls.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    parts: Arc<Parts>,
    /// One fetch at a time: a second caller waits for the first. An async lock, held only by callers.
    turn: Arc<Mutex<FetchTurn>>,
}

impl ClientHandle {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            turn: Arc::new(Mutex::new(FetchTurn::default())),
        }
    }

    /// Asks for work as wished and waits for the answer, at most for the manager's long poll. May be dropped and called again at
    /// any moment: an answer that came meanwhile is given to the next call, and a lost one is sent again.
    ///
    /// # Errors
    /// When the manager is gone or refuses, or this end is closed.
    pub async fn fetch(&self, wish: FetchWish) -> Result<FetchAnswer, CallError> {
        let mut turn = self.turn.lock().await;
        if turn.large.is_none() {
            if !turn.asked {
                let sent = self.parts.commands_tx.send_async(Command::Fetch {
                    asked: Instant::now(),
                    wish,
                });
                sent.await.map_err(|_| CallError::Closed)?;
                turn.asked = true;
                self.parts.shared.waker.wake();
            }
            // Dropped here, the answer stays in the channel for the next call.
            let answers = &self.parts.answers_rx;
            let fetched = match self.spin(|| answers.try_recv().ok()).await {
                Some(fetched) => Ok(fetched),
                None => answers.recv_async().await,
            };
            turn.asked = false;
            match fetched.map_err(|_| CallError::Closed)? {
                Fetched::Replies(replies) => return Ok(FetchAnswer::Replies(replies)),
                Fetched::Large { key, word, file } => {
                    turn.large = Some((key, word, Arc::new(file)))
                }
                Fetched::Empty => return Ok(FetchAnswer::Empty),
                Fetched::Draining => return Ok(FetchAnswer::Draining),
                Fetched::Failed(error) => return Err(error),
            }
        }
        let (key, word, file) = turn
            .large
            .clone()
            .expect("a file was just found or left by an earlier call");
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        let payload = read
            .map_err(|_| CallError::Closed)?
            .map_err(CallError::Spill)?;
        turn.large = None;
        Ok(FetchAnswer::Replies(vec![Dispatch { key, word, payload }]))
    }

    /// Sends a report and waits for its answer until the deadline. Dropping the future does not take the report back.
    ///
    /// # Errors
    /// See [`CallError`]; after [`CallError::DeadlineExceeded`] the report may have been received all the same.
    pub async fn report(&self, payload: Bytes, deadline: Duration) -> Result<Bytes, CallError> {
        self.call(RequestKind::Report, payload, deadline).await
    }

    /// Gets the payload back from the manager's poller: the whole way there with nobody behind it, to measure it and to
    /// see that it is open. Takes the place of a report meanwhile.
    ///
    /// # Errors
    /// See [`CallError`]; more than [`crate::MAX_ECHO`] bytes are refused by the manager.
    pub async fn echo(&self, payload: Bytes, deadline: Duration) -> Result<Bytes, CallError> {
        self.call(RequestKind::Echo, payload, deadline).await
    }

    async fn call(
        &self,
        kind: RequestKind,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(CallError::TooLarge { len: payload.len() });
        }
        let asked = Instant::now();
        let until = asked + deadline;
        let body = self.body(payload).await?;
        let (done, done_rx) = oneshot::channel();
        let report = Report {
            kind,
            body,
            asked,
            until,
            done,
        };
        let sent = self.parts.reports_tx.send_async(report);
        tokio::time::timeout_at(until.into(), sent)
            .await
            .map_err(|_| CallError::DeadlineExceeded)?
            .map_err(|_| CallError::Closed)?;
        self.parts.shared.waker.wake();
        match self.answer(done_rx).await? {
            Incoming::Inline(payload) => Ok(payload),
            Incoming::Spilled(file) => {
                let read = tokio::task::spawn_blocking(move || file.read()).await;
                read.map_err(|_| CallError::Closed)?
                    .map_err(CallError::Spill)
            }
        }
    }

    async fn body(&self, payload: Bytes) -> Result<Body, CallError> {
        if payload.len() <= REPORT_SLICE {
            return Ok(Body::Inline(payload));
        }
        let shared = self.parts.shared.clone();
        let write = move || shared.spill.write(shared.incarnation, &payload);
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| CallError::Closed)?;
        Ok(Body::Spilled(Arc::new(written.map_err(CallError::Spill)?)))
    }

    /// A call that was enqueued while the poller ended stays in the channel as long as a handle lives, so its sender alone
    /// cannot tell that nobody will answer.
    async fn answer<T>(
        &self,
        mut done_rx: oneshot::Receiver<Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if let Some(answer) = self.spin(|| done_rx.try_recv().ok()).await {
            return answer;
        }
        let mut closed = self.parts.closed.clone();
        tokio::select! {
            biased;
            answer = done_rx => answer.map_err(|_| CallError::Closed)?,
            _ = closed.wait_for(|closed| *closed) => Err(CallError::Closed),
        }
    }

    /// Looks for an answer for as long as the poller would spin for it, so that neither falls asleep for a short wait. Every
    /// turn gives way to the runtime, which goes on with its other tasks and its sockets, and then to the poller, which may
    /// share the core: nobody is blocked. `None` at once where the poller does not spin, and when the budget is spent.
    async fn spin<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let budget = unpack(self.parts.shared.status.poll_wanted())?.spin_for_answer();
        if budget.is_zero() {
            return None;
        }
        let until = Instant::now() + budget;
        loop {
            if let Some(answer) = look() {
                return Some(answer);
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }

    /// The newest control state; empty before the first. Whatever was published before a fetch was answered is here when
    /// that fetch returns.
    #[must_use]
    pub fn control(&self) -> watch::Receiver<Bytes> {
        self.parts.control.clone()
    }

    /// Becomes `true` when the manager is gone or has refused this worker.
    #[must_use]
    pub fn gone(&self) -> watch::Receiver<bool> {
        self.parts.gone.clone()
    }

    /// Where this worker says what it does.
    #[must_use]
    pub fn status(&self) -> &StatusBlock {
        &self.parts.shared.status
    }

    /// The gate to look at before anything is begun.
    #[must_use]
    pub fn gate(&self) -> SharedGate {
        self.parts.shared.gate.clone()
    }

    /// This life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.parts.shared.incarnation
    }

    /// Changes how the poller waits, from its next rest on and until the manager says something else.
    pub fn set_poll(&self, config: PollConfig) {
        self.parts.shared.status.want_poll(config);
        self.parts.shared.waker.wake();
    }
}
