//! Arbitrary histories against the invariants of the state machine.
//!
//! [`World`] stands for everything outside the machine: it only lets happen what can happen, performs actions by
//! remembering them, and checks each against what it knows.

use proptest::prelude::*;

use super::tests::{cancels, control, ended, task};
use super::*;
use crate::protocol::Try;

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
    Task,
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
        24 => Just(Step::Task),
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
    in_hand: Option<Hand>,
    /// Tasks the machine is through with, and how many final reports each got.
    past: Vec<Hand>,
}

#[derive(Debug, Clone, Default)]
struct Hand {
    id: i64,
    running: bool,
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
                if let Some(hand) = &mut self.in_hand {
                    hand.cancelled |= ids.contains(&hand.id);
                }
                Some(control(*mode, cancels(ids, *graceful)))
            }
            Step::Signal(request) => Some(Event::Signal(*request)),
            Step::Lost => Some(Event::Lost),
            Step::Draining | Step::Nothing | Step::Task => self.fetch_answer(step),
            Step::Verdict { verdict, stale } => self.verdict(*verdict, *stale),
            Step::End(reason) => {
                let running = self.in_hand.as_ref().is_some_and(|hand| hand.running);
                running.then(|| ended(*reason))
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
            Step::Task => {
                self.last_id += 1;
                self.in_hand = Some(Hand {
                    id: self.last_id,
                    ..Hand::default()
                });
                Event::Fetched(task(self.last_id))
            }
            _ => Event::FetchedNothing {
                retry_after: Duration::from_millis(100),
            },
        })
    }

    fn verdict(&mut self, verdict: StartVerdict, stale: bool) -> Option<Event> {
        let hand = self.in_hand.as_mut()?;
        let mut held = HandOver::of(&task(hand.id));
        if stale {
            held.try_no = Try(9);
        } else {
            hand.cancelled |= verdict == StartVerdict::Cancel;
            hand.forgotten |= verdict == StartVerdict::Forget;
        }
        Some(Event::StartAnswered(held, verdict))
    }

    fn perform(&mut self, state: &WorkerState, action: &Action) {
        match action {
            Action::Fetch => {
                assert!(!self.fetching && self.in_hand.is_none() && !self.left);
                assert!(self.room && state.stopping().is_none());
                assert_eq!(state.desired().mode, Mode::Run);
                self.fetching = true;
            }
            Action::AbandonFetch => assert!(std::mem::take(&mut self.fetching)),
            Action::Leave => {
                assert!(!self.left && self.in_hand.is_none() && !self.fetching);
                assert!(state.stopping().is_some());
                self.left = true;
            }
            Action::ReportStarted(held) => assert_eq!(held.task.id, self.hand().id),
            Action::Start(task) => {
                let known = state.desired();
                assert!(known.cancel_for(task.id, task.lease, task.try_no).is_none());
                assert!(state.stopping().is_none());
                let hand = self.hand();
                assert!(hand.id == task.id && !hand.running && !hand.cancelled);
                hand.running = true;
            }
            Action::End(order) => {
                let hand = self.hand();
                assert!(hand.running, "only what runs is ended");
                match order.why {
                    EndCause::Cancelled => assert!(hand.cancelled, "a stale cancel took effect"),
                    EndCause::Forgotten => assert!(hand.forgotten),
                    EndCause::Preempted => assert!(state.stopping().is_some()),
                }
            }
            Action::ReportFinal(held, _) => {
                let hand = self.hand();
                assert_eq!(held.task.id, hand.id);
                hand.final_reports += 1;
            }
        }
    }

    fn hand(&mut self) -> &mut Hand {
        self.in_hand.as_mut().expect("a task is in hand")
    }

    /// Puts the hand down once the machine has.
    fn put_down(&mut self, phase: Phase) {
        if !matches!(phase, Phase::Held | Phase::Running) {
            self.past.extend(self.in_hand.take());
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
            if let Some(event) = world.event(step) {
                let mut actions = Vec::new();
                state.handle(event, now, &mut actions);
                actions.iter().for_each(|action| world.perform(&state, action));
                world.put_down(state.phase());
            }
            while let Some(action) = state.settle(world.room, now) {
                world.perform(&state, &action);
            }
            prop_assert_eq!(world.fetching, state.phase() == Phase::Fetching);
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
