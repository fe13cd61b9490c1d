//! What a task leaves behind: nothing.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::process::adopted_children;
use crate::process::testing::{alone, shared};
use crate::protocol::task::OnLeftovers;

#[tokio::test]
async fn background_processes_end_with_their_leader() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line("sleep 1000 & sleep 1000 & echo done"));
    assert_eq!(stdout(&slot.run_task(&task).await), "done\n");
    assert_eq!(alive(&task), []);
}

#[tokio::test]
async fn a_daemonised_grandchild_ends_with_the_task() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line(
        "setsid sh -c 'sleep 1000 & sleep 1000 &'; echo done",
    ));
    let result = slot.run_task(&task).await;
    assert_eq!(stdout(&result), "done\n");
    assert_eq!(alive(&task), []);
    assert_eq!(adopted_children(), []);
}

fn leaving(line: &str, leftovers: OnLeftovers) -> TaskSpec {
    TaskSpec {
        leftovers: Some(leftovers),
        ..TaskSpec::shell_line(line)
    }
}

#[tokio::test]
async fn leftovers_that_belong_to_the_task_are_waited_for() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    for line in [
        "(sleep 0.3; echo late) & echo early",
        "setsid sh -c '(sleep 0.3; echo late) & :'; echo early",
    ] {
        let result = slot.run(leaving(line, OnLeftovers::Wait)).await;
        assert_eq!(stdout(&result), "early\nlate\n", "{line}");
        assert_eq!(result.leftovers, None);
    }
}

#[tokio::test]
async fn leftovers_that_are_waited_for_end_with_the_time_limit_and_a_cancel() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let line = "setsid sleep 1000 & sleep 1000 & echo ready";
    let limited = limits(leaving(line, OnLeftovers::Wait), 200, 5000);
    let result = slot.run(limited).await;
    assert_eq!(result.reason, Reason::Timeout, "{result:?}");
    assert_eq!(adopted_children(), []);
    let order = StopOrder::Graceful(StopReason::Cancelled);
    let result = slot
        .stopped_when_ready(leaving(line, OnLeftovers::Wait), order)
        .await;
    assert_eq!(result.reason, Reason::Cancelled, "{result:?}");
}

#[tokio::test]
async fn leftovers_may_be_a_failure() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let result = slot
        .run(leaving("sleep 1000 & exit 0", OnLeftovers::Fail))
        .await;
    assert_eq!(
        (result.reason, result.exit_code),
        (Reason::Leftovers, Some(0))
    );
    // Its name is that of the shell until it has become the program.
    let message = result.message.unwrap();
    assert!(message.contains("1 process left behind"), "{message}");
    let clean = slot.run(leaving("echo clean", OnLeftovers::Fail)).await;
    assert_eq!(stdout(&clean), "clean\n");
    let failed = slot
        .run(leaving("sleep 1000 & exit 3", OnLeftovers::Fail))
        .await;
    assert_eq!((failed.reason, failed.exit_code), (Reason::Exit, Some(3)));
}

#[tokio::test]
async fn a_cancel_ends_sessions_that_ignore_it() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let line = "setsid sh -c \"trap '' TERM; sleep 1000 & sleep 1000\" & echo ready; sleep 1000";
    let order = StopOrder::Graceful(StopReason::Cancelled);
    let result = slot
        .stopped_when_ready(TaskSpec::shell_line(line), order)
        .await;
    assert_eq!(result.reason, Reason::Cancelled);
    assert_eq!(adopted_children(), []);
}

#[tokio::test]
async fn a_dropped_run_is_cleared_away_before_the_next_task() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let dropped = task(TaskSpec::shell_line(
        "setsid sleep 1000 & echo noise; sleep 1000",
    ));
    let prepared = slot.prepare(&dropped).await.unwrap();
    let running = slot.executor.start(prepared).await.unwrap();
    wait_for("both sleepers", || {
        (alive(&dropped).len() >= 3).then_some(())
    })
    .await;
    drop(running);
    assert_eq!(stdout(&slot.shell("echo next").await), "next\n");
    assert_eq!(alive(&dropped), []);
}

