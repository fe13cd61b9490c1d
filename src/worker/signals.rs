//! Signals as a worker understands them.
//!
//! An independent worker follows INT, TERM and HUP like every other role. A managed one listens to TERM alone: a
//! terminal sends INT and HUP to the manager and all of its workers at once, and what then happens to tasks is the
//! manager's decision. Tasks are started with default dispositions, so none of this reaches them.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::shutdown::{ShutdownRequest, ShutdownSignals};

/// The stop signals of a worker.
#[derive(Debug)]
pub enum StopSignals {
    /// Of a managed worker.
    Managed {
        /// From the manager.
        terminate: Signal,
        /// What a first one grants the current task.
        deadline: Duration,
    },
    /// Of an independent worker.
    Independent(ShutdownSignals),
    /// Of a worker that is driven by something else: one request per message, none once the sender is dropped.
    Channel(mpsc::Receiver<ShutdownRequest>),
}

impl StopSignals {
    /// Installs the handlers of a managed worker; must be called inside a runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn managed(deadline: Duration) -> io::Result<Self> {
        // A handler stays installed when its stream is dropped: from here on these two do nothing.
        for ignored in [SignalKind::interrupt(), SignalKind::hangup()] {
            drop(signal(ignored)?);
        }
        Ok(Self::Managed {
            terminate: signal(SignalKind::terminate())?,
            deadline,
        })
    }

    /// Installs the handlers of an independent worker; must be called inside a runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn independent(deadline: Duration) -> io::Result<Self> {
        ShutdownSignals::install(deadline).map(Self::Independent)
    }

    /// The next request. Safe to drop and call again.
    pub async fn next(&mut self) -> ShutdownRequest {
        match self {
            Self::Managed {
                terminate,
                deadline,
            } => match terminate.recv().await {
                Some(()) => ShutdownRequest::Graceful {
                    deadline: *deadline,
                },
                None => std::future::pending().await,
            },
            Self::Independent(signals) => signals.next().await,
            Self::Channel(requests_rx) => match requests_rx.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            },
        }
    }
}
