//! Serves one manager over a link: hello and inventory, then claims, commits and renewals, answered by their ids.
//!
//! A session is one future. It is fed by a link (a WebSocket or memory) and calls the core; it keeps no state that a
//! new session of the same manager would miss. Claims, commits and renewals have a lane each: they overlap, and
//! within a lane they keep their order, which for commits is the order of the spool. A session ends when the link
//! closes, the manager leaves, the coordinator stops, or a newer session of the same manager takes over; whatever the
//! reason, it leaves the manager's leases to the next inventory or to their term, except after a goodbye.
//!
//! ```text
//!            +--> claims  --> core.claim  --> Claimed   (after a short answer it waits for work --> Hint)
//!   frames --+--> commits --> core.commit --> Committed
//!            +--> renewals -> core.renew  --> Renewed
//!   directive --------------> directives  --> Hint
//!   readers ----------------> readings    --> Read    (answers go to whoever asked)
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{counter, gauge, histogram};

use super::core::{Coordinator, Post, Room, RoomKey, Shared, sorted};
use super::store::{Claim, HolderSession, StoreError, Unstarted};
use crate::comm::link::{
    self, Cause, ConnectError, Connector, CoordinatorEnd, FILL_BYTES, ManagerEnd,
};
use crate::protocol::Mode;
use crate::protocol::frame;
use crate::protocol::session::{Commit, Hint, ManagerStatus, ToCoordinator, ToManager};
use crate::telemetry::names;

use readings::Readings;

mod hello;
mod readings;
#[cfg(test)]
mod tests;

/// Requests of one kind that wait in their lane. A manager has one of each outstanding; a full lane holds up the
/// frames behind it, and the link then holds up the manager.
const LANE_CAPACITY: usize = 16;
/// Most tasks of one answer; the store's own limit of bytes is usually reached by large specs only.
const MAX_CLAIM: u32 = 4096;
/// Pause asked for after a passing fault of the store.
const BUSY_PAUSE_MS: u64 = 200;
/// Pause asked for after a fault that an operator has to look at.
const BROKEN_PAUSE_MS: u64 = 5_000;
/// How long a new link may stay without a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Whom a manager in the coordinator's own process belongs to.
const OWN_SUBJECT: &str = "the coordinator's own process";

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The manager said goodbye; whatever it still had was requeued.
    Goodbye,
    /// The link closed, or the manager broke the protocol. Its leases last until their term ends.
    LinkClosed,
    /// No hello came in time.
    NoHello,
    /// The manager was refused, in words.
    Refused,
    /// A newer session of the same manager took over.
    Replaced,
    /// The coordinator stops.
    Stopping,
}

impl SessionEnd {
    /// Label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::LinkClosed => "lost",
            Self::NoHello => "no_hello",
            Self::Refused => "refused",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
        }
    }
}

impl Coordinator {
    /// Serves one manager until the session ends. The front end has checked that the peer may be a manager.
    /// `subject` is whose token it showed.
    pub async fn serve_session(&self, end: CoordinatorEnd, subject: String) -> SessionEnd {
        self.serve_holder(end, false, subject).await
    }

    async fn serve_holder(
        &self,
        end: CoordinatorEnd,
        endless: bool,
        subject: String,
    ) -> SessionEnd {
        let shared = Arc::clone(&self.shared);
        let reason = tokio::select! {
            () = self.stopped() => SessionEnd::Stopping,
            reason = serve(shared, end, endless, subject) => reason,
        };
        tracing::debug!(?reason, "manager session ended");
        counter!(names::COORDINATOR_SESSIONS_ENDED, "reason" => reason.as_str()).increment(1);
        reason
    }

    /// Opens sessions over memory, with the same frames and the same leases as over a WebSocket.
    #[must_use]
    pub fn local_connector(&self) -> Arc<dyn Connector> {
        self.connector(false)
    }

    /// Opens sessions over memory for the manager that lives and dies with this coordinator, as in `run` and `up`: its
    /// leases are ended by no clock, so time in which the process stands still costs nothing.
    #[must_use]
    pub fn own_connector(&self) -> Arc<dyn Connector> {
        self.connector(true)
    }

    fn connector(&self, endless: bool) -> Arc<dyn Connector> {
        Arc::new(LocalConnector {
            coordinator: self.clone(),
            endless,
        })
    }
}

/// Opens sessions over memory.
#[derive(Debug)]
struct LocalConnector {
    coordinator: Coordinator,
    endless: bool,
}

