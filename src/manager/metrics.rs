//! The manager's numbers for Prometheus.
//!
//! Workers and poller count in shared atomics, which the recorder cannot take in: [`Workers`] adds those families to every
//! scrape of this process, wakes nobody, and keeps what dead workers had counted. [`Gauges`] are the recorder's own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mitosis_bridge::config::{PollConfig, PollStrategy};
use mitosis_bridge::server::ServerHandle;
use mitosis_bridge::stats::RefusalReason;
use mitosis_bridge::status::{BOUNDS_NS, HistogramSnapshot, Phase, StatusView};
use mitosis_bridge::{Operation, status};

use crate::protocol::LocalId;
use crate::protocol::session::ManagerStatus;
use crate::telemetry::exposition::{Families, Source};
use crate::telemetry::names;
use crate::telemetry::process::{Usage, usage};

use super::slots::Population;

const OPERATIONS: [&str; 2] = ["fetch", "report"];

/// Status blocks of the living and sums of the dead, by slot. Shared by the supervisor and by scrapes; the lock is held
/// for the time of reading some atomics.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<Mutex<Vec<Record>>>);

#[derive(Debug, Clone, Default)]
struct Record {
    living: Option<StatusView>,
    past: Totals,
    /// What the living process used at the last scrape.
    usage: Usage,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    outcomes: [u64; status::Outcome::ALL.len()],
    report_retries: u64,
    round_trip: [HistogramSnapshot; 2],
    cpu: Duration,
    wakeups: u64,
    spins: u64,
    spin_hits: u64,
    sleeps: u64,
    lost_wakeups: u64,
    busy: bool,
}

impl Totals {
    fn plus(&self, view: &StatusView, cpu: Duration) -> Self {
        let now = view.snapshot();
        Self {
            outcomes: std::array::from_fn(|i| self.outcomes[i] + now.outcomes[i]),
            report_retries: self.report_retries + now.report_retries,
            round_trip: std::array::from_fn(|i| self.round_trip[i].merge(&now.round_trip[i])),
            cpu: self.cpu + cpu,
            wakeups: self.wakeups + now.wakeups,
            spins: self.spins + now.spins,
            spin_hits: self.spin_hits + now.spin_hits,
            sleeps: self.sleeps + now.sleeps,
            lost_wakeups: self.lost_wakeups + now.lost_wakeups,
            busy: matches!(now.phase, Phase::Running | Phase::Engaged),
        }
    }
}

impl Record {
    fn totals(&self) -> Totals {
        match &self.living {
            Some(view) => self.past.plus(view, self.usage.cpu),
            None => self.past,
        }
    }
}

