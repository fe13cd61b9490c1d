//! How users name tasks: the grammar of selectors. Pure: text in, a value out.
//!
//! ```text
//!   selector := uuid                    the task
//!             | hex hex hex hex hex hex …  the one task whose uuid begins so
//!             | number                  the task of this number (column NO of a list)
//!             | number "-" number       every task from one to the other
//!             | "last" [":" count]      the newest task, or the newest `count`
//!             | state                   pending, ready, assigned, running, completed, failed, cancelled
//!             | "label:" key ["=" value]   tasks with this label
//! ```
//!
//! The command line parses it, the API carries it as text, the store answers it. A selector that is a [name](Selector::is_name)
//! means one task that has to be there; every other one means a set that may be empty.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::TaskState;

/// Fewest hex digits of a uuid that count as its beginning.
const SHORTEST_PREFIX: usize = 6;
/// Hex digits of a uuid.
const UUID_DIGITS: usize = 32;

/// Which tasks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The task of this uuid.
    Uuid(Uuid),
    /// The task whose uuid begins with these hex digits, in lower case, without dashes.
    Prefix(String),
    /// Tasks by their numbers in the store, both ends included.
    Numbers {
        /// The first.
        first: i64,
        /// The last.
        last: i64,
    },
    /// The newest so many tasks.
    Last(u32),
    /// Tasks in this state.
    State(TaskState),
    /// Tasks with this label.
    Label {
        /// Its key.
        key: String,
        /// Its value; any when absent.
        value: Option<String>,
    },
}

/// The text selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    /// None of the forms.
    #[error(
        "`{0}` names no task; give its uuid, at least {SHORTEST_PREFIX} hex digits from its beginning, its number, a \
         range such as 3-7, a state such as failed, last, last:5, or label:key=value"
    )]
    Unknown(String),
    /// A range from its end to its beginning.
    #[error("`{0}` is a range that ends before it begins")]
    Backwards(String),
    /// Not a number of tasks.
    #[error("`{0}` does not say how many; write for example last:5")]
    Count(String),
    /// No key.
    #[error("`{0}` has no key; write label:key or label:key=value")]
    NoKey(String),
}

impl Selector {
    /// True when it means one task that has to be there.
    #[must_use]
    pub fn is_name(&self) -> bool {
        match self {
            Self::Uuid(_) | Self::Prefix(_) | Self::Last(1) => true,
            Self::Numbers { first, last } => first == last,
            Self::Last(_) | Self::State(_) | Self::Label { .. } => false,
        }
    }

    /// The least and the greatest uuid that a uuid or a prefix of one stands for.
    #[must_use]
    pub fn uuids(&self) -> Option<(Uuid, Uuid)> {
        match self {
            Self::Uuid(uuid) => Some((*uuid, *uuid)),
            Self::Prefix(digits) => {
                let filled = |fill: &str| {
                    let rest = fill.repeat(UUID_DIGITS.saturating_sub(digits.len()));
                    format!("{digits}{rest}").parse().ok()
                };
                Some((filled("0")?, filled("f")?))
            }
            _ => None,
        }
    }
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(uuid) = text.parse() {
            return Ok(Self::Uuid(uuid));
        }
        if let Some(label) = text.strip_prefix("label:") {
            return label_of(label).ok_or_else(|| ParseSelectorError::NoKey(text.to_owned()));
        }
        if let Some(state) = TaskState::parse(text) {
            return Ok(Self::State(state));
        }
        if text == "last" {
            return Ok(Self::Last(1));
        }
        if let Some(count) = text.strip_prefix("last:") {
            let count = count.parse().ok().filter(|count| *count > 0);
            return count
                .map(Self::Last)
                .ok_or_else(|| ParseSelectorError::Count(text.to_owned()));
        }
        if let Some((first, last)) = numbers_of(text) {
            if last < first {
                return Err(ParseSelectorError::Backwards(text.to_owned()));
            }
            return Ok(Self::Numbers { first, last });
        }
        prefix_of(text).ok_or_else(|| ParseSelectorError::Unknown(text.to_owned()))
    }
}

