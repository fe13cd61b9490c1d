//! `submit` and `wait`: handing tasks to a service and waiting for their ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::input::{ARGUMENTS_HELP, InputArgs, SpecArgs};
use super::output;
use super::reach::{Act, Reach, ReachArgs};
use super::retry::RetryArgs;
use super::{select, submission};
use crate::exit_code::Exit;
use crate::protocol::api::{SubmitTask, SuiteRef, WaitResponse};
use crate::protocol::{HumanDuration, Selector, TaskState};
use crate::run::input::Source;
use crate::run::options::SpecDefaults;
use crate::run::summary::plural;

/// Longest single call while waiting; the service answers earlier when the tasks have ended.
const ONE_WAIT: Duration = Duration::from_secs(30);

const SUBMIT_HELP: &str = "\
The input is that of `mitosis run`: a file of shell commands, a .jsonl file of task specs, `-` for standard input, or a
command. All tasks are accepted, or none; many go up in parts, each repeated until it is answered. Each line of stdout is the uuid of a task, in order; with --json
stdout is one object with `suite` and `tasks`.

@ARGUMENTS@

Examples:
  mitosis submit tasks.jsonl --name sweep
  mitosis submit --array 1-100 -- ./simulate
  mitosis submit --wait ./train --rate {} ::: 0.1 0.01 0.001
  mitosis submit --wait -- make -C /src test
  id=$(mitosis submit --quiet -- sleep 60)";

/// Hand tasks to a running service.
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP.replace("@ARGUMENTS@", ARGUMENTS_HELP))]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Name of the new suite the tasks are in.
    #[arg(long, value_name = "NAME", conflicts_with = "suite")]
    name: Option<String>,
    /// Add the tasks to this suite.
    #[arg(long, value_name = "UUID")]
    suite: Option<Uuid>,
    /// Wait until all have ended; the exit code says how.
    #[arg(long)]
    wait: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl SubmitArgs {
    fn defaults(&self) -> SpecDefaults {
        SpecDefaults {
            shell_program: self.input.shell_program(),
            ..self.retry.added(self.spec.defaults())
        }
    }

    pub(super) async fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        if let Some(shown) = self.input.dry_run(&self.defaults(), self.json)? {
            return Ok(shown);
        }
        if let Some(most) = self.input.max_parallel() {
            return Err(Failure::usage(anyhow!(
                "a service does not limit how many tasks of one submit run at a time; leave `%{most}` out, or use \
                 `mitosis run`"
            )));
        }
        let source = self.input.source()?;
        let tasks = self.input.read(&source)?;
        if tasks.is_empty() {
            return nothing_to_submit(&source, global);
        }
        let defaults = self.defaults();
        let task = |task: crate::run::input::InputTask| SubmitTask {
            key: None,
            spec: defaults.applied(task.spec),
        };
        let suite = match (self.suite, self.name) {
            (Some(uuid), _) => Some(SuiteRef::Uuid(uuid)),
            (None, name) => name.map(|name| SuiteRef::New { name }),
        };
        let tasks = tasks.into_iter().map(task).collect();
        let service = Reach::to_act(&self.reach).await?;
        let answer = submission::hand_over(&service, suite, tasks, global.quiet > 0).await?;
        if self.json {
            output::json(&answer)?;
        } else {
            let uuids: String = answer
                .tasks
                .iter()
                .map(|task| format!("{}\n", task.uuid))
                .collect();
            output::text(&uuids)?;
        }
        if global.quiet == 0 {
            let count = plural(answer.tasks.len() as u64, "task");
            output::note(&format!("{count} accepted in suite {}", answer.suite));
        }
        if !self.wait {
            return Ok(Exit::Ok);
        }
        let uuids: Vec<Uuid> = answer.tasks.iter().map(|task| task.uuid).collect();
        let waited = wait_for_tasks(&service, &uuids, None).await?;
        Ok(exit_of(&waited))
    }
}

fn nothing_to_submit(source: &Source, global: &GlobalArgs) -> Result<Exit, Failure> {
    if global.quiet == 0 {
        output::note(&format!("nothing to do: {source} has no tasks"));
    }
    Ok(Exit::Ok)
}

const WAIT_HELP: &str = "\
Exit code: 0 when all completed, 1 when some failed, were cancelled, or had not ended when --timeout was over.

Examples:
  mitosis wait 42 50-60
  mitosis wait label:sweep=a
  mitosis wait --suite 0199f3a2-7c11-7000-8000-0123456789ab --timeout 1h";

