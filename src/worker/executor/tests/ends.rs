//! How a task ends and what its end is called.

use rustix::process::Signal;

use super::*;
use crate::process::kill_group;
use crate::process::testing::{shared, state_of};

const CANCEL: StopOrder = StopOrder::Graceful(StopReason::Cancelled);
const KILL: StopOrder = StopOrder::Immediate(StopReason::Cancelled);
/// Ignores TERM, and so do its children.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & echo ready; while :; do sleep 0.05; done";

#[tokio::test]
async fn a_program_ends_with_its_own_code() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for code in [0, 1, 77, 255] {
        let result = slot.shell(&format!("exit {code}")).await;
        assert_eq!(
            (result.reason, result.exit_code),
            (Reason::Exit, Some(code))
        );
        assert_eq!((result.signal, &result.message), (None, &None));
        assert!(result.started_at_us.unwrap() > 0 && result.wall_us() >= 0);
    }
}

#[tokio::test]
async fn a_signal_that_nobody_here_sent_is_the_reason() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot.shell("kill -SEGV $$").await;
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Signal, Some(libc::SIGSEGV))
    );
    assert_eq!(result.exit_code, None);
    let result = slot.shell("kill -KILL $$").await;
    assert!(result.message.unwrap().contains("memory"));
}

#[tokio::test]
async fn the_time_limit_kills_a_stubborn_program_and_its_grandchild_after_the_grace_period() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(limits(TaskSpec::shell_line(STUBBORN), 150, 250));
    let result = slot.run_task(&task).await;
    assert_eq!(alive(&task), []);
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Timeout, Some(libc::SIGKILL))
    );
    let message = result.message.clone().unwrap();
    assert!(message.contains("time limit of 150ms") && message.contains("grace period of 250ms"));
    assert!(result.wall_us() >= 400_000, "{}", result.wall_us());
}

#[tokio::test]
async fn a_program_that_obeys_the_time_limit_keeps_its_exit_code_beside_the_reason() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "trap 'echo cleaned; exit 5' TERM; while :; do sleep 0.02; done";
    let result = slot
        .run(limits(TaskSpec::shell_line(line), 100, 60_000))
        .await;
    assert_eq!(
        (result.reason, result.exit_code),
        (Reason::Timeout, Some(5))
    );
    assert_eq!(result.stdout.tail, b"cleaned\n");
}

#[tokio::test]
async fn a_graceful_cancel_lets_the_program_end_by_itself() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let result = slot
        .stopped_when_ready(TaskSpec::shell_line(line), CANCEL)
        .await;
    assert_eq!(
        (result.reason, result.exit_code),
        (Reason::Cancelled, Some(0))
    );
}

#[tokio::test]
async fn a_stopped_program_hears_a_graceful_cancel() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "echo ready; kill -STOP $$; sleep 1000";
    let result = slot
        .stopped_when_ready(TaskSpec::shell_line(line), CANCEL)
        .await;
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Cancelled, Some(libc::SIGTERM))
    );
}

#[tokio::test]
async fn a_cancel_outlasts_a_stubborn_program_by_the_grace_period_only() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let spec = limits(TaskSpec::shell_line(STUBBORN), 600_000, 200);
    let result = slot.stopped_when_ready(spec, CANCEL).await;
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Cancelled, Some(libc::SIGKILL))
    );
    assert!(result.message.unwrap().contains("grace period of 200ms"));
}

#[tokio::test]
async fn an_immediate_cancel_does_not_wait_for_anybody() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot
        .stopped_when_ready(TaskSpec::shell_line(STUBBORN), KILL)
        .await;
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Cancelled, Some(libc::SIGKILL))
    );
    assert!(
        result.wall_us() < 9_000_000,
        "the default grace period was waited for"
    );
}

#[tokio::test]
async fn a_further_immediate_order_cuts_the_grace_period_short() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line(
        "trap 'echo heard' TERM; echo ready; while :; do sleep 0.02; done",
    ));
    let (orders, stop) = watch::channel(StopOrder::None);
    let stdout = slot.path("slot/stdout");
    let says = |word: &'static str| {
        let stdout = stdout.clone();
        wait_for("word of the task", move || {
            std::fs::read_to_string(&stdout)
                .ok()?
                .contains(word)
                .then_some(())
        })
    };
    let escalate = async {
        says("ready").await;
        orders.send_replace(CANCEL);
        says("heard").await;
        orders.send_replace(KILL);
    };
    let (result, ()) = tokio::join!(slot.executor.run(&task, stop, |_| {}), escalate);
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Cancelled, Some(libc::SIGKILL))
    );
    assert_eq!(result.message, None);
}

#[tokio::test]
async fn a_task_handed_back_is_told_apart_from_a_cancelled_one() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let order = StopOrder::Graceful(StopReason::HandBack);
    let spec = TaskSpec::shell_line("echo ready; exec sleep 1000");
    assert_eq!(
        slot.stopped_when_ready(spec, order).await.reason,
        Reason::Preempted
    );
}

