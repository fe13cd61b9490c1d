//! The persistence contract in the words of the domain.
//!
//! [`Store`] is everything the coordinator asks of a database; [`sqlite`] implements it, and `conformance` is the
//! test suite that every implementation passes. Decisions about a task's life are not made in SQL: [`ledger`] is the
//! pure state machine that implementations apply to rows they hold under a write lock. The store knows nothing of
//! sessions, HTTP or waiting.
//!
//! Time: an implementation reads a [`clock::Clock`] (or its database's). A lease lasts as long as its holder: each
//! holder has one term, renewed as a whole, because a renewal always concerns everything a holder has.

pub mod clock;
pub mod error;
pub mod ledger;
pub mod model;
pub mod sqlite;

#[cfg(test)]
mod conformance;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::protocol::Capacity;
use crate::protocol::api::{SubmittedTask, SuiteSummary, TaskDetail, TaskSummary};
use crate::protocol::session::{HeldLease, ManagerStatus};
use crate::protocol::{Artifact, CancelOrder, Lease, Mode, TaskResult};

pub use clock::{Clock, SystemClock};
pub use error::{OpenError, StoreError};
pub use model::{
    ArtifactRecord, Audit, CancelRest, CancelTarget, CancelWish, Cancelled, Changes, Claim,
    Claimed, ClaimedTask, Committed, Counts, EndCursor, Ended, Holder, HolderId, HolderKind,
    HolderRecord, HolderSession, Levels, Life, LiveHolder, METRICS_LABEL, MOST_AHEAD, NewTask,
    NewTasks, Part, QueuePlace, ReclaimCause, Reclaimed, Registered, Registration, Reported,
    RetryTarget, SUBJECT_LABEL, Submitted, TaskQuery, Unstarted, UploadFence, Whereabouts,
};

/// Reading what is stored. Nothing here waits or changes anything.
#[async_trait]
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// Everything about one task; `None` when there is none.
    async fn task(&self, uuid: Uuid) -> Result<Option<TaskDetail>, StoreError>;

    /// Where a task is; `None` when there is none. Cheaper than [`StoreReader::task`].
    async fn whereabouts(&self, uuid: Uuid) -> Result<Option<Whereabouts>, StoreError>;

    /// The first task that has not ended and wants more of something than there is, with what it wants.
    async fn beyond(&self, capacity: Capacity) -> Result<Option<(i64, Capacity)>, StoreError>;

    /// Where a task stands in the queue; `None` when there is no such task.
    async fn place(&self, uuid: Uuid) -> Result<Option<QueuePlace>, StoreError>;

    /// Tasks in order of their row ids.
    ///
    /// # Errors
    /// `NotFound` when the suite does not exist.
    async fn tasks(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError>;

    /// Suites in order of creation, from the one after `after`; with their counts. A task that was repeated counts by its
    /// newest life, here and in [`StoreReader::suite`] and [`StoreReader::counts_of`].
    async fn suites(&self, after: i64, limit: u32) -> Result<Vec<(i64, SuiteSummary)>, StoreError>;

    /// One suite with its counts; `None` when there is none.
    async fn suite(&self, uuid: Uuid) -> Result<Option<SuiteSummary>, StoreError>;

    /// How an attempt ended that failed and was followed by another one, and what it wrote; `None` where nothing is kept.
    async fn attempt_result(
        &self,
        task: Uuid,
        attempt: u32,
    ) -> Result<Option<TaskResult>, StoreError>;

    /// Suites that a text names, newest first, at most three and without counts: those of this name; without any, those
    /// whose name or uuid begins so.
    async fn suites_named(&self, text: String) -> Result<Vec<SuiteSummary>, StoreError>;

    /// Tasks by state of one suite or of the whole store, repeated ones too. Its cost does not depend on the number of tasks.
    ///
    /// # Errors
    /// `NotFound` when the suite does not exist.
    async fn counts(&self, suite: Option<Uuid>) -> Result<Counts, StoreError>;

    /// How the whole store stands, read in one transaction. Its cost depends on the number of distinct demands and
    /// priorities, not on the number of tasks.
    async fn levels(&self) -> Result<Levels, StoreError>;

    /// Tasks by state of a set; each task and each newest life once.
    ///
    /// # Errors
    /// `NotFound` for the first that does not exist.
    async fn counts_of(&self, tasks: Vec<Uuid>) -> Result<Counts, StoreError>;

    /// What is kept of a task beside its result.
    ///
    /// # Errors
    /// `NotFound` when the task does not exist.
    async fn artifacts(&self, task: Uuid) -> Result<Vec<ArtifactRecord>, StoreError>;
}

