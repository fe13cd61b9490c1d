//! The reactor against a simulated world: single situations here, random histories in [`histories`].

#[expect(
    dead_code,
    reason = "the model also serves a property test that is still being written"
)]
mod world;

use std::time::Duration;

use crate::protocol::report::Reason;
use crate::protocol::{ReportTaskOp, Verdict};

use world::{End, Task, World};

use super::super::patience;
use super::super::state::WorkerEnd;
use super::Standing;

/// The one end that the store has of a task.
#[track_caller]
fn end_of(world: &World, task: Task) -> ReportTaskOp {
    let ends = world.ends_of(task);
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends[0].report.op.clone()
}

#[track_caller]
fn reason_of(world: &World, task: Task) -> Reason {
    let op = end_of(world, task);
    op.result().expect("an end with a result").1.reason
}

#[test]
fn a_task_goes_through_one_worker_and_ends_once() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    assert!(world.starts(0));
    world.finish(0, End::Completed);
    world.settle();
    let ends = world.ends_of(task);
    assert_eq!((ends.len(), ends[0].attempt), (1, 1));
    assert!(world.reactor.is_empty() && world.reactor.is_committed());
}

#[test]
fn a_lease_stands_with_its_worker_from_hand_over_to_end() {
    let mut world = World::new(1);
    let task = world.submit();
    world.claims();
    let lease = world.lease_of(task);
    let with = |world: &World| match world.reactor.standing(lease) {
        Standing::With(_, execution) => Some((execution.try_no.0, execution.attempt)),
        _ => None,
    };
    assert_eq!(world.reactor.standing(lease), Standing::NotRunning);
    world.settle();
    world.starts(0);
    assert_eq!(with(&world), Some((1, 1)));
    world.kill(0, WorkerEnd::Signal(9));
    world.settle();
    world.starts(0);
    assert_eq!(with(&world), Some((2, 2)));
    world.finish(0, End::Completed);
    world.settle();
    assert_eq!(world.reactor.standing(lease), Standing::NotHere);
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut world = World::new(1);
    world.submit();
    world.settle();
    world.starts(0);
    world.finish(0, End::Completed);
    world.hear_all();
    assert_eq!(world.verdicts(), []);
    world.write_spool();
    assert_eq!(world.verdicts(), [Verdict::Accepted, Verdict::Accepted]);
}

#[test]
fn a_report_in_the_hands_of_a_dead_worker_counts() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts(0);
    world.finish(0, End::Completed);
    world.kill(0, WorkerEnd::Signal(9));
    world.settle();
    assert_eq!(world.executions_of(task), 1);
    assert!(matches!(end_of(&world, task), ReportTaskOp::Completed(_)));
}

#[test]
fn a_lost_execution_is_repeated_with_its_cause() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts(0);
    world.kill(0, WorkerEnd::Signal(9));
    world.settle();
    world.starts(0);
    world.finish(0, End::Completed);
    world.settle();
    let commit = world.ends_of(task).remove(0);
    assert_eq!((commit.attempt, commit.lost_tries.len()), (2, 1));
    assert_eq!(
        commit.lost_tries[0].cause,
        "worker 0 was killed by signal 9"
    );
}

#[test]
fn an_execution_that_only_the_status_block_knows_counts_as_one() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts_silently(0);
    world.kill(0, WorkerEnd::Signal(11));
    world.settle();
    world.starts_silently(0);
    world.kill(0, WorkerEnd::Signal(11));
    world.settle();
    assert_eq!(reason_of(&world, task), Reason::Strikes);
}

#[test]
fn an_execution_that_only_the_status_block_knows_counts_also_when_it_was_cancelled() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts_silently(0);
    world.cancel(task);
    world.settle();
    world.kill(0, WorkerEnd::Signal(9));
    world.settle();
    let commit = world.ends_of(task).remove(0);
    let result = commit.report.op.result().map(|(_, result)| result.clone());
    assert_eq!(commit.attempt, 1);
    assert!(result.is_some_and(|result| result.started_at_us.is_some()));
}

#[test]
fn a_hand_over_that_began_nothing_is_no_execution_and_no_strike() {
    let mut world = World::new(1);
    let task = world.submit();
    for _ in 0..4 {
        world.settle();
        world.kill(0, WorkerEnd::Signal(11));
    }
    world.settle();
    world.starts(0);
    world.finish(0, End::Completed);
    world.settle();
    let commit = world.ends_of(task).remove(0);
    assert_eq!((commit.attempt, commit.lost_tries.len()), (1, 0));
}

