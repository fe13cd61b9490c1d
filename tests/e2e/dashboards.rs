//! Dashboards and alert rules against the real thing: a Prometheus that scrapes a run with failures, cancels and a killed
//! worker answers every query of every panel and alert; names and labels are held against the code.

mod boards;
mod prometheus;
mod published;
mod queries;
mod runbooks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use mitosis::telemetry::labels;
use mitosis::telemetry::names::{ALL, BUCKETS_SECONDS, Kind, Metric};

use crate::support::{Sandbox, Service, Task, wait};
use boards::{Query, read};
use prometheus::Prometheus;
use queries::{check, selectors};

/// Panels that show nothing in a healthy run, and why.
const EXPECTED_EMPTY: &[(&str, &str)] = &[];

/// Selectors of alerts without data in a healthy run, and why.
const EXPECTED_EMPTY_ALERTS: &[(&str, &str)] = &[];

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// Runs a checker and holds that it is content and silent where it has to be.
#[track_caller]
fn passes(command: &mut Command) -> String {
    let output = command.output().expect("the program is installed");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?} says:\n{said}");
    said
}

#[test]
fn dashboards_are_what_their_description_writes_and_have_what_grafana_needs() {
    passes(
        Command::new("python3")
            .arg(dir().join("build.py"))
            .arg("--check"),
    );
    let boards = boards::all();
    assert_eq!(boards.len(), 4);
    let problems: Vec<String> = boards.iter().flat_map(boards::problems).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn queries_use_metrics_and_labels_of_the_code_only() {
    let problems: Vec<String> = panel_queries()
        .iter()
        .filter_map(|query| {
            Some(format!(
                "{}: {}",
                query.panel,
                check(&query.expr, ALL).err()?
            ))
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_renamed_metric_or_label_is_noticed() {
    let queries = panel_queries();
    for metric in ALL {
        let renamed: Vec<Metric> = ALL
            .iter()
            .map(|known| Metric {
                name: if known.name == metric.name {
                    "mitosis_renamed"
                } else {
                    known.name
                },
                ..*known
            })
            .collect();
        let shown = queries.iter().any(|query| {
            check(&query.expr, ALL).is_ok_and(|used| used.metrics.contains(metric.name))
        });
        let noticed = queries
            .iter()
            .any(|query| check(&query.expr, &renamed).is_err());
        assert_eq!(noticed, shown, "{}", metric.name);
    }
    for (wrong, why) in [
        ("sum(mitosis_manager_spool_report)", "unknown metric"),
        ("sum by (wroker) (mitosis_worker_busy)", "unknown label"),
        (r#"mitosis_manager_workers{state="redy"}"#, "unknown value"),
        (
            r#"mitosis_task_run_seconds_bucket{le="0.02"}"#,
            "unknown value",
        ),
        ("sum(mitosis_manager_workers", "parse"),
    ] {
        let said = check(wrong, ALL).expect_err(wrong);
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn every_metric_is_shown_or_listed_as_not_shown() {
    let shown: BTreeSet<String> = panel_queries()
        .iter()
        .flat_map(|query| check(&query.expr, ALL).expect("a good query").metrics)
        .collect();
    let guide = std::fs::read_to_string(dir().join("README.md")).expect("the guide");
    let (_, listed) = guide
        .split_once("## Not shown")
        .expect("the list of what is not shown");
    let missing: Vec<&str> = ALL
        .iter()
        .map(|metric| metric.name)
        .filter(|name| shown.contains(*name) == listed.contains(&format!("`{name}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "neither shown nor listed, or both: {missing:?}"
    );
}

#[test]
fn every_alert_fires_on_its_trouble_and_has_a_runbook_with_a_command() {
    let rules = dir().join("prometheus");
    passes(
        Command::new("promtool")
            .args(["check", "rules"])
            .arg(rules.join("alerts.yml")),
    );
    passes(
        Command::new("promtool")
            .args(["test", "rules"])
            .arg(rules.join("alerts.test.yml")),
    );
    let text = |name: &str| std::fs::read_to_string(rules.join(name)).expect("a file of rules");
    let (alerts, tests) = (text("alerts.yml"), text("alerts.test.yml"));
    let guide = std::fs::read_to_string(dir().join("README.md")).expect("the guide");
    for rule in alerts.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default();
        for kind in ["fires", "is quiet"] {
            let case = format!("- name: {name} {kind}\n");
            assert!(tests.contains(&case), "no test that {name} {kind}");
        }
        for field in ["severity: ", "summary: ", "runbook_url: "] {
            assert!(rule.contains(field), "{name} has no {field}");
        }
        let (_, anchor) = rule.split_once('#').expect("an anchor of the guide");
        let anchor = anchor.lines().next().unwrap_or_default();
        let section =
            boards::section(&guide, anchor).unwrap_or_else(|| panic!("{name}: no {anchor}"));
        assert_eq!(
            section.matches("```sh").count(),
            1,
            "{anchor} has one command to copy"
        );
    }
}

#[test]
fn a_prometheus_that_scraped_a_run_answers_every_query() {
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["up", "--workers", "2", "--spin", "200us"]);
    let prometheus = Prometheus::start(&sandbox, &service, &dir());
    trouble(&sandbox, &service);
    let text = service.metrics();
    let exposition = sandbox.file("metrics.txt", &text);
    let checked = passes(
        Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::fs::File::open(exposition).expect("what was just written")),
    );
    assert_eq!(checked.trim(), "", "promtool has something to say");
    all_listed(&text);
    let mut queries: BTreeMap<String, String> = panel_queries()
        .into_iter()
        .filter(|query| {
            !EXPECTED_EMPTY
                .iter()
                .any(|(panel, _)| *panel == query.panel)
        })
        .map(|query| (query.expr, query.panel))
        .collect();
    for (alert, expr) in prometheus.alerts() {
        check(&expr, ALL).unwrap_or_else(|error| panic!("{alert}: {error}"));
        let selectors = selectors(&expr).expect("a checked expression");
        let wanted = selectors.into_iter().filter(|selector| {
            !EXPECTED_EMPTY_ALERTS
                .iter()
                .any(|(known, _)| known == selector)
        });
        queries.extend(wanted.map(|selector| (selector, alert.clone())));
    }
    wait::until("every query to have data", wait::LONG, || {
        // The counters of HTTP errors need one now and then to have a rate.
        service.metrics_without_token();
        queries.retain(|expr, _| !prometheus.has_data(expr));
        if queries.is_empty() {
            Ok(())
        } else {
            Err(format!("without data: {queries:#?}"))
        }
    });
    prometheus.stop();
    service.stop().code(0);
}

#[test]
fn the_scrape_configuration_finds_coordinators_in_files_and_managers_over_http() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let address = service.url.trim_start_matches("http://");
    let address = address.trim_end_matches('/');
    let manager = service.manager(2, &["--metrics-listen", "127.0.0.1:0"]);
    // As it is in the repository, with other addresses and less patience.
    let copied = |name: &str| {
        let text = std::fs::read_to_string(dir().join("prometheus").join(name));
        let text = text.expect("a file of the repository");
        let text = text.replace("host.docker.internal:7300", address);
        let text = text.replace("interval: 15s", "interval: 1s");
        sandbox.file(
            name,
            text.replace("refresh_interval: 30s", "refresh_interval: 1s"),
        )
    };
    std::fs::create_dir(sandbox.path("targets")).expect("a directory");
    copied("alerts.yml");
    copied("targets/coordinators.json");
    copied("targets/others.json");
    sandbox.file("token", service.token("user"));
    let config = copied("prometheus.yml");
    passes(
        Command::new("promtool")
            .args(["check", "config"])
            .arg(&config),
    );
    let prometheus = Prometheus::with_config(&sandbox, &config);
    let workers = wait::until("both to be scraped", wait::LONG, || {
        let coordinators = prometheus.labels("mitosis_coordinator_sessions == 1");
        let workers = prometheus
            .labels("sum by (job, mitosis_manager, mitosis_host) (mitosis_manager_workers) == 2");
        match (&coordinators[..], &workers[..]) {
            ([coordinator], [workers]) if coordinator["job"] == "mitosis" => Ok(workers.clone()),
            _ => Err(format!("{coordinators:?}, {workers:?}")),
        }
    });
    let listed: Value =
        serde_json::from_str(&service.client(&["managers", "--json"]).code(0).out()).expect("JSON");
    let listed = &listed["managers"][0];
    assert_eq!(
        workers["mitosis_manager"], listed["uuid"],
        "{workers} {listed}"
    );
    assert_eq!(workers["mitosis_host"], listed["host"]);
    prometheus.stop();
    manager.stop().code(0);
    service.stop().code(0);
}

/// A few of everything: tasks that complete and fail, one that is cancelled, one that kills its worker.
fn trouble(sandbox: &Sandbox, service: &Service<'_>) {
    let endless = service.submit("sleep 1000");
    service.until_state(&endless, "running");
    service.client(&["cancel", "--now", &endless]).code(0);
    let lines = ["true", "false", "sleep 0.05", "exit 3"].map(|line| format!("{line}\n").repeat(5));
    service.submit_file(&sandbox.file("list.txt", lines.concat()));
    let killer = service.submit("kill -9 $PPID; sleep 5");
    let killer = service.until_state(&killer, "failed");
    assert_eq!(killer.0["reason"], "strikes", "{:#}", killer.0);
    let tasks = service.until_all_ended();
    let count = |state: &str| {
        tasks
            .iter()
            .filter(|task| Task::state(task) == state)
            .count()
    };
    assert_eq!(
        (count("completed"), count("failed"), count("cancelled")),
        (10, 11, 1)
    );
}

/// More series than this on one machine would be too many for whoever pays for a Prometheus.
const SERIES_BUDGET: usize = 3000;

/// The most series that one machine can export: a coordinator, a manager and its 256 workers in one process, after
/// everything that can be counted has been counted.
#[test]
fn the_most_series_of_a_machine_are_within_the_budget() {
    let document = mitosis::coordinator::openapi::document();
    let routes: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
    let groups: BTreeSet<_> = routes
        .iter()
        .map(|route| mitosis::coordinator::http::group(route))
        .collect();
    // Requests without a route have one more value.
    let values = |metric: &Metric, label: &str| match label {
        "worker" => 256,
        "route" => routes.len() + 1,
        "group" => groups.len() + 1,
        known => labels::values(metric.name, known)
            .unwrap_or_else(|| panic!("{label} of {}", metric.name))
            .len(),
    };
    let series = |metric: &Metric| {
        let rows = labels::combinations(metric).map(|rows| rows.len());
        let rows = rows.unwrap_or_else(|| {
            metric
                .labels
                .iter()
                .map(|label| values(metric, label))
                .product()
        });
        // A histogram has its buckets, the infinite one, sum and count.
        let each = if metric.kind == Kind::Histogram {
            BUCKETS_SECONDS.len() + 3
        } else {
            1
        };
        (rows * each, metric.name)
    };
    let mut all: Vec<_> = ALL.iter().map(series).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let total: usize = all.iter().map(|(series, _)| series).sum();
    assert!(total <= SERIES_BUDGET, "{total} series: {all:#?}");
}

/// Nothing is exported that the code does not list, so that what is listed is the most there can be.
#[track_caller]
fn all_listed(text: &str) {
    let series = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let unlisted: Vec<String> = series
        .filter_map(|line| check(line.rsplit_once(' ')?.0, ALL).err())
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:#?}");
}

fn panel_queries() -> Vec<Query> {
    boards::all().iter().flat_map(read).collect()
}
