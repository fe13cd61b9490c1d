//! The session with the coordinator: connects, greets with the inventory, carries one claim, one commit and one renewal
//! at a time, and reconnects for as long as the manager lives.
//!
//! Owned by the manager's loop, which polls [`Session::next`] and decides what to send. Holds no task and no report: when
//! a session ends, the loop is told and everything unanswered is its affair again.
//!
//! ```text
//!   Waiting --time--> Connecting --link--> (NeedHello) Greeting --Welcome--> Open
//!      ^                  | unreachable         | time, closed               | closed, a request unanswered too long
//!      +------------------+---------------------+----------------------------+
//!   Refused by the connector or the coordinator: over, for good
//! ```

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comm::link::{ConnectError, Connector, ManagerEnd};
use crate::error_chain::error_chain;
use crate::protocol::output::PartRequest;
use crate::protocol::session::{
    Commit, HeldLease, Hello, Hint, ManagerStatus, ToCoordinator, ToManager, Welcome,
};
use crate::protocol::tuning::TuningReport;
use crate::protocol::{ControlState, PROTOCOL_VERSION, Verdict, WorkerTaskResp};

use super::backoff::Backoff;
use super::identity::random_u64;

/// A request that is unanswered this long ends the session: the coordinator answers or is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Likewise for connecting and for the welcome.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A session that lasted this long, and longer than the pause before it by this factor, was a good one. A welcome alone
/// says nothing: one that is replaced or that breaks at its first request would come back at once, for ever.
const GOOD_SESSION: Duration = Duration::from_secs(1);
const GOOD_FACTOR: u32 = 4;

/// What happened.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// A link is open: call [`Session::greet`] with the inventory of this moment.
    NeedHello,
    /// The session is open. `asked` is when the greeting was sent.
    Up { welcome: Welcome, asked: Instant },
    /// The coordinator does not want this manager; there will be no session.
    Refused { message: String },
    /// Answer to a claim.
    Claimed {
        tasks: Vec<WorkerTaskResp>,
        asked: Instant,
    },
    /// Answer to a commit.
    Committed { verdicts: Vec<Verdict> },
    /// Answer to a renewal.
    Renewed {
        lost: Vec<HeldLease>,
        directive: ControlState,
        asked: Instant,
    },
    /// A claim is to be repeated later.
    ClaimBusy { not_before: Instant },
    /// A commit is to be repeated later.
    CommitBusy { not_before: Instant },
    /// A push.
    Hint(Hint),
    /// Somebody follows a task; to be answered over [`Session::link`].
    Read { id: u64, request: PartRequest },
    /// It is time to call [`Session::renew`].
    RenewalDue,
    /// The session, or the attempt at one, is over; the next attempt follows by itself.
    Down {
        kind: Loss,
        reason: String,
        was_open: bool,
    },
}

/// Kinds of an end of a session, or of an attempt at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// There was no connection.
    Unreachable,
    /// An answer did not come.
    Silent,
    /// The connection broke.
    Closed,
    /// The coordinator ended it in words.
    Ended,
}

impl Loss {
    /// Label value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Ended => "ended",
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<ManagerEnd, ConnectError>> + Send>>;

enum State {
    Waiting(Instant),
    Connecting(Connecting, Instant),
    Linked(ManagerEnd),
    Greeting(ManagerEnd, Instant),
    Open(Open),
    Over,
}

struct Open {
    link: ManagerEnd,
    since: Instant,
    /// Tasks of an answer whose last part is still to come.
    parts: Vec<WorkerTaskResp>,
    claim: Option<InFlight>,
    commit: Option<InFlight>,
    renewal: Option<InFlight>,
    renew_every: Duration,
    renew_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    id: u64,
    asked: Instant,
}

/// The session.
pub(crate) struct Session {
    connector: Arc<dyn Connector>,
    state: State,
    backoff: Backoff,
    /// The last pause, which a good session is longer than.
    paused: Duration,
    next_id: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("connector", &self.connector)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that connects as soon as it is polled.
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self {
            connector,
            state: State::Waiting(now()),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            paused: Duration::ZERO,
            next_id: 1,
        }
    }

