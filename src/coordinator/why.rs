//! Why a task is not running, or how its time was spent. Pure: what the store and the sessions know in, words out.
//!
//! ```text
//!   accepted --Waiting--> ready --Queued--> claimed --Starting--> started --Running--> exited --Committing--> finished
//!                ^                                                           |
//!                +------------------ further attempts -----------------------+
//! ```

use super::store::{HolderKind, HolderRecord, MOST_AHEAD, QueuePlace};
use crate::protocol::api::{AttemptRecord, TaskDetail};
use crate::protocol::why::{Phase, PhaseKind, TaskWhy, Wait, WaitKind};
use crate::protocol::{HumanDuration, Mode, TaskState};

/// Upstream tasks that are named one by one.
const NAMED: usize = 10;

/// Somebody who may execute tasks, and whether a word reaches it now.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) record: HolderRecord,
    pub(super) connected: bool,
}

/// The whole answer.
pub(super) fn why(
    task: &TaskDetail,
    place: QueuePlace,
    candidates: &[Candidate],
    now_us: i64,
) -> TaskWhy {
    let waits_for = waits(task, place, candidates, now_us);
    let phases = phases(task, place.queued_us);
    TaskWhy {
        id: task.summary.id,
        uuid: task.summary.uuid,
        state: task.summary.state,
        summary: summary(task, &waits_for, now_us),
        waits_for,
        phases,
    }
}

fn summary(task: &TaskDetail, waits: &[Wait], now_us: i64) -> String {
    let state = task.summary.state;
    let end = task.result.as_ref().map(|result| {
        let reason = result.reason.as_str();
        let code = result.exit_code.map(|code| format!(", exit code {code}"));
        let signal = result.signal.map(|signal| format!(", signal {signal}"));
        let what = code.or(signal).unwrap_or_default();
        format!("{reason}{what}")
    });
    match (state, end, waits) {
        (TaskState::Running, ..) => {
            let since = task.summary.started_at_us.unwrap_or(now_us);
            let holder = task.holder.as_deref().unwrap_or("its holder");
            format!(
                "it has been running for {} at {holder}",
                took(since, now_us)
            )
        }
        (TaskState::Completed, ..) => "it completed".to_owned(),
        (_, Some(end), _) if state.is_terminal() => {
            let message = task
                .result
                .as_ref()
                .and_then(|result| result.message.as_ref());
            let words = message
                .map(|words| format!(": {words}"))
                .unwrap_or_default();
            format!("it {} ({end}){words}", ended(state))
        }
        (_, _, [first, ..]) => format!("it is not running: {}", first.message),
        _ => format!("it is {state}"),
    }
}

fn ended(state: TaskState) -> &'static str {
    match state {
        TaskState::Cancelled => "was cancelled",
        _ => "failed",
    }
}

fn waits(task: &TaskDetail, place: QueuePlace, candidates: &[Candidate], now_us: i64) -> Vec<Wait> {
    let mut waits = Vec::new();
    let state = task.summary.state;
    if task.cancel_requested && !state.is_terminal() {
        let message = "its cancel was asked for, and its holder has not answered yet";
        waits.push(wait(WaitKind::Cancel, message));
    }
    match state {
        TaskState::Pending => waits.extend(pending(task, now_us)),
        TaskState::Ready => waits.extend(ready(task, place, candidates)),
        TaskState::Assigned => waits.push(assigned(task, candidates)),
        _ => {}
    }
    waits
}

fn wait(kind: WaitKind, message: impl Into<String>) -> Wait {
    Wait {
        kind,
        message: message.into(),
        task: None,
        until_us: None,
    }
}

/// No pause between two attempts is as long; a task that waits for the rest of its submission is due then.
const CENTURY_US: i64 = 100 * 365 * 24 * 3600 * 1_000_000;

