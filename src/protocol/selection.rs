//! Several selectors together. Pure: text in, a value out.
//!
//! A name (a uuid, its beginning, a number, `last`) is always meant. Sets of one kind are alternatives, kinds restrict each
//! other, and so do labels of different keys:
//!
//! | given | means |
//! |---|---|
//! | `failed cancelled` | every task in one of these states |
//! | `label:sweep=a failed` | the failed ones among those with this label |
//! | `label:sweep=a label:sweep=b label:day` | those of either sweep that also have a day |
//! | `last:20 3-7 failed` | the failed ones among the newest twenty and numbers 3 to 7 |
//! | `42 failed` | task 42, and the failed ones |
//!
//! The API carries one selector as it is written, several as a JSON list of such texts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::TaskState;
use super::select::{ParseSelectorError, Selector};

/// Most selectors together: what one query of a store holds with ease.
pub const MAX_SELECTORS: usize = 500;

/// Which tasks are meant, in one or more selectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Vec<Selector>);

/// The text is no selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectionError {
    /// One selector is wrong.
    #[error(transparent)]
    Selector(#[from] ParseSelectorError),
    /// Neither a selector nor a list.
    #[error(
        "`{0}` is no JSON list of selectors; write for example [\"label:sweep=a\", \"failed\"]"
    )]
    List(String),
    /// None, or more than are taken.
    #[error(
        "{0} selectors were given; 1 to {MAX_SELECTORS} are taken at once, write ranges such as 3-700"
    )]
    Count(usize),
}

impl Selection {
    /// These selectors together.
    ///
    /// # Errors
    /// When there is none, or there are too many.
    pub fn of(selectors: Vec<Selector>) -> Result<Self, ParseSelectionError> {
        match selectors.len() {
            1..=MAX_SELECTORS => Ok(Self(selectors)),
            count => Err(ParseSelectionError::Count(count)),
        }
    }

    /// The tasks that are named one by one; they are meant whatever else is said.
    pub fn names(&self) -> impl Iterator<Item = &Selector> {
        self.0.iter().filter(|selector| selector.is_name())
    }

    /// Numbers and the newest; any of them, where there are some.
    pub fn lists(&self) -> impl Iterator<Item = &Selector> {
        let is_list = |selector: &&Selector| {
            let others = matches!(selector, Selector::State(_) | Selector::Label { .. });
            !others && !selector.is_name()
        };
        self.0.iter().filter(is_list)
    }

    /// The states; any of them, where there are some.
    pub fn states(&self) -> impl Iterator<Item = TaskState> {
        self.0.iter().filter_map(|selector| match selector {
            Selector::State(state) => Some(*state),
            _ => None,
        })
    }

    /// The labels by key, each with the values that are meant; any value where there are none. All of them have to be there.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut labels: BTreeMap<&str, Option<Vec<&str>>> = BTreeMap::new();
        for selector in &self.0 {
            let Selector::Label { key, value } = selector else {
                continue;
            };
            let values = labels.entry(key).or_insert_with(|| Some(Vec::new()));
            match (values.as_mut(), value) {
                (Some(values), Some(value)) => values.push(value),
                (Some(_), None) => *values = None,
                (None, _) => {}
            }
        }
        let known = labels.into_iter();
        known
            .map(|(key, values)| (key, values.unwrap_or_default()))
            .collect()
    }
}

impl FromStr for Selection {
    type Err = ParseSelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No selector begins so.
        if !text.starts_with('[') {
            return Ok(Self(vec![text.parse()?]));
        }
        let texts: Vec<String> =
            serde_json::from_str(text).map_err(|_| ParseSelectionError::List(text.to_owned()))?;
        if texts.len() > MAX_SELECTORS {
            return Err(ParseSelectionError::Count(texts.len()));
        }
        let selectors: Result<Vec<Selector>, _> = texts.iter().map(|text| text.parse()).collect();
        Self::of(selectors?)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = &self.0[..] {
            return one.fmt(f);
        }
        let texts: Vec<String> = self.0.iter().map(Selector::to_string).collect();
        f.write_str(&serde_json::to_string(&texts).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(texts: &[&str]) -> Selection {
        let selectors = texts.iter().map(|text| text.parse().unwrap()).collect();
        Selection::of(selectors).unwrap()
    }

    #[test]
    fn kinds_are_kept_apart() {
        let mixed = selection(&[
            "label:a=1",
            "failed",
            "7",
            "label:a=2",
            "label:b",
            "cancelled",
        ]);
        let names: Vec<String> = mixed.names().map(ToString::to_string).collect();
        assert_eq!(names, ["7"]);
        assert_eq!(mixed.lists().count(), 0);
        assert_eq!(selection(&["3-7", "last", "last:2"]).lists().count(), 2);
        let states: Vec<TaskState> = mixed.states().collect();
        assert_eq!(states, [TaskState::Failed, TaskState::Cancelled]);
        let labels = mixed.labels();
        assert_eq!(labels["a"], ["1", "2"]);
        assert!(labels["b"].is_empty());
    }

    #[test]
    fn a_key_alone_is_any_value_whatever_else_is_said_of_it() {
        for texts in [["label:a", "label:a=1"], ["label:a=1", "label:a"]] {
            assert!(selection(&texts).labels()["a"].is_empty());
        }
    }

    #[test]
    fn one_travels_as_it_is_and_several_as_a_list() {
        let one = selection(&["label:a=[x y]"]);
        assert_eq!(one.to_string(), "label:a=[x y]");
        assert_eq!(one.to_string().parse(), Ok(one));
        let two = selection(&["label:a=\"x\"", "3-7"]);
        assert_eq!(two.to_string(), r#"["label:a=\"x\"","3-7"]"#);
        assert_eq!(two.to_string().parse(), Ok(two));
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        for text in ["", "[", "[]", "[1]", "[\"nobody\"]", "nobody"] {
            assert!(text.parse::<Selection>().is_err(), "{text}");
        }
        let many = vec![Selector::Last(2); MAX_SELECTORS + 1];
        assert_eq!(
            Selection::of(many),
            Err(ParseSelectionError::Count(MAX_SELECTORS + 1))
        );
    }
}
