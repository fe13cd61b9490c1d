//! Tasks, suites, managers and workers as text for people. Pure: what the API answers in, text out.

mod chain;

use std::time::Duration;

use super::table::{ago, fields, moment, size, table};
use crate::protocol::api::{
    AttemptRecord, ManagerSummary, SuiteSummary, TaskDetail, TaskSummary, WorkerSummary,
};
use crate::protocol::{Artifact, TaskResult, TaskState};
use crate::run::quote::shortened;
use crate::run::summary::{plural, span};

/// Characters of a command in a list.
const COMMAND_WIDTH: usize = 80;
/// Upstream tasks that are named.
const NAMED_UPSTREAM: usize = 10;

/// A list of tasks.
pub(super) fn tasks(tasks: &[TaskSummary], now_us: i64) -> String {
    let row = |task: &TaskSummary| {
        vec![
            task.id.to_string(),
            task.uuid.to_string(),
            task.state.to_string(),
            end_of(task, now_us),
            task.attempts.to_string(),
            ago(task.accepted_at_us, now_us),
            shortened(&task.command, COMMAND_WIDTH),
        ]
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    table(
        &["NO", "UUID", "STATE", "END", "TRIES", "AGE", "COMMAND"],
        &rows,
    )
}

/// How a task of a list ended, or what it waits for, in a word or two.
fn end_of(task: &TaskSummary, now_us: i64) -> String {
    if task.waits_for > 0 {
        return format!("waits for {}", plural(task.waits_for.into(), "task"));
    }
    if let Some(due) = task.due_at_us {
        return format!("again in {}", span(until(due, now_us)));
    }
    match (task.reason.as_deref(), task.exit_code) {
        (Some("exit") | None, Some(code)) => format!("exit {code}"),
        (Some(reason), _) => reason.to_owned(),
        (None, None) => "-".to_owned(),
    }
}

fn until(due_us: i64, now_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(due_us.saturating_sub(now_us)).unwrap_or(0))
}

/// What a pending task waits for, at most some of it by name.
fn waits_for(task: &TaskDetail) -> Option<String> {
    if task.summary.state != TaskState::Pending {
        return None;
    }
    if let Some(due) = task.summary.due_at_us {
        return Some(format!("its next attempt at {}", moment(due)));
    }
    let open: Vec<String> = task
        .upstream
        .iter()
        .filter(|upstream| !upstream.state.is_terminal())
        .map(|upstream| {
            let name = upstream
                .name
                .clone()
                .unwrap_or_else(|| upstream.uuid.to_string());
            format!("{name} ({}; {})", upstream.when.in_words(), upstream.state)
        })
        .collect();
    let more = open.len().saturating_sub(NAMED_UPSTREAM);
    let mut text = open[..open.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {}", plural(more as u64, "other")));
    }
    Some(text)
}

/// Everything about one task.
pub(super) fn task(task: &TaskDetail) -> String {
    let summary = &task.summary;
    let result = task.result.as_ref();
    let mut text = fields(&[
        ("uuid", Some(summary.uuid.to_string())),
        ("number", Some(summary.id.to_string())),
        ("suite", Some(summary.suite.to_string())),
        ("state", Some(state(task))),
        ("end", result.map(end)),
        ("message", result.and_then(|result| result.message.clone())),
        ("command", Some(summary.command.clone())),
        ("directory", task.spec.cwd.clone()),
        (
            "time limit",
            task.spec.timeout.map(|timeout| timeout.to_string()),
        ),
        (
            "priority",
            (summary.priority != 0).then(|| summary.priority.to_string()),
        ),
        ("key", task.key.clone()),
        ("waits for", waits_for(task)),
        ("repeats", summary.retry_of.map(|uuid| uuid.to_string())),
        (
            "submitted by",
            summary.follow_up_of.map(|uuid| uuid.to_string()),
        ),
        ("accepted", Some(moment(summary.accepted_at_us))),
        ("started", summary.started_at_us.map(moment)),
        ("finished", summary.finished_at_us.map(moment)),
        ("held by", task.holder.clone()),
        ("executions", Some(summary.attempts.to_string())),
        ("run time", result.and_then(run_time)),
        ("latency", chain::latency(task)),
        ("cpu time", result.map(cpu_time)),
        (
            "peak memory",
            result
                .filter(|result| result.max_rss_bytes > 0)
                .map(|result| size(result.max_rss_bytes)),
        ),
        ("follow-ups", result.and_then(follow_ups)),
        (
            "left",
            result.and_then(|result| Some(result.leftovers.as_ref()?.to_string())),
        ),
        ("stdout", result.map(|result| size(result.stdout.bytes))),
        ("stderr", result.map(|result| size(result.stderr.bytes))),
        (
            "artifacts",
            result.and_then(|result| artifacts(result, task)),
        ),
    ]);
    if task.history.len() > 1 {
        let rows: Vec<_> = task.history.iter().map(attempt).collect();
        text.push('\n');
        text.push_str(&table(&["TRY", "BEGAN", "HELD BY", "END", "CAUSE"], &rows));
    }
    text
}

