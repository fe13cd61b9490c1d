//! Reading the output of ended tasks.

use std::path::PathBuf;

use super::*;
use crate::client::LogStream;
use crate::protocol::api::ReportTaskBody;
use crate::protocol::{ReportTaskOp, Verdict};

/// Runs one task to its end as a worker that reports `stdout`.
async fn ended_task(server: &Server, stdout: Output) -> Uuid {
    let task = server.submit(&["x"]).await[0];
    let worker = server.worker().await;
    let fetched = worker.fetch_task(PATIENCE).await.unwrap().unwrap();
    assert_eq!(fetched.uuid, task);
    let report = |seq, op| ReportTaskBody {
        seq,
        task_id: fetched.id,
        task_uuid: fetched.uuid,
        lease: fetched.lease,
        op,
    };
    let started = report(1, ReportTaskOp::Started { at_us: 1 });
    worker.report_task(&started).await.unwrap();
    let end = ReportTaskOp::Completed(ended(Outcome::Completed, stdout));
    let answer = worker.report_task(&report(2, end)).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Accepted);
    task
}

fn kept(bytes: u64, tail: &str, file: Option<String>) -> Output {
    Output {
        bytes,
        truncated: false,
        tail: tail.into(),
        file,
    }
}

async fn with_output_dir() -> (Server, PathBuf) {
    let server = Server::start_with(|dir| ApiOptions {
        output_dir: Some(dir.path().join("output")),
        ..ApiOptions::default()
    })
    .await;
    let output = server.dir.path().join("output");
    std::fs::create_dir(&output).unwrap();
    (server, output)
}

#[tokio::test]
async fn the_whole_kept_output_is_streamed() {
    let (server, output) = with_output_dir().await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    std::fs::write(output.join("1.out"), &content).unwrap();
    let file = output.join("1.out").display().to_string();
    let task = ended_task(&server, kept(300_000, "the tail", Some(file))).await;
    let logs = server.user().logs(task, LogStream::Stdout).await.unwrap();
    assert_eq!((logs.truncated, logs.total_bytes), (false, Some(300_000)));
    assert!(logs.read_all().await.unwrap() == content);
    let logs = server.user().logs(task, LogStream::Stderr).await.unwrap();
    assert_eq!(logs.read_all().await.unwrap(), b"");
}

#[tokio::test]
async fn a_file_anywhere_else_is_not_read_whatever_a_worker_reports() {
    let (server, output) = with_output_dir().await;
    let secret = server.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, output.join("link")).unwrap();
    for file in [
        secret.display().to_string(),
        output.join("../secret").display().to_string(),
        output.join("link").display().to_string(),
        "../secret".to_owned(),
    ] {
        let task = ended_task(&server, kept(100, "the tail", Some(file.clone()))).await;
        let logs = server.user().logs(task, LogStream::Stdout).await.unwrap();
        assert!(logs.truncated, "{file}");
        assert_eq!(logs.read_all().await.unwrap(), b"the tail", "{file}");
    }
}

#[tokio::test]
async fn without_a_file_the_tail_is_shown_and_says_whether_it_is_all() {
    let server = Server::start().await;
    for (bytes, truncated) in [(8, false), (9, true)] {
        let task = ended_task(&server, kept(bytes, "the tail", None)).await;
        let logs = server.user().logs(task, LogStream::Stdout).await.unwrap();
        assert_eq!((logs.truncated, logs.total_bytes), (truncated, Some(bytes)));
        assert_eq!(logs.read_all().await.unwrap(), b"the tail");
    }
}

#[tokio::test]
async fn a_task_that_has_not_ended_has_no_output_yet() {
    let server = Server::start().await;
    let task = server.submit(&["x"]).await[0];
    let logs = server.user().logs(task, LogStream::Stdout).await;
    let text = refused(logs, 409, "not_ended");
    assert!(text.contains("ready"), "{text}");
}
