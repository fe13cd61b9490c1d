//! Every metric this program exports: name, kind, unit, labels and help.
//!
//! Names are `mitosis_<part>_<what>_<unit>`. Label values are bounded: never a task, a suite or a user. Series per
//! worker are counters and gauges only. The README lists the same names; a test compares the two.

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds in [`BUCKETS_SECONDS`].
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name in the exposition.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

/// Upper bounds of histogram buckets in seconds: 20 buckets at a factor of about 3 from 1 microsecond to 1 hour.
pub const BUCKETS_SECONDS: [f64; 20] = [
    1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
    120.0, 400.0, 1200.0, 3600.0,
];

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $konst:ident = $kind:ident $name:literal [$($label:literal),*];)+) => {
        $($(#[doc = $doc])+ pub const $konst: &str = $name;)+

        /// Every metric, in order of the list above.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: concat!($($doc),+) }),+
        ];
    };
}

metrics! {
    /// Version of the running program; always 1.
    BUILD_INFO = Gauge "mitosis_build_info" ["version"];

    /// Round trip of a request as the worker sees it, by operation.
    IPC_ROUND_TRIP = Histogram "mitosis_ipc_round_trip_seconds" ["operation"];
    /// Time from a request's arrival at the manager's poller to its answer, parked time excluded, by operation.
    IPC_SERVICE_TIME = Histogram "mitosis_ipc_service_seconds" ["operation"];
    /// Time fetch requests spent parked because there was nothing to do.
    IPC_PARKED = Histogram "mitosis_ipc_parked_seconds" [];
    /// Fetch requests parked now.
    IPC_PARKED_REQUESTS = Gauge "mitosis_ipc_parked_requests" [];
    /// Requests served, by operation.
    IPC_REQUESTS = Counter "mitosis_ipc_requests_total" ["operation"];
    /// Frames refused, by reason (version, token, incarnation, size, encoding).
    IPC_FRAMES_REFUSED = Counter "mitosis_ipc_frames_refused_total" ["reason"];
    /// Times a poller was woken from a wait, by role (manager; worker: all of them).
    IPC_WAKEUPS = Counter "mitosis_ipc_wakeups_total" ["role"];
    /// Turns of a poller that found nothing and did not wait, by role.
    IPC_SPINS = Counter "mitosis_ipc_spins_total" ["role"];
    /// Turns of a poller that found work right after such a one, by role.
    IPC_SPIN_HITS = Counter "mitosis_ipc_spin_hits_total" ["role"];
    /// Times a poller began to wait, by role.
    IPC_SLEEPS = Counter "mitosis_ipc_sleeps_total" ["role"];
    /// Bounded waits that ran out and then found work, by role: a lost wake-up. Must stay 0.
    IPC_LOST_WAKEUPS = Counter "mitosis_ipc_lost_wakeups_total" ["role"];
    /// Pollers in this machine's processes, by role (manager, worker) and strategy in force (busy, adaptive, interval, event).
    IPC_POLLERS = Gauge "mitosis_ipc_pollers" ["role", "strategy"];
    /// Longest spin budget in force among the adaptive pollers, by role.
    IPC_SPIN_BUDGET = Gauge "mitosis_ipc_spin_budget_seconds" ["role"];

    /// Workers by state (starting, ready, stopping).
    MANAGER_WORKERS = Gauge "mitosis_manager_workers" ["state"];
    /// Worker processes started.
    MANAGER_WORKER_STARTS = Counter "mitosis_manager_worker_starts_total" [];
    /// Worker processes that ended, by reason (asked, exit, signal, startup, unresponsive).
    MANAGER_WORKER_EXITS = Counter "mitosis_manager_worker_exits_total" ["reason"];
    /// Tasks leased and waiting for a worker.
    MANAGER_BUFFER_TASKS = Gauge "mitosis_manager_buffer_tasks" [];
    /// Tasks in the hands of workers.
    MANAGER_RUNNING_TASKS = Gauge "mitosis_manager_running_tasks" [];
    /// Reports in the spool that the coordinator has not committed.
    MANAGER_SPOOL_REPORTS = Gauge "mitosis_manager_spool_reports" [];
    /// Bytes of the spool.
    MANAGER_SPOOL_BYTES = Gauge "mitosis_manager_spool_bytes" [];
    /// Age of the oldest report in the spool that the coordinator has not committed.
    MANAGER_SPOOL_AGE = Gauge "mitosis_manager_spool_oldest_seconds" [];
    /// Resident memory of all workers; pages that they share count for each.
    MANAGER_WORKER_MEMORY = Gauge "mitosis_manager_worker_memory_bytes" [];
    /// Tasks that ended here, by outcome.
    MANAGER_TASKS = Counter "mitosis_manager_tasks_total" ["outcome"];
    /// Executions begun here.
    MANAGER_EXECUTIONS = Counter "mitosis_manager_executions_total" [];
    /// Strikes given to tasks whose worker died.
    MANAGER_STRIKES = Counter "mitosis_manager_strikes_total" [];
    /// Reports of workers by verdict.
    MANAGER_REPORTS = Counter "mitosis_manager_reports_total" ["verdict"];
    /// 1 while the session with the coordinator is open.
    MANAGER_CONNECTED = Gauge "mitosis_manager_connected" [];
    /// Sessions with the coordinator that were opened.
    MANAGER_SESSIONS = Counter "mitosis_manager_sessions_total" [];
    /// Sessions with the coordinator that were lost, and attempts at one that failed, by reason (unreachable, silent, closed, ended).
    MANAGER_SESSIONS_LOST = Counter "mitosis_manager_sessions_lost_total" ["reason"];
    /// 1 while the spool cannot be written: no report is acknowledged then.
    MANAGER_SPOOL_FAILING = Gauge "mitosis_manager_spool_failing" [];
    /// Tasks that a worker ended, by outcome.
    WORKER_TASKS = Counter "mitosis_worker_tasks_total" ["worker", "outcome"];
    /// 1 while a worker executes a task.
    WORKER_BUSY = Gauge "mitosis_worker_busy" ["worker"];
    /// Reports that workers sent again.
    WORKER_REPORT_RETRIES = Counter "mitosis_worker_report_retries_total" [];
    /// CPU time of a managed worker's own process, its tasks excluded; as of the last scrape before its death.
    WORKER_CPU = Counter "mitosis_worker_cpu_seconds_total" ["worker"];
    /// Times a managed worker's poller was woken from a wait.
    WORKER_WAKEUPS = Counter "mitosis_worker_wakeups_total" ["worker"];

    /// Latency chain of a task: accepted to claimed by a holder.
    TASK_QUEUE_WAIT = Histogram "mitosis_task_queue_wait_seconds" [];
    /// Latency chain: claimed by a manager until handed over to a worker.
    TASK_BUFFER_WAIT = Histogram "mitosis_task_buffer_wait_seconds" [];
    /// Latency chain: handed over to a worker until the spawn call returned.
    TASK_START = Histogram "mitosis_task_start_seconds" [];
    /// Latency chain: spawn to exit.
    TASK_RUN = Histogram "mitosis_task_run_seconds" [];
    /// Latency chain: exit until its manager has the report.
    TASK_REPORT = Histogram "mitosis_task_report_seconds" [];
    /// Latency chain: exit until its manager knows that it is committed in the store.
    TASK_COMMIT = Histogram "mitosis_task_commit_seconds" [];

    /// Tasks accepted.
    COORDINATOR_TASKS_ACCEPTED = Counter "mitosis_coordinator_tasks_accepted_total" [];
    /// Tasks that reached a terminal state, by outcome and reason.
    COORDINATOR_TASKS_FINISHED = Counter "mitosis_coordinator_tasks_finished_total" ["outcome", "reason"];
    /// Tasks by state that is not terminal.
    COORDINATOR_TASKS = Gauge "mitosis_coordinator_tasks" ["state"];
    /// Tasks accepted less those finished and those in flight, of one transaction. Must be 0.
    COORDINATOR_ACCOUNTING_GAP = Gauge "mitosis_coordinator_accounting_gap" [];
    /// How long the oldest task that could be claimed has waited.
    COORDINATOR_OLDEST_READY = Gauge "mitosis_coordinator_oldest_ready_seconds" [];
    /// Leases taken back, by cause (expired, inventory, released, worker_left).
    COORDINATOR_LEASES_RECLAIMED = Counter "mitosis_coordinator_leases_reclaimed_total" ["cause"];
    /// Reports refused because a newer lease or a terminal state exists.
    COORDINATOR_STALE_REPORTS = Counter "mitosis_coordinator_stale_reports_total" [];
    /// 1 while the store can be written, as a small write every 10 s finds.
    COORDINATOR_STORE_WRITABLE = Gauge "mitosis_coordinator_store_writable" [];
    /// Reports that could be stored only without what their tasks wrote, or not at all.
    COORDINATOR_REPORTS_SET_ASIDE = Counter "mitosis_coordinator_reports_set_aside_total" [];
    /// Time of a store transaction, by operation; `other` are those that no task waits for.
    COORDINATOR_STORE = Histogram "mitosis_coordinator_store_seconds" ["operation"];
    /// Manager sessions that are open.
    COORDINATOR_SESSIONS = Gauge "mitosis_coordinator_sessions" [];
    /// Manager sessions that ended, by reason (goodbye, lost, no_hello, refused, replaced, stopping).
    COORDINATOR_SESSIONS_ENDED = Counter "mitosis_coordinator_sessions_ended_total" ["reason"];
    /// Connections that were closed at once because their address had as many as one may have.
    COORDINATOR_CONNECTIONS_REFUSED = Counter "mitosis_coordinator_connections_refused_total" [];
    /// HTTP requests, by route and status class.
    COORDINATOR_HTTP_REQUESTS = Counter "mitosis_coordinator_http_requests_total" ["route", "status"];
    /// Time to answer an HTTP request, long polls excluded, by group of routes (their first word).
    COORDINATOR_HTTP = Histogram "mitosis_coordinator_http_seconds" ["group"];

    /// CPU time of this process, its children excluded.
    PROCESS_CPU = Counter "mitosis_process_cpu_seconds_total" [];
    /// Resident memory of this process.
    PROCESS_MEMORY = Gauge "mitosis_process_memory_bytes" [];
    /// Descriptors that this process has open.
    PROCESS_DESCRIPTORS = Gauge "mitosis_process_descriptors" [];
    /// Descriptors that this process may have open.
    PROCESS_DESCRIPTORS_LIMIT = Gauge "mitosis_process_descriptors_limit" [];
    /// Free bytes of a file system, by place (coordinator and manager: their state directories; shm: shared memory).
    STORAGE_FREE = Gauge "mitosis_storage_free_bytes" ["place"];
    /// Size of a file system, by place.
    STORAGE_SIZE = Gauge "mitosis_storage_size_bytes" ["place"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in ALL {
            let suffix_ok = match metric.kind {
                Kind::Counter => metric.name.ends_with("_total"),
                Kind::Histogram => metric.name.ends_with("_seconds"),
                Kind::Gauge => !metric.name.ends_with("_total"),
            };
            assert!(
                metric.name.starts_with("mitosis_") && suffix_ok,
                "{}",
                metric.name
            );
            assert!(!metric.help.is_empty(), "{}", metric.name);
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
