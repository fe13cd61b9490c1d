//! The status block: what a worker tells without being asked.
//!
//! One small shared-memory record per incarnation, created by the manager, inherited by the worker and mapped by both.
//! The worker writes ([`StatusBlock`]), the manager reads at any moment, also after the worker's death ([`StatusView`]):
//! supervision, orphan kill and metrics rest on it, and nobody is woken for it. It decides nothing.

mod layout;
mod view;
mod words;
mod writer;

pub(crate) use layout::clock_ns;
pub use layout::{LAYOUT_VERSION, Outcome, Phase};
pub use view::{StatusSnapshot, StatusView, TaskInHand};
pub use words::{Revocation, Word};
pub use writer::StatusBlock;

pub use crate::histogram::{BOUNDS_NS, BUCKETS, HistogramSnapshot};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Operation;
    use crate::ids::{Incarnation, LocalId};
    use std::time::Duration;

    fn pair() -> (StatusView, StatusBlock) {
        let (view, fd) = StatusView::create(LocalId(3), Incarnation(9)).unwrap();
        (view, StatusBlock::open(fd, Incarnation(9)).unwrap())
    }

    #[test]
    fn what_the_worker_writes_the_manager_reads() {
        let (view, block) = pair();
        block.set_pid(77);
        block.set_phase(Phase::Running);
        block.begin_task(TaskInHand {
            lease: 5,
            attempt: 2,
            task_id: -4,
            pgid: 0,
        });
        block.set_group(1234);
        block.count_outcome(Outcome::Completed);
        block.count_outcome(Outcome::Completed);
        block.count_outcome(Outcome::Cancelled);
        block.count_report_retry();
        block.record_round_trip(Operation::Fetch, Duration::from_micros(2));
        let snapshot = view.snapshot();
        assert_eq!(
            (snapshot.local_id, snapshot.incarnation),
            (LocalId(3), Incarnation(9))
        );
        assert_eq!((snapshot.pid, snapshot.phase), (77, Phase::Running));
        let task = TaskInHand {
            lease: 5,
            attempt: 2,
            task_id: -4,
            pgid: 1234,
        };
        assert_eq!((snapshot.task, snapshot.torn), (Some(task), false));
        assert_eq!(snapshot.outcomes, [2, 0, 1, 0]);
        assert_eq!(snapshot.report_retries, 1);
        assert_eq!(snapshot.round_trip[0].count(), 1);
        assert_eq!(snapshot.round_trip[1].count(), 0);
        block.end_task();
        assert_eq!(view.snapshot().task, None);
    }

    #[test]
    fn the_record_outlives_the_worker() {
        let (view, block) = pair();
        block.begin_task(TaskInHand {
            lease: 1,
            attempt: 1,
            task_id: 1,
            pgid: 42,
        });
        drop(block);
        assert_eq!(view.snapshot().task.map(|task| task.pgid), Some(42));
    }

    #[test]
    fn progress_is_a_monotonic_stamp() {
        let (view, block) = pair();
        assert_eq!(view.snapshot().executor_idle_for(), None);
        block.executor_progress();
        let age = view.snapshot().executor_idle_for().unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn a_block_of_another_life_is_refused() {
        let (_view, fd) = StatusView::create(LocalId(3), Incarnation(9)).unwrap();
        assert!(StatusBlock::open(fd, Incarnation(8)).is_err());
    }
}
