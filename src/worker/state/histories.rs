//! Arbitrary histories against the invariants of the state machine.
//!
//! [`World`] stands for everything outside the machine: it only lets happen what can happen, performs actions by
//! remembering them, and checks each against what it knows.

use proptest::prelude::*;

use super::tests::{cancels, control, ended_of, fetched, held_of};
use super::*;
use crate::protocol::{Lease, Try};

#[derive(Debug, Clone)]
enum Step {
    Control {
        mode: Mode,
        cancels: Vec<i64>,
        graceful: bool,
    },
    Signal(ShutdownRequest),
    Lost,
    Draining,
    Nothing,
    /// So many tasks come.
    Tasks(usize),
    /// The first in line begins.
    Begin,
    /// The manager takes the last in line back, if it has not begun.
    Withdraw,
    Verdict {
        verdict: StartVerdict,
        stale: bool,
    },
    End(Reason),
    Pass(u64),
    Room(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shutdown = (any::<bool>(), 0u64..1000).prop_map(|(graceful, deadline_ms)| Mode::Shutdown {
        graceful,
        deadline_ms,
    });
    let mode = prop_oneof![8 => Just(Mode::Run), 4 => Just(Mode::Pause), 1 => shutdown];
    let control = (
        mode,
        proptest::collection::vec(1i64..8, 0..3),
        any::<bool>(),
    )
        .prop_map(|(mode, cancels, graceful)| Step::Control {
            mode,
            cancels,
            graceful,
        });
    let deadline = Duration::from_millis(300);
    let signal = prop_oneof![
        Just(ShutdownRequest::Graceful { deadline }),
        Just(ShutdownRequest::Immediate)
    ];
    let verdict = prop_oneof![
        6 => Just(StartVerdict::Run),
        1 => Just(StartVerdict::Cancel),
        1 => Just(StartVerdict::Forget),
        1 => Just(StartVerdict::Invalid),
    ];
    let verdict =
        (verdict, any::<bool>()).prop_map(|(verdict, stale)| Step::Verdict { verdict, stale });
    let reason = proptest::sample::select(vec![
        Reason::Exit,
        Reason::Signal,
        Reason::Cancelled,
        Reason::Preempted,
    ]);
    let step = prop_oneof![
        12 => control,
        1 => signal.prop_map(Step::Signal),
        1 => Just(Step::Lost),
        1 => Just(Step::Draining),
        9 => Just(Step::Nothing),
        24 => (1_usize..5).prop_map(Step::Tasks),
        20 => Just(Step::Begin),
        4 => Just(Step::Withdraw),
        18 => verdict,
        24 => reason.prop_map(Step::End),
        9 => (0u64..800).prop_map(Step::Pass),
        6 => any::<bool>().prop_map(Step::Room),
    ];
    proptest::collection::vec(step, 1..80)
}

#[derive(Debug, Default)]
struct World {
    room: bool,
    fetching: bool,
    left: bool,
    last_id: i64,
    /// In the order in which they came.
    in_hand: Vec<Hand>,
    /// Tasks the machine is through with, and how many final reports each got.
    past: Vec<Hand>,
}

#[derive(Debug, Clone, Default)]
struct Hand {
    id: i64,
    /// It is in line.
    started: bool,
    /// It has begun there.
    begun: bool,
    /// Somebody has ordered its cancellation.
    cancelled: bool,
    /// It turned out not to be this worker's.
    forgotten: bool,
    final_reports: usize,
}

impl World {
    /// The event of a step, if it can happen now.
    fn event(&mut self, step: &Step) -> Option<Event> {
        match step {
            Step::Control {
                mode,
                cancels: ids,
                graceful,
            } => {
                for hand in &mut self.in_hand {
                    hand.cancelled |= ids.contains(&hand.id);
                }
                Some(control(*mode, cancels(ids, *graceful)))
            }
            Step::Signal(request) => Some(Event::Signal(*request)),
            Step::Lost => Some(Event::Lost),
            Step::Draining | Step::Nothing | Step::Tasks(_) => self.fetch_answer(step),
            Step::Begin => self.begin(),
            Step::Withdraw => self.withdraw(),
            Step::Verdict { verdict, stale } => self.verdict(*verdict, *stale),
            Step::End(reason) => {
                let running = self.in_hand.iter().find(|hand| hand.begun)?;
                Some(ended_of(running.id, *reason))
            }
            Step::Pass(_) => Some(Event::Tick),
            Step::Room(room) => {
                self.room = *room;
                None
            }
        }
    }

    fn fetch_answer(&mut self, step: &Step) -> Option<Event> {
        if !std::mem::take(&mut self.fetching) {
            return None;
        }
        Some(match step {
            Step::Draining => Event::Draining,
            Step::Tasks(count) => {
                let ids: Vec<i64> = (1..).map(|n| self.last_id + n).take(*count).collect();
                self.last_id += i64::try_from(*count).unwrap();
                let hand = |id: &i64| Hand {
                    id: *id,
                    ..Hand::default()
                };
                self.in_hand.extend(ids.iter().map(hand));
                fetched(&ids)
            }
            _ => Event::FetchedNothing {
                retry_after: Duration::from_millis(100),
            },
        })
    }

    fn begin(&mut self) -> Option<Event> {
        if self.in_hand.iter().any(|hand| hand.begun) {
            return None;
        }
        let first = self.in_hand.iter_mut().find(|hand| hand.started)?;
        first.begun = true;
        Some(Event::Began(held_of(first.id), 5))
    }

