//! Filters as row ids: which index is read for each, so that ids come in their order and a page costs a page.
//!
//! Used by lists on the reading side and by cancels on the writing side. Changes nothing.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::query::suite_id;
use super::rows::state_number;
use crate::coordinator::store::{StoreError, TaskQuery};
use crate::protocol::{Selector, TaskState};

/// Where rows are read from and what they have to meet.
#[derive(Debug, PartialEq)]
pub(super) struct Way {
    /// What follows `FROM`; `?1` to `?3` are taken by range and limit.
    clause: String,
    /// `?4` and on.
    values: Vec<Value>,
    /// The column that is the row id.
    id: &'static str,
}

/// What a filter says, with names resolved.
#[derive(Debug, Default)]
struct Filter {
    suite: Option<i64>,
    /// All when empty.
    states: Vec<TaskState>,
    /// Row ids: above the first, up to the second.
    range: (i64, i64),
}

/// Row ids of the tasks that `query` lets through, ascending.
pub(super) fn ids(conn: &Connection, query: &TaskQuery) -> Result<Vec<i64>, StoreError> {
    let suite = query.suite.map(|uuid| suite_id(conn, uuid)).transpose()?;
    let mut filter = Filter {
        suite,
        states: query.states.clone(),
        range: (query.after, i64::MAX),
    };
    match &query.select {
        Some(Selector::State(state)) => {
            if !filter.states.is_empty() && !filter.states.contains(state) {
                return Ok(Vec::new());
            }
            filter.states = vec![*state];
        }
        Some(Selector::Numbers { first, last }) => {
            filter.range = (query.after.max(first.saturating_sub(1)), *last);
        }
        Some(Selector::Last(count)) => {
            filter.range.0 = query.after.max(newest_but(conn, suite, *count)?);
        }
        Some(Selector::Uuid(_) | Selector::Prefix(_) | Selector::Label { .. }) | None => {}
    }
    let ways = ways(&filter, query.select.as_ref());
    let is_merged = ways.len() > 1;
    let mut found = Vec::new();
    for way in ways {
        read(conn, &way, filter.range, query.limit, &mut found)?;
    }
    if is_merged {
        found.sort_unstable();
        found.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    }
    Ok(found)
}

fn read(
    conn: &Connection,
    way: &Way,
    (above, last): (i64, i64),
    limit: u32,
    found: &mut Vec<i64>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(&way.sql())?;
    let fixed = [above, last, i64::from(limit)].map(Value::Integer);
    let values = fixed.into_iter().chain(way.values.iter().cloned());
    for id in statement.query_map(params_from_iter(values), |row| row.get(0))? {
        found.push(id?);
    }
    Ok(())
}

impl Way {
    pub(super) fn sql(&self) -> String {
        let Self { clause, id, .. } = self;
        format!("SELECT {id} FROM {clause} AND {id} > ?1 AND {id} <= ?2 ORDER BY {id} LIMIT ?3")
    }
}

/// How the rows are read; several ways when each of several states has an index.
fn ways(filter: &Filter, select: Option<&Selector>) -> Vec<Way> {
    let integers = |values: &[i64]| values.iter().copied().map(Value::Integer).collect();
    match select {
        Some(Selector::Uuid(_) | Selector::Prefix(_)) => {
            let ends = select.and_then(Selector::uuids);
            let ends = ends.map(|(least, greatest)| [least, greatest]);
            let blobs = ends.unwrap_or_default();
            let mut values: Vec<Value> = blobs
                .map(|uuid| Value::Blob(uuid.into_bytes().to_vec()))
                .to_vec();
            // A subquery, so that the index on uuids is used whatever else is asked.
            let clause = format!(
                "tasks t WHERE t.id IN (SELECT id FROM tasks WHERE uuid BETWEEN ?4 AND ?5){}",
                filter.conditions(&mut values),
            );
            vec![Way::of("t.id", clause, values)]
        }
        Some(Selector::Label { key, value }) => {
            let mut values = vec![Value::Text(key.clone())];
            let condition = match value {
                Some(value) => {
                    values.push(Value::Text(value.clone()));
                    "labels l CROSS JOIN tasks t ON t.id = l.task WHERE l.key = ?4 AND l.value = ?5"
                }
                None => {
                    "labels l INDEXED BY labels_key CROSS JOIN tasks t ON t.id = l.task WHERE l.key = ?4"
                }
            };
            let clause = format!("{condition}{}", filter.conditions(&mut values));
            vec![Way::of("l.task", clause, values)]
        }
        _ if filter.states.is_empty() => vec![match filter.suite {
            None => Way::of("t.id", "tasks t NOT INDEXED WHERE true".into(), Vec::new()),
            Some(suite) => {
                let clause = "tasks t INDEXED BY tasks_suite WHERE t.suite = ?4";
                Way::of("t.id", clause.into(), integers(&[suite]))
            }
        }],
        _ => {
            let of_state = |state: &TaskState| {
                let number = state_number(*state);
                let values = filter.suite.as_slice();
                let clause = match (state, filter.suite) {
                    (TaskState::Assigned | TaskState::Running, suite) => format!(
                        "tasks t INDEXED BY tasks_held WHERE t.holder IS NOT NULL AND t.state = {number}{}",
                        if suite.is_some() {
                            " AND t.suite = ?4"
                        } else {
                            ""
                        },
                    ),
                    (_, Some(_)) => format!(
                        "tasks t INDEXED BY tasks_suite_state WHERE t.suite = ?4 AND t.state = {number}"
                    ),
                    (_, None) => format!(
                        "tasks t INDEXED BY tasks_state WHERE t.state = {number} AND t.state NOT IN (2, 3)"
                    ),
                };
                Way::of("t.id", clause, integers(values))
            };
            filter.states.iter().map(of_state).collect()
        }
    }
}

