//! The worker's end of the bridge.
//!
//! [`Client`] owns the poller thread, [`ClientHandle`] makes calls and shows the newest control state. Opening reads the
//! invitation, opens what the manager created, and returns after the handshake. Closing waits for outstanding
//! acknowledgements, says goodbye, and drops ports before the node. Dropping a client aborts it and joins its thread.

mod bell;
mod handle;
mod inherited;
mod open;
mod poller;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::{OpenError, TransportError};
use crate::gate::SharedGate;
use crate::ids::{Incarnation, LocalId};
use crate::invitation::Letter;
use crate::root::TransportRoot;
use crate::spill::SpillDir;
use crate::status::StatusBlock;
use crate::transport::ipc::IpcClient;
use crate::transport::{Address, ClientTransport};
use crate::waker::Waker;

pub use handle::{ClientHandle, FetchAnswer};

use poller::{Command, Ends};

/// Commands in the queue: at most one fetch and one close are outstanding, with room for clones that race.
const COMMANDS: usize = 64;
/// Reports in the queue, beyond those in flight.
const REPORTS: usize = 64;
/// How much longer than its deadline a close is waited for.
const CLOSE_MARGIN: Duration = Duration::from_secs(5);

/// The descriptors that a managed worker inherits.
#[derive(Debug)]
pub struct ClientFds {
    /// Number 3.
    pub doorbell: OwnedFd,
    /// Number 4.
    pub status: OwnedFd,
    /// Number 5.
    pub board: OwnedFd,
}

/// Who this process was started as. The invitation must say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Uuid of the manager.
    pub manager: Uuid,
    /// Slot of this worker.
    pub local_id: LocalId,
}

/// What the invitation said.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The manager's bytes, as given to `invite`.
    pub setup: Bytes,
    /// Uuid of the manager.
    pub manager: Uuid,
    /// Slot of this worker.
    pub local_id: LocalId,
    /// This life.
    pub incarnation: Incarnation,
}

/// What handles and the poller share.
#[derive(Debug)]
struct Shared {
    incarnation: Incarnation,
    status: StatusBlock,
    gate: SharedGate,
    waker: Waker,
    spill: SpillDir,
}

/// The owner of the poller thread.
#[derive(Debug)]
pub struct Client {
    abort: Arc<AtomicBool>,
    waker: Waker,
    commands_tx: flume::Sender<Command>,
    closed: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Reads the invitation, opens the ports (retrying for up to 10 s) and shakes hands. Dropped before it is done, it ends
    /// within the tenth of a second.
    ///
    /// # Errors
    /// When the invitation is for somebody else or of another version, the manager refuses or is gone, or a port cannot
    /// be opened.
    pub async fn open(
        fds: ClientFds,
        expected: Expected,
    ) -> Result<(Self, ClientHandle, Setup), OpenError> {
        Self::open_with(fds, expected, |letter, until, pause| {
            let root = TransportRoot::invited(letter.root.clone());
            let address = Address {
                manager: letter.manager,
                local_id: letter.local_id,
                incarnation: letter.incarnation,
            };
            IpcClient::open(&root, address, until, pause)
        })
        .await
    }

    /// As [`Client::open`], over any transport; `build` runs on the poller thread.
    pub(crate) async fn open_with<C: ClientTransport + 'static>(
        fds: ClientFds,
        expected: Expected,
        build: impl FnOnce(&Letter, Instant, &mut dyn FnMut() -> bool) -> Result<C, TransportError>
        + Send
        + 'static,
    ) -> Result<(Self, ClientHandle, Setup), OpenError> {
        let system = |action| move |source| OpenError::System { action, source };
        let waker = Waker::new().map_err(system("create the waker"))?;
        let abort = Arc::new(AtomicBool::new(false));
        let (closed_tx, closed) = watch::channel(false);
        let (control_tx, control) = watch::channel(Bytes::new());
        let (gone_tx, gone) = watch::channel(false);
        let (commands_tx, commands_rx) = flume::bounded(COMMANDS);
        let (reports_tx, reports_rx) = flume::bounded(REPORTS);
        let (answers_tx, answers_rx) = flume::bounded(1);
        let (ready_tx, ready_rx) = oneshot::channel();
        let ends = Ends {
            commands_rx,
            reports_rx,
            answers_tx,
            control_tx,
            gone_tx,
            abort: abort.clone(),
        };
        let thread_waker = waker.clone();
        let thread = std::thread::Builder::new()
            .name("mitosis-poller".to_owned())
            .spawn(move || {
                let _closed = ClosedGuard(closed_tx);
                open::run_thread(fds, expected, thread_waker, ends, build, ready_tx);
            })
            .map_err(system("start the poller thread"))?;
        let client = Self {
            abort,
            waker,
            commands_tx: commands_tx.clone(),
            closed: closed.clone(),
            thread: Some(thread),
        };
        let (shared, setup) = ready_rx.await.map_err(|_| OpenError::PollerDied)??;
        let handle = ClientHandle::new(handle::Parts {
            shared,
            commands_tx,
            reports_tx,
            answers_rx,
            control,
            gone,
            closed,
        });
        Ok((client, handle, setup))
    }

    /// Ends gracefully: waits for outstanding acknowledgements until the deadline, says goodbye, drops the ports.
    pub async fn close(mut self, deadline: Duration) {
        let until = Instant::now() + deadline;
        if self
            .commands_tx
            .send_async(Command::Close { until })
            .await
            .is_ok()
        {
            self.waker.wake();
        }
        let mut closed = self.closed.clone();
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
        self.abort.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.request_abort();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the poller panicked");
        }
    }
}

/// Says that the poller has ended, whatever way it ends.
struct ClosedGuard(watch::Sender<bool>);

impl Drop for ClosedGuard {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}
