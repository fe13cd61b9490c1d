//! `logs`: what a task wrote, or writes.
//!
//! Arguments and exit code here; reading part by part is [`reader`]'s, writing [`printer`]'s. They are joined by one
//! bounded channel, so that a reader of this command's output that stops holds up this command and nobody else.

use anyhow::anyhow;
use clap::Args;
use uuid::Uuid;

use super::failure::{Failure, OrFail};
use super::global::GlobalArgs;
use super::output;
use super::patience::ReconnectArgs;
use super::reach::{Act, Reach, ReachArgs};
use super::select;
use super::show;
use crate::exit_code::Exit;
use crate::protocol::api::TaskDetail;
use crate::protocol::{LogStream, Selector, TaskState};
use printer::Printer;
use reader::{Reader, Stop};

mod printer;
mod reader;

/// Which streams to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Streams {
    /// Standard output on stdout and standard error on stderr.
    #[default]
    Both,
    /// Standard output alone, on stdout.
    Stdout,
    /// Standard error alone, on stdout.
    Stderr,
}

impl Streams {
    fn each(self) -> &'static [LogStream] {
        match self {
            Self::Both => &[LogStream::Stdout, LogStream::Stderr],
            Self::Stdout => &[LogStream::Stdout],
            Self::Stderr => &[LogStream::Stderr],
        }
    }
}

const LOGS_HELP: &str = "\
The output is written as it is, byte by byte, whatever the machine the task runs on. Of a task that runs, without -f: what it
has written so far. Where a task wrote more than its capture limit, a note on standard error says which bytes were dropped.

With -f: waits for the task if it has not begun, follows it through all its attempts and ends with it. Exit code: 0 when
it completed, 1 when it failed or was cancelled, 130 after Ctrl-C, which does nothing to the task.

Examples:
  mitosis logs 42
  mitosis logs -f last
  mitosis logs failed --stream stderr
  mitosis logs 42 --attempt 1
  mitosis logs 42 --stream stderr | less";

/// Write what a task wrote, byte by byte; with -f, what it writes.
#[derive(Debug, Args)]
#[command(after_help = LOGS_HELP)]
pub(super) struct LogsArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value.
    #[arg(value_name = "SELECTOR", required = true)]
    tasks: Vec<Selector>,
    /// Go on until the task, which has to be one, has ended; the exit code says how.
    #[arg(short, long)]
    follow: bool,
    /// What this attempt wrote, from 1, instead of the last; `mitosis task` lists them.
    #[arg(long, value_name = "N", conflicts_with = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Which streams.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t)]
    stream: Streams,
    #[command(flatten)]
    reconnect: ReconnectArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

impl LogsArgs {
    pub(super) async fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        let reach = Reach::to_read(&self.reach).await?;
        let written = match &reach {
            Reach::Service(service) => self.interruptible(service, global).await,
            Reach::Store(_) => self.stored(&reach).await,
        };
        reach.close().await;
        written
    }

    /// From a store that nobody serves, where nothing runs.
    async fn stored(&self, reach: &Reach) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        for uuid in self.uuids(reach).await? {
            exit = self.stored_one(reach, uuid).await?;
        }
        Ok(exit)
    }

    /// The tasks that are named; one, where it is to be followed.
    async fn uuids(&self, reach: &Reach) -> Result<Vec<Uuid>, Failure> {
        match &self.tasks[..] {
            [selector] if self.follow => Ok(vec![select::uuid(reach, selector).await?]),
            _ if self.follow => Err(Failure::usage(anyhow!("-f follows one task; name one"))),
            several => select::uuids(reach, several).await,
        }
    }

    async fn stored_one(&self, reach: &Reach, uuid: Uuid) -> Result<Exit, Failure> {
        let task = reach.task(uuid).await?;
        if task.result.is_none() && self.follow {
            let state = task.summary.state;
            return Err(Failure::usage(anyhow!(
                "task {uuid} is {state} and no coordinator serves it; start one with `mitosis up` on its state directory"
            )));
        }
        self.kept(reach, uuid).await?;
        Ok(self.exit(&task))
    }

    /// Writes what is kept of one task, or of one of its attempts.
    async fn kept(&self, reach: &Reach, uuid: Uuid) -> Result<(), Failure> {
        for stream in self.stream.each() {
            let log = reach.log(uuid, *stream, self.attempt).await?;
            if self.goes_to_stderr(*stream) {
                output::stderr_bytes(&log.bytes);
            } else {
                output::bytes(&log.bytes)?;
            }
            if log.missing > 0 {
                output::note(&format!(
                    "mitosis: {} bytes of what task {uuid} wrote to {} are not kept",
                    log.missing,
                    stream.as_str()
                ));
            }
        }
        Ok(())
    }

    async fn interruptible(&self, service: &Act, global: &GlobalArgs) -> Result<Exit, Failure> {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted.or_system().map(|()| Exit::Interrupted),
            written = self.served(service, global) => written,
        }
    }

    async fn served(&self, service: &Act, global: &GlobalArgs) -> Result<Exit, Failure> {
        let uuids = self.uuids(&service.reading()).await?;
        if self.attempt.is_some() {
            for uuid in uuids {
                self.kept(&service.reading(), uuid).await?;
            }
            return Ok(Exit::Ok);
        }
        let (printer, said_tx) = Printer::start(self.stream == Streams::Stderr, global.quiet == 0)?;
        let parts = uuids.iter().flat_map(|uuid| {
            let streams = self.stream.each().iter();
            streams.map(move |stream| (*uuid, *stream))
        });
        let readers = parts.map(|(uuid, stream)| {
            let reader = Reader::new(
                service.clone(),
                uuid,
                stream,
                said_tx.clone(),
                self.reconnect.patience(),
            );
            if self.follow {
                reader.following()
            } else {
                reader
            }
        });
        let read = if self.follow {
            futures_util::future::try_join_all(readers.map(Reader::run))
                .await
                .map(drop)
        } else {
            one_after_the_other(readers).await
        };
        drop(said_tx);
        match (printer.finish().await?, read) {
            // Whoever read this output has seen enough of it.
            (false, _) | (_, Err(Stop::NobodyReads)) => return Ok(Exit::Ok),
            (true, Err(Stop::Failed(failure))) => return Err(failure),
            (true, Ok(())) => {}
        }
        let ([uuid], true) = (&uuids[..], self.follow) else {
            return Ok(Exit::Ok);
        };
        let task = service.task(*uuid).await?;
        if global.quiet == 0
            && let Some(words) = end_in_words(&task)
        {
            output::note(&words);
        }
        Ok(self.exit(&task))
    }

    fn goes_to_stderr(&self, stream: LogStream) -> bool {
        self.stream == Streams::Both && stream == LogStream::Stderr
    }

    /// Who only looks is done; who followed hears how it ended.
    fn exit(&self, task: &TaskDetail) -> Exit {
        if !self.follow || task.summary.state == TaskState::Completed {
            Exit::Ok
        } else {
            Exit::TaskFailed
        }
    }
}

