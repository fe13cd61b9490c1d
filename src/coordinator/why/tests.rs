//! Every kind of hindrance by its words, and the phases of lives that went well and badly.

use super::*;
use crate::coordinator::store::{Holder, HolderId, HolderSession};
use crate::protocol::api::{TaskSummary, UpstreamRecord};
use crate::protocol::report::{Reason, TaskResult};
use crate::protocol::session::ManagerStatus;
use crate::protocol::task::Resources;
use crate::protocol::upstream::UpstreamEnd;
use crate::protocol::{Capacity, Lease, TaskSpec, Try};
use uuid::Uuid;

fn task(state: TaskState) -> TaskDetail {
    TaskDetail {
        summary: TaskSummary {
            id: 7,
            uuid: Uuid::from_u128(7),
            suite: Uuid::nil(),
            state,
            reason: None,
            exit_code: None,
            attempts: 0,
            priority: 3,
            command: "true".to_owned(),
            accepted_at_us: 1_000_000,
            started_at_us: None,
            finished_at_us: None,
            waits_for: 0,
            due_at_us: None,
            retry_of: None,
            follow_up_of: None,
        },
        spec: TaskSpec::argv(["true"]),
        key: None,
        lease: None,
        holder: None,
        claimed_at_us: None,
        cancel_requested: false,
        result: None,
        history: Vec::new(),
        upstream: Vec::new(),
        artifacts: Vec::new(),
    }
}

fn manager(name: u128, mode: Mode) -> Candidate {
    let id = HolderId(1);
    Candidate {
        connected: true,
        record: HolderRecord {
            id,
            holder: Holder {
                kind: HolderKind::Manager,
                uuid: Uuid::from_u128(name),
            },
            session: HolderSession {
                holder: id,
                number: 1,
            },
            host: format!("host-{name}"),
            slots: 4,
            capacity: Capacity {
                milli_cpus: Some(4_000),
                mem_bytes: None,
                gpus: Some(0),
            },
            tags: vec!["linux".to_owned()],
            labels: std::collections::BTreeMap::new(),
            status: ManagerStatus::default(),
            mode,
            live: true,
            leases: 0,
            task: None,
            last_seen_us: 0,
        },
    }
}

const PLACE: QueuePlace = QueuePlace {
    queued_us: 2_000_000,
    ahead: 0,
};
const NOW_US: i64 = 10_000_000;

#[track_caller]
fn waits_for(task: &TaskDetail, candidates: &[Candidate], kind: WaitKind, part: &str) {
    let answer = why(task, PLACE, candidates, NOW_US);
    let first = &answer.waits_for[0];
    assert_eq!(first.kind, kind, "{first:?}");
    assert!(
        first.message.contains(part),
        "`{}` lacks `{part}`",
        first.message
    );
    assert!(
        answer.summary.contains(&first.message),
        "{}",
        answer.summary
    );
    assert_eq!(answer.phases.last().unwrap().until_us, None);
}

#[test]
fn a_ready_task_says_what_nobody_has() {
    let ready = task(TaskState::Ready);
    waits_for(&ready, &[], WaitKind::Holder, "no manager");
    let away = Candidate {
        connected: false,
        ..manager(1, Mode::Run)
    };
    waits_for(&ready, &[away], WaitKind::Holder, "no manager");
    let mut tagged = task(TaskState::Ready);
    tagged.spec.tags = vec!["arm".to_owned()];
    waits_for(&tagged, &[manager(1, Mode::Run)], WaitKind::Tags, "(arm)");
    let mut large = task(TaskState::Ready);
    large.spec.resources = Resources {
        gpus: 2,
        ..Resources::default()
    };
    waits_for(
        &large,
        &[manager(1, Mode::Run), manager(2, Mode::Run)],
        WaitKind::Resources,
        "it needs 2 GPUs, and host-1 has 0; it needs 2 GPUs, and host-2 has 0",
    );
}

#[test]
fn a_ready_task_says_who_is_paused_and_what_goes_before_it() {
    let ready = task(TaskState::Ready);
    let paused = || manager(1, Mode::Pause);
    waits_for(&ready, &[paused()], WaitKind::Resume, "`mitosis resume`");
    waits_for(
        &ready,
        &[paused(), manager(2, Mode::Run)],
        WaitKind::Queue,
        "the next in the queue (priority 3)",
    );
    let behind = QueuePlace { ahead: 12, ..PLACE };
    let answer = why(&ready, behind, &[manager(2, Mode::Run)], NOW_US);
    assert!(
        answer.summary.contains("12 tasks go before it"),
        "{}",
        answer.summary
    );
}

