//! Sentences about the outbox, then arbitrary receivers against its invariants.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::report::Reason;
use crate::protocol::{Lease, TaskRef, TaskResult, Try};

fn held() -> HandOver {
    HandOver {
        task: TaskRef {
            id: 1,
            uuid: Uuid::nil(),
        },
        lease: Lease::new(1, 1),
        try_no: Try(1),
    }
}

fn started() -> ReportTaskOp {
    ReportTaskOp::Started { at_us: 1 }
}

fn ended(reason: Reason) -> ReportTaskOp {
    ReportTaskOp::ended(TaskResult {
        exit_code: Some(0),
        ..TaskResult::not_started(reason, "", 2)
    })
}

fn outbox(window: usize) -> Outbox {
    Outbox::new(window, 1, Jitter::seeded(1))
}

fn retryable() -> CommError {
    CommError::Retryable {
        reason: "away".into(),
        after: None,
    }
}

fn say(verdict: Verdict) -> Result<ReportTaskResp, CommError> {
    Ok(ReportTaskResp::of(verdict, 0))
}

fn frames(outbox: &mut Outbox, now: Instant) -> Vec<Vec<u64>> {
    let frame = || {
        let reports = outbox.due(now);
        let seqs: Vec<u64> = reports.iter().map(|report| report.seq).collect();
        (!seqs.is_empty()).then_some(seqs)
    };
    std::iter::from_fn(frame).collect()
}

#[test]
fn reports_that_are_due_together_go_together_as_far_as_a_frame_has_room() {
    let now = Instant::now();
    let mut outbox = Outbox::new(2, 4, Jitter::seeded(1));
    for _ in 0..10 {
        outbox.push(held(), started());
    }
    let all = frames(&mut outbox, now);
    assert_eq!(
        all,
        [vec![1, 2, 3, 4], vec![5, 6, 7, 8]],
        "two frames of four"
    );
    for seq in 1..=4 {
        outbox.answered(seq, say(Verdict::Accepted), now);
    }
    assert_eq!(frames(&mut outbox, now), [[9, 10]]);
    let mut large = TaskResult::not_started(Reason::Exit, "", 2);
    large.stdout.tail = vec![b'x'; FRAME_BYTES / 2];
    let mut outbox = Outbox::new(9, 4, Jitter::seeded(1));
    for _ in 0..3 {
        outbox.push(held(), ReportTaskOp::ended(large.clone()));
    }
    assert_eq!(frames(&mut outbox, now), [[1], [2], [3]]);
}

fn due(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
    frames(outbox, now).concat()
}

#[test]
fn reports_are_numbered_from_one_and_sent_in_order() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    for expected in 1..=5 {
        assert_eq!(outbox.push(held(), started()), expected);
    }
    assert_eq!(due(&mut outbox, now), [1, 2, 3, 4]);
    outbox.answered(2, say(Verdict::Accepted), now);
    assert_eq!(due(&mut outbox, now), [5]);
}

#[test]
fn with_a_window_of_one_each_report_waits_for_the_answer_to_the_one_before() {
    let now = Instant::now();
    let mut outbox = outbox(1);
    outbox.push(held(), started());
    outbox.push(held(), ended(Reason::Exit));
    assert_eq!(due(&mut outbox, now), [1]);
    outbox.answered(1, say(Verdict::Accepted), now);
    assert_eq!(due(&mut outbox, now), [2]);
}

#[test]
fn a_report_survives_failing_attempts_and_keeps_its_number() {
    let mut now = Instant::now();
    let mut outbox = outbox(4);
    outbox.push(held(), ended(Reason::Exit));
    for failures in 1..=3 {
        assert_eq!(due(&mut outbox, now), [1]);
        let answer = outbox.answered(1, Err(retryable()), now);
        assert!(matches!(answer, Answer::Again(..)), "{answer:?}");
        assert!(
            due(&mut outbox, now).is_empty(),
            "not before its pause is over"
        );
        assert_eq!(outbox.tally().retries, failures);
        now = outbox.next_retry().expect("a next attempt");
    }
    assert_eq!(outbox.tally().completed, 0);
    assert_eq!(due(&mut outbox, now), [1]);
    outbox.answered(1, say(Verdict::Duplicate), now);
    assert_eq!((outbox.tally().completed, outbox.is_empty()), (1, true));
}

#[test]
fn a_report_that_waits_holds_back_those_behind_it() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    outbox.push(held(), started());
    assert_eq!(due(&mut outbox, now), [1]);
    outbox.push(held(), ended(Reason::Exit));
    outbox.answered(1, say(Verdict::RetryLater { after_ms: 60_000 }), now);
    assert!(due(&mut outbox, now).is_empty());
    let later = now + Duration::from_secs(60);
    assert_eq!(
        outbox.next_retry(),
        Some(later),
        "the receiver's pause counts"
    );
    assert_eq!(due(&mut outbox, later), [1, 2]);
}

#[test]
fn a_refused_report_is_dropped_and_counted_as_nothing_else() {
    for verdict in [
        Verdict::Stale,
        Verdict::NotOwner,
        Verdict::Invalid {
            message: "no".into(),
        },
    ] {
        let now = Instant::now();
        let mut outbox = outbox(4);
        outbox.push(held(), ended(Reason::Exit));
        due(&mut outbox, now);
        let answer = outbox.answered(1, say(verdict.clone()), now);
        assert!(matches!(answer, Answer::Dropped(_, v) if v == verdict));
        assert!(outbox.is_empty());
        let expected = Tally {
            dropped: 1,
            ..Tally::default()
        };
        assert_eq!(*outbox.tally(), expected);
    }
}

