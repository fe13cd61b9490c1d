//! Stopping and pausing: each role on each signal, one worker of several, and a coordinator that is away.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::terminal::Terminal;
use crate::support::{Running, Sandbox, Service, processes, size, tasks, wait};

/// Waits for a file that a task makes.
#[track_caller]
fn until_there(path: &Path, program: &Running<'_>) {
    wait::until("a task to begin", wait::LONG, || {
        path.exists().then_some(()).ok_or_else(|| program.stderr())
    });
}

/// Waits until a program has logged some words.
#[track_caller]
fn until_said(program: &Running<'_>, words: &str) {
    wait::until(&format!("`{words}`"), wait::LONG, || {
        let text = program.stderr();
        text.contains(words).then_some(()).ok_or(text)
    });
}

/// The name under which an independent worker registered.
#[track_caller]
fn name_of(worker: &Running<'_>) -> String {
    wait::until("the worker to register", wait::LONG, || {
        let text = worker.stderr();
        let line = text.lines().find(|line| line.contains("HTTP connected"));
        let mut words = line.unwrap_or_default().split_whitespace();
        let uuid = words.find_map(|word| word.strip_prefix("worker="));
        uuid.map(str::to_owned).ok_or_else(|| text.clone())
    })
}

#[test]
fn a_run_that_is_suspended_stops_its_tasks_and_repeats_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo one >> log; sleep 1; echo two >> log\n");
    let run = sandbox.start(["run", "list.txt", "-w", "2"]);
    wait::until("the task to begin", wait::LONG, || {
        (sandbox.lines("log").len() == 1)
            .then_some(())
            .ok_or_else(|| run.stderr())
    });
    run.signal(Signal::TSTP);
    wait::until("everything to stand still", wait::LONG, || {
        let all = processes::of(sandbox.root());
        let stopped = all.iter().filter(|process| process.state == 'T').count();
        // The run, two workers, the shell and its child.
        let state = format!("{all:?}");
        (stopped == all.len() && stopped >= 5)
            .then_some(())
            .ok_or(state)
    });
    run.signal(Signal::CONT);
    run.finish().code(0);
    assert_eq!(sandbox.lines("log"), ["one", "two"]);
}

#[test]
fn time_limits_stand_still_with_a_run_that_is_suspended_in_a_terminal() {
    let sandbox = Sandbox::new();
    // In the long form longer than any lease that a service gives.
    let pause = Duration::from_secs(size(6, 150) as u64);
    sandbox.file("list.txt", "echo one >> log; sleep 2; echo two >> log\n");
    let call = [
        "run",
        "list.txt",
        "-w",
        "2",
        "--timeout",
        "4s",
        "--grace",
        "1s",
    ];
    let terminal = Terminal::start(&sandbox, 80, &call, &[]);
    wait::until("the task to begin", wait::LONG, || {
        (sandbox.lines("log").len() == 1)
            .then_some(())
            .ok_or_else(|| terminal.text())
    });
    terminal.signal(Signal::TSTP);
    let all_stopped = || {
        let all = processes::of(sandbox.root());
        let are_stopped = !all.is_empty() && all.iter().all(|process| process.state == 'T');
        are_stopped.then_some(()).ok_or_else(|| format!("{all:?}"))
    };
    wait::until("everything to stand still", wait::LONG, all_stopped);
    wait::holds("the standstill", pause, all_stopped);
    terminal.signal(Signal::CONT);
    let (status, screen, _) = terminal.finish();
    assert_eq!(status.code(), Some(0), "{screen}");
    assert_eq!(sandbox.lines("log"), ["one", "two"]);
}

