//! Removing what tasks left: trees whose directories are locked go, what cannot go is moved aside.
//!
//! A task may leave whatever its user can make: directories without rights, which tools with read-only caches make, mount
//! points, files of other users. None of it may keep a slot, a manager or a run from starting again. Blocks for file calls,
//! follows no symbolic link.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What stands behind the name of something that was moved aside, and before a random number.
const ASIDE: &str = ".stuck-";

/// Removes whatever is at `path`, trees whose directories were locked by their owner included; nothing there is as good.
///
/// # Errors
/// When something of it cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.is_dir() {
        return std::fs::remove_file(path);
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            std::fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Gives the owner access to every directory of a tree. Tools that keep read-only caches leave such trees.
fn unlock(directory: &Path) -> io::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // The type of the entry itself: a link to a directory is no directory.
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// Moves aside what cannot be removed (a mount point, files of another user), so that nobody takes it for his own.
///
/// # Errors
/// When it cannot be moved either.
pub(crate) fn set_aside_if_needed(path: &Path, removed: io::Result<()>) -> io::Result<()> {
    let Err(error) = removed else { return Ok(()) };
    let random = uuid::Uuid::new_v4().simple();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!("{ASIDE}{random}"));
    let aside = PathBuf::from(aside);
    tracing::warn!(
        path = %path.display(),
        aside = %aside.display(),
        error = %error,
        "what a task left cannot be removed and is moved aside",
    );
    std::fs::rename(path, aside)
}

/// True for the name of something that was moved aside.
pub(crate) fn is_set_aside(name: &OsStr) -> bool {
    name.to_string_lossy().contains(ASIDE)
}

/// Tries again to remove what was moved aside in a directory. What still cannot go stays without a word: it was said.
pub(crate) fn remove_set_aside(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_set_aside(&entry.file_name()) {
            let _ = remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_trees_go_and_what_was_set_aside_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "").unwrap();
        for path in ["a/b", "a", ""] {
            let locked = Permissions::from_mode(0o555);
            std::fs::set_permissions(tree.join(path), locked).unwrap();
        }
        set_aside_if_needed(&tree, Err(io::ErrorKind::ResourceBusy.into())).unwrap();
        assert!(!tree.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_set_aside(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        remove(&tree).unwrap();
    }
}
