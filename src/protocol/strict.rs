//! Finds misspelt fields in what people write.
//!
//! Between processes unknown fields are ignored, so that a newer peer may add some. What a person writes is another
//! matter: a task whose `timeuot` is ignored runs for ever. [`unknown_field`] holds a JSON value against the schema of
//! the type it will be read as. The HTTP face uses it on bodies of users, the command line on task files. It checks
//! names only; types and values are the deserializer's part.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A field that the type does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no field `{path}`{}", .meant.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
pub struct UnknownField {
    /// Where it stands, e.g. `tasks[3].timeuot`.
    pub path: String,
    /// The field that may have been meant.
    pub meant: Option<String>,
}

/// The schema of one type with everything it refers to. Building it costs some microseconds; keep it.
#[derive(Clone)]
pub struct Fields {
    root: RefOr<Schema>,
    named: BTreeMap<String, RefOr<Schema>>,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fields")
            .field("named", &self.named.keys())
            .finish_non_exhaustive()
    }
}

impl Fields {
    /// The fields of `T`.
    #[must_use]
    pub fn of<T: ToSchema>() -> Self {
        let mut named = Vec::new();
        T::schemas(&mut named);
        Self {
            root: <T as PartialSchema>::schema(),
            named: named.into_iter().collect(),
        }
    }

    /// The first field of `value` that the type does not have.
    #[must_use]
    pub fn unknown(&self, value: &Value) -> Option<UnknownField> {
        self.check(&self.root, value, "")
    }

    fn check(&self, schema: &RefOr<Schema>, value: &Value, path: &str) -> Option<UnknownField> {
        match value {
            Value::Object(entries) => {
                let shape = self.shape(schema, value)?;
                entries.iter().find_map(|(name, inner)| {
                    let path = join(path, name);
                    match (shape.fields.get(name.as_str()), shape.rest) {
                        (Some(field), _) => self.check(field, inner, &path),
                        (None, Rest::Schema(rest)) => self.check(rest, inner, &path),
                        (None, Rest::Anything) => None,
                        (None, Rest::Nothing) => Some(UnknownField {
                            meant: nearest(name, shape.fields.keys().copied()),
                            path,
                        }),
                    }
                })
            }
            Value::Array(items) => {
                let item_schema = self.items(schema)?;
                items.iter().enumerate().find_map(|(index, item)| {
                    self.check(item_schema, item, &format!("{path}[{index}]"))
                })
            }
            _ => None,
        }
    }

    /// What an object of this schema may hold; `None` when the schema is not about objects, which is for the
    /// deserializer to say.
    fn shape<'a>(&'a self, schema: &'a RefOr<Schema>, value: &Value) -> Option<Shape<'a>> {
        match self.resolve(schema)? {
            Schema::Object(object) => Some(Shape::of(object)),
            Schema::AllOf(all) => {
                // A flattened field: its fields stand beside the others.
                let parts = all.items.iter().filter_map(|part| self.shape(part, value));
                parts.reduce(Shape::join)
            }
            Schema::OneOf(one) => self.alternative(&one.items, value),
            Schema::AnyOf(any) => self.alternative(&any.items, value),
            _ => None,
        }
    }

    /// Of an enum's variants the one that has all fields of the value; the first about objects when none has.
    fn alternative<'a>(
        &'a self,
        variants: &'a [RefOr<Schema>],
        value: &Value,
    ) -> Option<Shape<'a>> {
        let shapes = variants
            .iter()
            .filter_map(|variant| self.shape(variant, value));
        let names: Vec<&str> = value
            .as_object()
            .into_iter()
            .flat_map(|entries| entries.keys().map(String::as_str))
            .collect();
        let mut first: Option<Shape<'a>> = None;
        for shape in shapes {
            if names.iter().all(|name| shape.fields.contains_key(name)) {
                return Some(shape);
            }
            first = Some(match first {
                None => shape,
                Some(before) => before.join(shape),
            });
        }
        first
    }

    fn items<'a>(&'a self, schema: &'a RefOr<Schema>) -> Option<&'a RefOr<Schema>> {
        match self.resolve(schema)? {
            Schema::Array(array) => match &array.items {
                utoipa::openapi::schema::ArrayItems::RefOrSchema(items) => Some(items),
                utoipa::openapi::schema::ArrayItems::False => None,
            },
            Schema::OneOf(one) => one.items.iter().find_map(|variant| self.items(variant)),
            Schema::AnyOf(any) => any.items.iter().find_map(|variant| self.items(variant)),
            _ => None,
        }
    }

    fn resolve<'a>(&'a self, schema: &'a RefOr<Schema>) -> Option<&'a Schema> {
        match schema {
            RefOr::T(schema) => Some(schema),
            RefOr::Ref(reference) => {
                let name = reference.ref_location.rsplit('/').next()?;
                self.resolve(self.named.get(name)?)
            }
        }
    }
}

