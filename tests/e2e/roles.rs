//! Roles apart: coordinator, manager and independent workers as processes of their own; clients; orderly ends.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::support::{Running, Sandbox, Service, Task, processes, size, wait};

#[test]
fn independent_and_managed_workers_drain_one_queue_together() {
    let sandbox = Sandbox::new();
    let count = size(200, 2000);
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let manager = service.manager(2, &["--prefetch", "4"]);
    let log = sandbox.path("log");
    let line = format!("sleep 0.02; echo $MITO_INSTANCE >> {}\n", log.display());
    let file = sandbox.file("list.txt", line.repeat(count));
    let submitted = service.submit_file(&file);
    let tasks = service.until_all_ended();
    assert_eq!((submitted.len(), tasks.len()), (count, count));
    assert!(
        tasks
            .iter()
            .all(|task| task.state() == "completed" && task.attempts() == 1)
    );
    let log = sandbox.lines("log");
    let places: BTreeSet<&String> = log.iter().collect();
    assert_eq!(
        (log.len(), places.len()),
        (count, 2),
        "both had a part: {places:?}"
    );
    worker.stop().code(0);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn logs_are_the_whole_output_in_bytes() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid =
        service.submit("for i in $(seq 5000); do echo line $i; done; printf '\\377'; echo bad >&2");
    service.until_state(&uuid, "completed");
    let shown = service.client(&["logs", &uuid]).code(0);
    let mut wanted: Vec<u8> = (1..=5000)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    wanted.push(0xff);
    assert_eq!(shown.stdout.len(), wanted.len());
    assert!(shown.stdout == wanted);
    assert!(shown.stderr.contains("bad"), "{}", shown.stderr);
    service.stop().code(0);
}

#[test]
fn wait_ends_when_its_tasks_have_and_says_how() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let good = service.submit("sleep 0.3");
    let bad = service.submit("sleep 0.1; exit 3");
    service.client(&["wait", &good]).code(0);
    service.client(&["wait", &good, &bad]).code(1);
    assert!(service.tasks().iter().all(Task::is_terminal));
    service.stop().code(0);
}

#[test]
fn tasks_are_listed_by_state_and_shown_to_people_and_programs() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let good = service.submit("echo good");
    let bad = service.submit("exit 9");
    service.until_state(&good, "completed");
    service.until_state(&bad, "failed");
    let page = service
        .client(&["tasks", "--state", "failed", "--json"])
        .code(0)
        .json();
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(1), "{page:#}");
    assert_eq!(page["tasks"][0]["uuid"], *bad);
    let table = service.client(&["tasks"]).code(0).out();
    assert!(table.contains(&good) && table.contains(&bad), "{table}");
    let shown = service.client(&["task", &bad]).code(0).out();
    assert!(
        shown.contains("exit 9") && shown.contains("failed"),
        "{shown}"
    );
    service.stop().code(0);
    // With nobody running the store is read.
    assert_eq!(
        crate::support::tasks::list(&sandbox, &sandbox.path("up")).len(),
        2
    );
}

#[test]
fn a_worker_asked_to_end_hands_its_task_back() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let begun = sandbox.path("begun");
    let script = format!(
        "touch {}; [ $MITO_ATTEMPT = 2 ] || sleep 1000",
        begun.display()
    );
    let uuid = service.submit(&script);
    wait::until("the task to begin", wait::LONG, || {
        begun.exists().then_some(()).ok_or_else(|| worker.stderr())
    });
    // Twice: at once.
    worker.signal(Signal::TERM);
    wait::until("the first signal to be heard", wait::LONG, || {
        let text = worker.stderr();
        text.contains("stop signal").then_some(()).ok_or(text)
    });
    worker.signal(Signal::TERM);
    worker.finish().code(75);
    let second = service.worker();
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.attempts(), 2, "{:#}", task.0);
    second.stop().code(0);
    service.stop().code(0);
}

