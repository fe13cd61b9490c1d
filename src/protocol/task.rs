//! What a user asks for ([`TaskSpec`]) and what a worker gets ([`WorkerTaskResp`]).
//!
//! A spec is complete from the first version on: fields whose feature is not built yet are stored and refused at
//! submission ([`TaskSpec::validate`]), never silently ignored. Defaults are applied where a value is used, so that a
//! stored spec says only what its author said.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::{Lease, TaskRef, Try};
use super::input::{Input, InputError, validate_all};
use super::limits::Limits;
use super::plain::{is_plain, one_line};
use super::report::Reason;
use super::span::HumanDuration;
use super::upstream::{Upstream, UpstreamForm, uuid_in};

/// Time between TERM and KILL when a spec names none.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// What reads shell lines where nothing else is named.
pub const DEFAULT_SHELL: &str = "/bin/sh";
/// Captured bytes per stream when a spec names no limit.
pub const DEFAULT_CAPTURE_BYTES: u64 = 16 << 20;
/// A capture limit that is none: every byte is kept, as far as the disk goes. What `run` asks for.
pub const UNLIMITED_CAPTURE_BYTES: u64 = u64::MAX;
/// Bytes of the end of each stream that travel with the result.
pub const OUTPUT_TAIL_BYTES: usize = 4096;
/// Longest `id`, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Longest encoded spec that is accepted, in bytes of JSON.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// One command and how it is to be run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TaskSpec {
    /// A name that other tasks of the same submission may give in their `upstream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Program and arguments; no shell reads them unless `shell` is set.
    pub args: Vec<String>,
    /// When set, `args[0]` is a line for `/bin/sh -c` and the rest are its positional parameters.
    #[serde(skip_serializing_if = "is_default")]
    pub shell: bool,
    /// What reads the line instead of `/bin/sh`: a program and its options, such as `bash -e`, given `-c` and the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell_program: Option<String>,
    /// Whether a line that needs no shell is executed without one.
    #[serde(skip_serializing_if = "is_default")]
    pub direct: Direct,
    /// Variables added to the task's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the worker's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Standard input; `/dev/null` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,
    /// Longest run time; unlimited when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Time between TERM and KILL; [`DEFAULT_GRACE`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<HumanDuration>,
    /// A signal some time before the time limit, written `USR1@60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Files to place in `MITO_RESOURCE_DIR` before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Amounts the task occupies while it runs.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// What it may use at most.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Higher runs first; equal priorities run in order of submission.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// A holder must carry all of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Free key-value pairs to find the task by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many attempts may fail before the task has failed; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Pause before a further attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Which failures are tried again: reasons such as `timeout`; every kind that may be when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<Reason>,
    /// What becomes of processes that are still there when it ends; they are killed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<OnLeftovers>,
    /// What is kept of the output.
    #[serde(skip_serializing_if = "is_default")]
    pub capture: Capture,
    /// Tasks that must end first, each by its uuid or by its `id` in the same submission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<UpstreamForm>)]
    pub upstream: Vec<Upstream>,
    /// Value of `MITO_ARRAY_INDEX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array_index: Option<i64>,
    /// Value of `MITO_ENTRY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What was put into the command for its placeholders: tags, tables and names of output files tell the task by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether shell lines are executed without a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direct {
    /// Where they are plain simple commands: the results are the same.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// What becomes of processes that a task leaves behind when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLeftovers {
    /// They are killed, which is told.
    Kill,
    /// They belong to the task, which ends with the last of them.
    Wait,
    /// They are killed, and the task has failed.
    Fail,
}

/// Standard input of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// This text.
    Text(String),
    /// The content of this file on the machine that runs the task.
    File(String),
}

/// Amounts a task occupies while it runs. One worker slot always; the rest on request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    /// CPU cores, in thousandths when fractional; one slot's share when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// Whole GPUs.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: u32,
    /// Keeps the task on the CPUs that it was given; needs whole `cpus`.
    #[serde(skip_serializing_if = "is_default")]
    pub pin: bool,
    /// Named counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, u64>,
}

