//! Sentences about the state machine.

use uuid::Uuid;

use super::*;
use crate::protocol::{CancelOrder, Lease, TaskSpec, Try, WorkerTaskResp};

fn response(id: i64) -> WorkerTaskResp {
    WorkerTaskResp {
        ids: None,
        id,
        uuid: Uuid::from_u128(u128::from(id.unsigned_abs())),
        lease: Lease::new(1, 1),
        try_no: Try(1),
        attempt: 1,
        failures: 0,
        suite_uuid: Uuid::nil(),
        upstream_task_uuid: None,
        links: Default::default(),
        spec: TaskSpec::argv(["true"]),
    }
}

/// A fetch's answer with these tasks.
pub(super) fn fetched(ids: &[i64]) -> Event {
    let shared = |id: &i64| Dispatched {
        alone: false,
        ..Dispatched::own(response(*id))
    };
    Event::Fetched(ids.iter().map(shared).collect())
}

pub(super) fn held_of(id: i64) -> HandOver {
    HandOver::of(&response(id))
}

pub(super) fn ended(reason: Reason) -> Event {
    ended_of(1, reason)
}

pub(super) fn ended_of(id: i64, reason: Reason) -> Event {
    let mut result = TaskResult::not_started(reason, "", 0);
    result.exit_code = (reason == Reason::Exit).then_some(0);
    Event::Ended(held_of(id), Box::new(result))
}

pub(super) fn cancels(ids: &[i64], graceful: bool) -> Vec<CancelOrder> {
    let order = |&id: &i64| CancelOrder {
        task_id: id,
        task_uuid: Uuid::nil(),
        lease: Lease::new(1, 1),
        try_no: Some(Try(1)),
        graceful,
    };
    ids.iter().map(order).collect()
}

pub(super) fn control(mode: Mode, cancels: Vec<CancelOrder>) -> Event {
    Event::Control(Desired {
        mode,
        cancels,
        ..Desired::default()
    })
}

fn shutdown(graceful: bool, deadline_ms: u64) -> Event {
    let mode = Mode::Shutdown {
        graceful,
        deadline_ms,
    };
    control(mode, Vec::new())
}

/// What the machine told somebody to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Did {
    Fetch { idle: bool },
    AbandonFetch,
    AskToStart(HandOver),
    ReportStarted(HandOver),
    Start(i64),
    TakeBack(TakeBack),
    End(HandOver, EndOrder),
    ReportFinal(HandOver, Final),
    Leave,
}

impl From<Action> for Did {
    fn from(action: Action) -> Self {
        match action {
            Action::Fetch { idle } => Self::Fetch { idle },
            Action::AbandonFetch => Self::AbandonFetch,
            Action::AskToStart(held) => Self::AskToStart(held),
            Action::ReportStarted(held, _) => Self::ReportStarted(held),
            Action::Start(task) => Self::Start(task.task.id),
            Action::TakeBack(wish) => Self::TakeBack(wish),
            Action::End(held, order) => Self::End(held, order),
            Action::ReportFinal(held, end) => Self::ReportFinal(held, end),
            Action::Leave => Self::Leave,
        }
    }
}

const FETCH: Did = Did::Fetch { idle: true };

/// A machine with its clock; `feed` returns what it was told to do. Of the tasks in line the first has begun, so that the
/// others can be taken back and it cannot.
struct Bench {
    state: WorkerState,
    now: Instant,
}

impl Bench {
    fn new(rule: StartRule) -> Self {
        let mut bench = Self {
            state: WorkerState::new(rule),
            now: Instant::now(),
        };
        assert_eq!(bench.settle(), Some(FETCH));
        bench
    }

    fn running() -> Self {
        let mut bench = Self::new(StartRule::Immediately);
        bench.feed(fetched(&[1]));
        assert_eq!(bench.state.phase(), Phase::Running);
        bench
    }

    fn held() -> Self {
        let mut bench = Self::new(StartRule::AfterVerdict);
        let actions = bench.feed(fetched(&[1]));
        assert_eq!(actions, [Did::AskToStart(held())]);
        bench
    }

    fn feed(&mut self, event: Event) -> Vec<Did> {
        let mut told = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let first = self.state.line.front().map(|task| task.held);
            let mut actions = Vec::new();
            self.state.handle(event, self.now, &mut actions);
            for action in actions {
                match action {
                    Action::TakeBack(TakeBack { held, end, .. }) if first != Some(held) => {
                        events.push_back(Event::TakenBack(held, end));
                    }
                    Action::TakeBack(TakeBack { held, or, .. }) => {
                        events.extend(or.map(|order| Event::NotTakenBack(held, order)));
                    }
                    other => told.push(other.into()),
                }
            }
        }
        told
    }

    fn settle(&mut self) -> Option<Did> {
        self.state.settle(true, self.now).map(Did::from)
    }
}

