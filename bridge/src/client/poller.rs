//! The client's loop: answers, control states, calls, then a wait.
//!
//! It owns every port of the worker. It never awaits, never waits for room in a channel, and sleeps only in
//! [`super::bell`]. Control states are drained before an answer is delivered, so that whoever gets a task has every order
//! that was given before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::bell::{Bell, Woken};
use crate::config::{PollConfig, PollStrategy, unpack};
use crate::doorbell::Line;
use crate::error::CallError;
use crate::header::{AnswerKind, Checked, Operation, RequestHeader, RequestKind, ResponseHeader};
use crate::pending::{CallId, PendingTable};
use crate::spill::{Body, Incoming, Name};
use crate::status::clock_ns;
use crate::transport::ipc::ACTIVE_REPORTS;
use crate::transport::{AnswerState, ClientTransport, PendingAnswer, SendFailure};

/// Longest wait of an idle worker.
const IDLE_BOUND: Duration = Duration::from_secs(5);
/// Longest wait while an acknowledgement is outstanding: it may come without a ring.
const LAZY_BOUND: Duration = Duration::from_millis(100);
/// Reports taken from the channel and not yet answered; the others wait in the channel.
const MAX_CALLS: usize = 64;
/// Pause before something that could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a fetch is waited for before it is asked again: longer than any long poll.
const FETCH_PATIENCE: Duration = Duration::from_secs(45);
/// How long the answer to the goodbye is waited for beyond the deadline of a close.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a poller that does not sleep listens for a hang-up.
const HANG_UP_CHECK: Duration = Duration::from_millis(2);
/// An answer older than this that is found when a wait ran out was announced by nobody.
const LOST_AFTER: Duration = Duration::from_millis(5);

/// How to wait if the manager has not said so in a way that can be read.
const UNTOLD: PollConfig = PollConfig {
    strategy: PollStrategy::Event,
    spin: Duration::ZERO,
};