impl Resources {
    /// The cores that are asked for, in thousandths, rounded up; 0 where nothing is said.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to integer cast saturates, and validation keeps the value between 0 and 65536 cores"
    )]
    pub fn milli_cpus(&self) -> u64 {
        self.cpus
            .map_or(0, |cpus| ((cpus * 1000.0).ceil() as u64).max(1))
    }
}

/// Ids of what a task asked for; no two tasks of one manager have the same at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResourceIds {
    /// CPUs, in order.
    pub cpus: Vec<u32>,
    /// Names of GPUs.
    pub gpus: Vec<String>,
}

impl ResourceIds {
    /// The CPUs as the kernel and `taskset` write them: `0-2,5`.
    #[must_use]
    pub fn cpu_list(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in &self.cpus {
            match ranges.last_mut() {
                Some((_, last)) if *cpu == *last + 1 => *last = *cpu,
                _ => ranges.push((*cpu, *cpu)),
            }
        }
        let ranges = ranges.into_iter().map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        ranges.collect::<Vec<_>>().join(",")
    }
}

/// Exponential pause between attempts: `initial * 2^(attempt - 1)`, at most `max`, of which up to a quarter is left out at
/// random, so that tasks that failed together do not come back together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Backoff {
    /// Pause before the second attempt.
    pub initial: HumanDuration,
    /// Longest pause.
    pub max: HumanDuration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: HumanDuration(Duration::from_secs(1)),
            max: HumanDuration(Duration::from_secs(300)),
        }
    }
}

impl Backoff {
    /// Pause of one task after `failed` failed attempts (from 1). The same task draws the same again, so that a repeated
    /// decision is the same decision.
    #[must_use]
    pub fn pause(&self, failed: u32, task: Uuid) -> Duration {
        let drawn = Uuid::new_v5(&task, &failed.to_le_bytes()).into_bytes()[0];
        let whole = self.delay(failed);
        whole - whole / 1024 * u32::from(drawn)
    }

    /// Longest pause after `failed` failed attempts (from 1).
    #[must_use]
    pub fn delay(&self, failed: u32) -> Duration {
        let factor = 2u32.saturating_pow(failed.saturating_sub(1).min(31));
        self.initial.0.saturating_mul(factor).min(self.max.0)
    }
}

/// What is kept of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Capture {
    /// Most bytes kept per stream; [`DEFAULT_CAPTURE_BYTES`] when absent. Above it the middle is dropped.
    /// [`UNLIMITED_CAPTURE_BYTES`] keeps everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Which streams are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub streams: Streams,
}

/// Which output streams are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Both, apart.
    #[default]
    Separate,
    /// Both in one, interleaved as written.
    Merged,
    /// Neither: both go to `/dev/null`.
    Discarded,
}