#[tokio::test]
async fn an_order_that_is_there_before_the_start_counts() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for order in [CANCEL, KILL] {
        let task = task(TaskSpec::argv(["sleep", "1000"]));
        let (orders, stop) = watch::channel(order);
        drop(orders);
        assert_eq!(
            slot.executor.run(&task, stop, |_| {}).await.reason,
            Reason::Cancelled
        );
    }
}

#[tokio::test]
async fn a_program_that_ended_before_the_order_keeps_its_real_result() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for order in [CANCEL, KILL] {
        let task = task(TaskSpec::shell_line("exit 9"));
        let prepared = slot.prepare(&task).await.unwrap();
        let running = slot.executor.start(prepared).await.unwrap();
        let pid = running.started().pid;
        wait_for("the end", || (state_of(pid) == Some('Z')).then_some(())).await;
        let (_orders, stop) = watch::channel(order);
        let result = running.finish(stop).await;
        assert_eq!((result.reason, result.exit_code), (Reason::Exit, Some(9)));
    }
}

#[tokio::test]
async fn a_cancel_that_races_the_completion_has_one_of_two_honest_results() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let mut seen = [0; 2];
    for round in 0..120u64 {
        let task = task(TaskSpec::argv(["true"]));
        let (orders, stop) = watch::channel(StopOrder::None);
        let cancel = async {
            tokio::time::sleep(Duration::from_micros(round * 25)).await;
            orders.send_replace(KILL);
        };
        let (result, ()) = tokio::join!(slot.executor.run(&task, stop, |_| {}), cancel);
        match (result.reason, result.exit_code, result.signal) {
            (Reason::Exit, Some(0), None) => seen[0] += 1,
            (Reason::Cancelled, _, _) => seen[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(seen[0] > 0, "{seen:?}");
}

#[tokio::test]
async fn a_signal_to_the_group_reaches_the_whole_task() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line("sleep 1000 & wait"));
    let (_orders, stop) = watch::channel(StopOrder::None);
    let result = slot
        .executor
        .run(&task, stop, |started| {
            kill_group(started.pid, Signal::HUP).unwrap()
        })
        .await;
    assert_eq!(
        (result.reason, result.signal),
        (Reason::Signal, Some(libc::SIGHUP))
    );
    assert_eq!(alive(&task), []);
}

#[tokio::test]
async fn what_cannot_be_started_says_what_to_do() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let cwd = |spec, cwd: &str| TaskSpec {
        cwd: Some(cwd.to_owned()),
        ..spec
    };
    let cases = [
        (TaskSpec::argv(["no-such-program"]), "was not found in PATH"),
        (TaskSpec::argv(["/etc/passwd"]), "chmod +x"),
        (TaskSpec::argv(["/usr"]), "is a directory"),
        (
            cwd(TaskSpec::argv(["true"]), "/no/such/place"),
            "create it there, or change `cwd`",
        ),
        (
            cwd(TaskSpec::argv(["true"]), "/etc/passwd"),
            "cannot be entered",
        ),
        (
            TaskSpec::argv(["true".to_owned(), "x".repeat(3 << 20)]),
            "by standard input",
        ),
        (TaskSpec::default(), "`args` is empty"),
    ];
    for (spec, part) in cases {
        let result = slot.run(spec).await;
        let message = result.message.clone().unwrap();
        assert_eq!(
            (result.reason, result.started_at_us),
            (Reason::SpawnFailed, None)
        );
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    assert_eq!(stdout(&slot.shell("echo fine").await), "fine\n");
}

#[tokio::test]
async fn what_a_program_used_is_in_its_result() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot
        .shell("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
        .await;
    assert!(result.cpu_user_us > 0, "{result:?}");
    assert!(result.max_rss_bytes > 100_000, "{result:?}");
    assert!(result.ended_at_us > result.started_at_us.unwrap());
}

#[tokio::test]
async fn an_order_is_heard_during_the_short_wait() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let interrupt = Interrupt::new().unwrap();
    slot.executor.may_block(interrupt.clone());
    let task = task(TaskSpec::shell_line("sleep 1000"));
    let (orders, stop) = watch::channel(StopOrder::None);
    let mut life = Vec::new();
    let watch = |event: Life| {
        if let Life::Started(_) = event {
            // As from another thread, right before the wait begins.
            orders.send_replace(KILL);
            interrupt.raise();
        }
        life.push(matches!(event, Life::Gone));
    };
    let result = slot.executor.run_watched(&task, stop, watch).await;
    assert_eq!(result.reason, Reason::Cancelled);
    assert_eq!(life, [false, true]);
    // A call that nobody needed costs the next task nothing but its short way.
    interrupt.raise();
    assert_eq!(slot.shell("exit 3").await.exit_code, Some(3));
}
