//! Index sets of `--array`: `1-100`, `0-99:10`, `1-3,7,20-30:5`, and at most how many of them run at a time: `1-500%10`.
//!
//! Pure.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Most tasks of one array.
pub const MAX_INDEXES: u64 = 1_000_000;

/// A set of indexes, ascending and without repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    indexes: BTreeSet<i64>,
    /// Most tasks at a time, if that is limited.
    max_parallel: Option<NonZeroU16>,
}

/// Why the text is no index set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// Not of the form.
    #[error("`{0}` is not an index, a range such as 1-100, or a range with a step such as 0-99:10")]
    Syntax(String),
    /// Its end comes before its beginning.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    /// A step of zero never arrives.
    #[error("the step of `{0}` is zero; write a step of 1 or more")]
    ZeroStep(String),
    /// No number of tasks.
    #[error(
        "`%{0}` is no number of tasks at a time; write for example 1-500%10, with a number from 1 to 65535"
    )]
    MaxParallel(String),
    /// More than anybody wants by intention.
    #[error("the array has more than {MAX_INDEXES} indexes; split it")]
    TooMany,
}

impl Array {
    /// The indexes, ascending.
    pub fn indexes(&self) -> impl Iterator<Item = i64> + '_ {
        self.indexes.iter().copied()
    }

    /// The same, for whoever needs nothing else of it.
    pub fn into_indexes(self) -> impl Iterator<Item = i64> + Send {
        self.indexes.into_iter()
    }

    /// Most tasks at a time, if the array limits them.
    #[must_use]
    pub fn max_parallel(&self) -> Option<NonZeroU16> {
        self.max_parallel
    }
}

impl FromStr for Array {
    type Err = ArrayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, max_parallel) = match text.split_once('%') {
            Some((text, max)) => (text, Some(max_parallel(max)?)),
            None => (text, None),
        };
        let mut indexes = BTreeSet::new();
        for part in text.split(',') {
            let (first, last, step) = range(part.trim())?;
            let size = (last - first) / step + 1;
            if size + indexes.len() as u64 > MAX_INDEXES {
                return Err(ArrayError::TooMany);
            }
            let index =
                |value: u64| i64::try_from(value).map_err(|_| ArrayError::Syntax(part.to_owned()));
            for number in 0..size {
                indexes.insert(index(first + number * step)?);
            }
        }
        Ok(Self {
            indexes,
            max_parallel,
        })
    }
}

fn max_parallel(text: &str) -> Result<NonZeroU16, ArrayError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| ArrayError::MaxParallel(text.to_owned()))
}

/// First, last and step of one part.
fn range(part: &str) -> Result<(u64, u64, u64), ArrayError> {
    let number = |text: &str| {
        // `parse` alone would take a leading plus sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>()
            .ok()
            .filter(|value| digits && *value <= i64::MAX.unsigned_abs())
            .ok_or_else(|| ArrayError::Syntax(part.to_owned()))
    };
    let (bounds, step) = match part.split_once(':') {
        Some((bounds, step)) => (bounds, number(step)?),
        None => (part, 1),
    };
    let (first, last) = match bounds.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(bounds)?, number(bounds)?),
    };
    if step == 0 {
        return Err(ArrayError::ZeroStep(part.to_owned()));
    }
    if last < first {
        return Err(ArrayError::Backwards(part.to_owned()));
    }
    Ok((first, last, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[i64]) {
        let array: Array = text.parse().expect("an index set");
        assert_eq!(array.indexes().collect::<Vec<_>>(), expected, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = text
            .parse::<Array>()
            .expect_err("must be refused")
            .to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }

    #[test]
    fn ranges_steps_and_lists() {
        check("5", &[5]);
        check("0-3", &[0, 1, 2, 3]);
        check("1-10:4", &[1, 5, 9]);
        check("7,1-3, 2", &[1, 2, 3, 7]);
        check("3-3:9", &[3]);
        check("9223372036854775807", &[i64::MAX]);
    }

    #[test]
    fn an_array_may_limit_how_many_run_at_a_time() {
        let array: Array = "1-10:5%4".parse().unwrap();
        assert_eq!(array.indexes().collect::<Vec<_>>(), [1, 6]);
        assert_eq!(array.max_parallel().map(NonZeroU16::get), Some(4));
        assert_eq!("1-3".parse::<Array>().unwrap().max_parallel(), None);
        for text in ["1-3%", "1-3%0", "1-3%x", "1-3%+2", "1-3%2%2", "1-3%70000"] {
            refused(text, "is no number of tasks at a time");
        }
    }

    #[test]
    fn everything_else_is_refused_in_words() {
        for text in [
            "",
            "a",
            "1-",
            "-1",
            "1-2-3",
            "1:2:3",
            "1,,2",
            "1-5:",
            "+1",
            "9223372036854775808",
        ] {
            refused(text, "is not an index");
        }
        refused("5-1", "ends before it begins");
        refused("1-5:0", "zero");
        refused("1-2000000", "more than 1000000");
        refused("1-600000,600001-1200000", "more than 1000000");
    }
}
