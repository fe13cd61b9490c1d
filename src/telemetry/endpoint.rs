//! A port that serves `/metrics` and nothing else, for roles that have no HTTP interface of their own.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::metrics;

/// An open port; closed when dropped.
#[derive(Debug)]
pub struct MetricsPort {
    serving: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

impl MetricsPort {
    /// Listens, and folds histograms as long as it does. Whoever calls has called [`metrics::install`].
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        tracing::info!(url = %format!("http://{bound}/metrics"), "metrics are served");
        let text = || async {
            (
                [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
                metrics::rendered().await,
            )
        };
        let router = Router::new().route("/metrics", get(text));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "metrics are not served any more");
            }
        });
        Ok(Self {
            serving,
            upkeep: tokio::spawn(metrics::keep_up()),
        })
    }
}

impl Drop for MetricsPort {
    fn drop(&mut self) {
        self.serving.abort();
        self.upkeep.abort();
    }
}