fn pending(task: &TaskDetail, now_us: i64) -> Vec<Wait> {
    if let Some(due) = task.summary.due_at_us {
        if due.saturating_sub(now_us) > CENTURY_US {
            let message = "the rest of its submission has not come yet, and none of it runs before"
                .to_owned();
            return vec![wait(WaitKind::Queue, message)];
        }
        let last = task.history.last().and_then(|attempt| attempt.end.clone());
        let last = last
            .map(|end| format!(" after `{end}`"))
            .unwrap_or_default();
        let next = task.summary.attempts + 1;
        let message = format!("execution {next} begins in {}{last}", took(now_us, due));
        return vec![Wait {
            until_us: Some(due),
            ..wait(WaitKind::Backoff, message)
        }];
    }
    let open = || {
        task.upstream
            .iter()
            .filter(|upstream| !upstream.state.is_terminal())
    };
    let mut waits: Vec<Wait> = open()
        .take(NAMED)
        .map(|upstream| {
            let name = upstream.name.clone();
            let name = name.unwrap_or_else(|| upstream.uuid.to_string());
            let message = format!(
                "{name} (task {}) is {} and has to end first ({})",
                upstream.id,
                upstream.state,
                upstream.when.in_words()
            );
            Wait {
                task: Some(upstream.uuid),
                ..wait(WaitKind::Upstream, message)
            }
        })
        .collect();
    let more = open().count().saturating_sub(NAMED);
    if more > 0 {
        waits.push(wait(
            WaitKind::Upstream,
            format!("{more} more tasks have to end first"),
        ));
    }
    waits
}

fn ready(task: &TaskDetail, place: QueuePlace, candidates: &[Candidate]) -> Option<Wait> {
    let connected: Vec<&HolderRecord> = candidates
        .iter()
        .filter(|candidate| candidate.connected)
        .map(|candidate| &candidate.record)
        .collect();
    if connected.is_empty() {
        let message = "no manager and no worker is connected; start one with `mitosis up`, `manager` or `worker`, \
                       or go on with `run` on this state directory";
        return Some(wait(WaitKind::Holder, message));
    }
    let carries =
        |record: &&HolderRecord| task.spec.tags.iter().all(|tag| record.tags.contains(tag));
    let tagged: Vec<&HolderRecord> = connected.into_iter().filter(carries).collect();
    if tagged.is_empty() {
        let tags = task.spec.tags.join(", ");
        let message = format!("nobody connected carries its tags ({tags})");
        return Some(wait(WaitKind::Tags, message));
    }
    let wanted = &task.spec.resources;
    let (small, large): (Vec<_>, Vec<_>) = tagged
        .into_iter()
        .partition(|record| record.capacity.lacks(wanted).is_some());
    if large.is_empty() {
        let lack = |record: &HolderRecord| {
            let lack = record.capacity.lacks(wanted)?;
            Some(format!(
                "it needs {}, and {} has {}",
                lack.wanted, record.host, lack.there
            ))
        };
        let lacks: Vec<String> = small.into_iter().take(NAMED).filter_map(lack).collect();
        let message = format!("nobody connected has what it needs: {}", lacks.join("; "));
        return Some(wait(WaitKind::Resources, message));
    }
    if large.iter().all(|record| record.mode == Mode::Pause) {
        let message = "everybody who could run it is paused; `mitosis resume` begins again";
        return Some(wait(WaitKind::Resume, message));
    }
    if large.iter().all(|record| record.mode != Mode::Run) {
        let message = "everybody who could run it is paused or leaves";
        return Some(wait(WaitKind::Resume, message));
    }
    let priority = task.summary.priority;
    let message = match place.ahead {
        0 => format!(
            "it is the next in the queue (priority {priority}); every worker has something to do"
        ),
        1 => format!("one task goes before it in the queue (priority {priority})"),
        ahead if ahead >= MOST_AHEAD => {
            format!("more than {MOST_AHEAD} tasks go before it in the queue (priority {priority})")
        }
        ahead => format!("{ahead} tasks go before it in the queue (priority {priority})"),
    };
    Some(wait(WaitKind::Queue, message))
}

fn assigned(task: &TaskDetail, candidates: &[Candidate]) -> Wait {
    let holder = task.holder.as_deref().unwrap_or("its holder");
    let held_by = |candidate: &&Candidate| candidate.record.holder.to_string() == holder;
    let Some(candidate) = candidates.iter().find(held_by) else {
        return wait(
            WaitKind::Worker,
            format!("{holder} has it and has not begun"),
        );
    };
    let record = &candidate.record;
    let place = format!("{holder} on {}", record.host);
    if !candidate.connected {
        let message = format!(
            "{place} has it and is away; it comes back, or the task goes to another one when its lease runs out"
        );
        return wait(WaitKind::Worker, message);
    }
    if record.mode == Mode::Pause {
        let message = format!("{place} has it and is paused; `mitosis resume` begins again");
        return wait(WaitKind::Resume, message);
    }
    let message = match record.holder.kind {
        HolderKind::Manager => format!(
            "{place} has it and begins it when one of its {} workers, and what the task needs, is free",
            record.slots
        ),
        HolderKind::Worker => format!("{place} has it and is about to begin"),
    };
    wait(WaitKind::Worker, message)
}