fn state(task: &TaskDetail) -> String {
    let state = task.summary.state;
    if task.cancel_requested && !state.is_terminal() {
        format!("{state} (to be cancelled)")
    } else {
        state.to_string()
    }
}

/// How a task ended, in a word or two.
pub(super) fn end(result: &TaskResult) -> String {
    match (result.exit_code, result.signal) {
        (Some(code), _) => format!("{}, exit code {code}", result.reason.as_str()),
        (None, Some(signal)) => format!("{}, signal {signal}", result.reason.as_str()),
        (None, None) => result.reason.as_str().to_owned(),
    }
}

/// What a task submitted, and what was refused of it.
fn follow_ups(result: &TaskResult) -> Option<String> {
    let follow_ups = result.follow_ups.as_ref()?;
    let mut text = format!("{} accepted", follow_ups.accepted);
    if follow_ups.rejected > 0 {
        let problems = follow_ups.problems.join("; ");
        text.push_str(&format!(", {} refused: {problems}", follow_ups.rejected));
    }
    Some(text)
}

/// What the task left, and whether it has arrived.
fn artifacts(result: &TaskResult, task: &TaskDetail) -> Option<String> {
    let one = |left: &Artifact| {
        let mut stored = task.artifacts.iter();
        let has_arrived = stored.any(|stored| stored.artifact.kind == left.kind);
        let note = if has_arrived { "" } else { " (not arrived)" };
        format!("{} {}{note}", left.kind, size(left.size_bytes))
    };
    let all: Vec<String> = result.artifacts.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn run_time(result: &TaskResult) -> Option<String> {
    result.started_at_us?;
    let wall = u64::try_from(result.wall_us()).ok()?;
    Some(span(Duration::from_micros(wall)))
}

fn cpu_time(result: &TaskResult) -> String {
    let text = |us| span(Duration::from_micros(us));
    format!(
        "{} user, {} system",
        text(result.cpu_user_us),
        text(result.cpu_system_us)
    )
}

fn attempt(attempt: &AttemptRecord) -> Vec<String> {
    vec![
        attempt.attempt.to_string(),
        moment(attempt.started_at_us),
        attempt.holder.clone(),
        attempt.end.clone().unwrap_or_else(|| "-".to_owned()),
        attempt.cause.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// A list of suites.
pub(super) fn suites(suites: &[SuiteSummary], now_us: i64) -> String {
    let row = |suite: &SuiteSummary| {
        let count = |state: &TaskState| suite.counts.get(state).copied().unwrap_or(0);
        let mut row = vec![
            suite.uuid.to_string(),
            shortened(&suite.name, 30),
            ago(suite.created_at_us, now_us),
        ];
        row.extend(TaskState::ALL.iter().map(|state| count(state).to_string()));
        row
    };
    let rows: Vec<_> = suites.iter().map(row).collect();
    let mut header = vec!["UUID".to_owned(), "NAME".to_owned(), "AGE".to_owned()];
    header.extend(TaskState::ALL.map(|state| state.as_str().to_ascii_uppercase()));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &rows)
}

/// A list of managers.
pub(super) fn managers(managers: &[ManagerSummary], now_us: i64) -> String {
    let row = |manager: &ManagerSummary| {
        vec![
            manager.uuid.to_string(),
            manager.host.clone(),
            if manager.connected { "yes" } else { "no" }.to_owned(),
            manager.workers.to_string(),
            manager.leases.to_string(),
            ago(manager.last_seen_us, now_us),
        ]
    };
    let rows: Vec<_> = managers.iter().map(row).collect();
    let mut text = table(
        &["UUID", "HOST", "CONNECTED", "WORKERS", "LEASES", "SEEN"],
        &rows,
    );
    for manager in managers {
        if let Some(trouble) = &manager.trouble {
            text.push_str(&format!("{}: {trouble}\n", manager.uuid));
        }
    }
    text
}

/// A list of independent workers.
pub(super) fn workers(workers: &[WorkerSummary], now_us: i64) -> String {
    let row = |worker: &WorkerSummary| {
        vec![
            worker.uuid.to_string(),
            worker.host.clone(),
            worker
                .task
                .map_or_else(|| "-".to_owned(), |task| task.to_string()),
            ago(worker.last_seen_us, now_us),
        ]
    };
    let rows: Vec<_> = workers.iter().map(row).collect();
    table(&["UUID", "HOST", "TASK", "SEEN"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskSpec;
    use crate::protocol::report::Reason;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn summary() -> TaskSummary {
        TaskSummary {
            id: 7,
            uuid: Uuid::from_u128(9),
            suite: Uuid::from_u128(1),
            state: TaskState::Failed,
            reason: Some("exit".to_owned()),
            exit_code: Some(3),
            attempts: 1,
            priority: 0,
            command: "echo one; exit 3".to_owned(),
            accepted_at_us: 1_000_000,
            started_at_us: None,
            finished_at_us: None,
            waits_for: 0,
            due_at_us: None,
            retry_of: None,
            follow_up_of: None,
        }
    }

    #[test]
    fn a_list_shows_number_uuid_end_and_command() {
        let text = tasks(&[summary()], 61_000_000);
        assert_eq!(
            text,
            "NO  UUID                                  STATE   END     TRIES  AGE  COMMAND\n\
             7   00000000-0000-0000-0000-000000000009  failed  exit 3  1      60s  echo one; exit 3\n"
        );
    }

    #[test]
    fn a_task_shows_what_is_known_and_nothing_else() {
        let detail = TaskDetail {
            summary: TaskSummary {
                finished_at_us: Some(2_603_000),
                ..summary()
            },
            spec: TaskSpec::shell_line("echo one; exit 3"),
            key: None,
            lease: None,
            holder: None,
            claimed_at_us: Some(1_100_000),
            cancel_requested: false,
            result: Some(TaskResult {
                exit_code: Some(3),
                message: None,
                handed_over_at_us: Some(1_100_250),
                started_at_us: Some(1_101_000),
                ..TaskResult::not_started(Reason::Exit, "", 2_601_000)
            }),
            history: Vec::new(),
            upstream: Vec::new(),
            artifacts: Vec::new(),
        };
        let text = task(&detail);
        assert!(text.contains("end         exit, exit code 3\n"), "{text}");
        assert!(text.contains("run time    1.50 s\n"), "{text}");
        let chain =
            "latency     queue 100 ms, buffer 250 us, start 750 us, run 1.50 s, commit 2.00 ms\n";
        assert!(text.contains(chain), "{text}");
        assert!(
            !text.contains("repeats") && !text.contains("held by"),
            "{text}"
        );
    }

    #[test]
    fn a_suite_shows_a_column_per_state() {
        let suite = SuiteSummary {
            uuid: Uuid::nil(),
            name: "sweep".to_owned(),
            created_at_us: 0,
            counts: BTreeMap::from([(TaskState::Running, 2)]),
        };
        let text = suites(&[suite], 0);
        let (header, row) = text.split_once('\n').unwrap();
        let column = header.find("RUNNING").unwrap();
        assert_eq!(&row[column..=column], "2");
    }
}
