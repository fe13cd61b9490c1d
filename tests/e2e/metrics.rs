//! Scrapes under bad conditions: a port that is taken, workers that are stopped or killed, a reader that does not read,
//! many suites; and what a scrape costs a worker. Levels of logs are changed here, too.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::support::{Running, Sandbox, Service, processes, size, wait};

/// The sum of all series of a counter.
fn sum(text: &str, name: &str) -> f64 {
    let of_metric = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    of_metric
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn series(text: &str) -> usize {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count()
}

#[test]
fn a_taken_metrics_port_is_named_and_the_worker_goes_on() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = sandbox.command(["worker", "--coordinator-url", &service.url]);
    command
        .args(["--metrics-listen", &address])
        .env("MITOSIS_TOKEN", service.token("worker"));
    let worker = Running::start(&sandbox, command);
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    let said = worker.stderr();
    assert!(
        said.contains(&address) && said.contains("--metrics-listen"),
        "{said}"
    );
    worker.stop().code(0);
    service.stop().code(0);
}

#[test]
fn sums_do_not_fall_when_workers_are_stopped_and_killed() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let list = sandbox.file("list.txt", "true\n".repeat(20));
    service.submit_file(&list);
    service.until_all_ended();
    let workers = service.program.workers(2);
    // A worker counts a task when its report is acknowledged, which may be after its end is stored.
    let before = wait::until("every task to be counted", wait::LONG, || {
        let text = service.metrics();
        let counted = sum(&text, "mitosis_worker_tasks_total") >= 20.0;
        if counted { Ok(text) } else { Err(text) }
    });
    processes::send(workers[0], Signal::STOP);
    let stopped = service.metrics();
    for worker in &workers {
        processes::send(*worker, Signal::KILL);
    }
    // Scraped while they die, until both are replaced.
    let after = wait::until("both workers to be replaced", wait::LONG, || {
        let text = service.metrics();
        let replaced = sum(&text, "mitosis_manager_worker_starts_total") >= 4.0;
        if replaced { Ok(text) } else { Err(text) }
    });
    for name in [
        "mitosis_worker_tasks_total",
        "mitosis_ipc_round_trip_seconds_count",
        "mitosis_worker_cpu_seconds_total",
        "mitosis_worker_wakeups_total",
    ] {
        let steps = [&before, &stopped, &after].map(|text| sum(text, name));
        assert!(steps.is_sorted(), "{name} fell: {steps:?}");
    }
    assert!(sum(&after, "mitosis_worker_tasks_total") >= 20.0);
    service.stop().code(0);
}

#[test]
fn a_scrape_wakes_no_worker() {
    const SCRAPES: u64 = 100;
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    let workers = service.program.workers(2);
    let switches = || {
        workers
            .iter()
            .map(|worker| voluntary_switches(*worker))
            .sum::<u64>()
    };
    let before = switches();
    service.metrics_often(SCRAPES);
    let woken = switches() - before;
    // Timers of their own wake them once in some seconds.
    assert!(
        woken < SCRAPES,
        "{woken} wake-ups of 2 workers in {SCRAPES} scrapes"
    );
    service.stop().code(0);
}

/// How often the threads of a process have waited for something.
fn voluntary_switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a living worker");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter_map(|status| {
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
            line.rsplit('\t').next()?.trim().parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let address = service
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
        service.token("user")
    );
    let mut slow = TcpStream::connect(address).unwrap();
    // As many answers as its buffers hold, and more.
    for _ in 0..50 {
        slow.write_all(request.as_bytes()).unwrap();
    }
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    assert!(sum(&service.metrics(), "mitosis_build_info") > 0.0);
    drop(slow);
    service.stop().code(0);
}

#[test]
fn thousands_of_suites_add_no_series() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // Every submit makes a suite. The first ones bring the series of what is used for the first time.
    let body = r#"{"tasks": [{"args": ["true"]}]}"#;
    for _ in 0..2 {
        service.submit_often(body, 1);
        service.until_all_ended();
        service.metrics();
    }
    let few = series(&service.metrics());
    let count = size(2_000, 10_000);
    service.submit_often(body, count);
    let suites = service
        .client(&["suites", "--json", "--limit", "1000"])
        .code(0)
        .json();
    assert_eq!(suites["suites"].as_array().map(Vec::len), Some(1000));
    service.until_all_ended();
    assert_eq!(series(&service.metrics()), few);
    service.stop().code(0);
}

#[test]
fn the_log_level_follows_signals_while_a_service_runs() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let until_said = |words: &str| {
        wait::until(words, wait::LONG, || {
            let said = service.program.stderr();
            said.contains(words).then_some(()).ok_or(said)
        });
    };
    assert!(!service.program.stderr().contains("DEBUG"));
    service.program.signal(Signal::USR1);
    until_said("log level changed level=debug");
    service.tasks();
    until_said("DEBUG");
    service.program.signal(Signal::USR2);
    until_said("log level changed level=info");
    service.stop().code(0);
}

#[test]
fn one_task_can_be_followed_through_all_processes_by_its_id() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // A worker that has run something heeds signals; one that is only starting is ended by them.
    let first = service.submit("true");
    service.until_state(&first, "completed");
    let worker = service.program.workers(1)[0];
    let log = service.state_dir.join("manager/logs/worker-0.log");
    let text = || service.program.stderr() + &fs::read_to_string(&log).unwrap_or_default();
    let until_said = |words: &[&str]| {
        wait::until("every step to be told", wait::LONG, || {
            let text = text();
            let said = |words: &&str| text.contains(words);
            words.iter().all(said).then_some(()).ok_or(text)
        });
    };
    // A managed worker starts at warnings and is two steps away, its manager one.
    processes::send(worker, Signal::USR1);
    until_said(&["log level changed level=info"]);
    processes::send(worker, Signal::USR1);
    until_said(&["log level changed level=debug"]);
    service.program.signal(Signal::USR1);
    wait::until("both levels to be changed", wait::LONG, || {
        let text = text();
        let changes = text.matches("log level changed level=debug").count();
        (changes == 2).then_some(()).ok_or(text)
    });
    let uuid = service.submit("true");
    let steps = [
        ("coordinator::core::submit", "task accepted"),
        ("manager::reactor::leases", "task claimed"),
        ("manager::reactor::holders", "task handed over"),
        ("worker::runner::executing", "task started"),
        ("worker::runner::executing", "task exited"),
        ("coordinator::core::publish", "task committed"),
    ];
    wait::until("every step to be told", wait::LONG, || {
        let text = text();
        let missing: Vec<_> = steps
            .iter()
            .filter(|(part, step)| {
                let told = |line: &str| {
                    [*part, *step, uuid.as_str()]
                        .iter()
                        .all(|word| line.contains(word))
                };
                !text.lines().any(told)
            })
            .collect();
        missing
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{missing:?} in\n{text}"))
    });
    service.stop().code(0);
}
