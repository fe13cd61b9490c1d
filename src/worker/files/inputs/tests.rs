//! Inputs from a real web server and real files.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::protocol::HumanDuration;

const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

struct Bench {
    dir: TempDir,
    server: MockServer,
    links: BTreeMap<String, String>,
}

impl Bench {
    async fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            server: MockServer::start().await,
            links: BTreeMap::new(),
        }
    }

    async fn answer(&self, at: &str, answer: ResponseTemplate) {
        let mock = Mock::given(method("GET"))
            .and(path(at))
            .respond_with(answer);
        mock.mount(&self.server).await;
    }

    fn input(&self, at: &str) -> Input {
        Input {
            url: format!("{}{at}", self.server.uri()),
            path: "sub/file".to_owned(),
            sha256: None,
            size_bytes: None,
            timeout: None,
        }
    }

    async fn fetch(&self, inputs: &[Input]) -> Result<(), InputMissing> {
        let place = Place {
            dir: self.dir.path(),
            coordinator: Some(&self.server.uri()),
            links: &self.links,
        };
        fetch(inputs, place).await
    }

    fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// The words with which an input is refused.
    async fn refused(&self, input: Input) -> String {
        self.fetch(&[input]).await.unwrap_err().to_string()
    }
}

fn hello() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_string("hello")
}

#[tokio::test]
async fn a_file_arrives_and_is_what_was_promised() {
    let bench = Bench::new().await;
    bench.answer("/x", hello()).await;
    let input = Input {
        sha256: Some(HELLO_SHA256.to_uppercase()),
        size_bytes: Some(5),
        ..bench.input("/x")
    };
    bench.fetch(&[input]).await.unwrap();
    assert_eq!(bench.content("sub/file"), "hello");
}

#[tokio::test]
async fn what_differs_from_the_promise_is_refused_in_words() {
    let bench = Bench::new().await;
    bench.answer("/x", hello()).await;
    let promise = |sha256: Option<String>, size_bytes| Input {
        sha256,
        size_bytes,
        ..bench.input("/x?signature=secret")
    };
    let words = bench.refused(promise(Some("0".repeat(64)), None)).await;
    assert!(
        words.contains(HELLO_SHA256) && words.contains("sub/file"),
        "{words}"
    );
    assert!(!words.contains("secret"), "{words}");
    let words = bench.refused(promise(None, Some(4))).await;
    assert!(words.contains("larger than 4 bytes"), "{words}");
    let words = bench.refused(promise(None, Some(6))).await;
    assert!(words.contains("5 bytes, not 6"), "{words}");
}

#[tokio::test]
async fn a_missing_file_is_asked_for_once_and_a_passing_fault_is_tried_again() {
    let bench = Bench::new().await;
    let missing = ResponseTemplate::new(404);
    Mock::given(path("/gone"))
        .respond_with(missing)
        .expect(1)
        .mount(&bench.server)
        .await;
    let words = bench.refused(bench.input("/gone")).await;
    assert!(words.contains("404"), "{words}");
    let busy = ResponseTemplate::new(503);
    let once = Mock::given(path("/busy"))
        .respond_with(busy)
        .up_to_n_times(1);
    once.mount(&bench.server).await;
    bench.answer("/busy", hello()).await;
    bench.fetch(&[bench.input("/busy")]).await.unwrap();
    assert_eq!(bench.content("sub/file"), "hello");
}

#[tokio::test]
async fn a_slow_server_ends_with_the_inputs_time() {
    let bench = Bench::new().await;
    bench
        .answer("/slow", hello().set_delay(Duration::from_secs(600)))
        .await;
    let began = Instant::now();
    let input = Input {
        timeout: Some(HumanDuration(Duration::from_millis(200))),
        ..bench.input("/slow")
    };
    let words = bench.refused(input).await;
    assert!(words.contains("within 200ms"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(300));
}

#[tokio::test]
async fn files_of_this_machine_are_copied_and_nothing_else_is_waited_for() {
    let bench = Bench::new().await;
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    std::fs::write(&file, "local").unwrap();
    let local = |path: &Path| Input {
        url: format!("file://{}", path.display()),
        ..bench.input("/")
    };
    bench.fetch(&[local(&file)]).await.unwrap();
    assert_eq!(bench.content("sub/file"), "local");
    let words = bench.refused(local(&outside.path().join("none"))).await;
    assert!(words.contains("No such file"), "{words}");
    let words = bench.refused(local(Path::new("/dev/zero"))).await;
    assert!(words.contains("no regular file"), "{words}");
}

#[tokio::test]
async fn an_artifact_is_read_where_the_coordinator_says() {
    let mut bench = Bench::new().await;
    bench.answer("/api/v1/artifacts/t/result", hello()).await;
    let url = format!("artifact:{}/result", uuid::Uuid::from_u128(1));
    let input = Input {
        url: url.clone(),
        ..bench.input("/")
    };
    let words = bench.refused(input.clone()).await;
    assert!(words.contains("no address"), "{words}");
    bench
        .links
        .insert(url, "/api/v1/artifacts/t/result?signature=x".to_owned());
    bench.fetch(&[input]).await.unwrap();
    assert_eq!(bench.content("sub/file"), "hello");
}

#[tokio::test]
async fn several_inputs_arrive_and_one_that_is_missing_ends_all() {
    let bench = Bench::new().await;
    bench.answer("/x", hello()).await;
    let mut inputs: Vec<Input> = (0..10)
        .map(|number| Input {
            path: format!("file-{number}"),
            ..bench.input("/x")
        })
        .collect();
    bench.fetch(&inputs).await.unwrap();
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 10);
    inputs[7].url.push_str("gone");
    assert!(
        bench
            .fetch(&inputs)
            .await
            .unwrap_err()
            .to_string()
            .contains("file-7")
    );
}
