//! The latency chain of one task: how long each step of its last execution took. Pure.
//!
//! The phases have the names of the metrics `mitosis_task_…_seconds`. Stamps are wall time of up to two machines: a phase
//! between them is as good as their clocks agree, and never shown below 0.

use super::{span, until};
use crate::protocol::api::TaskDetail;

/// The phases that can be told apart, in order; nothing for a task that was never started.
///
/// An independent worker claims and receives a task in one step, and has no phase of the buffer.
pub(super) fn latency(task: &TaskDetail) -> Option<String> {
    let result = task.result.as_ref()?;
    result.started_at_us?;
    let ends = [
        ("queue", task.claimed_at_us),
        ("buffer", result.handed_over_at_us),
        ("start", result.started_at_us),
        ("run", Some(result.ended_at_us)),
        ("commit", task.summary.finished_at_us),
    ];
    let mut begun = task.summary.accepted_at_us;
    let mut phases = Vec::with_capacity(ends.len());
    for (name, end) in ends {
        let Some(end) = end else { continue };
        phases.push(format!("{name} {}", span(until(end, begun))));
        begun = end;
    }
    Some(phases.join(", "))
}
