//! Bodies of the HTTP API under `/api/v1`.
//!
//! Field names are a contract: they are documented by the OpenAPI document that is derived from these types, and a
//! test compares the two. Timestamps are microseconds since the Unix epoch, as in results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::artifact::StoredArtifact;
use super::control::{Desired, Mode};
use super::ids::{Lease, Try};
use super::report::{Outcome, ReportTaskOp, TaskResult};
use super::span::HumanDuration;
use super::task::{TaskSpec, TaskState};
use super::upstream::UpstreamEnd;

/// Where the API begins.
pub const API_ROOT: &str = "/api/v1";
/// Header of a log: `true` when bytes of the output are missing from the answer.
pub const TRUNCATED_HEADER: &str = "x-mitosis-truncated";
/// Header of a log: the part of an ended task's output that is not kept, as `OFFSET+BYTES`; absent where there is none.
/// What is kept has nothing in its place.
pub const GAP_HEADER: &str = "x-mitosis-gap";
/// Header of a log: how many bytes the task wrote.
pub const TOTAL_HEADER: &str = "x-mitosis-total-bytes";

/// Header of a part of a log: how the task stands, a [`super::output::Progress`].
pub const PROGRESS_HEADER: &str = "x-mitosis-progress";
/// Header of a part of a log: the execution that wrote it.
pub const ATTEMPT_HEADER: &str = "x-mitosis-attempt";
/// Header of a part of a log: where it begins in what that execution wrote.
pub const OFFSET_HEADER: &str = "x-mitosis-offset";

/// Every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// A stable word for programs, e.g. `not_found`.
    pub code: String,
    /// A sentence for people that says what to do next.
    pub message: String,
}

/// Submits tasks, all or none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct SubmitRequest {
    /// The suite they join; a new one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<SuiteRef>,
    /// The tasks, in order.
    pub tasks: Vec<SubmitTask>,
}

/// The suite that submitted tasks join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuiteRef {
    /// An existing one.
    Uuid(Uuid),
    /// A new one of this name.
    New {
        /// Name, for people.
        name: String,
    },
}

/// One task to be submitted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct SubmitTask {
    /// Idempotency key, unique in its suite (in the whole store for a task without a named suite): a second submit
    /// with the same key answers with the first task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What to run.
    #[serde(flatten)]
    pub spec: TaskSpec,
}

/// The answer to a submit. Every task in it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitResponse {
    /// The suite the tasks are in.
    pub suite: Uuid,
    /// One per submitted task, in order.
    pub tasks: Vec<SubmittedTask>,
}

/// One accepted task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedTask {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// True when the key was known and nothing was added.
    pub existing: bool,
}

/// One task in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskSummary {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// Its suite.
    pub suite: Uuid,
    /// Where it stands.
    pub state: TaskState,
    /// Why it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Executions begun.
    pub attempts: u32,
    /// Priority.
    pub priority: i32,
    /// The command, joined for people.
    pub command: String,
    /// When it was accepted.
    pub accepted_at_us: i64,
    /// When its last execution began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_us: Option<i64>,
    /// When its terminal state was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_us: Option<i64>,
    /// How many upstream tasks it waits for, while it is pending.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits_for: u32,
    /// When its back-off ends, while it is pending for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_us: Option<i64>,
    /// The task this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<Uuid>,
    /// The task that submitted this one through `MITO_NEW_TASK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up_of: Option<Uuid>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Everything about one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskDetail {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// What was asked for.
    pub spec: TaskSpec,
    /// Idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The lease, while somebody holds the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Who holds it, or held it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// When it was last given to a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at_us: Option<i64>,
    /// True when a cancel has been asked for.
    pub cancel_requested: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// Every execution that was begun, oldest first.
    pub history: Vec<AttemptRecord>,
    /// The tasks it waits for, or waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<UpstreamRecord>,
    /// What the task left beside its output and the coordinator keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<StoredArtifact>,
}

