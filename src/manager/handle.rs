//! What the rest of the program holds of a manager: a cheap handle on its loop.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::shutdown::ShutdownRequest;

use super::error::ManagerError;
use super::stats::ManagerStats;

/// Commands that may wait; a caller beyond that waits itself.
pub(super) const COMMANDS: usize = 16;

/// A wish of the handle.
#[derive(Debug)]
pub(super) enum Command {
    Shutdown(ShutdownRequest),
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Freeze(oneshot::Sender<()>),
    Thaw(oneshot::Sender<()>),
    Stats(oneshot::Sender<ManagerStats>),
}

/// Why a manager ended.
#[derive(Debug, Clone)]
pub enum ManagerExit {
    /// It was asked to through its handle.
    Asked,
    /// The coordinator asked it to.
    AskedByCoordinator,
    /// It could not go on.
    Failed(Arc<ManagerError>),
}

/// The last words of a manager.
#[derive(Debug, Clone)]
pub(super) struct Epilogue {
    pub(super) exit: ManagerExit,
    pub(super) stats: ManagerStats,
}

/// A handle on a running manager. Dropping the last one asks the manager to end at once; [`Self::shutdown`] is the
/// orderly way.
#[derive(Debug, Clone)]
pub struct ManagerHandle {
    pub(super) manager: Uuid,
    pub(super) instance: String,
    /// Filled by every clone; full: the caller waits; closed: the manager has ended.
    pub(super) commands_tx: mpsc::Sender<Command>,
    /// `None` while the manager lives.
    pub(super) epilogue_rx: watch::Receiver<Option<Epilogue>>,
}

impl ManagerHandle {
    /// Kept for the life of the state directory.
    #[must_use]
    pub fn manager(&self) -> Uuid {
        self.manager
    }

    /// Value of `MITO_INSTANCE` in every process of this installation.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Asks the manager to end and waits until it has. A later request may be stronger than an earlier one: `Immediate`
    /// cuts a graceful shutdown short.
    pub async fn shutdown(&self, request: ShutdownRequest) -> ManagerExit {
        // A manager that has ended needs no asking.
        let _ = self.commands_tx.send(Command::Shutdown(request)).await;
        self.wait().await
    }

    /// Waits until the manager has ended, for whatever reason.
    pub async fn wait(&self) -> ManagerExit {
        self.epilogue().await.exit
    }

    /// Begins nothing new: the poller hands nothing out, and what lay ready is back in the buffer when this returns. What
    /// workers have runs on.
    ///
    /// # Errors
    /// When the manager has ended.
    pub async fn pause(&self) -> Result<(), ManagerError> {
        self.ask(Command::Pause).await
    }

    /// Begins tasks again.
    ///
    /// # Errors
    /// When the manager has ended.
    pub async fn resume(&self) -> Result<(), ManagerError> {
        self.ask(Command::Resume).await
    }

    /// Stops all workers and the process groups of their tasks where they are. To be followed by a stop of this process:
    /// nothing here may look at a clock before [`Self::thaw`].
    ///
    /// # Errors
    /// When the manager has ended.
    pub async fn freeze(&self) -> Result<(), ManagerError> {
        self.ask(Command::Freeze).await
    }

    /// Lets everybody go on.
    ///
    /// # Errors
    /// When the manager has ended.
    pub async fn thaw(&self) -> Result<(), ManagerError> {
        self.ask(Command::Thaw).await
    }

    /// This moment's numbers; of an ended manager, its last.
    pub async fn stats(&self) -> ManagerStats {
        match self.ask(Command::Stats).await {
            Ok(stats) => stats,
            Err(_) => self.epilogue().await.stats,
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ManagerError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        let sent = self.commands_tx.send(command(answer_tx)).await;
        sent.map_err(|_| ManagerError::Ended)?;
        answer_rx.await.map_err(|_| ManagerError::Ended)
    }

    async fn epilogue(&self) -> Epilogue {
        let mut epilogue_rx = self.epilogue_rx.clone();
        let said = epilogue_rx.wait_for(Option::is_some).await;
        match said {
            Ok(epilogue) => epilogue.clone().expect("it was waited for"),
            // The loop is gone without a word: it panicked.
            Err(_) => Epilogue {
                exit: ManagerExit::Failed(Arc::new(ManagerError::Ended)),
                stats: ManagerStats::default(),
            },
        }
    }
}
