//! Sentence tests of the hand-over and a property test against a model that knows only the promises.

use super::*;
use proptest::prelude::*;

const A: Incarnation = Incarnation(1);
const B: Incarnation = Incarnation(2);

fn reply(key: u64, cost: u32, now: Instant) -> Prepared<u64> {
    Prepared {
        key,
        cost: Cost([cost, 0, 0, 0]),
        not_after: now + Duration::from_secs(60),
        body: key * 10,
    }
}

fn machine(capacity: u32) -> (Handover<u64>, Instant) {
    let mut handover = Handover::new(Cost([capacity, 0, 0, 0]));
    handover.admit(A);
    handover.admit(B);
    (handover, Instant::now())
}

#[track_caller]
fn keys(handover: &mut Handover<u64>, now: Instant) -> Vec<(Incarnation, u64)> {
    std::iter::from_fn(|| handover.next_hand(now))
        .map(|hand| (hand.incarnation, hand.key))
        .collect()
}

#[test]
fn a_prepared_reply_goes_to_a_parked_fetch() {
    let (mut handover, now) = machine(10);
    assert_eq!(handover.fetch(A, 0, now), FetchDecision::Park);
    assert_eq!(handover.next_hand(now), None);
    handover.prepare(reply(7, 1, now)).unwrap();
    let hand = handover.next_hand(now).unwrap();
    assert_eq!((hand.incarnation, hand.key, hand.body), (A, 7, 70));
    assert_eq!(handover.next_hand(now), None);
}

#[test]
fn an_unconfirmed_hand_over_is_repeated_and_a_confirmed_one_is_over() {
    let (mut handover, now) = machine(1);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover.prepare(reply(8, 1, now)).unwrap();
    handover.fetch(A, 0, now);
    assert_eq!(keys(&mut handover, now), [(A, 7)]);
    let again = FetchDecision::Redeliver { key: 7, body: 70 };
    assert_eq!(handover.fetch(A, 0, now), again);
    assert_eq!(handover.fetch(A, 0, now), again);
    assert_eq!(handover.fetch(A, 7, now), FetchDecision::Park);
    assert_eq!(keys(&mut handover, now), [(A, 8)]);
}

#[test]
fn a_report_that_confirms_does_not_free_the_cost() {
    let (mut handover, now) = machine(1);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover.prepare(reply(8, 1, now)).unwrap();
    handover.fetch(A, 0, now);
    handover.fetch(B, 0, now);
    assert_eq!(keys(&mut handover, now), [(B, 7)]);
    handover.confirm(B, 7);
    assert_eq!(keys(&mut handover, now), []);
    handover.finish(B);
    assert_eq!(keys(&mut handover, now), [(A, 8)]);
}

#[test]
fn a_shut_gate_keeps_replies_and_an_open_one_releases_them() {
    let (mut handover, now) = machine(10);
    handover.set_gate(Gate::Shut);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover.fetch(A, 0, now);
    assert_eq!(keys(&mut handover, now), []);
    handover.set_gate(Gate::Open);
    assert_eq!(keys(&mut handover, now), [(A, 7)]);
}

#[test]
fn a_reply_past_its_time_is_stepped_over_and_can_be_withdrawn() {
    let (mut handover, now) = machine(10);
    let late = now + Duration::from_secs(61);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover
        .prepare(Prepared {
            not_after: late,
            ..reply(8, 1, now)
        })
        .unwrap();
    handover.fetch(A, 0, late);
    assert_eq!(keys(&mut handover, late), [(A, 8)]);
    assert_eq!(handover.withdraw(&[7]), [(7, Withdrawal::Withdrawn)]);
}

#[test]
fn withdrawal_says_who_has_it() {
    let (mut handover, now) = machine(10);
    for key in 1..=2 {
        handover.prepare(reply(key, 1, now)).unwrap();
    }
    handover.fetch(A, 0, now);
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
    let expected = [
        (1, Withdrawal::AlreadyHanded(A)),
        (2, Withdrawal::Withdrawn),
        (3, Withdrawal::Unknown),
    ];
    assert_eq!(handover.withdraw(&[1, 2, 3]), expected);
    assert_eq!(handover.withdraw(&[2]), [(2, Withdrawal::Unknown)]);
    handover.retire(A);
    assert_eq!(handover.withdraw(&[1]), [(1, Withdrawal::AlreadyHanded(A))]);
}