/// A task that another waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamRecord {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// The `id` it was named by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The end that is waited for.
    pub when: UpstreamEnd,
    /// Where it stands.
    pub state: TaskState,
}

/// Where an artifact can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactLink {
    /// What it is, its size and digest.
    #[serde(flatten)]
    pub stored: StoredArtifact,
    /// The address: a path of the coordinator that needs no token.
    pub url: String,
    /// Until when, in seconds since the Unix epoch.
    pub expires_at_s: i64,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptRecord {
    /// Number, from 1.
    pub attempt: u32,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    #[serde(rename = "try")]
    pub try_no: Try,
    /// Who executed it.
    pub holder: String,
    /// When it began.
    pub started_at_us: i64,
    /// When its end was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_us: Option<i64>,
    /// How it ended, e.g. `completed`, `failed: exit`, `lost: worker 3 killed by signal 9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Why it was begun, where it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A page of tasks, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// Give it as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which tasks to list. All filters must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TaskFilter {
    /// Only this suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<Uuid>,
    /// Only these states, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only tasks that this selector names: a uuid, at least six hex digits of its beginning, a number, a range such
    /// as `3-7`, `last`, `last:5`, a state, `label:key` or `label:key=value`. Several as a JSON list: sets of one kind
    /// (ranges and `last:5`; states; values of one label) are alternatives, kinds restrict each other, and a task that is
    /// named by itself (a uuid, a number, `last`) is always meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// With `true`: only tasks that no retry has repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrepeated: Option<bool>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Most tasks of a page; 100 when absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuiteSummary {
    /// Its name for programs.
    pub uuid: Uuid,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created_at_us: i64,
    /// Tasks by state; states without tasks are left out.
    pub counts: BTreeMap<TaskState, u64>,
}

/// A page of suites, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuitePage {
    /// The suites.
    pub suites: Vec<SuiteSummary>,
    /// Give it as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which page to show.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Most entries of a page; 100 when absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only what this names, newest first, at most three and without counts or further pages: the suites of this name;
    /// without any, those whose name or uuid begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
}

/// Tasks to wait for, each by its newest life: a task that was repeated, also while it is waited for, counts as its
/// repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitRequest {
    /// The tasks, at most 1,000.
    pub tasks: Vec<Uuid>,
}

/// Most tasks of a [`WaitRequest`].
pub const MAX_WAIT_TASKS: usize = 1000;

/// Which ended tasks to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryRequest {
    /// These, however they ended; all or none. Those that wait for others among them wait for the new ones.
    Tasks(Vec<Uuid>),
    /// Every failed task that has not been repeated yet.
    Failed,
}

/// Tasks that a retry made, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetryResponse {
    /// One new task for each that was repeated.
    pub tasks: Vec<SubmittedTask>,
}

/// What the operator wants a manager or worker to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeRequest {
    /// The mode.
    pub mode: Mode,
}

/// Asks to end a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelRequest {
    /// True: TERM, grace, KILL. False: KILL.
    #[serde(default = "yes")]
    pub graceful: bool,
}

fn yes() -> bool {
    true
}

impl Default for CancelRequest {
    fn default() -> Self {
        Self { graceful: true }
    }
}

/// The answer to a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelResponse {
    /// Where the task stands now. `cancelled` when nothing ran; a running task follows within grace + 2 s.
    pub state: TaskState,
}

/// Asks for the end of every task that a filter lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelMatchingRequest {
    /// Which; the filter of a list. Its `limit` is not looked at. Without any field it is every task.
    pub filter: TaskFilter,
    /// True: TERM, grace, KILL. False: KILL.
    #[serde(default = "yes")]
    pub graceful: bool,
}

/// Where a task stands after a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelledTask {
    /// The task.
    pub uuid: Uuid,
    /// `cancelled` when nothing ran; a running task follows within grace + 2 s.
    pub state: TaskState,
}