#[async_trait]
impl Connector for LocalConnector {
    async fn connect(&self) -> Result<ManagerEnd, ConnectError> {
        let (manager, coordinator) = link::pair();
        let serving = self.coordinator.clone();
        let endless = self.endless;
        let subject = OWN_SUBJECT.to_owned();
        tokio::spawn(async move { serving.serve_holder(coordinator, endless, subject).await });
        Ok(manager)
    }
}

async fn serve(
    shared: Arc<Shared>,
    end: CoordinatorEnd,
    endless: bool,
    subject: String,
) -> SessionEnd {
    let hello = tokio::time::timeout(HELLO_TIMEOUT, end.frames_rx.recv_async()).await;
    let hello = match hello {
        Err(_) => return SessionEnd::NoHello,
        Ok(Err(_)) => return SessionEnd::LinkClosed,
        Ok(Ok(ToCoordinator::Hello(hello))) => hello,
        Ok(Ok(_)) => {
            hello::refuse(&end.frames_tx, "the first frame of a session is a hello").await;
            return SessionEnd::Refused;
        }
    };
    let room = shared.work.room(RoomKey {
        tags: sorted(hello.tags.clone()),
        capacity: hello.capacity,
    });
    match hello::welcome(&shared, hello, &end.frames_tx, endless, subject).await {
        Ok((post, session)) => {
            let session = Session {
                room,
                shared,
                post,
                fence: session,
                frames_tx: end.frames_tx,
                cause: end.cause,
                readings: Arc::default(),
            };
            session.run(end.frames_rx).await
        }
        Err(reason) => reason,
    }
}

/// An open session.
struct Session {
    shared: Arc<Shared>,
    post: Arc<Post>,
    /// What the store knows this session by.
    fence: HolderSession,
    frames_tx: flume::Sender<ToManager>,
    /// Why its link broke.
    cause: Cause,
    readings: Arc<Readings>,
    /// Where it waits for work.
    room: Arc<Room>,
}

/// Counts open sessions by living as long as one.
struct OpenSession;

impl OpenSession {
    fn begin() -> Self {
        gauge!(names::COORDINATOR_SESSIONS).increment(1.0);
        Self
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        gauge!(names::COORDINATOR_SESSIONS).decrement(1.0);
    }
}

/// A lane's result: it runs until something ends the session.
type Lane = Result<std::convert::Infallible, SessionEnd>;

impl Session {
    async fn run(self, frames_rx: flume::Receiver<ToCoordinator>) -> SessionEnd {
        let _open = OpenSession::begin();
        let (claims_tx, claims_rx) = flume::bounded(LANE_CAPACITY);
        let (commits_tx, commits_rx) = flume::bounded(LANE_CAPACITY);
        let (renewals_tx, renewals_rx) = flume::bounded(LANE_CAPACITY);
        let lanes = Lanes {
            claims_tx,
            commits_tx,
            renewals_tx,
            post: Arc::clone(&self.post),
            readings: Arc::clone(&self.readings),
        };
        let ended = tokio::select! {
            ended = read(frames_rx, lanes) => ended,
            ended = self.claim_lane(claims_rx) => ended,
            ended = self.commit_lane(commits_rx) => ended,
            ended = self.renewal_lane(renewals_rx) => ended,
            ended = self.directive_lane() => ended,
            ended = self.reading_lane() => ended,
            ended = self.inquiry_lane() => ended,
            ended = self.replaced() => ended,
        };
        let reason = match ended {
            Err(reason) => reason,
            Ok(never) => match never {},
        };
        self.tell_end(reason);
        if reason == SessionEnd::Goodbye
            && let Err(error) = self.shared.leave(self.fence).await
        {
            tracing::warn!(%error, manager = %self.post.holder, "the leases of a leaving manager stay until their term ends");
        }
        reason
    }

    /// Says why the session is over: to the manager where that still hears, and to operators.
    fn tell_end(&self, reason: SessionEnd) {
        let words = match reason {
            SessionEnd::Replaced => "another session of this manager took over".to_owned(),
            SessionEnd::LinkClosed => {
                let cause = self.cause.words().unwrap_or("the connection was closed");
                format!("its session was lost: {cause}")
            }
            _ => return,
        };
        tracing::warn!(manager = %self.post.holder, reason = words, "a manager's session is over");
        let over = ToManager::Over {
            reason: words.clone(),
        };
        // Whoever is gone or does not read needs no words.
        let _ = self.frames_tx.try_send(over);
        self.post.note_mishap(words);
    }

