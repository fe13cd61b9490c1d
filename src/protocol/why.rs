//! Why a task is not running, or how its time was spent: the answer of `GET /tasks/{uuid}/why`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::task::TaskState;

/// What a task waits for and how its time was spent so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskWhy {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// Where it stands.
    pub state: TaskState,
    /// The whole answer in one sentence.
    pub summary: String,
    /// What keeps it from running, the first hindrance first; empty while it runs and once it has ended.
    pub waits_for: Vec<Wait>,
    /// Its life in order. The last phase of a task that has not ended is open.
    pub phases: Vec<Phase>,
}

/// Something a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wait {
    /// What kind of thing it is.
    pub kind: WaitKind,
    /// A sentence for people.
    pub message: String,
    /// The task that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Uuid>,
    /// When it is over, in microseconds since the Unix epoch, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
}

/// Kinds of things that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// The end of another task.
    Upstream,
    /// The pause after a failed attempt.
    Backoff,
    /// Somebody who executes tasks.
    Holder,
    /// Somebody who carries its tags.
    Tags,
    /// Somebody who has the resources that it needs.
    Resources,
    /// The end of a pause.
    Resume,
    /// Its turn in the queue.
    Queue,
    /// A free worker at the manager that has it.
    Worker,
    /// Its cancel.
    Cancel,
}

/// A part of a task's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Phase {
    /// Which part.
    pub kind: PhaseKind,
    /// The execution that it is, or leads to, from 1.
    pub attempt: u32,
    /// When it began, in microseconds since the Unix epoch.
    pub from_us: i64,
    /// When it was over; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
    /// How it ended, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// Parts of a task's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// It could not be run yet: other tasks, or the pause after a failure.
    Waiting,
    /// It could be run and lay in the coordinator's queue.
    Queued,
    /// A holder had it and had not begun: in its buffer, handed over, being started.
    Starting,
    /// Its process ran.
    Running,
    /// Its result was on the way to the store.
    Committing,
}

impl PhaseKind {
    /// What it is called in tables.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Waiting => "could not be run yet",
            Self::Queued => "in the queue",
            Self::Starting => "at its holder, not begun",
            Self::Running => "running",
            Self::Committing => "result on its way",
        }
    }
}