/// The answer to a cancel of many. Nothing that it names begins after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelMatchingResponse {
    /// Those that were held, and those that waited where they were few.
    pub tasks: Vec<CancelledTask>,
    /// How many more waited. They are not begun any more, and become `cancelled` one after the other.
    pub following: u64,
}

/// A registered independent worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterWorkerRequest {
    /// The name it had before, to take it up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_uuid: Option<Uuid>,
    /// Name of the machine, for people.
    pub host: String,
    /// Tags that tasks may require.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Free key-value pairs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterWorkerResponse {
    /// The worker's name from now on.
    pub worker_uuid: Uuid,
    /// A token of scope `worker` for this uuid alone.
    #[schema(value_type = String)]
    pub token: String,
    /// How long a lease lasts after its grant or renewal.
    pub lease: HumanDuration,
    /// How often to send a heartbeat; it renews the lease.
    pub heartbeat: HumanDuration,
}

/// Body of `POST workers/report-task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportTaskBody {
    /// Number of the report, from 1 per registration; resending keeps it.
    #[serde(default)]
    pub seq: u64,
    /// The store's row id.
    pub task_id: i64,
    /// The name users see.
    pub task_uuid: Uuid,
    /// The fence.
    pub lease: Lease,
    /// What happened.
    pub op: ReportTaskOp,
}

/// Body of `POST workers/heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatBody {
    /// The worker; must be the token's.
    pub worker_uuid: Uuid,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatResponse {
    /// How long the worker's leases last from now on.
    pub lease: HumanDuration,
    /// What is wanted of the worker now.
    pub control: Desired,
    /// A new token, when the one shown is past half of its life. Use it from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssueTokenRequest {
    /// What it allows: `admin`, `user`, `manager` or `worker:<uuid>`.
    pub scope: String,
    /// Whom it is for; shown in logs.
    pub subject: String,
    /// How long it lasts; seven days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
}

/// A new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssueTokenResponse {
    /// The token. Whoever has it may do what its scope allows.
    pub token: String,
}

/// A manager as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManagerSummary {
    /// Its name.
    pub uuid: Uuid,
    /// Its machine.
    pub host: String,
    /// True while its session is open.
    pub connected: bool,
    /// False once it left or its leases ran out.
    #[serde(default)]
    pub live: bool,
    /// Where its `/metrics` are served, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Worker slots.
    pub workers: u32,
    /// Leases it holds.
    pub leases: u64,
    /// When it was last heard.
    pub last_seen_us: i64,
    /// What keeps it from its work, or went wrong with its sessions lately, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// An entry of what Prometheus reads as a list of targets (`http_sd_configs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrapeTarget {
    /// `host:port` of one manager's `/metrics`.
    pub targets: Vec<String>,
    /// `mitosis_manager` (its uuid) and `mitosis_host` (its machine).
    pub labels: BTreeMap<String, String>,
}

/// An independent worker as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerSummary {
    /// Its name.
    pub uuid: Uuid,
    /// Its machine.
    pub host: String,
    /// The task it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Uuid>,
    /// When it was last heard.
    pub last_seen_us: i64,
}

/// Every manager that was heard lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManagerList {
    /// The managers.
    pub managers: Vec<ManagerSummary>,
}

/// Every independent worker that was heard lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<WorkerSummary>,
}

/// Counts of a set of tasks, as `wait` reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitResponse {
    /// True when every task of the set is terminal.
    pub done: bool,
    /// Tasks by state; states without tasks are left out.
    pub counts: BTreeMap<TaskState, u64>,
}

/// The end of one task, as a listener of the coordinator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEnd {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// How.
    pub outcome: Outcome,
    /// Executions begun, those that failed or were lost included.
    pub attempts: u32,
    /// Details.
    pub result: TaskResult,
    /// The tasks that it submitted, in order.
    pub follow_ups: Vec<Uuid>,
}
