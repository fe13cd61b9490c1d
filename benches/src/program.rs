//! The program that is measured.

use std::path::PathBuf;

use mitosis::cli::sibling;

use crate::error::BenchError;

/// The `mitosis` beside this program, else in PATH.
pub(crate) fn product() -> Result<PathBuf, BenchError> {
    sibling::find("mitosis").ok_or_else(|| {
        BenchError::NothingToMeasure(
            "`mitosis` is neither beside this program nor in PATH; build it with `cargo build --release`"
                .to_owned(),
        )
    })
}
