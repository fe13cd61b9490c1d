//! Looking at processes through `/proc`: who belongs to a sandbox, who is whose child, signals.
//!
//! A process belongs to a sandbox when its environment, command line or working directory names the sandbox's directory;
//! that is inherited by tasks and by whatever they leave behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// One process as seen at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// `Z` for one that is dead and not yet waited for.
    pub(crate) state: char,
    pub(crate) command: String,
}

fn numbers() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn look(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses; what follows the last one does not.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    Some(Process {
        pid,
        parent,
        state,
        command: command.trim_end().to_owned(),
    })
}

fn names(pid: u32, path: &Path) -> bool {
    let needle = path.as_os_str().as_encoded_bytes();
    let holds = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|part| part == needle);
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    holds(read("environ"))
        || holds(read("cmdline"))
        || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(path))
}

/// Every living process that names `path`, without this one.
pub(crate) fn of(path: &Path) -> Vec<Process> {
    let own = std::process::id();
    numbers()
        .filter(|pid| *pid != own && names(*pid, path))
        .filter_map(look)
        .filter(|process| process.state != 'Z')
        .collect()
}

/// The parent of a living process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    look(pid).map(|process| process.parent)
}

/// Living direct children.
pub(crate) fn children(parent: u32) -> Vec<Process> {
    numbers()
        .filter_map(look)
        .filter(|process| process.parent == parent && process.state != 'Z')
        .collect()
}

/// Worker processes among the children of a manager.
pub(crate) fn workers(manager: u32) -> Vec<Process> {
    let mut found = children(manager);
    found.retain(|process| process.command.contains("worker"));
    found
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a real process"), signal);
}

/// Number of open descriptors; 0 for a process that is gone.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Resident memory in KiB; 0 for a process that is gone.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

/// The most that its resident memory has been, in KiB; 0 for a process that is gone.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// CPU time of each thread of a process, by its number and name.
pub(crate) fn thread_times(pid: u32) -> Vec<(u32, String, Duration)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let of = |entry: fs::DirEntry| {
        let thread = entry.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let name = read("comm")?.trim().to_owned();
        let spent = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
        Some((thread, name, Duration::from_nanos(spent)))
    };
    threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(of)
        .collect()
}
