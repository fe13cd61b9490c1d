//! `wait`, and the waiting of `submit --wait`: until tasks have ended, also over restarts of the coordinator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output;
use super::patience::{Patient, ReconnectArgs};
use super::reach::{Act, Reach, ReachArgs};
use super::select;
use super::suite::{self, SuiteName};
use crate::client::{ApiClient, ClientError};
use crate::exit_code::Exit;
use crate::protocol::api::{MAX_WAIT_TASKS, WaitRequest, WaitResponse};
use crate::protocol::{HumanDuration, Selector, TaskState};

/// Longest single call while waiting; the service answers earlier when the tasks have ended.
const ONE_WAIT: Duration = Duration::from_secs(30);
/// Pause after an answer that came early without an end: a service that is stopping gives one at once.
const BREATH: Duration = Duration::from_millis(100);

const WAIT_HELP: &str = "\
Without a selector: every task that has not ended yet. A task that was repeated counts by its newest repetition. A
coordinator that is away, because it is started again for example, is waited for (--reconnect).

Exit code: 0 when all completed, 1 when some failed or were cancelled, 4 when some had not ended when --timeout was over.

Examples:
  mitosis wait
  mitosis wait 42 50-60
  mitosis wait label:sweep=a
  mitosis wait --suite sweep --timeout 1h";

/// Wait until tasks have ended.
#[derive(Debug, Args)]
#[command(after_help = WAIT_HELP)]
pub(super) struct WaitArgs {
    /// The tasks: uuids, beginnings of uuids, numbers, 3-7, last, last:5, states, label:key=value [default: all that have
    /// not ended].
    #[arg(value_name = "SELECTOR")]
    tasks: Vec<Selector>,
    /// Every task of this suite.
    #[arg(long, value_name = "SUITE", conflicts_with = "tasks")]
    suite: Option<SuiteName>,
    /// Longest wait.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<HumanDuration>,
    /// One JSON object with `done` and `counts` on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reconnect: ReconnectArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

impl WaitArgs {
    pub(super) async fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let reading = service.reading();
        let mut waiting = Waiting::new(service, self.reconnect, global)
            .at_most(self.timeout.map(|timeout| timeout.0));
        let waited = if let Some(suite) = &self.suite {
            waiting
                .for_suite(suite::uuid(&reading, suite).await?)
                .await?
        } else if self.tasks.is_empty() {
            let open = TaskState::ALL
                .into_iter()
                .filter(|state| !state.is_terminal());
            let open: Vec<Selector> = open.map(Selector::State).collect();
            waiting
                .for_tasks(&select::uuids(&reading, &open).await?)
                .await?
        } else {
            let uuids = select::uuids(&reading, &self.tasks).await?;
            waiting.for_tasks(&uuids).await?
        };
        if self.json {
            output::json(&waited)?;
        } else if global.quiet == 0 {
            output::note(&in_words(&waited));
        }
        Ok(exit_of(&waited))
    }
}

/// Waiting for tasks of a service.
#[derive(Debug)]
pub(super) struct Waiting {
    service: Patient,
    until: Option<Instant>,
}

impl Waiting {
    /// For as long as it takes.
    pub(super) fn new(service: Act, reconnect: ReconnectArgs, global: &GlobalArgs) -> Self {
        Self {
            service: Patient::new(service, reconnect, global.quiet > 0),
            until: None,
        }
    }

    fn at_most(self, timeout: Option<Duration>) -> Self {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { until, ..self }
    }

    async fn for_suite(&mut self, suite: Uuid) -> Result<WaitResponse, Failure> {
        self.until_done(async |client, pause| client.wait_suite(suite, pause).await)
            .await
    }

