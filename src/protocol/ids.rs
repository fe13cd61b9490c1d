//! Identities and fences that travel on every frame.
//!
//! A task has two names: the store's row id (`i64`, short, indexable) and the uuid that users see. A grant of a task
//! carries two fences: the [`Lease`] of the store and, inside it, the [`Try`] of a manager.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;
use uuid::Uuid;

/// Both names of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
}

/// The store's grant of a task to a holder: strictly increasing per task.
///
/// The upper 32 bits are the coordinator's epoch (one more at every start), the lower 32 a counter, so a lease of an
/// earlier coordinator life is always smaller than one of a later life. In JSON a lease is a decimal string, because
/// JavaScript numbers end at 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, ToSchema)]
#[schema(value_type = String, example = "4294967297")]
pub struct Lease(pub u64);

impl Lease {
    /// Joins an epoch and a counter.
    #[must_use]
    pub fn new(epoch: u32, counter: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(counter))
    }

    /// The coordinator life that granted the lease.
    #[must_use]
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("a u64 shifted right by 32 fits u32")
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Lease {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Lease {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(|_| {
                de::Error::custom(format!("`{text}` is not a lease (a decimal string)"))
            })
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// One hand-over of a leased task to a worker incarnation, counted from 1 inside its lease.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(transparent)]
pub struct Try(pub u32);

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a manager: a random number drawn at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_string_in_json_and_a_number_in_message_pack() {
        let lease = Lease::new(3, 7);
        assert_eq!(
            serde_json::to_string(&lease).unwrap(),
            format!("\"{}\"", lease.0)
        );
        assert_eq!(
            rmp_serde::to_vec(&lease).unwrap(),
            rmp_serde::to_vec(&lease.0).unwrap()
        );
        let back: Lease = serde_json::from_str(&serde_json::to_string(&lease).unwrap()).unwrap();
        assert_eq!((back, back.epoch()), (lease, 3));
    }

    #[test]
    fn a_lease_of_a_later_epoch_is_greater() {
        assert!(Lease::new(2, 0) > Lease::new(1, u32::MAX));
    }
}
