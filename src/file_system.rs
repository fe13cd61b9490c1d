//! What file systems are and what they refuse: which of them several machines mount, and writes that find no room.
//!
//! SQLite's write-ahead log shares memory between connections, which network file systems do not offer. Who keeps a store
//! there does without a second connection (the coordinator), or goes elsewhere where nobody named the place (`run`).
//! Nothing here decides how long somebody waits for room.

pub(crate) mod removal;

use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// A write that fails until somebody does something about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritable {
    what: String,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Disk,
    Quota,
    FileSize,
    Other,
}

impl Unwritable {
    /// From the error of a write to `what`.
    #[must_use]
    pub fn of(what: &str, error: &io::Error) -> Self {
        let cause = match error.raw_os_error() {
            Some(libc::ENOSPC) => Cause::Disk,
            Some(libc::EDQUOT) => Cause::Quota,
            Some(libc::EFBIG) => Cause::FileSize,
            _ => Cause::Other,
        };
        let what = match cause {
            Cause::Other => format!("{what} cannot be written ({error})"),
            _ => format!("{what} cannot be written"),
        };
        Self { what, cause }
    }

    /// From the error of a database, which does not tell the system's: a limit of file sizes is the likeliest where there
    /// is one.
    #[must_use]
    pub fn of_database(what: &str, error: &dyn Error) -> Self {
        let mut root = error;
        while let Some(source) = root.source() {
            root = source;
        }
        let words = root.to_string();
        let cause = match &*words {
            words if words.contains("full") => Cause::Disk,
            _ if file_size_limit().is_some() => Cause::FileSize,
            _ => Cause::Other,
        };
        let what = match cause {
            Cause::Disk => format!("{what} cannot be written"),
            _ => format!("{what} cannot be written ({words})"),
        };
        Self { what, cause }
    }

    /// True when it may pass while this process lives.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.cause != Cause::FileSize
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.cause {
            Cause::Disk => "make room there",
            Cause::Quota => "make room within your quota",
            Cause::FileSize => {
                "raise the limit (ulimit -f) in the shell that starts mitosis, and resume"
            }
            Cause::Other => "see to it that it can be written",
        }
    }
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.cause {
            Cause::Disk => ": the disk is full",
            Cause::Quota => ": the disk quota is used up",
            Cause::FileSize => ": the limit of file sizes (ulimit -f) is reached",
            Cause::Other => "",
        };
        write!(f, "{}{why}", self.what)
    }
}

/// True for a write that may succeed as soon as there is room.
pub(crate) fn lacks_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Most bytes that a file written by this process may have, where there is such a limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Free space above which nobody tries whether there is some.
const PLENTY: u64 = 1 << 20;
/// What is written to see whether there is room.
const TRIAL: usize = 16 << 10;
/// Where.
const TRIAL_NAME: &str = ".room";

/// Looks whether some bytes can be written in a directory. Blocks; writes only where little seems to be free.
///
/// # Errors
/// When they cannot.
pub(crate) fn look_for_room(dir: &Path) -> io::Result<()> {
    let plenty = |stat: rustix::fs::StatVfs| stat.f_bavail.saturating_mul(stat.f_frsize) >= PLENTY;
    if rustix::fs::statvfs(dir).is_ok_and(plenty) {
        return Ok(());
    }
    let path = dir.join(TRIAL_NAME);
    let tried = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&[0; TRIAL]));
    match std::fs::remove_file(&path) {
        Err(error) if tried.is_ok() && error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => tried,
    }
}

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
    fn what_finds_no_room_is_said_with_what_to_do() {
        let of = |number| Unwritable::of("`x`", &io::Error::from_raw_os_error(number));
        let full = of(libc::ENOSPC);
        assert_eq!(full.to_string(), "`x` cannot be written: the disk is full");
        assert!(full.may_pass() && full.remedy().contains("room"));
        let limit = of(libc::EFBIG);
        assert!(!limit.may_pass() && limit.remedy().contains("ulimit -f"));
        assert!(of(libc::EIO).to_string().contains("os error 5"));
        let words = io::Error::other("database or disk is full");
        let database = Unwritable::of_database("the store", &words);
        assert!(database.to_string().ends_with("the disk is full"));
    }

    #[test]
    fn a_look_for_room_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        look_for_room(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(look_for_room(Path::new("/nowhere/at/all")).is_err());
    }

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
