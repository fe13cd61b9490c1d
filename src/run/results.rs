//! Results as a table: one row per ended task, as CSV or as JSON lines.
//!
//! In CSV each argument of a task has a column `argument.<number>`. What a task wrote to `MITO_RESULT_DIR/result.json` is in `result`; in CSV, the keys of an object have a column
//! `result.<key>` each. Rows lie in a spool until the end, because only then all columns are known and the order of the
//! input can be kept; the file appears whole. Owned by the printer thread.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::draft::{Draft, Spool};
use super::row::Row;

/// Most columns that keys of results may have; what further keys hold stays together in the column `result`.
const MAX_KEYS: usize = 1000;
/// Columns of every table, in order; the results follow.
const COLUMNS: [&str; 15] = [
    "line",
    "follow_up",
    "array_index",
    "command",
    "args",
    "state",
    "reason",
    "exit_code",
    "signal",
    "attempts",
    "started_at",
    "wall_seconds",
    "cpu_seconds",
    "peak_memory_bytes",
    "message",
];

/// The form of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A header and one line per task.
    Csv,
    /// One JSON object per task.
    Jsonl,
}

/// Where a table goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsFile {
    /// The file.
    pub path: PathBuf,
    /// Its form.
    pub form: Form,
}

impl std::str::FromStr for ResultsFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let form = match ending {
            Some("csv") => Form::Csv,
            Some("jsonl") => Form::Jsonl,
            _ => return Err("the name decides the form; let it end in .csv or .jsonl (a directory of outputs is --output-dir DIR)".to_owned()),
        };
        Ok(Self { path, form })
    }
}

/// A row as it lies in the spool, and as a JSON line.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    line: u64,
    follow_up: u32,
    array_index: Option<i64>,
    command: String,
    args: Vec<String>,
    arguments: Vec<String>,
    state: String,
    reason: String,
    exit_code: Option<i32>,
    signal: Option<i32>,
    attempts: u32,
    started_at: Option<String>,
    wall_seconds: f64,
    cpu_seconds: f64,
    peak_memory_bytes: u64,
    message: Option<String>,
    result: Option<Value>,
}

impl Record {
    fn of(row: &Row) -> Self {
        let result = &row.result;
        Self {
            line: row.place.line,
            follow_up: row.place.follow_up,
            array_index: row.array_index,
            command: row.command.clone(),
            args: row.args.clone(),
            arguments: row.arguments.clone(),
            state: row.outcome.as_str().to_owned(),
            reason: result.reason.as_str().to_owned(),
            exit_code: result.exit_code,
            signal: result.signal,
            attempts: row.attempts,
            started_at: row.started_at(),
            wall_seconds: row.wall().as_secs_f64(),
            cpu_seconds: row.cpu().as_secs_f64(),
            peak_memory_bytes: result.max_rss_bytes,
            message: result.message.clone(),
            result: result.value.as_deref().cloned(),
        }
    }

    /// What stands in [`COLUMNS`].
    fn cells(&self) -> io::Result<[String; COLUMNS.len()]> {
        Ok([
            self.line.to_string(),
            self.follow_up.to_string(),
            text(self.array_index.as_ref()),
            self.command.clone(),
            serde_json::to_string(&self.args)?,
            self.state.clone(),
            self.reason.clone(),
            text(self.exit_code.as_ref()),
            text(self.signal.as_ref()),
            self.attempts.to_string(),
            text(self.started_at.as_ref()),
            format!("{:.6}", self.wall_seconds),
            format!("{:.6}", self.cpu_seconds),
            self.peak_memory_bytes.to_string(),
            text(self.message.as_ref()),
        ])
    }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A table in the making.
#[derive(Debug)]
pub struct Results {
    draft: Draft,
    form: Form,
    rows: Spool,
    keys: Keys,
    /// Most arguments of a task.
    arguments: usize,
}

impl Results {
    /// Begins a table.
    ///
    /// # Errors
    /// When the directory of the file cannot be written.
    pub fn create(file: &ResultsFile) -> io::Result<Self> {
        Ok(Self {
            draft: Draft::create(&file.path)?,
            form: file.form,
            rows: Spool::beside(&file.path)?,
            keys: Keys::default(),
            arguments: 0,
        })
    }

    /// Adds a task.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        let record = Record::of(row);
        self.arguments = self.arguments.max(record.arguments.len());
        if let Some(value) = &record.result {
            self.keys.note(value);
        }
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.rows.push(row.place, &line)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut draft = self.draft;
        match self.form {
            Form::Jsonl => self.rows.in_order(|line| draft.write_all(line))?,
            Form::Csv => write_csv(&mut draft, self.rows, &self.keys, self.arguments)?,
        }
        draft.commit()
    }
}

fn write_csv(to: &mut impl Write, rows: Spool, keys: &Keys, arguments: usize) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(to);
    let head = COLUMNS.iter().map(|&name| name.to_owned());
    let numbered = (1..=arguments).map(|number| format!("argument.{number}"));
    table.write_record(head.chain(numbered).chain(keys.columns()))?;
    rows.in_order(|line| {
        let record: Record = serde_json::from_slice(line)?;
        let values = keys.cells(record.result.as_ref())?;
        let mut given = record.arguments.clone();
        given.resize(arguments, String::new());
        let cells = record.cells()?.into_iter().chain(given);
        table.write_record(cells.chain(values))?;
        Ok(())
    })?;
    table.flush()
}

