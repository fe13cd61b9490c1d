//! Where this process may make control groups.
//!
//! Below the group it is in: that is what was delegated to it, if anything was. Pure but for the last step, which asks
//! the file system, and which for version 2 may have to move this process: there a group with processes of its own can
//! have no controlled children, so a process that is alone in its group goes into a child of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{PROCESSES, make, write};
use crate::protocol::limits::GroupDirs;

/// What to do where there is no place.
const ADVICE: &str = "start this program in a control group that it may divide, with `systemd-run --user --scope -p \
    Delegate=yes mitosis …` or `Delegate=yes` in its unit, or leave the limit out";
/// The child that a process alone in its group moves to.
const MAIN: &str = "mitosis-main";

/// The groups of this process in the hierarchies that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Own {
    /// In the hierarchy of version 1 with the memory controller.
    memory: Option<PathBuf>,
    /// In the unified hierarchy.
    unified: Option<PathBuf>,
    /// That one is the root of what this process sees. Whoever enters a container enters there, so it stays undivided.
    unified_is_root: bool,
}

/// The directories for groups named `name`, none of which is made here; or why there are none, and what to do.
pub(super) fn find(name: &str) -> Result<GroupDirs, String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let own = own_groups(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    choose(&own, name, std::process::id()).map_err(|why| format!("{why}; {ADVICE}"))
}

fn choose(own: &Own, name: &str, pid: u32) -> Result<GroupDirs, String> {
    let mut whys = Vec::new();
    if let Some(unified) = &own.unified {
        match divide(unified, own.unified_is_root, pid) {
            Ok(()) => {
                return Ok(GroupDirs {
                    memory: unified.join(name),
                    unified: true,
                    tree: None,
                });
            }
            Err(why) => whys.push(why),
        }
    }
    if let Some(memory) = &own.memory {
        match may_write(memory) {
            Ok(()) => {
                let killable = |dir: &&PathBuf| {
                    may_write(dir).is_ok() && dir.join("cgroup.subtree_control").exists()
                };
                return Ok(GroupDirs {
                    memory: memory.join(name),
                    unified: false,
                    tree: own
                        .unified
                        .as_ref()
                        .filter(killable)
                        .map(|dir| dir.join(name)),
                });
            }
            Err(why) => whys.push(why),
        }
    }
    if whys.is_empty() {
        whys.push("no control group file system is mounted".to_owned());
    }
    Err(whys.join(", and "))
}

fn may_write(dir: &Path) -> Result<(), String> {
    access(dir, Access::WRITE_OK).map_err(|errno| {
        let error = io::Error::from(errno);
        format!("`{}` cannot be written ({error})", dir.display())
    })
}

/// Makes sure that children of a group of version 2 can have a memory limit.
fn divide(dir: &Path, is_root: bool, pid: u32) -> Result<(), String> {
    let lists = |file: &str| {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace().any(|word| word == "memory")
    };
    if !lists("cgroup.controllers") {
        return Err(format!("`{}` has no memory controller", dir.display()));
    }
    may_write(dir)?;
    let control = dir.join("cgroup.subtree_control");
    if lists("cgroup.subtree_control") {
        return Ok(());
    }
    if is_root {
        return Err(format!("`{}` is where others enter", dir.display()));
    }
    let members = fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    let alone = members.lines().all(|member| member.parse() == Ok(pid));
    if !alone {
        return Err(format!(
            "`{}` has processes of its own beside this one",
            dir.display()
        ));
    }
    let main = dir.join(MAIN);
    let divided = make(&main)
        .and_then(|()| write(&main.join(PROCESSES), "0"))
        .and_then(|()| write(&control, "+memory"));
    divided.map_err(|error| format!("`{}` cannot be divided ({error})", dir.display()))
}

