//! A real Prometheus on a free port that scrapes one service several times a second.

use std::path::Path;
use std::process::Command;

use reqwest::Url;
use serde_json::Value;

use crate::support::{Running, Sandbox, Service, service, wait};

/// A started Prometheus.
#[derive(Debug)]
pub(super) struct Prometheus<'s> {
    program: Running<'s>,
    url: String,
}

impl<'s> Prometheus<'s> {
    /// Starts it with the alert rules of `dashboards`, and waits until it has scraped.
    #[track_caller]
    pub(super) fn start(sandbox: &'s Sandbox, service: &Service<'_>, dashboards: &Path) -> Self {
        let target = service
            .url
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let rules = dashboards.join("prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: mitosis\n  \
               authorization: {{credentials: '{}'}}\n  \
               static_configs: [{{targets: ['{target}']}}]\n",
            rules.display(),
            service.token("user"),
        );
        let config = sandbox.file("prometheus.yml", config);
        Self::with_config(sandbox, &config)
    }

    /// Starts it with a configuration, and waits until it has scraped.
    #[track_caller]
    pub(super) fn with_config(sandbox: &'s Sandbox, config: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                sandbox.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut started = Self {
            program: Running::start(sandbox, command),
            url: format!("http://{address}"),
        };
        let url = started.url.clone();
        started.program.until("Prometheus to have scraped", || {
            let answer = ask(&url, "query", &[("query", "mitosis_build_info")]);
            let found = answer
                .as_ref()
                .and_then(|answer| answer.pointer("/data/result/0"));
            found.map(drop).ok_or_else(|| format!("{answer:?}"))
        });
        started
    }

    /// The labels of the series that a query has now.
    #[track_caller]
    pub(super) fn labels(&self, query: &str) -> Vec<Value> {
        let answer = ask(&self.url, "query", &[("query", query)]).expect("an answer of Prometheus");
        let series = answer.pointer("/data/result").and_then(Value::as_array);
        series
            .into_iter()
            .flatten()
            .map(|one| one["metric"].clone())
            .collect()
    }

    /// Whether a query has had a finite value in the last minute.
    #[track_caller]
    pub(super) fn has_data(&self, query: &str) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let end = now.expect("a clock after 1970").as_secs_f64();
        let (start, end) = (format!("{}", end - 60.0), format!("{end}"));
        let range = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let answer = ask(&self.url, "query_range", &range).expect("an answer of Prometheus");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer.pointer("/data/result").and_then(Value::as_array);
        let series = series.into_iter().flatten();
        let mut values = series.flat_map(|one| one["values"].as_array().into_iter().flatten());
        values.any(|sample| {
            let value = sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
            value.is_some_and(f64::is_finite)
        })
    }

    /// Alerts with their expressions, once all of them have been evaluated without an error.
    #[track_caller]
    pub(super) fn alerts(&self) -> Vec<(String, String)> {
        wait::until("the alerts to be evaluated", wait::LONG, || {
            let answer = ask(&self.url, "rules", &[]).ok_or("no answer")?;
            let rules = answer
                .pointer("/data/groups/0/rules")
                .and_then(Value::as_array);
            let rules = rules.cloned().unwrap_or_default();
            let healthy = rules.iter().all(|rule| rule["health"] == "ok");
            if rules.is_empty() || !healthy {
                return Err(answer.to_string());
            }
            let field =
                |rule: &Value, name: &str| rule[name].as_str().unwrap_or_default().to_owned();
            Ok(rules
                .iter()
                .map(|rule| (field(rule, "name"), field(rule, "query")))
                .collect())
        })
    }

    #[track_caller]
    pub(super) fn stop(self) {
        self.program.stop().code(0);
    }
}

fn ask(url: &str, call: &str, parameters: &[(&str, &str)]) -> Option<Value> {
    let url = Url::parse_with_params(&format!("{url}/api/v1/{call}"), parameters).expect("a URL");
    serde_json::from_str(&service::get(url.as_str(), "")?).ok()
}

/// Prometheus does not tell which port it was given, so that one is looked for.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}
