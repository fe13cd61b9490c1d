//! Reading the output of tasks: what is kept of ended ones, and part by part.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::*;
use crate::client::LogPlace;
use crate::coordinator::{Follow, MOST_FOLLOWERS};
use crate::protocol::api::{CancelRequest, ReportTaskBody};
use crate::protocol::output::Progress;
use crate::protocol::{LogStream, ReportTaskOp, Verdict};

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
        tail: tail.into(),
        file: file.map(PathBuf::from),
        ..Output::default()
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

fn place(attempt: u32, offset: u64) -> LogPlace {
    LogPlace {
        stream: LogStream::Stdout,
        attempt,
        offset,
    }
}

/// The last part of an ended task: where it begins, its bytes, and whether what is kept is cut.
async fn rest(server: &Server, task: Uuid, from: LogPlace) -> (LogPlace, String, bool) {
    let mut part = server.user().log_part(task, from, PATIENCE).await.unwrap();
    assert_eq!(part.progress, Progress::Ended);
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    (
        part.place,
        String::from_utf8(bytes).unwrap(),
        part.truncated,
    )
}

#[tokio::test]
async fn a_reader_of_an_ended_task_gets_the_rest_and_of_another_attempt_everything() {
    let (server, output) = with_output_dir().await;
    let content: String = ('a'..='z').cycle().take(10_000).collect();
    std::fs::write(output.join("1.out"), &content).unwrap();
    let file = output.join("1.out").display().to_string();
    let task = ended_task(&server, kept(10_000, &content[9_000..], Some(file))).await;
    for offset in [0, 1, 4_000, 10_000, 11_000] {
        let skip = usize::try_from(offset).unwrap().min(10_000);
        let expected = (place(1, offset), content[skip..].to_owned(), false);
        assert_eq!(rest(&server, task, place(1, offset)).await, expected);
        let expected = (place(1, 0), content.clone(), false);
        for other in [0, 2] {
            assert_eq!(rest(&server, task, place(other, offset)).await, expected);
        }
    }
}

#[tokio::test]
async fn where_only_the_tail_is_kept_the_rest_says_what_is_missing() {
    let server = Server::start().await;
    let task = ended_task(&server, kept(100, "the tail", None)).await;
    let tail = |offset, text: &str| (place(1, offset), text.to_owned(), true);
    assert_eq!(
        rest(&server, task, place(1, 20)).await,
        tail(92, "the tail")
    );
    assert_eq!(rest(&server, task, place(1, 96)).await, tail(96, "tail"));
}

#[tokio::test]
async fn a_part_of_a_task_that_has_not_begun_is_waited_for() {
    let server = Server::start().await;
    let task = server.submit(&["x"]).await[0];
    let user = server.user();
    let mut part = user
        .log_part(task, place(0, 0), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        (part.progress, part.place),
        (Progress::Waiting, place(0, 0))
    );
    assert_eq!(part.chunk().await.unwrap(), None);
    let waiting = tokio::spawn(async move { user.log_part(task, place(0, 0), PATIENCE).await });
    server
        .user()
        .cancel_task(task, CancelRequest::default())
        .await
        .unwrap();
    let ended = in_time(waiting).await.unwrap().unwrap();
    assert_eq!(
        (ended.progress, ended.place),
        (Progress::Ended, place(0, 0))
    );
}

#[tokio::test]
async fn a_task_of_an_independent_worker_cannot_be_followed_and_that_is_said() {
    let server = Server::start().await;
    let task = server.submit(&["x"]).await[0];
    let worker = server.worker().await;
    worker.fetch_task(PATIENCE).await.unwrap().unwrap();
    let part = server.user().log_part(task, place(0, 0), PATIENCE).await;
    let text = refused(part, 409, "not_followed");
    assert!(text.contains("when the task has ended"), "{text}");
}

#[tokio::test]
async fn a_part_without_a_place_and_of_an_unknown_task_are_refused() {
    let server = Server::start().await;
    let part = server
        .user()
        .log_part(Uuid::nil(), place(0, 0), PATIENCE)
        .await;
    refused(part, 404, "not_found");
    let token = server.token(Scope::User);
    for query in [
        "wait=1s",
        "attempt=one",
        "offset=-1",
        "offset=0&wait=soon",
        "offset=0&follow=true",
    ] {
        let url = format!("{}/api/v1/tasks/{}/logs?{query}", server.url(), Uuid::nil());
        let request = raw_http().get(url).bearer_auth(token.expose_secret());
        let answer = in_time(request.send()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_part_needs_the_scope_that_an_ended_log_needs() {
    let server = Server::start().await;
    let task = server.submit(&["x"]).await[0];
    for scope in [Scope::Manager, Scope::Worker(Uuid::nil())] {
        let part = server
            .client(scope)
            .log_part(task, place(0, 0), Duration::ZERO)
            .await;
        refused(part, 403, "forbidden");
    }
}

#[tokio::test]
async fn beyond_the_most_readers_one_more_is_told_to_come_back() {
    let server = Server::start().await;
    let task = server.submit(&["x"]).await[0];
    let mut readers = Vec::new();
    for _ in 0..MOST_FOLLOWERS {
        let coordinator = server.coordinator.clone();
        let follow = Follow {
            stream: LogStream::Stdout,
            attempt: 0,
            offset: 0,
            wait: PATIENCE,
        };
        let mut call = Box::pin(async move { coordinator.follow(task, follow).await });
        assert!(futures_util::poll!(&mut call).is_pending());
        readers.push(call);
    }
    let user = server.user();
    let error = user
        .log_part(task, place(0, 0), Duration::ZERO)
        .await
        .unwrap_err();
    assert!(error.is_retryable());
    match &error {
        ClientError::Api {
            status: 429,
            retry_after: Some(_),
            ..
        } => {}
        other => panic!("not told to come back but {other:?}"),
    }
    readers.pop();
    user.log_part(task, place(0, 0), Duration::ZERO)
        .await
        .unwrap();
}
