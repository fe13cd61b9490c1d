//! What a run is told. Validated values; the command line fills them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use mitosis_bridge::PollConfig;
use mitosis_bridge::ids::MAX_WORKERS;
use mitosis_bridge::limits::affordable;

use super::halt::Halt;
use super::opened::Opened;
use super::printer::Destination;
use super::progress::ProgressMode;
use super::records::RecordPaths;
use super::screen::Screen;
use super::stem::StemPattern;
use super::tag::Tag;
use crate::allocation::{Allocation, Stop};
use crate::coordinator::Durability;
use crate::manager::Totals;
use crate::process::passed::Passed;
use crate::protocol::limits::Limits;
use crate::protocol::task::{Backoff, Capture, DEFAULT_GRACE, Direct, OnLeftovers, Resources};
use crate::protocol::{Capacity, HumanDuration, TaskSpec};

/// Everything about a run but its input.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Worker processes, 1 to 256.
    pub workers: u16,
    /// What tasks may occupy at once.
    pub totals: Totals,
    /// Where tasks are kept; a fresh directory when absent.
    pub state_dir: Option<PathBuf>,
    /// Keep a fresh directory after full success.
    pub keep_state: bool,
    /// Where outputs and other records go, and in which order and form.
    pub output: OutputOptions,
    /// For specs that do not say.
    pub defaults: SpecDefaults,
    /// When to cancel the rest.
    pub halt: Option<Halt>,
    /// Repeat tasks that failed or were cancelled in an earlier run.
    pub retry_failed: bool,
    /// When progress is shown.
    pub progress: ProgressMode,
    /// What is behind stderr.
    pub screen: Screen,
    /// stdout is taken by a JSON summary.
    pub json: bool,
    /// How pollers wait.
    pub poll: PollConfig,
    /// What an accepted task survives.
    pub durability: Durability,
    /// How long a state directory that cannot be written is waited for.
    pub disk_wait: Duration,
    /// When to stop by itself, because the machine is taken away.
    pub ends: Option<Stop>,
    /// Say nothing on stderr but errors and failures.
    pub quiet: bool,
    /// Where tasks run; the caller's directory when absent.
    pub cwd: Option<PathBuf>,
    /// Time between the beginnings of two tasks, at least.
    pub delay: Option<HumanDuration>,
    /// The nice value of tasks; 0 is the caller's.
    pub nice: u8,
    /// Begin tasks in random order.
    pub shuffle: bool,
    /// Descriptors of the caller that tasks get.
    pub passed: Passed,
    /// Words of the command line that a resuming one repeats.
    pub again: Vec<String>,
}

impl RunOptions {
    /// Where outputs of tasks go.
    #[must_use]
    pub fn destination(&self) -> Destination {
        match &self.output.files {
            Some(_) => Destination::Files,
            None if self.json => Destination::Nowhere,
            None => Destination::Streams,
        }
    }

    /// What tasks may occupy at once, in numbers.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.totals.capacity(self.workers)
    }

    /// How long running tasks may go on after the first interrupt.
    #[must_use]
    pub fn stop_deadline(&self) -> Duration {
        self.defaults.grace.map_or(DEFAULT_GRACE, |grace| grace.0)
    }
}

/// What becomes of outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// Into files of these names, instead of to stdout and stderr.
    pub files: Option<StemPattern>,
    /// In the order of the input.
    pub keep_order: bool,
    /// Line by line while tasks run, instead of whole at their end.
    pub line_buffer: bool,
    /// Each line with what tells its task from the others.
    pub tag: Option<Tag>,
    /// Files about the run.
    pub records: RecordPaths,
}

impl OutputOptions {
    /// True when an end alone does not say enough and the store has to be asked.
    #[must_use]
    pub fn needs_details(&self) -> bool {
        let needs_task = self.files.as_ref().is_some_and(StemPattern::needs_task);
        needs_task || self.tag.is_some() || self.line_buffer || !self.records.is_empty()
    }
}

/// Fields for specs that do not have them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecDefaults {
    /// Longest run time.
    pub timeout: Option<HumanDuration>,
    /// Time between TERM and KILL.
    pub grace: Option<HumanDuration>,
    /// Attempts that may fail.
    pub max_attempts: Option<u32>,
    /// What a task may use at most.
    pub limits: Limits,
    /// Amounts that a task occupies.
    pub resources: Resources,
    /// Pause before a further attempt.
    pub backoff: Option<Backoff>,
    /// Bytes kept per stream.
    pub capture_bytes: Option<u64>,
    /// Whether lines that need no shell are executed without one.
    pub direct: Direct,
    /// What reads lines instead of `/bin/sh`.
    pub shell_program: Option<String>,
    /// What becomes of processes that outlive their task.
    pub leftovers: Option<OnLeftovers>,
    /// Variables.
    pub env: BTreeMap<String, String>,
}