/// Why a spec is refused. The text completes "the task is refused: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing to run.
    #[error("`args` is empty; name at least the program")]
    NoArgs,
    /// An empty program name.
    #[error("`args[0]` is empty; name the program")]
    EmptyProgram,
    /// A shell without a name.
    #[error("`shell_program` is empty; name a program such as `bash`, or leave it out for /bin/sh")]
    EmptyShell,
    /// A shell for something that no shell reads.
    #[error("`shell_program` is set and `shell` is not; set both for a line, or neither")]
    ShellWithoutLine,
    /// A NUL byte cannot reach `execve`.
    #[error("{field} contains a NUL byte, which no program can be given")]
    Nul {
        /// The field that holds it.
        field: String,
    },
    /// A control character in a word for people.
    #[error("`{field}` has `{word}`; control characters are not allowed in it")]
    Control {
        /// The field.
        field: &'static str,
        /// The word, with escapes.
        word: String,
    },
    /// A variable name that no environment can hold.
    #[error("`env` has the variable name `{0}`; a name is not empty and has no `=`")]
    EnvName(String),
    /// A limit of zero would end the task before it starts.
    #[error("`{0}` is zero; leave it out for no limit, or give a positive duration")]
    ZeroDuration(&'static str),
    /// A place of its own for nothing, or for a part of a CPU.
    #[error("`resources.pin` needs whole CPUs in `resources.cpus`; a part of a CPU is shared")]
    PinWithoutCpus,
    /// A number out of its range.
    #[error("`{field}` is {value}; allowed is {allowed}")]
    Range {
        /// The field.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A reason after which no attempt can follow.
    #[error("`retry_on` names `{0}`, after which there is nothing to try again; remove it")]
    NotRetryable(&'static str),
    /// A name that cannot be told from something else, or not be shown.
    #[error(
        "`id` is `{0}`; a name has 1 to {MAX_ID_BYTES} bytes, no control character, and is no uuid"
    )]
    Id(String),
    /// A task that waits for itself.
    #[error(
        "`upstream` names `{0}`, which is this task itself; a task cannot wait for its own end"
    )]
    OwnUpstream(String),
    /// One task waited for twice.
    #[error("`upstream` names `{0}` twice; name each task once")]
    SameUpstream(String),
    /// An input that makes no sense.
    #[error("`inputs[{index}]`: {source}")]
    Input {
        /// Its place.
        index: usize,
        /// The rule, in words for its author; part of the message because it is the message.
        source: InputError,
    },
    /// A field of a feature that this version does not have.
    #[error("`{0}` is not supported by this version; remove it")]
    Unsupported(&'static str),
}

impl TaskSpec {
    /// A spec that runs `line` with `/bin/sh -c`.
    #[must_use]
    pub fn shell_line(line: impl Into<String>) -> Self {
        Self {
            args: vec![line.into()],
            shell: true,
            ..Self::default()
        }
    }

    /// A spec that runs a program directly.
    #[must_use]
    pub fn argv<I, S>(args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Time between TERM and KILL.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace.map_or(DEFAULT_GRACE, |grace| grace.0)
    }

    /// How many attempts may fail before the task has failed.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(1)
    }

    /// Checks everything that can be checked without the machine that will run the task.
    ///
    /// # Errors
    /// The first rule that the spec breaks, in words for its author.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_command()?;
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(SpecError::ZeroDuration("timeout"));
        }
        if let Some(cpus) = self.resources.cpus
            && !(cpus > 0.0 && cpus <= 65_536.0)
        {
            return Err(range("resources.cpus", cpus, "above 0 up to 65536"));
        }
        self.limits.validate()?;
        let whole = self.resources.cpus.is_some_and(|cpus| cpus.fract() == 0.0);
        if self.resources.pin && !whole {
            return Err(SpecError::PinWithoutCpus);
        }
        self.validate_words()?;
        if self.max_attempts == Some(0) {
            return Err(range("max_attempts", 0, "1 or more"));
        }
        let mut kinds = self.retry_on.iter();
        if let Some(reason) = kinds.find(|reason| !reason.is_retryable()) {
            return Err(SpecError::NotRetryable(reason.as_str()));
        }
        self.validate_upstream()?;
        validate_all(&self.inputs).map_err(|(index, source)| SpecError::Input { index, source })?;
        self.validate_supported()
    }

    /// What can be said of names without the other tasks; [`super::chain`] says the rest.
    fn validate_upstream(&self) -> Result<(), SpecError> {
        if let Some(id) = &self.id {
            let fits = (1..=MAX_ID_BYTES).contains(&id.len()) && !id.contains(char::is_control);
            if !fits || uuid_in(id).is_some() {
                return Err(SpecError::Id(id.escape_debug().to_string()));
            }
        }
        let mut names = HashSet::with_capacity(self.upstream.len());
        for Upstream { task, .. } in &self.upstream {
            if self.id.as_ref() == Some(task) {
                return Err(SpecError::OwnUpstream(task.clone()));
            }
            if !names.insert(task) {
                return Err(SpecError::SameUpstream(task.escape_debug().to_string()));
            }
        }
        Ok(())
    }

    /// Words that are shown in lists have nothing in them that a terminal takes for orders.
    fn validate_words(&self) -> Result<(), SpecError> {
        let labels = self.labels.iter().flat_map(|(key, value)| [key, value]);
        let labels = labels.map(|word| ("labels", word));
        let mut words = labels.chain(self.tags.iter().map(|tag| ("tags", tag)));
        match words.find(|(_, word)| !is_plain(word)) {
            Some((field, word)) => Err(SpecError::Control {
                field,
                word: one_line(word).into_owned(),
            }),
            None => Ok(()),
        }
    }

    fn validate_command(&self) -> Result<(), SpecError> {
        match self.args.first() {
            None => return Err(SpecError::NoArgs),
            Some(program) if program.is_empty() => return Err(SpecError::EmptyProgram),
            Some(_) => {}
        }
        if let Some(index) = self.args.iter().position(|arg| arg.contains('\0')) {
            return Err(SpecError::Nul {
                field: format!("`args[{index}]`"),
            });
        }
        if let Some(shell) = &self.shell_program {
            if shell.trim().is_empty() {
                return Err(SpecError::EmptyShell);
            }
            if !self.shell {
                return Err(SpecError::ShellWithoutLine);
            }
            if shell.contains('\0') {
                return Err(SpecError::Nul {
                    field: "`shell_program`".to_owned(),
                });
            }
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(SpecError::EnvName(name.clone()));
            }
            if name.contains('\0') || value.contains('\0') {
                return Err(SpecError::Nul {
                    field: format!("the variable `{}`", name.escape_debug()),
                });
            }
        }
        if self.cwd.as_deref().is_some_and(|cwd| cwd.contains('\0')) {
            return Err(SpecError::Nul {
                field: "`cwd`".to_owned(),
            });
        }
        Ok(())
    }

    fn validate_supported(&self) -> Result<(), SpecError> {
        if self.signal.is_some() {
            return Err(SpecError::Unsupported("signal"));
        }
        Ok(())
    }
}