async fn one_after_the_other(readers: impl Iterator<Item = Reader>) -> Result<(), Stop> {
    for reader in readers {
        reader.run().await?;
    }
    Ok(())
}

/// Why a task that was followed did not complete.
fn end_in_words(task: &TaskDetail) -> Option<String> {
    let summary = &task.summary;
    let result = task.result.as_ref()?;
    if summary.state == TaskState::Completed {
        return None;
    }
    let (uuid, state, end) = (summary.uuid, summary.state, show::end(result));
    let begun = if result.started_at_us.is_none() && summary.attempts == 0 {
        " without being run"
    } else {
        ""
    };
    let message = result
        .message
        .as_ref()
        .map(|message| format!("; {message}"));
    Some(format!(
        "mitosis: task {uuid} {state}{begun} ({end}{})",
        message.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api::TaskSummary;
    use crate::protocol::report::Reason;
    use crate::protocol::{TaskResult, TaskSpec};
    use uuid::Uuid;

    fn ended(state: TaskState, attempts: u32, result: TaskResult) -> TaskDetail {
        TaskDetail {
            summary: TaskSummary {
                id: 7,
                uuid: Uuid::nil(),
                suite: Uuid::nil(),
                state,
                reason: None,
                exit_code: None,
                attempts,
                priority: 0,
                command: String::new(),
                accepted_at_us: 0,
                started_at_us: None,
                finished_at_us: None,
                waits_for: 0,
                due_at_us: None,
                retry_of: None,
                follow_up_of: None,
            },
            spec: TaskSpec::argv(["x"]),
            key: None,
            lease: None,
            holder: None,
            claimed_at_us: None,
            cancel_requested: false,
            result: Some(result),
            history: Vec::new(),
            upstream: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    #[test]
    fn an_end_is_told_unless_it_is_the_good_one() {
        let good = TaskResult {
            exit_code: Some(0),
            message: None,
            started_at_us: Some(1),
            ..TaskResult::not_started(Reason::Exit, "", 2)
        };
        let bad = TaskResult {
            exit_code: Some(3),
            ..good.clone()
        };
        assert_eq!(end_in_words(&ended(TaskState::Completed, 1, good)), None);
        let words = end_in_words(&ended(TaskState::Failed, 1, bad)).unwrap();
        assert!(words.ends_with("failed (exit, exit code 3)"), "{words}");
        let never = TaskResult::not_started(Reason::UpstreamFailed, "task x failed", 2);
        let words = end_in_words(&ended(TaskState::Failed, 0, never)).unwrap();
        let expected = "failed without being run (upstream_failed; task x failed)";
        assert!(words.ends_with(expected), "{words}");
    }
}
