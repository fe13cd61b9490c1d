//! A task that has ended: its descendants ended, its output taken, its result put together.

use std::time::Duration;

use tokio::sync::watch;

use super::capture::Captured;
use super::direct;
use super::follow_ups;
use super::limits as usage_limits;
use super::running::{Running, SWEEP_LIMIT};
use super::stop::{End, Limits, StopOrder};
use crate::process::{self, ExitInfo, ExitStatus, Pid, Swept};
use crate::protocol::limits::Limits as UsageLimits;
use crate::protocol::report::{Leftovers, Reason, TaskResult};
use crate::protocol::task::OnLeftovers;

impl Running<'_> {
    /// Clears away what the leader left and puts the result together. While the disk is full its output is waited for,
    /// until `stop` says otherwise.
    pub(super) async fn conclude(
        self,
        end: End,
        info: Option<ExitInfo>,
        stop: watch::Receiver<StopOrder>,
    ) -> TaskResult {
        let (end, last_words) = match info {
            Some(info) if self.is_direct => as_a_shell(end, info),
            _ => (end, None),
        };
        let wall_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let Self {
            executor,
            child,
            group,
            plan,
            limits,
            usage,
            leftovers: on_leftovers,
            started_at_us,
            is_direct,
            ..
        } = self;
        let leader = (!child.is_reaped()).then(|| child.pid());
        // A leader that cannot be killed counts as adopted from here on.
        drop(child);
        let Swept {
            mut left,
            killed,
            names,
            ..
        } = process::kill_adopted(SWEEP_LIMIT).await;
        left.extend(leader.filter(|pid| !left.contains(pid)));
        if let Some(group) = group
            && let Err(error) = group.remove().await
        {
            tracing::warn!(%error, "the task's control group cannot be removed now");
        }
        let mut captured = executor
            .capture
            .finish(&plan, last_words.as_deref().unwrap_or_default(), stop)
            .await;
        let end = match end.reason {
            Reason::Exit if captured.is_lost && end.status == Some(ExitStatus::Code(0)) => End {
                reason: Reason::OutputLost,
                ..end
            },
            _ => end,
        };
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
        let mut result = result(end, info, message, captured, (started_at_us, ended_at_us));
        let leftovers = leftovers(end, killed, names);
        if on_leftovers == OnLeftovers::Fail
            && result.exit_code == Some(0)
            && let Some(left) = &leftovers
        {
            result.reason = Reason::Leftovers;
            result.note(&left.to_string());
        }
        let completed = result.reason == Reason::Exit && result.exit_code == Some(0);
        TaskResult {
            direct: is_direct,
            leftovers,
            follow_ups: follow_ups::read(executor.directories.new_task(), completed).map(Box::new),
            ..result
        }
    }
}

/// What is told of processes that outlived their task; nothing where ending them was the order.
fn leftovers(end: End, killed: usize, names: Vec<String>) -> Option<Box<Leftovers>> {
    let by_itself = matches!(end.reason, Reason::Exit | Reason::Signal);
    (by_itself && killed > 0).then(|| {
        let killed = u32::try_from(killed).unwrap_or(u32::MAX);
        Box::new(Leftovers { killed, names })
    })
}

/// The end of a line as a shell tells it, which waited for its command: a death by a signal that nobody here sent is a code,
/// and a word on standard error.
fn as_a_shell(end: End, info: ExitInfo) -> (End, Option<String>) {
    match (end.reason, end.status) {
        (Reason::Signal, Some(ExitStatus::Signal(signal))) => {
            let told = End {
                reason: Reason::Exit,
                status: Some(ExitStatus::Code(128 + signal)),
                ..end
            };
            (told, direct::death_words(signal, info.core_dumped))
        }
        _ => (end, None),
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
        leftovers: None,
        direct: false,
    }
}
