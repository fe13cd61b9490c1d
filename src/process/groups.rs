//! Control groups of tasks: a memory limit, and a kill that nothing escapes.
//!
//! Only a task that asks for a memory limit has a group. It is made right before its start, entered by the wrapper of
//! [`super::limited`] before the program is executed, and removed when the task has ended. Whoever owns a state directory
//! owns the groups below one directory of the control group file system ([`GroupHome`]); it removes what a killed worker
//! left, and at its next start what itself left.
//!
//! | mount | memory | kill |
//! |---|---|---|
//! | unified (version 2) with the memory controller | `memory.max`, `memory.oom.group`, `memory.events` | `cgroup.kill` |
//! | hybrid: the controller in version 1, the unified mount beside it | `memory.limit_in_bytes`, `memory.oom_control` | `cgroup.kill` of a second group |
//! | version 1 alone | as above | process by process |
//!
//! No crate: these are a dozen small files. Their calls are short and made where they are needed.

mod find;
mod home;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::tree::parse_pid;
use crate::protocol::limits::GroupDirs;

pub use home::GroupHome;

/// The file that takes processes in.
const PROCESSES: &str = "cgroup.procs";
/// How long a group may take to become empty once everything in it was killed.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// The groups of one task.
///
/// Dropping it kills what is inside and removes what can be removed at once; [`Self::remove`] waits.
#[derive(Debug)]
pub struct TaskGroup {
    memory: PathBuf,
    unified: bool,
    tree: Option<PathBuf>,
}

impl TaskGroup {
    /// Makes the group `name` below `dirs` with a memory limit. What an earlier task left under this name goes first.
    ///
    /// # Errors
    /// When the system refuses, with the file.
    pub fn create(dirs: &GroupDirs, name: &str, memory_bytes: u64) -> io::Result<Self> {
        let group = Self {
            memory: dirs.memory.join(name),
            unified: dirs.unified,
            tree: dirs.tree.as_ref().map(|tree| tree.join(name)),
        };
        group.dirs().for_each(discard);
        for (base, own) in [
            (Some(&dirs.memory), Some(&group.memory)),
            (dirs.tree.as_ref(), group.tree.as_ref()),
        ] {
            if let (Some(base), Some(own)) = (base, own) {
                make(base)?;
                if dirs.unified {
                    write(&base.join("cgroup.subtree_control"), "+memory")?;
                }
                make(own)?;
            }
        }
        group.limit(memory_bytes)?;
        Ok(group)
    }

    fn limit(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        // Without these files the machine has no swap to limit, or its kernel no group kill.
        let (limit, optional): (_, &[(&str, &str)]) = if self.unified {
            (
                "memory.max",
                &[("memory.swap.max", "0"), ("memory.oom.group", "1")],
            )
        } else {
            (
                "memory.limit_in_bytes",
                &[("memory.memsw.limit_in_bytes", &bytes)],
            )
        };
        write(&self.memory.join(limit), &bytes)?;
        for (name, value) in optional {
            let file = self.memory.join(name);
            if file.exists() {
                write(&file, value)?;
            }
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let tree = self.tree.as_deref();
        [self.memory.as_path()].into_iter().chain(tree)
    }

    /// The files that take a process into the groups.
    #[must_use]
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.dirs().map(|dir| dir.join(PROCESSES)).collect()
    }

    /// True once the kernel has killed a process in here for the memory limit.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let name = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.memory.join(name)).unwrap_or_default();
        kills(&text) > 0
    }

    /// Kills everything inside.
    pub fn kill(&self) {
        self.dirs().for_each(kill);
    }

    /// Kills everything inside and removes the groups.
    ///
    /// # Errors
    /// When they are not empty after two seconds: something inside cannot be killed.
    pub async fn remove(self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + REMOVE_LIMIT;
        loop {
            match self.dirs().try_for_each(remove) {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => self.kill(),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        self.dirs().for_each(discard);
    }
}

/// The count behind `oom_kill`, as both versions write it.
fn kills(text: &str) -> u64 {
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(named(dir, &error)),
        Ok(()) => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|error| named(file, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Kills what is in a group, by its own means or one by one. A group that is gone holds nothing.
fn kill(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    for pid in members.lines().filter_map(parse_pid) {
        // The pid is looked at again behind the descriptor: a process that ended meanwhile has left the group.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let members = fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
        if members
            .lines()
            .filter_map(parse_pid)
            .any(|member| member == pid)
        {
            // It may be gone by itself, which is what is wanted.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Removes an empty group; one that is gone is fine.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(dir, &error)),
        Ok(()) => Ok(()),
    }
}

/// Removes a group now, if that is possible.
fn discard(dir: &Path) {
    if remove(dir).is_err() {
        kill(dir);
        // What was just killed may need a moment; the next task of this name, or the owner, tries again.
        let _ = remove(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_their_kills_in_the_same_words() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(
            kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n"),
            1
        );
        assert_eq!(kills(""), 0);
    }

    #[test]
    fn the_files_of_each_version_get_the_limit() {
        for (unified, file) in [(true, "memory.max"), (false, "memory.limit_in_bytes")] {
            let dir = tempfile::tempdir().unwrap();
            let dirs = GroupDirs {
                memory: dir.path().join("memory"),
                unified,
                tree: Some(dir.path().join("tree")),
            };
            let group = TaskGroup::create(&dirs, "7", 1 << 20).unwrap();
            let text = fs::read_to_string(dirs.memory.join("7").join(file)).unwrap();
            assert_eq!(text, "1048576");
            assert_eq!(group.entrances().len(), 2);
            assert!(!group.ran_out_of_memory());
        }
    }
}