fn range(field: &'static str, value: impl std::fmt::Display, allowed: &'static str) -> SpecError {
    SpecError::Range {
        field,
        value: value.to_string(),
        allowed,
    }
}

/// Where a task stands. A terminal state never changes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for an upstream task or a back-off.
    Pending,
    /// May be claimed.
    Ready,
    /// Leased to a holder, not started.
    Assigned,
    /// An execution has begun.
    Running,
    /// Exit code 0.
    Completed,
    /// Any other end of a started task, or one that could not start.
    Failed,
    /// Ended at a user's wish.
    Cancelled,
}

impl TaskState {
    /// Every state, in order of life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Ready,
        Self::Assigned,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// True for the three states that never change.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The word used in the API, in metrics and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state named by `word`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A task as its holder gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerTaskResp {
    /// The store's row id.
    pub id: i64,
    /// The name users see.
    pub uuid: Uuid,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence inside the lease; 1 for an independent worker.
    #[serde(rename = "try")]
    pub try_no: Try,
    /// Value of `MITO_ATTEMPT` if this hand-over is executed, from 1.
    pub attempt: u32,
    /// Executions of it that failed before.
    #[serde(default)]
    pub failures: u32,
    /// The suite the task belongs to.
    pub suite_uuid: Uuid,
    /// The task this one was derived from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_task_uuid: Option<Uuid>,
    /// Where to read the inputs that are artifacts of other tasks, by the `url` that names them in the spec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// What its manager gave it of what it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<ResourceIds>,
    /// What to run.
    pub spec: TaskSpec,
}

impl WorkerTaskResp {
    /// Whether a failure of this execution ends the task.
    #[must_use]
    pub fn fails_for_good(&self) -> bool {
        self.failures + 1 >= self.spec.max_attempts()
    }

    /// Both names.
    #[must_use]
    pub fn task(&self) -> TaskRef {
        TaskRef {
            id: self.id,
            uuid: self.uuid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(spec: &TaskSpec, part: &str) {
        let text = spec.validate().expect_err("must be refused").to_string();
        assert!(text.contains(part), "`{text}` lacks `{part}`");
    }

    #[test]
    fn a_spec_of_nothing_but_args_is_fine_and_short() {
        let spec = TaskSpec::argv(["true"]);
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"args":["true"]}"#
        );
    }

