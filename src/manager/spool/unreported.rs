//! Executions of which no report is in the log, found by the notes of the workers that began and ended them.
//!
//! Pure. A note may also be about a task that is over for long: nothing here can know, so the coordinator decides, as it
//! does about every lease of an inventory. It drops those that are not this manager's any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::comm::begun::Begun;
use crate::comm::ended::Ended;
use crate::protocol::report::{ReportTaskOp, TaskReport};
use crate::protocol::session::{Commit, LostTry};
use crate::protocol::{Lease, Try};

use super::Recovered;

/// What became of an execution after which another one was begun under the same lease.
const LOST: &str = "its worker was lost";

type Key = (i64, Lease);

fn key(commit: &Commit) -> Key {
    (commit.report.task_id, commit.report.lease)
}

/// What workers wrote down in their slots.
#[derive(Debug, Clone, Default)]
pub struct SlotNotes {
    /// Executions that were begun.
    pub begun: Vec<Begun>,
    /// Executions that ended.
    pub ended: Vec<Ended>,
}

impl Recovered {
    /// Adds what the notes know and the log does not.
    pub(super) fn add_notes(&mut self, notes: SlotNotes) {
        for ended in notes.ended {
            self.add_end(ended, &notes.begun);
        }
        self.add_unreported(notes.begun);
    }

    /// Adds an end that was not reported. One whose beginning is not among the newest any more was told for long.
    fn add_end(&mut self, ended: Ended, begun: &[Begun]) {
        let lease = (ended.task_id, ended.lease);
        let of_lease = |one: &&Begun| (one.task_id, one.lease) == lease;
        let is_new = begun
            .iter()
            .filter(of_lease)
            .any(|one| one.try_no == ended.try_no);
        if !is_new || self.finals.iter().any(|commit| key(commit) == lease) {
            return;
        }
        let known = self.lost.iter().position(|commit| key(commit) == lease);
        let mut lost_tries =
            known.map_or_else(Vec::new, |index| self.lost.remove(index).lost_tries.clone());
        for one in begun.iter().filter(of_lease) {
            let known = lost_tries.iter().any(|lost| lost.try_no == one.try_no);
            if one.try_no < ended.try_no && !known {
                lost_tries.push(lost(one));
            }
        }
        self.finals.push(Arc::new(Commit {
            report: TaskReport {
                seq: self.next_ticket,
                task_id: ended.task_id,
                task_uuid: ended.task_uuid,
                lease: ended.lease,
                try_no: ended.try_no,
                op: ended.op,
            },
            attempt: ended.attempt,
            lost_tries,
        }));
        self.next_ticket += 1;
    }

    /// Adds what was begun: one lost start per lease, with everything that was begun before it, under
    /// the next numbers.
    pub(super) fn add_unreported(&mut self, notes: Vec<Begun>) {
        let mut leases: BTreeMap<Key, Vec<Begun>> = BTreeMap::new();
        for begun in notes {
            leases
                .entry((begun.task_id, begun.lease))
                .or_default()
                .push(begun);
        }
        // An end tells of every execution before it.
        for commit in &self.finals {
            leases.remove(&key(commit));
        }
        for start in &mut self.lost {
            if let Some(begun) = leases.remove(&key(start))
                && let Some(joined) = joined(Some(start), &begun, start.report.seq)
            {
                *start = joined;
            }
        }
        for begun in leases.values() {
            self.lost.extend(joined(None, begun, self.next_ticket));
            self.next_ticket += 1;
        }
    }
}

fn lost(one: &Begun) -> LostTry {
    LostTry {
        try_no: one.try_no,
        attempt: one.attempt,
        started_at_us: one.at_us,
        ended_at_us: None,
        cause: LOST.to_owned(),
    }
}

