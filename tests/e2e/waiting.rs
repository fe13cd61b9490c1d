//! Whatever waits costs no CPU: each state in which something waits is held for seconds, and no thread of any process has
//! more to do meanwhile than to look at a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Sandbox, Service, processes, wait};

/// How long a state is held.
const HELD: Duration = Duration::from_secs(5);
/// Most CPU time of one thread meanwhile, in a program that is not optimized; a thread that wakes itself has all of it.
const MOST: Duration = Duration::from_millis(200);

fn times(pids: &[u32]) -> BTreeMap<(u32, u32, String), Duration> {
    let of = |pid: &u32| {
        let pid = *pid;
        let threads = processes::thread_times(pid).into_iter();
        threads.map(move |(thread, name, spent)| ((pid, thread, name), spent))
    };
    pids.iter().flat_map(of).collect()
}

/// Holds the state of a manager (or `up`) with its workers, and of whoever else is named.
#[track_caller]
fn costs_nothing(what: &str, managers: &[u32]) {
    let workers = |manager: &u32| processes::workers(*manager).into_iter();
    let workers = managers.iter().flat_map(workers).map(|worker| worker.pid);
    let pids: Vec<u32> = managers.iter().copied().chain(workers).collect();
    let before = times(&pids);
    wait::holds(what, HELD, || Ok(()));
    for (thread, spent) in times(&pids) {
        let spent = spent.saturating_sub(before.get(&thread).copied().unwrap_or_default());
        assert!(
            spent <= MOST,
            "{what}: {thread:?} used {spent:?} in {HELD:?}"
        );
    }
}

#[test]
fn a_pause_with_tasks_that_wait() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    service.program.workers(2);
    service.client(&["pause"]).code(0);
    for _ in 0..5 {
        service.submit("true");
    }
    costs_nothing("a pause", &[service.program.pid()]);
    service.client(&["resume"]).code(0);
    service.until_all_ended();
    service.stop().code(0);
}

#[test]
fn tasks_that_nobody_can_run_and_tasks_between_two_attempts() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    service.program.workers(2);
    let lines = "{\"args\":[\"true\"],\"tags\":[\"nobody\"]}\n".repeat(5)
        + "{\"args\":[\"false\"],\"max_attempts\":3,\"backoff\":{\"initial\":\"1h\",\"max\":\"1h\"}}\n";
    let uuids = service.submit_file(&sandbox.file("list.jsonl", lines));
    service.until_state(&uuids[5], "pending");
    costs_nothing("tasks that wait", &[service.program.pid()]);
    for uuid in &uuids {
        service.client(&["cancel", uuid]).code(0);
    }
    service.until_all_ended();
    service.stop().code(0);
}

#[test]
fn a_manager_without_its_coordinator_and_a_coordinator_without_managers() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(2, &[]);
    let running = service.submit("sleep 600");
    service.until_state(&running, "running");
    let killed = service.kill();
    costs_nothing("a lost coordinator", &[manager.pid()]);
    manager.kill();
    let service = killed.restart();
    for _ in 0..5 {
        service.submit("true");
    }
    costs_nothing("a coordinator alone", &[service.program.pid()]);
    service.stop().code(0);
}
