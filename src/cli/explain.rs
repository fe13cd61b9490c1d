//! The answer of `task --why` as text: what is waited for, then the phases with their shares. Pure.

use std::time::Duration;

use super::table::{fields, moment, table};
use crate::protocol::plain::one_line;
use crate::protocol::why::{Phase, TaskWhy};
use crate::run::summary::span;

/// Phases that are shown; of a task with more executions the newest ones.
const SHOWN: usize = 16;

/// One screen about one task.
pub(super) fn why(why: &TaskWhy, now_us: i64) -> String {
    let mut text = fields(&[
        ("task", Some(format!("{} ({})", why.id, why.uuid))),
        ("state", Some(why.state.to_string())),
        ("why", Some(why.summary.clone())),
    ]);
    // The first is what the summary says.
    for wait in why.waits_for.iter().skip(1) {
        text.push_str(&format!("and    {}\n", one_line(&wait.message)));
    }
    let whole = why.phases.iter().map(|phase| length(phase, now_us)).sum();
    let hidden = why.phases.len().saturating_sub(SHOWN);
    let rows: Vec<_> = why.phases[hidden..]
        .iter()
        .map(|phase| row(phase, whole, now_us))
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        if hidden > 0 {
            text.push_str(&format!(
                "{hidden} earlier phases are left out; --json has all\n"
            ));
        }
        text.push_str(&table(&["FROM", "TOOK", "SHARE", "RUN", "PHASE"], &rows));
    }
    text
}

fn row(phase: &Phase, whole: Duration, now_us: i64) -> Vec<String> {
    let took = length(phase, now_us);
    let share = if whole.is_zero() {
        0.0
    } else {
        took.as_secs_f64() / whole.as_secs_f64() * 100.0
    };
    let so_far = if phase.until_us.is_none() {
        " so far"
    } else {
        ""
    };
    let end = phase.end.as_ref().map(|end| format!(" ({end})"));
    vec![
        moment(phase.from_us),
        format!("{}{so_far}", span(took)),
        format!("{share:.0} %"),
        phase.attempt.to_string(),
        format!("{}{}", phase.kind.in_words(), end.unwrap_or_default()),
    ]
}

fn length(phase: &Phase, now_us: i64) -> Duration {
    let until = phase.until_us.unwrap_or(now_us);
    Duration::from_micros(u64::try_from(until.saturating_sub(phase.from_us)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskState;
    use crate::protocol::why::{PhaseKind, Wait, WaitKind};
    use uuid::Uuid;

    fn phase(kind: PhaseKind, from_us: i64, until_us: Option<i64>, end: Option<&str>) -> Phase {
        Phase {
            kind,
            attempt: 1,
            from_us,
            until_us,
            end: end.map(str::to_owned),
        }
    }

    #[test]
    fn an_ended_task_shows_its_phases_with_their_shares() {
        let answer = TaskWhy {
            id: 7,
            uuid: Uuid::nil(),
            state: TaskState::Completed,
            summary: "it completed".to_owned(),
            waits_for: Vec::new(),
            phases: vec![
                phase(PhaseKind::Queued, 0, Some(250_000), None),
                phase(
                    PhaseKind::Running,
                    250_000,
                    Some(1_000_000),
                    Some("0.7 s of CPU time"),
                ),
            ],
        };
        assert_eq!(
            why(&answer, 9_000_000),
            "task   7 (00000000-0000-0000-0000-000000000000)\n\
             state  completed\n\
             why    it completed\n\
             \n\
             FROM                      TOOK    SHARE  RUN  PHASE\n\
             1970-01-01T00:00:00.000Z  250 ms  25 %   1    in the queue\n\
             1970-01-01T00:00:00.250Z  750 ms  75 %   1    running (0.7 s of CPU time)\n"
        );
    }

    #[test]
    fn a_waiting_task_shows_every_hindrance_and_an_open_phase() {
        let wait = |message: &str| Wait {
            kind: WaitKind::Upstream,
            message: message.to_owned(),
            task: None,
            until_us: None,
        };
        let answer = TaskWhy {
            id: 7,
            uuid: Uuid::nil(),
            state: TaskState::Pending,
            summary: "it is not running: build".to_owned(),
            waits_for: vec![wait("build"), wait("test")],
            phases: vec![phase(PhaseKind::Waiting, 0, None, None)],
        };
        let text = why(&answer, 2_000_000);
        assert!(
            text.contains("why    it is not running: build\nand    test\n"),
            "{text}"
        );
        assert!(text.contains("2.00 s so far"), "{text}");
    }
}
