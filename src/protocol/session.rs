//! Frames of a session between a manager and the coordinator.
//!
//! One session is one WebSocket or one in-memory link; the frames are the same. The manager speaks first
//! ([`Hello`] with its full inventory) and then sends requests that carry an id and may overlap; the coordinator
//! answers each under the same id. Pushes ([`Hint`]) are only hints: whatever they say can be read again in the
//! answer to the next renewal.
//!
//! ```text
//!   manager                                   coordinator
//!     Hello {inventory} ------------------->
//!            <------------------- Welcome {keep, drop, directive} | Refused
//!     Claim {id, limit} ------------------->
//!            <------------------- Claimed {id, tasks} (behind any number of ClaimedPart {id, tasks})
//!     Commit {id, commits} ---------------->
//!            <------------------- Committed {id, verdicts}
//!     Renew {id} -------------------------->
//!            <------------------- Renewed {id, directive}
//!            <------------------- Hint::Work | Hint::Directive
//!     Tuned {number} ----------------------> (once for each number of a directive's tuning)
//!            <------------------- Read {id, request}
//!     Output {id, answer} -----------------> (while somebody follows a task that runs here)
//!            <------------------- Inquiry {id}
//!     Present {id} ------------------------> (somebody else came under this manager's name)
//!            <------------------- Over {reason}
//! ```

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::capacity::Capacity;
use super::control::ControlState;
use super::ids::{Boot, Lease, TaskRef, Try};
use super::output::{PartAnswer, PartRequest};
use super::report::{TaskReport, Verdict};
use super::task::WorkerTaskResp;
use super::tuning::TuningReport;

/// Manager to coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// First frame of every session.
    Hello(Hello),
    /// Asks for at most `limit` tasks. Answered at once, possibly with none; then a `Hint::Work` follows when there
    /// is something.
    Claim {
        /// Correlation id.
        id: u64,
        /// Most tasks wanted.
        limit: u32,
    },
    /// Hands in reports, in the order of the spool.
    Commit {
        /// Correlation id.
        id: u64,
        /// The reports.
        commits: Vec<Commit>,
    },
    /// Renews every lease the manager holds.
    Renew {
        /// Correlation id.
        id: u64,
        /// What an operator wants to see of the manager.
        status: ManagerStatus,
    },
    /// What came of the newest tuning in a directive.
    Tuned(TuningReport),
    /// Answer to `Read`.
    Output {
        /// Correlation id.
        id: u64,
        /// The part, or why there is none.
        answer: PartAnswer,
    },
    /// Answer to `Inquiry`.
    Present {
        /// Correlation id.
        id: u64,
    },
    /// The manager leaves on purpose; it holds nothing any more.
    Goodbye,
}

/// Coordinator to manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToManager {
    /// The session is open.
    Welcome(Welcome),
    /// The session is refused for good; trying again will not help.
    Refused {
        /// Why, in words for the operator.
        message: String,
    },
    /// Some of the tasks of an answer that is too long for one frame; `Claimed` with the rest follows.
    ClaimedPart {
        /// Correlation id.
        id: u64,
        /// The tasks, as in `Claimed`.
        tasks: Vec<WorkerTaskResp>,
    },
    /// Answer to `Claim`.
    Claimed {
        /// Correlation id.
        id: u64,
        /// The tasks, each under a new lease, with `try_no` 0: the manager numbers its tries from 1.
        tasks: Vec<WorkerTaskResp>,
    },
    /// Answer to `Commit`.
    Committed {
        /// Correlation id.
        id: u64,
        /// One verdict per commit, in order.
        verdicts: Vec<Verdict>,
    },
    /// Answer to `Renew`.
    Renewed {
        /// Correlation id.
        id: u64,
        /// Leases the manager no longer has.
        lost: Vec<HeldLease>,
        /// What is wanted now.
        directive: ControlState,
    },
    /// The request failed for a passing reason; ask again after the pause.
    Busy {
        /// Correlation id.
        id: u64,
        /// Pause in milliseconds.
        after_ms: u64,
    },
    /// Something may be worth a look.
    Hint(Hint),
    /// Asks for a part of a running task's output. Answered soon or not at all: nothing but a reader waits for it.
    Read {
        /// Correlation id, of the coordinator's own numbers.
        id: u64,
        /// What is wanted.
        request: PartRequest,
    },
    /// Asks whether this session's manager still is there, because another process came under its name.
    Inquiry {
        /// Correlation id, of the coordinator's own numbers.
        id: u64,
    },
    /// The session is over for this reason. Another one may be opened.
    Over {
        /// Why, in words for the operator.
        reason: String,
    },
}

/// A push that may be lost without harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Hint {
    /// There is something to claim.
    Work,
    /// What is wanted has changed.
    Directive(ControlState),
}

/// Who the manager is and everything it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::PROTOCOL_VERSION`].
    pub version: u16,
    /// Kept for the life of its state directory.
    pub manager: Uuid,
    /// This life.
    pub boot: Boot,
    /// Earlier lives of the same state directory, the newest first: whose leases this one may settle.
    #[serde(default)]
    pub earlier: Vec<Boot>,
    /// Name of the machine, for people.
    pub host: String,
    /// Worker slots.
    pub workers: u32,
    /// What tasks may occupy.
    #[serde(default)]
    pub capacity: Capacity,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Where others find its `/metrics`, `host:port`, if it serves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Every lease the manager believes it holds, reports not yet committed included.
    pub inventory: Vec<HeldLease>,
}

/// A lease in a manager's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldLease {
    /// The task.
    pub task: TaskRef,
    /// The lease.
    pub lease: Lease,
}

/// The coordinator's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`super::PROTOCOL_VERSION`].
    pub version: u16,
    /// The coordinator's life; one more at every start.
    pub epoch: u32,
    /// How long a lease lasts after its grant or renewal, in milliseconds.
    pub lease_ms: u64,
    /// How often to renew, in milliseconds.
    pub renew_ms: u64,
    /// Of the inventory: no longer the manager's. End what runs, forget the reports. Everything else is kept, with a
    /// full new term.
    pub drop: Vec<HeldLease>,
    /// What is wanted now.
    pub directive: ControlState,
    /// The coordinator's own URL, if it is served; a manager that came by a URL knows a better one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Key with which the manager signs addresses for uploads ([`super::signed_url`]).
    #[serde(default, with = "serde_bytes")]
    pub upload_key: Vec<u8>,
}

/// One report on its way from the spool to the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The report; its `seq` is the spool's.
    pub report: TaskReport,
    /// Number of the execution the report is about; 0 when none has begun.
    pub attempt: u32,
    /// Tries of this lease that began an execution and were lost before the one reported, oldest first.
    #[serde(default)]
    pub lost_tries: Vec<LostTry>,
}

/// An execution that was begun and lost with its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTry {
    /// The hand-over.
    #[serde(rename = "try")]
    pub try_no: Try,
    /// Number of the execution.
    pub attempt: u32,
    /// When it began, in microseconds since the Unix epoch.
    pub started_at_us: i64,
    /// When its loss was seen; absent where nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_us: Option<i64>,
    /// What became of it, e.g. `worker 3 killed by signal 9`.
    pub cause: String,
}

/// What an operator sees of a manager.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Workers that are up.
    pub workers_ready: u32,
    /// Tasks being executed.
    pub running: u32,
    /// Tasks waiting in the buffer.
    pub buffered: u32,
    /// Reports waiting in the spool.
    pub spooled: u32,
    /// What keeps it from its work, in words for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
