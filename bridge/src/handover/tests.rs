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
        batching: Batching::Alone,
        size: 1,
        body: key * 10,
    }
}

fn short(key: u64, now: Instant) -> Prepared<u64> {
    Prepared {
        batching: Batching::Expected(Duration::from_millis(1)),
        ..reply(key, 1, now)
    }
}

const BUSY: FetchWish = FetchWish {
    room: 8,
    idle: false,
};

fn busy(_: Incarnation) -> Readiness {
    Readiness::Soon
}

fn machine(capacity: u32) -> (Handover<u64>, Instant) {
    let mut handover = Handover::new(Cost([capacity, 0, 0, 0]));
    handover.admit(A);
    handover.admit(B);
    (handover, Instant::now())
}

#[track_caller]
fn keys(handover: &mut Handover<u64>, now: Instant) -> Vec<(Incarnation, u64)> {
    std::iter::from_fn(|| handover.next_hand(now, busy))
        .flat_map(|hand| {
            let who = hand.incarnation;
            hand.replies.into_iter().map(move |(key, _)| (who, key))
        })
        .collect()
}

#[test]
fn a_prepared_reply_goes_to_a_parked_fetch() {
    let (mut handover, now) = machine(10);
    assert_eq!(
        handover.fetch(A, 0, FetchWish::ONE, now),
        FetchDecision::Park
    );
    assert_eq!(handover.next_hand(now, busy), None);
    handover.prepare(reply(7, 1, now)).unwrap();
    let hand = handover.next_hand(now, busy).unwrap();
    assert_eq!((hand.incarnation, hand.replies), (A, vec![(7, 70)]));
    assert_eq!(handover.next_hand(now, busy), None);
}

#[test]
fn an_unconfirmed_hand_over_is_repeated_and_a_confirmed_one_is_over() {
    let (mut handover, now) = machine(1);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover.prepare(reply(8, 1, now)).unwrap();
    handover.fetch(A, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(A, 7)]);
    let again = FetchDecision::Redeliver(vec![(7, 70)]);
    assert_eq!(handover.fetch(A, 0, FetchWish::ONE, now), again);
    assert_eq!(handover.fetch(A, 0, FetchWish::ONE, now), again);
    assert_eq!(
        handover.fetch(A, 7, FetchWish::ONE, now),
        FetchDecision::Park
    );
    assert_eq!(keys(&mut handover, now), [(A, 8)]);
}

#[test]
fn a_report_that_confirms_does_not_free_the_cost() {
    let (mut handover, now) = machine(1);
    handover.prepare(reply(7, 1, now)).unwrap();
    handover.prepare(reply(8, 1, now)).unwrap();
    handover.fetch(A, 0, FetchWish::ONE, now);
    handover.fetch(B, 0, FetchWish::ONE, now);
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
    handover.fetch(A, 0, FetchWish::ONE, now);
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
    handover.fetch(A, 0, FetchWish::ONE, late);
    assert_eq!(keys(&mut handover, late), [(A, 8)]);
    assert_eq!(handover.withdraw(&[7]), [(7, Withdrawal::Withdrawn)]);
}

#[test]
fn withdrawal_says_who_has_it() {
    let (mut handover, now) = machine(10);
    for key in 1..=2 {
        handover.prepare(reply(key, 1, now)).unwrap();
    }
    handover.fetch(A, 0, FetchWish::ONE, now);
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
    handover.fetch(A, 0, FetchWish::ONE, now);
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
    handover.fetch(A, 0, FetchWish::ONE, now);
    handover.fetch(B, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(B, 1)]);
    assert_eq!(
        handover.fetch(B, 1, FetchWish::ONE, now),
        FetchDecision::Park
    );
    assert_eq!(keys(&mut handover, now), [(B, 2)]);
}

#[test]
fn a_parked_fetch_expires_after_its_limit() {
    let (mut handover, now) = machine(4);
    handover.fetch(A, 0, FetchWish::ONE, now);
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
    handover.fetch(A, 0, FetchWish::ONE, now);
    assert_eq!(handover.drain(), [(A, now)]);
    assert_eq!(
        handover.fetch(B, 0, FetchWish::ONE, now),
        FetchDecision::Draining
    );
    handover.set_gate(Gate::Open);
    assert_eq!(
        handover.fetch(B, 0, FetchWish::ONE, now),
        FetchDecision::Park
    );
}

#[test]
fn strangers_and_the_retired_get_nothing() {
    let (mut handover, now) = machine(4);
    assert_eq!(
        handover.fetch(Incarnation(9), 0, FetchWish::ONE, now),
        FetchDecision::NotAdmitted
    );
    handover.fetch(A, 0, FetchWish::ONE, now);
    handover.retire(A);
    handover.prepare(reply(1, 1, now)).unwrap();
    assert_eq!(keys(&mut handover, now), []);
    assert_eq!(
        handover.fetch(A, 0, FetchWish::ONE, now),
        FetchDecision::NotAdmitted
    );
}

