//! What an operator decides about a coordinator. Validated values only; parsing is the command line's part.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::protocol::Capacity;
use crate::protocol::artifact::MAX_ARTIFACT_BYTES;

/// Settings of one coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Directory that holds the store; made when it is missing, owned by one coordinator at a time.
    pub state_dir: PathBuf,
    /// What an acknowledgement survives.
    pub durability: Durability,
    /// How long a lease lasts after its grant or renewal.
    pub lease: Duration,
    /// How often holders are told to renew; several renewals fit into one lease.
    pub renew: Duration,
    /// Largest artifact that is kept, in bytes.
    pub artifact_limit_bytes: u64,
    /// What tasks may occupy at the manager in the same process, where there is one. What is more than that and more
    /// than anybody connected has is refused at submission.
    pub capacity: Option<Capacity>,
}

impl CoordinatorConfig {
    /// The defaults for a state directory: `process`, leases of 120 s, renewals every 10 s.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            durability: Durability::default(),
            lease: Duration::from_secs(120),
            renew: Duration::from_secs(10),
            artifact_limit_bytes: MAX_ARTIFACT_BYTES,
            capacity: None,
        }
    }
}

/// What an acknowledged change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of any process, `kill -9` included.
    #[default]
    Process,
    /// A power cut too: every acknowledgement waits for the disk.
    Power,
}

/// The word is no durability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a durability; write process or power")]
pub struct ParseDurabilityError(String);

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "process" => Ok(Self::Process),
            "power" => Ok(Self::Power),
            other => Err(ParseDurabilityError(other.to_owned())),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Power => "power",
        })
    }
}
