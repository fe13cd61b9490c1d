//! Handing tasks over in parts, so that any number of them can be, and so that it is known what became of them.
//!
//! A part is repeated until it is answered; the coordinator knows the parts that it has, also over a restart, and begins
//! nothing before the last one. So whatever happens on the way, all tasks are accepted or none, and which is said.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use uuid::Uuid;

use super::failure::Failure;
use super::reach::{Act, refused};
use crate::client::ClientError;
use crate::protocol::api::{SubmitRequest, SubmitResponse, SubmitTask, SuiteRef};

/// Most tasks of one part, and about the most bytes: some hundredths of a second of the coordinator's writer.
const PART_TASKS: usize = 4096;
const PART_BYTES: usize = 4 << 20;
/// How long a coordinator that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Hands tasks over, all or none.
pub(super) async fn hand_over(
    service: &Act,
    suite: Option<SuiteRef>,
    tasks: Vec<SubmitTask>,
    quiet: bool,
) -> Result<SubmitResponse, Failure> {
    let submission = Uuid::now_v7();
    let all = tasks.len();
    let parts = parts(tasks);
    let bar = progress(all, quiet || parts.len() == 1);
    let last = parts.len().saturating_sub(1);
    let mut answer: Option<SubmitResponse> = None;
    let mut suite = suite;
    for (number, tasks) in parts.into_iter().enumerate() {
        let before = answer.as_ref().map_or(0, |answer| answer.tasks.len());
        let request = SubmitRequest {
            suite: suite.take(),
            tasks,
        };
        let sent = send(
            service,
            submission,
            (number, number == last),
            before,
            &request,
        )
        .await;
        match sent {
            Ok(part) => match &mut answer {
                Some(answer) => answer.tasks.extend(part.tasks),
                None => answer = Some(part),
            },
            Err(error) => {
                bar.finish_and_clear();
                // The coordinator does the same in an hour.
                let _ = service.client().abandon(submission).await;
                let suite = answer.map(|answer| answer.suite);
                return Err(given_up(error, number == last, (before, all), suite));
            }
        }
        bar.set_position(answer.as_ref().map_or(0, |answer| answer.tasks.len()) as u64);
    }
    bar.finish_and_clear();
    answer.ok_or_else(|| Failure::usage(anyhow!("there is nothing to submit")))
}

/// Sends a part until it is answered, or nobody has answered for too long.
async fn send(
    service: &Act,
    submission: Uuid,
    part: (usize, bool),
    before: usize,
    request: &SubmitRequest,
) -> Result<SubmitResponse, ClientError> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let client = service.client();
        let sent = client.submit_part(submission, part, before, request).await;
        match sent {
            Err(error) if error.is_retryable() && began.elapsed() < PATIENCE => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answered => return answered,
        }
    }
}

/// What is known when a submission is given up.
fn given_up(
    error: ClientError,
    is_last: bool,
    (before, all): (usize, usize),
    suite: Option<Uuid>,
) -> Failure {
    // A refusal is an answer, and so is a connection that was never there.
    let is_unknown = is_last
        && matches!(
            error,
            ClientError::Interrupted { .. }
                | ClientError::Silent { .. }
                | ClientError::Protocol { .. }
        );
    if is_unknown {
        let look = match suite {
            Some(suite) => {
                format!("`mitosis suite {suite}` tells: accepted when its tasks are not pending")
            }
            None => "`mitosis suites` tells".to_owned(),
        };
        let words = anyhow!(
            "{all} tasks were sent, and the coordinator did not say whether it accepted them; {look}"
        );
        return Failure::system(anyhow::Error::new(error).context(words.to_string()));
    }
    if before == 0 {
        return refused(error);
    }
    let words = format!(
        "{before} of {all} tasks were handed over; none of them is accepted, and none will run"
    );
    let is_refusal = error
        .status()
        .is_some_and(|status| (400..500).contains(&status));
    let error = anyhow::Error::new(error).context(words);
    match is_refusal {
        true => Failure::usage(error),
        false => Failure::system(error),
    }
}

/// Cuts tasks into parts. Tasks that wait for each other stay together.
fn parts(tasks: Vec<SubmitTask>) -> Vec<Vec<SubmitTask>> {
    let is_linked = |task: &SubmitTask| !task.spec.upstream.is_empty();
    if tasks.len() <= PART_TASKS && size(&tasks) <= PART_BYTES || tasks.iter().any(is_linked) {
        return vec![tasks];
    }
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for task in tasks {
        let more = size(&task);
        if let Some(last) = parts.last_mut() {
            if !last.is_empty() && (last.len() == PART_TASKS || bytes + more > PART_BYTES) {
                parts.push(vec![task]);
                bytes = more;
            } else {
                last.push(task);
                bytes += more;
            }
        }
    }
    parts
}

/// Bytes of a value as JSON; what has none is refused when it is sent.
fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

fn progress(tasks: usize, hidden: bool) -> ProgressBar {
    let target = match hidden {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(tasks as u64), target);
    match ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} handed over, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskSpec;

    fn task(argument: &str) -> SubmitTask {
        SubmitTask {
            key: None,
            spec: TaskSpec::argv(["echo", argument]),
        }
    }

    #[test]
    fn parts_are_bounded_by_number_and_by_size_and_lose_nothing() {
        let many: Vec<_> = (0..10_000).map(|n| task(&n.to_string())).collect();
        let parts_of_many = parts(many.clone());
        let lengths: Vec<usize> = parts_of_many.iter().map(Vec::len).collect();
        assert_eq!(lengths, [4096, 4096, 1808]);
        assert_eq!(parts_of_many.concat(), many);
        let large: Vec<_> = (0..9).map(|_| task(&"x".repeat(1 << 20))).collect();
        assert!(parts(large).iter().all(|part| part.len() <= 3));
    }

    #[test]
    fn a_graph_stays_in_one_piece() {
        let mut tasks: Vec<_> = (0..10_000).map(|n| task(&n.to_string())).collect();
        let waits = serde_json::from_str(r#"{"args":["true"],"upstream":["a"]}"#);
        tasks.push(SubmitTask {
            key: None,
            spec: waits.unwrap(),
        });
        assert_eq!(parts(tasks).len(), 1);
    }
}
