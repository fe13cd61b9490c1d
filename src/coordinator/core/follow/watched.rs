//! What is remembered of tasks that are followed: who holds them, and the last words of an attempt that another follows.
//!
//! All of it may be forgotten at any moment: a holder is found in the store, and last words that are not there any more
//! are missing, which the reader of an attempt that was followed by another is told to expect.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{Follow, output_of};
use crate::coordinator::store::Holder;
use crate::protocol::output::OutputPart;
use crate::protocol::session::{Commit, HeldLease};
use crate::protocol::{Lease, TaskResult};

/// Tasks that are remembered; when there are more, all are forgotten.
const MOST: usize = 256;

/// The tasks that are followed.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<HashMap<Uuid, Task>>);

#[derive(Debug, Default)]
struct Task {
    /// A hint: a manager refuses a lease that it does not have.
    holder: Option<(Holder, HeldLease)>,
    ended: Option<Ended>,
}

/// An attempt that has ended, when the task perhaps has not.
#[derive(Debug)]
struct Ended {
    attempt: u32,
    lease: Lease,
    result: Box<TaskResult>,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who held the task when that was looked up last.
    pub(super) fn holder(&self, task: Uuid) -> Option<(Holder, HeldLease)> {
        self.lock().get(&task)?.holder
    }

    /// Remembers a task that has not ended, and who holds it if that is known.
    pub(super) fn note(&self, task: Uuid, holder: Option<(Holder, HeldLease)>) {
        let mut tasks = self.lock();
        if tasks.len() >= MOST && !tasks.contains_key(&task) {
            tasks.clear();
        }
        tasks.entry(task).or_default().holder = holder;
    }

    /// Forgets a task that has ended.
    pub(super) fn forget(&self, task: Uuid) {
        self.lock().remove(&task);
    }

    /// Takes note of attempts that end, before the store says what becomes of their tasks.
    pub(super) fn note_ends(&self, commits: &[Commit]) {
        let mut tasks = self.lock();
        if tasks.is_empty() {
            return;
        }
        for commit in commits {
            let report = &commit.report;
            if let Some(task) = tasks.get_mut(&report.task_uuid)
                && let Some((_, result)) = report.op.result()
            {
                task.ended = Some(Ended {
                    attempt: commit.attempt,
                    lease: report.lease,
                    result: Box::new(result.clone()),
                });
            }
        }
    }

    /// What a reader has not read of an attempt that is over, when the task is held under another lease by now, or by
    /// nobody. Only the tail is known, and not which part of a cut one is the task's own.
    pub(super) fn last_words(
        &self,
        task: Uuid,
        lease: Option<Lease>,
        follow: &Follow,
    ) -> Option<OutputPart> {
        let tasks = self.lock();
        let ended = tasks.get(&task)?.ended.as_ref()?;
        if lease == Some(ended.lease) || ended.attempt < follow.attempt.max(1) {
            return None;
        }
        let (output, _) = output_of(&ended.result, follow.stream);
        let from = if ended.attempt == follow.attempt {
            follow.offset
        } else {
            0
        };
        if output.truncated || from >= output.bytes {
            return None;
        }
        let tail = output.tail.len() as u64;
        let offset = from.max(output.bytes.saturating_sub(tail));
        let skip = usize::try_from(offset + tail - output.bytes).ok()?;
        Some(OutputPart {
            attempt: ended.attempt,
            offset,
            bytes: output.tail.get(skip..)?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{Output, Reason};
    use crate::protocol::{LogStream, ReportTaskOp, TaskReport, Try};
    use std::time::Duration;

    const TASK: Uuid = Uuid::from_u128(7);

    fn ended(attempt: u32, lease: u64, stdout: Output) -> Commit {
        let result = TaskResult {
            stdout,
            ..TaskResult::not_started(Reason::Exit, "", 2)
        };
        Commit {
            report: TaskReport {
                seq: 1,
                task_id: 1,
                task_uuid: TASK,
                lease: Lease(lease),
                try_no: Try(1),
                op: ReportTaskOp::Failed(result),
            },
            attempt,
            lost_tries: Vec::new(),
        }
    }

    fn wrote(bytes: u64, tail: &str) -> Output {
        Output {
            bytes,
            tail: tail.into(),
            ..Output::default()
        }
    }

    fn words(watched: &Watched, lease: Option<u64>, at: (u32, u64)) -> Option<(u32, u64, String)> {
        let follow = Follow {
            stream: LogStream::Stdout,
            attempt: at.0,
            offset: at.1,
            wait: Duration::ZERO,
        };
        let part = watched.last_words(TASK, lease.map(Lease), &follow)?;
        Some((
            part.attempt,
            part.offset,
            String::from_utf8(part.bytes).unwrap(),
        ))
    }

    #[test]
    fn the_last_words_of_an_attempt_are_read_before_the_next() {
        let watched = Watched::default();
        watched.note_ends(&[ended(1, 5, wrote(8, "the tail"))]);
        assert_eq!(words(&watched, None, (0, 0)), None, "nobody follows it");
        watched.note(TASK, None);
        watched.note_ends(&[ended(1, 5, wrote(8, "the tail"))]);
        // Whether the task goes on is not known as long as the lease is the same.
        assert_eq!(words(&watched, Some(5), (1, 0)), None);
        let whole = Some((1, 0, "the tail".to_owned()));
        for lease in [None, Some(6)] {
            assert_eq!(words(&watched, lease, (0, 0)), whole);
            assert_eq!(
                words(&watched, lease, (1, 4)),
                Some((1, 4, "tail".to_owned()))
            );
            assert_eq!(words(&watched, lease, (1, 8)), None);
            assert_eq!(words(&watched, lease, (2, 0)), None);
        }
        watched.note_ends(&[ended(2, 6, wrote(100, "end"))]);
        assert_eq!(
            words(&watched, None, (1, 4)),
            Some((2, 97, "end".to_owned()))
        );
        watched.forget(TASK);
        assert_eq!(words(&watched, None, (1, 4)), None);
    }

    #[test]
    fn a_cut_tail_is_nobodys_words() {
        let watched = Watched::default();
        watched.note(TASK, None);
        let cut = Output {
            truncated: true,
            ..wrote(100, "ut]\nend")
        };
        watched.note_ends(&[ended(1, 5, cut)]);
        assert_eq!(words(&watched, None, (1, 0)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let watched = Watched::default();
        for task in 0..3 * MOST {
            watched.note(Uuid::from_u128(task as u128), None);
            assert!(watched.lock().len() <= MOST);
        }
    }
}