#[test]
fn keys_and_costs_are_checked_when_a_reply_is_prepared() {
    let (mut handover, now) = machine(4);
    assert_eq!(
        handover.prepare(reply(0, 1, now)),
        Err(PrepareRefusal::ZeroKey)
    );
    assert_eq!(
        handover.prepare(reply(1, 5, now)),
        Err(PrepareRefusal::ExceedsCapacity)
    );
    handover.prepare(reply(1, 4, now)).unwrap();
    assert_eq!(
        handover.prepare(reply(1, 1, now)),
        Err(PrepareRefusal::DuplicateKey)
    );
    handover.fetch(A, 0, now);
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
    assert_eq!(
        handover.prepare(reply(1, 1, now)),
        Err(PrepareRefusal::DuplicateKey)
    );
}

#[test]
fn a_large_reply_is_not_starved_by_small_ones_behind_it() {
    let (mut handover, now) = machine(4);
    handover.prepare(reply(1, 2, now)).unwrap();
    handover.prepare(reply(2, 4, now)).unwrap();
    handover.prepare(reply(3, 1, now)).unwrap();
    handover.fetch(A, 0, now);
    handover.fetch(B, 0, now);
    assert_eq!(keys(&mut handover, now), [(B, 1)]);
    assert_eq!(handover.fetch(B, 1, now), FetchDecision::Park);
    assert_eq!(keys(&mut handover, now), [(B, 2)]);
}

