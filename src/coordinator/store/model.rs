//! What goes into the store and comes out of it, in the words of the domain.
//!
//! The types are plain data. Each mutation of the store also reports its [`Changes`]: what others wait for (claimable
//! tasks, ends, leases taken back), so that the core can wake them after the commit without reading anything again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::protocol::api::{SubmitResponse, SuiteRef, TaskEnd};
use crate::protocol::artifact::StoredArtifact;
use crate::protocol::chain::Link;
use crate::protocol::report::Reason;
use crate::protocol::session::{Commit, HeldLease, ManagerStatus};
use crate::protocol::{
    Boot, Capacity, Lease, Mode, Selection, TaskSpec, TaskState, Verdict, WorkerTaskResp,
};

/// Tasks by state; states without tasks are left out.
pub type Counts = BTreeMap<TaskState, u64>;

/// The two kinds of lease holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderKind {
    /// A node manager.
    Manager,
    /// An independent worker.
    Worker,
}

impl HolderKind {
    /// The word used in records and errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }
}

/// Somebody who can hold leases, over all its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Manager or independent worker.
    pub kind: HolderKind,
    /// Its name.
    pub uuid: Uuid,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.uuid)
    }
}

/// The store's short name of a [`Holder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub i64);

/// One registration of a holder. It is a fence: each registration takes the next number, and what an older one still
/// asks for is refused with [`super::StoreError::Replaced`]. So a claim that overtook a broken link cannot grant tasks
/// to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HolderSession {
    /// The holder.
    pub holder: HolderId,
    /// Strictly increasing per holder.
    pub number: i64,
}

/// A holder that may act, as the core needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHolder {
    /// Its newest registration.
    pub session: HolderSession,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Mode an operator set.
    pub mode: Mode,
}

/// A holder that announces itself, and everything it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Who.
    pub holder: Holder,
    /// Which life of it.
    pub boot: Boot,
    /// Its earlier lives, whose leases it may settle. Nobody else may while those last.
    pub earlier: Vec<Boot>,
    /// Name of the machine, for people.
    pub host: String,
    /// Worker slots.
    pub slots: u32,
    /// What tasks may occupy.
    pub capacity: Capacity,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Free key-value pairs.
    pub labels: BTreeMap<String, String>,
    /// Every lease the holder believes it has.
    pub inventory: Vec<HeldLease>,
    /// Its term does not end by the clock while this life of the coordinator lasts: it lives and dies with it.
    pub endless: bool,
}

/// The label of a manager that says where its `/metrics` are served, `host:port`.
pub const METRICS_LABEL: &str = "metrics";

/// The label of a manager that says whose token it showed first. Its name is bound to that.
pub const SUBJECT_LABEL: &str = "subject";

/// The answer to a [`Registration`].
#[derive(Debug)]
pub struct Registered {
    /// The fence for everything that follows.
    pub session: HolderSession,
    /// Of the inventory: no longer the holder's. Everything else is kept, with a full new term.
    pub drop: Vec<HeldLease>,
    /// The mode an operator set for this holder.
    pub mode: Mode,
    /// What else changed.
    pub changes: Changes,
}

/// One task of a submit, already validated and encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Idempotency key.
    pub key: Option<String>,
    /// What to run.
    pub spec: TaskSpec,
    /// The spec as JSON, as it is stored.
    pub encoded: String,
    /// Its `upstream`, entry by entry, with names resolved to places in the batch.
    pub links: Vec<Link>,
}

/// Which part of a submission a call brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Name of the submission, drawn by whoever submits: a uuid of version 7.
    pub submission: Uuid,
    /// Number of the part, from 0.
    pub number: u32,
    /// True for the last.
    pub is_last: bool,
}

/// Tasks to be stored, all or none.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTasks {
    /// The suite they join; a new one when absent.
    pub suite: Option<SuiteRef>,
    /// The tasks, in order.
    pub tasks: Vec<NewTask>,
}

/// The answer to [`NewTasks`].
#[derive(Debug)]
pub struct Submitted {
    /// What the user is told.
    pub response: SubmitResponse,
    /// What changed.
    pub changes: Changes,
}

/// A request for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who asks, fenced.
    pub session: HolderSession,
    /// Most tasks wanted.
    pub limit: u32,
    /// What becomes of leases the holder has and never started.
    pub unstarted: Unstarted,
}

/// What a claim does with leases that its holder has and never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstarted {
    /// They are the holder's: a manager buffers them.
    Keep,
    /// They are granted again, first and under new leases: a worker asks only when it has nothing, so the answer that
    /// carried them was lost.
    Reissue,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// Nobody has it.
    Unheld,
    /// Somebody has it, under this lease.
    Held(Holder, HeldLease),
    /// It has ended.
    Ended,
}