fn phases(task: &TaskDetail, queued_us: i64) -> Vec<Phase> {
    let mut line = Line {
        at_us: task.summary.accepted_at_us,
        phases: Vec::new(),
    };
    let earlier = match task.history.split_last() {
        Some((_, earlier)) if is_last_begun(task) => earlier,
        _ => &task.history[..],
    };
    for attempt in earlier {
        line.attempt(attempt);
    }
    let attempt = u32::try_from(earlier.len() + 1).unwrap_or(u32::MAX);
    line.last(task, attempt, queued_us);
    line.phases
}

/// True when the newest execution is the one that runs or whose result is there.
fn is_last_begun(task: &TaskDetail) -> bool {
    let started = task.result.as_ref().and_then(|result| result.started_at_us);
    task.summary.state == TaskState::Running || started.is_some()
}

/// Phases in the making: each begins where the one before ended.
struct Line {
    at_us: i64,
    phases: Vec<Phase>,
}

impl Line {
    fn push(&mut self, kind: PhaseKind, attempt: u32, until_us: Option<i64>, end: Option<String>) {
        let from_us = self.at_us;
        // Clocks of several machines may disagree; a phase is never shorter than nothing.
        let until_us = until_us.map(|until| until.max(from_us));
        // What took no time at all says nothing, unless it is a run.
        if until_us == Some(from_us) && kind != PhaseKind::Running {
            return;
        }
        self.at_us = until_us.unwrap_or(from_us);
        self.phases.push(Phase {
            kind,
            attempt,
            from_us,
            until_us,
            end,
        });
    }

    /// An execution that is over, and what came before it.
    fn attempt(&mut self, attempt: &AttemptRecord) {
        let number = attempt.attempt;
        let kind = if number == 1 {
            PhaseKind::Queued
        } else {
            PhaseKind::Waiting
        };
        self.push(kind, number, Some(attempt.started_at_us), None);
        let ended = attempt.ended_at_us.unwrap_or(attempt.started_at_us);
        self.push(PhaseKind::Running, number, Some(ended), attempt.end.clone());
    }

    /// The newest execution, or the way to it.
    fn last(&mut self, task: &TaskDetail, attempt: u32, queued_us: i64) {
        let state = task.summary.state;
        let finished = task.summary.finished_at_us;
        let result = task.result.as_ref();
        let started = result.and_then(|result| result.started_at_us).or_else(|| {
            task.summary
                .started_at_us
                .filter(|_| state == TaskState::Running)
        });
        if state == TaskState::Pending {
            return self.push(PhaseKind::Waiting, attempt, None, None);
        }
        let ready = queued_us.min(started.or(finished).unwrap_or(queued_us));
        self.push(PhaseKind::Waiting, attempt, Some(ready), None);
        let claimed = task.claimed_at_us.filter(|_| state != TaskState::Ready);
        let Some(claimed) = claimed else {
            return self.push(PhaseKind::Queued, attempt, finished, None);
        };
        self.push(PhaseKind::Queued, attempt, Some(claimed), None);
        let Some(started) = started else {
            return self.push(PhaseKind::Starting, attempt, finished, None);
        };
        self.push(PhaseKind::Starting, attempt, Some(started), None);
        let ended = result.map(|result| result.ended_at_us);
        let cpu = result.map(|result| {
            let cpu = result.cpu_user_us.saturating_add(result.cpu_system_us);
            format!(
                "{} of CPU time",
                took(0, i64::try_from(cpu).unwrap_or(i64::MAX))
            )
        });
        self.push(PhaseKind::Running, attempt, ended, cpu);
        if ended.is_some() {
            self.push(PhaseKind::Committing, attempt, finished, None);
        }
    }
}

/// The time between two moments, in words.
fn took(from_us: i64, until_us: i64) -> HumanDuration {
    let us = u64::try_from(until_us.saturating_sub(from_us)).unwrap_or(0);
    // Nobody wants microseconds of hours.
    let rounded = match us {
        0..1_000 => us,
        1_000..1_000_000 => us / 100 * 100,
        1_000_000..120_000_000 => us / 10_000 * 10_000,
        _ => us / 1_000_000 * 1_000_000,
    };
    HumanDuration(std::time::Duration::from_micros(rounded))
}

#[cfg(test)]
mod tests;
