//! Series that do not come from this process's recorder: a manager writes those of its workers and of its poller.
//!
//! The recorder cannot take in buckets that another process counted. A [`Source`] therefore appends whole metric
//! families to the text of a scrape; it reads shared atomics and wakes nobody.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::names::{ALL, Kind, Metric};

/// Something that knows metric families of its own.
pub trait Source: Send + Sync + fmt::Debug {
    /// Appends its families. Called on the thread that serves the scrape.
    fn append(&self, families: &mut Families<'_>);
}

/// Sources live as long as their owners: a dropped one disappears from the next scrape.
static SOURCES: Mutex<Vec<Weak<dyn Source>>> = Mutex::new(Vec::new());

/// Adds a source to every later scrape of this process, for as long as somebody else keeps it alive.
pub fn add_source(source: &Arc<dyn Source>) {
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    sources.retain(|known| known.strong_count() > 0);
    sources.push(Arc::downgrade(source));
}

/// Appends what every living source knows.
pub(super) fn append_sources(text: &mut String) {
    let sources: Vec<Arc<dyn Source>> = SOURCES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .filter_map(Weak::upgrade)
        .collect();
    for source in sources {
        source.append(&mut Families { text });
    }
}

/// Writer of metric families in the text format of Prometheus.
#[derive(Debug)]
pub struct Families<'a> {
    text: &'a mut String,
}

impl<'a> Families<'a> {
    /// Families at the end of `text`.
    pub(super) fn of(text: &'a mut String) -> Self {
        Self { text }
    }

    /// Begins the family of a metric of [`super::names`]; its series follow.
    ///
    /// # Panics
    /// When the name is not listed: an invariant of this code base.
    pub fn begin(&mut self, name: &'static str) -> Family<'_> {
        let metric = ALL.iter().find(|metric| metric.name == name);
        let metric = metric.expect("every exported metric is listed in names");
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = metric.help.trim();
        push(
            self.text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
        Family {
            text: self.text,
            metric,
        }
    }
}

/// One family.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    metric: &'static Metric,
}

impl Family<'_> {
    /// A counter or gauge.
    pub fn value(&mut self, labels: &[&str], value: f64) -> &mut Self {
        let Metric { name, .. } = self.metric;
        let labels = self.labels(labels, None);
        push(self.text, format_args!("{name}{labels} {value}\n"));
        self
    }

    /// A histogram: `(upper bound in seconds, samples in this bucket alone)` in ascending order, the last bound
    /// infinite, and the sum of all samples in seconds.
    pub fn histogram(
        &mut self,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum_seconds: f64,
    ) -> &mut Self {
        let Metric { name, .. } = self.metric;
        let mut count = 0;
        for (bound, samples) in buckets {
            count += samples;
            let bound = if bound.is_infinite() {
                "+Inf".to_owned()
            } else {
                bound.to_string()
            };
            let labels = self.labels(labels, Some(&bound));
            push(self.text, format_args!("{name}_bucket{labels} {count}\n"));
        }
        let labels = self.labels(labels, None);
        push(
            self.text,
            format_args!("{name}_sum{labels} {sum_seconds}\n{name}_count{labels} {count}\n"),
        );
        self
    }

    fn labels(&self, values: &[&str], bound: Option<&str>) -> String {
        debug_assert_eq!(
            values.len(),
            self.metric.labels.len(),
            "{}",
            self.metric.name
        );
        let pairs: Vec<String> = self
            .metric
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| (*name, *value))
            .chain(bound.map(|bound| ("le", bound)))
            .map(|(name, value)| format!(r#"{name}="{value}""#))
            .collect();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", pairs.join(","))
        }
    }
}

fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn buckets_become_cumulative_and_end_at_infinity() {
        let mut text = String::new();
        Families { text: &mut text }
            .begin(names::IPC_ROUND_TRIP)
            .histogram(&["fetch"], [(1e-6, 2), (0.5, 3), (f64::INFINITY, 1)], 0.25);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "# TYPE mitosis_ipc_round_trip_seconds histogram",
                r#"mitosis_ipc_round_trip_seconds_bucket{operation="fetch",le="0.000001"} 2"#,
                r#"mitosis_ipc_round_trip_seconds_bucket{operation="fetch",le="0.5"} 5"#,
                r#"mitosis_ipc_round_trip_seconds_bucket{operation="fetch",le="+Inf"} 6"#,
                r#"mitosis_ipc_round_trip_seconds_sum{operation="fetch"} 0.25"#,
                r#"mitosis_ipc_round_trip_seconds_count{operation="fetch"} 6"#,
            ]
        );
    }

    #[test]
    fn a_source_that_is_gone_leaves_no_series_behind() {
        #[derive(Debug)]
        struct Fixed;
        impl Source for Fixed {
            fn append(&self, families: &mut Families<'_>) {
                families.begin(names::WORKER_BUSY).value(&["7"], 1.0);
            }
        }
        let source: Arc<dyn Source> = Arc::new(Fixed);
        add_source(&source);
        let mut text = String::new();
        append_sources(&mut text);
        assert!(
            text.contains(r#"mitosis_worker_busy{worker="7"} 1"#),
            "{text}"
        );
        drop(source);
        text.clear();
        append_sources(&mut text);
        assert!(!text.contains("mitosis_worker_busy"), "{text}");
    }
}