impl Way {
    fn of(id: &'static str, clause: String, values: Vec<Value>) -> Self {
        Self { clause, values, id }
    }
}

impl Filter {
    /// Suite and states as conditions on a row `t` that was found by something else.
    fn conditions(&self, values: &mut Vec<Value>) -> String {
        let mut text = String::new();
        if !self.states.is_empty() {
            let numbers: Vec<String> = self
                .states
                .iter()
                .map(|state| state_number(*state).to_string())
                .collect();
            text = format!(" AND t.state IN ({})", numbers.join(", "));
        }
        if let Some(suite) = self.suite {
            values.push(Value::Integer(suite));
            text.push_str(&format!(" AND t.suite = ?{}", values.len() + 3));
        }
        text
    }
}

/// The id of the newest task but that many; 0 when there are fewer.
fn newest_but(conn: &Connection, suite: Option<i64>, count: u32) -> Result<i64, StoreError> {
    let sql = match suite {
        None => "SELECT id FROM tasks ORDER BY id DESC LIMIT 1 OFFSET ?1",
        Some(_) => {
            "SELECT id FROM tasks INDEXED BY tasks_suite WHERE suite = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?1"
        }
    };
    let values = std::iter::once(i64::from(count)).chain(suite);
    let mut statement = conn.prepare_cached(sql)?;
    let id = statement.query_row(params_from_iter(values), |row| row.get(0));
    Ok(id.optional()?.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every statement that a filter can become.
    fn statements() -> Vec<String> {
        let label = |value: Option<&str>| Selector::Label {
            key: "k".into(),
            value: value.map(str::to_owned),
        };
        let selectors = [
            None,
            Some(Selector::Prefix("0199f3".into())),
            Some(label(None)),
            Some(label(Some("v"))),
        ];
        let mut statements = Vec::new();
        for select in &selectors {
            for suite in [None, Some(1)] {
                for states in [&[][..], &TaskState::ALL] {
                    let filter = Filter {
                        suite,
                        states: states.to_vec(),
                        ..Filter::default()
                    };
                    let ways = ways(&filter, select.as_ref());
                    statements.extend(ways.iter().map(Way::sql));
                }
            }
        }
        statements
    }

    #[test]
    fn no_list_reads_more_than_it_shows() {
        let conn = Connection::open_in_memory().unwrap();
        for script in super::super::schema::MIGRATIONS {
            conn.execute_batch(script).unwrap();
        }
        for sql in statements() {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1; statement.parameter_count()];
            let rows = statement
                .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
                .unwrap();
            let plan = rows.map(Result::unwrap).collect::<Vec<_>>().join("; ");
            // What is held is as much as the workers have, and a prefix of a uuid names few: those may be sorted.
            let few = sql.contains("tasks_held") || sql.contains("BETWEEN");
            let sorts = plan.contains("TEMP B-TREE");
            assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
            assert!(few || !sorts, "{sql}\n{plan}");
        }
    }

    #[test]
    fn each_state_is_read_in_its_own_way() {
        let filter = Filter {
            states: vec![TaskState::Ready, TaskState::Running],
            ..Filter::default()
        };
        let ways = ways(&filter, None);
        assert!(ways[0].clause.contains("tasks_state"));
        assert!(ways[1].clause.contains("tasks_held"));
    }
}
