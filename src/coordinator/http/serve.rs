//! Serves the router on a listener until it is told to stop, and stops within a bound.
//!
//! Order: no new connections, long polls answer with what they have, sessions are closed, then requests in flight end
//! or are left behind after [`DRAIN`].

use std::future::Future;
use std::io;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connections::{self, Bounds};
use super::state::{ApiOptions, ApiState};
use crate::coordinator::Coordinator;
use crate::coordinator::auth::{Authority, Scope, TOKEN_TTL};

/// How long requests in flight may take after the order to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Serves the HTTP API on `listener` until `shutdown` resolves or the coordinator is closed.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.serve_with(listener, ApiOptions::default(), shutdown)
            .await
    }

    /// [`Coordinator::serve`] with metrics and kept output.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve_with(
        &self,
        listener: TcpListener,
        options: ApiOptions,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (stop_tx, mut stop_rx) = watch::channel(false);
        let state = ApiState::new(self.clone(), options, stop_rx.clone());
        let coordinator = self.clone();
        let order = async move {
            tokio::select! {
                () = shutdown => {}
                () = coordinator.stopped() => {}
            }
            stop_tx.send_replace(true);
        };
        let router = super::router(state.clone());
        let serving = connections::serve(listener, router, Bounds::default(), order);
        let overdue = async {
            // A closed channel comes after the order.
            let _ = stop_rx.wait_for(|stop| *stop).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served?,
            () = overdue => tracing::warn!("requests still in flight are left behind"),
        }
        // Upgraded connections are not the server's any more.
        if tokio::time::timeout(DRAIN, state.sessions_closed())
            .await
            .is_err()
        {
            tracing::warn!("manager sessions did not close in time");
        }
        Ok(())
    }

    /// The authority over this installation's tokens.
    #[must_use]
    pub fn authority(&self) -> Authority {
        Authority::new(self.signing_seed(), self.instance())
    }

    /// Issues a token that lasts seven days.
    #[must_use]
    pub fn issue_token(&self, scope: Scope, subject: &str) -> SecretString {
        self.authority().issue(scope, subject, TOKEN_TTL)
    }
}