/// What the async side tells the poller.
#[derive(Debug)]
pub(super) enum Command {
    Fetch { asked: Instant },
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
    Reply(Incoming),
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
    correlation: u64,
    gone: bool,
    /// Reports are not sent before this: the last one could not be.
    hold_reports_until: Option<Instant>,
    /// Clock reading when the last wait ran out without a ring.
    timed_out_ns: Option<u64>,
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
            correlation: 0,
            gone: false,
            hold_reports_until: None,
            timed_out_ns: None,
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
                Command::Fetch { asked } => {
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

    fn poll_fetch(&mut self) -> bool {
        let Fetch::Sent {
            asked,
            sent,
            correlation,
            pending,
        } = &mut self.fetch
        else {
            return false;
        };
        let (asked, sent, correlation) = (*asked, *sent, *correlation);
        match pending.poll() {
            AnswerState::Waiting if sent.elapsed() < FETCH_PATIENCE => false,
            AnswerState::Waiting => {
                self.want_again(asked, Duration::ZERO);
                true
            }
            AnswerState::Disconnected => {
                // The manager let go of it: it is retiring this worker, or something went wrong there. Ask again.
                self.want_again(asked, RETRY);
                true
            }
            AnswerState::Failed(error) => {
                self.fetch = Fetch::Idle;
                self.fetched(Fetched::Failed(error.into()));
                true
            }
            AnswerState::Answered { header, payload } => {
                self.suspect(&header);
                if header.correlation == correlation {
                    self.fetch_answered(asked, &header, &payload);
                } else {
                    // Not the answer to what was asked: as if it had not come.
                    self.want_again(asked, Duration::ZERO);
                }
                true
            }
        }
    }

    fn want_again(&mut self, asked: Instant, pause: Duration) {
        if !matches!(self.stage, Stage::Open) {
            self.fetch = Fetch::Idle;
            return self.fetched(Fetched::Failed(CallError::Closed));
        }
        self.fetch = Fetch::Wanted {
            asked,
            not_before: Instant::now() + pause,
        };
    }

    /// Counts a wake-up as lost when the answer was sent clearly before the wait ran out.
    fn suspect(&mut self, header: &ResponseHeader) {
        let lost_after = u64::try_from(LOST_AFTER.as_nanos()).unwrap_or(u64::MAX);
        if let Some(timed_out) = self.timed_out_ns.take()
            && timed_out.saturating_sub(header.sent_ns) > lost_after
        {
            self.shared.status.count_lost_wakeup();
        }
    }

    fn fetch_answered(&mut self, asked: Instant, header: &ResponseHeader, payload: &Bytes) {
        let Ok(checked) = header.check(self.shared.incarnation, payload.len()) else {
            return self.want_again(asked, RETRY);
        };
        self.take_control();
        let fetched = match checked.kind {
            AnswerKind::Reply => match self.incoming(checked, payload, Name::Keep) {
                Ok(incoming) => {
                    self.confirms = header.key;
                    Fetched::Reply(incoming)
                }
                // Not confirmed, so the manager sends it again.
                Err(_) => return self.want_again(asked, RETRY),
            },
            AnswerKind::Empty => Fetched::Empty,
            AnswerKind::Draining => Fetched::Draining,
            AnswerKind::Refused => {
                self.ends.gone_tx.send_replace(true);
                Fetched::Failed(refused(checked, payload))
            }
            _ => return self.want_again(asked, RETRY),
        };
        self.fetch = Fetch::Idle;
        self.record(Operation::Fetch, asked, header);
        self.fetched(fetched);
    }

    fn record(&self, operation: Operation, asked: Instant, header: &ResponseHeader) {
        let parked = Duration::from_nanos(header.parked_ns);
        self.shared
            .status
            .record_round_trip(operation, asked.elapsed().saturating_sub(parked));
    }

    fn incoming(
        &self,
        checked: Checked<AnswerKind>,
        payload: &Bytes,
        name: Name,
    ) -> std::io::Result<Incoming> {
        if checked.spilled {
            let file = self.shared.spill.open(payload, checked.len, name)?;
            Ok(Incoming::Spilled(file))
        } else {
            Ok(Incoming::Inline(payload.slice(..checked.len)))
        }
    }

    fn poll_reports(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.in_flight.len() {
            let result = match self.in_flight[index].pending.poll() {
                AnswerState::Waiting => {
                    index += 1;
                    continue;
                }
                AnswerState::Disconnected => Err(CallError::Abandoned),
                AnswerState::Failed(error) => Err(error.into()),
                AnswerState::Answered { header, payload } => {
                    let InFlight {
                        asked, correlation, ..
                    } = self.in_flight[index];
                    self.record(Operation::Report, asked, &header);
                    self.report_answered(correlation, &header, &payload)
                }
            };
            any = true;
            let answered = self.in_flight.swap_remove(index);
            self.take_control();
            if let Some(done) = self.calls.complete(answered.id) {
                // A caller that gave up does not want the answer.
                drop(done.send(result));
            }
        }
        any
    }

    fn report_answered(
        &self,
        correlation: u64,
        header: &ResponseHeader,
        payload: &Bytes,
    ) -> Result<Incoming, CallError> {
        let checked = header
            .check(self.shared.incarnation, payload.len())
            .map_err(|fault| CallError::Refused {
                reason: fault.to_string(),
            })?;
        match checked.kind {
            _ if header.correlation != correlation => Err(CallError::Abandoned),
            AnswerKind::Reply => self
                .incoming(checked, payload, Name::Remove)
                .map_err(CallError::Spill),
            AnswerKind::Refused => Err(refused(checked, payload)),
            _ => Err(CallError::Abandoned),
        }
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

    /// Sends what waits, reports before the fetch, and calls the manager once for all of it.
    fn send(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        while let Some(sent) = self.send_report(now) {
            any |= sent;
        }
        any |= self.send_fetch(now);
        if any {
            self.bell.call(&self.shared.status);
        }
        any
    }

    fn header(&mut self, kind: RequestKind) -> RequestHeader {
        self.correlation += 1;
        RequestHeader {
            correlation: self.correlation,
            confirms: self.confirms,
            ..RequestHeader::new(kind, self.shared.incarnation)
        }
    }

    /// `None` when there is nothing to send now; otherwise whether a frame went out.
    fn send_report(&mut self, now: Instant) -> Option<bool> {
        if self.in_flight.len() >= ACTIVE_REPORTS
            || self.hold_reports_until.is_some_and(|until| now < until)
        {
            return None;
        }
        let queued = self.queued.pop_front()?;
        let header = self.header(queued.kind);
        let Queued {
            id,
            asked,
            ref body,
            ..
        } = queued;
        let (payload, len, spilled) = body.frame();
        match self
            .transport
            .send(Operation::Report, header.with_data(len, spilled), payload)
        {
            Ok(pending) => {
                self.hold_reports_until = None;
                self.in_flight.push(InFlight {
                    id,
                    asked,
                    correlation: header.correlation,
                    pending,
                    _body: queued.body,
                });
                Some(true)
            }
            Err(SendFailure::Full | SendFailure::Disconnected) => {
                // Its deadline, or a hang-up, ends it if this does not get better.
                self.hold_reports_until = Some(now + RETRY);
                self.queued.push_front(queued);
                None
            }
            Err(SendFailure::Transport(error)) => {
                if let Some(done) = self.calls.complete(id) {
                    drop(done.send(Err(error.into())));
                }
                Some(false)
            }
        }
    }

    fn send_fetch(&mut self, now: Instant) -> bool {
        let Fetch::Wanted { asked, not_before } = self.fetch else {
            return false;
        };
        if now < not_before || !matches!(self.stage, Stage::Open) {
            return false;
        }
        let header = self.header(RequestKind::Fetch);
        match self.transport.send(Operation::Fetch, header, &[]) {
            Ok(pending) => {
                self.fetch = Fetch::Sent {
                    asked,
                    sent: now,
                    correlation: header.correlation,
                    pending,
                };
                true
            }
            Err(SendFailure::Full | SendFailure::Disconnected) => {
                self.want_again(asked, RETRY);
                false
            }
            Err(SendFailure::Transport(error)) => {
                self.fetch = Fetch::Idle;
                self.fetched(Fetched::Failed(error.into()));
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

    /// Closing waits for the calls, then says goodbye, then for the farewell.
    fn advance_close(&mut self) -> bool {
        let now = Instant::now();
        match &mut self.stage {
            Stage::Open | Stage::Over => false,
            Stage::Closing { until } => {
                if !self.calls.is_empty() && now < *until && !self.gone {
                    return false;
                }
                let until = (*until).max(now) + FAREWELL;
                self.say_goodbye(until);
                true
            }
            Stage::Leaving { until, pending } => {
                let answered = !matches!(pending.poll(), AnswerState::Waiting);
                if answered || now >= *until || self.gone {
                    self.stage = Stage::Over;
                    return true;
                }
                false
            }
        }
    }

    fn say_goodbye(&mut self, until: Instant) {
        self.fail_all(|| CallError::Closed);
        self.in_flight.clear();
        self.queued.clear();
        self.fetch = Fetch::Idle;
        let header = self.header(RequestKind::Bye);
        self.stage = match self.transport.send(Operation::Report, header, &[]) {
            Ok(pending) if !self.gone => {
                self.bell.call(&self.shared.status);
                Stage::Leaving { until, pending }
            }
            // Nobody hears it.
            _ => Stage::Over,
        };
    }

    fn notice_hang_up(&mut self) -> bool {
        if self.gone || self.bell.line() == Line::Open {
            return false;
        }
        self.gone = true;
        self.ends.gone_tx.send_replace(true);
        // What was answered before the end has been delivered by this turn's polls or is taken by these.
        self.poll_fetch();
        self.poll_reports();
        self.fail_all(|| CallError::Gone);
        self.in_flight.clear();
        self.queued.clear();
        true
    }

    /// Ends every call and the fetch.
    fn fail_all(&mut self, error: impl Fn() -> CallError) {
        for done in self.calls.fail_all() {
            drop(done.send(Err(error())));
        }
        if !matches!(self.fetch, Fetch::Idle) {
            self.fetch = Fetch::Idle;
            self.fetched(Fetched::Failed(error()));
        }
    }

    /// Nothing to do: spin, pause or block, as the strategy says.
    fn rest(&mut self, last_work: Instant) {
        let wanted = self.shared.status.poll_wanted();
        if wanted != self.poll_word {
            self.poll_word = wanted;
            self.poll = unpack(wanted).unwrap_or(UNTOLD);
            self.shared.status.note_poll(wanted);
        }
        let poll = self.poll;
        match poll.strategy {
            PollStrategy::Busy => self.spin(),
            PollStrategy::Adaptive if last_work.elapsed() < poll.spin => self.spin(),
            PollStrategy::Adaptive | PollStrategy::Event => self.block(),
            PollStrategy::Interval(pause) => {
                let pause = pause.min(self.bound());
                self.bell.listen(pause);
            }
        }
    }

    fn spin(&mut self) {
        let now = Instant::now();
        if now >= self.next_hang_up_check {
            self.next_hang_up_check = now + HANG_UP_CHECK;
            self.bell.listen(Duration::ZERO);
        }
        // Yielding costs nothing on an idle core and lets the runtime work on a crowded one.
        std::thread::yield_now();
    }

    fn block(&mut self) {
        let bound = self.bound();
        let (ends, fetch, in_flight, stage) =
            (&self.ends, &self.fetch, &self.in_flight, &self.stage);
        let calls = self.calls.len();
        let (status, poll_word) = (&self.shared.status, self.poll_word);
        let transport = &mut self.transport;
        let woken = self.bell.block(&self.shared.status, bound, || {
            !ends.commands_rx.is_empty()
                || (calls < MAX_CALLS && !ends.reports_rx.is_empty())
                || ends.abort.load(Ordering::SeqCst)
                || matches!(fetch, Fetch::Sent { pending, .. } if pending.is_ready())
                || in_flight.iter().any(|report| report.pending.is_ready())
                || matches!(stage, Stage::Leaving { pending, .. } if pending.is_ready())
                || transport.has_control()
                || status.poll_wanted() != poll_word
        });
        self.timed_out_ns = (woken == Woken::TimedOut).then(clock_ns);
    }

    /// Until when nothing can happen without a ring.
    fn bound(&self) -> Duration {
        let now = Instant::now();
        let mut bound = if self.in_flight.is_empty() {
            IDLE_BOUND
        } else {
            LAZY_BOUND
        };
        let stage = match &self.stage {
            Stage::Open | Stage::Over => None,
            Stage::Closing { until } | Stage::Leaving { until, .. } => Some(*until),
        };
        let fetch = match &self.fetch {
            Fetch::Idle => None,
            Fetch::Wanted { not_before, .. } => Some(*not_before),
            Fetch::Sent { sent, .. } => Some(*sent + FETCH_PATIENCE),
        };
        let held = self.hold_reports_until.filter(|_| !self.queued.is_empty());
        let times = [stage, fetch, held, self.calls.next_deadline()];
        for time in times.into_iter().flatten() {
            bound = bound.min(time.saturating_duration_since(now));
        }
        bound
    }
}

fn refused(checked: Checked<AnswerKind>, payload: &Bytes) -> CallError {
    CallError::Refused {
        reason: String::from_utf8_lossy(&payload[..checked.len]).into_owned(),
    }
}
