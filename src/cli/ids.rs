//! Names of tasks on the command line: a uuid, the beginning of one, or the number of the store.

use std::str::FromStr;

use uuid::Uuid;

use crate::protocol::api::TaskSummary;

/// Fewest hex digits of a uuid that count as its beginning.
const SHORTEST_PREFIX: usize = 6;

/// A task as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskName {
    /// Its uuid.
    Uuid(Uuid),
    /// Its number in the store.
    Row(i64),
    /// The first hex digits of its uuid, in lower case, without dashes.
    Prefix(String),
}

/// The text names no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no task; give its uuid, at least {SHORTEST_PREFIX} hex digits from its beginning, or its number"
)]
pub(super) struct ParseTaskNameError(String);

impl FromStr for TaskName {
    type Err = ParseTaskNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(uuid) = text.parse() {
            return Ok(Self::Uuid(uuid));
        }
        // Numbers of the store have no leading zero, uuids of this century have one.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        if let Some(row) = text.parse().ok().filter(|_| is_number) {
            return Ok(Self::Row(row));
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let is_prefix = (SHORTEST_PREFIX..32).contains(&digits.len());
        if is_prefix && digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Ok(Self::Prefix(digits.to_ascii_lowercase()));
        }
        Err(ParseTaskNameError(text.to_owned()))
    }
}

impl TaskName {
    /// True when a task has this name.
    pub(super) fn names(&self, task: &TaskSummary) -> bool {
        match self {
            Self::Uuid(uuid) => task.uuid == *uuid,
            Self::Row(id) => task.id == *id,
            Self::Prefix(digits) => task.uuid.simple().to_string().starts_with(digits),
        }
    }
}

impl std::fmt::Display for TaskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Row(id) => id.fmt(f),
            Self::Prefix(digits) => digits.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "01900000-1a2b-7000-8000-00000000000a";

    #[test]
    fn the_three_forms_are_told_apart() {
        assert_eq!(UUID.parse(), Ok(TaskName::Uuid(UUID.parse().unwrap())));
        assert_eq!("42".parse(), Ok(TaskName::Row(42)));
        assert_eq!(
            "01900000-1A".parse(),
            Ok(TaskName::Prefix("019000001a".to_owned()))
        );
        assert_eq!("abcdef".parse(), Ok(TaskName::Prefix("abcdef".to_owned())));
        assert_eq!("019000".parse(), Ok(TaskName::Prefix("019000".to_owned())));
    }

    #[test]
    fn everything_else_is_refused_and_repeated() {
        for text in [
            "",
            "0",
            "abcde",
            "not-a-uuid",
            "-1",
            "12345678901234567890x",
        ] {
            let error = text.parse::<TaskName>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