    /// Waits for tasks, each by its newest life.
    pub(super) async fn for_tasks(&mut self, tasks: &[Uuid]) -> Result<WaitResponse, Failure> {
        let mut all = WaitResponse {
            done: true,
            counts: BTreeMap::new(),
        };
        for part in tasks.chunks(MAX_WAIT_TASKS) {
            let request = WaitRequest {
                tasks: part.to_vec(),
            };
            let ask = async |client: &ApiClient, pause| client.wait_tasks(&request, pause).await;
            let answer = self.until_done(ask).await?;
            all.done &= answer.done;
            for (state, count) in answer.counts {
                *all.counts.entry(state).or_insert(0) += count;
            }
        }
        Ok(all)
    }

    /// Asks until the answer is that all have ended, or the time is over.
    async fn until_done(
        &mut self,
        ask: impl AsyncFn(&ApiClient, Duration) -> Result<WaitResponse, ClientError>,
    ) -> Result<WaitResponse, Failure> {
        let mut known = WaitResponse {
            done: false,
            counts: BTreeMap::new(),
        };
        loop {
            let (asked, pause) = (Instant::now(), next_wait(self.until, Instant::now()));
            let called = self.service.call(self.until, async |client| {
                // What is left when the call is made, which may be the third.
                ask(client, next_wait(self.until, Instant::now())).await
            });
            let Some(answer) = called.await? else {
                return Ok(known);
            };
            if answer.done || pause.is_zero() {
                return Ok(answer);
            }
            known = answer;
            if asked.elapsed() < pause {
                tokio::time::sleep(BREATH.min(pause)).await;
            }
        }
    }
}

/// What is left of a time limit, at most one call's worth.
fn next_wait(until: Option<Instant>, now: Instant) -> Duration {
    until.map_or(ONE_WAIT, |until| {
        until.saturating_duration_since(now).min(ONE_WAIT)
    })
}

/// How the command ends that waited.
pub(super) fn exit_of(waited: &WaitResponse) -> Exit {
    let good = |(state, count): (&TaskState, &u64)| *state == TaskState::Completed || *count == 0;
    if !waited.done {
        Exit::TimedOut
    } else if waited.counts.iter().all(good) {
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
    match (words.is_empty(), waited.done) {
        (true, true) => "no tasks".to_owned(),
        (true, false) => "the time is over, and nothing is known of the tasks".to_owned(),
        (false, true) => words.join(", "),
        (false, false) => format!("the time is over: {}", words.join(", ")),
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
    fn only_completed_tasks_make_a_good_end_and_a_time_limit_is_no_failure_of_a_task() {
        use TaskState::{Cancelled, Completed, Failed, Running};
        assert_eq!(exit_of(&waited(true, &[(Completed, 2)])), Exit::Ok);
        assert_eq!(exit_of(&waited(true, &[])), Exit::Ok);
        assert_eq!(
            exit_of(&waited(true, &[(Completed, 2), (Failed, 1)])),
            Exit::TaskFailed
        );
        assert_eq!(exit_of(&waited(true, &[(Cancelled, 1)])), Exit::TaskFailed);
        assert_eq!(exit_of(&waited(false, &[(Running, 1)])), Exit::TimedOut);
        let both = waited(false, &[(Running, 1), (Failed, 1)]);
        assert_eq!(exit_of(&both), Exit::TimedOut);
    }

    #[test]
    fn a_time_limit_is_waited_for_in_parts() {
        let now = Instant::now();
        let until = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!(next_wait(None, now), ONE_WAIT);
        assert_eq!(next_wait(until(0), now), Duration::ZERO);
        assert_eq!(next_wait(until(5), now), Duration::from_secs(5));
        assert_eq!(next_wait(until(500), now), ONE_WAIT);
    }

    #[test]
    fn the_words_name_what_there_is() {
        let ended = waited(true, &[(TaskState::Completed, 2), (TaskState::Failed, 0)]);
        assert_eq!(in_words(&ended), "2 completed");
        assert_eq!(in_words(&waited(true, &[])), "no tasks");
        let open = waited(false, &[(TaskState::Running, 1)]);
        assert_eq!(in_words(&open), "the time is over: 1 running");
    }
}