    async fn claim_lane(&self, claims_rx: flume::Receiver<(u64, u32)>) -> Lane {
        let mut next = None;
        loop {
            let (id, limit) = match next.take() {
                Some(claim) => claim,
                None => claims_rx.recv_async().await.map_err(closed)?,
            };
            let place = self.room.enter();
            let mut called = pin!(place.called());
            // Before the claim: what becomes ready after it calls this session.
            called.as_mut().enable();
            let tasks = match self.claim(limit.min(MAX_CLAIM)).await {
                Ok(tasks) => tasks,
                Err(error) => {
                    self.send(self.busy(id, &error)?).await?;
                    continue;
                }
            };
            let is_short = (tasks.len() as u64) < u64::from(limit);
            let mut parts = frame::parts(tasks, FILL_BYTES);
            let last = parts.pop().unwrap_or_default();
            for tasks in parts {
                self.send(ToManager::ClaimedPart { id, tasks }).await?;
            }
            self.send(ToManager::Claimed { id, tasks: last }).await?;
            if !is_short {
                continue;
            }
            let runs = self.runs();
            if !runs {
                // One that may have nothing takes no call from those who may.
                called.set(place.called());
            }
            // Told once: a manager that does not claim now has enough and comes by itself.
            tokio::select! {
                biased;
                claim = claims_rx.recv_async() => next = Some(claim.map_err(closed)?),
                () = called, if runs => self.send(ToManager::Hint(Hint::Work)).await?,
                () = self.resumed(), if !runs => self.send(ToManager::Hint(Hint::Work)).await?,
            }
        }
    }

    /// Whether an operator lets it have tasks.
    fn runs(&self) -> bool {
        self.post.control.borrow().mode == Mode::Run
    }

    /// Resolves when an operator does.
    async fn resumed(&self) {
        let mut control = self.post.control.subscribe();
        // The post keeps its sender while this session holds it.
        let _ = control.wait_for(|state| state.mode == Mode::Run).await;
    }

    async fn claim(&self, limit: u32) -> Result<Vec<crate::protocol::WorkerTaskResp>, StoreError> {
        if limit == 0 || !self.runs() {
            return Ok(Vec::new());
        }
        let claim = Claim {
            session: self.fence,
            limit,
            unstarted: Unstarted::Keep,
        };
        let claimed = self.shared.claim(claim).await?;
        let queue_wait = histogram!(names::TASK_QUEUE_WAIT);
        let hand_out = |claimed: super::store::ClaimedTask| {
            queue_wait.record(claimed.queued.as_secs_f64());
            claimed.task
        };
        Ok(claimed.into_iter().map(hand_out).collect())
    }

    async fn commit_lane(&self, commits_rx: flume::Receiver<CommitItem>) -> Lane {
        loop {
            let (id, commits) = match commits_rx.recv_async().await.map_err(closed)? {
                CommitItem::Reports { id, commits } => (id, commits),
                CommitItem::Goodbye => return Err(SessionEnd::Goodbye),
            };
            let committed = self.shared.commit(self.fence.holder, commits).await;
            self.shared.committed(committed.as_ref().map(|_| ()));
            let answer = match committed {
                Ok(verdicts) => ToManager::Committed { id, verdicts },
                Err(error) => self.busy(id, &error)?,
            };
            self.send(answer).await?;
        }
    }

    async fn renewal_lane(&self, renewals_rx: flume::Receiver<(u64, ManagerStatus)>) -> Lane {
        loop {
            let (id, status) = renewals_rx.recv_async().await.map_err(closed)?;
            let answer = match self.renew(id, status).await {
                Ok(renewed) => renewed,
                Err(error) => self.busy(id, &error)?,
            };
            self.send(answer).await?;
        }
    }

    async fn renew(&self, id: u64, status: ManagerStatus) -> Result<ToManager, StoreError> {
        let suspects = self.post.take_lost();
        let renewed = self
            .shared
            .store
            .renew(self.fence, Some(status), suspects.clone());
        let lost = match renewed.await {
            Ok(lost) => lost,
            Err(error) => {
                self.post.give_back_lost(suspects);
                return Err(error);
            }
        };
        // What was lost is told whatever becomes of this: its holder may be executing it beside somebody else.
        if let Err(error) = self.shared.refresh(&self.post).await {
            tracing::warn!(%error, manager = %self.post.holder, "cancel orders cannot be read; the next renewal brings them");
        }
        Ok(ToManager::Renewed {
            id,
            lost,
            directive: self.post.control.borrow().clone(),
        })
    }

    /// Pushes what is wanted of the manager. It waits for room in the link: what it says is a level, so states that came
    /// up meanwhile are told once.
    async fn directive_lane(&self) -> Lane {
        let mut control = self.post.control.subscribe();
        // The welcome carried the state of its time; a change in between is told by this first look.
        control.mark_changed();
        loop {
            // The post keeps its sender while this session holds it.
            let _ = control.changed().await;
            let directive = control.borrow_and_update().clone();
            self.send(ToManager::Hint(Hint::Directive(directive)))
                .await?;
        }
    }