impl Workers {
    pub(super) fn new(workers: u16) -> Self {
        Self(Arc::new(Mutex::new(vec![
            Record::default();
            usize::from(workers)
        ])))
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        // A panic between two stores leaves every record valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has a status block.
    pub(super) fn up(&self, local_id: LocalId, status: StatusView) {
        let record = &mut self.records()[local_id.index()];
        record.living = Some(status);
        record.usage = Usage::default();
    }

    /// A worker is over; what it counted stays.
    pub(super) fn gone(&self, local_id: LocalId) {
        let record = &mut self.records()[local_id.index()];
        record.past = record.totals();
        record.past.busy = false;
        record.living = None;
        record.usage = Usage::default();
    }

    /// Asks the system what the living use. Not under the lock: the manager's loop must not wait for `/proc`.
    fn look_at_usage(&self) {
        let pids: Vec<Option<u32>> = self
            .records()
            .iter()
            .map(|record| record.living.as_ref().map(StatusView::pid))
            .collect();
        let found: Vec<Option<(u32, Usage)>> = pids
            .into_iter()
            .map(|pid| {
                pid.filter(|pid| *pid != 0)
                    .and_then(|pid| Some((pid, usage(pid)?)))
            })
            .collect();
        for (record, found) in self.records().iter_mut().zip(found) {
            if let (Some(view), Some((pid, usage))) = (&record.living, found)
                && view.pid() == pid
                // Of a process that has ended and is not yet waited for, less may be known than before.
                && usage.cpu >= record.usage.cpu
            {
                record.usage = usage;
            }
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.records()
            .iter()
            .map(|record| record.usage.memory_bytes)
            .sum()
    }

    /// How the poller of each slot's worker waits.
    pub(super) fn polls(&self) -> Vec<WorkerPoll> {
        let poll = |record: &Record| match &record.living {
            None => WorkerPoll::Gone,
            Some(view) => view.poll().map_or(WorkerPoll::Starts, WorkerPoll::Waits),
        };
        self.records().iter().map(poll).collect()
    }

    /// Round trips of all workers, fetch and report.
    pub(super) fn round_trips(&self) -> [HistogramSnapshot; 2] {
        let records = self.records();
        records
            .iter()
            .fold(Default::default(), |sum: [HistogramSnapshot; 2], record| {
                let totals = record.totals();
                std::array::from_fn(|i| sum[i].merge(&totals.round_trip[i]))
            })
    }
}

/// How a worker's poller waits, as its status block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerPoll {
    /// There is no process.
    Gone,
    /// It has not waited yet.
    Starts,
    Waits(PollConfig),
}

/// One number of a worker.
type Figure = fn(&Totals) -> f64;

/// The families that bypass the recorder.
#[derive(Debug)]
pub(super) struct Exposition {
    pub(super) workers: Workers,
    pub(super) server: ServerHandle,
}

impl Source for Exposition {
    fn append(&self, families: &mut Families<'_>) {
        self.workers.look_at_usage();
        let totals: Vec<Totals> = self.workers.records().iter().map(Record::totals).collect();
        self.append_workers(&totals, families);
        self.append_poller(families);
        self.append_waits(&totals, families);
        self.append_strategies(families);
    }
}

impl Exposition {
    fn append_workers(&self, totals: &[Totals], families: &mut Families<'_>) {
        let slots: Vec<String> = (0..totals.len()).map(|slot| slot.to_string()).collect();
        let mut tasks = families.begin(names::WORKER_TASKS);
        for (slot, totals) in slots.iter().zip(totals) {
            for outcome in status::Outcome::ALL {
                let value = totals.outcomes[outcome.index()];
                tasks.value(&[slot, outcome.name()], float(value));
            }
        }
        let per_worker: [(&'static str, Figure); 3] = [
            (names::WORKER_BUSY, |totals| {
                f64::from(u8::from(totals.busy))
            }),
            (names::WORKER_CPU, |totals| totals.cpu.as_secs_f64()),
            (names::WORKER_WAKEUPS, |totals| float(totals.wakeups)),
        ];
        for (name, of) in per_worker {
            let mut family = families.begin(name);
            for (slot, totals) in slots.iter().zip(totals) {
                family.value(&[slot], of(totals));
            }
        }
        let retries: u64 = totals.iter().map(|worker| worker.report_retries).sum();
        let mut family = families.begin(names::WORKER_REPORT_RETRIES);
        family.value(&[], float(retries));
        let memory = float(self.workers.memory_bytes());
        families
            .begin(names::MANAGER_WORKER_MEMORY)
            .value(&[], memory);
        let mut round_trip = families.begin(names::IPC_ROUND_TRIP);
        for (name, histogram) in OPERATIONS.iter().zip(self.workers.round_trips()) {
            round_trip.histogram(&[name], buckets(&histogram), histogram.sum.as_secs_f64());
        }
    }

    fn append_poller(&self, families: &mut Families<'_>) {
        let stats = self.server.stats();
        let mut service = families.begin(names::IPC_SERVICE_TIME);
        for operation in Operation::ALL {
            let histogram = stats.service[operation.index()];
            let name = OPERATIONS[operation.index()];
            service.histogram(&[name], buckets(&histogram), histogram.sum.as_secs_f64());
        }
        let parked = stats.parked;
        families.begin(names::IPC_PARKED).histogram(
            &[],
            buckets(&parked),
            parked.sum.as_secs_f64(),
        );
        let mut requests = families.begin(names::IPC_REQUESTS);
        for operation in Operation::ALL {
            let value = stats.requests[operation.index()];
            requests.value(&[OPERATIONS[operation.index()]], float(value));
        }
        let mut refused = families.begin(names::IPC_FRAMES_REFUSED);
        for reason in RefusalReason::ALL {
            refused.value(&[reason.name()], float(stats.refused[reason.index()]));
        }
        let parked = float(stats.parked_requests);
        families
            .begin(names::IPC_PARKED_REQUESTS)
            .value(&[], parked);
    }

    /// How often the manager's poller waited or did not, and all workers' together.
    fn append_waits(&self, totals: &[Totals], families: &mut Families<'_>) {
        let stats = self.server.stats();
        let all = |of: fn(&Totals) -> u64| totals.iter().map(of).sum::<u64>();
        let waits = [
            (
                names::IPC_WAKEUPS,
                stats.wakeups,
                all(|worker| worker.wakeups),
            ),
            (names::IPC_SPINS, stats.spins, all(|worker| worker.spins)),
            (
                names::IPC_SPIN_HITS,
                stats.spin_hits,
                all(|worker| worker.spin_hits),
            ),
            (names::IPC_SLEEPS, stats.sleeps, all(|worker| worker.sleeps)),
            (
                names::IPC_LOST_WAKEUPS,
                stats.lost_wakeups,
                all(|worker| worker.lost_wakeups),
            ),
        ];
        for (name, manager, workers) in waits {
            let mut family = families.begin(name);
            family.value(&["manager"], float(manager));
            family.value(&["worker"], float(workers));
        }
    }

    fn append_strategies(&self, families: &mut Families<'_>) {
        let manager = [self.server.stats().poll];
        let waiting = |poll: WorkerPoll| match poll {
            WorkerPoll::Waits(poll) => Some(poll),
            WorkerPoll::Gone | WorkerPoll::Starts => None,
        };
        let workers: Vec<_> = self
            .workers
            .polls()
            .into_iter()
            .filter_map(waiting)
            .collect();
        let roles = [("manager", &manager[..]), ("worker", &workers[..])];
        let mut pollers = families.begin(names::IPC_POLLERS);
        for (role, polls) in roles {
            for name in PollStrategy::NAMES {
                let count = polls.iter().filter(|poll| poll.strategy.name() == name);
                pollers.value(&[role, name], float(count.count() as u64));
            }
        }
        let mut spins = families.begin(names::IPC_SPIN_BUDGET);
        for (role, polls) in roles {
            let adaptive = polls
                .iter()
                .filter(|poll| poll.strategy == PollStrategy::Adaptive);
            let longest = adaptive.map(|poll| poll.spin).max().unwrap_or_default();
            spins.value(&[role], longest.as_secs_f64());
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition has nothing but floats"
)]
fn float(value: u64) -> f64 {
    value as f64
}

fn buckets(histogram: &HistogramSnapshot) -> impl Iterator<Item = (f64, u64)> {
    let bounds = BOUNDS_NS
        .iter()
        .map(|ns| float(*ns) / 1e9)
        .chain([f64::INFINITY]);
    bounds.zip(histogram.buckets)
}

/// Handles of the recorder's gauges, looked up once.
pub(super) struct Gauges {
    starting: metrics::Gauge,
    ready: metrics::Gauge,
    stopping: metrics::Gauge,
    buffer: metrics::Gauge,
    running: metrics::Gauge,
    spool_reports: metrics::Gauge,
    spool_bytes: metrics::Gauge,
    spool_age: metrics::Gauge,
    spool_failing: metrics::Gauge,
    connected: metrics::Gauge,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

/// Whether the manager starts workers or sees them off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    Closing,
}

impl Gauges {
    pub(super) fn new() -> Self {
        let workers =
            |state: &'static str| metrics::gauge!(names::MANAGER_WORKERS, "state" => state);
        Self {
            starting: workers("starting"),
            ready: workers("ready"),
            stopping: workers("stopping"),
            buffer: metrics::gauge!(names::MANAGER_BUFFER_TASKS),
            running: metrics::gauge!(names::MANAGER_RUNNING_TASKS),
            spool_reports: metrics::gauge!(names::MANAGER_SPOOL_REPORTS),
            spool_bytes: metrics::gauge!(names::MANAGER_SPOOL_BYTES),
            spool_age: metrics::gauge!(names::MANAGER_SPOOL_AGE),
            spool_failing: metrics::gauge!(names::MANAGER_SPOOL_FAILING),
            connected: metrics::gauge!(names::MANAGER_CONNECTED),
        }
    }

    /// Sets them all.
    pub(super) fn set(&self, status: &ManagerStatus, population: Population, stage: Stage) {
        let (ready, stopping) = match stage {
            Stage::Serving => (population.ready, 0),
            Stage::Closing => (0, population.ready),
        };
        self.starting.set(population.starting);
        self.ready.set(ready);
        self.stopping.set(stopping);
        self.buffer.set(status.buffered);
        self.running.set(status.running);
        self.spool_reports.set(status.spooled);
    }

    pub(super) fn set_spool_bytes(&self, bytes: u64) {
        self.spool_bytes.set(float(bytes));
    }

    pub(super) fn set_spool_failing(&self, failing: bool) {
        self.spool_failing.set(f64::from(u8::from(failing)));
    }

    pub(super) fn set_spool_age(&self, age: Duration) {
        self.spool_age.set(age.as_secs_f64());
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.set(f64::from(u8::from(connected)));
    }
}
