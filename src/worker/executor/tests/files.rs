//! Inputs before the start, and what a task leaves after its end.

use super::*;
use crate::process::testing::shared;
use crate::protocol::frame::KeptOutput;
use crate::protocol::input::Input;
use crate::protocol::{ArtifactKind, HumanDuration};
use crate::worker::files::outgoing::Left;

impl Slot {
    /// Whether each of the task's directories and the one of packed artifacts is empty.
    fn empty(&self) -> [bool; 4] {
        ["result", "exec", "resource", "outgoing"].map(|name| {
            let path = self.path("slot").join(name);
            std::fs::read_dir(path).unwrap().next().is_none()
        })
    }

    fn is_packed(&self, task: &WorkerTaskResp, kind: ArtifactKind) -> bool {
        let left = Left {
            task_id: task.id,
            lease: task.lease,
            try_no: task.try_no,
        };
        self.executor.outgoing().path(left, kind).is_file()
    }
}

fn kinds(result: &TaskResult) -> Vec<ArtifactKind> {
    result.artifacts.iter().map(|left| left.kind).collect()
}

fn file_input(path: &std::path::Path) -> Input {
    Input {
        url: format!("file://{}", path.display()),
        path: "in/file".to_owned(),
        sha256: None,
        size_bytes: None,
        timeout: None,
    }
}

#[tokio::test]
async fn what_a_task_leaves_is_packed_and_the_slot_is_empty_at_once() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line(
        "echo r > $MITO_RESULT_DIR/r; echo here > here; exit 3",
    ));
    let result = slot.run_task(&task).await;
    assert_eq!(
        (result.exit_code, result.message.as_deref()),
        (Some(3), None)
    );
    assert_eq!(kinds(&result), [ArtifactKind::Result, ArtifactKind::Exec]);
    assert!(slot.is_packed(&task, ArtifactKind::Result));
    assert_eq!(slot.empty(), [true, true, true, false]);
    assert_eq!(kinds(&slot.shell("true").await), []);
}

#[tokio::test]
async fn loops_and_pipes_are_a_note_and_no_failure() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "cd $MITO_RESULT_DIR; ln -s . loop; mkfifo pipe; echo x > file";
    let result = slot.shell(line).await;
    assert_eq!((result.reason, result.exit_code), (Reason::Exit, Some(0)));
    let message = result.message.as_deref().unwrap_or_default();
    assert!(message.contains("`pipe` (a named pipe)"), "{message}");
    assert_eq!(kinds(&result), [ArtifactKind::Result]);
}

#[tokio::test]
async fn a_directory_that_the_task_replaced_or_removed_leaves_nothing() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "rmdir $MITO_RESULT_DIR; ln -s /etc $MITO_RESULT_DIR; cd /; rmdir $MITO_EXEC_DIR";
    let result = slot.shell(line).await;
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(kinds(&result), []);
    assert_eq!(
        kinds(&slot.shell("echo > $MITO_RESULT_DIR/f").await),
        [ArtifactKind::Result]
    );
    assert!(std::path::Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn files_that_cannot_be_packed_are_a_note_and_no_failure() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    // As good as a full disk: nothing can be made where packed files wait.
    let outgoing = slot.path("slot").join("outgoing");
    std::fs::remove_dir(&outgoing).unwrap();
    let result = slot.shell("echo > $MITO_RESULT_DIR/f").await;
    assert_eq!((result.reason, result.exit_code), (Reason::Exit, Some(0)));
    let message = result.message.as_deref().unwrap_or_default();
    assert!(message.contains("result files were not kept"), "{message}");
    std::fs::create_dir(&outgoing).unwrap();
    assert_eq!(slot.empty(), [true; 4]);
}

#[tokio::test]
async fn what_is_handed_back_leaves_nothing() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "echo > $MITO_RESULT_DIR/f; echo ready; exec sleep 1000";
    let order = StopOrder::Immediate(StopReason::HandBack);
    let result = slot
        .stopped_when_ready(TaskSpec::shell_line(line), order)
        .await;
    assert_eq!(result.reason, Reason::Preempted);
    assert_eq!((kinds(&result), slot.empty()), (vec![], [true; 4]));
}

#[tokio::test]
async fn a_new_life_of_a_slot_finds_it_empty() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    slot.shell("echo > $MITO_RESULT_DIR/f").await;
    for name in ["result", "exec", "resource", "outgoing"] {
        let path = slot.path("slot").join(name);
        std::fs::write(path.join("of a killed life"), "").unwrap();
    }
    let Slot { dir, executor } = slot;
    drop(executor);
    let slot = Slot::at(dir, |_| {});
    assert_eq!(slot.empty(), [true; 4]);
}

#[tokio::test]
async fn output_beyond_the_tail_becomes_an_artifact_where_it_is_to_be_uploaded() {
    let _turn = shared().await;
    let mut slot = Slot::with(|config| config.kept_output = KeptOutput::Uploaded);
    let result = slot.shell("seq 10000; echo short >&2").await;
    assert_eq!(kinds(&result), [ArtifactKind::Stdout]);
    assert_eq!(result.artifacts[0].size_bytes, result.stdout.bytes);
    assert_eq!(result.stdout.file, None);
    assert_eq!(slot.empty(), [true, true, true, false]);
}

#[tokio::test]
async fn inputs_are_there_before_the_task_and_gone_for_the_next() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    std::fs::write(slot.path("given"), "input").unwrap();
    let spec = TaskSpec {
        inputs: vec![file_input(&slot.path("given"))],
        ..TaskSpec::shell_line("cat $MITO_RESOURCE_DIR/in/file")
    };
    assert_eq!(stdout(&slot.run(spec).await), "input");
    assert_eq!(stdout(&slot.shell("ls $MITO_RESOURCE_DIR").await), "");
}

#[tokio::test]
async fn a_missing_input_is_the_tasks_end_in_words() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let spec = TaskSpec {
        inputs: vec![file_input(std::path::Path::new("/nowhere/at/all"))],
        ..TaskSpec::argv(["true"])
    };
    let result = slot.run(spec).await;
    assert_eq!(result.reason, Reason::InputMissing);
    let message = result.message.unwrap();
    assert!(
        message.contains("in/file") && message.contains("/nowhere/at/all"),
        "{message}"
    );
}

#[tokio::test]
async fn an_order_is_heard_while_inputs_are_on_their_way() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", silent.local_addr().unwrap());
    let spec = TaskSpec {
        inputs: vec![Input {
            url,
            timeout: Some(HumanDuration(Duration::from_secs(600))),
            ..file_input(std::path::Path::new("/"))
        }],
        ..TaskSpec::argv(["true"])
    };
    for (why, reason) in [
        (StopReason::Cancelled, Reason::Cancelled),
        (StopReason::HandBack, Reason::Preempted),
    ] {
        let task = task(spec.clone());
        let (orders, stop) = watch::channel(StopOrder::None);
        let running = slot.executor.run(&task, stop, |_| {});
        let order = async {
            let connected = tokio::task::spawn_blocking({
                let silent = silent.try_clone().unwrap();
                move || silent.accept()
            });
            let _connection = connected.await.unwrap().unwrap();
            orders.send(StopOrder::Graceful(why)).unwrap();
        };
        let (result, ()) = tokio::join!(running, order);
        assert_eq!((result.reason, result.started_at_us), (reason, None));
    }
}