fn label_of(text: &str) -> Option<Selector> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    (!key.is_empty()).then(|| Selector::Label {
        key: key.to_owned(),
        value,
    })
}

fn numbers_of(text: &str) -> Option<(i64, i64)> {
    match text.split_once('-') {
        Some((first, last)) => Some((number_of(first)?, number_of(last)?)),
        None => number_of(text).map(|number| (number, number)),
    }
}

/// Numbers of the store have no leading zero, uuids of this century have one.
fn number_of(text: &str) -> Option<i64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_number)
}

fn prefix_of(text: &str) -> Option<Selector> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_prefix = (SHORTEST_PREFIX..UUID_DIGITS).contains(&digits.len())
        && digits.chars().all(|c| c.is_ascii_hexdigit());
    is_prefix.then(|| Selector::Prefix(digits.to_ascii_lowercase()))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Prefix(digits) => digits.fmt(f),
            Self::Numbers { first, last } if first == last => first.fmt(f),
            Self::Numbers { first, last } => write!(f, "{first}-{last}"),
            Self::Last(1) => f.write_str("last"),
            Self::Last(count) => write!(f, "last:{count}"),
            Self::State(state) => state.fmt(f),
            Self::Label { key, value: None } => write!(f, "label:{key}"),
            Self::Label {
                key,
                value: Some(value),
            } => write!(f, "label:{key}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "01900000-1a2b-7000-8000-00000000000a";

    fn label(key: &str, value: Option<&str>) -> Selector {
        Selector::Label {
            key: key.to_owned(),
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn the_forms_are_told_apart() {
        let numbers = |first, last| Selector::Numbers { first, last };
        let prefix = |digits: &str| Selector::Prefix(digits.to_owned());
        for (text, selector) in [
            (UUID, Selector::Uuid(UUID.parse().unwrap())),
            ("42", numbers(42, 42)),
            ("3-7", numbers(3, 7)),
            ("7-7", numbers(7, 7)),
            ("01900000-1A", prefix("019000001a")),
            ("abcdef", prefix("abcdef")),
            ("019000", prefix("019000")),
            ("last", Selector::Last(1)),
            ("last:5", Selector::Last(5)),
            ("failed", Selector::State(TaskState::Failed)),
            ("label:kind=a=b", label("kind", Some("a=b"))),
            ("label:kind=", label("kind", Some(""))),
            ("label:kind", label("kind", None)),
        ] {
            assert_eq!(text.parse(), Ok(selector), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_and_repeated() {
        for text in [
            "",
            "0",
            "0-3",
            "7-3",
            "3-",
            "-3",
            "3-7-9",
            "abcde",
            "not-a-uuid",
            "last:",
            "last:0",
            "last:-1",
            "label:",
            "label:=v",
            "fail",
            "12345678901234567890x",
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn names_mean_one_task_and_sets_any_number() {
        for name in [UUID, "abcdef", "42", "7-7", "last"] {
            assert!(name.parse::<Selector>().unwrap().is_name(), "{name}");
        }
        for set in ["3-7", "last:2", "failed", "label:a=b"] {
            assert!(!set.parse::<Selector>().unwrap().is_name(), "{set}");
        }
    }

    #[test]
    fn a_prefix_stands_for_every_uuid_that_begins_with_it() {
        let selector: Selector = "01900000-1a".parse().unwrap();
        let (least, greatest) = selector.uuids().unwrap();
        let within = |text: &str| (least..=greatest).contains(&text.parse::<Uuid>().unwrap());
        assert!(within(UUID));
        assert!(within("01900000-1aff-ffff-ffff-ffffffffffff"));
        assert!(!within("01900000-1b00-0000-0000-000000000000"));
        assert!(!within("01900000-19ff-ffff-ffff-ffffffffffff"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_understood_reads_back(text in "\\PC{0,40}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse(), Ok(selector));
            }
        }
    }
}