/// The start that was begun last, with those before it as lost.
fn joined(reported: Option<&Commit>, begun: &[Begun], seq: u64) -> Option<Arc<Commit>> {
    let mut tries: BTreeMap<Try, LostTry> = BTreeMap::new();
    for one in begun {
        tries.insert(one.try_no, lost(one));
    }
    if let Some(start) = reported {
        for lost in &start.lost_tries {
            tries.insert(lost.try_no, lost.clone());
        }
        if let ReportTaskOp::Started { at_us } = start.report.op {
            let lost = LostTry {
                try_no: start.report.try_no,
                attempt: start.attempt,
                started_at_us: at_us,
                ended_at_us: None,
                cause: LOST.to_owned(),
            };
            tries.insert(start.report.try_no, lost);
        }
    }
    let (_, last) = tries.pop_last()?;
    let note = begun.last()?;
    Some(Arc::new(Commit {
        report: TaskReport {
            seq,
            task_id: note.task_id,
            task_uuid: note.task_uuid,
            lease: note.lease,
            try_no: last.try_no,
            op: ReportTaskOp::Started {
                at_us: last.started_at_us,
            },
        },
        attempt: last.attempt,
        lost_tries: tries.into_values().collect(),
    }))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::TaskResult;
    use crate::protocol::report::Reason;

    fn begun(task_id: i64, number: u32) -> Begun {
        Begun {
            task_id,
            task_uuid: Uuid::from_u128(9),
            lease: Lease(1),
            try_no: Try(number),
            attempt: number,
            at_us: i64::from(number),
        }
    }

    fn report(task_id: i64, number: u32, op: ReportTaskOp) -> Arc<Commit> {
        let begun = begun(task_id, number);
        Arc::new(Commit {
            report: TaskReport {
                seq: 4,
                task_id,
                task_uuid: begun.task_uuid,
                lease: begun.lease,
                try_no: begun.try_no,
                op,
            },
            attempt: number,
            lost_tries: Vec::new(),
        })
    }

    fn attempts(commit: &Commit) -> (Vec<u32>, u32) {
        let lost = commit.lost_tries.iter().map(|lost| lost.attempt);
        (lost.collect(), commit.attempt)
    }

    #[test]
    fn a_start_that_no_report_tells_of_is_lost_with_those_before_it() {
        let mut recovered = Recovered::default();
        recovered.add_unreported(vec![begun(7, 1), begun(8, 1), begun(7, 2)]);
        let found: Vec<_> = recovered.lost.iter().map(|one| attempts(one)).collect();
        assert_eq!(found, [(vec![1], 2), (vec![], 1)]);
        assert_eq!(
            recovered.lost[0].report.op,
            ReportTaskOp::Started { at_us: 2 }
        );
    }

    #[test]
    fn a_reported_start_is_told_once_and_an_end_tells_everything() {
        let result = TaskResult::not_started(Reason::Exit, "", 0);
        let mut recovered = Recovered {
            finals: vec![report(7, 2, ReportTaskOp::Failed(result))],
            lost: vec![
                report(8, 1, ReportTaskOp::Started { at_us: 1 }),
                report(9, 2, ReportTaskOp::Started { at_us: 2 }),
            ],
            ..Recovered::default()
        };
        let notes = [(7, 1), (7, 2), (8, 1), (8, 2), (9, 1), (9, 2)];
        recovered.add_unreported(notes.map(|(task, number)| begun(task, number)).to_vec());
        let found: Vec<_> = recovered.lost.iter().map(|one| attempts(one)).collect();
        assert_eq!(found, [(vec![1], 2), (vec![1], 2)]);
        assert_eq!(recovered.finals.len(), 1);
    }

    #[test]
    fn an_end_that_was_written_down_counts_unless_it_was_told_or_is_old() {
        let op = || ReportTaskOp::Completed(TaskResult::not_started(Reason::Exit, "", 0));
        let ended = |task_id, number| Ended {
            task_id,
            task_uuid: Uuid::from_u128(9),
            lease: Lease(1),
            try_no: Try(number),
            attempt: number,
            op: op(),
        };
        let mut recovered = Recovered {
            finals: vec![report(7, 1, op())],
            lost: vec![report(8, 2, ReportTaskOp::Started { at_us: 2 })],
            ..Recovered::default()
        };
        recovered.add_notes(SlotNotes {
            begun: [(7, 1), (8, 1), (8, 2), (9, 1)]
                .map(|(task, number)| begun(task, number))
                .to_vec(),
            ended: vec![ended(6, 1), ended(7, 1), ended(8, 2)],
        });
        let finals: Vec<_> = recovered
            .finals
            .iter()
            .map(|one| (one.report.task_id, attempts(one)))
            .collect();
        assert_eq!(finals, [(7, (vec![], 1)), (8, (vec![1], 2))]);
        let lost: Vec<_> = recovered
            .lost
            .iter()
            .map(|one| one.report.task_id)
            .collect();
        assert_eq!(lost, [9], "of that one nobody knows the end");
    }
}