#[test]
fn short_replies_come_together_as_far_as_time_room_and_fairness_go() {
    let (mut handover, now) = machine(10);
    for key in 1..=40 {
        handover.prepare(short(key, now)).unwrap();
    }
    let eager = FetchWish {
        room: 100,
        idle: true,
    };
    handover.fetch(A, 0, eager, now);
    let first = keys(&mut handover, now);
    assert_eq!(first.len(), 10, "as many as take 10 ms");
    handover.fetch(B, 0, FetchWish { room: 3, ..eager }, now);
    assert_eq!(keys(&mut handover, now).len(), 3, "as many as asked for");
    let rest: Vec<u64> = (17..=40).collect();
    handover.withdraw(&rest);
    handover.fetch(A, 10, eager, now);
    assert_eq!(
        keys(&mut handover, now),
        [(A, 14), (A, 15)],
        "half of three for one of two"
    );
}

#[test]
fn a_reply_of_unknown_length_comes_by_itself() {
    let (mut handover, now) = machine(10);
    for key in 1..=4 {
        handover
            .prepare(Prepared {
                batching: Batching::Expected(Duration::MAX),
                ..reply(key, 1, now)
            })
            .unwrap();
    }
    handover.fetch(
        A,
        0,
        FetchWish {
            room: 16,
            idle: true,
        },
        now,
    );
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
}

#[test]
fn a_lost_batch_is_repeated_whole() {
    let (mut handover, now) = machine(10);
    for key in 1..=4 {
        handover.prepare(short(key, now)).unwrap();
    }
    handover.fetch(
        A,
        0,
        FetchWish {
            room: 16,
            idle: true,
        },
        now,
    );
    assert_eq!(keys(&mut handover, now), [(A, 1), (A, 2)]);
    let again = FetchDecision::Redeliver(vec![(1, 10), (2, 20)]);
    assert_eq!(
        handover.fetch(A, 1, BUSY, now),
        again,
        "the last key names it"
    );
    assert_eq!(handover.fetch(A, 2, BUSY, now), FetchDecision::Park);
    assert_eq!(handover.withdraw(&[1]), [(1, Withdrawal::AlreadyHanded(A))]);
}

#[test]
fn a_busy_worker_gets_more_at_no_further_cost_but_idle_ones_come_first() {
    let (mut handover, now) = machine(1);
    for key in 1..=3 {
        handover.prepare(short(key, now)).unwrap();
    }
    handover.fetch(A, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
    handover.fetch(A, 1, BUSY, now);
    assert_eq!(keys(&mut handover, now), [(A, 2)]);
    handover.fetch(A, 2, BUSY, now);
    handover.fetch(B, 0, FetchWish::ONE, now);
    assert_eq!(
        keys(&mut handover, now),
        [],
        "an idle one waits for the capacity"
    );
    handover.finish(A);
    assert_eq!(keys(&mut handover, now), [(B, 3)]);
}

#[test]
fn nothing_is_put_in_line_behind_something_long_nor_anything_long_behind_something() {
    let (mut handover, now) = machine(9);
    handover.prepare(short(1, now)).unwrap();
    handover.fetch(A, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
    handover.fetch(A, 1, BUSY, now);
    handover.prepare(short(2, now)).unwrap();
    assert_eq!(handover.next_hand(now, |_| Readiness::Engaged), None);
    assert_eq!(keys(&mut handover, now), [(A, 2)]);
    let long = Batching::Expected(Duration::from_secs(1));
    let reply = Prepared {
        batching: long,
        ..short(3, now)
    };
    handover.prepare(reply).unwrap();
    handover.fetch(A, 2, BUSY, now);
    assert_eq!(keys(&mut handover, now), []);
    handover.fetch(B, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(B, 3)]);
}

#[test]
fn what_is_to_be_alone_waits_for_an_idle_worker_and_finds_one_that_has_run_dry() {
    let (mut handover, now) = machine(2);
    handover.prepare(short(1, now)).unwrap();
    handover.fetch(A, 0, FetchWish::ONE, now);
    assert_eq!(keys(&mut handover, now), [(A, 1)]);
    handover.prepare(reply(2, 2, now)).unwrap();
    handover.prepare(short(3, now)).unwrap();
    handover.fetch(A, 1, BUSY, now);
    assert_eq!(keys(&mut handover, now), []);
    let hand = handover.next_hand(now, |_| Readiness::Idle).unwrap();
    assert_eq!((hand.incarnation, hand.replies), (A, vec![(2, 20)]));
}

#[test]
fn replies_that_do_not_fit_one_answer_come_in_several() {
    let (mut handover, now) = machine(10);
    for key in 1..=6 {
        handover
            .prepare(Prepared {
                size: WHOLE_ANSWER / 2,
                ..short(key, now)
            })
            .unwrap();
    }
    handover.fetch(
        A,
        0,
        FetchWish {
            room: 16,
            idle: true,
        },
        now,
    );
    assert_eq!(keys(&mut handover, now), [(A, 1), (A, 2)]);
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u64),
    Retire(u64),
    Prepare {
        key: u64,
        cost: u32,
        ttl: u64,
        ms: u64,
    },
    Fetch {
        who: u64,
        honest: bool,
        wish: FetchWish,
    },
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
        6 => (0_u64..40, 0_u32..6, 1_u64..90, 0_u64..8).prop_map(|(key, cost, ttl, ms)| Step::Prepare { key, cost, ttl, ms }),
        6 => (who(), prop::bool::weighted(0.7), 0_u16..9, any::<bool>()).prop_map(|(who, honest, room, idle)| Step::Fetch { who, honest, wish: FetchWish { room, idle } }),
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
    alone: HashSet<u64>,
    /// The last answer of each, until it is confirmed.
    unconfirmed: HashMap<Incarnation, Vec<u64>>,
    /// What is counted for each.
    counted: HashMap<Incarnation, u32>,
    last_key: HashMap<Incarnation, u64>,
}

