//! Selectors as conditions of a query. Pure: a selector in, a piece of SQL and its two values out.

use rusqlite::types::Value;

use super::rows::state_number;
use crate::protocol::Selector;

/// A condition on the task `t`, its spec `p` and the suite `?4` (or NULL), with the values of `?5` and `?6`.
#[derive(Debug, PartialEq)]
pub(super) struct Selected {
    pub(super) condition: &'static str,
    pub(super) values: [Value; 2],
}

impl Default for Selected {
    fn default() -> Self {
        Self {
            condition: "?5 IS NULL AND ?6 IS NULL",
            values: [Value::Null, Value::Null],
        }
    }
}

impl Selected {
    pub(super) fn of(selector: &Selector) -> Self {
        let (condition, values) = match selector {
            Selector::Uuid(_) | Selector::Prefix(_) => {
                let bytes = |uuid: uuid::Uuid| Value::Blob(uuid.into_bytes().to_vec());
                let values = selector.uuids().map(|(least, greatest)| [least, greatest]);
                let values = values.map_or([Value::Null, Value::Null], |both| both.map(bytes));
                // A subquery, so that the index on uuids is used whatever else is asked.
                (
                    "t.id IN (SELECT id FROM tasks WHERE uuid BETWEEN ?5 AND ?6)",
                    values,
                )
            }
            Selector::Numbers { first, last } => {
                let values = [Value::Integer(*first), Value::Integer(*last)];
                ("t.id BETWEEN ?5 AND ?6", values)
            }
            // The id of the newest but that many; everything, when there are fewer.
            Selector::Last(count) => (
                "?6 IS NULL AND t.id > coalesce((SELECT id FROM tasks WHERE ?4 IS NULL OR suite = ?4
                 ORDER BY id DESC LIMIT 1 OFFSET ?5), 0)",
                [Value::Integer(i64::from(*count)), Value::Null],
            ),
            Selector::State(state) => (
                "?6 IS NULL AND t.state = ?5",
                [Value::Integer(state_number(*state)), Value::Null],
            ),
            Selector::Label { key, value } => (
                "EXISTS (SELECT 1 FROM json_each(p.spec, '$.labels') l WHERE l.key = ?5 AND (?6 IS NULL OR l.value = ?6))",
                [
                    Value::Text(key.clone()),
                    value.clone().map_or(Value::Null, Value::Text),
                ],
            ),
        };
        Self { condition, values }
    }
}
