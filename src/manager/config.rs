//! What a manager is told at its start.
//!
//! Plain validated values: no flags, no environment variables and no files are read here. The command line fills a
//! [`ManagerConfig`]; every part of the manager takes what concerns it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mitosis_bridge::config::PollConfig;
use mitosis_bridge::ids::MAX_WORKERS;

use crate::process::passed::Passed;
use crate::protocol::frame::{CwdPolicy, EnvPolicy, HaltLimits, KeptOutput};
use crate::protocol::{Capacity, HumanDuration};

use super::error::ManagerError;

/// Most tasks a manager ever asks for at once or holds unstarted.
pub const MAX_PREFETCH: u32 = 4096;
/// CPU capacity of one slot when the configuration names none, in thousandths of a core.
const MILLI_CPUS_PER_SLOT: u32 = 1000;

/// Everything a manager needs to know before it starts.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Directory that this manager alone writes: identity, spool, slots, worker logs. Created when absent.
    pub state_dir: PathBuf,
    /// Whether other managers may run on this machine.
    pub exclusivity: Exclusivity,
    /// Worker slots, 1 to 256.
    pub workers: u16,
    /// What tasks may occupy.
    pub totals: Totals,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Where others find this process's `/metrics`, `host:port`; told to the coordinator, which tells Prometheus.
    pub metrics: Option<String>,
    /// How the manager's poller waits. Its workers get the same.
    pub poll: PollConfig,
    /// Tasks held unstarted; `None` is twice the workers or what ends in 200 ms, whichever is more.
    pub prefetch: Option<u32>,
    /// What tasks start from.
    pub exec: ExecDefaults,
    /// Which program the workers run.
    pub worker_program: WorkerProgram,
    /// What a report survives before it is acknowledged.
    pub durability: Durability,
    /// Where captured output is kept; `None` is `output` in the state directory.
    pub output_dir: Option<PathBuf>,
    /// Time bounds.
    pub limits: Limits,
}

impl ManagerConfig {
    /// A manager with `workers` slots and defaults for the rest.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, workers: u16) -> Self {
        Self {
            state_dir: state_dir.into(),
            exclusivity: Exclusivity::StateDir,
            workers,
            totals: Totals::default(),
            tags: Vec::new(),
            metrics: None,
            poll: PollConfig::default(),
            prefetch: None,
            exec: ExecDefaults {
                env: EnvPolicy::AllowList,
                cwd: CwdPolicy::TaskDir,
                kept_output: KeptOutput::Stays,
                live_dir: None,
                halt_after: HaltLimits::default(),
                apart: None,
                nice: 0,
                passed: Passed::default(),
            },
            worker_program: WorkerProgram::Current,
            durability: Durability::Process,
            output_dir: None,
            limits: Limits::default(),
        }
    }

    /// CPU capacity in thousandths of a core.
    #[must_use]
    pub fn milli_cpus(&self) -> u32 {
        self.totals.milli_cpus(self.workers)
    }

    /// What tasks may occupy at once.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.totals.capacity(self.workers)
    }

    /// Where captured output is kept.
    #[must_use]
    pub fn output_dir(&self) -> PathBuf {
        self.output_dir
            .clone()
            .unwrap_or_else(|| self.state_dir.join("output"))
    }

    /// Directories of the slots.
    #[must_use]
    pub fn slots_dir(&self) -> PathBuf {
        self.state_dir.join("slots")
    }

    /// Directory of the workers' logs.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.state_dir.join("logs")
    }

    /// Directory of the spool.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// In words for whoever wrote the configuration.
    pub fn validate(&self) -> Result<(), ManagerError> {
        let invalid = |message: String| Err(ManagerError::Config { message });
        if self.workers == 0 || self.workers > MAX_WORKERS {
            return invalid(format!(
                "{} workers are asked for; allowed are 1 to {MAX_WORKERS}",
                self.workers
            ));
        }
        if self.milli_cpus() == 0 {
            return invalid("the CPU capacity is zero; no task would ever start".to_owned());
        }
        if self.prefetch.is_some_and(|n| n == 0 || n > MAX_PREFETCH) {
            return invalid(format!(
                "the prefetch is out of its range 1 to {MAX_PREFETCH}"
            ));
        }
        if !is_plain(&self.state_dir) {
            return invalid("the state directory has no path".to_owned());
        }
        Ok(())
    }
}