#[test]
fn a_run_that_is_stopped_from_outside_repeats_nothing_of_what_went_on() {
    let sandbox = Sandbox::new();
    let pause = Duration::from_secs(size(3, 150) as u64);
    let line = |number: u32| format!("echo {number} >> log; sleep 0.5; echo {number} >> ended\n");
    sandbox.file("list.txt", (1..=6).map(line).collect::<String>());
    let run = sandbox.start(["run", "list.txt", "-w", "2"]);
    wait::until("the tasks to begin", wait::LONG, || {
        (sandbox.path("log").exists())
            .then_some(())
            .ok_or_else(|| run.stderr())
    });
    run.signal(Signal::STOP);
    wait::until("what had begun to end", wait::LONG, || {
        sandbox
            .path("ended")
            .exists()
            .then_some(())
            .ok_or_else(|| run.stderr())
    });
    wait::holds("the pause", pause, || Ok(()));
    run.signal(Signal::CONT);
    run.finish().code(0);
    let mut begun = sandbox.lines("log");
    begun.sort();
    assert_eq!(begun, ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn a_task_that_outlasts_the_deadline_of_its_service_is_handed_back() {
    let sandbox = Sandbox::new();
    let up = ["up", "--workers", "1", "--shutdown-deadline", "200ms"];
    let service = Service::start(&sandbox, &up);
    let begun = sandbox.path("begun");
    let uuid = service.submit(&format!(
        "touch {}; [ $MITO_ATTEMPT = 2 ] || sleep 1000",
        begun.display()
    ));
    until_there(&begun, &service.program);
    service.program.signal(Signal::TERM);
    let (finished, service) = service.ended();
    finished
        .code(0)
        .says(&["manager ended", "reason=\"asked\""]);
    let service = service.restart();
    service.until_state(&uuid, "completed");
    let task = tasks::show(&sandbox, &service.state_dir, &uuid);
    assert_eq!(task.attempts(), 2, "{:#}", task.0);
    task.assert_repeated_with_cause();
    service.stop().code(0);
}

#[test]
fn a_short_task_ends_within_the_deadline_of_its_service() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let begun = sandbox.path("begun");
    let uuid = service.submit(&format!("touch {}; sleep 0.5", begun.display()));
    until_there(&begun, &service.program);
    service.program.signal(Signal::INT);
    let (finished, service) = service.ended();
    finished
        .code(0)
        .says(&["manager ended", "reason=\"asked\""]);
    let service = service.restart();
    let task = service.task(&uuid);
    assert_eq!((task.state(), task.attempts()), ("completed".to_owned(), 1));
    service.stop().code(0);
}

#[test]
fn a_coordinator_stops_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let service = Service::coordinator(&sandbox);
        let worker = service.worker();
        // A fetch and a control poll are parked; neither holds the coordinator up.
        name_of(&worker);
        service.program.signal(signal);
        service.program.finish().code(0).says(&["stopping"]);
        worker.signal(Signal::TERM);
        worker.finish().code(0);
    }
}

#[test]
fn one_independent_worker_is_paused_and_sent_away() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let uuid = name_of(&worker);
    service.client(&["pause", "--worker", &uuid]).code(0);
    until_said(&worker, "Pause");
    let begun = sandbox.path("begun");
    let task = service.submit(&format!("touch {}", begun.display()));
    wait::holds("the pause", Duration::from_millis(300), || {
        let quiet = !begun.exists();
        quiet.then_some(()).ok_or_else(|| worker.stderr())
    });
    service.client(&["resume", "--worker", &uuid]).code(0);
    service.until_state(&task, "completed");
    let other = service.worker();
    name_of(&other);
    service.client(&["drain", "--worker", &uuid]).code(0);
    worker.finish().code(0);
    // The other one was not meant.
    let task = service.submit("true");
    service.until_state(&task, "completed");
    other.stop().code(0);
    let unknown = "01900000-0000-7000-8000-000000000000";
    let refused = service.client(&["pause", "--worker", unknown]);
    assert!(!refused.status.success());
    refused.says(&[unknown]);
    service.stop().code(0);
}

#[test]
fn an_independent_worker_rides_through_its_coordinators_absence() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let (begun, ended) = (sandbox.path("begun"), sandbox.path("ended"));
    let uuid = service.submit(&format!(
        "touch {}; sleep 1; touch {}",
        begun.display(),
        ended.display()
    ));
    until_there(&begun, &worker);
    let killed = service.kill();
    until_there(&ended, &worker);
    let away = Duration::from_secs(size(2, 150) as u64);
    wait::holds("the worker's life", away, || {
        let left = worker.stderr().contains("worker stops");
        (!left).then_some(()).ok_or_else(|| worker.stderr())
    });
    let service = killed.restart();
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.attempts(), 1, "{:#}", task.0);
    let next = service.submit("true");
    service.until_state(&next, "completed");
    worker.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_worker_says_how_it_came_and_went() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    worker.stop().code(0).says(&[
        "worker mode: independent",
        "HTTP connected",
        "stop signal",
        "left the coordinator",
        "HTTP disconnected",
        "worker stops",
        "reason=",
        "worker metrics: completed=1, failed=0, cancelled=0, released=0",
    ]);
    service.stop().code(0);
}
