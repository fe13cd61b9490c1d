//! The one timer: takes back leases that ran out, releases tasks whose back-off is over, refreshes gauges.
//!
//! It sleeps until the earliest known deadline, at most [`LONGEST_PAUSE`], and is rung when a commit makes something
//! due earlier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;

use super::Shared;
use crate::coordinator::store::{Clock, Levels, SystemClock};
use crate::protocol::TaskState;
use crate::telemetry::names;

/// Longest sleep: how late a hint to work that nobody took is repeated, and the age of the gauges.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Shortest sleep, so that many deadlines in a row are served together.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// How often a store that cannot be written is said.
const SAID_AGAIN: Duration = Duration::from_secs(300);

/// Runs until the coordinator stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = SHORTEST_PAUSE;
    let mut told_at = None;
    loop {
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            () = tokio::time::sleep(pause) => {}
            () = rung(&shared) => {}
        }
        pause = match shared.store.advance().await {
            Ok(changes) => {
                let due = changes.next_due.unwrap_or(LONGEST_PAUSE);
                shared.publish_due(changes).await;
                due.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            }
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                // A round that has nothing to write succeeds meanwhile, so its success says little.
                if told_at.is_none_or(|at: Instant| at.elapsed() >= SAID_AGAIN) {
                    told_at = Some(Instant::now());
                    tracing::warn!(%error, "deadlines cannot be looked at; trying again until they can");
                }
                LONGEST_PAUSE
            }
        };
        refresh_gauges(&shared).await;
        // What it finds is told by its metric and its log line.
        let _ = shared.probe(super::readiness::PROBED_EVERY).await;
    }
}

/// Resolves when something is due earlier than known, but leaves at least [`SHORTEST_PAUSE`] between two rounds.
async fn rung(shared: &Shared) {
    shared.timer.notified().await;
    tokio::time::sleep(SHORTEST_PAUSE).await;
}

impl Shared {
    /// Spreads the news of a round of the timer itself, which need not ring it again.
    async fn publish_due(&self, mut changes: crate::coordinator::store::Changes) {
        changes.next_due = None;
        self.publish(changes).await;
    }
}

async fn refresh_gauges(shared: &Shared) {
    let Ok(levels) = shared.store.levels().await else {
        return;
    };
    set_levels(&levels);
    // A worker whose wake-up went to somebody who could not use it is woken here.
    let ready = levels.counts.get(&TaskState::Ready);
    if ready.is_some_and(|ready| *ready > 0) {
        shared.work.announce(1);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; counts stay far below 2^52"
)]
fn set_levels(levels: &Levels) {
    for state in TaskState::ALL
        .into_iter()
        .filter(|state| !state.is_terminal())
    {
        let tasks = levels.counts.get(&state).copied().unwrap_or(0);
        gauge!(names::COORDINATOR_TASKS, "state" => state.as_str()).set(tasks as f64);
    }
    gauge!(names::COORDINATOR_ACCOUNTING_GAP).set(levels.gap() as f64);
    let now_us = SystemClock::start().wall_us();
    let waits_us = levels.oldest_ready_us.map_or(0, |since| now_us - since);
    gauge!(names::COORDINATOR_OLDEST_READY).set(waits_us.max(0) as f64 / 1e6);
}
