//! The loop with the real executor and small processes.

use std::path::Path;

use super::super::*;
use super::fake::{Stage, cancel, shutdown, task};
use crate::exit_code::Exit;
use crate::protocol::TaskResult;
use crate::protocol::frame::{CwdPolicy, EnvPolicy, KeptOutput};
use crate::protocol::limits::TaskGroups;
use crate::protocol::report::Reason;
use crate::protocol::{HumanDuration, Mode, TaskSpec};
use crate::worker::executor::{ExecConfig, Executor};
use crate::worker::runner::ExecutorRunner;

fn runner(dir: &Path) -> ExecutorRunner {
    let config = ExecConfig {
        slot_dir: dir.join("slot"),
        output_dir: dir.join("output"),
        instance: "test".into(),
        env: EnvPolicy::AllowList,
        cwd: CwdPolicy::TaskDir,
        worker_id: "7".into(),
        coordinator_url: None,
        kept_output: KeptOutput::Stays,
        groups: TaskGroups::default(),
        begun: None,
        live_dir: None,
        passed: Default::default(),
    };
    ExecutorRunner::new(Executor::new(&config).unwrap())
}

fn line(text: &str) -> TaskSpec {
    TaskSpec {
        grace: Some(HumanDuration(Duration::from_millis(200))),
        ..TaskSpec::shell_line(text)
    }
}

/// A task that is there until it is killed.
fn endless() -> TaskSpec {
    line("exec sleep 1000")
}

#[track_caller]
fn last_result(stage: &Stage) -> TaskResult {
    let seen = stage.comm.seen();
    let result = seen
        .reports
        .iter()
        .rev()
        .find_map(|report| report.op.result().map(|(_, result)| result.clone()));
    result.expect("a result")
}

/// The process group that ran last is gone.
#[track_caller]
fn nothing_is_left(stage: &Stage) {
    let groups = stage.status.groups.lock().unwrap().clone();
    assert_eq!(groups.last(), Some(&None), "{groups:?}");
    let leader = groups
        .iter()
        .rev()
        .find_map(|group| *group)
        .expect("a task ran");
    let pid = rustix::process::Pid::from_raw(i32::try_from(leader).unwrap()).unwrap();
    assert!(
        rustix::process::test_kill_process_group(pid).is_err(),
        "{leader} lives"
    );
}

#[tokio::test]
async fn programs_run_and_their_ends_are_reported() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let runner = runner(dir.path());
    let ended = stage.play_with(&runner, async {
        stage.comm.give(task(1, line("echo hello")));
        stage.comm.until_ended(1, "completed").await;
        assert_eq!(last_result(&stage).stdout.tail, b"hello\n");
        stage.comm.give(task(2, line("exit 3")));
        stage.comm.until_ended(2, "failed").await;
        assert_eq!(last_result(&stage).exit_code, Some(3));
        stage
            .comm
            .give(task(3, TaskSpec::argv(["no-such-program-at-all"])));
        stage.comm.until_ended(3, "failed").await;
        assert_eq!(last_result(&stage).reason, Reason::SpawnFailed);
        stage.comm.want(shutdown(true, 0), Vec::new());
    });
    let ended = ended.await;
    assert_eq!(
        (ended.exit(), ended.tally.completed, ended.tally.failed),
        (Exit::Ok, 1, 2)
    );
}

#[tokio::test]
async fn a_graceful_shutdown_waits_for_the_program() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let go = dir.path().join("go");
    let ended = async {
        let wait = format!("while ! test -e {}; do sleep 0.02; done", go.display());
        stage.comm.give(task(1, line(&wait)));
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(shutdown(true, 0), Vec::new());
        std::fs::write(&go, "").unwrap();
    };
    let ended = stage.play_with(&runner(dir.path()), ended).await;
    assert_eq!(ended.exit(), Exit::Ok);
    assert_eq!(stage.comm.seen().story(1), ["started", "completed"]);
    nothing_is_left(&stage);
}

#[tokio::test]
async fn a_cancel_ends_a_program_that_ignores_the_first_signal() {
    let (stage, dir) = (Stage::independent(), tempfile::tempdir().unwrap());
    let script = async {
        let ready = dir.path().join("ready");
        let stubborn = format!(
            "trap '' TERM; : > {}; while :; do sleep 0.05; done",
            ready.display()
        );
        stage.comm.give(task(1, line(&stubborn)));
        while !ready.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.comm.want(Mode::Run, vec![cancel(1, true)]);
        stage.comm.until_story(1, &["started", "cancelled"]).await;
        stage.comm.want(shutdown(true, 0), Vec::new());
    };
    let ended = stage.play_with(&runner(dir.path()), script).await;
    assert_eq!(ended.exit(), Exit::Ok);
    assert_eq!(last_result(&stage).signal, Some(9));
    nothing_is_left(&stage);
}

#[tokio::test]
async fn an_immediate_shutdown_kills_the_program_and_hands_the_task_back() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let script = async {
        stage.comm.give(task(1, endless()));
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(shutdown(false, 0), Vec::new());
    };
    let ended = stage.play_with(&runner(dir.path()), script).await;
    assert_eq!(ended.exit(), Exit::HandedBack);
    assert_eq!(stage.comm.seen().story(1), ["started", "released"]);
    nothing_is_left(&stage);
}

#[tokio::test]
async fn past_the_deadline_the_program_is_ended_and_the_task_handed_back() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let script = async {
        stage.comm.give(task(1, endless()));
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(shutdown(true, 50), Vec::new());
    };
    let ended = stage.play_with(&runner(dir.path()), script).await;
    assert_eq!(ended.exit(), Exit::HandedBack);
    assert_eq!(stage.comm.seen().story(1), ["started", "released"]);
    nothing_is_left(&stage);
}

#[tokio::test]
async fn a_lost_manager_takes_the_program_down_with_it() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let script = async {
        stage.comm.give(task(1, endless()));
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.lose(CommError::PeerGone { peer: "manager" });
    };
    let ended = stage.play_with(&runner(dir.path()), script).await;
    assert_eq!(ended.exit(), Exit::ManagerGone);
    nothing_is_left(&stage);
}

#[tokio::test]
async fn a_dropped_loop_kills_the_program() {
    let (stage, dir) = (Stage::managed(), tempfile::tempdir().unwrap());
    let runner = runner(dir.path());
    let started = async {
        stage.comm.give(task(1, endless()));
        let running = || {
            stage
                .status
                .groups
                .lock()
                .unwrap()
                .last()
                .copied()
                .flatten()
        };
        while running().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running()
    };
    let leader = tokio::select! {
        _ = stage.play_with(&runner, std::future::pending()) => None,
        leader = started => leader,
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(leader.unwrap()).unwrap()).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while rustix::process::test_kill_process(pid).is_ok() {
        assert!(std::time::Instant::now() < deadline, "{pid} lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