    #[test]
    fn bad_specs_are_refused_in_words() {
        refused(&TaskSpec::default(), "args");
        refused(&TaskSpec::argv([""]), "name the program");
        refused(&TaskSpec::argv(["a", "b\0c"]), "args[1]");
        refused(
            &TaskSpec {
                timeout: Some(Duration::ZERO.into()),
                ..TaskSpec::argv(["a"])
            },
            "timeout",
        );
        refused(
            &TaskSpec {
                max_attempts: Some(0),
                ..TaskSpec::argv(["a"])
            },
            "max_attempts",
        );
        refused(
            &TaskSpec {
                signal: Some("USR1@60s".into()),
                ..TaskSpec::argv(["a"])
            },
            "not supported",
        );
        refused(
            &TaskSpec {
                retry_on: vec![Reason::Timeout, Reason::Strikes],
                ..TaskSpec::argv(["a"])
            },
            "`strikes`",
        );
        for (limits, part) in [
            (r#"{"memory_bytes": 4096}"#, "1 MiB"),
            (r#"{"file_size_bytes": 0}"#, "limits.file_size_bytes"),
            (r#"{"open_files": 3}"#, "4 or more"),
        ] {
            let limits = serde_json::from_str(limits).unwrap();
            refused(
                &TaskSpec {
                    limits,
                    ..TaskSpec::argv(["a"])
                },
                part,
            );
        }
        let env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        refused(
            &TaskSpec {
                env,
                ..TaskSpec::argv(["a"])
            },
            "A=B",
        );
        let resources = Resources {
            cpus: Some(f64::NAN),
            ..Resources::default()
        };
        refused(
            &TaskSpec {
                resources,
                ..TaskSpec::argv(["a"])
            },
            "cpus",
        );
    }

    #[test]
    fn names_that_lead_nowhere_are_refused_in_words() {
        let spec = |id: &str, upstream: &[&str]| TaskSpec {
            id: Some(id.to_owned()),
            upstream: upstream.iter().copied().map(Upstream::ok).collect(),
            ..TaskSpec::argv(["a"])
        };
        assert_eq!(spec("a", &["b", "c"]).validate(), Ok(()));
        refused(&spec("", &[]), "`id` is ``");
        refused(&spec("a\nb", &[]), "no control character");
        refused(&spec(&"x".repeat(MAX_ID_BYTES + 1), &[]), "128 bytes");
        refused(&spec(&Uuid::nil().to_string(), &[]), "is no uuid");
        refused(&spec("a", &["b", "a"]), "this task itself");
        refused(&spec("a", &["b", "b"]), "`b` twice");
    }

    #[test]
    fn a_newer_peer_may_add_fields() {
        let spec: TaskSpec =
            serde_json::from_str(r#"{"args":["true"],"invented_later":1}"#).unwrap();
        assert_eq!(spec, TaskSpec::argv(["true"]));
    }

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let backoff = Backoff::default();
        let delays: Vec<u64> = [1, 2, 3, 9, 10, 40]
            .map(|n| backoff.delay(n).as_secs())
            .to_vec();
        assert_eq!(delays, [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn a_pause_is_drawn_per_task_and_lasts_three_quarters_to_the_whole() {
        let backoff = Backoff::default();
        let pauses: HashSet<Duration> = (0..100)
            .map(|n| backoff.pause(9, Uuid::from_u128(n)))
            .collect();
        assert!(pauses.len() > 20, "{pauses:?}");
        let range = Duration::from_secs(192)..=Duration::from_secs(256);
        assert!(
            pauses.iter().all(|pause| range.contains(pause)),
            "{pauses:?}"
        );
        let task = Uuid::from_u128(7);
        assert_eq!(backoff.pause(3, task), backoff.pause(3, task));
        let none = Backoff {
            initial: Duration::ZERO.into(),
            ..backoff
        };
        assert_eq!(none.pause(3, task), Duration::ZERO);
    }

    #[test]
    fn every_state_has_one_word() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
        }
        assert_eq!(TaskState::parse("done"), None);
    }
}
