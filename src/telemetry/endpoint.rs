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
    /// What others reach it by.
    address: String,
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
            address: reachable(bound),
            serving,
            upkeep: tokio::spawn(metrics::keep_up()),
        })
    }
}

impl MetricsPort {
    /// `host:port` by which others reach it: the bound address, or this machine's name where every address is bound.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn reachable(bound: SocketAddr) -> String {
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let uname = rustix::system::uname();
    format!("{}:{}", uname.nodename().to_string_lossy(), bound.port())
}

impl Drop for MetricsPort {
    fn drop(&mut self) {
        self.serving.abort();
        self.upkeep.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_told_as_it_is_and_all_addresses_by_the_machines_name() {
        assert_eq!(reachable("10.0.0.7:9400".parse().unwrap()), "10.0.0.7:9400");
        assert_eq!(reachable("[::1]:9400".parse().unwrap()), "[::1]:9400");
        let all = reachable("0.0.0.0:9400".parse().unwrap());
        assert!(
            all.ends_with(":9400") && !all.starts_with("0.0.0.0"),
            "{all}"
        );
    }
}