/// The columns of results: keys of objects in the order in which they were met, and one for everything else.
#[derive(Debug, Default)]
struct Keys {
    names: Vec<String>,
    places: HashMap<String, usize>,
    needs_whole: bool,
}

impl Keys {
    fn note(&mut self, value: &Value) {
        let Value::Object(object) = value else {
            self.needs_whole = true;
            return;
        };
        for key in object.keys() {
            if self.places.contains_key(key) {
                continue;
            }
            if self.names.len() == MAX_KEYS {
                self.needs_whole = true;
                return;
            }
            self.places.insert(key.clone(), self.names.len());
            self.names.push(key.clone());
        }
    }

    fn columns(&self) -> impl Iterator<Item = String> + '_ {
        let whole = self.needs_whole.then(|| "result".to_owned());
        let keys = self.names.iter().map(|name| format!("result.{name}"));
        whole.into_iter().chain(keys)
    }

    fn cells(&self, value: Option<&Value>) -> io::Result<Vec<String>> {
        let mut cells = vec![String::new(); self.names.len()];
        let mut whole = String::new();
        match value {
            None => {}
            Some(Value::Object(object)) => {
                let mut rest = serde_json::Map::new();
                for (key, value) in object {
                    match self.places.get(key) {
                        Some(place) => cells[*place] = cell(value)?,
                        None => drop(rest.insert(key.clone(), value.clone())),
                    }
                }
                if !rest.is_empty() {
                    whole = serde_json::to_string(&rest)?;
                }
            }
            Some(other) => whole = cell(other)?,
        }
        if self.needs_whole {
            cells.insert(0, whole);
        }
        Ok(cells)
    }
}

/// A value in a cell: text as it is, nothing for null, everything else as JSON.
fn cell(value: &Value) -> io::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Ok(serde_json::to_string(other)?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::row::tests::row;

    fn table(name: &str, rows: &[(u64, Option<Value>)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut file: ResultsFile = name.parse().unwrap();
        file.path = dir.path().join(file.path);
        let mut results = Results::create(&file).unwrap();
        for (line, value) in rows {
            let mut row = row(*line, "echo \"a, b\"", 0);
            row.result.value = value.clone().map(Box::new);
            results.write(&row).unwrap();
        }
        results.finish().unwrap();
        std::fs::read_to_string(file.path).unwrap()
    }

    fn read(table: &str) -> Vec<HashMap<String, String>> {
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        reader.deserialize().map(Result::unwrap).collect()
    }

    #[test]
    fn the_columns_are_a_contract() {
        insta::assert_snapshot!(table(
            "r.csv",
            &[(2, Some(json!({"loss": 0.5, "name": "a\nb"}))), (1, None)]
        ));
        insta::assert_snapshot!(table("r.jsonl", &[(1, Some(json!([1, 2])))]));
    }

    #[test]
    fn objects_have_a_column_per_key_and_other_values_one() {
        let rows = read(&table(
            "r.csv",
            &[
                (1, Some(json!({"a": 1, "deep": {"x": [null]}}))),
                (2, Some(json!("text"))),
                (3, Some(json!({"b": null, "a": true}))),
                (4, None),
            ],
        ));
        assert_eq!(
            (&*rows[0]["result.a"], &*rows[0]["result.deep"]),
            ("1", "{\"x\":[null]}")
        );
        assert_eq!((&*rows[1]["result"], &*rows[1]["result.a"]), ("text", ""));
        assert_eq!((&*rows[2]["result.a"], &*rows[2]["result.b"]), ("true", ""));
        assert_eq!(&*rows[3]["result"], "");
        assert_eq!(&*rows[3]["command"], "echo \"a, b\"");
    }

    #[test]
    fn every_argument_has_a_column() {
        let dir = tempfile::tempdir().unwrap();
        let mut file: ResultsFile = "r.csv".parse().unwrap();
        file.path = dir.path().join("r.csv");
        let mut results = Results::create(&file).unwrap();
        for (line, arguments) in [(1, vec!["a, b"]), (2, vec!["c", "d"])] {
            let mut row = row(line, "echo", 0);
            row.arguments = arguments.into_iter().map(str::to_owned).collect();
            results.write(&row).unwrap();
        }
        results.finish().unwrap();
        let rows = read(&std::fs::read_to_string(file.path).unwrap());
        assert_eq!(
            (&*rows[0]["argument.1"], &*rows[0]["argument.2"]),
            ("a, b", "")
        );
        assert_eq!(
            (&*rows[1]["argument.1"], &*rows[1]["argument.2"]),
            ("c", "d")
        );
    }

    #[test]
    fn more_keys_than_a_table_can_show_stay_together() {
        let many: serde_json::Map<_, _> = (0..MAX_KEYS + 2)
            .map(|n| (n.to_string(), json!(n)))
            .collect();
        let rows = read(&table("r.csv", &[(1, Some(Value::Object(many)))]));
        let whole: Value = serde_json::from_str(&rows[0]["result"]).unwrap();
        assert_eq!(whole.as_object().unwrap().len(), 2);
        assert_eq!(rows[0].len(), COLUMNS.len() + 1 + MAX_KEYS);
    }

    #[test]
    fn a_name_without_a_known_form_is_refused() {
        for name in ["results", "results.json", "results.xls", ""] {
            assert!(name.parse::<ResultsFile>().is_err(), "{name}");
        }
    }
}
