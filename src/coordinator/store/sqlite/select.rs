//! Selections as conditions of a query. Pure: a selection in, a piece of SQL and its values out.

use rusqlite::types::Value;

use super::rows::state_number;
use crate::protocol::{Selection, Selector};

/// Number of the first parameter that a condition may use.
const FIRST: usize = 5;

/// A condition on the task `t`, its spec `p` and the suite `?4` (or NULL), with the values of `?5` and the following.
#[derive(Debug, PartialEq)]
pub(super) struct Selected {
    pub(super) condition: String,
    pub(super) values: Vec<Value>,
}

impl Default for Selected {
    fn default() -> Self {
        Self {
            condition: "TRUE".to_owned(),
            values: Vec::new(),
        }
    }
}

impl Selected {
    pub(super) fn of(selection: &Selection) -> Self {
        let mut selected = Self {
            condition: String::new(),
            values: Vec::new(),
        };
        let any = |conditions: Vec<String>| format!("({})", conditions.join(" OR "));
        let names: Vec<String> = selection
            .names()
            .map(|name| selected.listed(name))
            .collect();
        let mut sets = Vec::new();
        let lists: Vec<String> = selection
            .lists()
            .map(|list| selected.listed(list))
            .collect();
        if !lists.is_empty() {
            sets.push(any(lists));
        }
        let states: Vec<String> = selection
            .states()
            .map(|state| selected.parameter(Value::Integer(state_number(state))))
            .collect();
        if !states.is_empty() {
            sets.push(format!("t.state IN ({})", states.join(", ")));
        }
        for (key, values) in selection.labels() {
            sets.push(selected.labelled(key, &values));
        }
        let sets = (!sets.is_empty()).then(|| sets.join(" AND "));
        selected.condition = any(names.into_iter().chain(sets).collect());
        selected
    }

    /// Keeps a value; says how it is called in the condition.
    fn parameter(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", FIRST + self.values.len() - 1)
    }

    fn listed(&mut self, selector: &Selector) -> String {
        match selector {
            Selector::Uuid(_) | Selector::Prefix(_) => {
                let bytes = |uuid: uuid::Uuid| Value::Blob(uuid.into_bytes().to_vec());
                let both = selector.uuids().map(|(least, greatest)| [least, greatest]);
                let [least, greatest] =
                    both.map_or([Value::Null, Value::Null], |both| both.map(bytes));
                let (least, greatest) = (self.parameter(least), self.parameter(greatest));
                // A subquery, so that the index on uuids is used whatever else is asked.
                format!("t.id IN (SELECT id FROM tasks WHERE uuid BETWEEN {least} AND {greatest})")
            }
            Selector::Numbers { first, last } => {
                let first = self.parameter(Value::Integer(*first));
                let last = self.parameter(Value::Integer(*last));
                format!("t.id BETWEEN {first} AND {last}")
            }
            // The id of the newest but that many; everything, when there are fewer.
            Selector::Last(count) => {
                let count = self.parameter(Value::Integer(i64::from(*count)));
                format!(
                    "t.id > coalesce((SELECT id FROM tasks WHERE ?4 IS NULL OR suite = ?4
                     ORDER BY id DESC LIMIT 1 OFFSET {count}), 0)"
                )
            }
            // They restrict, and are no list.
            Selector::State(_) | Selector::Label { .. } => "TRUE".to_owned(),
        }
    }

    /// A label of this key with one of the values; with any, where there are none.
    fn labelled(&mut self, key: &str, values: &[&str]) -> String {
        let key = self.parameter(Value::Text(key.to_owned()));
        let values: Vec<String> = values
            .iter()
            .map(|value| self.parameter(Value::Text((*value).to_owned())))
            .collect();
        let value = if values.is_empty() {
            String::new()
        } else {
            format!(" AND l.value IN ({})", values.join(", "))
        };
        format!("EXISTS (SELECT 1 FROM json_each(p.spec, '$.labels') l WHERE l.key = {key}{value})")
    }
}