#[test]
fn a_task_before_which_every_worker_dies_is_given_up() {
    let mut world = World::new(1);
    let task = world.submit();
    for _ in 0..8 {
        world.settle();
        world.kill(0, WorkerEnd::Code(101));
    }
    world.settle();
    assert_eq!(reason_of(&world, task), Reason::WorkerLost);
}

#[test]
fn an_unconfirmed_hand_over_ends_its_holder_before_anybody_else_gets_the_task() {
    let mut world = World::new(2);
    let task = world.submit();
    world.settle();
    world.pass(Duration::from_millis(1900));
    assert_eq!(world.ordered_to_end(), []);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.ordered_to_end(), [], "late alone is none");
    for _ in 0..3 {
        world.pass(patience::BETWEEN_LOOKS);
    }
    world.pass(Duration::ZERO);
    assert_eq!(world.ordered_to_end().len(), 1);
    world.settle_without_burying();
    assert_eq!(
        world.hands(),
        1,
        "the task stays with its holder until that is over"
    );
    world.bury_all();
    world.settle();
    assert_eq!((world.hands(), world.ends_of(task).len()), (1, 0));
}

#[test]
fn a_late_worker_that_gets_no_core_is_not_ended_for_a_long_time() {
    let mut world = World::new(1);
    world.submit();
    world.settle();
    world.crowded = true;
    for _ in 0..290 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.ordered_to_end(), [], "minutes of patience");
    for _ in 0..12 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.ordered_to_end().len(), 1, "five minutes are enough");
}

#[test]
fn after_a_sleep_nothing_is_begun_under_a_lease_that_ended_meanwhile() {
    let mut world = World::new(1);
    world.submit();
    world.submit();
    world.settle();
    assert!(
        !world.reactor.is_withdrawn(),
        "the second lies at the bridge"
    );
    world.reactor.slept(Duration::from_secs(3600));
    world.settle();
    assert!(world.reactor.is_withdrawn(), "nobody can get it");
}

#[test]
fn nobody_is_late_while_the_spool_cannot_be_written() {
    let mut world = World::new(1);
    world.submit();
    world.settle();
    world.reactor.spool_fails(true, world.now);
    for _ in 0..200 {
        world.pass(Duration::from_millis(200));
    }
    assert_eq!(world.ordered_to_end(), [], "40 s of a full disk");
    world.reactor.spool_fails(false, world.now);
    world.pass(Duration::from_millis(1500));
    assert_eq!(world.ordered_to_end(), [], "it has all its time again");
    for _ in 0..5 {
        world.pass(patience::BETWEEN_LOOKS);
    }
    world.pass(Duration::ZERO);
    assert_eq!(world.ordered_to_end().len(), 1);
}

#[test]
fn cancels_end_a_task_wherever_it_is() {
    // At the bridge.
    let mut world = World::new(1);
    let (first, second) = (world.submit(), world.submit());
    world.settle();
    world.cancel(second);
    world.settle();
    assert_eq!(reason_of(&world, second), Reason::Cancelled);
    // Running, with a worker that obeys.
    world.starts(0);
    world.cancel(first);
    world.settle();
    assert!(world.obeys(0));
    world.settle();
    assert_eq!(reason_of(&world, first), Reason::Cancelled);
    assert!(
        world.reactor.control().cancels.is_empty(),
        "an order ends with its task"
    );
}

#[test]
fn a_holder_that_ignores_a_cancel_is_ended_after_its_grace() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts(0);
    world.cancel(task);
    world.settle();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.ordered_to_end(), []);
    world.pass(Duration::from_millis(1300));
    assert_eq!(world.ordered_to_end().len(), 1);
    world.bury_all();
    world.settle();
    assert_eq!(reason_of(&world, task), Reason::Cancelled);
    assert_eq!(world.executions_of(task), 1);
}

#[test]
fn a_task_that_ended_before_its_cancel_keeps_its_result() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts(0);
    world.finish(0, End::Completed);
    world.cancel(task);
    world.settle();
    assert!(matches!(end_of(&world, task), ReportTaskOp::Completed(_)));
}

