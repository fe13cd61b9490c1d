//! Where a transport may live: the candidates in turn, and the first of them that is usable.
//!
//! A memory file system comes first, because segments are files there and are mapped. A candidate that is not usable is
//! stepped round and said at debug level; only when none is left it is an error, which names what to set.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{MAX_NAME_BYTES, MAX_ROOT_BYTES, RootError};
use crate::limits;
use crate::ours;

/// Where POSIX shared memory is mounted.
const SHM_DIR: &str = "/dev/shm";

/// Every directory that is tried, in this order, each once.
pub(super) fn candidates(environment: impl Fn(&str) -> Option<PathBuf>, uid: u32) -> Vec<PathBuf> {
    let named = |variable| environment(variable).filter(|dir| !dir.as_os_str().is_empty());
    let all = [
        Some(PathBuf::from(SHM_DIR)),
        named("XDG_RUNTIME_DIR"),
        Some(PathBuf::from(format!("/run/user/{uid}"))),
        named("TMPDIR"),
        Some(PathBuf::from("/tmp")),
    ];
    let mut unique = Vec::new();
    for dir in all.into_iter().flatten() {
        if !unique.contains(&dir) {
            unique.push(dir);
        }
    }
    unique
}

/// The candidates of this process.
pub(super) fn ours() -> Vec<PathBuf> {
    let environment = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    candidates(environment, rustix::process::geteuid().as_raw())
}

/// The first usable one.
pub(super) fn choose(candidates: Vec<PathBuf>) -> Result<PathBuf, RootError> {
    let mut tried = String::new();
    for place in candidates {
        match usable(&place) {
            Ok(()) => return Ok(place),
            Err(reason) => {
                tracing::debug!(?place, reason, "the transport does not live here");
                let separator = if tried.is_empty() { "" } else { "; " };
                // Writing to a string cannot fail.
                let _written = write!(tried, "{separator}{}: {reason}", place.display());
            }
        }
    }
    Err(RootError::NoPlace { tried })
}

/// Whether a root can be made in it, with the reason when not.
fn usable(place: &Path) -> Result<(), String> {
    if !place.is_absolute() {
        return Err("it is not an absolute path".to_owned());
    }
    let text = place.as_os_str().as_encoded_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@:=,".contains(byte);
    if !text.iter().all(plain) {
        return Err("its path has characters that the transport cannot write".to_owned());
    }
    if text.len() + 1 + MAX_NAME_BYTES > MAX_ROOT_BYTES {
        return Err(format!("its path has {} bytes, too many", text.len()));
    }
    ours::check_place(place).map_err(|error| words(&error))?;
    rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| format!("it cannot be written: {}", std::io::Error::from(errno)))?;
    limits::ensure_place(place).map_err(|error| error.to_string())
}

fn words(error: &ours::NotOurs) -> String {
    match error {
        ours::NotOurs::Refused { reason, path } => format!("{}: {reason}", path.display()),
        ours::NotOurs::Io { source, .. } => source.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn none(_: &str) -> Option<PathBuf> {
        None
    }

    fn short_dir() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("m")
            .tempdir_in("/tmp")
            .unwrap()
    }

    #[test]
    fn memory_comes_first_and_every_place_once() {
        let paths = candidates(none, 7).into_iter();
        let paths: Vec<_> = paths
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        assert_eq!(paths, ["/dev/shm", "/run/user/7", "/tmp"]);
        let environment = |variable: &str| match variable {
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/user/7")),
            _ => Some(PathBuf::new()),
        };
        assert_eq!(candidates(environment, 7).len(), 3);
    }

    #[test]
    fn a_place_that_cannot_be_used_is_stepped_round() {
        let good = short_dir();
        let bad = short_dir();
        let open = bad.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let link = bad.path().join("link");
        std::os::unix::fs::symlink(good.path(), &link).unwrap();
        let file = bad.path().join("file");
        fs::write(&file, b"").unwrap();
        let umlaut = bad.path().join("ü");
        fs::create_dir(&umlaut).unwrap();
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(MAX_ROOT_BYTES)));
        let places = vec![
            PathBuf::from("relative"),
            bad.path().join("missing"),
            PathBuf::from("/proc"),
            open,
            link,
            file,
            umlaut,
            long,
        ];
        let error = choose(places.clone()).unwrap_err().to_string();
        for reason in [
            "relative: it is not an absolute path",
            "missing: No such file",
            "open: others may rename",
            "link: it is a symbolic link",
            "file: it is not a directory",
            "ü: its path has characters",
            "bytes, too many",
            "set TMPDIR",
        ] {
            assert!(error.contains(reason), "no `{reason}` in: {error}");
        }
        let all = places.into_iter().chain([good.path().to_owned()]);
        assert_eq!(choose(all.collect()).unwrap(), good.path());
    }

    #[test]
    fn a_place_below_somebody_elses_directory_is_not_used() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root may give a directory away: nothing tested");
            return;
        }
        let theirs = short_dir();
        let ours = theirs.path().join("ours");
        fs::create_dir(&ours).unwrap();
        std::os::unix::fs::chown(theirs.path(), Some(1234), None).unwrap();
        let error = choose(vec![ours]).unwrap_err().to_string();
        assert!(error.contains("belongs to user 1234"), "{error}");
    }
}
