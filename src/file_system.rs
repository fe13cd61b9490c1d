//! Which file systems several machines mount. Pure but for the question itself.
//!
//! SQLite's write-ahead log shares memory between connections, which those do not offer. Who keeps a store there does
//! without a second connection (the coordinator), or goes elsewhere where nobody named the place (`run`).

use std::path::Path;

/// Magic numbers of `statfs` with names.
const NETWORK: [(u32, &str); 13] = [
    (0x6969, "NFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x517B, "SMB"),
    (0x0102_1997, "9p"),
    (0x1983_0326, "BeeGFS"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0xAAD7_AAEA, "PanFS"),
];

/// The name of the network file system that `path` lies on, if it does.
#[must_use]
pub(crate) fn network_name(path: &Path) -> Option<&'static str> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The type of the field differs between architectures; the magic numbers have 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "32 bits are meant"
    )]
    let magic = stat.f_type as u32;
    name_of(magic)
}

fn name_of(magic: u32) -> Option<&'static str> {
    let mut known = NETWORK.iter();
    known
        .find(|(number, _)| *number == magic)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0x0BD0_0BD0), Some("Lustre"));
        assert_eq!(name_of(0x4750_4653), Some("GPFS"));
        // Local: ext4, xfs, btrfs, tmpfs.
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994] {
            assert_eq!(name_of(local), None);
        }
        assert_eq!(network_name(Path::new("/proc")), None);
        assert_eq!(network_name(Path::new("/nowhere/at/all")), None);
    }
}
