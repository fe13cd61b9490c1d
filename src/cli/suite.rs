//! How suites are named on the command line: by uuid, by name, or by the beginning of either.

use std::convert::Infallible;
use std::str::FromStr;

use anyhow::anyhow;
use uuid::Uuid;

use super::failure::Failure;
use super::reach::Reach;
use crate::protocol::api::SuiteSummary;

/// A suite as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SuiteName {
    /// By the whole uuid.
    Uuid(Uuid),
    /// By its name, or the beginning of its name or uuid.
    Text(String),
}

impl FromStr for SuiteName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::Text(text.to_owned()), Self::Uuid))
    }
}

/// The uuid of the one suite that is named. Whether a uuid exists is said by whatever is done with it.
pub(super) async fn uuid(reach: &Reach, name: &SuiteName) -> Result<Uuid, Failure> {
    match name {
        SuiteName::Uuid(uuid) => Ok(*uuid),
        SuiteName::Text(text) => only(text, &reach.suites_named(text).await?),
    }
}

/// The same, where one may be named.
pub(super) async fn uuid_of_some(
    reach: &Reach,
    name: Option<&SuiteName>,
) -> Result<Option<Uuid>, Failure> {
    match name {
        Some(name) => uuid(reach, name).await.map(Some),
        None => Ok(None),
    }
}

/// The only one of what a text names.
fn only(text: &str, found: &[SuiteSummary]) -> Result<Uuid, Failure> {
    match found {
        [] => Err(Failure::usage(anyhow!(
            "there is no suite `{}`; `mitosis suites` lists them",
            text.escape_debug()
        ))),
        [suite] => Ok(suite.uuid),
        [first, second, ..] => Err(Failure::usage(anyhow!(
            "`{}` names several suites, among them {} ({}) and {} ({}); give the uuid of one",
            text.escape_debug(),
            first.uuid,
            first.name.escape_debug(),
            second.uuid,
            second.name.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_text_names_one_suite_or_is_refused() {
        let suite = |number, name: &str| SuiteSummary {
            uuid: Uuid::from_u128(number),
            name: name.to_owned(),
            created_at_us: 0,
            counts: BTreeMap::new(),
        };
        assert_eq!(only("a", &[suite(1, "ab")]).unwrap(), Uuid::from_u128(1));
        assert!(only("a", &[]).is_err());
        assert!(only("a", &[suite(1, "a"), suite(2, "a")]).is_err());
        let uuid = Uuid::from_u128(7);
        assert_eq!(uuid.to_string().parse(), Ok(SuiteName::Uuid(uuid)));
        assert_eq!("sweep".parse(), Ok(SuiteName::Text("sweep".to_owned())));
    }
}
