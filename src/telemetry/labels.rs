//! Values of the labels that are known before anything happens, so that every series starts at 0.
//!
//! A rate over a series that appears with its first event misses that event; an alert on it never fires. Labels with
//! open values (a worker's slot, a route) are not here: whoever knows the values registers those series.

use mitosis_bridge::config::PollStrategy;
use mitosis_bridge::stats::RefusalReason;

use crate::protocol::report::{Outcome, Reason};
use crate::protocol::task::TaskState;

use super::names;

/// Classes of status that an HTTP route can answer with.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Operations of the store that have a histogram of their own; every other one is counted as the last of these. A
/// histogram is 23 series, and operators ask about what tasks wait for.
const STORE_OPERATIONS: [&str; 9] = [
    "submit", "claim", "commit", "renew", "register", "advance", "cancel", "levels", "other",
];

/// The label of a store operation.
#[must_use]
pub fn store_operation(name: &'static str) -> &'static str {
    let [known @ .., other] = STORE_OPERATIONS;
    if known.contains(&name) { name } else { other }
}

/// The combinations that this process's recorder starts with: all of them, unless another process's counts are
/// exported under this name.
pub(super) fn registered(metric: &names::Metric) -> Vec<Vec<&'static str>> {
    if READ_AT_SCRAPE.contains(&metric.name) {
        return Vec::new();
    }
    combinations(metric).unwrap_or_default()
}

/// All combinations of label values of `metric`, each in the order of the metric's label names. `None` when the
/// values are not known in advance.
#[must_use]
pub fn combinations(metric: &names::Metric) -> Option<Vec<Vec<&'static str>>> {
    let sets: Vec<Vec<&'static str>> = match metric.name {
        names::BUILD_INFO => vec![vec![env!("CARGO_PKG_VERSION")]],
        names::COORDINATOR_TASKS_FINISHED => return Some(finished()),
        name => metric
            .labels
            .iter()
            .map(|label| values(name, label))
            .collect::<Option<_>>()?,
    };
    Some(product(&sets))
}

/// Metrics that are read at a scrape (from status blocks, from the poller's atomics, from the system), bypassing the
/// recorder.
pub const READ_AT_SCRAPE: &[&str] = &[
    names::IPC_ROUND_TRIP,
    names::IPC_SERVICE_TIME,
    names::IPC_PARKED,
    names::IPC_PARKED_REQUESTS,
    names::IPC_REQUESTS,
    names::IPC_FRAMES_REFUSED,
    names::IPC_WAKEUPS,
    names::IPC_SPINS,
    names::IPC_SPIN_HITS,
    names::IPC_SLEEPS,
    names::IPC_LOST_WAKEUPS,
    names::IPC_POLLERS,
    names::IPC_SPIN_BUDGET,
    names::WORKER_TASKS,
    names::WORKER_BUSY,
    names::WORKER_REPORT_RETRIES,
    names::WORKER_CPU,
    names::WORKER_WAKEUPS,
    names::MANAGER_WORKER_MEMORY,
    names::PROCESS_CPU,
    names::PROCESS_MEMORY,
    names::PROCESS_DESCRIPTORS,
    names::PROCESS_DESCRIPTORS_LIMIT,
    names::STORAGE_FREE,
    names::STORAGE_SIZE,
];

/// The values of one label of a metric; `None` where they are not known in advance.
#[must_use]
pub fn values(metric: &str, label: &str) -> Option<Vec<&'static str>> {
    let values: &[&'static str] = match (metric, label) {
        (names::COORDINATOR_STORE, "operation") => &STORE_OPERATIONS,
        (_, "operation") => &["fetch", "report"],
        (_, "role") => &["manager", "worker"],
        (_, "strategy") => &PollStrategy::NAMES,
        (_, "place") => &["coordinator", "manager", "shm"],
        (_, "status") => &STATUS_CLASSES,
        (names::IPC_FRAMES_REFUSED, "reason") => {
            return Some(RefusalReason::ALL.map(RefusalReason::name).to_vec());
        }
        (names::MANAGER_WORKERS, "state") => &["starting", "ready", "stopping"],
        (names::MANAGER_WORKER_EXITS, "reason") => {
            &["asked", "exit", "signal", "startup", "unresponsive"]
        }
        (names::MANAGER_SESSIONS_LOST, "reason") => &["unreachable", "silent", "closed", "ended"],
        (names::MANAGER_REPORTS, "verdict") => &[
            "accepted",
            "duplicate",
            "cancel",
            "stale",
            "not_owner",
            "invalid",
            "retry_later",
        ],
        (names::COORDINATOR_LEASES_RECLAIMED, "cause") => {
            &["expired", "inventory", "released", "worker_left"]
        }
        (names::COORDINATOR_SESSIONS_ENDED, "reason") => &[
            "goodbye", "lost", "no_hello", "refused", "replaced", "stopping",
        ],
        (names::COORDINATOR_TASKS, "state") => return Some(open_states()),
        (_, "outcome") => return Some(Outcome::ALL.map(Outcome::as_str).to_vec()),
        _ => return None,
    };
    Some(values.to_vec())
}

fn open_states() -> Vec<&'static str> {
    TaskState::ALL
        .into_iter()
        .filter(|state| !state.is_terminal())
        .map(TaskState::as_str)
        .collect()
}

/// Only the combinations that can happen: a completed task has exited, a cancelled one was cancelled.
fn finished() -> Vec<Vec<&'static str>> {
    let completed = vec![Outcome::Completed.as_str(), Reason::Exit.as_str()];
    let cancelled = vec![Outcome::Cancelled.as_str(), Reason::Cancelled.as_str()];
    let failed = Reason::ALL
        .into_iter()
        .filter(|reason| *reason != Reason::Cancelled)
        .map(|reason| vec![Outcome::Failed.as_str(), reason.as_str()]);
    [completed, cancelled].into_iter().chain(failed).collect()
}

fn product(sets: &[Vec<&'static str>]) -> Vec<Vec<&'static str>> {
    sets.iter().fold(vec![Vec::new()], |heads, set| {
        heads
            .iter()
            .flat_map(|head| {
                set.iter().map(move |value| {
                    let mut row = head.clone();
                    row.push(*value);
                    row
                })
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Vec<Vec<&'static str>>> {
        let metric = names::ALL.iter().find(|metric| metric.name == name);
        combinations(metric.expect("the metric is listed"))
    }

    #[test]
    fn a_metric_without_labels_has_one_series() {
        assert_eq!(
            of(names::COORDINATOR_TASKS_ACCEPTED),
            Some(vec![Vec::<&str>::new()])
        );
    }

    #[test]
    fn open_values_and_foreign_counts_are_left_to_those_who_know_them() {
        assert_eq!(of(names::COORDINATOR_HTTP_REQUESTS), None);
        assert_eq!(of(names::WORKER_TASKS), None);
        let round_trip = names::ALL.iter().find(|m| m.name == names::IPC_ROUND_TRIP);
        let round_trip = round_trip.expect("the metric is listed");
        assert_eq!(registered(round_trip), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn a_rare_operation_of_the_store_has_no_histogram_of_its_own() {
        assert_eq!(store_operation("claim"), "claim");
        assert_eq!(store_operation("show_task"), "other");
    }

    #[test]
    fn every_row_is_as_long_as_the_label_list_and_the_total_is_small() {
        let mut series = 0;
        for metric in names::ALL {
            for row in registered(metric) {
                assert_eq!(row.len(), metric.labels.len(), "{}", metric.name);
                series += 1;
            }
        }
        assert!(series < 110, "{series} series before anything happened");
    }
}
