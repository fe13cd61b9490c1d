//! Reports into the store, so that one that cannot be stored stops no other.
//!
//! A batch is one transaction. One that fails for good is halved until the report that spoils it is alone; that one is
//! stored without anything its task wrote, with the reason in its result. Faults that pass are the sender's to repeat.

use std::sync::Arc;

use metrics::counter;

use super::Shared;
use crate::coordinator::store::{Committed, HolderId, StoreError};
use crate::protocol::session::Commit;
use crate::protocol::{ReportTaskOp, TaskResult, Verdict};
use crate::telemetry::names;

impl Shared {
    /// Applies reports of a holder: one verdict per report, in order.
    pub(in crate::coordinator) async fn commit(
        self: &Arc<Self>,
        holder: HolderId,
        commits: Vec<Commit>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let commit = |batch| Arc::clone(self).commit_batch(holder, batch);
        apart(commits, commit).await
    }

    async fn commit_batch(
        self: Arc<Self>,
        holder: HolderId,
        commits: Vec<Commit>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let committed = self.complete(move |shared| async move {
            shared.followers.note_ends(&commits);
            let mut reports = Vec::with_capacity(commits.len());
            for commit in commits {
                reports.push(shared.with_follow_ups(commit).await?);
            }
            let Committed { verdicts, changes } = shared.store.commit(holder, reports).await?;
            shared.publish(changes).await;
            Ok(verdicts)
        });
        committed.await
    }
}

/// Commits a batch, and where that fails for good its halves, down to single reports.
async fn apart<F, Fut>(batch: Vec<Commit>, commit: F) -> Result<Vec<Verdict>, StoreError>
where
    F: Fn(Vec<Commit>) -> Fut,
    Fut: Future<Output = Result<Vec<Verdict>, StoreError>>,
{
    let mut verdicts = Vec::with_capacity(batch.len());
    let mut waiting = vec![batch];
    while let Some(mut part) = waiting.pop() {
        let error = match commit(part.clone()).await {
            Ok(more) => {
                verdicts.extend(more);
                continue;
            }
            Err(error) if !is_the_reports_fault(&error) => return Err(error),
            Err(error) => error,
        };
        if part.len() > 1 {
            let behind = part.split_off(part.len() / 2);
            waiting.extend([behind, part]);
        } else if let Some(alone) = part.pop() {
            verdicts.push(without_its_words(alone, &error, &commit).await?);
        }
    }
    Ok(verdicts)
}

/// True for a failure that a repetition meets again, and that another report may not meet.
fn is_the_reports_fault(error: &StoreError) -> bool {
    match error {
        StoreError::Closed | StoreError::Replaced => false,
        error => !error.is_retryable(),
    }
}

/// Stores a report that spoils every batch without what its task wrote; refuses it where even that fails.
async fn without_its_words<F, Fut>(
    mut report: Commit,
    error: &StoreError,
    commit: &F,
) -> Result<Verdict, StoreError>
where
    F: Fn(Vec<Commit>) -> Fut,
    Fut: Future<Output = Result<Vec<Verdict>, StoreError>>,
{
    counter!(names::COORDINATOR_REPORTS_SET_ASIDE).increment(1);
    let (task, uuid) = (report.report.task_id, report.report.task_uuid);
    tracing::error!(%error, task, %uuid, "a report cannot be stored; it is stored without what its task wrote");
    strip(&mut report.report.op, error);
    match commit(vec![report]).await {
        Ok(verdicts) => Ok(verdicts
            .into_iter()
            .next()
            .unwrap_or_else(|| refused(error))),
        Err(again) if !is_the_reports_fault(&again) => Err(again),
        Err(again) => {
            tracing::error!(error = %again, task, %uuid, "a report cannot be stored at all; it is refused");
            Ok(refused(&again))
        }
    }
}

fn refused(error: &StoreError) -> Verdict {
    Verdict::Invalid {
        message: format!("it cannot be stored: {error}"),
    }
}

