//! What [`super::IpcWorkerComm`] needs of the bridge's client end, and nothing more.
//!
//! The bridge's own handle implements it; tests implement it with a manager that says what they want.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mitosis_bridge::client::{Client, ClientHandle, FetchAnswer};
use mitosis_bridge::error::CallError;
use mitosis_bridge::{Dispatch, FetchWish, Word};
use tokio::sync::watch;

use crate::comm::Claim;

/// An open connection to the manager's poller.
pub trait ManagerLink: Send + Sync + fmt::Debug + 'static {
    /// Asks for hand-overs. Safe to drop and call again.
    fn fetch(&self, wish: FetchWish)
    -> impl Future<Output = Result<FetchAnswer, CallError>> + Send;

    /// The right to begin what came.
    fn claim(&self, reply: &Dispatch) -> Arc<dyn Claim>;

    /// Delivers a report and waits for its answer.
    fn report(
        &self,
        payload: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send;

    /// The newest control snapshot; empty before the first.
    fn control(&self) -> watch::Receiver<Bytes>;

    /// Whether the manager is gone.
    fn gone(&self) -> watch::Receiver<bool>;

    /// Notes that the executor is alive.
    fn stamp(&self);

    /// Says goodbye and gives everything back; a second call does nothing.
    fn close(&self, deadline: Duration) -> impl Future<Output = ()> + Send;
}

/// The state word of a dispatch in shared memory, which the manager may change as well.
#[derive(Debug)]
struct WordClaim {
    handle: ClientHandle,
    key: u64,
    word: Word,
}

impl Claim for WordClaim {
    fn take(&self) -> bool {
        self.handle.status().begin(self.word, self.key)
    }

    fn clear(&self) {
        self.handle.status().clear(self.word, self.key);
    }
}

/// The bridge's client end.
#[derive(Debug)]
pub struct BridgeLink {
    handle: ClientHandle,
    /// Taken by the close; its drop aborts the poller instead.
    client: Mutex<Option<Client>>,
}

impl BridgeLink {
    /// Takes over an open client.
    #[must_use]
    pub fn new(client: Client, handle: ClientHandle) -> Self {
        Self {
            handle,
            client: Mutex::new(Some(client)),
        }
    }
}

impl ManagerLink for BridgeLink {
    async fn fetch(&self, wish: FetchWish) -> Result<FetchAnswer, CallError> {
        self.handle.fetch(wish).await
    }

    fn claim(&self, reply: &Dispatch) -> Arc<dyn Claim> {
        Arc::new(WordClaim {
            handle: self.handle.clone(),
            key: reply.key,
            word: reply.word,
        })
    }

    async fn report(&self, payload: Bytes, deadline: Duration) -> Result<Bytes, CallError> {
        self.handle.report(payload, deadline).await
    }

    fn control(&self) -> watch::Receiver<Bytes> {
        self.handle.control()
    }

    fn gone(&self) -> watch::Receiver<bool> {
        self.handle.gone()
    }

    fn stamp(&self) {
        self.handle.status().executor_progress();
    }

    async fn close(&self, deadline: Duration) {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(client) = client {
            client.close(deadline).await;
        }
    }
}
