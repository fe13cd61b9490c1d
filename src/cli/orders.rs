//! `cancel` and `retry`: what users decide about tasks that are there. `pause`, `resume` and `drain`: what operators decide
//! about managers and independent workers.

use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::output;
use super::reach::{Act, Reach, ReachArgs, refused};
use super::select;
use super::suite::{self, SuiteName};
use crate::exit_code::Exit;
use crate::protocol::api::{
    CancelMatchingRequest, CancelRequest, CancelledTask, RetryRequest, TaskFilter,
};
use crate::protocol::{HumanDuration, Mode, Selector, TaskState};

const CANCEL_HELP: &str = "\
A queued task is cancelled at once. A running one gets TERM and, after its grace period, KILL; with --now KILL alone.
A task that has ended keeps its result. Each line of stdout is a uuid and the state the task is in now.

Examples:
  mitosis cancel 42 43
  mitosis cancel running label:sweep=a
  mitosis cancel --now last
  mitosis cancel --suite sweep";

/// End tasks.
#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
pub(super) struct CancelArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR", required_unless_present = "suite")]
    tasks: Vec<Selector>,
    /// Every task of this suite that has not ended.
    #[arg(long, value_name = "SUITE", conflicts_with = "tasks")]
    suite: Option<SuiteName>,
    /// KILL at once, without TERM and grace.
    #[arg(long)]
    now: bool,
    /// One JSON object per task, or one for the suite, on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl CancelArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let client = Reach::to_act(&self.reach).await?;
        let request = CancelRequest {
            graceful: !self.now,
        };
        if let Some(suite) = &self.suite {
            let suite = suite::uuid(&client.reading(), suite).await?;
            let answer = client.cancel_suite(suite, request).await?;
            return if self.json {
                output::json(&answer).map(|()| Exit::Ok)
            } else {
                Ok(Exit::Ok)
            };
        }
        let all = self.tasks.iter().cloned();
        let (names, sets): (Vec<_>, Vec<_>) = all.partition(Selector::is_name);
        for uuid in select::uuids(&client.reading(), &names).await? {
            let state = client.cancel(uuid, request).await?.state;
            self.show(CancelledTask { uuid, state })?;
        }
        if !sets.is_empty() {
            self.cancel_sets(&client, sets).await?;
        }
        Ok(Exit::Ok)
    }

    /// One order for all of it: nothing of it begins while it is being gone through.
    async fn cancel_sets(&self, client: &Act, sets: Vec<Selector>) -> Result<(), Failure> {
        let request = CancelMatchingRequest {
            filter: TaskFilter {
                select: Some(select::selection(sets)?.to_string()),
                ..TaskFilter::default()
            },
            graceful: !self.now,
        };
        let answer = client.cancel_matching(&request).await?;
        for task in answer.tasks {
            self.show(task)?;
        }
        if answer.following > 0 {
            output::note(&format!(
                "{} more waited; none of them begins any more, and they become cancelled one after the other",
                answer.following
            ));
        }
        Ok(())
    }

    fn show(&self, task: CancelledTask) -> Result<(), Failure> {
        if self.json {
            output::json(&task)
        } else {
            output::text(&format!("{} {}\n", task.uuid, task.state))
        }
    }
}

const RETRY_HELP: &str = "\
A retry is a new task that names the old one; the old one keeps its result. Several are repeated all or none, and
those that wait for others among them wait for the new ones. Each line of stdout is a new uuid.

Examples:
  mitosis retry 42 50-60
  mitosis retry --failed
  mitosis retry label:sweep=a failed
  mitosis retry --suite sweep";

/// Repeat tasks that have ended.
#[derive(Debug, Args)]
#[command(after_help = RETRY_HELP)]
pub(super) struct RetryArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR", required_unless_present_any = ["suite", "failed"])]
    tasks: Vec<Selector>,
    /// Every failed or cancelled task of this suite that has not been repeated yet.
    #[arg(long, value_name = "SUITE", conflicts_with = "tasks")]
    suite: Option<SuiteName>,
    /// Every failed task of all suites that has not been repeated yet.
    #[arg(long, conflicts_with_all = ["tasks", "suite"])]
    failed: bool,
    /// One JSON object per new task on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl RetryArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let client = Reach::to_act(&self.reach).await?;
        let new = if let Some(suite) = &self.suite {
            let suite = suite::uuid(&client.reading(), suite).await?;
            client.retry_suite(suite).await?
        } else if self.failed || self.tasks == [Selector::State(TaskState::Failed)] {
            client.retry(&RetryRequest::Failed).await?
        } else {
            let reach = client.reading();
            let uuids = if self.tasks.iter().any(is_state) {
                select::unrepeated(&reach, &self.tasks).await?
            } else {
                select::uuids(&reach, &self.tasks).await?
            };
            client.retry(&RetryRequest::Tasks(uuids)).await?
        };
        for task in new {
            if self.json {
                output::json(&task)?;
            } else {
                output::text(&format!("{}\n", task.uuid))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// Who names a state means what is left in it, and not what has been repeated since.
fn is_state(selector: &Selector) -> bool {
    matches!(selector, Selector::State(_))
}

/// Of whom something is wanted.
#[derive(Debug, Args)]
struct WhomArgs {
    /// Only this manager, instead of every manager and independent worker there is now.
    #[arg(long, value_name = "UUID")]
    manager: Option<Uuid>,
    /// Only this independent worker.
    #[arg(long, value_name = "UUID", conflicts_with = "manager")]
    worker: Option<Uuid>,
    #[command(flatten)]
    reach: ReachArgs,
}

impl WhomArgs {
    async fn set(self, mode: Mode) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let client = service.client();
        let set = match (self.manager, self.worker) {
            (Some(uuid), _) => client.set_manager_mode(uuid, mode).await,
            (None, Some(uuid)) => client.set_worker_mode(uuid, mode).await,
            (None, None) => client.set_mode(mode).await,
        };
        set.map(|()| Exit::Ok).map_err(refused)
    }
}

/// Begin no task; what runs goes on. It holds until `resume`, also over restarts.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    whom: WhomArgs,
}

impl PauseArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        self.whom.set(Mode::Pause).await
    }
}

/// Begin tasks again after `pause`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    whom: WhomArgs,
}

impl ResumeArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        self.whom.set(Mode::Run).await
    }
}

/// Finish what runs, begin nothing, hand the rest back, and leave.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// End and hand back what runs longer than this; without it, what runs may end.
    #[arg(long, value_name = "DURATION")]
    deadline: Option<HumanDuration>,
    #[command(flatten)]
    whom: WhomArgs,
}

impl DrainArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let deadline = self
            .deadline
            .map_or(0, |deadline| deadline.0.as_millis().max(1));
        let mode = Mode::Shutdown {
            graceful: true,
            deadline_ms: u64::try_from(deadline).unwrap_or(u64::MAX),
        };
        self.whom.set(mode).await
    }
}
