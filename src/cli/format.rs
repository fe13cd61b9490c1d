//! The form of lists on stdout: a table for people, JSON or CSV for programs.
//!
//! JSON is what the API answers. CSV has one column per field of that, in a fixed order, and an empty cell where a
//! field is absent; characters that would be orders to a terminal are escaped; times are microseconds since the Unix epoch in both.

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::failure::{Failure, OrFail};
use super::output;
use crate::protocol::plain;

/// Columns of tasks.
pub(super) const TASK_COLUMNS: [&str; 16] = [
    "id",
    "uuid",
    "suite",
    "state",
    "reason",
    "exit_code",
    "attempts",
    "priority",
    "command",
    "accepted_at_us",
    "started_at_us",
    "finished_at_us",
    "waits_for",
    "due_at_us",
    "retry_of",
    "follow_up_of",
];
/// Columns of suites; those with a point are fields of a field.
pub(super) const SUITE_COLUMNS: [&str; 10] = [
    "uuid",
    "name",
    "created_at_us",
    "counts.pending",
    "counts.ready",
    "counts.assigned",
    "counts.running",
    "counts.completed",
    "counts.failed",
    "counts.cancelled",
];
/// Columns of managers.
pub(super) const MANAGER_COLUMNS: [&str; 9] = [
    "uuid",
    "host",
    "connected",
    "live",
    "metrics",
    "workers",
    "leases",
    "last_seen_us",
    "trouble",
];
/// Columns of independent workers.
pub(super) const WORKER_COLUMNS: [&str; 4] = ["uuid", "host", "task", "last_seen_us"];

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object, as the API answers.
    Json,
    /// A header and one record per entry, RFC 4180.
    Csv,
}

/// Which form is wanted.
#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// Form of the list on stdout.
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORM",
        default_value_t
    )]
    output: Format,
    /// The same as -o json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl FormatArgs {
    /// Writes a list; `page` is what the API answered, `items` its entries.
    pub(super) fn write<T: Serialize>(
        &self,
        page: &impl Serialize,
        items: &[T],
        columns: &[&str],
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match if self.json { Format::Json } else { self.output } {
            Format::Table => output::text(&table()),
            Format::Json => output::json(page),
            Format::Csv => output::bytes(&csv(items, columns)?),
        }
    }
}

fn csv<T: Serialize>(items: &[T], columns: &[&str]) -> Result<Vec<u8>, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).or_system()?;
    for item in items {
        let item = serde_json::to_value(item).or_system()?;
        let cells = columns.iter().map(|column| cell(&item, column));
        writer.write_record(cells).or_system()?;
    }
    writer.into_inner().or_system()
}

fn cell(item: &Value, column: &str) -> String {
    let mut parts = column.split('.');
    match parts.try_fold(item, |value, part| value.get(part)) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => plain::lines(text).into_owned(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(items: &[Value], columns: &[&str]) -> String {
        String::from_utf8(csv(items, columns).unwrap()).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_empty_where_nothing_is() {
        let items = [
            json!({"id": 7, "command": "echo \"a\",b\nc", "counts": {"failed": 2}}),
            json!({"id": 8, "command": null, "connected": true}),
        ];
        assert_eq!(
            lines(&items, &["id", "command", "counts.failed", "connected"]),
            "id,command,counts.failed,connected\n7,\"echo \"\"a\"\",b\nc\",2,\n8,,,true\n"
        );
        assert_eq!(lines(&[], &["id"]), "id\n");
    }

    /// The documented fields of a type of the API.
    fn fields(schema: &str) -> Vec<String> {
        let document = serde_json::to_value(crate::coordinator::openapi::document()).unwrap();
        let properties = &document["components"]["schemas"][schema]["properties"];
        let properties = properties.as_object().expect("the type is documented");
        properties.keys().cloned().collect()
    }

    #[track_caller]
    fn check(columns: &[&str], schema: &str) {
        let mut shown: Vec<String> = columns
            .iter()
            .map(|column| column.split('.').next().unwrap().to_owned())
            .collect();
        shown.sort_unstable();
        shown.dedup();
        let mut documented = fields(schema);
        documented.sort_unstable();
        assert_eq!(shown, documented, "{schema}");
    }

    #[test]
    fn every_documented_field_of_a_list_has_its_column() {
        check(&TASK_COLUMNS, "TaskSummary");
        check(&SUITE_COLUMNS, "SuiteSummary");
        check(&MANAGER_COLUMNS, "ManagerSummary");
        check(&WORKER_COLUMNS, "WorkerSummary");
    }
}