    fn withdraw(&mut self) -> Option<Event> {
        let index = self
            .in_hand
            .iter()
            .rposition(|hand| hand.started && !hand.begun)?;
        let hand = self.in_hand.remove(index);
        Some(Event::Withdrawn(held_of(hand.id)))
    }

    fn verdict(&mut self, verdict: StartVerdict, stale: bool) -> Option<Event> {
        // Of what has begun in line, or waits for it: nobody is asked about anything else.
        let asked = |hand: &&mut Hand| hand.begun || !hand.started;
        let hand = self.in_hand.iter_mut().rfind(asked)?;
        let mut held = held_of(hand.id);
        if stale {
            held.try_no = Try(9);
        } else {
            hand.cancelled |= verdict == StartVerdict::Cancel;
            hand.forgotten |= verdict == StartVerdict::Forget;
        }
        Some(Event::StartAnswered(held, verdict))
    }

    /// Performs an action; returns what follows from it.
    fn perform(&mut self, state: &WorkerState, action: &Action) -> Option<Event> {
        match action {
            Action::Fetch { idle } => {
                assert!(!self.fetching && !self.left);
                assert_eq!(*idle, self.in_hand.is_empty());
                assert!(self.room && state.stopping().is_none());
                assert_eq!(state.desired().mode, Mode::Run);
                self.fetching = true;
            }
            Action::AbandonFetch => assert!(std::mem::take(&mut self.fetching)),
            Action::Leave => {
                assert!(!self.left && self.in_hand.is_empty() && !self.fetching);
                assert!(state.stopping().is_some());
                self.left = true;
            }
            Action::AskToStart(held) => assert!(!self.hand(held.task.id).started),
            Action::ReportStarted(held, _) => assert!(self.hand(held.task.id).begun),
            Action::Start(task) => {
                let known = state.desired();
                let (id, lease) = (task.task.id, Lease::new(1, 1));
                assert!(known.cancel_for(id, lease, Try(1)).is_none());
                assert!(state.stopping().is_none());
                let hand = self.hand(id);
                assert!(!hand.started && !hand.cancelled);
                hand.started = true;
            }
            Action::TakeBack(TakeBack { held, end, or }) => {
                let begun = self.hand(held.task.id).begun;
                return match (begun, or) {
                    (false, _) => Some(Event::TakenBack(*held, end.clone())),
                    (true, Some(order)) => Some(Event::NotTakenBack(*held, *order)),
                    (true, None) => None,
                };
            }
            Action::End(held, order) => {
                let stopping = state.stopping().is_some();
                let hand = self.hand(held.task.id);
                assert!(hand.started, "only what is in line is ended");
                match order.why {
                    EndCause::Cancelled => assert!(hand.cancelled, "a stale cancel took effect"),
                    EndCause::Forgotten => assert!(hand.forgotten),
                    EndCause::Preempted => assert!(stopping),
                }
            }
            Action::ReportFinal(held, _) => {
                self.hand(held.task.id).final_reports += 1;
                self.put_down(held.task.id);
            }
        }
        None
    }

    fn hand(&mut self, id: i64) -> &mut Hand {
        let hand = self.in_hand.iter_mut().find(|hand| hand.id == id);
        hand.expect("a task is in hand")
    }

    fn put_down(&mut self, id: i64) {
        let index = self.in_hand.iter().position(|hand| hand.id == id);
        self.past
            .extend(index.map(|index| self.in_hand.remove(index)));
    }

    /// What the machine has put down without a word turned out not to be its own.
    fn forget(&mut self, event: &Event) {
        match event {
            Event::Ended(held, _) => self.put_down(held.task.id),
            Event::StartAnswered(held, StartVerdict::Forget) if held.try_no == Try(1) => {
                let hand = self.in_hand.iter().find(|hand| hand.id == held.task.id);
                if hand.is_some_and(|hand| !hand.started) {
                    self.put_down(held.task.id);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(
        steps in steps(),
        rule in prop_oneof![Just(StartRule::Immediately), Just(StartRule::AfterVerdict)],
    ) {
        let mut state = WorkerState::new(rule);
        let mut now = Instant::now();
        let mut world = World { room: true, ..World::default() };
        let mut stop: Option<Stop> = None;
        for step in &steps {
            if let Step::Pass(ms) = step {
                now += Duration::from_millis(*ms);
            }
            let mut events: Vec<Event> = world.event(step).into_iter().collect();
            while let Some(event) = events.pop() {
                let mut actions = Vec::new();
                state.handle(event.clone(), now, &mut actions);
                events.extend(actions.iter().filter_map(|action| world.perform(&state, action)));
                world.forget(&event);
            }
            while let Some(action) = state.settle(world.room, now) {
                world.perform(&state, &action);
            }
            prop_assert_eq!(state.in_line(), world.in_hand.iter().filter(|hand| hand.started).count());
            prop_assert!(!world.fetching || matches!(state.phase(), Phase::Fetching | Phase::Running | Phase::Engaged));
            if let Some(before) = stop {
                let after = state.stopping().expect("a stop never goes away");
                prop_assert_eq!(before.urgency.sooner(after.urgency), after.urgency);
            }
            stop = state.stopping();
        }
        for hand in &world.past {
            // What turned out not to be this worker's may still have been reported before that was known.
            let expected = usize::from(!hand.forgotten);
            prop_assert_eq!(hand.final_reports, expected, "{:?}", hand);
        }
    }
}
