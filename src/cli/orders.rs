//! `cancel` and `retry`: what users decide about tasks that are there.

use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::ids::TaskName;
use super::output;
use super::reach::{Reach, ReachArgs};
use crate::exit_code::Exit;
use crate::protocol::api::CancelRequest;

const CANCEL_HELP: &str = "\
A queued task is cancelled at once. A running one gets TERM and, after its grace period, KILL; with --now KILL alone.
A task that has ended keeps its result. Each line of stdout is a uuid and the state the task is in now.

Examples:
  mitosis cancel 42 43
  mitosis cancel --now 0199f3a2-7c11-7e4a-9d0e-3f6a5b1c2d4e
  mitosis cancel --suite 0199f3a2-7c11-7000-8000-0123456789ab";

/// End tasks.
#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
pub(super) struct CancelArgs {
    /// The tasks: uuids, beginnings of uuids, or numbers.
    #[arg(value_name = "ID", required_unless_present = "suite")]
    tasks: Vec<TaskName>,
    /// Every task of this suite that has not ended.
    #[arg(long, value_name = "UUID", conflicts_with = "tasks")]
    suite: Option<Uuid>,
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
        if let Some(suite) = self.suite {
            let answer = client.cancel_suite(suite, request).await?;
            return if self.json {
                output::json(&answer).map(|()| Exit::Ok)
            } else {
                Ok(Exit::Ok)
            };
        }
        for name in &self.tasks {
            let uuid = client.resolve(name).await?;
            let answer = client.cancel(uuid, request).await?;
            if self.json {
                output::json(&serde_json::json!({"uuid": uuid, "state": answer.state}))?;
            } else {
                output::text(&format!("{uuid} {}\n", answer.state))?;
            }
        }
        Ok(Exit::Ok)
    }
}

const RETRY_HELP: &str = "\
A retry is a new task that names the old one; the old one keeps its result. Each line of stdout is a new uuid.

Examples:
  mitosis retry 42
  mitosis retry --suite 0199f3a2-7c11-7000-8000-0123456789ab";

/// Repeat tasks that have ended.
#[derive(Debug, Args)]
#[command(after_help = RETRY_HELP)]
pub(super) struct RetryArgs {
    /// The tasks: uuids, beginnings of uuids, or numbers.
    #[arg(value_name = "ID", required_unless_present = "suite")]
    tasks: Vec<TaskName>,
    /// Every failed or cancelled task of this suite that has not been repeated yet.
    #[arg(long, value_name = "UUID", conflicts_with = "tasks")]
    suite: Option<Uuid>,
    /// One JSON object per new task on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl RetryArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let client = Reach::to_act(&self.reach).await?;
        let mut new = Vec::new();
        if let Some(suite) = self.suite {
            new = client.retry_suite(suite).await?;
        }
        for name in &self.tasks {
            let uuid = client.resolve(name).await?;
            new.push(client.retry(uuid).await?);
        }
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