fn held() -> HandOver {
    held_of(1)
}

fn end(why: EndCause, how: EndMode) -> Did {
    Did::End(held(), EndOrder { why, how })
}

fn not_started() -> Did {
    Did::ReportFinal(held(), Final::NotStarted)
}

fn released(actions: &[Did]) -> bool {
    matches!(actions, [Did::ReportFinal(_, Final::Released(_))])
}

#[track_caller]
fn reported_reason(actions: &[Did]) -> Reason {
    match actions {
        [Did::ReportFinal(_, Final::Result(result))] => result.reason,
        other => panic!("no result in {other:?}"),
    }
}

#[test]
fn a_task_is_announced_started_and_reported_and_the_next_is_fetched() {
    let mut bench = Bench::new(StartRule::Immediately);
    let actions = bench.feed(fetched(&[1]));
    assert_eq!(actions, [Did::Start(1)]);
    let began = bench.feed(Event::Began(held(), 5));
    assert_eq!(
        began,
        [Did::ReportStarted(held())],
        "one that goes on for a while"
    );
    assert_eq!(
        reported_reason(&bench.feed(ended(Reason::Exit))),
        Reason::Exit
    );
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn a_cancel_known_before_the_task_arrives_prevents_its_start() {
    let mut bench = Bench::new(StartRule::Immediately);
    assert_eq!(bench.feed(control(Mode::Run, cancels(&[1], true))), []);
    assert_eq!(bench.feed(fetched(&[1])), [not_started()]);
}

#[test]
fn a_cancel_before_the_verdict_prevents_the_start_and_the_verdict_is_ignored() {
    let mut bench = Bench::held();
    assert_eq!(
        bench.feed(control(Mode::Run, cancels(&[1], true))),
        [not_started()]
    );
    assert_eq!(
        bench.feed(Event::StartAnswered(held(), StartVerdict::Run)),
        []
    );
}

#[test]
fn the_verdict_on_the_start_decides_about_a_held_task() {
    let answer = |verdict| Bench::held().feed(Event::StartAnswered(held(), verdict));
    assert!(matches!(answer(StartVerdict::Run)[..], [Did::Start(_)]));
    assert_eq!(answer(StartVerdict::Cancel), [not_started()]);
    assert_eq!(answer(StartVerdict::Forget), []);
    assert!(released(&answer(StartVerdict::Invalid)));
}

#[test]
fn the_verdict_on_the_start_reaches_a_running_task() {
    let answer = |verdict| Bench::running().feed(Event::StartAnswered(held(), verdict));
    assert_eq!(answer(StartVerdict::Run), []);
    assert_eq!(
        answer(StartVerdict::Cancel),
        [end(EndCause::Cancelled, EndMode::Graceful)]
    );
    assert_eq!(
        answer(StartVerdict::Forget),
        [end(EndCause::Forgotten, EndMode::Kill)]
    );
}

#[test]
fn a_verdict_on_another_hand_over_changes_nothing() {
    let other = HandOver {
        try_no: Try(2),
        ..held()
    };
    for mut bench in [Bench::held(), Bench::running()] {
        let actions = bench.feed(Event::StartAnswered(other, StartVerdict::Forget));
        assert_eq!(actions, []);
    }
}

#[test]
fn a_forgotten_task_is_not_reported() {
    let mut bench = Bench::running();
    bench.feed(Event::StartAnswered(held(), StartVerdict::Forget));
    assert_eq!(bench.feed(ended(Reason::Cancelled)), []);
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn a_running_task_is_cancelled_once_and_harder_only_when_asked() {
    let mut bench = Bench::running();
    let graceful = || control(Mode::Run, cancels(&[1], true));
    assert_eq!(
        bench.feed(graceful()),
        [end(EndCause::Cancelled, EndMode::Graceful)]
    );
    assert_eq!(bench.feed(graceful()), []);
    assert_eq!(
        bench.feed(control(Mode::Run, cancels(&[1], false))),
        [end(EndCause::Cancelled, EndMode::Kill)]
    );
    assert_eq!(bench.feed(graceful()), []);
}

#[test]
fn a_result_that_was_faster_than_the_cancel_stays() {
    let mut bench = Bench::running();
    bench.feed(control(Mode::Run, cancels(&[1], true)));
    assert_eq!(
        reported_reason(&bench.feed(ended(Reason::Exit))),
        Reason::Exit
    );
}

#[test]
fn a_cancel_of_another_hand_over_does_not_touch_the_task() {
    let mut bench = Bench::running();
    assert_eq!(bench.feed(control(Mode::Run, cancels(&[2, 3], false))), []);
    let mut later_try = cancels(&[1], false);
    later_try[0].try_no = Some(Try(2));
    assert_eq!(bench.feed(control(Mode::Run, later_try)), []);
}

#[test]
fn a_pause_lets_the_task_run_and_stops_fetching_until_resumed() {
    let mut bench = Bench::running();
    assert_eq!(bench.feed(control(Mode::Pause, Vec::new())), []);
    bench.feed(ended(Reason::Exit));
    assert_eq!(bench.settle(), None);
    bench.feed(control(Mode::Run, Vec::new()));
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn what_was_handed_over_before_the_pause_runs() {
    let mut bench = Bench::new(StartRule::Immediately);
    assert_eq!(bench.feed(control(Mode::Pause, Vec::new())), []);
    bench.feed(fetched(&[1]));
    assert_eq!(bench.state.phase(), Phase::Running);
}

#[test]
fn a_graceful_stop_lets_the_task_end_and_then_leaves() {
    let mut bench = Bench::running();
    assert_eq!(bench.feed(shutdown(true, 0)), []);
    assert_eq!(bench.settle(), None);
    bench.feed(ended(Reason::Exit));
    assert_eq!(bench.settle(), Some(Did::Leave));
    assert_eq!(bench.settle(), None);
    assert!(!bench.state.handed_back());
}

#[test]
fn a_stop_drops_the_fetch_and_leaves() {
    let mut bench = Bench::new(StartRule::Immediately);
    assert_eq!(bench.feed(shutdown(true, 0)), [Did::AbandonFetch]);
    assert_eq!(bench.settle(), Some(Did::Leave));
}

#[test]
fn a_stop_wins_over_a_pause() {
    let mut bench = Bench::new(StartRule::Immediately);
    bench.feed(control(Mode::Pause, Vec::new()));
    bench.feed(shutdown(true, 0));
    bench.feed(control(Mode::Pause, Vec::new()));
    assert_eq!(bench.settle(), Some(Did::Leave));
}

#[test]
fn a_stop_hands_a_task_back_that_has_not_started() {
    let mut bench = Bench::held();
    assert!(released(&bench.feed(shutdown(true, 0))));
    assert_eq!(bench.settle(), Some(Did::Leave));
    assert!(bench.state.handed_back());
}

#[test]
fn past_the_deadline_the_task_is_ended_and_handed_back() {
    let mut bench = Bench::running();
    bench.feed(shutdown(true, 500));
    let timer = bench.state.next_timer().expect("a deadline");
    assert_eq!(timer, bench.now + Duration::from_millis(500));
    assert_eq!(bench.feed(Event::Tick), []);
    bench.now = timer;
    assert_eq!(
        bench.feed(Event::Tick),
        [end(EndCause::Preempted, EndMode::Graceful)]
    );
    assert_eq!(bench.state.next_timer(), None);
    assert!(released(&bench.feed(ended(Reason::Preempted))));
    assert!(bench.state.handed_back());
}

#[test]
fn a_repeated_shutdown_does_not_move_the_deadline() {
    let mut bench = Bench::running();
    bench.feed(shutdown(true, 500));
    let first = bench.state.next_timer();
    bench.now += Duration::from_millis(100);
    bench.feed(shutdown(true, 500));
    assert_eq!(bench.state.next_timer(), first);
    bench.feed(shutdown(true, 100));
    assert_eq!(
        bench.state.next_timer(),
        Some(bench.now + Duration::from_millis(100))
    );
}

#[test]
fn an_immediate_stop_kills_and_hands_back() {
    let mut bench = Bench::running();
    assert_eq!(
        bench.feed(shutdown(false, 0)),
        [end(EndCause::Preempted, EndMode::Kill)]
    );
    assert!(released(&bench.feed(ended(Reason::Preempted))));
}

#[test]
fn a_cancel_outweighs_a_stop_of_the_same_task() {
    let mut bench = Bench::running();
    bench.feed(control(Mode::Run, cancels(&[1], true)));
    assert_eq!(
        bench.feed(Event::Signal(ShutdownRequest::Immediate)),
        [end(EndCause::Cancelled, EndMode::Kill)]
    );
    assert_eq!(
        reported_reason(&bench.feed(ended(Reason::Preempted))),
        Reason::Cancelled
    );
    assert!(!bench.state.handed_back());
}

#[test]
fn the_first_signal_is_graceful_and_one_that_finds_the_worker_leaving_is_not() {
    let signal = || {
        Event::Signal(ShutdownRequest::Graceful {
            deadline: Duration::from_secs(20),
        })
    };
    let kill = end(EndCause::Preempted, EndMode::Kill);
    let mut bench = Bench::running();
    assert_eq!(bench.feed(signal()), []);
    assert_eq!(bench.feed(signal()), std::slice::from_ref(&kill));
    let mut bench = Bench::running();
    bench.feed(shutdown(true, 0));
    assert_eq!(bench.feed(signal()), [kill]);
}

#[test]
fn a_lost_peer_ends_the_task_at_once_and_is_the_cause_from_then_on() {
    let mut bench = Bench::running();
    bench.feed(shutdown(true, 0));
    assert_eq!(
        bench.feed(Event::Lost),
        [end(EndCause::Preempted, EndMode::Kill)]
    );
    let stop = bench.state.stopping().expect("stopping");
    assert_eq!(
        (stop.cause, stop.urgency),
        (StopCause::Lost, Urgency::Immediate)
    );
}

#[test]
fn draining_ends_an_idle_worker() {
    let mut bench = Bench::new(StartRule::Immediately);
    assert_eq!(bench.feed(Event::Draining), []);
    assert_eq!(bench.settle(), Some(Did::Leave));
    let cause = bench.state.stopping().map(|stop| stop.cause);
    assert_eq!(cause, Some(StopCause::Draining));
}

#[test]
fn an_empty_fetch_is_repeated_after_its_pause() {
    let mut bench = Bench::new(StartRule::Immediately);
    let retry_after = Duration::from_millis(300);
    bench.feed(Event::FetchedNothing { retry_after });
    assert_eq!(bench.settle(), None);
    bench.now = bench.state.next_timer().expect("a pause");
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn a_full_outbox_stops_fetching() {
    let mut bench = Bench::running();
    bench.feed(ended(Reason::Exit));
    assert!(bench.state.settle(false, bench.now).is_none());
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn more_is_fetched_when_half_of_the_line_is_through() {
    let mut bench = Bench::new(StartRule::Immediately);
    bench.feed(fetched(&[1, 2, 3, 4]));
    assert_eq!(bench.settle(), None);
    bench.feed(ended_of(1, Reason::Exit));
    assert_eq!(bench.settle(), None);
    bench.feed(ended_of(2, Reason::Exit));
    assert_eq!(bench.settle(), Some(Did::Fetch { idle: false }));
    assert_eq!(bench.settle(), None, "one fetch at a time");
}

#[test]
fn behind_a_task_that_is_to_be_alone_nothing_is_fetched() {
    let mut bench = Bench::new(StartRule::Immediately);
    let alone = Event::Fetched(vec![Dispatched::own(response(1))]);
    bench.feed(alone);
    assert_eq!(bench.settle(), None);
    bench.feed(ended(Reason::Exit));
    assert_eq!(bench.settle(), Some(FETCH));
}

#[test]
fn a_stop_hands_back_what_waits_in_line_and_lets_the_first_end() {
    let mut bench = Bench::new(StartRule::Immediately);
    bench.feed(fetched(&[1, 2, 3]));
    let back = bench.feed(shutdown(true, 0));
    let of = |id| Did::ReportFinal(held_of(id), Final::Released(STOPPED_BEFORE_START));
    assert_eq!(back, [of(2), of(3)]);
    assert_eq!(bench.settle(), None);
    bench.feed(ended(Reason::Exit));
    assert_eq!(bench.settle(), Some(Did::Leave));
}

#[test]
fn a_cancel_of_a_task_in_line_ends_it_before_it_begins() {
    let mut bench = Bench::new(StartRule::Immediately);
    bench.feed(fetched(&[1, 2]));
    let cancelled = bench.feed(control(Mode::Run, cancels(&[2], true)));
    assert_eq!(cancelled, [Did::ReportFinal(held_of(2), Final::NotStarted)]);
}

#[test]
fn what_the_manager_took_back_is_forgotten_and_what_found_the_gate_shut_goes_back() {
    let mut bench = Bench::new(StartRule::Immediately);
    bench.feed(fetched(&[1, 2]));
    assert_eq!(bench.feed(Event::Withdrawn(held_of(1))), []);
    assert!(released(&bench.feed(Event::GateShut(held_of(2)))));
    assert!(!bench.state.handed_back(), "not because it had to leave");
    assert_eq!(bench.settle(), Some(FETCH));
}
