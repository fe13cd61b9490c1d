//! The metrics recorder of this process and its text for scrapes.
//!
//! Installed once by the roles that serve `/metrics` (`coordinator`, `manager`, `up`, `run`, an independent worker
//! with a port). [`render`] is what their HTTP routes answer. Managed workers install nothing: their numbers lie in
//! their status blocks and reach the text through [`super::exposition`].

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Label, Unit};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::names::{ALL, BUCKETS_SECONDS, BUILD_INFO, Kind, Metric};
use super::{exposition, labels, process};

/// Content type of the text that [`render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often recorded histogram samples are folded into buckets; until then each takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, describes every metric and registers every series whose labels are known, at 0. A second
/// call changes nothing.
///
/// # Errors
/// When another recorder is installed already.
pub fn install() -> Result<(), BuildError> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets(&BUCKETS_SECONDS)?
        .install_recorder()?;
    // A second recorder would have been refused above, so this is the first value.
    if HANDLE.set(handle).is_ok() {
        ALL.iter().for_each(describe);
    }
    Ok(())
}

/// Folds samples into buckets until the future is dropped. Spawned once per process that called [`install`].
pub async fn keep_up() {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

/// Everything this process knows, in the text format of Prometheus. Reads files of `/proc`: not for an async thread, see
/// [`rendered`].
#[must_use]
pub fn render() -> String {
    let mut text = HANDLE
        .get()
        .map(PrometheusHandle::render)
        .unwrap_or_default();
    exposition::append_sources(&mut text);
    process::append(&mut exposition::Families::of(&mut text));
    text
}

/// [`render`] on a thread that may block.
pub async fn rendered() -> String {
    // Nothing ends it but a panic, which its hook has reported; a scrape without text says the same.
    tokio::task::spawn_blocking(render)
        .await
        .unwrap_or_default()
}

fn describe(metric: &Metric) {
    let unit = if metric.name.ends_with("_seconds") {
        Unit::Seconds
    } else if metric.name.ends_with("_bytes") {
        Unit::Bytes
    } else {
        Unit::Count
    };
    let help = metric.help.trim();
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, unit, help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, unit, help),
        Kind::Histogram => metrics::describe_histogram!(metric.name, unit, help),
    }
    for row in labels::registered(metric) {
        register(metric, &row);
    }
}

fn register(metric: &Metric, values: &[&'static str]) {
    let labels: Vec<Label> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::from_static_parts(name, value))
        .collect();
    match metric.kind {
        Kind::Counter => metrics::counter!(metric.name, labels).increment(0),
        Kind::Gauge => {
            let start = if metric.name == BUILD_INFO { 1.0 } else { 0.0 };
            metrics::gauge!(metric.name, labels).set(start);
        }
        // A histogram appears with its first sample: registering it alone shows nothing, and a made-up sample
        // would be a lie. Its handle is taken so that the series exists as soon as the exporter allows it.
        Kind::Histogram => drop(metrics::histogram!(metric.name, labels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_with_known_labels_is_at_zero_from_the_start() {
        install().unwrap();
        install().unwrap();
        let text = render();
        assert!(
            text.contains("mitosis_coordinator_tasks_accepted_total 0"),
            "{text}"
        );
        assert!(
            text.contains(r#"mitosis_manager_worker_exits_total{reason="signal"} 0"#),
            "{text}"
        );
        assert!(text.contains("mitosis_build_info{version="), "{text}");
        assert!(
            text.contains("# HELP mitosis_manager_buffer_tasks"),
            "{text}"
        );
    }
}
