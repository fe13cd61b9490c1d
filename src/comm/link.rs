//! A session link between a manager and its coordinator: two bounded channels of frames.
//!
//! [`pair`] joins the two ends in memory (`run` and `up`: one process); the WebSocket adapters fill the same channels
//! from a socket. Either end sees the other's departure as a closed channel. The link owns no protocol state.
//!
//! | channel | capacity | when full | when closed |
//! |---|---|---|---|
//! | to coordinator | [`CAPACITY`] | the manager waits: reports stay in its spool | the manager reconnects |
//! | to manager | [`CAPACITY`] | the session waits for answers and drops hints | the session ends |

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use crate::protocol::session::{ToCoordinator, ToManager};

/// Frames in flight per direction. A manager has at most one claim, one commit and one renewal outstanding, so this
/// is slack for hints and for the readers of output, who leave most of it free.
pub const CAPACITY: usize = 64;

/// Longest encoded frame that a WebSocket carries. Whoever fills a frame with tasks or reports stays below it.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Most bytes of tasks or reports that are put into one frame. One of them is far smaller than the other half, which is
/// for it and the envelope.
pub const FILL_BYTES: usize = MAX_FRAME_BYTES / 2;

/// Why a link broke, as whoever carries its frames knows it. Said before the channels close.
#[derive(Debug, Clone, Default)]
pub struct Cause(Arc<OnceLock<String>>);

impl Cause {
    /// Says it; the first word counts.
    pub fn say(&self, words: impl Into<String>) {
        let _ = self.0.set(words.into());
    }

    /// What was said.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The manager's end.
#[derive(Debug)]
pub struct ManagerEnd {
    /// Frames to the coordinator.
    pub frames_tx: flume::Sender<ToCoordinator>,
    /// Frames from the coordinator; closed when the session is over.
    pub frames_rx: flume::Receiver<ToManager>,
    /// The coordinator's URL as this end reached it; `None` in memory, where the welcome says it.
    pub url: Option<String>,
    /// Why it broke.
    pub cause: Cause,
}

/// The coordinator's end.
#[derive(Debug)]
pub struct CoordinatorEnd {
    /// Frames to the manager.
    pub frames_tx: flume::Sender<ToManager>,
    /// Frames from the manager; closed when the session is over.
    pub frames_rx: flume::Receiver<ToCoordinator>,
    /// Why it broke.
    pub cause: Cause,
}

/// Joins two ends in memory.
#[must_use]
pub fn pair() -> (ManagerEnd, CoordinatorEnd) {
    let (to_coordinator_tx, to_coordinator_rx) = flume::bounded(CAPACITY);
    let (to_manager_tx, to_manager_rx) = flume::bounded(CAPACITY);
    (
        ManagerEnd {
            frames_tx: to_coordinator_tx,
            frames_rx: to_manager_rx,
            url: None,
            cause: Cause::default(),
        },
        CoordinatorEnd {
            frames_tx: to_manager_tx,
            frames_rx: to_coordinator_rx,
            cause: Cause::default(),
        },
    )
}

/// How a manager gets a link, again and again.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// Opens a link.
    async fn connect(&self) -> Result<ManagerEnd, ConnectError>;
}

/// Why no link could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The coordinator cannot be reached now; try again with back-off.
    #[error("the coordinator at {url} cannot be reached")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The coordinator does not accept this manager; trying again will not help.
    #[error("the coordinator refuses this manager: {reason}")]
    Refused {
        /// The coordinator's words.
        reason: String,
    },
}

impl ConnectError {
    /// True when a later attempt may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