    /// Passes on what readers want of running tasks. A manager whose link is full holds up these alone.
    async fn reading_lane(&self) -> Lane {
        loop {
            // The post keeps a sender while this session holds it.
            let reading = self.post.readings_rx.recv_async().await.map_err(closed)?;
            if let Some(frame) = self.readings.begin(reading) {
                self.send(frame).await?;
            }
        }
    }

    /// Passes on the question whether the manager is there.
    async fn inquiry_lane(&self) -> Lane {
        let mut inquired = self.post.inquired.subscribe();
        loop {
            // The post keeps its sender while this session holds it.
            let changed = inquired.changed().await;
            changed.map_err(|_| SessionEnd::LinkClosed)?;
            let id = *inquired.borrow_and_update();
            self.send(ToManager::Inquiry { id }).await?;
        }
    }

    /// Resolves when a newer session exists.
    async fn replaced(&self) -> Lane {
        let own = self.fence.number;
        let mut newest = self.post.session.subscribe();
        // The post keeps its sender while this session holds it.
        let _ = newest.wait_for(|number| *number != own).await;
        Err(SessionEnd::Replaced)
    }

    async fn send(&self, frame: ToManager) -> Result<(), SessionEnd> {
        let sent = self.frames_tx.send_async(frame).await;
        sent.map_err(|_| SessionEnd::LinkClosed)
    }

    /// The answer to a request that the store failed, or the end of the session where no answer makes sense.
    fn busy(&self, id: u64, error: &StoreError) -> Result<ToManager, SessionEnd> {
        let after_ms = match error {
            StoreError::Replaced => return Err(SessionEnd::Replaced),
            StoreError::Closed => return Err(SessionEnd::Stopping),
            error if error.is_retryable() => BUSY_PAUSE_MS,
            error => {
                tracing::error!(%error, manager = %self.post.holder, "a manager's request failed in the store");
                BROKEN_PAUSE_MS
            }
        };
        Ok(ToManager::Busy { id, after_ms })
    }
}

/// What waits in the lane of commits.
enum CommitItem {
    Reports {
        id: u64,
        commits: Vec<Commit>,
    },
    /// The last: reports that were sent before the goodbye are stored before it is heard.
    Goodbye,
}

/// The reader's ends of the lanes; dropping them ends the lanes.
struct Lanes {
    claims_tx: flume::Sender<(u64, u32)>,
    commits_tx: flume::Sender<CommitItem>,
    renewals_tx: flume::Sender<(u64, ManagerStatus)>,
    /// Takes answers that need no lane, and so do the readings.
    post: Arc<Post>,
    readings: Arc<Readings>,
}

impl Lanes {
    /// Puts a frame into its lane; waits while that is full.
    async fn put(&self, frame: ToCoordinator) -> Result<(), SessionEnd> {
        let open = match frame {
            ToCoordinator::Claim { id, limit } => {
                self.claims_tx.send_async((id, limit)).await.is_ok()
            }
            ToCoordinator::Commit { id, commits } => {
                let item = CommitItem::Reports { id, commits };
                self.commits_tx.send_async(item).await.is_ok()
            }
            ToCoordinator::Renew { id, status } => {
                self.renewals_tx.send_async((id, status)).await.is_ok()
            }
            ToCoordinator::Goodbye => self
                .commits_tx
                .send_async(CommitItem::Goodbye)
                .await
                .is_ok(),
            ToCoordinator::Tuned(report) => {
                self.post.tuned.send_replace(Some(report));
                true
            }
            ToCoordinator::Present { id } => {
                self.post.present.send_modify(|last| *last = id.max(*last));
                true
            }
            ToCoordinator::Output { id, answer } => {
                self.readings.end(id, answer);
                true
            }
            ToCoordinator::Hello(_) => {
                tracing::warn!("a manager said hello twice in one session; closing it");
                false
            }
        };
        if open {
            Ok(())
        } else {
            Err(SessionEnd::LinkClosed)
        }
    }
}

async fn read(frames_rx: flume::Receiver<ToCoordinator>, lanes: Lanes) -> Lane {
    loop {
        let frame = frames_rx.recv_async().await.map_err(closed)?;
        let last = matches!(frame, ToCoordinator::Goodbye);
        lanes.put(frame).await?;
        if last {
            // The lane of commits ends the session; what a manager sends after its goodbye is not heard.
            std::future::pending::<()>().await;
        }
    }
}

fn closed(_: flume::RecvError) -> SessionEnd {
    SessionEnd::LinkClosed
}
