//! Holds a query against the metrics of the code: names, labels, and values of labels that are known in advance.

use std::collections::BTreeSet;

use mitosis::telemetry::labels::combinations;
use mitosis::telemetry::names::{BUCKETS_SECONDS, Kind, Metric};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Labels that Prometheus adds to every series.
const OF_A_SCRAPE: [&str; 2] = ["job", "instance"];

/// What a query uses.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) metrics: BTreeSet<String>,
    /// Every label that some series of the query has.
    labels: BTreeSet<String>,
}

struct Collector<'a> {
    known: &'a [Metric],
    used: Usage,
    grouped: Vec<String>,
    selectors: Vec<String>,
}

/// The metrics of a good query; what is wrong with a bad one.
pub(super) fn check(expr: &str, known: &[Metric]) -> Result<Usage, String> {
    let collector = walk(expr, known)?;
    for label in &collector.grouped {
        let scraped = OF_A_SCRAPE.contains(&label.as_str());
        if !scraped && !collector.used.labels.contains(label) {
            return Err(format!("unknown label `{label}` in {expr}"));
        }
    }
    Ok(collector.used)
}

/// The selectors of a query, each a query of its own.
pub(super) fn selectors(expr: &str) -> Result<Vec<String>, String> {
    Ok(walk(expr, mitosis::telemetry::names::ALL)?.selectors)
}

fn walk<'a>(expr: &str, known: &'a [Metric]) -> Result<Collector<'a>, String> {
    let parsed = parser::parse(expr).map_err(|error| format!("cannot parse {expr}: {error}"))?;
    let mut collector = Collector {
        known,
        used: Usage::default(),
        grouped: Vec::new(),
        selectors: Vec::new(),
    };
    walk_expr(&mut collector, &parsed)?;
    Ok(collector)
}

impl ExprVisitor for Collector<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.selector(selector)?,
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs)?,
            Expr::Aggregate(aggregate) => self.modifier(aggregate.modifier.as_ref()),
            Expr::Binary(binary) => {
                let modifier = binary.modifier.as_ref();
                self.modifier(modifier.and_then(|modifier| modifier.matching.as_ref()));
            }
            _ => {}
        }
        Ok(true)
    }
}

impl Collector<'_> {
    fn modifier(&mut self, modifier: Option<&LabelModifier>) {
        if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) = modifier {
            self.grouped.extend(labels.labels.iter().cloned());
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Result<(), String> {
        let name = selector.name.as_deref().unwrap_or_default();
        let (metric, suffix) =
            find(name, self.known).ok_or_else(|| format!("unknown metric `{name}`"))?;
        let own = metric.labels.iter().copied();
        let labels: Vec<&str> = own.chain((suffix == "_bucket").then_some("le")).collect();
        for matcher in &selector.matchers.matchers {
            let label = matcher.name.as_str();
            if !labels.contains(&label) && !OF_A_SCRAPE.contains(&label) {
                return Err(format!("unknown label `{label}` of {name}"));
            }
            let values = match matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.as_str()],
                MatchOp::Re(_) | MatchOp::NotRe(_) if matcher.value.contains(['.', '*', '+']) => {
                    Vec::new()
                }
                MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
            };
            for value in values {
                if !is_possible(metric, label, value) {
                    return Err(format!("unknown value `{value}` of {label} of {name}"));
                }
            }
        }
        self.used.metrics.insert(metric.name.to_owned());
        self.used
            .labels
            .extend(labels.into_iter().map(str::to_owned));
        self.selectors.push(selector.to_string());
        Ok(())
    }
}

/// The metric behind the name of a series, and what a histogram adds to it.
fn find<'m, 'n>(series: &'n str, known: &'m [Metric]) -> Option<(&'m Metric, &'n str)> {
    let named = |name: &str| known.iter().find(|metric| metric.name == name);
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(base) = series.strip_suffix(suffix)
            && let Some(metric) = named(base).filter(|metric| metric.kind == Kind::Histogram)
        {
            return Some((metric, &series[base.len()..]));
        }
    }
    let metric = named(series).filter(|metric| metric.kind != Kind::Histogram)?;
    Some((metric, ""))
}

/// Whether a label can have a value, where the code knows its values; elsewhere everything is possible.
fn is_possible(metric: &Metric, label: &str, value: &str) -> bool {
    if label == "le" {
        let bounds = BUCKETS_SECONDS.iter().map(f64::to_string);
        return bounds
            .chain(["+Inf".to_owned()])
            .any(|bound| bound == value);
    }
    let place = metric.labels.iter().position(|known| *known == label);
    match (place, combinations(metric)) {
        (Some(place), Some(rows)) => rows.iter().any(|row| row[place] == value),
        _ => true,
    }
}