/// Wait until tasks have ended.
#[derive(Debug, Args)]
#[command(after_help = WAIT_HELP)]
pub(super) struct WaitArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR", required_unless_present = "suite")]
    tasks: Vec<Selector>,
    /// Every task of this suite.
    #[arg(long, value_name = "UUID", conflicts_with = "tasks")]
    suite: Option<Uuid>,
    /// Longest wait.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<HumanDuration>,
    /// One JSON object with `done` and `counts` on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl WaitArgs {
    pub(super) async fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let timeout = self.timeout.map(|timeout| timeout.0);
        let waited = if let Some(suite) = self.suite {
            wait_for_suite(&service, suite, timeout).await?
        } else {
            let uuids = select::uuids(&service.reading(), &self.tasks).await?;
            wait_for_tasks(&service, &uuids, timeout).await?
        };
        if self.json {
            output::json(&waited)?;
        } else if global.quiet == 0 {
            output::note(&in_words(&waited));
        }
        Ok(exit_of(&waited))
    }
}

/// What is left of a time limit, at most one call's worth.
fn next_wait(began: Instant, timeout: Option<Duration>) -> Duration {
    timeout.map_or(ONE_WAIT, |timeout| {
        timeout.saturating_sub(began.elapsed()).min(ONE_WAIT)
    })
}

async fn wait_for_suite(
    service: &Act,
    suite: Uuid,
    timeout: Option<Duration>,
) -> Result<WaitResponse, Failure> {
    let began = Instant::now();
    loop {
        let pause = next_wait(began, timeout);
        let answer = service.wait_suite(suite, pause).await?;
        if answer.done || pause.is_zero() {
            return Ok(answer);
        }
    }
}

async fn wait_for_tasks(
    service: &Act,
    tasks: &[Uuid],
    timeout: Option<Duration>,
) -> Result<WaitResponse, Failure> {
    let began = Instant::now();
    let mut all = WaitResponse {
        done: true,
        counts: BTreeMap::new(),
    };
    for task in tasks {
        let answer = loop {
            let pause = next_wait(began, timeout);
            let answer = service.wait_task(*task, pause).await?;
            if answer.done || pause.is_zero() {
                break answer;
            }
        };
        all.done &= answer.done;
        for (state, count) in answer.counts {
            *all.counts.entry(state).or_insert(0) += count;
        }
    }
    Ok(all)
}

fn exit_of(waited: &WaitResponse) -> Exit {
    let good = |(state, count): (&TaskState, &u64)| *state == TaskState::Completed || *count == 0;
    if waited.done && waited.counts.iter().all(good) {
        Exit::Ok
    } else {
        Exit::TaskFailed
    }
}

fn in_words(waited: &WaitResponse) -> String {
    let counts = waited.counts.iter().filter(|(_, count)| **count > 0);
    let words: Vec<String> = counts
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if words.is_empty() {
        "no tasks".to_owned()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(done: bool, counts: &[(TaskState, u64)]) -> WaitResponse {
        WaitResponse {
            done,
            counts: counts.iter().copied().collect(),
        }
    }

    #[test]
    fn only_completed_tasks_make_a_good_end() {
        use TaskState::{Cancelled, Completed, Failed, Running};
        assert_eq!(exit_of(&waited(true, &[(Completed, 2)])), Exit::Ok);
        assert_eq!(exit_of(&waited(true, &[])), Exit::Ok);
        assert_eq!(
            exit_of(&waited(true, &[(Completed, 2), (Failed, 1)])),
            Exit::TaskFailed
        );
        assert_eq!(exit_of(&waited(true, &[(Cancelled, 1)])), Exit::TaskFailed);
        assert_eq!(exit_of(&waited(false, &[(Running, 1)])), Exit::TaskFailed);
    }

    #[test]
    fn a_time_limit_is_waited_for_in_parts() {
        let now = Instant::now();
        assert_eq!(next_wait(now, None), ONE_WAIT);
        assert_eq!(next_wait(now, Some(Duration::ZERO)), Duration::ZERO);
        assert!(next_wait(now, Some(Duration::from_secs(5))) <= Duration::from_secs(5));
        assert_eq!(next_wait(now, Some(ONE_WAIT * 5)), ONE_WAIT);
    }

    #[test]
    fn the_words_name_what_there_is() {
        assert_eq!(
            in_words(&waited(
                true,
                &[(TaskState::Completed, 2), (TaskState::Failed, 0)]
            )),
            "2 completed"
        );
        assert_eq!(in_words(&waited(true, &[])), "no tasks");
    }
}
