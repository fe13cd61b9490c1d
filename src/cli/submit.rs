//! `submit`: handing tasks to a service.

use anyhow::anyhow;
use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::input::{ARGUMENTS_HELP, InputArgs, SpecArgs};
use super::output;
use super::patience::ReconnectArgs;
use super::reach::{Reach, ReachArgs};
use super::retry::RetryArgs;
use super::submission;
use super::suite::{self, SuiteName};
use super::surroundings::SurroundingsArgs;
use super::wait::{Waiting, exit_of};
use crate::exit_code::Exit;
use crate::protocol::api::{SubmitTask, SuiteRef};
use crate::run::input::{InputTask, Source};
use crate::run::options::SpecDefaults;
use crate::run::summary::plural;

const SUBMIT_HELP: &str = "\
The input is that of `mitosis run`: a file of shell commands, a .jsonl file of task specs, `-` for standard input, or a
command. All tasks are accepted, or none; many go up in parts, each repeated until it is answered. Each line of stdout is the uuid of a task, in order; with --json
stdout is one object with `suite` and `tasks`.

@ARGUMENTS@

Examples:
  mitosis submit tasks.jsonl --name nightly
  mitosis submit --array 1-100 -- ./simulate
  mitosis submit --wait ./train --rate {} ::: 0.1 0.01 0.001
  mitosis submit --wait -- make test
  mitosis submit --env-all --label sweep=a -- 'sort tasks.txt | uniq -c'
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
    surroundings: SurroundingsArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Name of the new suite the tasks are in.
    #[arg(long, value_name = "NAME", conflicts_with = "suite")]
    name: Option<String>,
    /// Add the tasks to this suite: its name, its uuid, or the beginning of either.
    #[arg(long, value_name = "SUITE")]
    suite: Option<SuiteName>,
    /// Wait until all have ended; the exit code says how.
    #[arg(long)]
    wait: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reconnect: ReconnectArgs,
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
        let surroundings = self.surroundings.read(global.quiet > 0)?;
        let task = |task: InputTask| {
            let spec = surroundings.applied(defaults.applied(task.spec))?;
            Ok(SubmitTask { key: None, spec })
        };
        let tasks: Result<Vec<_>, Failure> = tasks.into_iter().map(task).collect();
        let service = Reach::to_act(&self.reach).await?;
        let suite = match (&self.suite, self.name) {
            (Some(suite), _) => {
                let uuid = suite::uuid(&service.reading(), suite).await?;
                Some(SuiteRef::Uuid(uuid))
            }
            (None, name) => name.map(|name| SuiteRef::New { name }),
        };
        let answer = submission::hand_over(&service, suite, tasks?, global.quiet > 0).await?;
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
        let mut waiting = Waiting::new(service, self.reconnect, global);
        let waited = waiting.for_tasks(&uuids).await?;
        Ok(exit_of(&waited))
    }
}

fn nothing_to_submit(source: &Source, global: &GlobalArgs) -> Result<Exit, Failure> {
    if global.quiet == 0 {
        output::note(&format!("nothing to do: {source} has no tasks"));
    }
    Ok(Exit::Ok)
}
