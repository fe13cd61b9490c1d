//! `tasks`, `task`: looking at tasks, through a service or, with none running, in the store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use uuid::Uuid;

use super::artifacts;
use super::failure::Failure;
use super::global::GlobalArgs;
use super::ids::TaskName;
use super::output;
use super::reach::{Reach, ReachArgs};
use super::show;
use crate::exit_code::Exit;
use crate::protocol::TaskState;
use crate::protocol::api::{TaskDetail, TaskFilter};
use crate::run::plan::now_us;

const TASKS_HELP: &str = "\
Examples:
  mitosis tasks
  mitosis tasks --state failed,cancelled
  mitosis tasks --state-dir ~/sweep --json | jq '.tasks[] | select(.attempts > 1)'

With --json one page is one object with `tasks` and, unless it is the last, `next_cursor` for --cursor.";

/// List tasks, oldest first.
#[derive(Debug, Args)]
#[command(after_help = TASKS_HELP)]
pub(super) struct TasksArgs {
    /// Only tasks of this suite.
    #[arg(long, value_name = "UUID")]
    suite: Option<Uuid>,
    /// Only tasks in these states, separated by commas.
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<TaskState>,
    /// Most tasks to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the last page ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

fn state(word: &str) -> Result<TaskState, String> {
    TaskState::parse(word).ok_or_else(|| {
        let known: Vec<&str> = TaskState::ALL.map(TaskState::as_str).to_vec();
        format!("a state is one of {}", known.join(", "))
    })
}

impl TasksArgs {
    pub(super) async fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        let states: Vec<&str> = self.state.iter().map(|state| state.as_str()).collect();
        let filter = TaskFilter {
            suite: self.suite,
            state: (!states.is_empty()).then(|| states.join(",")),
            cursor: self.cursor,
            limit: Some(self.limit),
        };
        let reach = Reach::to_read(&self.reach).await?;
        let page = reach.tasks(&filter).await;
        reach.close().await;
        let page = page?;
        if self.json {
            output::json(&page)?;
            return Ok(Exit::Ok);
        }
        output::text(&show::tasks(&page.tasks, now_us()))?;
        if let Some(cursor) = page.next_cursor
            && global.quiet == 0
        {
            output::note(&format!(
                "there are more: add --cursor {cursor}, or a larger --limit"
            ));
        }
        Ok(Exit::Ok)
    }
}

const TASK_HELP: &str = "\
Examples:
  mitosis task 42
  mitosis task 42 --json | jq .artifacts
  mitosis task 42 --artifacts results/42

--artifacts makes DIR/result and DIR/exec (the files the task left in MITO_RESULT_DIR and MITO_EXEC_DIR) and DIR/stdout and
DIR/stderr, as far as there is something, and prints what it made. Nothing is overwritten.";

/// Show everything about one task, or fetch what it left.
#[derive(Debug, Args)]
#[command(after_help = TASK_HELP)]
pub(super) struct TaskArgs {
    /// The task: its uuid, the beginning of it, or its number.
    #[arg(value_name = "ID")]
    task: TaskName,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
    /// Fetch the files the task left, and its output, into this directory.
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    reach: ReachArgs,
}

impl TaskArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let reach = Reach::to_read(&self.reach).await?;
        let looked = self.look(&reach).await;
        reach.close().await;
        let (task, made) = looked?;
        if self.json {
            output::json(&task)?;
        } else if self.artifacts.is_none() {
            output::text(&show::task(&task))?;
        } else {
            let lines = made.iter().map(|path| format!("{}\n", path.display()));
            output::text(&lines.collect::<String>())?;
        }
        Ok(Exit::Ok)
    }

    async fn look(&self, reach: &Reach) -> Result<(TaskDetail, Vec<PathBuf>), Failure> {
        let mut task = reach.named_task(&self.task).await?;
        if self.artifacts.is_some() {
            task = arrived(reach, task).await?;
        }
        let made = match &self.artifacts {
            Some(dir) => artifacts::fetch(reach, &task, dir).await?,
            None => Vec::new(),
        };
        Ok((task, made))
    }
}

/// How long files that are on their way are waited for: they follow a task's end within moments, as a rule.
const ARRIVAL: Duration = Duration::from_secs(10);
const ARRIVAL_LOOK: Duration = Duration::from_millis(100);

/// The task once everything it left has arrived at the coordinator, or as it is when that takes too long.
async fn arrived(reach: &Reach, mut task: TaskDetail) -> Result<TaskDetail, Failure> {
    let give_up = Instant::now() + ARRIVAL;
    while reach.is_served() && !artifacts::is_complete(&task) && Instant::now() < give_up {
        tokio::time::sleep(ARRIVAL_LOOK).await;
        task = reach.task(task.summary.uuid).await?;
    }
    Ok(task)
}
