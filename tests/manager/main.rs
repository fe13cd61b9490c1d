//! A manager with real workers on a real coordinator: one test process, an in-memory link, shared memory, children.
//!
//! What the program promises as a whole is tested in `tests/e2e`; here stand the manager's own promises, where the test can
//! see and kill single workers. Every test ends its manager and checks that no process and no file of the transport
//! is left.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot be set up has failed the test"
)]

mod support;

use std::time::Duration;

use mitosis::protocol::report::Reason;
use mitosis::protocol::{TaskSpec, TaskState};
use mitosis::shutdown::ShutdownRequest;
use support::{Machine, PATIENCE, until};

const GRACEFUL: ShutdownRequest = ShutdownRequest::Graceful {
    deadline: Duration::from_secs(20),
};

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_run_a_hundred_tasks_once_each() {
    let machine = Machine::start(2).await;
    let tasks = machine
        .submit((0..100).map(|_| TaskSpec::argv(["true"])))
        .await;
    machine.all_end(&tasks).await;
    for task in &tasks {
        let detail = machine.task(*task).await;
        assert_eq!(
            (detail.summary.state, detail.summary.attempts),
            (TaskState::Completed, 1)
        );
    }
    let stats = machine.manager.stats().await;
    assert_eq!((stats.outcomes, stats.executions), ([100, 0, 0], 100));
    assert!(stats.fetch_round_trip.count() >= 100 / 16, "{stats:?}");
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_has_nothing_left_leaves_with_its_last_event_and_waits_for_no_time() {
    let machine = Machine::start(2).await;
    let tasks = machine.submit([TaskSpec::argv(["true"])]).await;
    machine.all_end(&tasks).await;
    let manager = machine.manager.clone();
    machine.stop(GRACEFUL).await;
    assert_eq!(manager.stats().await.timed_steps, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_worker_is_killed_runs_again_with_the_cause_and_leaves_no_process() {
    let machine = Machine::start(1).await;
    let marker = machine.path("first-run");
    // The first run stays, and leaves a daemon; the second ends.
    let line = format!(
        "if [ -e {0} ]; then exit 0; fi; touch {0}; setsid sleep 987 & sleep 987",
        marker.display()
    );
    let tasks = machine.submit([TaskSpec::shell_line(line)]).await;
    until("the task has begun", || marker.exists()).await;
    machine.kill_a_worker().await;
    machine.all_end(&tasks).await;
    let detail = machine.task(tasks[0]).await;
    assert_eq!(
        (detail.summary.state, detail.summary.attempts),
        (TaskState::Completed, 2)
    );
    let end = detail.history[0].end.clone().unwrap_or_default();
    assert!(
        end.contains("worker 0 was killed by signal 9"),
        "{:?}",
        detail.history
    );
    until("what the dead worker left is gone", || {
        machine.processes_with("sleep\0987").is_empty()
    })
    .await;
    let exits = machine.manager.stats().await.worker_exits;
    assert!(exits.contains(&("signal", 1)), "{exits:?}");
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_workers_strikes_out() {
    let machine = Machine::start(1).await;
    // The task kills its parent, the worker. Not with SEGV: the runtime of Rust swallows the first one that is sent.
    let tasks = machine
        .submit([TaskSpec::shell_line("kill -ILL $PPID; sleep 60")])
        .await;
    machine.all_end(&tasks).await;
    let detail = machine.task(tasks[0]).await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    let result = detail.result.expect("a terminal task has a result");
    assert_eq!(result.reason, Reason::Strikes, "{result:?}");
    assert_eq!(detail.summary.attempts, 2);
    let after = machine.submit([TaskSpec::argv(["true"])]).await;
    machine.all_end(&after).await;
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_waited_for_and_goes_on_with_what_it_was_given() {
    let machine = Machine::start(1).await;
    let warm = machine.submit([TaskSpec::argv(["true"])]).await;
    machine.all_end(&warm).await;
    machine.stop_a_worker().await;
    let tasks = machine.submit([TaskSpec::argv(["true"])]).await;
    machine.continue_workers();
    machine.all_end(&tasks).await;
    let detail = machine.task(tasks[0]).await;
    assert_eq!(
        (detail.summary.state, detail.summary.attempts),
        (TaskState::Completed, 1)
    );
    let exits = machine.manager.stats().await.worker_exits;
    assert!(exits.contains(&("unresponsive", 0)), "{exits:?}");
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_running_and_waiting_tasks() {
    let machine = Machine::start(1).await;
    let marker = machine.path("began");
    let line = format!("touch {}; exec sleep 600", marker.display());
    let tasks = machine
        .submit([TaskSpec::shell_line(line), TaskSpec::argv(["sleep", "600"])])
        .await;
    until("the first task has begun", || marker.exists()).await;
    for task in &tasks {
        machine.coordinator.cancel(*task, true).await.unwrap();
    }
    machine.all_end(&tasks).await;
    for task in &tasks {
        assert_eq!(
            machine.task(*task).await.summary.state,
            TaskState::Cancelled
        );
    }
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_begins_nothing_and_a_resume_goes_on() {
    let machine = Machine::start(1).await;
    machine.manager.pause().await.unwrap();
    let tasks = machine.submit([TaskSpec::argv(["true"])]).await;
    let waited = machine.wait(&tasks, Duration::from_millis(300)).await;
    assert!(!waited.done);
    machine.manager.resume().await.unwrap();
    machine.all_end(&tasks).await;
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_hands_running_tasks_back_and_the_next_manager_runs_them() {
    let mut machine = Machine::start(2).await;
    let marker = machine.path("first-run");
    let line = format!(
        "[ -e {0} ] && exit 0; touch {0}; exec sleep 600",
        marker.display()
    );
    let mut specs = vec![TaskSpec::shell_line(line)];
    specs.extend((0..20).map(|_| TaskSpec::argv(["true"])));
    let tasks = machine.submit(specs).await;
    until("the task has begun", || marker.exists()).await;
    let deadline = Duration::from_millis(100);
    machine
        .end_manager(ShutdownRequest::Graceful { deadline })
        .await;
    machine.start_manager().await;
    machine.all_end(&tasks).await;
    let detail = machine.task(tasks[0]).await;
    assert_eq!(
        (detail.summary.state, detail.summary.attempts),
        (TaskState::Completed, 2)
    );
    assert!(detail.history[0].end.is_some(), "{:?}", detail.history);
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immediate_shutdown_waits_for_nobody_and_leaves_nothing() {
    let machine = Machine::start(2).await;
    let marker = machine.path("began");
    let line = format!(
        "trap '' TERM; touch {}; while :; do sleep 1; done",
        marker.display()
    );
    machine.submit([TaskSpec::shell_line(line)]).await;
    until("the task has begun", || marker.exists()).await;
    let began = std::time::Instant::now();
    machine.stop(ShutdownRequest::Immediate).await;
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_manager_on_the_same_directory_is_refused_in_words() {
    let machine = Machine::start(1).await;
    let error = machine
        .try_second_manager()
        .await
        .expect_err("the directory is in use");
    assert!(error.to_string().contains("in use by process"), "{error}");
    machine.stop(GRACEFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_never_come_up_end_the_manager_with_their_own_words() {
    let exit = support::manager_with_program("/bin/false").await;
    let text = format!("{exit:?}");
    assert!(
        text.contains("exited with code 1 before it was ready"),
        "{text}"
    );
}
