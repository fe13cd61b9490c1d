//! The [`Coordinator`] handle: what every front end calls.
//!
//! A handle is a cheap clone; all of them share one store, one timer and the wake-ups. The methods live in the
//! modules below, one per concern. Rules are in the store's ledger; waiting, waking and counting are here. Nothing in
//! here holds a lock across an await, and no future in here half-does anything when it is dropped.
//!
//! | wake-up | who fills | who waits | when it is missed |
//! |---|---|---|---|
//! | `work` | every change that makes tasks ready | manager sessions, fetches of workers | the timer repeats it |
//! | `ends` | every commit of a terminal state | `wait`, subscribers to ends | the waiter reads the store |
//! | `posts` | cancels and modes | sessions, control calls of workers | repeated with every renewal |

mod artifacts;
mod commit;
pub mod ends;
mod fit;
mod follow;
mod follow_ups;
mod manage;
mod posts;
mod publish;
mod query;
mod readiness;
mod submit;
mod timer;
mod tune;
mod wait;
mod work;
pub mod workers;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use secrecy::{ExposeSecret, SecretBox};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::artifacts::ArtifactFiles;
use super::config::CoordinatorConfig;
use super::error::CoordinatorError;
use super::store::sqlite::SqliteStore;
use super::store::{Store, StoreError, SystemClock};

use crate::file_system::Unwritable;
use crate::protocol::signed_url::UrlKey;
use crate::telemetry::process::watch_storage;
pub use artifacts::ArtifactContent;
pub use follow::{Follow, Followed, MOST_FOLLOWERS};
pub(super) use follow::{Reading, output_of};
pub use manage::ModeTarget;
pub(super) use posts::Post;
pub use query::{Archive, Page};
pub use wait::WaitFor;
pub(super) use work::{Room, RoomKey, WorkBoard};
pub(super) use workers::sorted;

/// The coordinator of one store. Clones share it.
///
/// It stops when [`Coordinator::close`] is called or the last clone is dropped; only `close` waits for the store to
/// be written to its final place.
#[derive(Debug, Clone)]
pub struct Coordinator {
    pub(super) shared: Arc<Shared>,
    /// Dropping the last clone closes the channel, which every background future takes as the order to stop.
    life: Arc<watch::Sender<bool>>,
}

/// What the handle, its background futures and its sessions share.
pub(super) struct Shared {
    pub(super) config: CoordinatorConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) work: WorkBoard,
    pub(super) posts: posts::Posts,
    pub(super) ends: ends::EndLog,
    followers: follow::Followers,
    readiness: readiness::Readiness,
    /// Rung when something falls due earlier than the timer knows.
    pub(super) timer: Notify,
    /// True, or closed: stop.
    stop: watch::Receiver<bool>,
    signing_seed: SecretBox<[u8; 32]>,
    pub(super) artifacts: ArtifactFiles,
    /// Signs addresses of artifacts.
    pub(super) url_key: UrlKey,
    /// Where this coordinator is served; set once it is.
    pub(super) url: OnceLock<String>,
    /// Why the last commit of reports failed in the store.
    failing: watch::Sender<Option<Unwritable>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("epoch", &self.store.epoch())
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// Opens the store in the state directory and begins to serve: a new epoch, and a full new term for every lease
    /// that was open.
    ///
    /// # Errors
    /// `Open` when the directory is in use, unusable, or written by a newer program.
    pub async fn open(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        let store = SqliteStore::open(&config, Arc::new(SystemClock::start())).await?;
        Self::with_store(config, Arc::new(store)).await
    }

    /// Begins to serve a store that is already open.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn with_store(
        config: CoordinatorConfig,
        store: Arc<dyn Store>,
    ) -> Result<Self, CoordinatorError> {
        let signing_seed = secret_key(&*store, "signing_seed").await?;
        let url_key = UrlKey::new(secret_key(&*store, "url_key").await?.expose_secret());
        watch_storage("coordinator", config.state_dir.clone());
        let artifacts = ArtifactFiles::open(&config.state_dir, config.artifact_limit_bytes)?;
        let last_end = store.last_end().await?;
        let (life, stop) = watch::channel(false);
        let shared = Arc::new(Shared {
            config,
            store,
            work: WorkBoard::default(),
            posts: posts::Posts::default(),
            ends: ends::EndLog::starting_at(last_end),
            followers: follow::Followers::default(),
            readiness: readiness::Readiness::default(),
            timer: Notify::new(),
            stop,
            signing_seed,
            artifacts,
            url_key,
            url: OnceLock::new(),
            failing: watch::Sender::default(),
        });
        tokio::spawn(timer::run(Arc::clone(&shared)));
        Ok(Self {
            shared,
            life: Arc::new(life),
        })
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn config(&self) -> &CoordinatorConfig {
        &self.shared.config
    }

    /// This life of the coordinator; one more at every start.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.shared.store.epoch()
    }

    /// Name of the store, kept over all lives.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.shared.store.instance()
    }

    /// Why reports cannot be stored; nothing while they can.
    #[must_use]
    pub fn failing(&self) -> Option<Unwritable> {
        self.shared.failing.borrow().clone()
    }

    /// Seed of the key that signs tokens; made with the store and kept in it.
    #[must_use]
    pub fn signing_seed(&self) -> &SecretBox<[u8; 32]> {
        &self.shared.signing_seed
    }

    /// Resolves when the coordinator stops; long polls and sessions end with it.
    pub async fn stopped(&self) {
        self.shared.stopped().await;
    }

    /// Stops: sessions end, waiting calls return, the store is written to its final place. Leases stay open; the
    /// next start gives each a full new term.
    pub async fn close(self) {
        self.life.send_replace(true);
        self.shared.store.close().await;
    }

    /// The same where the state directory is going to be removed: the store stays whole and is not tidied up.
    pub async fn close_for_removal(self) {
        // It is only about time: whatever fails, the close that follows tidies up.
        let _ = self.shared.store.leave_untidy().await;
        self.close().await;
    }
}

impl Shared {
    /// Resolves when the coordinator stops.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // A closed channel means that the last handle is gone, which is an order to stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Notes what came of a commit of reports.
    pub(super) fn committed(&self, outcome: Result<(), &StoreError>) {
        let failing = match outcome {
            Err(error @ StoreError::Backend { .. }) => {
                Some(Unwritable::of_database("the task database", error))
            }
            _ => None,
        };
        self.failing.send_if_modified(|known| {
            let news = *known != failing;
            *known = failing;
            news
        });
    }

    /// True once the coordinator stops.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }
}

/// The key kept in the store under a name; drawn now when the store is new.
async fn secret_key(
    store: &dyn Store,
    name: &'static str,
) -> Result<SecretBox<[u8; 32]>, CoordinatorError> {
    let mut candidate = [0; 32];
    getrandom::fill(&mut candidate).map_err(CoordinatorError::Random)?;
    let kept = store.secret(name, candidate.to_vec()).await?;
    let kept =
        <[u8; 32]>::try_from(kept.as_slice()).map_err(|_| StoreError::Corrupt { what: "a key" })?;
    Ok(SecretBox::new(Box::new(kept)))
}
