//! `kill -9` of every part in the middle of work, and a coordinator that is away: nothing is lost, nothing is executed
//! again without a recorded cause, nothing stays behind.
//!
//! Tasks note their uuid in a file when they begin and when they end, so that what happened is known without asking the
//! program.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Running, Sandbox, Service, Task, processes, size, tasks, wait};

/// A list of tasks that note their beginning and their end.
fn list(sandbox: &Sandbox, count: usize, seconds: &str) {
    let log = sandbox.path("log");
    let log = log.display();
    let line = |n| {
        format!(
            "echo begun $MITO_TASK_UUID >> {log}; sleep {seconds}; echo ended $MITO_TASK_UUID {n} >> {log}\n"
        )
    };
    sandbox.file("list.txt", (0..count).map(line).collect::<String>());
}

/// Uuids of tasks that noted this word.
fn noted(sandbox: &Sandbox, word: &str) -> BTreeSet<String> {
    let lines = sandbox.lines("log");
    let words = lines.iter().filter_map(|line| line.strip_prefix(word));
    words
        .filter_map(|rest| rest.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[track_caller]
fn until_ended(sandbox: &Sandbox, running: &mut Running<'_>, count: usize) {
    running.until(&format!("{count} tasks to have run"), || {
        let done = noted(sandbox, "ended").len();
        if done >= count {
            Ok(())
        } else {
            Err(format!("{done} have"))
        }
    });
}

/// Holds that every submitted task completed and that each noted its end.
#[track_caller]
fn assert_none_lost(sandbox: &Sandbox, service: &Service<'_>, submitted: &[String]) -> usize {
    service.until_all_ended();
    let again = tasks::assert_all_completed(sandbox, &service.state_dir, submitted.len());
    let stored: BTreeSet<String> = service.tasks().iter().map(Task::uuid).collect();
    assert_eq!(stored, submitted.iter().cloned().collect());
    assert_eq!(
        noted(sandbox, "ended"),
        stored,
        "a task completed without having run"
    );
    again
}

/// Tasks that one death may cost each worker that it concerns: the one that it runs, and the one before, whose report
/// travels while the next task begins (a worker does not wait for its report to be in the spool).
const AGAIN_PER_WORKER: usize = 2;

#[test]
fn a_killed_worker_costs_its_tasks_one_attempt_and_no_other_anything() {
    let sandbox = Sandbox::new();
    let count = size(300, 2000);
    list(&sandbox, count, "0.02");
    let mut run = sandbox.start(["run", "list.txt", "--workers", "3", "--state-dir", "kept"]);
    let killed = 3;
    for round in 1..=killed {
        until_ended(&sandbox, &mut run, round * count / 6);
        let worker = run.workers(3)[0];
        processes::send(worker, Signal::KILL);
        run.until("the worker to be gone and another in its place", || {
            let now: Vec<u32> = processes::workers(run_pid(&sandbox))
                .iter()
                .map(|w| w.pid)
                .collect();
            let replaced = !now.contains(&worker) && now.len() == 3;
            replaced.then_some(()).ok_or_else(|| format!("{now:?}"))
        });
    }
    run.finish().code(0);
    let again = tasks::assert_all_completed(&sandbox, &sandbox.path("kept"), count);
    assert!(
        again <= killed * AGAIN_PER_WORKER,
        "{again} tasks were executed again after {killed} kills"
    );
}

/// The process of the one `run` of a sandbox.
fn run_pid(sandbox: &Sandbox) -> u32 {
    let all = sandbox.processes();
    let run = all.iter().find(|process| process.command.contains(" run "));
    run.map_or(0, |process| process.pid)
}

#[test]
fn the_task_of_a_killed_worker_does_not_live_on() {
    let sandbox = Sandbox::new();
    let script =
        "echo $$ >> pids; setsid sleep 1001 & sleep 1002 & [ $MITO_ATTEMPT = 2 ] || sleep 1003";
    sandbox.file("list.txt", script);
    let mut run = sandbox.start(["run", "list.txt", "--workers", "1", "--state-dir", "kept"]);
    run.until("the task to begin", || {
        let begun = sandbox.lines("pids").len() == 1;
        begun.then_some(()).ok_or_else(String::new)
    });
    processes::send(run.workers(1)[0], Signal::KILL);
    run.finish().code(0);
    sandbox.assert_nothing_left();
    let task = tasks::list(&sandbox, &sandbox.path("kept")).remove(0);
    assert_eq!((task.state(), task.attempts()), ("completed".to_owned(), 2));
}

#[test]
fn a_task_that_takes_its_workers_down_is_given_up() {
    let sandbox = Sandbox::new();
    let poison = "kill -9 $PPID; sleep 1000";
    sandbox.file("list.txt", format!("echo good\n{poison}\necho good\n"));
    let ran = sandbox
        .run(["run", "list.txt", "--workers", "2", "--state-dir", "kept"])
        .code(1);
    assert_eq!(ran.out(), "good\ngood\n");
    let all = tasks::list(&sandbox, &sandbox.path("kept"));
    let bad = all
        .iter()
        .find(|task| task.command().contains("kill -9"))
        .unwrap();
    assert_eq!(
        (bad.state(), bad.reason()),
        ("failed".to_owned(), "strikes".to_owned())
    );
    // Only signals that a program brings upon itself count double; KILL may come from anybody.
    assert_eq!(bad.attempts(), 3, "{:#}", bad.0);
}

#[test]
fn a_stopped_worker_does_not_stop_the_others() {
    let sandbox = Sandbox::new();
    list(&sandbox, 60, "0.02");
    let mut run = sandbox.start(["run", "list.txt", "--workers", "2", "--state-dir", "kept"]);
    until_ended(&sandbox, &mut run, 10);
    let worker = run.workers(2)[0];
    processes::send(worker, Signal::STOP);
    until_ended(&sandbox, &mut run, 55);
    processes::send(worker, Signal::CONT);
    run.finish().code(0);
    tasks::assert_all_completed(&sandbox, &sandbox.path("kept"), 60);
}

#[test]
fn a_killed_service_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let count = size(300, 2000);
    list(&sandbox, count, "0.02");
    let mut service = Service::up(&sandbox, 3);
    let submitted = service.submit_file(&sandbox.path("list.txt"));
    assert_eq!(submitted.len(), count);
    for round in 1..=2 {
        until_ended(&sandbox, &mut service.program, round * count / 4);
        service = service.kill_and_restart();
    }
    let again = assert_none_lost(&sandbox, &service, &submitted);
    assert!(
        again <= 2 * 3 * AGAIN_PER_WORKER,
        "{again} tasks were executed again"
    );
    service.stop().code(0);
}

#[test]
fn a_killed_manager_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let count = size(300, 2000);
    list(&sandbox, count, "0.02");
    let service = Service::coordinator(&sandbox);
    let mut manager = service.manager(3, &[]);
    let submitted = service.submit_file(&sandbox.path("list.txt"));
    until_ended(&sandbox, &mut manager, count / 4);
    manager.kill();
    manager = service.manager(3, &[]);
    let again = assert_none_lost(&sandbox, &service, &submitted);
    // Besides these, nothing: a task in the buffer had not been executed, and a report in the spool is kept.
    assert!(
        again <= 3 * AGAIN_PER_WORKER,
        "{again} tasks were executed again"
    );
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn an_execution_that_its_killed_manager_had_not_noted_is_counted_all_the_same() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let line = "echo $MITO_ATTEMPT >> tries; [ $MITO_ATTEMPT -gt 1 ] || sleep 1003";
    let line = format!("cd {}; {line}", sandbox.path("").display());
    // The worker may hear of its manager's death before it has begun; then nothing was executed.
    let mut lost = 0;
    for _ in 0..10 {
        let _ = std::fs::remove_file(sandbox.path("tries"));
        let manager = service.manager(1, &[]);
        let warm = service.submit("true");
        service.until_state(&warm, "completed");
        // From here on no byte that it writes to a file is kept, so neither is the news of a beginning.
        let most = rustix::process::Rlimit {
            current: Some(1),
            maximum: Some(1),
        };
        let pid = rustix::process::Pid::from_raw(i32::try_from(manager.pid()).unwrap());
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, most).unwrap();
        let uuid = service.submit(&line);
        wait::until("the task to begin", wait::LONG, || {
            match sandbox.lines("tries").len() {
                0 => Err("it has not".to_owned()),
                _ => Ok(()),
            }
        });
        manager.kill();
        let manager = service.manager(1, &[]);
        let task = service.until_state(&uuid, "completed");
        let tries = sandbox.lines("tries");
        assert!(
            tries.len() as u64 <= task.attempts(),
            "{tries:?}: {:#}",
            task.0
        );
        assert_eq!(
            tries.last(),
            Some(&task.attempts().to_string()),
            "{tries:?}"
        );
        if task.attempts() > 1 {
            tasks::show(&sandbox, &service.state_dir, &uuid).assert_repeated_with_cause();
        }
        manager.stop().code(0);
        lost += tries.len() - 1;
        if lost > 0 {
            break;
        }
    }
    assert!(lost > 0, "no execution was lost: nothing was tested");
    service.stop().code(0);
}

