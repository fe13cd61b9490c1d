//! The OpenAPI document is true: it has every route and no other, and its examples are what the types read and write.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::protocol::api::{
    CancelMatchingRequest, CancelRequest, ErrorBody, HeartbeatBody, IssueTokenRequest, ModeRequest,
    ReportTaskBody, RetryRequest, WaitRequest,
};
use crate::protocol::tuning::TuneOrder;

/// Every call there is.
const CALLS: [(&str, &str); 41] = [
    ("GET", "/api/v1/artifacts/{uuid}/{kind}"),
    ("GET", "/api/v1/managers"),
    ("GET", "/api/v1/managers/{uuid}/tuning"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/session"),
    ("GET", "/api/v1/suites"),
    ("GET", "/api/v1/suites/{uuid}"),
    ("GET", "/api/v1/suites/{uuid}/wait"),
    ("GET", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks/{uuid}"),
    ("GET", "/api/v1/tasks/{uuid}/artifacts/{kind}"),
    ("GET", "/api/v1/tasks/{uuid}/logs"),
    ("GET", "/api/v1/tasks/{uuid}/wait"),
    ("GET", "/api/v1/tasks/{uuid}/why"),
    ("GET", "/api/v1/workers"),
    ("GET", "/api/v1/workers/control"),
    ("GET", "/api/v1/workers/fetch-task"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/metrics/targets"),
    ("GET", "/readyz"),
    ("POST", "/api/v1/managers/{uuid}/mode"),
    ("POST", "/api/v1/managers/{uuid}/tuning"),
    ("POST", "/api/v1/mode"),
    ("POST", "/api/v1/suites/{uuid}/cancel"),
    ("POST", "/api/v1/suites/{uuid}/retry"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks/cancel"),
    ("POST", "/api/v1/tasks/retry"),
    ("POST", "/api/v1/tasks/wait"),
    ("POST", "/api/v1/tasks/{uuid}/cancel"),
    ("POST", "/api/v1/tasks/{uuid}/retry"),
    ("POST", "/api/v1/tokens"),
    ("POST", "/api/v1/workers/heartbeat"),
    ("POST", "/api/v1/workers/leave"),
    ("POST", "/api/v1/workers/register"),
    ("POST", "/api/v1/workers/report-task"),
    ("POST", "/api/v1/workers/{uuid}/mode"),
    ("PUT", "/api/v1/artifacts/{uuid}/{kind}"),
    ("DELETE", "/api/v1/submissions/{uuid}"),
    ("PUT", "/api/v1/submissions/{uuid}"),
];

fn document() -> Value {
    serde_json::to_value(crate::coordinator::openapi::document()).unwrap()
}

/// Every call of the document.
pub(super) fn calls() -> BTreeSet<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    calls.collect()
}

#[test]
fn the_document_lists_exactly_the_calls_there_are() {
    let expected = CALLS.map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(calls(), BTreeSet::from(expected));
}

/// A route that is added beside the document's macro would be missing from the document, and a documented handler
/// that is added to no router would be missing from the face.
#[test]
fn no_route_is_added_beside_the_document() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/coordinator/http");
    let entries = std::fs::read_dir(directory).unwrap();
    let sources = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .chain([PathBuf::from(format!("{directory}.rs"))]);
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        let count = |what: &str| text.matches(what).count();
        let bare = count(".route(") + count(".route_service(");
        assert_eq!(bare, 0, "{}", source.display());
        let routed: usize = text
            .split("routes!(")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap_or_default())
            .map(|names| names.split(',').count())
            .sum();
        assert_eq!(count("#[utoipa::path("), routed, "{}", source.display());
    }
}

#[tokio::test]
async fn the_served_document_is_the_one_of_this_version() {
    let server = Server::start().await;
    let request = raw_http().get(format!("{}/api/v1/openapi.json", server.url()));
    let served: Value = in_time(request.send()).await.unwrap().json().await.unwrap();
    assert_eq!(served, document());
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// What the type makes of its example is the example.
#[track_caller]
fn round_trip<T: DeserializeOwned + Serialize>(example: &Value) {
    let read: T = serde_json::from_value(example.clone())
        .unwrap_or_else(|error| panic!("{example} is no {}: {error}", std::any::type_name::<T>()));
    assert_eq!(&serde_json::to_value(read).unwrap(), example);
}

#[test]
fn examples_are_what_the_types_read_and_write() {
    let document = document();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for call in item.as_object().unwrap().values() {
            let responses = call["responses"].as_object().unwrap().values();
            for body in std::iter::once(&call["requestBody"]).chain(responses) {
                let content = &body["content"]["application/json"];
                if !content["example"].is_null() {
                    check_example(path, &content["schema"].to_string(), &content["example"]);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 10, "only {seen} examples were found");
}

#[track_caller]
fn check_example(path: &str, schema: &str, example: &Value) {
    let is = |name: &str| schema.contains(&format!("/{name}\""));
    match () {
        () if is("SubmitRequest") => round_trip::<SubmitRequest>(example),
        () if is("RetryRequest") => round_trip::<RetryRequest>(example),
        () if is("CancelMatchingRequest") => round_trip::<CancelMatchingRequest>(example),
        () if is("WaitRequest") => round_trip::<WaitRequest>(example),
        () if is("CancelRequest") => round_trip::<CancelRequest>(example),
        () if is("ModeRequest") => round_trip::<ModeRequest>(example),
        () if is("TuneOrder") => round_trip::<TuneOrder>(example),
        () if is("IssueTokenRequest") => round_trip::<IssueTokenRequest>(example),
        () if is("RegisterWorkerRequest") => round_trip::<RegisterWorkerRequest>(example),
        () if is("ReportTaskBody") => round_trip::<ReportTaskBody>(example),
        () if is("HeartbeatBody") => round_trip::<HeartbeatBody>(example),
        () if is("ErrorBody") => round_trip::<ErrorBody>(example),
        () => panic!("{path} has an example of a type this test does not know: {schema}"),
    }
}

#[test]
fn every_body_that_is_referred_to_is_described() {
    let document = document();
    let text = document.to_string();
    let components = &document["components"];
    let schemas = components["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    assert_eq!(components["securitySchemes"]["bearer"]["scheme"], "bearer");
}
