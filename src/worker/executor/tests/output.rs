//! What is kept of a task's output.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::process::testing::shared;
use crate::protocol::report::Output;
use crate::protocol::task::{Capture, OUTPUT_TAIL_BYTES, Streams};

fn capture(line: &str, streams: Streams, limit_bytes: Option<u64>) -> TaskSpec {
    TaskSpec {
        capture: Capture {
            limit_bytes,
            streams,
        },
        ..TaskSpec::shell_line(line)
    }
}

fn kept(output: &Output) -> Vec<u8> {
    std::fs::read(output.file.as_ref().expect("a kept file")).unwrap()
}

#[tokio::test]
async fn short_output_travels_whole_and_leaves_no_file() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot.shell("echo out; echo err >&2").await;
    assert_eq!(stdout(&result), "out\n");
    assert_eq!(result.stderr.tail, b"err\n");
    assert!(result.stdout.tail_is_whole() && result.stdout.file.is_none());
    let silent = slot.shell(":").await;
    assert_eq!(
        (silent.stdout, silent.stderr),
        (Output::default(), Output::default())
    );
    assert_eq!(std::fs::read_dir(slot.path("output")).unwrap().count(), 0);
}

#[tokio::test]
async fn short_output_touches_no_file_and_the_slots_file_becomes_the_kept_one() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let inode = |slot: &Slot| std::fs::metadata(slot.path("slot/stdout")).unwrap().ino();
    let first = inode(&slot);
    for word in ["longer text", "short"] {
        assert_eq!(stdout(&slot.shell(&format!("printf '{word}'")).await), word);
    }
    assert_eq!(inode(&slot), first);
    let result = slot.shell("seq 1 5000").await;
    assert_ne!(inode(&slot), first);
    assert_eq!(
        std::fs::metadata(result.stdout.file.unwrap())
            .unwrap()
            .ino(),
        first
    );
    assert_eq!(stdout(&slot.shell("echo again").await), "again\n");
}

#[tokio::test]
async fn a_stream_that_is_opened_again_keeps_what_was_written_before() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for line in [
        "echo one; echo two > /dev/stdout",
        "echo one; exec > /proc/self/fd/1; echo two",
        "echo one; python3 -c 'import os; os.write(os.open(\"/dev/stdout\", os.O_WRONLY | os.O_TRUNC), b\"two\\n\")'",
    ] {
        assert_eq!(stdout(&slot.shell(line).await), "one\ntwo\n", "{line}");
    }
    for line in [
        "echo one >&2; echo two > /dev/stderr",
        "echo one >&2; echo two | tee /dev/stderr",
    ] {
        let result = slot.shell(line).await;
        assert_eq!(result.stderr.tail, b"one\ntwo\n", "{line}");
    }
}

#[tokio::test]
async fn a_tasks_flags_on_its_output_do_not_reach_the_next() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "python3 -c 'import os; os.set_blocking(1, False); os.set_blocking(2, False)'";
    assert_eq!(stdout(&slot.shell(line).await), "");
    let result = slot.shell("head -c 3000002 /dev/zero").await;
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(result.stdout.bytes, 3_000_002);
}

#[tokio::test]
async fn what_is_written_after_the_end_by_whoever_got_the_pipe_reaches_no_other_task() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line(
        "echo own; echo ready > ready; exec sleep 1000",
    ));
    let (orders, stop) = watch::channel(StopOrder::None);
    let ready = slot.path("slot/exec/ready");
    let elsewhere = async {
        wait_for("ready task", || ready.exists().then_some(())).await;
        let pid = alive(&task)[0];
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let pipe = rustix::process::pidfd_getfd(&pidfd, 1, flags).unwrap();
        orders.send_replace(StopOrder::Immediate(StopReason::Cancelled));
        pipe
    };
    let (result, pipe) = tokio::join!(slot.executor.run(&task, stop, |_| {}), elsewhere);
    assert_eq!(result.stdout.tail, b"own\n");
    // Nobody reads it any more, or it is nobody's stream.
    let _ = rustix::io::write(&pipe, b"stranger\n");
    assert_eq!(stdout(&slot.shell("echo next").await), "next\n");
}