#[test]
fn a_parked_fetch_expires_after_its_limit() {
    let (mut handover, now) = machine(4);
    handover.fetch(A, 0, now);
    assert!(
        handover
            .expire(now + PARK_LIMIT - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(handover.expire(now + PARK_LIMIT), [(A, now)]);
    assert_eq!(handover.parked(), 0);
}

#[test]
fn a_drain_answers_parked_and_later_fetches_until_the_gate_opens() {
    let (mut handover, now) = machine(4);
    handover.fetch(A, 0, now);
    assert_eq!(handover.drain(), [(A, now)]);
    assert_eq!(handover.fetch(B, 0, now), FetchDecision::Draining);
    handover.set_gate(Gate::Open);
    assert_eq!(handover.fetch(B, 0, now), FetchDecision::Park);
}

#[test]
fn strangers_and_the_retired_get_nothing() {
    let (mut handover, now) = machine(4);
    assert_eq!(
        handover.fetch(Incarnation(9), 0, now),
        FetchDecision::NotAdmitted
    );
    handover.fetch(A, 0, now);
    handover.retire(A);
    handover.prepare(reply(1, 1, now)).unwrap();
    assert_eq!(keys(&mut handover, now), []);
    assert_eq!(handover.fetch(A, 0, now), FetchDecision::NotAdmitted);
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u64),
    Retire(u64),
    Prepare { key: u64, cost: u32, ttl: u64 },
    Fetch { who: u64, honest: bool },
    Confirm(u64),
    Finish(u64),
    Withdraw(u64),
    Gate(Gate),
    Drain,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 1_u64..5;
    let step = prop_oneof![
        2 => who().prop_map(Step::Admit),
        1 => who().prop_map(Step::Retire),
        6 => (0_u64..40, 0_u32..6, 1_u64..90).prop_map(|(key, cost, ttl)| Step::Prepare { key, cost, ttl }),
        6 => (who(), prop::bool::weighted(0.7)).prop_map(|(who, honest)| Step::Fetch { who, honest }),
        1 => who().prop_map(Step::Confirm),
        1 => who().prop_map(Step::Finish),
        1 => (0_u64..40).prop_map(Step::Withdraw),
        1 => prop_oneof![Just(Gate::Open), Just(Gate::Shut)].prop_map(Step::Gate),
        1 => Just(Step::Drain),
        2 => (0_u64..40).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..120)
}

/// What the promises alone imply; knows nothing of queues.
#[derive(Default)]
struct Model {
    not_after: HashMap<u64, Instant>,
    costs: HashMap<u64, u32>,
    holding: HashMap<Incarnation, (u64, bool)>,
    last_key: HashMap<Incarnation, u64>,
}

impl Model {
    fn used(&self) -> u32 {
        self.holding.values().map(|(key, _)| self.costs[key]).sum()
    }
}

const CAPACITY: u32 = 8;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_promises_hold_in_every_order_of_events(steps in steps()) {
        let mut handover: Handover<u64> = Handover::new(Cost([CAPACITY, 0, 0, 0]));
        let mut model = Model::default();
        let mut now = Instant::now();
        let mut gate = Gate::Open;
        for step in steps {
            match step {
                Step::Admit(who) => handover.admit(Incarnation(who)),
                Step::Retire(who) => {
                    handover.retire(Incarnation(who));
                    model.holding.remove(&Incarnation(who));
                }
                Step::Prepare { key, cost, ttl } => {
                    let not_after = now + Duration::from_secs(ttl);
                    let held = model.holding.values().any(|(held, _)| *held == key);
                    let result = handover.prepare(Prepared { key, cost: Cost([cost, 0, 0, 0]), not_after, body: key * 10 });
                    prop_assert_eq!(result.is_err(), key == 0 || held || model.not_after.contains_key(&key));
                    if result.is_ok() {
                        model.not_after.insert(key, not_after);
                        model.costs.insert(key, cost);
                    }
                }
                Step::Fetch { who, honest } => {
                    let who = Incarnation(who);
                    let confirms = if honest { model.last_key.get(&who).copied().unwrap_or(0) } else { 0 };
                    let decision = handover.fetch(who, confirms, now);
                    match (model.holding.get(&who).copied(), &decision) {
                        (_, FetchDecision::NotAdmitted) => prop_assert!(!model.holding.contains_key(&who)),
                        (Some((key, false)), FetchDecision::Redeliver { key: again, body }) => {
                            prop_assert!(confirms != key);
                            prop_assert_eq!((*again, *body), (key, key * 10));
                        }
                        (Some((key, confirmed)), _) => {
                            prop_assert!(confirmed || confirms == key, "an unconfirmed hand was taken for empty");
                            model.holding.remove(&who);
                        }
                        (None, decision) => {
                            let repeated = matches!(decision, FetchDecision::Redeliver { .. });
                            prop_assert!(!repeated, "an empty hand was redelivered");
                        }
                    }
                }
                Step::Confirm(who) => {
                    let who = Incarnation(who);
                    if let Some(hold) = model.holding.get_mut(&who) {
                        hold.1 = true;
                        handover.confirm(who, hold.0);
                    }
                }
                Step::Finish(who) => {
                    handover.finish(Incarnation(who));
                    model.holding.remove(&Incarnation(who));
                }
                Step::Withdraw(key) => {
                    let queued = model.not_after.remove(&key).is_some();
                    let answer = handover.withdraw(&[key])[0].1;
                    prop_assert_eq!(queued, answer == Withdrawal::Withdrawn);
                    if let Some((who, _)) = model.holding.iter().find(|(_, (held, _))| *held == key) {
                        prop_assert_eq!(answer, Withdrawal::AlreadyHanded(*who));
                    }
                }
                Step::Gate(next) => {
                    gate = next;
                    handover.set_gate(next);
                }
                Step::Drain => {
                    handover.drain();
                    prop_assert_eq!(handover.parked(), 0);
                }
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    handover.expire(now);
                }
            }
            while let Some(hand) = handover.next_hand(now) {
                prop_assert_eq!(gate, Gate::Open);
                let not_after = model.not_after.remove(&hand.key);
                prop_assert!(not_after.is_some_and(|limit| now <= limit), "handed twice, or too late");
                let before = model.holding.insert(hand.incarnation, (hand.key, false));
                prop_assert!(before.is_none(), "handed to an incarnation with a full hand");
                model.last_key.insert(hand.incarnation, hand.key);
                prop_assert!(model.used() <= CAPACITY);
            }
            prop_assert_eq!(handover.prepared(), model.not_after.len());
        }
    }
}
