//! What must be back at its baseline after a test: descriptors of this process and files of a root.

use std::path::Path;

/// Open descriptors of this process.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Files below a directory, recursively; 0 when it does not exist.
pub(crate) fn files_below(path: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                files_below(&entry.path())
            } else {
                1
            }
        })
        .sum()
}
