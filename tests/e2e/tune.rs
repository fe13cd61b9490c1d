//! How pollers wait, changed while they run.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Sandbox, Service, processes, wait};

/// What `tune --json` says of a worker: its setting and state.
fn worker(pollers: &Value, number: usize) -> (String, String) {
    let word = |name: &str| pollers["workers"][number][name].as_str().map(str::to_owned);
    (
        word("poll").unwrap_or_default(),
        word("state").unwrap_or_default(),
    )
}

fn in_force(poll: &str) -> (String, String) {
    (poll.to_owned(), "in_force".to_owned())
}

/// Waits until the metrics have all of these lines.
#[track_caller]
fn until_exported(service: &Service<'_>, lines: &[&str]) {
    wait::until("the metrics to follow", wait::LONG, || {
        let text = service.metrics();
        let has = |line: &&str| text.lines().any(|found| found == *line);
        if lines.iter().all(has) {
            return Ok(());
        }
        let polls = text
            .lines()
            .filter(|line| line.contains("mitosis_ipc_poll"));
        Err(polls.collect::<Vec<_>>().join("\n"))
    });
}

#[test]
fn the_next_life_of_a_tuned_worker_has_its_setting() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let before = service.program.workers(2);
    let tuned = service
        .client(&["tune", "--poll", "interval:3ms", "--worker", "1", "--json"])
        .code(0)
        .json();
    assert_eq!(tuned["workers"][1]["changed"], true, "{tuned}");
    assert_eq!(tuned["workers"][0]["changed"], false, "{tuned}");
    for worker in &before {
        processes::send(*worker, Signal::KILL);
    }
    wait::until("the next lives to wait as they should", wait::LONG, || {
        let shown = service.client(&["tune", "--json"]).code(0).json();
        let now = processes::workers(service.program.pid());
        let reborn = now.len() == 2 && now.iter().all(|worker| !before.contains(&worker.pid));
        let tuned = worker(&shown, 1) == in_force("interval:3ms");
        let other = worker(&shown, 0).1 == "in_force" && worker(&shown, 0).0 != "interval:3ms";
        if reborn && tuned && other {
            return Ok(());
        }
        Err(shown.to_string())
    });
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    service.stop().code(0);
}

#[test]
fn a_tuning_is_seen_in_the_metrics_and_taken_back() {
    let sandbox = Sandbox::new();
    let service = Service::start(
        &sandbox,
        &[
            "up",
            "--workers",
            "2",
            "--poll",
            "adaptive",
            "--spin",
            "7us",
        ],
    );
    let started = [
        "mitosis_ipc_pollers{role=\"manager\",strategy=\"adaptive\"} 1",
        "mitosis_ipc_pollers{role=\"worker\",strategy=\"adaptive\"} 2",
        "mitosis_ipc_spin_budget_seconds{role=\"manager\"} 0.000007",
    ];
    until_exported(&service, &started);
    let tuned = service
        .client(&["tune", "--poll", "busy", "--json"])
        .code(0);
    let tuned = tuned.json();
    assert_eq!(tuned["manager"]["poll"], "busy", "{tuned}");
    for number in 0..2 {
        assert_eq!(worker(&tuned, number), in_force("busy"), "{tuned}");
    }
    until_exported(
        &service,
        &[
            "mitosis_ipc_pollers{role=\"manager\",strategy=\"adaptive\"} 0",
            "mitosis_ipc_pollers{role=\"manager\",strategy=\"busy\"} 1",
            "mitosis_ipc_pollers{role=\"worker\",strategy=\"busy\"} 2",
        ],
    );
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    service
        .client(&["tune", "--poll", "event", "--workers"])
        .code(0);
    service
        .client(&["tune", "--spin", "7us", "--manager-process"])
        .code(0);
    until_exported(
        &service,
        &[
            started[0],
            started[2],
            "mitosis_ipc_pollers{role=\"worker\",strategy=\"event\"} 2",
        ],
    );
    service.stop().code(0);
}

#[test]
fn a_worker_that_is_stopped_or_not_there_is_told_of_and_nonsense_is_refused() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let refusals: [(&[&str], &[&str]); 8] = [
        (
            &["--poll", "busy", "--worker", "1"],
            &["there is no worker 1", "mitosis tune"],
        ),
        (&["--poll", "busy", "--worker", "256"], &["256", "255"]),
        (&["--poll", "eager"], &["expected busy, adaptive"]),
        (&["--poll", "interval:9h"], &["such as 50us"]),
        (&["--poll", "interval:0us"], &["1us to 1s"]),
        (&["--spin=-5us"], &["bad duration `-5us`"]),
        (
            &["--poll", "event", "--spin", "5us"],
            &["leave --spin", "away"],
        ),
        (&["--workers"], &["add --poll"]),
    ];
    for (options, words) in refusals {
        let call = [&["tune"], options].concat();
        service.client(&call).code(2).says(words);
    }
    let stopped = service.program.workers(1)[0];
    // It must have joined, or it would never take the first setting up.
    service.client(&["tune", "--poll", "event"]).code(0);
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    processes::send(stopped, Signal::STOP);
    let tuned = service
        .client(&["tune", "--poll", "busy", "--json"])
        .code(0);
    let shown = tuned.json();
    assert_eq!(worker(&shown, 0).1, "pending", "{shown}");
    tuned.says(&["worker 0 has not taken its setting up", "mitosis tune"]);
    processes::send(stopped, Signal::CONT);
    wait::until("the worker to take it up", wait::LONG, || {
        let shown = service.client(&["tune", "--json"]).code(0).json();
        if worker(&shown, 0) == in_force("busy") {
            return Ok(());
        }
        Err(shown.to_string())
    });
    service.stop().code(0);
}

#[test]
fn a_manager_that_is_away_is_not_tuned() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    service
        .client(&["tune", "--poll", "busy"])
        .code(3)
        .says(&["no manager is connected", "mitosis manager"]);
    let mut manager = service.manager(1, &[]);
    manager.until("the manager to be known", || {
        let shown = service.client(&["tune", "--json"]);
        if shown.status.success() {
            return Ok(());
        }
        Err(shown.stderr)
    });
    let shown = service.client(&["tune", "--json"]).code(0).json();
    let uuid = shown["manager_uuid"].as_str().expect("a uuid").to_owned();
    manager.stop().code(0);
    service
        .client(&["tune", "--poll", "busy", "--manager", &uuid])
        .code(3)
        .says(&["not connected, and nothing was changed"]);
    let unknown = uuid::Uuid::new_v4().to_string();
    service
        .client(&["tune", "--poll", "busy", "--manager", &unknown])
        .code(2);
    service.stop().code(0);
}