/// Joins `mountinfo` (which hierarchy is mounted where, and which part of it) with `cgroup` (which group of each is ours).
fn own_groups(mountinfo: &str, cgroup: &str) -> Own {
    let group = |is_it: &dyn Fn(&str, &str) -> bool| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            is_it(number, controllers).then(|| PathBuf::from(path))
        })
    };
    let memory = group(&|_, controllers| controllers.split(',').any(|name| name == "memory"));
    let unified = group(&|number, controllers| number == "0" && controllers.is_empty());
    let mut own = Own::default();
    for line in mountinfo.lines() {
        // … root mountpoint options … - type source superoptions
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = left.split(' ').collect();
        let mut kind = right.split(' ');
        let (Some(root), Some(mount)) = (fields.get(3), fields.get(4)) else {
            continue;
        };
        let place = |path: &Option<PathBuf>| {
            let below = path.as_ref()?.strip_prefix(root).ok()?.to_owned();
            Some(Path::new(mount).join(below))
        };
        match kind.next() {
            Some("cgroup2") if own.unified.is_none() => {
                own.unified = place(&unified);
                own.unified_is_root = own.unified.as_deref() == Some(Path::new(mount));
            }
            Some("cgroup")
                if kind
                    .next_back()
                    .is_some_and(|of| of.split(',').any(|name| name == "memory")) =>
            {
                own.memory = own.memory.or_else(|| place(&memory));
            }
            _ => {}
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn a_hybrid_mount_has_two_groups_of_ours() {
        let cgroup = "4:memory:/a/b\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/c\n";
        let own = own_groups(HYBRID, cgroup);
        assert_eq!(own.memory, Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(own.unified, Some("/sys/fs/cgroup/unified/c".into()));
    }

    #[test]
    fn a_container_sees_the_part_of_a_hierarchy_that_is_mounted() {
        let mount = "9 8 0:1 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n";
        let own = own_groups(mount, "0::/docker/7/sub\n");
        assert_eq!(own.unified, Some("/sys/fs/cgroup/sub".into()));
        assert!(!own.unified_is_root);
        assert!(own_groups(mount, "0::/docker/7\n").unified_is_root);
        assert_eq!(own_groups(mount, "0::/elsewhere\n"), Own::default());
    }

    /// A directory with the files of a group of version 2.
    fn group(controllers: &str, subtree: &str, members: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", subtree),
            (PROCESSES, members),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    fn chosen(unified: &Path, memory: Option<&Path>) -> Result<GroupDirs, String> {
        let own = Own {
            memory: memory.map(Path::to_owned),
            unified: Some(unified.to_owned()),
            unified_is_root: false,
        };
        choose(&own, "name", 7)
    }

    #[test]
    fn the_unified_hierarchy_is_taken_where_it_can_limit_memory() {
        let divided = group("cpu memory pids", "memory", "7\n8\n");
        let dirs = chosen(divided.path(), None).unwrap();
        assert_eq!(dirs.memory, divided.path().join("name"));
        assert!(dirs.unified && dirs.tree.is_none());
        let alone = group("memory", "", "7\n");
        assert!(chosen(alone.path(), None).unwrap().unified);
        let control = fs::read_to_string(alone.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+memory");
        let container = group("memory", "", "7\n");
        let why = divide(container.path(), true, 7).unwrap_err();
        assert!(why.contains("others enter"), "{why}");
        let crowded = group("memory", "", "7\n8\n");
        let why = chosen(crowded.path(), None).unwrap_err();
        assert!(why.contains("beside this one"), "{why}");
    }

    #[test]
    fn without_it_version_1_limits_and_the_unified_mount_kills() {
        let (unified, memory) = (group("", "", ""), tempfile::tempdir().unwrap());
        let dirs = chosen(unified.path(), Some(memory.path())).unwrap();
        assert_eq!(dirs.memory, memory.path().join("name"));
        assert_eq!(dirs.tree, Some(unified.path().join("name")));
        assert!(!dirs.unified);
        let nowhere = chosen(unified.path(), Some(Path::new("/no/such/group"))).unwrap_err();
        assert!(nowhere.contains("no memory controller") && nowhere.contains("/no/such/group"));
    }
}