impl Model {
    fn confirm(&mut self, who: Incarnation, key: u64) {
        if self
            .unconfirmed
            .get(&who)
            .is_some_and(|keys| keys.last() == Some(&key))
        {
            self.unconfirmed.remove(&who);
        }
    }

    fn finish(&mut self, who: Incarnation) {
        self.unconfirmed.remove(&who);
        self.counted.remove(&who);
    }

    fn is_held(&self, key: u64) -> bool {
        self.unconfirmed.values().flatten().any(|held| *held == key)
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
                    model.finish(Incarnation(who));
                }
                Step::Prepare { key, cost, ttl, ms } => {
                    let not_after = now + Duration::from_secs(ttl);
                    let known = key == 0 || model.is_held(key) || model.not_after.contains_key(&key);
                    let batching = if ms == 0 { Batching::Alone } else { Batching::Expected(Duration::from_millis(ms)) };
                    let result = handover.prepare(Prepared { key, cost: Cost([cost, 0, 0, 0]), not_after, batching, size: 1, body: key * 10 });
                    prop_assert_eq!(result.is_err(), known);
                    if result.is_ok() {
                        model.not_after.insert(key, not_after);
                        model.costs.insert(key, cost);
                        if ms == 0 { model.alone.insert(key); } else { model.alone.remove(&key); }
                    }
                }
                Step::Fetch { who, honest, wish } => {
                    let who = Incarnation(who);
                    let confirms = if honest { model.last_key.get(&who).copied().unwrap_or(0) } else { 0 };
                    let decision = handover.fetch(who, confirms, wish, now);
                    model.confirm(who, confirms);
                    match (model.unconfirmed.get(&who), decision) {
                        (held, FetchDecision::NotAdmitted) => prop_assert!(held.is_none()),
                        (Some(held), FetchDecision::Redeliver(again)) => {
                            let expected: Vec<_> = held.iter().map(|key| (*key, key * 10)).collect();
                            prop_assert_eq!(again, expected);
                        }
                        (held, decision) => {
                            prop_assert!(held.is_none(), "an unconfirmed hand-over was taken for received");
                            let repeated = matches!(decision, FetchDecision::Redeliver(_));
                            prop_assert!(!repeated, "nothing was to be redelivered");
                            if wish.idle {
                                model.finish(who);
                            }
                        }
                    }
                }
                Step::Confirm(who) => {
                    let who = Incarnation(who);
                    let key = model.last_key.get(&who).copied().unwrap_or(0);
                    handover.confirm(who, key);
                    model.confirm(who, key);
                }
                Step::Finish(who) => {
                    handover.finish(Incarnation(who));
                    model.finish(Incarnation(who));
                }
                Step::Withdraw(key) => {
                    let queued = model.not_after.remove(&key).is_some();
                    let answer = handover.withdraw(&[key])[0].1;
                    prop_assert_eq!(queued, answer == Withdrawal::Withdrawn);
                    let holds = |(_, keys): &(&Incarnation, &Vec<u64>)| keys.contains(&key);
                    if let Some((who, _)) = model.unconfirmed.iter().find(holds) {
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
            while let Some(hand) = handover.next_hand(now, busy) {
                prop_assert_eq!(gate, Gate::Open);
                let who = hand.incarnation;
                let keys: Vec<u64> = hand.replies.iter().map(|(key, _)| *key).collect();
                for key in &keys {
                    let not_after = model.not_after.remove(key);
                    prop_assert!(not_after.is_some_and(|limit| now <= limit), "handed twice, or too late");
                    let alone = model.alone.contains(key);
                    prop_assert!(!alone || (keys.len() == 1 && !model.counted.contains_key(&who)), "not alone");
                    let counted = model.counted.entry(who).or_insert_with(|| model.costs[key]);
                    prop_assert!(model.costs[key] <= *counted, "more than is counted for the hand");
                }
                model.last_key.insert(who, *keys.last().unwrap());
                let before = model.unconfirmed.insert(who, keys);
                prop_assert!(before.is_none(), "handed to an incarnation that has not confirmed");
                prop_assert!(model.counted.values().sum::<u32>() <= CAPACITY);
            }
            prop_assert_eq!(handover.prepared(), model.not_after.len());
        }
    }
}
