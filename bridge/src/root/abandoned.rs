//! Clearing what killed managers left whose state directory never starts again.
//!
//! A root is used by one start of a manager, so whoever is killed leaves one that no later start would take: every manager
//! looks after the roots of its user when it starts. A root without a locked owner belongs to nobody: its manager is dead,
//! and workers that outlived it are about to notice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{RootClaim, TransportRoot, roots_in};

/// A root without a lock is one that is just being made, or whose maker was killed right then: older ones are the latter.
const IN_THE_MAKING: Duration = Duration::from_secs(60);

/// Removes this user's roots in a place that nobody has locked, except `own`. What cannot be removed stays for others.
pub(super) fn sweep(place: &Path, own: &TransportRoot) {
    for root in roots_in(place) {
        if root == *own {
            continue;
        }
        if root.path.join("lock").exists() {
            remove(root);
        } else if is_old(&root.path) {
            // Only if it is empty, as it is right after it was made.
            let _removed_or_used = fs::remove_dir(&root.path);
        }
    }
}

fn is_old(path: &Path) -> bool {
    let made = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > IN_THE_MAKING))
}

fn remove(root: TransportRoot) {
    // Locked by its owner, or just being removed by it.
    let Ok(Some(lock)) = root.lock() else {
        return;
    };
    let path = root.path.clone();
    let claim = RootClaim { root, _lock: lock };
    match claim.remove() {
        Ok(files) => tracing::info!(?path, files, "cleared what a killed manager left"),
        Err(error) => tracing::debug!(?path, %error, "a killed manager's files stay"),
    }
}