/// What tasks may occupy at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// CPUs in thousandths; `None` is one per slot, so that a task without a wish takes one slot and a task with
    /// `cpus: 2` takes two.
    pub milli_cpus: Option<u32>,
    /// Memory in bytes; `None` is the machine's.
    pub mem_bytes: Option<u64>,
    /// Names of GPUs, as `CUDA_VISIBLE_DEVICES` has them.
    pub gpus: Vec<String>,
}

impl Totals {
    fn milli_cpus(&self, workers: u16) -> u32 {
        self.milli_cpus
            .unwrap_or_else(|| u32::from(workers) * MILLI_CPUS_PER_SLOT)
    }

    /// In numbers, for a manager with so many slots.
    #[must_use]
    pub fn capacity(&self, workers: u16) -> Capacity {
        Capacity {
            milli_cpus: Some(self.milli_cpus(workers).into()),
            mem_bytes: Some(self.mem_bytes.unwrap_or_else(machine_memory_bytes)),
            gpus: Some(self.gpus.len() as u64),
        }
    }
}

fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    #[expect(
        clippy::useless_conversion,
        reason = "the field is as wide as a machine word, which differs by platform"
    )]
    u64::from(info.totalram).saturating_mul(unit)
}

fn is_plain(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Whether other managers may run on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusivity {
    /// One per state directory: `run` and `up`.
    StateDir,
    /// One per machine and user as well: the role `manager`.
    Machine,
}

/// What tasks start from.
#[derive(Debug, Clone)]
pub struct ExecDefaults {
    /// Their environment.
    pub env: EnvPolicy,
    /// Their working directory when the spec names none.
    pub cwd: CwdPolicy,
    /// What becomes of output that is longer than the tail.
    pub kept_output: KeptOutput,
    /// Where the output of running tasks lies under their names; it has to be there.
    pub live_dir: Option<PathBuf>,
    /// Ends after which no worker begins anything more.
    pub halt_after: HaltLimits,
    /// Time between the beginnings of two of them, at least.
    pub apart: Option<HumanDuration>,
    /// Their nice value; 0 is the manager's.
    pub nice: u8,
    /// Descriptors of the caller that they get.
    pub passed: Passed,
}

/// Which program the workers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerProgram {
    /// This process's own executable with the sub-command `worker`, opened once at start: a file that is replaced
    /// meanwhile does not mix versions.
    Current,
    /// The `mitosis` program at this path, with the sub-command `worker`.
    Mitosis(PathBuf),
    /// The `mitosis-worker` program at this path, without a sub-command.
    MitosisWorker(PathBuf),
}

/// What an acknowledged report survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of any process.
    #[default]
    Process,
    /// A power cut as well: every batch is flushed to the disk before it is acknowledged.
    Power,
}

/// Time bounds of the manager's own procedures.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A started worker has to join within this.
    pub startup: Duration,
    /// A hand-over has to be confirmed within this.
    pub confirm: Duration,
    /// A holder has this long to react to a cancel after the task's grace period.
    pub cancel_slack: Duration,
    /// At a shutdown: between TERM to the workers and KILL.
    pub term: Duration,
    /// At a shutdown: how long the spool is offered to the coordinator.
    pub flush: Duration,
    /// Pause between two claims while the coordinator has nothing and says nothing.
    pub claim_poll: Duration,
    /// Shortest pause between two commits; under load it makes batches.
    pub commit_pause: Duration,
    /// How long the news that a task has started may wait for company.
    pub started_linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            startup: Duration::from_secs(10),
            confirm: Duration::from_secs(2),
            cancel_slack: Duration::from_secs(1),
            term: Duration::from_secs(2),
            flush: Duration::from_secs(5),
            claim_poll: Duration::from_secs(5),
            commit_pause: Duration::from_millis(5),
            started_linger: Duration::from_millis(25),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(config: &ManagerConfig, part: &str) {
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains(part), "`{text}` lacks `{part}`");
    }

    #[test]
    fn worker_counts_outside_1_to_256_are_refused_in_words() {
        refused(&ManagerConfig::new("/s", 0), "1 to 256");
        refused(&ManagerConfig::new("/s", 257), "1 to 256");
        assert!(ManagerConfig::new("/s", 256).validate().is_ok());
    }

    #[test]
    fn a_slot_is_one_core_unless_the_capacity_is_given() {
        let mut config = ManagerConfig::new("/s", 4);
        assert_eq!(config.milli_cpus(), 4000);
        config.totals.milli_cpus = Some(2000);
        assert_eq!(config.milli_cpus(), 2000);
    }
}
