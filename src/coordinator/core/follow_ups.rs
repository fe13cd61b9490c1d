//! What tasks submit through `MITO_NEW_TASK`: lines in, tasks to be stored with the end of their task out.
//!
//! A line is accepted or refused for itself, and the refusal is noted in the result of the task in words; a report is
//! never refused because of them. The lines of one task may name each other in `upstream`.

use std::collections::HashSet;

use uuid::Uuid;

use super::Shared;
use super::fit::lack;
use super::submit::encode_spec;
use crate::coordinator::store::{NewTask, Reported, StoreError};
use crate::protocol::chain::Chain;
use crate::protocol::report::{FollowUps, MAX_FOLLOW_UP_BYTES, MAX_FOLLOW_UPS, ReportTaskOp};
use crate::protocol::session::Commit;
use crate::protocol::task::MAX_SPEC_BYTES;
use crate::protocol::task_lines::{self, Problem};
use crate::protocol::{TaskResult, TaskSpec};

/// A good line with its number.
type Line = (u64, TaskSpec);

impl Shared {
    /// Takes the lines out of a report and makes tasks of them.
    pub(super) async fn with_follow_ups(&self, mut commit: Commit) -> Result<Reported, StoreError> {
        let taken = result_of(&mut commit.report.op).and_then(|(completed, result)| {
            let follow_ups = result.follow_ups.as_mut()?;
            let lines = follow_ups.lines.take()?;
            completed.then(|| (lines, FollowUps::clone(follow_ups)))
        });
        let Some((text, mut noted)) = taken else {
            return Ok(commit.into());
        };
        let mut lines = read(&text, &mut noted);
        self.refuse_unknown_uuids(&mut lines, &mut noted).await?;
        let capacities = self.capacities(lines.iter().map(|(_, spec)| spec)).await?;
        lines.retain(|(line, spec)| {
            let lack = lack(&capacities, &spec.resources);
            if let Some(lack) = &lack {
                let (wanted, there) = (&lack.wanted, &lack.there);
                noted.reject(format!(
                    "line {line}: it needs {wanted}, and there is no more than {there}"
                ));
            }
            lack.is_none()
        });
        let follow_ups = tasks(lines, &mut noted);
        noted.accepted = u32::try_from(follow_ups.len()).unwrap_or(u32::MAX);
        if let Some((_, result)) = result_of(&mut commit.report.op) {
            result.follow_ups = Some(Box::new(noted));
        }
        Ok(Reported { commit, follow_ups })
    }

    /// Refuses lines that wait for a task that is not there. Tasks stay, so what is there now will be.
    async fn refuse_unknown_uuids(
        &self,
        lines: &mut Vec<Line>,
        noted: &mut FollowUps,
    ) -> Result<(), StoreError> {
        loop {
            let uuids: HashSet<Uuid> = lines
                .iter()
                .flat_map(|(_, spec)| spec.upstream.iter().filter_map(|entry| entry.uuid()))
                .collect();
            if uuids.is_empty() {
                return Ok(());
            }
            match self.store.counts_of(uuids.into_iter().collect()).await {
                Ok(_) => return Ok(()),
                Err(StoreError::NotFound { uuid, .. }) => lines.retain(|(line, spec)| {
                    let waits = spec.upstream.iter().any(|entry| entry.uuid() == Some(uuid));
                    if waits {
                        noted.reject(format!("line {line}: there is no upstream task {uuid}"));
                    }
                    !waits
                }),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The result of a report that ends its task, and whether it is a good end.
fn result_of(op: &mut ReportTaskOp) -> Option<(bool, &mut TaskResult)> {
    match op {
        ReportTaskOp::Completed(result) => Some((true, result)),
        ReportTaskOp::Failed(result) | ReportTaskOp::Cancelled(result) => Some((false, result)),
        ReportTaskOp::Started { .. } | ReportTaskOp::Released { .. } => None,
    }
}

fn read(text: &str, noted: &mut FollowUps) -> Vec<Line> {
    if text.len() > MAX_FOLLOW_UP_BYTES {
        let bytes = text.len();
        noted.reject(format!(
            "there are {bytes} bytes, and {MAX_FOLLOW_UP_BYTES} is the most that is accepted"
        ));
        return Vec::new();
    }
    let mut lines = Vec::new();
    for (line, bytes) in task_lines::numbered(text.as_bytes()) {
        match task_lines::spec(bytes) {
            Ok(None) => {}
            Ok(Some(_)) if lines.len() >= MAX_FOLLOW_UPS => noted.reject(format!(
                "line {line}: a task submits at most {MAX_FOLLOW_UPS} others"
            )),
            // A line that fits may be longer once defaults and escapes are written out.
            Ok(Some(spec)) => match encode_spec(0, &spec) {
                Ok(_) => lines.push((line, spec)),
                Err(_) => noted.reject(format!(
                    "line {line}: the task is longer than {MAX_SPEC_BYTES} bytes"
                )),
            },
            Err(problem) => noted.reject(problem.at(line)),
        }
    }
    lines
}

/// The tasks of good lines; a line whose names lead nowhere is refused, and then what waits for it.
fn tasks(mut lines: Vec<Line>, noted: &mut FollowUps) -> Vec<NewTask> {
    let chain = loop {
        match Chain::of(lines.iter().map(|(_, spec)| spec)) {
            Ok(chain) => break chain,
            Err(error) => {
                let (line, _) = lines.remove(error.index);
                noted.reject(Problem::Chain(error.problem).at(line));
            }
        }
    };
    let mut tasks = Vec::with_capacity(lines.len());
    for ((line, spec), links) in lines.into_iter().zip(chain.links) {
        match encode_spec(0, &spec) {
            Ok(encoded) => tasks.push(NewTask {
                key: None,
                spec,
                encoded,
                links,
            }),
            Err(error) => noted.reject(format!("line {line}: {error}")),
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (Vec<String>, FollowUps) {
        let mut noted = FollowUps::default();
        let tasks = tasks(read(text, &mut noted), &mut noted);
        let names = tasks.iter().map(|task| task.spec.args[0].clone());
        (names.collect(), noted)
    }

    #[test]
    fn each_line_is_accepted_or_refused_for_itself() {
        let (names, noted) = taken(
            "{\"args\":[\"a\"],\"id\":\"a\"}\n{\"args\": [}\n\n{\"args\":[\"b\"],\"upstream\":[\"a\"]}\n{\"args\":[]}\n",
        );
        assert_eq!(names, ["a", "b"]);
        assert_eq!(noted.rejected, 2);
        assert!(
            noted.problems[0].starts_with("line 2, column 11: "),
            "{noted:?}"
        );
        assert!(
            noted.problems[1].starts_with("line 5: `args` is empty"),
            "{noted:?}"
        );
    }

    #[test]
    fn what_waits_for_a_refused_line_is_refused() {
        let (names, noted) = taken(
            "{\"args\":[\"a\"],\"upstream\":[\"b\"]}\n{\"args\":[\"b\"],\"id\":\"b\",\"upstream\":[\"nobody\"]}\n{\"args\":[\"c\"]}",
        );
        assert_eq!(
            (names.as_slice(), noted.rejected),
            (&["c".to_owned()][..], 2)
        );
    }

    #[test]
    fn their_number_is_bounded() {
        let (names, noted) = taken(&"{\"args\":[\"a\"]}\n".repeat(MAX_FOLLOW_UPS + 20));
        assert_eq!(
            (names.len(), noted.rejected, noted.problems.len()),
            (MAX_FOLLOW_UPS, 20, 10)
        );
    }
}
