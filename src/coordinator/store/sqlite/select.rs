//! Filters as row ids: which index is read for each, so that ids come in their order and a page costs a page.
//!
//! Used by lists on the reading side and by cancels on the writing side. Changes nothing.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::query::suite_id;
use super::rows::state_number;
use crate::coordinator::store::{StoreError, TaskQuery};
use crate::protocol::{Selection, Selector, TaskState};

/// Where rows are read from and what they have to meet.
#[derive(Debug, PartialEq)]
struct Way {
    /// What follows `FROM`; `?1` to `?3` are taken by range and limit.
    clause: String,
    /// `?4` and on.
    values: Vec<Value>,
    /// The column that is the row id.
    id: &'static str,
}

/// What has to be met, with names resolved.
#[derive(Debug, Clone, Default)]
struct Filter {
    suite: Option<i64>,
    /// All when empty.
    states: Vec<TaskState>,
    /// Keys that have to be there, each with one of its values; any value where there are none.
    labels: Vec<(String, Vec<String>)>,
    /// Only what no retry has repeated.
    unrepeated: bool,
}

/// Row ids: above the first, up to the second.
type Range = (i64, i64);

/// Row ids of the tasks that `query` lets through, ascending.
pub(super) fn ids(conn: &Connection, query: &TaskQuery) -> Result<Vec<i64>, StoreError> {
    let filter = Filter {
        suite: query.suite.map(|uuid| suite_id(conn, uuid)).transpose()?,
        states: query.states.clone(),
        labels: Vec::new(),
        unrepeated: query.unrepeated,
    };
    let whole = (query.after, i64::MAX);
    let mut found = Found {
        conn,
        limit: query.limit,
        ids: Vec::new(),
        ways: 0,
    };
    let Some(selection) = &query.select else {
        found.read(&filter.ways(), whole)?;
        return Ok(found.sorted());
    };
    for name in selection.names() {
        match filter.of_uuid(name) {
            Some(way) => found.read(&[way], whole)?,
            None => found.read(
                &filter.ways(),
                range(conn, filter.suite, query.after, name)?,
            )?,
        }
    }
    if let Some(filter) = filter.restricted(selection) {
        let mut lists = selection.lists().peekable();
        let ways = filter.ways();
        if lists.peek().is_none() {
            found.read(&ways, whole)?;
        }
        for list in lists {
            found.read(&ways, range(conn, filter.suite, query.after, list)?)?;
        }
    }
    Ok(found.sorted())
}

/// What was read so far.
struct Found<'c> {
    conn: &'c Connection,
    limit: u32,
    ids: Vec<i64>,
    ways: usize,
}

impl Found<'_> {
    fn read(&mut self, ways: &[Way], (above, last): Range) -> Result<(), StoreError> {
        for way in ways {
            self.ways += 1;
            let mut statement = self.conn.prepare_cached(&way.sql())?;
            let fixed = [above, last, i64::from(self.limit)].map(Value::Integer);
            let values = fixed.into_iter().chain(way.values.iter().cloned());
            for id in statement.query_map(params_from_iter(values), |row| row.get(0))? {
                self.ids.push(id?);
            }
        }
        Ok(())
    }

    /// One way comes sorted; several are merged.
    fn sorted(mut self) -> Vec<i64> {
        if self.ways > 1 {
            self.ids.sort_unstable();
            self.ids.dedup();
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            self.ids.truncate(limit);
        }
        self.ids
    }
}

impl Way {
    fn of(id: &'static str, clause: String, values: Vec<Value>) -> Self {
        Self { clause, values, id }
    }

    fn sql(&self) -> String {
        let Self { clause, id, .. } = self;
        format!("SELECT {id} FROM {clause} AND {id} > ?1 AND {id} <= ?2 ORDER BY {id} LIMIT ?3")
    }
}

impl Filter {
    /// The same with what the sets of a selection ask for; `None` where it has none, or they let nothing through.
    fn restricted(&self, selection: &Selection) -> Option<Self> {
        let mut states: Vec<TaskState> = selection.states().collect();
        let labels = selection.labels();
        if states.is_empty() && labels.is_empty() && selection.lists().next().is_none() {
            return None;
        }
        if states.is_empty() {
            states.clone_from(&self.states);
        } else if !self.states.is_empty() {
            states.retain(|state| self.states.contains(state));
            if states.is_empty() {
                return None;
            }
        }
        states.sort_unstable();
        states.dedup();
        let owned = |(key, values): (&str, Vec<&str>)| {
            let values = values.into_iter().map(str::to_owned).collect();
            (key.to_owned(), values)
        };
        Some(Self {
            states,
            labels: labels.into_iter().map(owned).collect(),
            ..self.clone()
        })
    }

    /// How a uuid or its beginning is found.
    fn of_uuid(&self, name: &Selector) -> Option<Way> {
        let (least, greatest) = name.uuids()?;
        let mut values = [least, greatest]
            .map(|uuid| Value::Blob(uuid.into_bytes().to_vec()))
            .to_vec();
        // A subquery, so that the index on uuids is used whatever else is asked.
        let clause = format!(
            "tasks t WHERE t.id IN (SELECT id FROM tasks WHERE uuid BETWEEN ?4 AND ?5){}",
            self.conditions(&mut values, 0),
        );
        Some(Way::of("t.id", clause, values))
    }