#[tokio::test]
async fn many_quick_tasks_leave_no_zombie_and_no_descriptor() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    // Other tests of this process open sockets and runtimes meanwhile, but none of these.
    let own = slot.path("slot").display().to_string();
    let descriptors = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        let targets = targets.map(|target| target.display().to_string());
        targets
            .filter(|target| target.contains("pidfd") || target.contains(&own))
            .count()
    };
    slot.run(TaskSpec::argv(["true"])).await;
    let before = descriptors();
    assert_eq!(before, 2, "the two output files");
    for _ in 0..500 {
        let result = slot.run(TaskSpec::argv(["true"])).await;
        assert_eq!(result.exit_code, Some(0), "{result:?}");
    }
    assert_eq!(descriptors(), before);
    assert_eq!(adopted_children(), []);
}

#[tokio::test]
async fn a_task_finds_its_directories_empty_whatever_the_last_one_did() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let outside = slot.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "").unwrap();
    let look = "cd $MITO_RESULT_DIR && ls -A . $MITO_EXEC_DIR $MITO_RESOURCE_DIR | grep -v ':$' | grep .; \
        test -e $MITO_NEW_TASK && echo new task; test -w $MITO_RESULT_DIR";
    let precious = outside.display();
    for mess in [
        "touch a $MITO_RESULT_DIR/b $MITO_RESOURCE_DIR/c; echo {} > $MITO_NEW_TASK".to_owned(),
        "mkdir -p $MITO_RESULT_DIR/x/y/z; chmod 0 $MITO_RESULT_DIR/x/y; chmod 0555 $MITO_RESULT_DIR/x".to_owned(),
        format!("ln -s {precious} $MITO_RESULT_DIR/link"),
        format!("rmdir $MITO_RESULT_DIR; ln -s {precious} $MITO_RESULT_DIR"),
        "rm -r $MITO_RESULT_DIR; echo file > $MITO_RESULT_DIR; mkdir $MITO_NEW_TASK".to_owned(),
        "chmod 0 $MITO_RESULT_DIR".to_owned(),
        "rm -r $MITO_RESULT_DIR $MITO_EXEC_DIR $MITO_RESOURCE_DIR".to_owned(),
        "true".to_owned(),
    ] {
        let result = slot.shell(&mess).await;
        assert_eq!(result.exit_code, Some(0), "{mess}: {result:?}");
        let seen = slot.shell(look).await;
        assert_eq!(stdout(&seen), "", "after {mess}");
    }
    assert!(outside.join("precious").exists());
}

#[tokio::test]
async fn a_file_made_right_after_the_directory_was_found_empty_is_not_missed() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    // Quick tasks in a row fall into the same step of the file system's clock.
    for round in 0..60 {
        assert_eq!(
            stdout(&slot.shell("ls -A; : > f").await),
            "",
            "round {round}"
        );
    }
}

#[tokio::test]
async fn what_an_earlier_life_left_in_the_slot_is_gone() {
    let _turn = shared().await;
    let dir = tempfile::tempdir().unwrap();
    let slot_dir = dir.path().join("slot");
    std::fs::create_dir_all(slot_dir.join("exec/old")).unwrap();
    std::fs::write(slot_dir.join("stdout"), "old text").unwrap();
    std::fs::set_permissions(slot_dir.join("exec/old"), PermissionsExt::from_mode(0o000)).unwrap();
    let mut slot = Slot::with(|config| config.slot_dir = slot_dir);
    assert_eq!(stdout(&slot.shell("ls -A").await), "");
}

#[tokio::test]
async fn what_was_left_behind_is_told_and_what_had_ended_is_not() {
    let _turn = alone().await;
    let mut slot = Slot::new();
    let result = slot
        .shell("sleep 1000 & setsid sleep 1001 & echo started")
        .await;
    let leftovers = result.leftovers.as_ref().unwrap();
    assert_eq!(
        (leftovers.killed, leftovers.names.len()),
        (2, 2),
        "{leftovers}"
    );
    let words = leftovers.to_string();
    assert!(
        words.starts_with("2 processes left behind and killed: "),
        "{words}"
    );
    let result = slot.shell("(true &); sleep 0.05; echo done").await;
    assert_eq!(result.leftovers, None);
    let ordered = limits(TaskSpec::shell_line("sleep 1000 & sleep 1000"), 50, 50);
    assert_eq!(slot.run(ordered).await.leftovers, None);
}