#[test]
fn managed_workers_leave_when_their_manager_is_gone() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(3, &[]);
    let workers = manager.workers(3);
    let begun = sandbox.path("begun");
    service.submit(&format!(
        "touch {}; sleep 1001 & sleep 1000",
        begun.display()
    ));
    wait::until("the task to begin", wait::LONG, || {
        begun.exists().then_some(()).ok_or_else(|| manager.stderr())
    });
    manager.kill();
    wait::until("the workers and the task to be gone", wait::LONG, || {
        let left = sandbox.processes();
        let alive = left
            .iter()
            .any(|process| workers.contains(&process.pid) || process.command.starts_with("sleep"));
        if alive {
            Err(format!("{left:#?}"))
        } else {
            Ok(())
        }
    });
    // Shared memory of a killed manager goes at the next start on its state directory.
    let next = service.manager(1, &[]);
    next.workers(1);
    next.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_worker_that_is_killed_idle_is_replaced() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let before = service.program.workers(2);
    for worker in &before {
        processes::send(*worker, Signal::KILL);
    }
    wait::until("new workers", wait::LONG, || {
        let now = processes::workers(service.program.pid());
        let new = now
            .iter()
            .filter(|worker| !before.contains(&worker.pid))
            .count();
        if new == 2 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    let uuid = service.submit("echo still here");
    service.until_state(&uuid, "completed");
    service.stop().code(0);
}

#[test]
fn one_machine_has_one_manager_of_the_role() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    manager.workers(1);
    let second = service.manager_on("another", 1, &[]).finish();
    assert!(
        matches!(second.status.code(), Some(2 | 3)),
        "{:?}",
        second.status
    );
    second.says(&["manager", "lock"]);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn the_endpoint_file_is_private_and_goes_with_the_service() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let token = service.token("admin");
    let secret = token.rsplit('.').next().unwrap().to_owned();
    let mut open = Vec::new();
    for entry in std::fs::read_dir(&service.state_dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(format!("{}: {mode:o}", entry.path().display()));
        }
    }
    let dir_mode = std::fs::metadata(&service.state_dir)
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert!(
        open.is_empty() || dir_mode == 0o700,
        "others may read: {open:?}"
    );
    assert!(
        !service.program.stderr().contains(&secret),
        "a token was logged"
    );
    service.stop().code(0);
}

#[test]
fn metrics_of_a_service_tell_of_its_tasks() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    for n in 0..5 {
        let uuid = service.submit(&format!("exit {}", n % 2));
        wait::until("the task to end", wait::LONG, || {
            let task = service.task(&uuid);
            if task.is_terminal() {
                Ok(())
            } else {
                Err(task.state())
            }
        });
    }
    let text = wait::until("the counters", wait::LONG, || {
        let text = service.metrics();
        let counted = |line: &str| text.lines().any(|found| found == line);
        let done = counted("mitosis_coordinator_tasks_accepted_total 5");
        if done {
            Ok(text.clone())
        } else {
            Err(text.clone())
        }
    });
    for metric in mitosis::telemetry::names::ALL {
        let help = format!("# HELP {} ", metric.name);
        let of_independent = metric.labels.contains(&"worker");
        assert!(
            of_independent || text.contains(&help),
            "{} is not exported",
            metric.name
        );
    }
    let round_trips = text.lines().find(|line| {
        line.starts_with("mitosis_ipc_round_trip_seconds_count") && line.contains("fetch")
    });
    let count = round_trips.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(count.is_some_and(|count| count >= 5.0), "{round_trips:?}");
    service.stop().code(0);
}

#[test]
fn without_a_token_nothing_is_told() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let mut command = sandbox.command(["tasks", "--coordinator-url", &service.url]);
    // Another user of this host: no state directory, no token.
    command.env("XDG_STATE_HOME", sandbox.root().join("tmp/nobody"));
    let ended = Running::start(&sandbox, command).finish();
    assert!(
        matches!(ended.status.code(), Some(2 | 3)),
        "{:?}",
        ended.status
    );
    ended.says(&["token"]);
    service.stop().code(0);
}