/// How a task stands that was submitted, repeated, or submitted by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The task that was asked about, or the one that submitted this one.
    pub root: i64,
    /// The task: of those that repeat each other the newest.
    pub id: i64,
    /// Its name.
    pub uuid: Uuid,
    /// Where it stands.
    pub state: TaskState,
    /// Why it ended, if it did.
    pub reason: Option<Reason>,
    /// Exit code, if it exited.
    pub exit_code: Option<i32>,
    /// True when it has written nothing that is known.
    pub is_silent: bool,
}

/// One granted task.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedTask {
    /// What the holder gets.
    pub task: WorkerTaskResp,
    /// Time from acceptance (or from the end of its back-off) to this claim.
    pub queued: Duration,
}

/// The answer to a [`Claim`].
#[derive(Debug, Default)]
pub struct Claimed {
    /// The tasks, in the order in which they are to run.
    pub tasks: Vec<ClaimedTask>,
    /// What changed besides.
    pub changes: Changes,
}

/// A report with the tasks that it submits.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// The report.
    pub commit: Commit,
    /// Tasks that are stored with the end that it reports, and only then.
    pub follow_ups: Vec<NewTask>,
}

impl From<Commit> for Reported {
    fn from(commit: Commit) -> Self {
        Self {
            commit,
            follow_ups: Vec::new(),
        }
    }
}

/// The answer to a batch of reports.
#[derive(Debug)]
pub struct Committed {
    /// One per report, in order.
    pub verdicts: Vec<Verdict>,
    /// What changed.
    pub changes: Changes,
}

/// Which tasks to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelTarget {
    /// This one.
    Task(Uuid),
    /// Every task that this lets through and that has not ended; its `limit` is not looked at.
    Matching(TaskQuery),
}

impl CancelTarget {
    /// Every task of a suite that has not ended.
    #[must_use]
    pub fn suite(suite: Uuid) -> Self {
        Self::Matching(TaskQuery {
            suite: Some(suite),
            ..TaskQuery::default()
        })
    }
}

/// What is left of a cancel: tasks that wait, are not granted from now on, and are to be marked one batch after the other.
#[derive(Debug, Clone)]
pub struct CancelRest {
    pub(super) query: TaskQuery,
    pub(super) wish: CancelWish,
    /// Tasks with larger row ids came after the order.
    pub(super) last: i64,
    /// Names it among those that are under way.
    pub(super) number: u64,
}

/// How a cancelled task is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelWish {
    /// TERM, grace, KILL.
    Graceful,
    /// KILL.
    Now,
}

impl CancelWish {
    /// The wish of a request.
    #[must_use]
    pub fn of(graceful: bool) -> Self {
        if graceful { Self::Graceful } else { Self::Now }
    }
}

/// How the whole store stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Levels {
    /// Tasks by state.
    pub counts: Counts,
    /// Tasks ever stored.
    pub accepted: u64,
    /// Ends ever stored.
    pub ended: u64,
    /// When the ready task that waits longest of those that a claim would take first became ready, in microseconds
    /// since the Unix epoch.
    pub oldest_ready_us: Option<i64>,
}

impl Levels {
    /// Accepted, less ended, less in flight: three numbers that are kept apart from each other. 0 while no task is
    /// lost or counted twice.
    #[must_use]
    pub fn gap(&self) -> i64 {
        let open = self.counts.iter().filter(|(state, _)| !state.is_terminal());
        let open: u64 = open.map(|(_, tasks)| tasks).sum();
        self.accepted
            .wrapping_sub(self.ended)
            .wrapping_sub(open)
            .cast_signed()
    }
}

/// The answer to a cancel.
#[derive(Debug)]
pub struct Cancelled {
    /// Where the tasks stand now that were dealt with.
    pub tasks: Vec<(Uuid, TaskState)>,
    /// The others, if there are too many for one transaction; to be given to [`Store::cancel_rest`].
    ///
    /// [`Store::cancel_rest`]: super::Store::cancel_rest
    pub rest: Option<CancelRest>,
    /// What changed.
    pub changes: Changes,
}

/// Which ended tasks to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryTarget {
    /// These, however they ended.
    Tasks(Vec<Uuid>),
    /// Every failed or cancelled task of this suite that has not been retried yet.
    Suite(Uuid),
    /// Every failed task of the store that has not been retried yet.
    Failed,
}

/// Position in the sequence of ends; strictly increasing, without gaps, over the life of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EndCursor(pub i64);

