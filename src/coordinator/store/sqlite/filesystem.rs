//! How the write-ahead log is used, by the file system that a store lies on.
//!
//! SQLite's write-ahead log shares memory between connections, which network file systems do not offer. There the
//! store is opened by one connection that never lets go of its lock and needs no shared memory.

use std::path::Path;

use crate::file_system::network_name;

/// How the write-ahead log is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalMode {
    /// Several connections share it.
    Shared,
    /// One connection has it for itself.
    Exclusive,
}

/// The mode for a store in `dir`, said where it is not the ordinary one.
pub(super) fn wal_mode(dir: &Path) -> WalMode {
    match network_name(dir) {
        None => WalMode::Shared,
        Some(name) => {
            tracing::warn!(
                dir = %dir.display(),
                filesystem = name,
                "the state directory is on a network file system; the store is used by one connection alone, and a \
                 local directory is faster and safer"
            );
            WalMode::Exclusive
        }
    }
}