/// The first field of `value` that `T` does not have. For single calls; [`Fields`] is for many.
#[must_use]
pub fn unknown_field<T: ToSchema>(value: &Value) -> Option<UnknownField> {
    Fields::of::<T>().unknown(value)
}

struct Shape<'a> {
    fields: BTreeMap<&'a str, &'a RefOr<Schema>>,
    rest: Rest<'a>,
}

#[derive(Clone, Copy)]
enum Rest<'a> {
    Nothing,
    Schema(&'a RefOr<Schema>),
    Anything,
}

impl<'a> Shape<'a> {
    fn of(object: &'a Object) -> Self {
        let fields: BTreeMap<_, _> = object
            .properties
            .iter()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        let rest = match object.additional_properties.as_deref() {
            Some(AdditionalProperties::RefOr(schema)) => Rest::Schema(schema),
            Some(AdditionalProperties::FreeForm(true)) => Rest::Anything,
            _ => Rest::Nothing,
        };
        Self { fields, rest }
    }

    fn join(mut self, other: Self) -> Self {
        self.fields.extend(other.fields);
        if matches!(self.rest, Rest::Nothing) {
            self.rest = other.rest;
        }
        self
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The known name within two typing errors; a third makes it another word.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = if name.len() <= 3 { 1 } else { 2 };
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::TaskSpec;
    use crate::protocol::api::{CancelRequest, SubmitRequest};

    #[track_caller]
    fn check<T: ToSchema>(value: &Value, expected: Option<(&str, Option<&str>)>) {
        let found = unknown_field::<T>(value);
        let found = found
            .as_ref()
            .map(|field| (field.path.as_str(), field.meant.as_deref()));
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn a_misspelt_field_of_a_task_is_named_with_its_place() {
        let value = json!({"tasks": [{"args": ["a"]}, {"args": ["b"], "timeuot": "3s"}]});
        check::<SubmitRequest>(&value, Some(("tasks[1].timeuot", Some("timeout"))));
        check::<TaskSpec>(
            &json!({"args": ["a"], "quite_another": 1}),
            Some(("quite_another", None)),
        );
        check::<CancelRequest>(
            &json!({"gracefull": true}),
            Some(("gracefull", Some("graceful"))),
        );
    }

    #[test]
    fn fields_inside_fields_are_looked_at() {
        let spec = |field: &str, inner: Value| json!({"tasks": [{"args": ["a"], field: inner}]});
        check::<SubmitRequest>(
            &spec("resources", json!({"cpu": 1})),
            Some(("tasks[0].resources.cpu", Some("cpus"))),
        );
        check::<SubmitRequest>(
            &spec("backoff", json!({"inital": "1s"})),
            Some(("tasks[0].backoff.inital", Some("initial"))),
        );
        check::<SubmitRequest>(
            &spec("upstream", json!(["a", {"task": "b", "whn": "any"}])),
            Some(("tasks[0].upstream[1].whn", Some("when"))),
        );
        check::<SubmitRequest>(
            &spec("stdin", json!({"txt": "x"})),
            Some(("tasks[0].stdin.txt", Some("text"))),
        );
        let suite = json!({"tasks": [], "suite": {"new": {"nme": "x"}}});
        check::<SubmitRequest>(&suite, Some(("suite.new.nme", Some("name"))));
    }

    #[test]
    fn everything_the_types_have_is_known() {
        let task = json!({
            "key": "k", "args": ["a", "b"], "shell": true, "env": {"ANY": "x"}, "cwd": "/", "stdin": {"text": "x"},
            "timeout": "3s", "grace": 4, "signal": "USR1@60s", "inputs": [{"url": "u", "path": "p", "sha256": "s"}],
            "resources": {"cpus": 1.5, "mem_bytes": 3, "gpus": 1, "pin": true, "named": {"licence": 2}}, "priority": 3,
            "limits": {"memory_bytes": 1, "file_size_bytes": 2, "open_files": 3},
            "tags": ["t"], "labels": {"free": "form"}, "max_attempts": 2, "backoff": {"initial": "1s", "max": "2s"},
            "direct": "never", "capture": {"limit_bytes": 3, "streams": "merged"}, "array_index": 3, "entry": "e",
            "id": "name", "upstream": ["build", {"task": "00000000-0000-0000-0000-000000000000", "when": "any"}]
        });
        let suite = json!({"uuid": "00000000-0000-0000-0000-000000000000"});
        check::<SubmitRequest>(&json!({"suite": suite, "tasks": [task]}), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_left_to_the_deserializer() {
        check::<SubmitRequest>(&json!(3), None);
        check::<SubmitRequest>(&json!({"tasks": 3}), None);
        check::<SubmitRequest>(&json!({"tasks": [3, null]}), None);
    }
}
