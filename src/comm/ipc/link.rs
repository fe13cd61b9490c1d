//! What [`super::IpcWorkerComm`] needs of the bridge's client end, and nothing more.
//!
//! The bridge's own handle implements it; tests implement it with a manager that says what they want.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mitosis_bridge::client::{Client, ClientHandle, FetchAnswer};
use mitosis_bridge::error::CallError;
use tokio::sync::watch;

/// An open connection to the manager's poller.
pub trait ManagerLink: Send + Sync + fmt::Debug + 'static {
    /// Asks for a hand-over. Safe to drop and call again.
    fn fetch(&self) -> impl Future<Output = Result<FetchAnswer, CallError>> + Send;

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
    async fn fetch(&self) -> Result<FetchAnswer, CallError> {
        self.handle.fetch().await
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