/// One end with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Position of this end.
    pub cursor: EndCursor,
    /// The suite of the task.
    pub suite: Uuid,
    /// The end.
    pub end: TaskEnd,
}

/// A lease that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reclaimed {
    /// Who had it.
    pub holder: HolderId,
    /// The lease.
    pub lease: HeldLease,
    /// Why.
    pub cause: ReclaimCause,
}

/// Why a lease was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimCause {
    /// Its term ran out.
    Expired,
    /// Its holder came back without it.
    Inventory,
    /// Its holder handed the task back.
    Released,
    /// Its holder left.
    Left,
}

impl ReclaimCause {
    /// The word used as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Inventory => "inventory",
            Self::Released => "released",
            Self::Left => "worker_left",
        }
    }
}

/// What a transaction changed that others wait for.
#[derive(Debug, Default)]
pub struct Changes {
    /// Tasks newly stored.
    pub accepted: u64,
    /// Tasks that became claimable.
    pub ready: u64,
    /// Tasks that reached their terminal state, in order of their cursors.
    pub ended: Vec<Ended>,
    /// Leases taken back.
    pub reclaimed: Vec<Reclaimed>,
    /// Holders whose cancel orders changed.
    pub cancels: Vec<HolderId>,
    /// Holders that left or whose term ran out.
    pub gone: Vec<HolderId>,
    /// Reports refused as stale.
    pub stale: u64,
    /// Time until the earliest back-off or lease known to this transaction runs out.
    pub next_due: Option<Duration>,
}

impl Changes {
    /// Adds what a later transaction changed.
    pub fn extend(&mut self, later: Self) {
        self.accepted += later.accepted;
        self.ready += later.ready;
        self.ended.extend(later.ended);
        self.reclaimed.extend(later.reclaimed);
        self.cancels.extend(later.cancels);
        self.gone.extend(later.gone);
        self.stale += later.stale;
        self.next_due = match (self.next_due, later.next_due) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Which tasks to list, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskQuery {
    /// Only this suite.
    pub suite: Option<Uuid>,
    /// Only these states; all when empty.
    pub states: Vec<TaskState>,
    /// Only what this names.
    pub select: Option<Selection>,
    /// Only tasks that have not been repeated.
    pub unrepeated: bool,
    /// Only tasks with a larger row id.
    pub after: i64,
    /// Most tasks wanted.
    pub limit: u32,
}

/// Most tasks that are counted ahead of another, so that the answer costs the same however many wait.
pub const MOST_AHEAD: u64 = 10_000;

/// Where a task stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlace {
    /// When it became ready, or will become so after a back-off, in microseconds since the Unix epoch.
    pub queued_us: i64,
    /// Ready tasks that go before it, counted up to [`MOST_AHEAD`].
    pub ahead: u64,
}

/// A holder as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct HolderRecord {
    /// The store's short name.
    pub id: HolderId,
    /// Who.
    pub holder: Holder,
    /// Its newest registration.
    pub session: HolderSession,
    /// Its machine.
    pub host: String,
    /// Worker slots.
    pub slots: u32,
    /// What tasks may occupy.
    pub capacity: Capacity,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// What it said of itself with its last renewal.
    pub status: ManagerStatus,
    /// Key-value pairs of its registration.
    pub labels: BTreeMap<String, String>,
    /// Mode an operator set.
    pub mode: Mode,
    /// False once it left or its leases ran out.
    pub live: bool,
    /// Leases it has.
    pub leases: u64,
    /// The task with the newest lease it has.
    pub task: Option<Uuid>,
    /// When it was last heard, in microseconds since the Unix epoch.
    pub last_seen_us: i64,
}

/// The books of the store, read in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Tasks accepted since the store was made.
    pub accepted: u64,
    /// Tasks in a terminal state.
    pub finished: u64,
    /// Tasks in any other state.
    pub in_flight: u64,
}

impl Audit {
    /// Accepted tasks that are nowhere. Must be 0.
    #[must_use]
    pub fn gap(&self) -> i64 {
        let known = self.finished.saturating_add(self.in_flight);
        i64::try_from(self.accepted).unwrap_or(i64::MAX) - i64::try_from(known).unwrap_or(i64::MAX)
    }
}

/// An artifact as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// What users see of it.
    pub stored: StoredArtifact,
    /// The lease under which it was made, which names its file.
    pub lease: Lease,
}

/// On whose behalf an artifact comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadFence {
    /// The task.
    pub task: Uuid,
    /// The lease under which it was made.
    pub lease: Lease,
    /// Who says so; `None` when the coordinator itself does.
    pub holder: Option<Uuid>,
}
