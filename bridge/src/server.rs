//! The manager's end of the bridge.
//!
//! [`Server`] owns the poller thread, [`ServerHandle`] gives it commands, [`ServerEvents`] is what it has to say. Opening
//! returns when the ports are open, or the typed error that prevented it. Closing answers everything, drops ports before
//! the node, and removes the transport root. Dropping a server aborts it and joins its thread, which is bounded because
//! the poller never waits for anybody.

mod bell;
mod command;
mod events;
mod handle;
mod outbox;
mod peer;
mod poller;
mod serve;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use crate::board::Board;
use crate::config::{PollConfig, SharedPoll};
use crate::cost::Cost;
use crate::error::{OpenError, TransportError};
use crate::gate::SharedGate;
use crate::janitor::Janitor;
use crate::root::TransportRoot;
use crate::spill::SpillDir;
use crate::stats::Counters;
use crate::transport::ServerTransport;
use crate::transport::ipc::IpcServer;
use crate::waker::Waker;

pub use crate::handover::{Gate, Withdrawal};
pub use command::{InheritedFds, Invitation, PreparedReply, Wake};
pub use events::{ReplyToken, Ring, ServerEvent, ServerEvents};
pub use handle::ServerHandle;

use command::Envelope;
use events::Unread;

/// Commands in the queue: a burst of one command per worker, several times over.
const COMMANDS: usize = 1024;
/// Reports in the event channel before report ports are left undrained.
const REPORTS: usize = 1024;
/// Joined, left and closed events in the channel: three per incarnation, restarts included.
const LIFECYCLE: usize = 2048;
/// Reply tokens in the owner's hands: 4 per incarnation.
const TOKENS: usize = 2048;
/// How much longer than its deadline a close is waited for.
const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// Options of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Uuid of the manager; part of every service name.
    pub manager: Uuid,
    /// Where the transport lives.
    pub root: TransportRoot,
    /// How the poller waits at first, and the workers' pollers unless they are tuned.
    pub poll: PollConfig,
    /// Sum of costs that may be in workers' hands.
    pub capacity: Cost,
    /// Prepared replies and unread hand-over notices together; `prepare` waits beyond it. At least 1.
    pub notices: usize,
}

/// What handles, events and the poller share. No lock: atomics, a semaphore and a watch.
#[derive(Debug)]
struct Shared {
    config: ServerConfig,
    poll: SharedPoll,
    counters: Counters,
    waker: Waker,
    board_fd: std::os::fd::OwnedFd,
    gate: SharedGate,
    spill: SpillDir,
    /// Room for hand-over notices: taken by `prepare`, given back when the notice is received or the reply withdrawn.
    notices: Semaphore,
    unread: Unread,
    next_incarnation: AtomicU64,
    abort: AtomicBool,
    /// `true` when the poller has ended, also by a panic.
    closed: watch::Receiver<bool>,
    runtime: tokio::runtime::Handle,
}

/// Says that the poller has ended, whatever way it ends.
struct ClosedGuard {
    shared: Arc<Shared>,
    closed_tx: watch::Sender<bool>,
}

impl Drop for ClosedGuard {
    fn drop(&mut self) {
        self.shared.notices.close();
        self.closed_tx.send_replace(true);
    }
}

