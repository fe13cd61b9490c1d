//! Submit, list, show, wait, cancel, retry: the users' side.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::protocol::TaskState;
use crate::protocol::api::{CancelRequest, ErrorBody, PageQuery, SuiteRef, TaskFilter};

/// Sends a body that the typed client cannot make; returns the refusal.
async fn post(server: &Server, path: &str, body: String) -> (u16, String, String) {
    let token = server.token(Scope::User);
    let request = raw_http()
        .post(format!("{}/api/v1{path}", server.url()))
        .bearer_auth(token.expose_secret())
        .body(body);
    let answer = in_time(request.send()).await.unwrap();
    let status = answer.status().as_u16();
    let error = answer.json::<ErrorBody>().await.unwrap().error;
    (status, error.code, error.message)
}

#[tokio::test]
async fn a_submitted_task_is_listed_shown_and_survives_a_restart() {
    let server = Server::start().await;
    let name = "sweep".to_owned();
    let request = SubmitRequest {
        suite: Some(SuiteRef::New { name }),
        ..request(&["one", "two", "three"])
    };
    let answer = server.user().submit(&request).await.unwrap();
    let token = server.token(Scope::User);
    let server = server.restart().await;
    // The key is kept with the store: tokens outlive a restart.
    let user = ApiClient::new(&server.url(), token).unwrap();
    let filter = TaskFilter {
        suite: Some(answer.suite),
        limit: Some(2),
        ..TaskFilter::default()
    };
    let first = user.tasks(&filter).await.unwrap();
    let next = TaskFilter {
        cursor: first.next_cursor.clone(),
        ..filter
    };
    let rest = user.tasks(&next).await.unwrap();
    let listed = first.tasks.iter().chain(&rest.tasks);
    let commands: Vec<_> = listed.map(|task| task.command.as_str()).collect();
    assert_eq!(commands, ["one", "two", "three"]);
    assert_eq!(rest.next_cursor, None);
    let detail = user.task(answer.tasks[1].uuid).await.unwrap();
    assert_eq!(detail.spec, TaskSpec::argv(["two"]));
    assert_eq!(detail.summary.state, TaskState::Ready);
    let suites = user.suites(&PageQuery::default()).await.unwrap().suites;
    let only = (suites[0].name.as_str(), suites[0].uuid);
    assert_eq!(only, ("sweep", answer.suite));
    assert_eq!(user.suite(answer.suite).await.unwrap(), suites[0]);
}

