//! Shared memory whose creator died between the steps of its creation.
//!
//! The transport marks it by withholding the right to read and waits for an end that nobody will bring: the cleaning of
//! the dead node fails each time. Whoever opens such a file gives up after the time that is allowed for a creation, so
//! older ones are of no use to anybody and are removed here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use iceoryx2::prelude::{Config, SemanticString};

use super::super::CREATION_TIMEOUT;
use crate::root::SHM_DIR;

/// Bit of a mode that a finished file has.
const OWNER_READ: u32 = 0o400;

/// Removes every file of this prefix whose creation is overdue.
pub(super) fn remove(config: &Config) {
    remove_in(Path::new(SHM_DIR), config.global.prefix.as_bytes());
}

fn remove_in(dir: &Path, prefix: &[u8]) {
    // Without a directory there is nothing to remove.
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(prefix);
        if ours && entry.metadata().is_ok_and(|meta| is_overdue(&meta)) {
            tracing::debug!(path = ?entry.path(), "a dead worker had not finished it");
            let _removed_or_gone = fs::remove_file(entry.path());
        }
    }
}

fn is_overdue(meta: &fs::Metadata) -> bool {
    let age = meta.modified().ok().and_then(|made| made.elapsed().ok());
    meta.mode() & OWNER_READ == 0 && age.is_some_and(|age| age > CREATION_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    #[test]
    fn only_what_is_unfinished_overdue_and_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - CREATION_TIMEOUT * 2;
        let make = |name: &str, mode, made: Option<SystemTime>| {
            let path = dir.path().join(name);
            let file = fs::File::create(&path).unwrap();
            if let Some(made) = made {
                file.set_modified(made).unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let overdue = make("ours_a", 0o200, Some(old));
        let kept = [
            make("ours_b", 0o200, None),
            make("ours_c", 0o600, Some(old)),
            make("other", 0o200, Some(old)),
        ];
        remove_in(dir.path(), b"ours_");
        assert!(!overdue.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}