/// The owner of the poller thread.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    commands_tx: flume::Sender<Envelope>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Claims the root, opens the node, and starts the poller.
    ///
    /// # Errors
    /// When the root is in use or not private, or a port cannot be opened.
    pub async fn open(
        config: ServerConfig,
    ) -> Result<(Self, ServerHandle, ServerEvents), OpenError> {
        Self::open_with(config, IpcServer::open).await
    }

    /// As [`Server::open`], over any transport; `build` runs on the poller thread.
    pub(crate) async fn open_with<T: ServerTransport + 'static>(
        config: ServerConfig,
        build: impl FnOnce(&TransportRoot) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<(Self, ServerHandle, ServerEvents), OpenError> {
        let system = |action| move |source| OpenError::System { action, source };
        let (board, board_fd) = Board::create().map_err(system("create the board"))?;
        let (closed_tx, closed) = watch::channel(false);
        let (commands_tx, commands_rx) = flume::bounded(COMMANDS);
        let (replies_tx, replies_rx) = flume::bounded(TOKENS);
        let notices = config.notices.clamp(1, Semaphore::MAX_PERMITS);
        let (events_tx, events_rx) = flume::bounded(notices + REPORTS + LIFECYCLE);
        let shared = Arc::new(Shared {
            poll: SharedPoll::new(config.poll),
            counters: Counters::default(),
            waker: Waker::new().map_err(system("create the waker"))?,
            board_fd,
            gate: SharedGate::new(board.clone()),
            spill: SpillDir::new(config.root.path()),
            notices: Semaphore::new(notices),
            unread: Unread::default(),
            next_incarnation: AtomicU64::new(first_incarnation()),
            abort: AtomicBool::new(false),
            closed,
            runtime: tokio::runtime::Handle::current(),
            config,
        });
        let (ready_tx, ready_rx) = oneshot::channel();
        let ends = poller::Ends {
            commands_rx,
            replies_rx,
            replies_tx,
            events_tx,
        };
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("mitosis-poller".to_owned())
            .spawn(move || {
                let _closed = ClosedGuard {
                    shared: on_thread.clone(),
                    closed_tx,
                };
                run_thread(on_thread, board, ends, build, ready_tx);
            })
            .map_err(system("start the poller thread"))?;
        let server = Self {
            shared: shared.clone(),
            commands_tx: commands_tx.clone(),
            thread: Some(thread),
        };
        ready_rx.await.map_err(|_| OpenError::PollerDied)??;
        let handle = ServerHandle::new(shared.clone(), commands_tx);
        Ok((server, handle, ServerEvents::new(shared, events_rx)))
    }

    /// Ends gracefully: accepts nothing more, answers parked fetches as draining, waits until every reply token is used
    /// or the deadline comes, then drops the ports and removes the root. Workers should have ended before.
    pub async fn close(mut self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let close = Envelope::new(command::Command::Close { until });
        if self.commands_tx.send_async(close).await.is_ok() {
            self.shared.waker.wake();
        }
        let mut closed = self.shared.closed.clone();
        let ended = closed.wait_for(|closed| *closed);
        if tokio::time::timeout(deadline + CLOSE_MARGIN, ended)
            .await
            .is_err()
        {
            tracing::error!("the poller did not end in time");
        }
        self.request_abort();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the poller panicked");
            }
        }
    }

    fn request_abort(&self) {
        self.shared.abort.store(true, Ordering::SeqCst);
        self.shared.waker.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.request_abort();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the poller panicked");
        }
    }
}

/// First incarnation of this life: the clock in its upper 44 bits, so that no life repeats one of an earlier life unless
/// the clock is set back or a million workers are started in a millisecond.
fn first_incarnation() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0) << 20 | 1
}

/// Everything that happens on the poller thread, in order: claim, open, run, drop ports, last cleaning, remove the root.
fn run_thread<T: ServerTransport>(
    shared: Arc<Shared>,
    board: Board,
    ends: poller::Ends,
    build: impl FnOnce(&TransportRoot) -> Result<T, TransportError>,
    ready_tx: oneshot::Sender<Result<(), OpenError>>,
) {
    crate::signals::block_all();
    let claim = match shared.config.root.claim() {
        Ok(claim) => claim,
        Err(error) => return report_failure(ready_tx, error.into()),
    };
    let opened = open_poller(&shared, board, ends, build);
    match opened {
        Ok((poller, janitor)) => {
            // The owner that gave up waiting has dropped the server, which aborts the poller.
            let _owner_waits = ready_tx.send(Ok(()));
            poller.run();
            janitor.join();
        }
        Err(error) => report_failure(ready_tx, error),
    }
    match claim.remove() {
        Ok(0) => {}
        Ok(left) => tracing::warn!(left, "shared memory of workers was left and is removed"),
        Err(error) => tracing::warn!(%error, "the transport root could not be removed"),
    }
}

fn report_failure(ready_tx: oneshot::Sender<Result<(), OpenError>>, error: OpenError) {
    // An owner that gave up waiting does not want the reason.
    let _owner_waits = ready_tx.send(Err(error));
}

fn open_poller<T: ServerTransport>(
    shared: &Arc<Shared>,
    board: Board,
    ends: poller::Ends,
    build: impl FnOnce(&TransportRoot) -> Result<T, TransportError>,
) -> Result<(poller::Poller<T>, Janitor), OpenError> {
    let system = |action| move |source| OpenError::System { action, source };
    let bell = bell::Bell::new(shared.waker.clone(), board).map_err(system("create an epoll"))?;
    let transport = build(&shared.config.root)?;
    let spawned = Janitor::spawn(&shared.config.root);
    let (janitor, handle) = spawned.map_err(system("start the janitor thread"))?;
    let poller = poller::Poller::new(shared.clone(), transport, bell, handle, ends);
    Ok((poller, janitor))
}

#[cfg(test)]
mod tests;
