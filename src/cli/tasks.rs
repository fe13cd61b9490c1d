//! `tasks`, `task`: looking at tasks, through a service or, with none running, in the store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;

use super::artifacts;
use super::explain;
use super::failure::Failure;
use super::format::{FormatArgs, TASK_COLUMNS};
use super::global::GlobalArgs;
use super::output;
use super::reach::{Reach, ReachArgs};
use super::select;
use super::show;
use super::suite::{self, SuiteName};
use crate::exit_code::Exit;
use crate::protocol::api::{TaskDetail, TaskFilter, TaskPage};
use crate::protocol::{Selector, TaskState};
use crate::wall_clock::unix_us;

const TASKS_HELP: &str = "\
Selectors, here and in task, logs, wait, cancel and retry: a uuid, at least six hex digits of its beginning, a number (NO),
a range of numbers such as 3-7, last (the newest task), last:5, a state such as failed, label:key or label:key=value.
What is named by itself (a uuid, a number, last) is always meant. Sets of one kind are alternatives, kinds restrict each
other: label:sweep=a failed cancelled means those of the sweep that failed or were cancelled. A suite (--suite) is named by
its uuid, its name, or the beginning of either, where only one begins so.

Examples:
  mitosis tasks
  mitosis tasks failed last:20
  mitosis tasks label:sweep=a -o csv
  mitosis tasks --state-dir ~/sweep --json | jq '.tasks[] | select(.attempts > 1)'

With --json one page is one object with `tasks` and, unless it is the last, `next_cursor` for --cursor.";

/// List tasks, oldest first.
#[derive(Debug, Args)]
#[command(after_help = TASKS_HELP)]
pub(super) struct TasksArgs {
    /// Only these tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR")]
    tasks: Vec<Selector>,
    /// Only tasks of this suite.
    #[arg(long, value_name = "SUITE")]
    suite: Option<SuiteName>,
    /// Only tasks in these states, separated by commas.
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<TaskState>,
    /// Most tasks to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the last page ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
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
            state: (!states.is_empty()).then(|| states.join(",")),
            cursor: self.cursor.clone(),
            limit: Some(self.limit),
            ..TaskFilter::default()
        };
        let reach = Reach::to_read(&self.reach).await?;
        let page = self.page(&reach, filter).await;
        reach.close().await;
        let page = page?;
        self.format.write(&page, &page.tasks, &TASK_COLUMNS, || {
            show::tasks(&page.tasks, unix_us())
        })?;
        if let Some(cursor) = page.next_cursor
            && global.quiet == 0
        {
            output::note(&format!(
                "there are more: add --cursor {cursor}, or a larger --limit"
            ));
        }
        Ok(Exit::Ok)
    }

    async fn page(&self, reach: &Reach, filter: TaskFilter) -> Result<TaskPage, Failure> {
        let filter = TaskFilter {
            suite: suite::uuid_of_some(reach, self.suite.as_ref()).await?,
            ..filter
        };
        select::page(reach, &filter, &self.tasks).await
    }
}

const TASK_HELP: &str = "\
Examples:
  mitosis task 42
  mitosis task last --why
  mitosis task failed --json | jq .result.message
  mitosis task 42 --artifacts results/42

--why says what the task waits for, or how its time was spent, phase by phase. Selectors are those of `mitosis tasks`.
--artifacts makes DIR/result and DIR/exec (the files the task left in MITO_RESULT_DIR and MITO_EXEC_DIR) and DIR/stdout and
DIR/stderr, as far as there is something, and prints what it made. Nothing is overwritten.";

/// Show everything about tasks, why one is not running, or fetch what one left.
#[derive(Debug, Args)]
#[command(after_help = TASK_HELP)]
pub(super) struct TaskArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR", required = true)]
    tasks: Vec<Selector>,
    /// What it waits for, or how its time was spent.
    #[arg(long, conflicts_with = "artifacts")]
    why: bool,
    /// One JSON object per task on stdout.
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
        looked.map(|()| Exit::Ok)
    }

    async fn look(&self, reach: &Reach) -> Result<(), Failure> {
        if let Some(dir) = &self.artifacts {
            return self.fetch(reach, dir).await;
        }
        for (place, uuid) in select::uuids(reach, &self.tasks)
            .await?
            .into_iter()
            .enumerate()
        {
            if place > 0 && !self.json {
                output::text("\n")?;
            }
            match (self.why, self.json) {
                (true, true) => output::json(&reach.why(uuid).await?)?,
                (true, false) => output::text(&explain::why(&reach.why(uuid).await?, unix_us()))?,
                (false, true) => output::json(&reach.task(uuid).await?)?,
                (false, false) => output::text(&show::task(&reach.task(uuid).await?))?,
            }
        }
        Ok(())
    }

    async fn fetch(&self, reach: &Reach, dir: &Path) -> Result<(), Failure> {
        let [selector] = &self.tasks[..] else {
            return Err(Failure::usage(anyhow!(
                "--artifacts is for one task; name one, and a directory for each"
            )));
        };
        let uuid = select::uuid(reach, selector).await?;
        let task = arrived(reach, reach.task(uuid).await?).await?;
        let made = artifacts::fetch(reach, &task, dir).await?;
        if self.json {
            return output::json(&task);
        }
        let lines = made.iter().map(|path| format!("{}\n", path.display()));
        output::text(&lines.collect::<String>())
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
