//! What a task leaves behind beside its result: names, records, limits.
//!
//! A worker packs what the task left before it reports the end, so that the report names every artifact with size and
//! digest; the bytes travel afterwards, straight to the coordinator, under an address from [`super::signed_url`].
//! Reading and writing files is the worker's and the coordinator's part.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Largest artifact, and most bytes of the files that are packed into one.
pub const MAX_ARTIFACT_BYTES: u64 = 4 << 30;
/// Header of an upload: SHA-256 of the body in hex.
pub const DIGEST_HEADER: &str = "x-mitosis-sha256";
/// Scheme of an input that is another task's artifact: `artifact:<task uuid>/<kind>`.
pub const REFERENCE_SCHEME: &str = "artifact:";

/// What an artifact is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// The files of `MITO_RESULT_DIR`, as `tar.zst`.
    Result,
    /// The files of `MITO_EXEC_DIR`, as `tar.zst`.
    Exec,
    /// Standard output beyond the tail, as it was kept.
    Stdout,
    /// Standard error beyond the tail, as it was kept.
    Stderr,
}

impl ArtifactKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Result, Self::Exec, Self::Stdout, Self::Stderr];

    /// The word used in addresses, in the API and on disk.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Exec => "exec",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The kind named by `word`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl std::fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that a task left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// What it is.
    pub kind: ArtifactKind,
    /// Its size as it travels.
    pub size_bytes: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// An artifact that the coordinator keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredArtifact {
    /// What it is, its size and digest.
    #[serde(flatten)]
    pub artifact: Artifact,
    /// When it was complete, in microseconds since the Unix epoch.
    pub stored_at_us: i64,
}

/// Another task's artifact, as an input names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The task that left it.
    pub task: Uuid,
    /// What it is.
    pub kind: ArtifactKind,
}

impl Reference {
    /// Reads `artifact:<task uuid>/<kind>`; `None` when the text is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (task, kind) = text.strip_prefix(REFERENCE_SCHEME)?.split_once('/')?;
        Some(Self {
            task: task.parse().ok()?,
            kind: ArtifactKind::parse(kind)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_task_and_a_kind() {
        let task = Uuid::from_u128(7);
        let kind = ArtifactKind::Result;
        let text = format!("artifact:{task}/result");
        assert_eq!(Reference::parse(&text), Some(Reference { task, kind }));
        for wrong in [
            "artifact:7/result",
            "artifact:",
            "http://h/result",
            &text[..40],
        ] {
            assert_eq!(Reference::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_one_word() {
        for kind in ArtifactKind::ALL {
            assert_eq!(ArtifactKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(ArtifactKind::parse("../result"), None);
    }
}
