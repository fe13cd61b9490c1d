//! Carries out what operators want of the pollers of this machine, and tells what is in force.
//!
//! Owned and polled by the loop. A tuning is a level: the newest one is carried out whole, so one that comes while another
//! is being carried out takes its place. Workers take their word up within microseconds when they run; one that is
//! starting is not waited for, and one that is stopped not for long; both are reported as they are.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

use mitosis_bridge::config::{MAX_INTERVAL, PollConfig};
use mitosis_bridge::server::ServerHandle;

use crate::protocol::ControlState;
use crate::protocol::tuning::{
    ManagerPoller, PollerState, Pollers, Settings, Tuning, TuningReport, WorkerPoller,
};

use super::metrics::{WorkerPoll, Workers};

/// How long workers are waited for: longer than the longest pause of one that nobody wakes.
const CONFIRM: Duration = MAX_INTERVAL.saturating_add(Duration::from_millis(500));
/// Pause between two looks at their status blocks.
const LOOK: Duration = Duration::from_millis(1);

type Performing = Pin<Box<dyn Future<Output = TuningReport> + Send>>;

/// The settings of this life, and the order that is being carried out.
pub(super) struct Tuner {
    server: ServerHandle,
    workers: Workers,
    settings: Settings,
    /// Changed by orders that were not answered yet.
    changed: Changed,
    /// Epoch and number of the newest tuning that was taken.
    taken: Option<(u64, u64)>,
    performing: Option<Performing>,
}

impl std::fmt::Debug for Tuner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuner")
            .field("settings", &self.settings)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// Whose setting an order changed.
#[derive(Debug, Clone, Default)]
struct Changed {
    manager: bool,
    workers: BTreeSet<usize>,
}

impl Changed {
    fn add(&mut self, before: &Settings, after: &Settings) {
        self.manager |= before.manager != after.manager;
        let pairs = before.workers.iter().zip(&after.workers).enumerate();
        let changed = pairs.filter(|(_, (before, after))| before != after);
        self.workers.extend(changed.map(|(slot, _)| slot));
    }
}

impl Tuner {
    /// Everybody waits as the start options say.
    pub(super) fn new(
        server: ServerHandle,
        workers: Workers,
        poll: PollConfig,
        slots: u16,
    ) -> Self {
        Self {
            server,
            workers,
            settings: Settings::new(poll, slots),
            changed: Changed::default(),
            taken: None,
            performing: None,
        }
    }

    /// A session begins: its directive's tuning is answered, whether or not an earlier session heard the answer.
    pub(super) fn greeted(&mut self) {
        self.taken = None;
    }

    /// Takes the tuning of a directive, unless it has been taken.
    pub(super) fn follow(&mut self, directive: &ControlState) {
        let Some(Tuning { number, order }) = &directive.tuning else {
            return;
        };
        let newest = (directive.epoch, *number);
        // A directive that was overtaken carries an older number.
        let known = |taken: (u64, u64)| taken.0 == newest.0 && taken.1 >= newest.1;
        if self.taken.is_some_and(known) {
            return;
        }
        self.taken = Some(newest);
        let before = self.settings.clone();
        self.settings.apply(order);
        self.changed.add(&before, &self.settings);
        if self.changed.manager || !self.changed.workers.is_empty() {
            tracing::info!(manager = %self.settings.manager, workers = self.changed.workers.len(), "pollers are tuned");
        }
        let performing = perform(
            self.server.clone(),
            self.workers.clone(),
            self.settings.clone(),
            self.changed.clone(),
        );
        self.performing = Some(Box::pin(async move {
            TuningReport {
                epoch: newest.0,
                number: newest.1,
                pollers: performing.await,
            }
        }));
    }

    /// Waits for the next answer to send. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> TuningReport {
        let Some(performing) = &mut self.performing else {
            return std::future::pending().await;
        };
        let report = performing.await;
        self.performing = None;
        self.changed = Changed::default();
        report
    }
}

async fn perform(
    server: ServerHandle,
    workers: Workers,
    settings: Settings,
    changed: Changed,
) -> Pollers {
    server.set_poll(settings.manager);
    // A bridge that has ended is told elsewhere, and then nothing is in force.
    let _ = server.tune(settings.by_slot().collect()).await;
    let until = Instant::now() + CONFIRM;
    let mut seen = workers.polls();
    while Instant::now() < until && !is_settled(&seen, &settings) {
        tokio::time::sleep(LOOK).await;
        seen = workers.polls();
    }
    Pollers {
        manager: ManagerPoller {
            poll: settings.manager.into(),
            changed: changed.manager,
        },
        workers: report(&seen, &settings, &changed),
    }
}

/// True when no running worker has still to take its setting up. One that has never waited is only starting.
fn is_settled(seen: &[WorkerPoll], settings: &Settings) -> bool {
    let mut pairs = seen.iter().zip(&settings.workers);
    pairs.all(|(seen, wanted)| match seen {
        WorkerPoll::Waits(poll) => poll == wanted,
        WorkerPoll::Starts | WorkerPoll::Gone => true,
    })
}

fn report(seen: &[WorkerPoll], settings: &Settings, changed: &Changed) -> Vec<WorkerPoller> {
    let slots = (0..).zip(seen.iter().zip(&settings.workers));
    let poller = |(worker, (seen, wanted)): (u16, (&WorkerPoll, &PollConfig))| WorkerPoller {
        worker,
        poll: (*wanted).into(),
        changed: changed.workers.contains(&usize::from(worker)),
        state: match seen {
            WorkerPoll::Waits(poll) if poll == wanted => PollerState::InForce,
            WorkerPoll::Waits(_) | WorkerPoll::Starts => PollerState::Pending,
            WorkerPoll::Gone => PollerState::Gone,
        },
    };
    slots.map(poller).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(text: &str) -> PollConfig {
        text.parse().unwrap()
    }

    #[test]
    fn each_worker_is_reported_as_it_was_seen() {
        let settings = Settings::new(poll("event"), 4);
        let seen = [
            WorkerPoll::Waits(poll("event")),
            WorkerPoll::Waits(poll("busy")),
            WorkerPoll::Starts,
            WorkerPoll::Gone,
        ];
        let mut changed = Changed::default();
        changed.add(&Settings::new(poll("busy"), 2), &settings);
        let reported = report(&seen, &settings, &changed);
        let states: Vec<_> = reported
            .iter()
            .map(|worker| (worker.changed, worker.state))
            .collect();
        assert_eq!(
            states,
            [
                (true, PollerState::InForce),
                (true, PollerState::Pending),
                (false, PollerState::Pending),
                (false, PollerState::Gone),
            ]
        );
        assert!(!is_settled(&seen, &settings));
        assert!(is_settled(&seen[2..], &settings));
        assert!(is_settled(&seen[..1], &settings));
    }

    #[test]
    fn changes_of_orders_that_were_not_answered_add_up() {
        let start = Settings::new(poll("event"), 2);
        let mut changed = Changed::default();
        let mut next = start.clone();
        next.workers[1] = poll("busy");
        changed.add(&start, &next);
        changed.add(&next, &next);
        assert!(!changed.manager && changed.workers.contains(&1) && changed.workers.len() == 1);
    }
}