#[test]
fn a_pending_task_names_what_it_waits_for() {
    let upstream = |id: i64, state| UpstreamRecord {
        id,
        uuid: Uuid::from_u128(id.unsigned_abs().into()),
        name: (id == 1).then(|| "build".to_owned()),
        when: UpstreamEnd::Ok,
        state,
    };
    let mut pending = task(TaskState::Pending);
    pending.upstream = vec![
        upstream(2, TaskState::Completed),
        upstream(1, TaskState::Running),
    ];
    waits_for(
        &pending,
        &[],
        WaitKind::Upstream,
        "build (task 1) is running",
    );
    pending.upstream = (1..=12).map(|id| upstream(id, TaskState::Ready)).collect();
    let answer = why(&pending, PLACE, &[], NOW_US);
    assert_eq!(answer.waits_for.len(), NAMED + 1);
    assert!(answer.waits_for[NAMED].message.contains("2 more tasks"));

    let mut resting = task(TaskState::Pending);
    resting.summary.due_at_us = Some(NOW_US + 3_000_000);
    resting.summary.attempts = 1;
    waits_for(&resting, &[], WaitKind::Backoff, "execution 2 begins in 3s");
    let answer = why(&resting, PLACE, &[], NOW_US);
    assert_eq!(answer.waits_for[0].until_us, Some(NOW_US + 3_000_000));
}

#[test]
fn an_assigned_task_says_where_it_lies() {
    let holder = manager(1, Mode::Run);
    let mut assigned = task(TaskState::Assigned);
    assigned.claimed_at_us = Some(3_000_000);
    assigned.holder = Some(holder.record.holder.to_string());
    waits_for(
        &assigned,
        &[holder],
        WaitKind::Worker,
        "host-1 has it and begins it",
    );
    waits_for(
        &assigned,
        &[manager(1, Mode::Pause)],
        WaitKind::Resume,
        "is paused",
    );
    let away = Candidate {
        connected: false,
        ..manager(1, Mode::Run)
    };
    waits_for(&assigned, &[away], WaitKind::Worker, "is away");
    assigned.cancel_requested = true;
    waits_for(&assigned, &[], WaitKind::Cancel, "cancel");
}

/// Kind, execution and length of each phase.
fn spans(answer: &TaskWhy) -> Vec<(PhaseKind, u32, Option<i64>)> {
    let length = |phase: &Phase| phase.until_us.map(|until| until - phase.from_us);
    let one = |phase: &Phase| (phase.kind, phase.attempt, length(phase));
    answer.phases.iter().map(one).collect()
}

fn attempt(number: u32, started: i64, ended: i64, end: &str) -> AttemptRecord {
    AttemptRecord {
        attempt: number,
        lease: Lease(1),
        try_no: Try(1),
        holder: String::new(),
        started_at_us: started,
        ended_at_us: Some(ended),
        end: Some(end.to_owned()),
        cause: None,
    }
}

fn finished(started_us: i64, ended_us: i64) -> TaskDetail {
    let mut done = task(TaskState::Completed);
    done.claimed_at_us = Some(started_us - 100);
    done.summary.finished_at_us = Some(ended_us + 50);
    done.result = Some(TaskResult {
        started_at_us: Some(started_us),
        ..TaskResult::not_started(Reason::Exit, "", ended_us)
    });
    done
}

#[test]
fn the_phases_of_a_life_follow_each_other_without_gaps() {
    use PhaseKind::{Committing, Queued, Running, Starting, Waiting};
    let mut done = finished(6_000_000, 9_000_000);
    done.history = vec![attempt(1, 6_000_000, 9_000_050, "completed")];
    let answer = why(&done, PLACE, &[], NOW_US);
    assert_eq!(answer.summary, "it completed");
    assert_eq!(
        spans(&answer),
        [
            (Waiting, 1, Some(1_000_000)),
            (Queued, 1, Some(3_999_900)),
            (Starting, 1, Some(100)),
            (Running, 1, Some(3_000_000)),
            (Committing, 1, Some(50)),
        ]
    );
    for pair in answer.phases.windows(2) {
        assert_eq!(pair[0].until_us, Some(pair[1].from_us));
    }
}

#[test]
fn earlier_executions_are_phases_of_their_own() {
    use PhaseKind::{Committing, Queued, Running, Starting, Waiting};
    let mut done = finished(6_000_000, 9_000_000);
    done.history = vec![
        attempt(1, 1_500_000, 1_800_000, "failed: exit"),
        attempt(2, 6_000_000, 9_000_050, "completed"),
    ];
    let answer = why(&done, PLACE, &[], NOW_US);
    assert_eq!(
        spans(&answer),
        [
            (Queued, 1, Some(500_000)),
            (Running, 1, Some(300_000)),
            (Waiting, 2, Some(200_000)),
            (Queued, 2, Some(3_999_900)),
            (Starting, 2, Some(100)),
            (Running, 2, Some(3_000_000)),
            (Committing, 2, Some(50)),
        ]
    );
    assert_eq!(answer.phases[1].end.as_deref(), Some("failed: exit"));
}

#[test]
fn what_never_began_ends_in_its_queue() {
    let mut cancelled = task(TaskState::Cancelled);
    cancelled.summary.finished_at_us = Some(5_000_000);
    cancelled.result = Some(TaskResult::not_started(
        Reason::Cancelled,
        "told to",
        5_000_000,
    ));
    let answer = why(&cancelled, PLACE, &[], NOW_US);
    assert_eq!(answer.summary, "it was cancelled (cancelled): told to");
    assert_eq!(answer.waits_for, []);
    assert_eq!(
        spans(&answer),
        [
            (PhaseKind::Waiting, 1, Some(1_000_000)),
            (PhaseKind::Queued, 1, Some(3_000_000)),
        ]
    );
}
