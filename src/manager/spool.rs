//! The spool: accepted reports and the causes of repeated tries, durable before anybody is told so.
//!
//! An append-only log in the state directory, written by one named thread: everything queued becomes one write (with
//! [`Durability::Power`] one flush to the disk as well), then the new mark is announced. Recovery reads the longest
//! valid prefix. Owned by the manager's loop; what a record means is the reactor's business.
//!
//! | channel | capacity | when full | when closed |
//! |---|---|---|---|
//! | records to the thread | [`QUEUE`] batches | the batch stays in the handle until the next progress | the thread writes what it has and ends |
//! | progress to the loop | a watch: newest value only | cannot be | the thread ended; its error is the last value |
//! | closing to the thread | nothing is ever sent | cannot be | a write that fails is not tried again |
//!
//! Record numbers count up from [`Recovered::next_ticket`] in the order of [`Spool::append`], and a report's number is
//! its record's, so "written through n" answers everything up to n.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::config::Durability;
use super::error::ManagerError;
use super::identity::{at, create_private_dir};
use crate::file_system::Unwritable;

mod log;
mod record;
mod recovery;
#[cfg(test)]
mod tests;
mod unreported;

pub use record::Record;
pub use recovery::Recovered;
pub use unreported::SlotNotes;

/// Batches between the loop and the thread; one batch is what one turn of the loop appended.
const QUEUE: usize = 64;
/// How long the last batch waits for room in the queue.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// What the thread has done so far.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Every record up to this number is durable.
    pub written: u64,
    /// Size of the log.
    pub bytes: u64,
    /// Why the last write failed; it is tried again until it succeeds.
    pub failing: Option<Unwritable>,
}

/// The loop's handle.
#[derive(Debug)]
pub struct Spool {
    batches_tx: Option<flume::Sender<Vec<Record>>>,
    /// Dropped when a disk that cannot be written is not waited for any more.
    patience_tx: Option<flume::Sender<Infallible>>,
    pending: Vec<Record>,
    progress_rx: watch::Receiver<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Recovers the log in `dir` and starts the thread. What `notes` of workers tell beyond it is in the log afterwards, so
    /// they may go.
    ///
    /// # Errors
    /// When the directory or the log cannot be used.
    pub fn open(
        dir: &Path,
        durability: Durability,
        notes: SlotNotes,
    ) -> Result<(Self, Recovered), ManagerError> {
        create_private_dir(dir).map_err(at("create", dir))?;
        let (log, recovered) =
            log::Log::open(dir, durability, notes).map_err(at("read the spool in", dir))?;
        let progress = Progress {
            written: recovered.next_ticket - 1,
            bytes: log.bytes(),
            failing: None,
        };
        let (batches_tx, batches_rx) = flume::bounded(QUEUE);
        let (patience_tx, patience_rx) = flume::bounded(1);
        let (progress_tx, progress_rx) = watch::channel(progress);
        let thread = std::thread::Builder::new()
            .name("mitosis-spool".to_owned())
            .spawn(move || log::run(log, &batches_rx, &patience_rx, &progress_tx))
            .map_err(at("start the writer of", dir))?;
        let spool = Self {
            batches_tx: Some(batches_tx),
            patience_tx: Some(patience_tx),
            pending: Vec::new(),
            progress_rx,
            thread: Some(thread),
        };
        Ok((spool, recovered))
    }

    /// Queues a record; it goes to the thread with the next [`Self::flush`].
    pub fn append(&mut self, record: Record) {
        self.pending.push(record);
    }

    /// Hands what was appended to the thread. When its queue is full the records stay here until the next call; the
    /// number of leases bounds them.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Some(batches_tx) = &self.batches_tx
            && let Err(refused) = batches_tx.try_send(std::mem::take(&mut self.pending))
        {
            self.pending = refused.into_inner();
        }
    }

    /// Waits for news of the thread. Safe to drop and call again.
    pub async fn progress(&mut self) -> Progress {
        if self.progress_rx.changed().await.is_err() {
            // The thread has ended, which it does only when asked: nothing more will come.
            std::future::pending::<()>().await;
        }
        self.progress_rx.borrow_and_update().clone()
    }

    /// The newest progress.
    #[cfg(test)]
    pub(crate) fn latest(&self) -> Progress {
        self.progress_rx.borrow().clone()
    }

    /// Writes what is queued, flushes it to the disk and ends the thread.
    pub async fn close(mut self) {
        self.flush();
        // The thread tries a failing write once more and gives up: nobody was told that these reports are kept, and a
        // shutdown does not wait for a disk.
        self.patience_tx = None;
        if let (Some(batches_tx), false) = (self.batches_tx.take(), self.pending.is_empty()) {
            // The queue was full, and the thread is busy emptying it.
            let last = batches_tx.send_async(std::mem::take(&mut self.pending));
            let _ = tokio::time::timeout(LAST_BATCH, last).await;
        }
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                tracing::error!("the spool's writer panicked");
            }
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.flush();
        // Closing the channels ends the thread after its queue; a write takes no longer than the disk does.
        self.patience_tx = None;
        self.batches_tx = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
