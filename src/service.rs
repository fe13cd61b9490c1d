//! A coordinator that can be reached: its HTTP face on a port, and the endpoint file by which clients of the same user
//! find it.
//!
//! Used by every role that holds a coordinator (`coordinator`, `up`, `run`). It owns neither the coordinator nor the
//! decision to stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::coordinator::Coordinator;
use crate::coordinator::auth::Scope;
use crate::coordinator::http::ApiOptions;
use crate::endpoint::{Endpoint, PublishedEndpoint, StartedBy, local_url};
use crate::private_file::PrivateFileError;
use crate::telemetry::metrics;

/// Whom the token in an endpoint file is for, as logs show it.
const SUBJECT: &str = "endpoint file";

/// What to serve beside the API.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where the endpoint file is left.
    pub state_dir: PathBuf,
    /// The command that serves, for whoever finds the file of one that is gone.
    pub started_by: StartedBy,
    /// Where kept output of tasks may be read, if it lies on this machine.
    pub output_dir: Option<PathBuf>,
}

/// A port that is taken and not served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// A served coordinator. Dropping it stops serving without waiting for calls in flight.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    url: String,
    /// Dropped or used: the order to stop.
    stop_tx: Option<oneshot::Sender<()>>,
    serving: JoinHandle<io::Result<()>>,
}

/// Why a coordinator cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; name another address with --listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The endpoint file cannot be written.
    #[error("the endpoint file in {} cannot be written", state_dir.display())]
    Endpoint {
        /// Where.
        state_dir: PathBuf,
        /// Why.
        #[source]
        source: PrivateFileError,
    },
}

impl Service {
    /// Takes the port. Whoever connects from now on waits until it is served.
    ///
    /// # Errors
    /// When the address refuses.
    pub async fn listen(coordinator: &Coordinator, address: &str) -> Result<Port, ServiceError> {
        let (listener, address) = listen(address).await?;
        coordinator.served_at(&local_url(address));
        Ok(Port { listener, address })
    }

    /// Leaves the endpoint file, and serves from then on.
    ///
    /// # Errors
    /// When the directory refuses.
    pub async fn start(
        coordinator: &Coordinator,
        port: Port,
        options: ServiceOptions,
    ) -> Result<Self, ServiceError> {
        let Port { listener, address } = port;
        let token = coordinator.issue_token(Scope::Admin, SUBJECT);
        let endpoint =
            Endpoint::of_this_process(address, token, coordinator.instance(), options.started_by);
        let url = endpoint.url.clone();
        let published = publish(&options.state_dir, endpoint).await?;
        let api = ApiOptions {
            metrics: Some(Arc::new(metrics::render)),
            output_dir: options.output_dir,
        };
        let (stop_tx, stop_rx) = oneshot::channel();
        let serving = tokio::spawn(serve(
            coordinator.clone(),
            listener,
            api,
            published,
            stop_rx,
        ));
        Ok(Self {
            address,
            url,
            stop_tx: Some(stop_tx),
            serving,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for clients on this machine.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Resolves when serving has ended without having been asked to.
    ///
    /// # Errors
    /// Always; the error says why.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.serving).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("the HTTP service has ended"),
            Err(error) => io::Error::other(error),
        }
    }

    /// Answers what is in flight, removes the endpoint file, and stops.
    pub async fn stop(mut self) {
        // The other end is gone when serving has failed already; that was logged.
        let _ = self.stop_tx.take().map(|stop| stop.send(()));
        if self.serving.is_finished() {
            return;
        }
        if let Ok(Err(error)) = (&mut self.serving).await {
            tracing::warn!(%error, "the HTTP service ended badly");
        }
    }
}

async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let failed = |source| ServiceError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn publish(state_dir: &Path, endpoint: Endpoint) -> Result<PublishedEndpoint, ServiceError> {
    PublishedEndpoint::publish(state_dir.to_owned(), endpoint)
        .await
        .map_err(|source| ServiceError::Endpoint {
            state_dir: state_dir.to_owned(),
            source,
        })
}

async fn serve(
    coordinator: Coordinator,
    listener: TcpListener,
    api: ApiOptions,
    mut published: PublishedEndpoint,
    stop_rx: oneshot::Receiver<()>,
) -> io::Result<()> {
    let order = async {
        // A dropped sender is an order as well.
        let _ = stop_rx.await;
    };
    let served = coordinator.serve_with(listener, api, order);
    let issue = || coordinator.issue_token(Scope::Admin, SUBJECT);
    tokio::select! {
        served = served => served,
        () = published.keep_fresh(issue) => Ok(()),
        () = metrics::keep_up() => Ok(()),
    }
}
