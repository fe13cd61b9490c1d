//! The directories of a slot: made once, reused by every task, wiped only when not empty.
//!
//! Asking three directories whether they are empty costs nine system calls per task; asking whether they changed since
//! they were found empty costs three. A change is seen by the modification time, which the kernel advances in steps of
//! up to 10 ms. So it is trusted only if it was already old when the directory was found empty: otherwise a file made
//! within the same step would be missed. Until then the directory is read.
//!
//! The task owns these directories as much as the worker does and may have replaced, locked, renamed or filled them, and
//! the slot around them as well: whatever lies in it and is not the slot's own goes before the next task. Nothing here
//! follows a symbolic link.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

use super::ExecError;
use crate::comm::{begun, ended};
use crate::file_system::removal::{is_set_aside, remove, set_aside_if_needed};
use crate::protocol::ArtifactKind;
use crate::worker::files::outgoing::Source;

/// Age from which a modification time is trusted; several times the kernel's coarsest step.
const SETTLED: Duration = Duration::from_millis(50);
const PRIVATE: u32 = 0o700;

/// The directories of one slot.
#[derive(Debug)]
pub(super) struct Directories {
    /// Result, exec, resource.
    all: [TaskDirectory; 3],
    new_task: PathBuf,
    outgoing: PathBuf,
    /// The directory around them.
    slot: PathBuf,
    /// What it looked like when nothing else was in it, if that look can be trusted.
    plain: Option<Look>,
}

/// What belongs into a slot.
const OWN: [&str; 7] = [
    "result",
    "exec",
    "resource",
    "new_task.json",
    "outgoing",
    "stdout",
    "stderr",
];

#[derive(Debug)]
struct TaskDirectory {
    path: PathBuf,
    /// What it looked like when it was last found empty, if that look can be trusted.
    empty: Option<Look>,
}

/// What tells that nothing happened to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    mode: u32,
    modified: (i64, i64),
}

impl Look {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            mode: meta.mode(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Directories {
    /// Makes the slot's directories and empties them of what an earlier life left.
    pub(super) fn create(slot: &Path) -> Result<Self, ExecError> {
        let error = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ExecError::Path {
                operation,
                path,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(slot)
            .map_err(error("create the directory", slot))?;
        let task_directory = |name| TaskDirectory {
            path: slot.join(name),
            empty: None,
        };
        let mut directories = Self {
            all: ["result", "exec", "resource"].map(task_directory),
            new_task: slot.join("new_task.json"),
            outgoing: slot.join("outgoing"),
            slot: slot.to_owned(),
            plain: None,
        };
        for path in directories.paths().iter().chain([&directories.outgoing]) {
            wipe(path).map_err(error("empty the directory", path))?;
        }
        directories.look();
        Ok(directories)
    }

    /// `MITO_RESULT_DIR`.
    pub(super) fn result(&self) -> &Path {
        &self.all[0].path
    }

    /// `MITO_EXEC_DIR`, also the working directory of tasks that run in their own.
    pub(super) fn exec(&self) -> &Path {
        &self.all[1].path
    }

    /// `MITO_RESOURCE_DIR`.
    pub(super) fn resource(&self) -> &Path {
        &self.all[2].path
    }

    /// `MITO_NEW_TASK`.
    pub(super) fn new_task(&self) -> &Path {
        &self.new_task
    }

    /// Packed artifacts that wait for their upload. Not a task's; emptied at the slot's start alone.
    pub(super) fn outgoing(&self) -> &Path {
        &self.outgoing
    }

    /// The directories in which a task left something that is to be kept.
    pub(super) fn filled(&mut self) -> Vec<Source> {
        let [result, exec, _] = &mut self.all;
        let kept = [(ArtifactKind::Result, result), (ArtifactKind::Exec, exec)];
        let filled = kept.into_iter().filter_map(|(kind, directory)| {
            // One that is gone, or was replaced by something else, holds nothing to keep.
            let is_filled = !directory.is_empty() && reads_empty(&directory.path).is_ok();
            is_filled.then(|| Source {
                kind,
                path: directory.path.clone(),
            })
        });
        filled.collect()
    }

    /// Makes everything as if no task had been here.
    pub(super) async fn clean(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.new_task) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.new_task.clone();
                blocking(move || set_aside_if_needed(&path, remove(&path))).await?;
            }
            _ => {}
        }
        let strangers = self.strangers()?;
        if !strangers.is_empty() {
            let all = move || {
                let mut paths = strangers.iter();
                paths.try_for_each(|path| set_aside_if_needed(path, remove(path)))
            };
            blocking(all).await?;
        }
        if self.look() {
            return Ok(());
        }
        let paths = self.paths();
        blocking(move || paths.iter().try_for_each(|path| wipe(path))).await?;
        self.look();
        Ok(())
    }