impl SpecDefaults {
    /// The spec with these defaults where it says nothing.
    #[must_use]
    pub fn applied(&self, spec: TaskSpec) -> TaskSpec {
        TaskSpec {
            timeout: spec.timeout.or(self.timeout),
            grace: spec.grace.or(self.grace),
            max_attempts: spec.max_attempts.or(self.max_attempts),
            limits: spec.limits.or(&self.limits),
            resources: self.resources_of(spec.resources),
            backoff: spec.backoff.or_else(|| self.backoff.clone()),
            direct: match spec.direct {
                Direct::Auto if spec.shell => self.direct,
                own => own,
            },
            shell_program: match spec.shell {
                true => spec.shell_program.or_else(|| self.shell_program.clone()),
                false => spec.shell_program,
            },
            leftovers: spec.leftovers.or(self.leftovers),
            env: self.env_of(spec.env),
            capture: Capture {
                limit_bytes: spec.capture.limit_bytes.or(self.capture_bytes),
                ..spec.capture
            },
            ..spec
        }
    }

    /// The variables of a task, with these where it does not have them.
    fn env_of(&self, mut own: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (name, value) in &self.env {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
        own
    }

    /// What a task occupies, with these defaults where it says nothing.
    pub(super) fn resources_of(&self, own: Resources) -> Resources {
        let defaults = &self.resources;
        Resources {
            cpus: own.cpus.or(defaults.cpus),
            mem_bytes: own.mem_bytes.or(defaults.mem_bytes),
            gpus: if own.gpus == 0 {
                defaults.gpus
            } else {
                own.gpus
            },
            pin: own.pin || defaults.pin,
            named: own.named,
        }
    }
}

/// The tasks of a run.
#[derive(Debug)]
pub struct Input {
    /// Where they came from, for people.
    pub source: String,
    /// True for one command whose exit code becomes the run's.
    pub single_command: bool,
    /// True when they come from standard input.
    pub reads_stdin: bool,
    /// The tasks.
    pub opened: Opened,
}

/// Workers when nobody names a number: the cores this process may use, as its affinity mask, its control group's CPU
/// quota and its Slurm job allow, or fewer where shared memory or file descriptors are short, which is said once.
#[must_use]
pub fn default_workers() -> u16 {
    let cores = cores();
    // Where none fits at all, the manager's start says what is missing.
    let Ok(fit) = affordable(cores) else {
        return cores;
    };
    if let Some(missing) = fit.missing.filter(|_| fit.workers > 0) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                workers = fit.workers,
                %missing,
                "starting fewer workers than there are cores"
            );
        });
    }
    if fit.workers == 0 { cores } else { fit.workers }
}

fn cores() -> u16 {
    let usable = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let given = Allocation::current().and_then(|allocation| allocation.cores);
    let cores = given.map_or(usable, |given| given.min(usable));
    u16::try_from(cores)
        .unwrap_or(MAX_WORKERS)
        .clamp(1, MAX_WORKERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_keeps_what_it_says() {
        let second = HumanDuration(Duration::from_secs(1));
        let minute = HumanDuration(Duration::from_secs(60));
        let defaults = SpecDefaults {
            timeout: Some(second),
            grace: Some(second),
            max_attempts: Some(3),
            limits: Limits {
                open_files: Some(7),
                memory_bytes: Some(8),
                ..Limits::default()
            },
            resources: Resources {
                cpus: Some(2.0),
                gpus: 1,
                ..Resources::default()
            },
            ..SpecDefaults::default()
        };
        let spec = TaskSpec {
            timeout: Some(minute),
            limits: Limits {
                open_files: Some(9),
                ..Limits::default()
            },
            resources: Resources {
                cpus: Some(1.0),
                ..Resources::default()
            },
            ..TaskSpec::argv(["a"])
        };
        let applied = defaults.applied(spec);
        assert_eq!(
            (applied.timeout, applied.grace),
            (Some(minute), Some(second))
        );
        assert_eq!(applied.max_attempts(), 3);
        let limits = (applied.limits.open_files, applied.limits.memory_bytes);
        assert_eq!(limits, (Some(9), Some(8)));
        let resources = applied.resources;
        assert_eq!((resources.cpus, resources.gpus), (Some(1.0), 1));
    }

    #[test]
    fn there_is_at_least_one_worker_and_at_most_the_limit() {
        assert!((1..=MAX_WORKERS).contains(&default_workers()));
    }
}