/// Leaves of a report what the program itself measured, and says so.
fn strip(op: &mut ReportTaskOp, error: &StoreError) {
    match op {
        ReportTaskOp::Completed(result)
        | ReportTaskOp::Failed(result)
        | ReportTaskOp::Cancelled(result) => {
            let message = format!(
                "what the task wrote (output, result, child tasks) is not kept, because it cannot be stored: {error}"
            );
            *result = TaskResult {
                exit_code: result.exit_code,
                signal: result.signal,
                handed_over_at_us: result.handed_over_at_us,
                started_at_us: result.started_at_us,
                cpu_user_us: result.cpu_user_us,
                cpu_system_us: result.cpu_system_us,
                max_rss_bytes: result.max_rss_bytes,
                direct: result.direct,
                ..TaskResult::not_started(result.reason, message, result.ended_at_us)
            };
        }
        ReportTaskOp::Released { reason } => {
            *reason = format!("its reason cannot be stored: {error}");
        }
        ReportTaskOp::Started { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use uuid::Uuid;

    use super::*;
    use crate::protocol::TaskReport;
    use crate::protocol::ids::{Lease, Try};
    use crate::protocol::report::{FollowUps, Reason};

    fn report(task_id: i64) -> Commit {
        let mut result = TaskResult::not_started(Reason::Exit, "", 0);
        result.exit_code = Some(0);
        result.follow_ups = Some(Box::new(FollowUps::written("{}".to_owned())));
        Commit {
            report: TaskReport {
                seq: 1,
                task_id,
                task_uuid: Uuid::nil(),
                lease: Lease(1),
                try_no: Try(1),
                op: ReportTaskOp::Completed(result),
            },
            attempt: 1,
            lost_tries: Vec::new(),
        }
    }

    fn fault() -> StoreError {
        StoreError::Fault {
            what: "odd".to_owned(),
        }
    }

    /// What was stored of a batch of 20 whose report 7 spoils every transaction, while it has anything a task wrote
    /// (`whole`) or always.
    async fn stored(always: bool) -> (Vec<Verdict>, Vec<Commit>) {
        let stored = RefCell::new(Vec::new());
        let spoils = |commit: &Commit| {
            let (_, result) = commit.report.op.result().unwrap();
            commit.report.task_id == 7 && (always || result.follow_ups.is_some())
        };
        let batch: Vec<Commit> = (0..20).map(report).collect();
        let verdicts = apart(batch, |batch: Vec<Commit>| {
            if batch.iter().any(spoils) {
                return ready(Err(fault()));
            }
            let verdicts = vec![Verdict::Accepted; batch.len()];
            stored.borrow_mut().extend(batch);
            ready(Ok(verdicts))
        });
        (verdicts.await.unwrap(), stored.take())
    }

    #[tokio::test]
    async fn a_report_that_spoils_its_batch_is_stored_alone_with_the_reason_and_stops_no_other() {
        let (verdicts, stored) = stored(false).await;
        assert_eq!(verdicts, vec![Verdict::Accepted; 20]);
        let order: Vec<i64> = stored.iter().map(|commit| commit.report.task_id).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        let (_, result) = stored[7].report.op.result().unwrap();
        assert_eq!(result.exit_code, Some(0));
        assert!(
            result.message.as_ref().unwrap().contains("odd"),
            "{result:?}"
        );
    }

    #[tokio::test]
    async fn one_that_cannot_be_stored_at_all_is_refused_in_words() {
        let (verdicts, stored) = stored(true).await;
        assert_eq!((verdicts.len(), stored.len()), (20, 19));
        assert!(matches!(&verdicts[7], Verdict::Invalid { message } if message.contains("odd")));
    }

    #[tokio::test]
    async fn a_passing_fault_is_the_senders_to_repeat() {
        let answer = apart(vec![report(1), report(2)], |_| {
            ready(Err(StoreError::Closed))
        });
        assert!(matches!(answer.await, Err(StoreError::Closed)));
    }
}