#[test]
fn the_buffer_goes_on_while_the_coordinator_is_away_until_the_leases_are_short() {
    let mut world = World::new(1);
    let tasks = [world.submit(), world.submit(), world.submit()];
    world.settle();
    world.disconnect();
    world.starts(0);
    world.finish(0, End::Completed);
    world.settle();
    assert!(
        world.starts(0),
        "the next task begins without a coordinator"
    );
    world.pass(Duration::from_secs(119));
    world.finish(0, End::Completed);
    world.settle();
    assert_eq!(
        world.hands(),
        0,
        "a lease that is about to end begins nothing"
    );
    world.connect();
    world.settle();
    assert_eq!(
        world.ends_of(tasks[0]).len() + world.ends_of(tasks[1]).len(),
        2
    );
    assert!(world.starts(0), "a renewed lease begins again");
}

#[test]
fn what_the_coordinator_gave_away_is_ended_and_its_report_forgotten() {
    let mut world = World::new(1);
    let task = world.submit();
    world.settle();
    world.starts(0);
    world.settle();
    world.disconnect();
    world.take_back(task);
    world.connect();
    world.settle();
    assert!(world.obeys(0), "the worker is told to end it");
    world.hear_all();
    assert_eq!(world.verdicts().last(), Some(&Verdict::Stale));
}

#[test]
fn a_pause_takes_everything_back_and_a_drain_hands_it_over() {
    let mut world = World::new(1);
    let tasks = [world.submit(), world.submit(), world.submit()];
    world.settle();
    world.starts(0);
    world.reactor.pause(true);
    world.settle();
    assert!(world.reactor.is_withdrawn());
    let now = world.now;
    world.reactor.drain("the manager leaves", now);
    world.finish(0, End::Completed);
    world.settle();
    assert!(world.reactor.is_empty() && world.reactor.is_committed());
    let ends: usize = tasks.iter().map(|task| world.ends_of(*task).len()).sum();
    assert_eq!((ends, world.ready()), (1, 2));
}

#[test]
fn a_pause_takes_back_what_a_worker_has_not_begun() {
    let mut world = World::new(1);
    world.submit();
    world.settle();
    world.reactor.pause(true);
    world.settle();
    assert_eq!((world.hands(), world.starts(0)), (0, false));
    world.reactor.pause(false);
    world.settle();
    assert!(world.starts(0));
    world.finish(0, End::Completed);
    world.settle();
    assert!(world.reactor.is_empty() && world.reactor.is_committed());
}

#[test]
fn a_task_that_workers_keep_handing_back_goes_to_the_coordinator() {
    let mut world = World::new(1);
    world.submit();
    world.stop_claims();
    for _ in 0..4 {
        world.settle();
        world.finish(0, End::Released);
    }
    world.settle();
    assert_eq!((world.hands(), world.ready()), (0, 1));
}

/// A history of everything that can happen to hand-overs, drawn from `seed`.
fn any_history(world: &mut World, seed: u64) {
    let mut drawn = seed;
    let mut draw = |below: u64| {
        // Knuth's generator: the upper bits are good enough for a choice.
        drawn = drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) % below
    };
    for _ in 0..400 {
        let worker = usize::try_from(draw(4)).unwrap();
        match draw(12) {
            0 | 1 => drop(world.submit()),
            2 => drop(world.hand_over(worker)),
            3 => drop(world.starts(worker)),
            4 => drop(world.finish(worker, End::Completed)),
            5 => drop(world.finish(worker, End::Released)),
            6 => world.kill(worker, WorkerEnd::Signal(libc::SIGKILL)),
            7 => world.bury_all(),
            8 => world.reactor.pause(draw(3) == 0),
            9 => world.answer_withdrawal(),
            10 => drop(world.obeys(worker)),
            _ => world.settle_without_burying(),
        }
    }
    world.reactor.pause(false);
    world.run_to_the_end();
}

#[test]
fn cpus_have_one_holder_and_come_back_whatever_happens() {
    for seed in 0..40 {
        let mut world = World::new(4);
        world.ask_for_cpus(&[Some(2.0), Some(1.0), None, Some(4.0), Some(0.5)]);
        any_history(&mut world, seed);
        let all = crate::protocol::task::Resources {
            cpus: Some(4.0),
            ..Default::default()
        };
        assert!(
            world.reactor.ids.take(&all).is_some(),
            "ids were lost in history {seed}"
        );
    }
}
