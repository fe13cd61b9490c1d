//! What a task waits for: the ends of other tasks.
//!
//! A task names its upstream tasks in `upstream`, each by its uuid or by the `id` that a task of the same submission
//! gives itself. What the names of one submission mean together is [`super::chain`]'s business; here is one entry.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// Length of a uuid as it is shown: with dashes.
const UUID_CHARS: usize = 36;

/// A task that must end before this one becomes ready.
///
/// Written as an object, or as the name alone where `when` is `ok`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// The task waited for: its uuid, or the `id` of a task of the same submission.
    pub task: String,
    /// The end that releases this task.
    pub when: UpstreamEnd,
}

impl Upstream {
    /// Waits for the good end of a task.
    #[must_use]
    pub fn ok(task: impl Into<String>) -> Self {
        Self {
            task: task.into(),
            when: UpstreamEnd::Ok,
        }
    }

    /// The uuid it names; `None` for the name of a task of the same submission.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        uuid_in(&self.task)
    }
}

/// The uuid that `name` is, in the form in which uuids are shown; any other form is a name.
#[must_use]
pub fn uuid_in(name: &str) -> Option<Uuid> {
    (name.len() == UUID_CHARS)
        .then(|| name.parse().ok())
        .flatten()
}

/// The end of an upstream task that releases its dependant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamEnd {
    /// It completed.
    #[default]
    Ok,
    /// It ended, however.
    Any,
    /// It failed.
    Failed,
}

impl UpstreamEnd {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Any, Self::Failed];

    /// The word used in specs and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Any => "any",
            Self::Failed => "failed",
        }
    }

    /// What has to happen, for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Ok => "must complete",
            Self::Any => "must end",
            Self::Failed => "must fail",
        }
    }
}

/// The form with all fields, which also documents an entry.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UpstreamTask)]
pub struct UpstreamFields {
    /// The task waited for: its uuid, or the `id` of a task of the same submission.
    pub task: String,
    /// The end that releases this task; `ok` when absent.
    #[serde(default)]
    pub when: UpstreamEnd,
}

/// Both forms of an entry, for the document of the API.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[schema(as = Upstream)]
pub enum UpstreamForm {
    /// A task that must complete.
    Name(String),
    /// A task and the end that is waited for.
    Fields(UpstreamFields),
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.when == UpstreamEnd::Ok {
            return serializer.serialize_str(&self.task);
        }
        let mut fields = serializer.serialize_struct("Upstream", 2)?;
        fields.serialize_field("task", &self.task)?;
        fields.serialize_field("when", &self.when)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherForm)
    }
}

struct EitherForm;

impl<'de> Visitor<'de> for EitherForm {
    type Value = Upstream;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a task, or an object with `task` and `when`")
    }

    fn visit_str<E>(self, name: &str) -> Result<Upstream, E> {
        Ok(Upstream::ok(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Upstream, A::Error> {
        let UpstreamFields { task, when } =
            UpstreamFields::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Upstream { task, when })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_waits_for_a_good_end() {
        let read = |text: &str| serde_json::from_str::<Upstream>(text).unwrap();
        assert_eq!(read(r#""build""#), Upstream::ok("build"));
        assert_eq!(read(r#"{"task":"build"}"#), Upstream::ok("build"));
        let any = Upstream {
            task: "build".to_owned(),
            when: UpstreamEnd::Any,
        };
        assert_eq!(read(r#"{"task":"build","when":"any"}"#), any);
        for entry in [Upstream::ok("build"), any] {
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(read(&text), entry);
            let packed = rmp_serde::to_vec_named(&entry).unwrap();
            assert_eq!(rmp_serde::from_slice::<Upstream>(&packed).unwrap(), entry);
        }
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let refused = |text: &str| {
            serde_json::from_str::<Upstream>(text)
                .unwrap_err()
                .to_string()
        };
        assert!(
            refused("3").contains("the name of a task"),
            "{}",
            refused("3")
        );
        assert!(refused(r#"{"when":"any"}"#).contains("missing field `task`"));
        let text = refused(r#"{"task":"a","when":"never"}"#);
        assert!(
            text.contains("expected one of `ok`, `any`, `failed`"),
            "{text}"
        );
    }

    #[test]
    fn only_the_form_with_dashes_is_a_uuid() {
        let uuid = Uuid::from_u128(7);
        assert_eq!(Upstream::ok(uuid.to_string()).uuid(), Some(uuid));
        assert_eq!(Upstream::ok(uuid.simple().to_string()).uuid(), None);
        assert_eq!(Upstream::ok("build").uuid(), None);
    }

    #[test]
    fn every_end_has_the_word_of_its_wire_form() {
        for end in UpstreamEnd::ALL {
            let wire = serde_json::to_value(end).unwrap();
            assert_eq!(wire, end.as_str());
        }
    }
}
