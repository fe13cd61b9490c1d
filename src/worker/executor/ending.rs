//! A task that has ended: its descendants ended, its output taken, its result put together.

use std::time::Duration;

use super::capture::Captured;
use super::follow_ups;
use super::limits as usage_limits;
use super::running::{Running, SWEEP_LIMIT};
use super::stop::{End, Limits};
use crate::process::{self, ExitInfo, ExitStatus, Pid};
use crate::protocol::limits::Limits as UsageLimits;
use crate::protocol::report::{Reason, TaskResult};

impl Running<'_> {
    /// Clears away what the leader left and puts the result together.
    pub(super) async fn conclude(self, end: End, info: Option<ExitInfo>) -> TaskResult {
        let wall_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let Self {
            executor,
            child,
            group,
            plan,
            limits,
            usage,
            started_at_us,
            ..
        } = self;
        let leader = (!child.is_reaped()).then(|| child.pid());
        // A leader that cannot be killed counts as adopted from here on.
        drop(child);
        let mut left = process::kill_adopted(SWEEP_LIMIT).await.left;
        left.extend(leader.filter(|pid| !left.contains(pid)));
        if let Some(group) = group
            && let Err(error) = group.remove().await
        {
            tracing::warn!(%error, "the task's control group cannot be removed now");
        }
        let mut captured = executor.capture.finish(&plan).await;
        if !left.is_empty() {
            tracing::warn!(processes = ?left, "processes of the task cannot be killed");
            // They may go on writing, so the next task gets other files.
            let renewed = executor.capture.renew();
            let trouble = renewed
                .err()
                .map(|error| format!("the output files cannot be renewed: {error}"));
            captured.trouble = captured.trouble.or(trouble);
        }
        executor.unfinished = false;
        let trouble = captured.trouble.take();
        let message = message(end, (limits, &usage), &left, trouble);
        // Wall time comes from the monotonic clock, so a clock that is set meanwhile does not distort it.
        let ended_at_us = started_at_us.saturating_add(wall_us);
        let result = result(end, info, message, captured, (started_at_us, ended_at_us));
        let completed = result.reason == Reason::Exit && result.exit_code == Some(0);
        TaskResult {
            follow_ups: follow_ups::read(executor.directories.new_task(), completed).map(Box::new),
            ..result
        }
    }
}

/// What the reason alone does not say.
fn message(
    end: End,
    (limits, usage): (Limits, &UsageLimits),
    left: &[Pid],
    trouble: Option<String>,
) -> Option<String> {
    let mut parts: Vec<String> = usage_limits::words(end, usage).into_iter().collect();
    match (end.reason, end.status) {
        (Reason::Timeout, _) => {
            let limit = limits.time_limit.unwrap_or_default();
            parts.push(format!("ran longer than its time limit of {limit:?}"));
        }
        (Reason::Signal, Some(ExitStatus::Signal(libc::SIGKILL))) => parts.push(
            "killed by somebody else; the kernel does that to a process when memory runs out"
                .into(),
        ),
        (Reason::WorkerLost, _) => parts.push("the program's exit status is lost".into()),
        _ => {}
    }
    if end.killed {
        let grace = limits.grace;
        parts.push(format!(
            "did not end within its grace period of {grace:?} and was killed"
        ));
    }
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
        parts.push(format!(
            "processes that cannot be killed are left: {}",
            pids.join(", ")
        ));
    }
    parts.extend(trouble);
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn result(
    end: End,
    info: Option<ExitInfo>,
    message: Option<String>,
    captured: Captured,
    span_us: (i64, i64),
) -> TaskResult {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (exit_code, signal) = match end.status {
        Some(ExitStatus::Code(code)) => (Some(code), None),
        Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    TaskResult {
        reason: end.reason,
        exit_code,
        signal,
        message,
        handed_over_at_us: None,
        started_at_us: Some(span_us.0),
        ended_at_us: span_us.1,
        cpu_user_us: info.map_or(0, |info| micros(info.user)),
        cpu_system_us: info.map_or(0, |info| micros(info.system)),
        max_rss_bytes: info.map_or(0, |info| info.max_rss_bytes),
        stdout: captured.stdout,
        stderr: captured.stderr,
        follow_ups: None,
        artifacts: Vec::new(),
        value: None,
    }
}