#[tokio::test]
async fn a_misspelt_field_is_named_and_nothing_is_stored() {
    let server = Server::start().await;
    let body = json!({"tasks": [{"args": ["a"]}, {"args": ["b"], "timeuot": "3s"}]});
    let (status, code, message) = post(&server, "/tasks", body.to_string()).await;
    assert_eq!((status, code.as_str()), (400, "bad_task"));
    assert!(
        message.contains("tasks[1].timeuot") && message.contains("`timeout`"),
        "{message}"
    );
    let page = server.user().tasks(&TaskFilter::default()).await.unwrap();
    assert_eq!(page.tasks, []);
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_with_their_place() {
    let server = Server::start().await;
    for (body, part) in [
        ("{".to_owned(), "not JSON"),
        (String::new(), "not JSON"),
        (json!({"tasks": 3}).to_string(), "tasks"),
        (json!({"tasks": [{"args": "x"}]}).to_string(), "tasks[0]"),
        (
            json!({"tasks": [{"args": ["x"], "timeout": "soon"}]}).to_string(),
            "soon",
        ),
    ] {
        let (status, code, message) = post(&server, "/tasks", body).await;
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{message}");
        assert!(message.contains(part), "{message}");
    }
    let body = json!({"tasks": [{"args": ["ok"]}, {"args": []}]});
    let (status, code, message) = post(&server, "/tasks", body.to_string()).await;
    assert_eq!((status, code.as_str()), (400, "bad_task"));
    assert!(message.contains("task 1"), "{message}");
}

#[tokio::test]
async fn a_body_above_its_limit_is_refused_with_the_remedy() {
    let server = Server::start().await;
    let body = json!({"graceful": true, "padding": "x".repeat(65 << 10)});
    let path = format!("/tasks/{}/cancel", Uuid::nil());
    let (status, code, message) = post(&server, &path, body.to_string()).await;
    assert_eq!((status, code.as_str()), (413, "too_large"));
    assert!(message.contains("65536"), "{message}");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_words() {
    let server = Server::start().await;
    let user = server.user();
    let nobody = Uuid::from_u128(9);
    let text = refused(user.task(nobody).await, 404, "not_found");
    assert!(text.contains(&nobody.to_string()), "{text}");
    let graceful = CancelRequest::default();
    refused(user.suite(nobody).await, 404, "not_found");
    refused(user.cancel_task(nobody, graceful).await, 404, "not_found");
    refused(user.cancel_suite(nobody, graceful).await, 404, "not_found");
    refused(user.retry_task(nobody).await, 404, "not_found");
    refused(user.wait_task(nobody, PATIENCE).await, 404, "not_found");
    let (status, code, _) = post(&server, "/no-such-thing", String::new()).await;
    assert_eq!((status, code.as_str()), (404, "no_such_route"));
    let (status, code, _) = post(&server, "/workers", String::new()).await;
    assert_eq!((status, code.as_str()), (405, "no_such_method"));
    let (status, code, message) = post(&server, "/tasks/7/cancel", String::new()).await;
    assert_eq!((status, code.as_str()), (400, "bad_request"));
    assert!(message.contains("`7`"), "{message}");
}

async fn list(server: &Server, query: &str) -> (u16, Value) {
    let token = server.token(Scope::User);
    let request = raw_http()
        .get(format!("{}/api/v1/tasks?{query}", server.url()))
        .bearer_auth(token.expose_secret());
    let answer = in_time(request.send()).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_misspelt_filter_is_refused_and_does_not_list_everything() {
    let server = Server::start().await;
    let (status, body) = list(&server, "sate=failed").await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `state`"), "{message}");
    for query in ["state=done", "limit=0", "limit=many", "suite=7"] {
        assert_eq!(list(&server, query).await.0, 400, "{query}");
    }
    assert_eq!(list(&server, "state=ready,failed&limit=5").await.0, 200);
}

#[tokio::test]
async fn a_cancel_ends_waiting_tasks_and_a_wait_hears_of_it() {
    let server = Server::start().await;
    let user = server.user();
    let answer = user.submit(&request(&["one", "two"])).await.unwrap();
    let (suite, one) = (answer.suite, answer.tasks[0].uuid);
    let waiting = user.clone();
    let waiter = tokio::spawn(async move { waiting.wait_suite(suite, PATIENCE).await });
    let not_yet = user.wait_task(one, Duration::ZERO).await;
    assert!(!not_yet.unwrap().done);
    let graceful = CancelRequest::default();
    let cancelled = user.cancel_task(one, graceful).await.unwrap();
    assert_eq!(cancelled.state, TaskState::Cancelled);
    let counts = user.cancel_suite(suite, graceful).await.unwrap();
    assert!(counts.done && counts.counts[&TaskState::Cancelled] == 2);
    assert!(in_time(waiter).await.unwrap().unwrap().done);
}

#[tokio::test]
async fn a_retry_is_a_new_task_that_names_the_old() {
    let server = Server::start().await;
    let user = server.user();
    let answer = user.submit(&request(&["one", "two"])).await.unwrap();
    let one = answer.tasks[0].uuid;
    refused(user.retry_task(one).await, 409, "not_ended");
    let graceful = CancelRequest::default();
    user.cancel_suite(answer.suite, graceful).await.unwrap();
    let again = user.retry_task(one).await.unwrap();
    let detail = user.task(again.uuid).await.unwrap();
    assert_eq!(detail.summary.retry_of, Some(one));
    // The first of the two has been repeated already.
    let rest = user.retry_suite(answer.suite).await.unwrap();
    assert_eq!(rest.tasks.len(), 1);
}

#[tokio::test]
async fn a_key_that_is_known_answers_with_its_task() {
    let server = Server::start().await;
    let mut request = request(&["one"]);
    request.tasks[0].key = Some("k".to_owned());
    let first = server.user().submit(&request).await.unwrap();
    let second = server.user().submit(&request).await.unwrap();
    assert_eq!(first.tasks[0].uuid, second.tasks[0].uuid);
    assert!(!first.tasks[0].existing && second.tasks[0].existing);
}

#[tokio::test]
async fn a_large_submit_passes_whole() {
    let server = Server::start().await;
    let programs = vec!["a program of some length, as programs have"; 20_000];
    let answer = server.user().submit(&request(&programs)).await.unwrap();
    assert_eq!(answer.tasks.len(), programs.len());
}