#[tokio::test]
async fn a_descendant_that_keeps_the_stream_open_is_not_waited_for() {
    let _turn = crate::process::testing::alone().await;
    let mut slot = Slot::new();
    let before = std::time::Instant::now();
    let result = slot.shell("echo own; setsid sleep 1000 & exit 0").await;
    assert_eq!(stdout(&result), "own\n");
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn every_byte_of_a_long_output_is_there_in_every_way_it_may_be_read() {
    let _turn = shared().await;
    for may_block in [false, true] {
        let mut slot = Slot::new();
        if may_block {
            slot.executor.may_block(Interrupt::new().unwrap());
        }
        // At first unexpected, then read from the beginning on.
        for _ in 0..3 {
            let line = "seq 1 400000; seq 1 300000 >&2";
            let result = slot.run(capture(line, Streams::Separate, None)).await;
            let expected = |last: u32| -> Vec<u8> {
                (1..=last)
                    .flat_map(|n| format!("{n}\n").into_bytes())
                    .collect()
            };
            assert!(kept(&result.stdout) == expected(400_000));
            assert!(kept(&result.stderr) == expected(300_000));
            let merged = slot
                .run(capture("seq 1 300000", Streams::Merged, None))
                .await;
            assert!(kept(&merged.stdout) == expected(300_000));
            for output in [&result.stdout, &result.stderr, &merged.stdout] {
                std::fs::remove_file(output.file.as_ref().unwrap()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn long_output_is_kept_in_a_file_named_after_task_and_attempt() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec::shell_line("seq 1 5000; seq 1 6000 >&2"));
    let result = slot.run_task(&task).await;
    let name = |stream| slot.path(&format!("output/{}.3.{stream}", task.uuid));
    assert_eq!(result.stdout.file, Some(name("out")));
    assert_eq!(result.stderr.file, Some(name("err")));
    let whole = kept(&result.stdout);
    assert_eq!(result.stdout.bytes, whole.len() as u64);
    assert_eq!(result.stdout.tail, whole[whole.len() - OUTPUT_TAIL_BYTES..]);
    assert!(whole.starts_with(b"1\n2\n") && !result.stdout.truncated);
}

#[tokio::test]
async fn a_huge_output_keeps_head_and_tail_within_the_limit() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "echo BEGIN; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo END";
    let result = slot
        .run(capture(line, Streams::Separate, Some(1 << 20)))
        .await;
    let whole = kept(&result.stdout);
    assert_eq!(
        (result.stdout.bytes, result.stdout.truncated),
        (50_000_011, true)
    );
    let gap = result.stdout.gap.unwrap();
    assert_eq!((gap.offset, whole.len()), (1 << 19, 1 << 20));
    assert_eq!(gap.bytes + whole.len() as u64, 50_000_011);
    assert!(whole.starts_with(b"BEGIN\nxxx") && whole.ends_with(b"x\nEND\n"));
    let own = |byte: &u8| b"BEGINDx\n".contains(byte);
    assert!(
        whole.iter().all(own),
        "something else stands among the bytes"
    );
}

#[tokio::test]
async fn a_running_task_does_not_fill_the_disk() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(capture(
        "head -c 30000000 /dev/zero | tr '\\0' x; exec sleep 1000",
        Streams::Separate,
        Some(1 << 20),
    ));
    let (orders, stop) = watch::channel(StopOrder::None);
    let path = slot.path("slot/stdout");
    let cancel_when_small = async {
        wait_for("freed blocks", move || {
            let meta = std::fs::metadata(&path).ok()?;
            (meta.len() == 30_000_000 && meta.blocks() * 512 < 4 << 20).then_some(())
        })
        .await;
        orders.send_replace(StopOrder::Immediate(StopReason::Cancelled));
    };
    let (result, ()) = tokio::join!(slot.executor.run(&task, stop, |_| {}), cancel_when_small);
    assert_eq!(
        (result.stdout.bytes, result.stdout.truncated),
        (30_000_000, true)
    );
    assert!(kept(&result.stdout).ends_with(b"xxx"));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept_as_they_are() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot.shell(r"printf 'a\377\000\200b'").await;
    assert_eq!(result.stdout.tail, b"a\xff\x00\x80b");
    let result = slot.shell(r"head -c 9000 /dev/zero | tr '\0' '\377'").await;
    assert_eq!(kept(&result.stdout), [0xff; 9000]);
}

#[tokio::test]
async fn streams_can_be_merged_or_discarded() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let line = "echo one; echo two >&2; echo three";
    let merged = slot.run(capture(line, Streams::Merged, None)).await;
    assert_eq!(stdout(&merged), "one\ntwo\nthree\n");
    assert_eq!(merged.stderr, Output::default());
    let discarded = slot.run(capture(line, Streams::Discarded, None)).await;
    assert_eq!(stdout(&discarded), "");
    assert_eq!(discarded.stderr, Output::default());
}

#[tokio::test]
async fn a_limit_below_the_tail_is_kept_too() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot
        .run(capture("seq 1 300", Streams::Separate, Some(200)))
        .await;
    assert!(result.stdout.truncated && result.stdout.file.is_none());
    let tail = &result.stdout.tail;
    assert!(tail.len() == 200 && tail.starts_with(b"1\n2\n") && tail.ends_with(b"300\n"));
    assert_eq!(stdout(&slot.shell("echo next").await), "next\n");
}

#[tokio::test]
async fn output_survives_a_task_that_takes_its_file_away() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let file = slot.path("slot/stdout");
    let file = file.display();
    let result = slot
        .shell(&format!("seq 1 5000; rm {file}; echo decoy > {file}"))
        .await;
    assert!(kept(&result.stdout).ends_with(b"\n5000\n"));
    assert_eq!(stdout(&slot.shell("echo next").await), "next\n");
}

#[tokio::test]
async fn output_that_cannot_be_kept_is_said_so_and_hurts_nobody_else() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    std::fs::remove_dir(slot.path("output")).unwrap();
    let result = slot.shell("seq 1 5000").await;
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(result.reason, Reason::OutputLost);
    assert!(result.message.unwrap().contains("cannot be written"));
    assert_eq!((result.stdout.bytes, result.stdout.file), (23893, None));
    assert_eq!(stdout(&slot.shell("echo next").await), "next\n");
}