    /// What lies in the slot and is not its own.
    fn strangers(&mut self) -> io::Result<Vec<PathBuf>> {
        let meta = std::fs::symlink_metadata(&self.slot)?;
        let look = Look::of(&meta);
        if self.plain == Some(look) {
            return Ok(Vec::new());
        }
        self.plain = None;
        let mut strangers = Vec::new();
        for entry in std::fs::read_dir(&self.slot)? {
            let name = entry?.file_name();
            let is_own = OWN.iter().chain(&ended::FILES).any(|own| name == *own);
            if !is_own && name != begun::FILE && !is_set_aside(&name) {
                strangers.push(self.slot.join(name));
            }
        }
        if strangers.is_empty() && is_settled(&meta) {
            self.plain = Some(look);
        }
        Ok(strangers)
    }

    fn paths(&self) -> [PathBuf; 3] {
        self.all.each_ref().map(|directory| directory.path.clone())
    }

    /// True when all are empty; remembers what they look like.
    fn look(&mut self) -> bool {
        self.all.iter_mut().all(TaskDirectory::is_empty)
    }
}

impl TaskDirectory {
    fn is_empty(&mut self) -> bool {
        let Ok(meta) = std::fs::symlink_metadata(&self.path) else {
            return false;
        };
        let look = Look::of(&meta);
        if self.empty == Some(look) {
            return true;
        }
        self.empty = None;
        let usable = meta.is_dir() && look.mode & PRIVATE == PRIVATE;
        if !usable || !reads_empty(&self.path).unwrap_or(false) {
            return false;
        }
        if is_settled(&meta) {
            self.empty = Some(look);
        }
        true
    }
}

/// True when a change would show.
fn is_settled(meta: &Metadata) -> bool {
    let age = meta
        .modified()
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age >= SETTLED)
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn reads_empty(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut entries = Dir::new(openat(CWD, path, flags, Mode::empty())?)?;
    entries.try_fold(true, |empty, entry| {
        let entry = entry?;
        Ok(empty && matches!(entry.file_name().to_bytes(), b"." | b".."))
    })
}

/// Leaves an empty directory at `path`, whatever was there.
fn wipe(path: &Path) -> io::Result<()> {
    set_aside_if_needed(path, remove(path))?;
    DirBuilder::new().mode(PRIVATE).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_trusted_to_be_empty_only_when_its_last_change_is_old() {
        let slot = tempfile::tempdir().unwrap();
        let mut directories = Directories::create(slot.path()).unwrap();
        let path = directories.exec().to_owned();
        let change_time = |ago: Duration| {
            let time = SystemTime::now() - ago;
            std::fs::File::open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        let trusted = |directories: &mut Directories| {
            assert!(directories.all[1].is_empty());
            directories.all[1].empty.is_some()
        };
        change_time(Duration::ZERO);
        assert!(!trusted(&mut directories));
        change_time(10 * SETTLED);
        assert!(trusted(&mut directories));
        assert!(trusted(&mut directories));
        std::fs::write(path.join("file"), "").unwrap();
        assert!(!directories.all[1].is_empty());
    }
}
