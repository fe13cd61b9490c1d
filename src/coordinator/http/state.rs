//! What handlers share: the coordinator, the authority over tokens, and the order to stop.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::coordinator::Coordinator;
use crate::coordinator::auth::Authority;

/// Renders the metrics of this process in the text format of Prometheus.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the owner of a server decides about it.
#[derive(Clone, Default)]
pub struct ApiOptions {
    /// What `/metrics` shows; without it the path says that there is nothing.
    pub metrics: Option<MetricsText>,
    /// The only directory below which kept output may be read. Without it, logs are answered from tails.
    pub output_dir: Option<PathBuf>,
}

impl fmt::Debug for ApiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiOptions")
            .field("metrics", &self.metrics.is_some())
            .field("output_dir", &self.output_dir)
            .finish()
    }
}

/// Shared by all handlers; a clone is cheap.
#[derive(Debug, Clone)]
pub(in crate::coordinator) struct ApiState {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    coordinator: Coordinator,
    authority: Authority,
    options: ApiOptions,
    /// True: the server stops. Filled by [`super::serve`].
    stop: watch::Receiver<bool>,
    /// Each open WebSocket holds a receiver, so that the server can wait until the last is closed.
    sessions: watch::Sender<()>,
}

impl ApiState {
    pub(super) fn new(
        coordinator: Coordinator,
        options: ApiOptions,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let authority = coordinator.authority();
        let shared = Shared {
            coordinator,
            authority,
            options,
            stop,
            sessions: watch::Sender::new(()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.shared.coordinator
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    pub(super) fn options(&self) -> &ApiOptions {
        &self.shared.options
    }

    /// Resolves when the server stops.
    pub(super) async fn stopped(&self) {
        let mut stop = self.shared.stop.clone();
        // A closed channel means that the server is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// The future's result, or `None` when the server stops first: long polls end early.
    pub(super) async fn unless_stopped<F: Future>(&self, poll: F) -> Option<F::Output> {
        tokio::select! {
            result = poll => Some(result),
            () = self.stopped() => None,
        }
    }

    /// Held by an open WebSocket.
    pub(super) fn session_guard(&self) -> watch::Receiver<()> {
        self.shared.sessions.subscribe()
    }

    /// Resolves when no WebSocket is open.
    pub(super) async fn sessions_closed(&self) {
        self.shared.sessions.closed().await;
    }
}
