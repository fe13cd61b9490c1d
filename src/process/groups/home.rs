//! The owner of the groups of one state directory.
//!
//! The directory's note names the place of the groups, because the next start may be in another group and would not find
//! them by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{discard, kill, remove};
use crate::protocol::limits::{GroupDirs, TaskGroups};

/// Name of the note: one directory per line.
const NOTE: &str = "control-groups";
/// First part of the name of a directory of groups.
const PREFIX: &str = "mitosis-";
/// How long killed processes of an earlier life are waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// The place for groups of tasks, held by whoever holds the state directory. Dropping it removes them all.
#[derive(Debug)]
pub struct GroupHome {
    places: TaskGroups,
}

impl GroupHome {
    /// Removes what an earlier life left, with every process in it, and finds a place for this one.
    ///
    /// Blocks for some file calls, and up to two seconds for processes that are killed.
    #[must_use]
    pub fn claim(state_dir: &Path, instance: &str) -> Self {
        let note = state_dir.join(NOTE);
        let earlier = fs::read_to_string(&note).unwrap_or_default();
        // Whatever became of the note, nothing but groups of ours is emptied.
        let ours = earlier.lines().map(Path::new).filter(|dir| {
            let name = dir.file_name().and_then(std::ffi::OsStr::to_str);
            name.is_some_and(|name| name.starts_with(PREFIX))
        });
        ours.for_each(|dir| empty(dir, LIMIT));
        let found = super::find::find(&format!("{PREFIX}{instance}"));
        let found = found.and_then(|dirs| {
            let lines: String = all(&dirs)
                .map(|dir| format!("{}\n", dir.display()))
                .collect();
            // Without the note the groups could stay for ever.
            let noted = if lines == earlier {
                Ok(())
            } else {
                fs::write(&note, lines)
            };
            noted.map_err(|error| format!("`{}` cannot be written ({error})", note.display()))?;
            Ok(dirs)
        });
        Self {
            places: match found {
                Ok(dirs) => TaskGroups::Below(dirs),
                Err(why) => TaskGroups::Unavailable(why),
            },
        }
    }

    /// What workers are told.
    #[must_use]
    pub fn places(&self) -> &TaskGroups {
        &self.places
    }

    /// Removes the group of one name with whatever is in it: its worker is dead.
    pub fn clear(&self, name: &str) {
        if let TaskGroups::Below(dirs) = &self.places {
            all(dirs)
                .map(|dir| dir.join(name))
                .filter(|dir| dir.exists())
                .for_each(|dir| discard(&dir));
        }
    }
}

impl Drop for GroupHome {
    fn drop(&mut self) {
        if let TaskGroups::Below(dirs) = &self.places {
            // Without waiting: what does not go now is found by the next owner.
            all(dirs).for_each(|dir| empty(dir, Duration::ZERO));
        }
    }
}

fn all(dirs: &GroupDirs) -> impl Iterator<Item = &Path> {
    [dirs.memory.as_path()]
        .into_iter()
        .chain(dirs.tree.as_deref())
}

/// Removes a directory of groups and the groups in it.
fn empty(dir: &Path, patience: Duration) {
    let deadline = Instant::now() + patience;
    while dir.exists() {
        let children = fs::read_dir(dir).into_iter().flatten().flatten();
        let groups: Vec<PathBuf> = children
            .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|child| child.path())
            .collect();
        groups.iter().for_each(|group| {
            kill(group);
            discard(group);
        });
        match remove(dir) {
            Ok(()) => return,
            Err(error) if Instant::now() >= deadline => {
                tracing::warn!(%error, "a control group of tasks cannot be removed");
                return;
            }
            Err(_) => std::thread::park_timeout(super::PAUSE),
        }
    }
}