#[test]
fn every_end_is_counted_once_it_is_acknowledged() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    let released = ReportTaskOp::Released { reason: "".into() };
    let ends = [
        ended(Reason::Exit),
        ended(Reason::Timeout),
        ended(Reason::Cancelled),
        released,
    ];
    for (index, end) in ends.into_iter().enumerate() {
        outbox.push(held(), end);
        due(&mut outbox, now);
        assert_eq!(outbox.tally().cancelled, u64::from(index > 2));
        outbox.answered(index as u64 + 1, say(Verdict::Accepted), now);
    }
    let tally = *outbox.tally();
    let counts = [
        tally.completed,
        tally.failed,
        tally.cancelled,
        tally.released,
    ];
    assert_eq!(counts, [1, 1, 1, 1]);
}

#[test]
fn a_cumulative_acknowledgement_closes_what_waits_for_its_next_attempt() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    outbox.push(held(), started());
    outbox.push(held(), ended(Reason::Exit));
    assert_eq!(due(&mut outbox, now), [1, 2]);
    outbox.answered(1, Err(retryable()), now);
    outbox.answered(2, Ok(ReportTaskResp::of(Verdict::Accepted, 2)), now);
    assert!(outbox.is_empty());
}

#[test]
fn a_garbled_answer_does_not_lose_the_report() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    outbox.push(held(), ended(Reason::Exit));
    due(&mut outbox, now);
    let garbled = CommError::Protocol {
        reason: "no json".into(),
    };
    assert!(matches!(
        outbox.answered(1, Err(garbled), now),
        Answer::Again(..)
    ));
    assert_eq!(outbox.len(), 1);
}

#[test]
fn a_lost_receiver_leaves_the_report_where_it_is() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    outbox.push(held(), ended(Reason::Exit));
    due(&mut outbox, now);
    let gone = CommError::PeerGone { peer: "manager" };
    assert_eq!(outbox.answered(1, Err(gone), now), Answer::Lost);
    assert_eq!(outbox.left().count(), 1);
}

#[test]
fn there_is_room_for_as_many_tasks_as_both_of_their_reports_fit() {
    let mut outbox = outbox(4);
    assert_eq!(outbox.room_for_tasks(), CAPACITY / REPORTS_PER_TASK);
    for _ in 0..CAPACITY - REPORTS_PER_TASK {
        outbox.push(held(), started());
    }
    assert_eq!(outbox.room_for_tasks(), 1);
    outbox.push(held(), started());
    assert_eq!(outbox.room_for_tasks(), 0);
}

/// How a receiver treats one report.
#[derive(Debug, Clone)]
enum Treatment {
    Says(Verdict),
    /// It has the report, and its answer is lost.
    TakesSilently,
    /// Nothing reaches it.
    IsAway,
}

/// A receiver that answers in any order and any way.
fn receiver() -> impl Strategy<Value = Vec<(usize, Treatment)>> {
    let treatment = prop_oneof![
        6 => Just(Treatment::Says(Verdict::Accepted)),
        2 => Just(Treatment::Says(Verdict::Duplicate)),
        1 => Just(Treatment::Says(Verdict::Stale)),
        1 => (0u64..500).prop_map(|after_ms| Treatment::Says(Verdict::RetryLater { after_ms })),
        2 => Just(Treatment::TakesSilently),
        2 => Just(Treatment::IsAway),
    ];
    proptest::collection::vec((any::<usize>(), treatment), 0..120)
}

proptest! {
    #[test]
    fn every_report_is_answered_for_once_and_none_is_lost(answers in receiver(), window in 1usize..5) {
        let mut now = Instant::now();
        let mut outbox = outbox(window);
        let mut pushed = 0u64;
        let mut in_flight: Vec<u64> = Vec::new();
        let mut taken: BTreeSet<u64> = BTreeSet::new();
        let mut answered_for: BTreeSet<u64> = BTreeSet::new();
        for (pick, treatment) in answers {
            while outbox.room_for_tasks() > 0 {
                outbox.push(held(), started());
                pushed = outbox.push(held(), ended(Reason::Exit));
            }
            in_flight.extend(due(&mut outbox, now));
            prop_assert!(in_flight.len() <= window && outbox.len() <= CAPACITY);
            if in_flight.is_empty() {
                now = outbox.next_retry().expect("what is not in flight waits");
                continue;
            }
            let seq = in_flight.remove(pick % in_flight.len());
            let answer = match treatment {
                Treatment::Says(verdict) => {
                    if verdict.closes() {
                        taken.insert(seq);
                    }
                    let gapless = (1..).take_while(|seq| taken.contains(seq)).last();
                    Ok(ReportTaskResp::of(verdict, gapless.unwrap_or(0)))
                }
                Treatment::TakesSilently => {
                    taken.insert(seq);
                    Err(retryable())
                }
                Treatment::IsAway => Err(retryable()),
            };
            match outbox.answered(seq, answer, now) {
                Answer::Closed(report, _) | Answer::Dropped(report, _) => {
                    prop_assert_eq!(report.seq, seq);
                    prop_assert!(answered_for.insert(seq), "twice");
                }
                Answer::Again(..) | Answer::Known => {}
                Answer::Lost => prop_assert!(false, "nobody is lost here"),
            }
        }
        // Whatever is not left was answered for, or the receiver has it.
        let left: BTreeSet<u64> = outbox.left().map(|report| report.seq).collect();
        for seq in 1..=pushed {
            prop_assert!(left.contains(&seq) || answered_for.contains(&seq) || taken.contains(&seq));
            prop_assert!(!(left.contains(&seq) && answered_for.contains(&seq)));
        }
    }
}