    /// How the rows are read; several ways where each of several states or values has its part of an index.
    fn ways(&self) -> Vec<Way> {
        if let Some((key, values)) = self.labels.first() {
            return self.by_label(key, values);
        }
        if !self.states.is_empty() {
            return self
                .states
                .iter()
                .map(|state| self.by_state(*state))
                .collect();
        }
        let mut values = Vec::new();
        let clause = match self.suite {
            None => "tasks t NOT INDEXED WHERE true",
            Some(suite) => {
                values.push(Value::Integer(suite));
                "tasks t INDEXED BY tasks_suite WHERE t.suite = ?4"
            }
        };
        let clause = format!("{clause}{}", self.repeated());
        vec![Way::of("t.id", clause, values)]
    }

    fn by_label(&self, key: &str, values: &[String]) -> Vec<Way> {
        let way = |value: Option<&String>| {
            let mut given = vec![Value::Text(key.to_owned())];
            let driver = match value {
                Some(value) => {
                    given.push(Value::Text(value.clone()));
                    "labels l CROSS JOIN tasks t ON t.id = l.task WHERE l.key = ?4 AND l.value = ?5"
                }
                None => {
                    "labels l INDEXED BY labels_key CROSS JOIN tasks t ON t.id = l.task WHERE l.key = ?4"
                }
            };
            let clause = format!("{driver}{}", self.conditions(&mut given, 1));
            Way::of("l.task", clause, given)
        };
        if values.is_empty() {
            return vec![way(None)];
        }
        values.iter().map(|value| way(Some(value))).collect()
    }

    fn by_state(&self, state: TaskState) -> Way {
        let number = state_number(state);
        let values = self.suite.map(Value::Integer).into_iter().collect();
        let clause = match (state, self.suite) {
            (TaskState::Assigned | TaskState::Running, suite) => {
                let suite = suite.map_or("", |_| " AND t.suite = ?4");
                format!(
                    "tasks t INDEXED BY tasks_held WHERE t.holder IS NOT NULL AND t.state = {number}{suite}"
                )
            }
            (_, Some(_)) => format!(
                "tasks t INDEXED BY tasks_suite_state WHERE t.suite = ?4 AND t.state = {number}"
            ),
            (_, None) => format!(
                "tasks t INDEXED BY tasks_state WHERE t.state = {number} AND t.state NOT IN (2, 3)"
            ),
        };
        Way::of("t.id", clause + self.repeated(), values)
    }

    /// Suite, states and the labels from one on, as conditions on a row `t` that was found by something else.
    fn conditions(&self, values: &mut Vec<Value>, first_label: usize) -> String {
        let mut text = self.repeated().to_owned();
        if !self.states.is_empty() {
            let numbers: Vec<String> = self
                .states
                .iter()
                .map(|state| state_number(*state).to_string())
                .collect();
            text += &format!(" AND t.state IN ({})", numbers.join(", "));
        }
        let mut given = |value: Value| {
            values.push(value);
            format!("?{}", values.len() + 3)
        };
        if let Some(suite) = self.suite {
            text += &format!(" AND t.suite = {}", given(Value::Integer(suite)));
        }
        for (key, wanted) in self.labels.iter().skip(first_label) {
            let key = given(Value::Text(key.clone()));
            let wanted: Vec<String> = wanted
                .iter()
                .map(|value| given(Value::Text(value.clone())))
                .collect();
            let value = match wanted.is_empty() {
                true => String::new(),
                false => format!(" AND o.value IN ({})", wanted.join(", ")),
            };
            text += &format!(
                " AND EXISTS (SELECT 1 FROM labels o WHERE o.key = {key} AND o.task = t.id{value})"
            );
        }
        text
    }

    fn repeated(&self) -> &'static str {
        match self.unrepeated {
            true => " AND NOT EXISTS (SELECT 1 FROM tasks r WHERE r.retry_of = t.id)",
            false => "",
        }
    }
}

/// The row ids that a list means, above `after`.
fn range(
    conn: &Connection,
    suite: Option<i64>,
    after: i64,
    list: &Selector,
) -> Result<Range, StoreError> {
    Ok(match list {
        Selector::Numbers { first, last } => (after.max(first.saturating_sub(1)), *last),
        Selector::Last(count) => (after.max(newest_but(conn, suite, *count)?), i64::MAX),
        _ => (after, i64::MAX),
    })
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

    /// Every statement that a filter can become, but for its number of labels.
    fn statements() -> Vec<String> {
        let label = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            (key.to_owned(), values)
        };
        let labels = [
            vec![],
            vec![label("k", &[])],
            vec![label("k", &["v"])],
            vec![label("k", &["v", "w"]), label("o", &["x"]), label("p", &[])],
        ];
        let prefix: Selector = "0199f3a2".parse().unwrap();
        let mut statements = Vec::new();
        for (labels, suite) in labels
            .iter()
            .flat_map(|some| [(some, None), (some, Some(1))])
        {
            for (states, unrepeated) in [
                (&[][..], false),
                (&[][..], true),
                (&TaskState::ALL, false),
                (&TaskState::ALL, true),
            ] {
                let filter = Filter {
                    suite,
                    states: states.to_vec(),
                    labels: labels.clone(),
                    unrepeated,
                };
                let ways = filter.ways().into_iter().chain(filter.of_uuid(&prefix));
                statements.extend(ways.map(|way| way.sql()));
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
}
