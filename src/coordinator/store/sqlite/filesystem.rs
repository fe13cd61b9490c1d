//! What kind of file system a store lies on.
//!
//! SQLite's write-ahead log shares memory between connections, which network file systems do not offer. There the
//! store is opened by one connection that never lets go of its lock and needs no shared memory.

use std::path::Path;

use rustix::fs::statfs;

/// How the write-ahead log is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalMode {
    /// Several connections share it.
    Shared,
    /// One connection has it for itself.
    Exclusive,
}

/// Magic numbers of file systems that several machines mount, with their names.
const NETWORK: [(i64, &str); 9] = [
    (0x6969, "NFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x0102_1997, "9p"),
    (0x1983_0326, "BeeGFS"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
];

/// The name of the network file system that `dir` lies on, if it does.
pub(super) fn network_name(dir: &Path) -> Option<&'static str> {
    let kind = statfs(dir).ok()?.f_type;
    NETWORK
        .iter()
        .find(|(magic, _)| *magic == kind)
        .map(|(_, name)| *name)
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
