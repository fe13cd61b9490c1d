//! Durations as people write them.
//!
//! In JSON and TOML a duration is a string such as `"1h 30m"` or a number of seconds; on the binary wire it is whole
//! milliseconds. Nothing else in the protocol carries a bare number of unknown unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// Longest duration that is accepted: ten years. Anything above is a typing error, not a plan.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Shortest duration above zero that is accepted: on the binary wire anything less would be none at all.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// A duration with a readable text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, ToSchema)]
#[schema(value_type = String, example = "1h 30m")]
pub struct HumanDuration(pub Duration);

/// The text is no duration that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// No duration between zero and [`LONGEST`].
    #[error("`{0}` is not a duration; write for example 500ms, 30s, 1h30m, or a number of seconds")]
    NotOne(String),
    /// Above zero and below [`SHORTEST`].
    #[error(
        "`{0}` is shorter than a millisecond, the shortest duration there is; write 1ms or more"
    )]
    TooShort(String),
}

impl FromStr for HumanDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let parsed = match text.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(text).ok(),
        };
        match parsed {
            Some(duration) if !duration.is_zero() && duration < SHORTEST => {
                Err(ParseDurationError::TooShort(text.to_owned()))
            }
            Some(duration) if duration <= LONGEST => Ok(Self(duration)),
            _ => Err(ParseDurationError::NotOne(text.to_owned())),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX))
        }
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Readable {
            Seconds(f64),
            Text(String),
        }

        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(|ms| Self(Duration::from_millis(ms)));
        }
        match Readable::deserialize(deserializer)? {
            Readable::Seconds(seconds) => seconds.to_string().parse(),
            Readable::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Duration>) {
        assert_eq!(
            text.parse::<HumanDuration>().ok().map(|d| d.0),
            expected,
            "{text}"
        );
    }

    #[test]
    fn people_may_write_units_or_plain_seconds() {
        check("1h30m", Some(Duration::from_secs(5400)));
        check("500ms", Some(Duration::from_millis(500)));
        check("2.5", Some(Duration::from_millis(2500)));
        check("-1", None);
        check("1ms", Some(SHORTEST));
        check("0s", Some(Duration::ZERO));
        check("soon", None);
        check("11years", None);
        check("", None);
    }

    #[test]
    fn what_is_too_short_to_travel_is_refused_in_words() {
        for text in ["1ns", "999us", "0.0001"] {
            let refused = text.parse::<HumanDuration>().unwrap_err().to_string();
            assert!(refused.contains("shorter than a millisecond"), "{refused}");
        }
    }

    #[test]
    fn json_takes_strings_and_numbers_and_writes_strings() {
        let from_number: HumanDuration = serde_json::from_str("90").unwrap();
        let from_text: HumanDuration = serde_json::from_str("\"1m 30s\"").unwrap();
        assert_eq!(from_number, from_text);
        assert_eq!(serde_json::to_string(&from_text).unwrap(), "\"1m 30s\"");
    }

    #[test]
    fn the_binary_form_is_whole_milliseconds() {
        let bytes = rmp_serde::to_vec(&HumanDuration(Duration::from_millis(1500))).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec(&1500u64).unwrap());
    }
}