#[test]
fn a_killed_coordinator_loses_nothing_and_its_manager_returns() {
    let sandbox = Sandbox::new();
    let count = size(300, 2000);
    list(&sandbox, count, "0.02");
    let service = Service::coordinator(&sandbox);
    let mut manager = service.manager(3, &[]);
    let submitted = service.submit_file(&sandbox.path("list.txt"));
    until_ended(&sandbox, &mut manager, count / 4);
    let service = service.kill_and_restart();
    until_ended(&sandbox, &mut manager, count / 2);
    let service = service.kill_and_restart();
    let again = assert_none_lost(&sandbox, &service, &submitted);
    assert_eq!(
        again, 0,
        "a coordinator's death is no cause to execute anything again"
    );
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn while_the_coordinator_is_away_the_buffer_goes_on() {
    let sandbox = Sandbox::new();
    let away = Duration::from_secs(size(3, 10) as u64);
    list(&sandbox, 100, "0.2");
    let service = Service::coordinator(&sandbox);
    let mut manager = service.manager(2, &["--prefetch", "40"]);
    let submitted = service.submit_file(&sandbox.path("list.txt"));
    until_ended(&sandbox, &mut manager, 4);
    let killed = service.kill();
    let before = noted(&sandbox, "begun").len();
    // Two workers of 0.2 s each begin ten tasks a second; half of that is clearly going on.
    let wanted = before + usize::try_from(away.as_secs()).unwrap() * 5;
    wait::holds("the manager's life", away, || {
        let alive = !processes::workers(manager.pid()).is_empty();
        alive
            .then_some(())
            .ok_or_else(|| "no worker is left".to_owned())
    });
    let begun = noted(&sandbox, "begun").len();
    assert!(
        begun >= wanted.min(before + 30),
        "{begun} tasks had begun, {before} before"
    );
    let service = killed.restart();
    assert_eq!(assert_none_lost(&sandbox, &service, &submitted), 0);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn what_was_answered_to_a_submit_is_there_after_a_kill() {
    let sandbox = Sandbox::new();
    let mut service = Service::coordinator(&sandbox);
    let mut answered = BTreeSet::new();
    for round in 0..size(4, 20) {
        for n in 0..3 {
            answered.insert(service.submit(&format!("echo {round} {n}")));
        }
        // A kill in the middle of a submit: it was answered, or not.
        let dir = service.state_dir.to_str().unwrap().to_owned();
        let call = [
            "submit",
            "--quiet",
            "--state-dir",
            &dir,
            "--",
            "echo",
            "late",
        ];
        let late = sandbox.start(call);
        service = service.kill_and_restart();
        let late = late.finish();
        if late.status.success() {
            answered.insert(late.out().trim().to_owned());
        }
    }
    let stored: BTreeSet<String> = service.tasks().iter().map(Task::uuid).collect();
    let lost: Vec<&String> = answered.difference(&stored).collect();
    assert!(lost.is_empty(), "accepted and gone: {lost:?}");
    service.stop().code(0);
}

#[test]
fn the_task_of_a_killed_independent_worker_is_run_by_another_when_its_lease_ends() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let service = Service::start(
        &sandbox,
        &["coordinator", "--lease", "2s", "--renew", "500ms"],
    );
    let worker = service.worker();
    let log = log.display();
    let begin = format!("echo begun $MITO_TASK_UUID >> {log}");
    let end = format!("echo ended $MITO_TASK_UUID >> {log}");
    let uuid = service.submit(&format!(
        "{begin}; [ $MITO_ATTEMPT = 2 ] || sleep 1003; {end}"
    ));
    wait::until("the task to begin", wait::LONG, || {
        let begun = noted(&sandbox, "begun").len() == 1;
        begun.then_some(()).ok_or_else(|| worker.stderr())
    });
    worker.kill();
    // Nobody supervises an independent worker, so what it leaves is its user's to end.
    let left = sandbox.processes();
    for process in left
        .iter()
        .filter(|process| process.command.contains("1003"))
    {
        processes::send(process.pid, Signal::KILL);
    }
    let second = service.worker();
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.attempts(), 2, "{:#}", task.0);
    assert_eq!(noted(&sandbox, "ended").len(), 1);
    second.stop().code(0);
    service.stop().code(0);
}
