//! How the whole store stands: the books behind the accounting gap, and the age of the queue.

use super::*;
use crate::coordinator::store::{CancelTarget, CancelWish, Levels};
use crate::protocol::task::Backoff;

async fn levels(bench: &Bench<'_>) -> Levels {
    bench.store.levels().await.unwrap()
}

/// The gap is 0, and its three numbers are these.
#[track_caller]
fn balanced(levels: &Levels, accepted: u64, ended: u64) {
    assert_eq!(levels.gap(), 0, "{levels:?}");
    assert_eq!(
        (levels.accepted, levels.ended),
        (accepted, ended),
        "{levels:?}"
    );
}

pub(in super::super) async fn the_books_of_the_levels_balance_in_every_state(
    backend: &dyn Backend,
) {
    let mut bench = Bench::new(backend).await;
    let empty = levels(&bench).await;
    balanced(&empty, 0, 0);
    assert_eq!(empty.oldest_ready_us, None);
    let tasks = bench.submit_n(6).await;
    balanced(&levels(&bench).await, 6, 0);
    let manager = bench.manager(1).await;
    let held = bench.claim(manager, 4).await;
    bench.report(manager, &held[0], exited(0)).await;
    bench.report(manager, &held[1], exited(1)).await;
    bench.report(manager, &held[2], started()).await;
    let target = CancelTarget::Task(tasks[5].uuid);
    bench.store.cancel(target, CancelWish::Now).await.unwrap();
    let mixed = levels(&bench).await;
    balanced(&mixed, 6, 3);
    let expected = [
        (TaskState::Ready, 1),
        (TaskState::Assigned, 1),
        (TaskState::Running, 1),
        (TaskState::Completed, 1),
        (TaskState::Failed, 1),
        (TaskState::Cancelled, 1),
    ];
    assert_eq!(mixed.counts, expected.into());
    bench.restart().await;
    balanced(&levels(&bench).await, 6, 3);
}

pub(in super::super) async fn the_oldest_ready_task_is_found_behind_higher_priorities(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    let of_priority = |priority| TaskSpec {
        priority,
        ..TaskSpec::argv(["true"])
    };
    let begun = bench.store.levels().await.unwrap().oldest_ready_us;
    assert_eq!(begun, None);
    bench.submit_one(of_priority(-1)).await;
    let first = levels(&bench).await.oldest_ready_us.unwrap();
    bench.pass(Duration::from_secs(1)).await;
    let tagged = TaskSpec {
        tags: vec!["gpu".to_owned()],
        ..of_priority(0)
    };
    bench.submit(vec![of_priority(9), tagged]).await;
    let manager = bench.manager(1).await;
    assert_eq!(levels(&bench).await.oldest_ready_us, Some(first));
    // The claim takes the two of higher priority; the old one still waits.
    bench.claim(manager, 2).await;
    assert_eq!(levels(&bench).await.oldest_ready_us, Some(first));
    bench.claim(manager, 1).await;
    assert_eq!(levels(&bench).await.oldest_ready_us, None);
}

pub(in super::super) async fn a_task_that_is_ready_again_waits_from_then_on(backend: &dyn Backend) {
    let bench = Bench::new(backend).await;
    let pause = Duration::from_secs(10);
    let spec = TaskSpec {
        max_attempts: Some(2),
        backoff: Some(Backoff {
            initial: pause.into(),
            max: pause.into(),
        }),
        ..TaskSpec::argv(["false"])
    };
    bench.submit_one(spec).await;
    let first = levels(&bench).await.oldest_ready_us.unwrap();
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    bench.report(manager, &task, exited(1)).await;
    // It waits for its back-off, which is no waiting for a worker.
    let waiting = levels(&bench).await;
    balanced(&waiting, 1, 0);
    assert_eq!(waiting.oldest_ready_us, None);
    bench.pass(pause).await;
    let again = levels(&bench).await;
    balanced(&again, 1, 0);
    assert!(again.oldest_ready_us > Some(first), "{again:?}");
}
