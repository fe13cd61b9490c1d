//! What a task may use at most: its author's wish, and where a machine keeps it.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::byte_text;
use super::task::SpecError;

/// Least memory limit; below it no program is even loaded.
const LEAST_MEMORY_BYTES: u64 = 1 << 20;
/// Fewest open files: the three standard streams, and one for the loader.
const FEWEST_OPEN_FILES: u64 = 4;

/// What a task may use at most. Where a machine cannot keep a limit, the task fails with the reason `spawn_failed` and
/// words; none is ever ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Limits {
    /// Memory of all its processes together, in bytes. Beyond it the task is killed, with the reason `oom`. Needs a
    /// control group that the worker may make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Size of every file it writes, in bytes; its captured output is none. Beyond it a program gets `SIGXFSZ`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Descriptors that each of its processes may have open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

impl Limits {
    /// Checks what can be checked without the machine that will keep them.
    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let rules = [
            (
                "limits.memory_bytes",
                self.memory_bytes,
                LEAST_MEMORY_BYTES,
                "1048576 (1 MiB) or more",
            ),
            (
                "limits.file_size_bytes",
                self.file_size_bytes,
                1,
                "1 or more",
            ),
            (
                "limits.open_files",
                self.open_files,
                FEWEST_OPEN_FILES,
                "4 or more",
            ),
        ];
        let broken = rules
            .into_iter()
            .find_map(|(field, value, least, allowed)| {
                let value = value.filter(|value| *value < least)?.to_string();
                Some(SpecError::Range {
                    field,
                    value,
                    allowed,
                })
            });
        broken.map_or(Ok(()), Err)
    }
}

impl Limits {
    /// These, and `other` where these say nothing.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            file_size_bytes: self.file_size_bytes.or(other.file_size_bytes),
            open_files: self.open_files.or(other.open_files),
        }
    }
}

/// A number of bytes as people write it: `512MiB`, `2G`, or plain bytes. Units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// The text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; write for example 512MiB, 2GiB, or a number of bytes")]
pub struct ParseSizeError(String);

impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => Some(0),
            "K" | "KiB" => Some(10),
            "M" | "MiB" => Some(20),
            "G" | "GiB" => Some(30),
            "T" | "TiB" => Some(40),
            _ => None,
        };
        let bytes = number
            .parse::<u64>()
            .ok()
            .zip(shift)
            .and_then(|(number, shift)| number.checked_mul(1 << shift));
        bytes
            .map(Self)
            .ok_or_else(|| ParseSizeError(text.to_owned()))
    }
}

/// Where a worker makes the control groups of tasks that have a memory limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskGroups {
    /// Nowhere, for this reason.
    Unavailable(String),
    /// Each in a directory of its own below these, which are made when they are needed first.
    Below(GroupDirs),
}

impl Default for TaskGroups {
    fn default() -> Self {
        Self::Unavailable("its manager offers none".to_owned())
    }
}

/// Directories of the control group file systems that belong to one installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDirs {
    /// Where memory is limited.
    #[serde(with = "byte_text::path")]
    pub memory: PathBuf,
    /// True where that is the unified hierarchy (version 2), false for the memory controller of version 1.
    pub unified: bool,
    /// In a hybrid mount: the directory in the unified hierarchy, which has no memory controller but can kill a group.
    #[serde(default, with = "byte_text::optional_path")]
    pub tree: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let sizes = ["7", "7B", "2K", "2 KiB", "512MiB", "3G", "1TiB"];
        let bytes = sizes.map(|text| text.parse().map(|ByteSize(bytes)| bytes));
        let expected = [7, 7, 2048, 2048, 512 << 20, 3 << 30, 1 << 40];
        assert_eq!(bytes, expected.map(Ok));
        for text in ["", "x", "G", "-1", "1.5G", "2GB", "99999999999T"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.to_string().contains("write for example"), "{text}");
        }
    }
}
