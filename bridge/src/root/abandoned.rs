//! Clearing what killed managers left whose state directory never starts again.
//!
//! A root is cleared by the next manager of its instance. A run with a state directory of its own that is killed and
//! thrown away has no next one, so every manager looks after the roots beside its own when it starts. A root without a
//! locked owner belongs to nobody: its manager is dead, and workers that outlived it are about to notice.

use std::fs;
use std::path::Path;

use super::{RootClaim, TransportRoot};

/// Removes the roots in `parent` that nobody has locked, except that of `own`. What cannot be removed stays for others.
pub(super) fn sweep(parent: &Path, own: &TransportRoot) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let root = name.to_str().map(|name| TransportRoot::at(parent, name));
        // A name of another kind is none of ours.
        if let Some(Ok(root)) = root
            && root != *own
            && root.path.join("lock").exists()
        {
            remove(root);
        }
    }
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
