//! The limits of a task: what is made for them before its start, and the words of an end that they brought about.

use super::ExecConfig;
use crate::process::SpawnSpec;
use crate::process::groups::TaskGroup;
use crate::process::limited::{self, Entry, Limited};
use crate::process::{ExitStatus, SpawnError};
use crate::protocol::limits::{Limits, TaskGroups};
use crate::protocol::report::Reason;

use super::stop::End;

/// Where the groups of this slot's tasks are made.
#[derive(Debug)]
pub(super) struct GroupPlace {
    groups: TaskGroups,
    /// Name of the group; a slot runs one task at a time.
    name: String,
}

impl GroupPlace {
    pub(super) fn new(config: &ExecConfig) -> Self {
        Self {
            groups: config.groups.clone(),
            name: config.worker_id.clone(),
        }
    }

    /// The control group of a task that has a memory limit; why it cannot be had, and what to do, where that is so.
    pub(super) fn group_for(&self, limits: &Limits) -> Result<Option<TaskGroup>, String> {
        let Some(bytes) = limits.memory_bytes else {
            return Ok(None);
        };
        let refused = |why: &dyn std::fmt::Display| {
            format!("`limits.memory_bytes` cannot be kept on this machine: {why}")
        };
        match &self.groups {
            TaskGroups::Unavailable(why) => Err(refused(why)),
            TaskGroups::Below(dirs) => TaskGroup::create(dirs, &self.name, bytes)
                .map(Some)
                .map_err(|error| refused(&error)),
        }
    }
}

/// The spec of a task's start with its limits; untouched, and without a wrapper, where there are none.
pub(super) fn apply<'fd>(
    spec: SpawnSpec<'fd>,
    limits: &Limits,
    group: Option<&TaskGroup>,
) -> Result<(SpawnSpec<'fd>, Option<Entry>), SpawnError> {
    if *limits == Limits::default() {
        return Ok((spec, None));
    }
    let limited = Limited {
        file_size_bytes: limits.file_size_bytes,
        open_files: limits.open_files,
        groups: group.map(TaskGroup::entrances).unwrap_or_default(),
    };
    limited::wrap(spec, limited).map(|(spec, entry)| (spec, Some(entry)))
}

/// What a limit had to do with an end, for its author.
pub(super) fn words(end: End, limits: &Limits) -> Option<String> {
    match (end.reason, end.status) {
        (Reason::Oom, _) => Some(format!(
            "needed more memory than its limit of {} bytes (`limits.memory_bytes`) and was killed",
            limits.memory_bytes.unwrap_or_default()
        )),
        (Reason::Signal, Some(ExitStatus::Signal(libc::SIGXFSZ))) => {
            let bytes = limits.file_size_bytes?;
            Some(format!(
                "wrote a file beyond its limit of {bytes} bytes (`limits.file_size_bytes`)"
            ))
        }
        _ => None,
    }
}