    /// True between the welcome and the end of the session.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Waits for the next event. Safe to drop and call again: nothing that was received is lost.
    pub(crate) async fn next(&mut self) -> SessionEvent {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    let connector = Arc::clone(&self.connector);
                    let connecting = Box::pin(async move { connector.connect().await });
                    self.state = State::Connecting(connecting, now() + GREETING_LIMIT);
                }
                State::Connecting(connecting, limit) => {
                    let limit = tokio::time::Instant::from_std(*limit);
                    match tokio::time::timeout_at(limit, connecting).await {
                        Ok(Ok(link)) => {
                            self.state = State::Linked(link);
                            return SessionEvent::NeedHello;
                        }
                        Ok(Err(ConnectError::Refused { reason })) => return self.refused(reason),
                        Ok(Err(error)) => {
                            return self.down(Loss::Unreachable, &error_chain(&error));
                        }
                        Err(_) => {
                            let reason = "the coordinator did not answer the connection";
                            return self.down(Loss::Silent, reason);
                        }
                    }
                }
                // The loop greets before it polls again.
                State::Linked(_) => return SessionEvent::NeedHello,
                State::Greeting(link, asked) => {
                    let limit = tokio::time::Instant::from_std(*asked + GREETING_LIMIT);
                    let asked = *asked;
                    let Ok(frame) =
                        tokio::time::timeout_at(limit, link.frames_rx.recv_async()).await
                    else {
                        let reason = "the coordinator did not answer the greeting";
                        return self.down(Loss::Silent, reason);
                    };
                    let broken = closed_words(link);
                    match frame {
                        Ok(ToManager::Welcome(welcome)) => return self.up(welcome, asked),
                        Ok(ToManager::Refused { message }) => return self.refused(message),
                        // A hint may overtake the welcome; the welcome says more.
                        Ok(ToManager::Hint(_)) => {}
                        Ok(ToManager::Over { reason }) => return self.down(Loss::Ended, &reason),
                        Ok(_) => {
                            let reason = "the coordinator answered before it welcomed";
                            return self.down(Loss::Closed, reason);
                        }
                        Err(_) => return self.down(Loss::Closed, &broken()),
                    }
                }
                State::Open(open) => {
                    if let Some(event) = open.next().await {
                        return match event {
                            Ok(event) => event,
                            Err((kind, reason)) => self.down(kind, &reason),
                        };
                    }
                }
                State::Over => return pending().await,
            }
        }
    }

    /// Answers [`SessionEvent::NeedHello`].
    pub(crate) fn greet(&mut self, hello: Hello) {
        if let State::Linked(link) = std::mem::replace(&mut self.state, State::Over) {
            // A closed or clogged link shows when the welcome does not come.
            let _ = link.frames_tx.try_send(ToCoordinator::Hello(hello));
            self.state = State::Greeting(link, now());
        }
    }

    /// True when a claim can be sent.
    pub(crate) fn can_claim(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.claim.is_none())
    }

    /// True when a commit can be sent.
    pub(crate) fn can_commit(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.commit.is_none())
    }

    /// Sends a claim. A link that does not take it ends soon; then the loop hears so.
    pub(crate) fn claim(&mut self, limit: u32) {
        let id = self.id();
        if let State::Open(open) = &mut self.state {
            open.claim = open.send(id, ToCoordinator::Claim { id, limit });
        }
    }

    /// Sends a commit, likewise.
    pub(crate) fn commit(&mut self, commits: Vec<Commit>) {
        let id = self.id();
        if let State::Open(open) = &mut self.state {
            open.commit = open.send(id, ToCoordinator::Commit { id, commits });
        }
    }

    /// Answers [`SessionEvent::RenewalDue`].
    pub(crate) fn renew(&mut self, status: ManagerStatus) {
        let id = self.id();
        if let State::Open(open) = &mut self.state {
            open.renew_at = now() + open.renew_every;
            open.renewal = open.send(id, ToCoordinator::Renew { id, status });
        }
    }

    /// Tells what came of a tuning. Without a session nobody waits for it, and the next one asks again.
    pub(crate) fn tuned(&mut self, report: TuningReport) {
        if let State::Open(open) = &self.state {
            // A link that is full or closed ends soon, likewise.
            let _ = open.link.frames_tx.try_send(ToCoordinator::Tuned(report));
        }
    }

    /// The link, for answers that take their time and do not keep it open.
    pub(crate) fn link(&self) -> Option<flume::WeakSender<ToCoordinator>> {
        match &self.state {
            State::Open(open) => Some(open.link.frames_tx.downgrade()),
            _ => None,
        }
    }

    /// Leaves. The caller holds nothing any more. Gives the frame `limit` to go out.
    pub(crate) async fn leave(&mut self, limit: Duration) {
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Over) {
            let goodbye = open.link.frames_tx.send_async(ToCoordinator::Goodbye);
            // Whoever does not take the goodbye finds out by the closed link.
            let _ = tokio::time::timeout(limit, goodbye).await;
        }
    }

    /// Ends the session, or the attempt at one, from this side; another is opened. `None` when there is neither.
    pub(crate) fn break_off(&mut self, reason: &str) -> Option<SessionEvent> {
        match self.state {
            State::Waiting(_) | State::Over => None,
            _ => Some(self.down(Loss::Closed, reason)),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn up(&mut self, mut welcome: Welcome, asked: Instant) -> SessionEvent {
        if welcome.version != PROTOCOL_VERSION {
            return self.refused(format!(
                "it speaks version {} of the protocol and this manager version {PROTOCOL_VERSION}",
                welcome.version
            ));
        }
        if let State::Greeting(link, _) = std::mem::replace(&mut self.state, State::Over) {
            let renew_every = Duration::from_millis(welcome.renew_ms.max(1));
            welcome.url = link.url.clone().or(welcome.url);
            self.state = State::Open(Open {
                link,
                since: now(),
                parts: Vec::new(),
                claim: None,
                commit: None,
                renewal: None,
                renew_every,
                renew_at: asked + renew_every,
            });
        }
        SessionEvent::Up { welcome, asked }
    }

    fn refused(&mut self, message: String) -> SessionEvent {
        self.state = State::Over;
        SessionEvent::Refused { message }
    }

    fn down(&mut self, kind: Loss, reason: &str) -> SessionEvent {
        let lasted = match &self.state {
            State::Open(open) => Some(now().saturating_duration_since(open.since)),
            _ => None,
        };
        if lasted.is_some_and(|lasted| lasted >= GOOD_SESSION.max(self.paused * GOOD_FACTOR)) {
            self.backoff.reset();
        }
        self.paused = self.backoff.next(random_u64());
        self.state = State::Waiting(now() + self.paused);
        SessionEvent::Down {
            kind,
            reason: reason.to_owned(),
            was_open: lasted.is_some(),
        }
    }
}

impl Open {
    fn send(&self, id: u64, frame: ToCoordinator) -> Option<InFlight> {
        // The link holds far more than the three requests that are ever in flight. If it is full or closed all the
        // same, the answer does not come, and the session ends by its time limit or its end.
        let _ = self.link.frames_tx.try_send(frame);
        Some(InFlight { id, asked: now() })
    }

    fn oldest(&self) -> Option<Instant> {
        let requests = [self.claim, self.commit, self.renewal];
        requests
            .into_iter()
            .flatten()
            .map(|request| request.asked)
            .min()
    }

    /// The next event of an open session, `None` for a frame that means nothing, or why it is over.
    async fn next(&mut self) -> Option<Result<SessionEvent, (Loss, String)>> {
        let give_up = self.oldest().map(|asked| asked + ANSWER_LIMIT);
        let renew_at = self.renewal.is_none().then_some(self.renew_at);
        tokio::select! {
            biased;
            frame = self.link.frames_rx.recv_async() => match frame {
                Ok(ToManager::Over { reason }) => Some(Err((Loss::Ended, reason))),
                Ok(frame) => self.answer(frame).map(Ok),
                Err(_) => Some(Err((Loss::Closed, closed_words(&self.link)()))),
            },
            () = maybe_sleep_until(renew_at) => Some(Ok(SessionEvent::RenewalDue)),
            () = maybe_sleep_until(give_up) => {
                let reason = "the coordinator left a request unanswered";
                Some(Err((Loss::Silent, reason.to_owned())))
            }
        }
    }

    fn answer(&mut self, frame: ToManager) -> Option<SessionEvent> {
        match frame {
            ToManager::ClaimedPart { id, tasks } => {
                if self.claim.is_some_and(|claim| claim.id == id) {
                    self.parts.extend(tasks);
                }
                None
            }
            ToManager::Claimed { id, tasks: last } => {
                let asked = take(&mut self.claim, id)?;
                let mut tasks = std::mem::take(&mut self.parts);
                tasks.extend(last);
                Some(SessionEvent::Claimed { tasks, asked })
            }
            ToManager::Committed { id, verdicts } => {
                take(&mut self.commit, id)?;
                Some(SessionEvent::Committed { verdicts })
            }
            ToManager::Renewed {
                id,
                lost,
                directive,
            } => {
                let asked = take(&mut self.renewal, id)?;
                Some(SessionEvent::Renewed {
                    lost,
                    directive,
                    asked,
                })
            }
            ToManager::Busy { id, after_ms } => self.busy(id, after_ms),
            ToManager::Hint(hint) => Some(SessionEvent::Hint(hint)),
            ToManager::Read { id, request } => Some(SessionEvent::Read { id, request }),
            ToManager::Inquiry { id } => {
                // A link that is full or closed ends soon.
                let _ = self.link.frames_tx.try_send(ToCoordinator::Present { id });
                None
            }
            ToManager::Welcome(_) | ToManager::Refused { .. } | ToManager::Over { .. } => {
                tracing::warn!("the coordinator greets in the middle of a session; ignored");
                None
            }
        }
    }

    fn busy(&mut self, id: u64, after_ms: u64) -> Option<SessionEvent> {
        let not_before = now() + Duration::from_millis(after_ms);
        if take(&mut self.claim, id).is_some() {
            Some(SessionEvent::ClaimBusy { not_before })
        } else if take(&mut self.commit, id).is_some() {
            Some(SessionEvent::CommitBusy { not_before })
        } else {
            take(&mut self.renewal, id)?;
            self.renew_at = not_before;
            None
        }
    }
}

/// What a closed link is told as: the words of whoever carried it, if any.
fn closed_words(link: &ManagerEnd) -> impl FnOnce() -> String + use<> {
    let cause = link.cause.clone();
    move || {
        let words = cause.words().map(str::to_owned);
        words.unwrap_or_else(|| "the coordinator closed the connection".to_owned())
    }
}

/// Takes the request out when the answer is its own; an answer to anything else is ignored.
fn take(slot: &mut Option<InFlight>, id: u64) -> Option<Instant> {
    slot.take_if(|request| request.id == id)
        .map(|request| request.asked)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
}

async fn maybe_sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
