//! What the answer to a report means for the loop and for its log.

use tracing::{debug, info, warn};

use crate::protocol::{Lease, ReportTaskOp, TaskRef, TaskReport, Try, Verdict};
use crate::worker::outbox::Answer;
use crate::worker::state::{HandOver, StartVerdict};

/// The verdict on a `Started`, if the answer is one.
pub(super) fn on_start(answer: &Answer) -> Option<(HandOver, StartVerdict)> {
    let (Answer::Closed(report, verdict) | Answer::Dropped(report, verdict)) = answer else {
        return None;
    };
    if !matches!(report.op, ReportTaskOp::Started { .. }) {
        return None;
    }
    let verdict = match verdict {
        Verdict::Accepted | Verdict::Duplicate => StartVerdict::Run,
        Verdict::Cancel => StartVerdict::Cancel,
        Verdict::Stale | Verdict::NotOwner => StartVerdict::Forget,
        Verdict::Invalid { .. } => StartVerdict::Invalid,
        Verdict::RetryLater { .. } => return None,
    };
    Some((held(report), verdict))
}

fn held(report: &TaskReport) -> HandOver {
    let (task, lease, try_no): (TaskRef, Lease, Try) = (report.task(), report.lease, report.try_no);
    HandOver {
        task,
        lease,
        try_no,
    }
}

pub(super) fn log(answer: &Answer) {
    match answer {
        Answer::Closed(report, verdict) if report.op.is_final() => {
            info!(seq = report.seq, task = report.task_id, uuid = %report.task_uuid, verdict = verdict.as_str(),
                "result acknowledged");
        }
        Answer::Closed(report, verdict) => {
            debug!(
                seq = report.seq,
                task = report.task_id,
                verdict = verdict.as_str(),
                "start acknowledged"
            );
        }
        Answer::Dropped(report, verdict) => {
            warn!(seq = report.seq, task = report.task_id, uuid = %report.task_uuid, ?verdict,
                "report refused and dropped");
        }
        Answer::Again(report, pause) => {
            info!(
                seq = report.seq,
                task = report.task_id,
                ?pause,
                "report not taken; sending it again"
            );
        }
        Answer::Lost | Answer::Known => {}
    }
}