/// Durable tasks, leases and results.
///
/// Every method is one transaction, unless it says otherwise, and is answered after its commit under the store's durability. Calls may overlap;
/// writes take effect in the order in which they were first polled. Dropping a future does not undo or half-do
/// anything: the transaction happens or does not.
#[async_trait]
pub trait Store: StoreReader {
    /// This life of the coordinator: one more at every open. The upper half of every lease granted in it.
    fn epoch(&self) -> u32;

    /// Name of this store, drawn when it was made.
    fn instance(&self) -> Uuid;

    /// The bytes kept under `name`; when there are none, `candidate` is kept and returned. For keys that several
    /// coordinators must share.
    async fn secret(&self, name: &'static str, candidate: Vec<u8>) -> Result<Vec<u8>, StoreError>;

    /// Stores tasks, all or none. A key that is known in its scope (the named suite; the whole store when no suite
    /// was named) answers with the task that has it, and so does a key's second use inside one call. A suite is made
    /// only when at least one task is new, or when a new one was asked for.
    ///
    /// # Errors
    /// `NotFound` when the named suite does not exist.
    async fn submit(&self, batch: NewTasks) -> Result<Submitted, StoreError>;

    /// Stores a part of a submission. Nothing of it can be claimed before the last part is stored, which accepts the whole;
    /// a submission of one part is a submit that may be repeated. A part that is known is answered with the tasks that it
    /// made. The tasks of several parts have no links.
    ///
    /// # Errors
    /// `PartMissing` when an earlier part is not there; as [`Store::submit`].
    async fn submit_part(&self, batch: NewTasks, part: Part) -> Result<Submitted, StoreError>;

    /// Gives a submission up whose last part has not come: its tasks are cancelled, at the latest an hour after its newest
    /// part even without this call. Nothing else changes.
    async fn abandon(&self, submission: Uuid) -> Result<(), StoreError>;

    /// Stores a copy of each target, in the same suite, that names the old task in `retry_of`. The old one keeps its
    /// state.
    ///
    /// # Errors
    /// `NotFound`; `NotEnded` when a single task has not ended.
    async fn retry(&self, target: RetryTarget)
    -> Result<(Vec<SubmittedTask>, Changes), StoreError>;

    /// Begins a new session of a holder and settles its inventory lease by lease: kept when the lease is the task's
    /// last and the task has not ended and nobody else has it (also after it ran out), dropped otherwise. What the
    /// store believed the holder to have and the inventory lacks is requeued.
    ///
    /// # Errors
    /// `Bound` when a manager shows somebody else's token; `Stranger` when leases are open that were granted to a life
    /// that this one does not know.
    async fn register(&self, registration: Registration) -> Result<Registered, StoreError>;

    /// A holder that registered and has not left. It may have been quiet for longer than its term: then it has no
    /// leases, and its next claim or renewal makes it live again.
    ///
    /// # Errors
    /// `NotFound` when it never registered, or left.
    async fn live_holder(&self, holder: Holder) -> Result<LiveHolder, StoreError>;

    /// Grants up to `limit` ready tasks, highest priority first and oldest first among equals, each under a lease
    /// above all its earlier ones. Only tasks whose tags the holder carries and whose CPU demand it can ever meet. It
    /// renews the holder's term. Its cost depends on `limit` and on the number of distinct demands, not on the number
    /// of tasks that wait.
    ///
    /// # Errors
    /// `Replaced` when a newer session exists.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// Applies reports in order, each by compare and set: accepted when its lease is the task's last and the task has
    /// not ended, `Duplicate` when the same end was accepted under that lease before, `Stale` otherwise, `NotOwner`
    /// when the lease was granted to somebody else. The tasks that an accepted end submits are stored with it, in its
    /// task's suite. Renews the holder's term.
    async fn commit(
        &self,
        holder: HolderId,
        reports: Vec<Reported>,
    ) -> Result<Committed, StoreError>;

    /// Gives everything the holder has a full new term, and keeps `status` for operators. Of `suspects`, leases that
    /// were taken back, returns those that the holder does not have: an inventory may have kept some since.
    ///
    /// # Errors
    /// `Replaced` when a newer session exists.
    async fn renew(
        &self,
        session: HolderSession,
        status: Option<ManagerStatus>,
        suspects: Vec<HeldLease>,
    ) -> Result<Vec<HeldLease>, StoreError>;

    /// Ends a session: whatever the holder still has is requeued (or cancelled, where a cancel was asked for).
    ///
    /// # Errors
    /// `Replaced` when a newer session exists.
    async fn leave(&self, session: HolderSession) -> Result<Changes, StoreError>;

    /// Does what time has made due: takes back the leases of holders whose term ran out and releases tasks whose
    /// back-off is over. [`Changes::next_due`] says when it is worth calling again.
    async fn advance(&self) -> Result<Changes, StoreError>;

    /// Cancels: a task that nobody has is cancelled at once, one that somebody has is marked (a stronger wish wins),
    /// an ended one keeps its result. Of many that wait the answer names a rest: none of it is granted any more, unless it
    /// is named by something that claims do not see, and it is to be given to [`Store::cancel_rest`].
    ///
    /// # Errors
    /// `NotFound`.
    async fn cancel(&self, target: CancelTarget, wish: CancelWish)
    -> Result<Cancelled, StoreError>;

    /// Marks the rest of a cancel, in several transactions so that others get their turn; how many they were. What is
    /// marked is ended by [`Store::advance`], also after a restart.
    async fn cancel_rest(&self, rest: CancelRest) -> Result<u64, StoreError>;

    /// The cancel orders for everything a holder has, by task id.
    async fn cancel_orders(&self, holder: HolderId) -> Result<Vec<CancelOrder>, StoreError>;

    /// Keeps the mode an operator wants of a holder.
    ///
    /// # Errors
    /// `NotFound` when it never registered.
    async fn set_mode(&self, holder: Holder, mode: Mode) -> Result<HolderId, StoreError>;

    /// Keeps the mode an operator wants of everybody. A pause, and its end, hold for holders that come later too; an
    /// order to leave is for those that are live.
    async fn set_mode_of_all(&self, mode: Mode) -> Result<Vec<HolderId>, StoreError>;

    /// Writes something small, to see whether that is possible.
    async fn probe(&self) -> Result<(), StoreError>;

    /// The newest end.
    async fn last_end(&self) -> Result<EndCursor, StoreError>;

    /// The newest life of each task, by row id, in no order: the task itself, or its latest repetition.
    async fn newest_lives(&self, tasks: Vec<i64>) -> Result<Vec<Life>, StoreError>;

    /// Tasks of a suite that tasks submitted, oldest first, each by its newest life; the root is the submitting task.
    async fn submitted_by_tasks(&self, suite: Uuid) -> Result<Vec<Life>, StoreError>;

    /// Ends after a position, oldest first.
    async fn ends(&self, after: EndCursor, limit: u32) -> Result<Vec<Ended>, StoreError>;

    /// Every holder of a kind that is live, or was heard within a time, by name.
    async fn holders(
        &self,
        kind: HolderKind,
        heard_within: Duration,
    ) -> Result<Vec<HolderRecord>, StoreError>;

    /// Says whether an artifact that comes behind `fence` would be kept.
    ///
    /// # Errors
    /// `Superseded` when the lease is not the task's last or was somebody else's; `NotFound`.
    async fn check_upload(&self, fence: UploadFence) -> Result<(), StoreError>;

    /// Records an artifact whose bytes are complete, in place of an earlier one of its kind. Returns the lease of one
    /// that was made under another lease and is not needed any more.
    ///
    /// # Errors
    /// As [`Store::check_upload`].
    async fn keep_artifact(
        &self,
        fence: UploadFence,
        artifact: Artifact,
    ) -> Result<Option<Lease>, StoreError>;

    /// The close that follows need not bring the store into its final form: it is not wanted any more. Everything stays
    /// durable all the same.
    async fn leave_untidy(&self) -> Result<(), StoreError>;

    /// The books: accepted = finished + in flight, counted in one transaction.
    async fn audit(&self) -> Result<Audit, StoreError>;

    /// Writes everything to its final place and lets go of the files. Later calls fail with `Closed`.
    async fn close(&self);
}
