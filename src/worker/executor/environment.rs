//! The variables of a task.
//!
//! Three layers, the later one wins: what the policy lets through, what the spec adds, what the system says about the
//! task (`MITO_*`). The first and the constant half of the last are encoded once per worker; a task without variables
//! of its own costs a handful of short strings.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::command::SHELL;
use super::direct;
use super::directories::Directories;
use super::{ExecConfig, ExecError};
use crate::process::MARK;
use crate::protocol::WorkerTaskResp;
use crate::protocol::byte_text::{of_bytes, to_bytes, to_os};
use crate::protocol::frame::EnvPolicy;
use crate::protocol::task::ResourceIds;

/// What [`EnvPolicy::AllowList`] lets through; names that begin with `LC_` as well.
const ALLOWED: [&str; 7] = ["PATH", "HOME", "USER", "SHELL", "LANG", "TZ", "TMPDIR"];
/// Prefix of the system's own configuration, which may hold tokens and is never a task's business.
const PRIVATE_PREFIX: &[u8] = b"MITOSIS_";
/// Where a shell is.
const PWD: &str = "PWD";
/// The GPUs that a task may use; the system's business where the task was given some, anybody's otherwise.
const GPUS: &str = "CUDA_VISIBLE_DEVICES";
/// Every variable that the system sets for a task. An outer task's values do not reach an inner one.
const RESERVED: [&str; 14] = [
    MARK,
    "MITO_ARRAY_INDEX",
    "MITO_ATTEMPT",
    "MITO_CPUS",
    "MITO_ENTRY",
    "MITO_EXEC_DIR",
    "MITO_NEW_TASK",
    "MITO_RESOURCE_DIR",
    "MITO_RESULT_DIR",
    "MITO_SUITE_UUID",
    "MITO_TASK_ID",
    "MITO_TASK_UUID",
    "MITO_UPSTREAM_TASK_UUID",
    "MITO_WORKER_ID",
];

/// Builds the environment of each task.
#[derive(Debug)]
pub(super) struct Environment {
    /// What every task of this worker gets, encoded.
    constant: Vec<CString>,
    /// The names a spec may override: those from the policy.
    inherited: BTreeSet<Vec<u8>>,
    path: Option<OsString>,
    /// `PWD` of whoever started the worker.
    callers_pwd: Option<OsString>,
    default_cwd: PathBuf,
    /// `PWD` of a line in the default directory, encoded.
    default_pwd: Option<CString>,
    /// Whether every line is a shell's business here.
    needs_a_shell: bool,
    /// Whether there are variables that no shell passes on.
    has_odd_names: bool,
    /// The constant part and room for more; handed out to a task and taken back after its spawn.
    spare: Option<Vec<CString>>,
}

impl Environment {
    /// Encodes the constant part from this process's variables.
    pub(super) fn new(
        config: &ExecConfig,
        directories: &Directories,
        default_cwd: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ExecError> {
        let inherited: BTreeMap<_, _> = variables
            .into_iter()
            .filter(|(name, _)| passes(config.env, name.as_bytes()))
            .collect();
        let own = [
            ("MITO_WORKER_ID", OsStr::new(&config.worker_id)),
            (MARK, OsStr::new(&config.instance)),
            ("MITO_RESULT_DIR", directories.result().as_os_str()),
            ("MITO_EXEC_DIR", directories.exec().as_os_str()),
            ("MITO_RESOURCE_DIR", directories.resource().as_os_str()),
            ("MITO_NEW_TASK", directories.new_task().as_os_str()),
        ];
        let mut constant = Vec::with_capacity(inherited.len() + own.len());
        for (name, value) in &inherited {
            // The kernel gives no variable with a NUL byte to a process.
            constant.extend(encode(name.as_bytes(), value.as_bytes()));
        }
        for (name, value) in own {
            let variable = encode(name.as_bytes(), value.as_bytes());
            constant.push(variable.ok_or(ExecError::Nul("worker id, instance or slot directory"))?);
        }
        let callers_pwd = inherited.get(OsStr::new(PWD)).cloned();
        let default_pwd = encoded_pwd(default_cwd, callers_pwd.as_deref());
        let known = constant
            .iter_mut()
            .find(|variable| name_of(variable) == PWD.as_bytes());
        if let (Some(known), Some(pwd)) = (known, &default_pwd) {
            known.clone_from(pwd);
        }
        let is_bash = direct::is_bash(Path::new(SHELL));
        let needs = |variable: &CString| {
            let bytes = variable.as_bytes();
            direct::needs_a_shell(bytes) && (is_bash || direct::passes_a_shell(bytes))
        };
        Ok(Self {
            default_pwd,
            default_cwd: default_cwd.to_owned(),
            callers_pwd,
            needs_a_shell: constant.iter().any(needs),
            has_odd_names: !constant
                .iter()
                .all(|variable| direct::passes_a_shell(variable.as_bytes())),
            path: inherited.get(OsStr::new("PATH")).cloned(),
            inherited: inherited.into_keys().map(OsString::into_vec).collect(),
            spare: Some(constant.clone()),
            constant,
        })
    }

    /// The whole environment of a task. The spec has been validated: no name or value holds a NUL byte.
    pub(super) fn for_task(&mut self, task: &WorkerTaskResp) -> Vec<CString> {
        let spec = &task.spec.env;
        let gpus = task.ids.as_ref().filter(|ids| !ids.gpus.is_empty());
        let is_set = |name: &str| spec.contains_key(name) || (gpus.is_some() && name == GPUS);
        let mut names = spec.keys().map(String::as_str).chain(gpus.map(|_| GPUS));
        let overrides = names.any(|name| self.inherited.contains(&*to_bytes(name)));
        let mut variables = if overrides {
            let kept = self.constant.iter().filter(|entry| {
                let name = name_of(entry);
                let overridden = || is_set(&of_bytes(name));
                !(self.inherited.contains(name) && overridden())
            });
            kept.cloned().collect()
        } else {
            self.spare.take().unwrap_or_else(|| self.constant.clone())
        };
        for (name, value) in spec {
            let is_systems = RESERVED.contains(&name.as_str()) || (gpus.is_some() && name == GPUS);
            if !is_systems {
                variables.extend(encode(&to_bytes(name), &to_bytes(value)));
            }
        }
        variables.extend(about(task));
        variables
    }

    /// The whole environment of a line that is executed without a shell, with what a shell would have changed in it.
    pub(super) fn for_line(&mut self, task: &WorkerTaskResp, cwd: &Path) -> Vec<CString> {
        let mut variables = self.for_task(task);
        let own = task.spec.env.get(PWD).map(|pwd| to_os(pwd));
        let own = own.as_deref();
        let pwd = match own {
            None if cwd == self.default_cwd => self.default_pwd.clone(),
            _ => encoded_pwd(cwd, own.or(self.callers_pwd.as_deref())),
        };
        if self.has_odd_names || !task.spec.env.is_empty() {
            variables.retain(|variable| direct::passes_a_shell(variable.as_bytes()));
        }
        let known = variables
            .iter_mut()
            .find(|variable| name_of(variable) == PWD.as_bytes());
        match (known, pwd) {
            (Some(known), Some(pwd)) if *known != pwd => *known = pwd,
            (None, Some(pwd)) => variables.push(pwd),
            _ => {}
        }
        variables
    }

    /// True when the variables of a task make its line mean something to a shell alone.
    pub(super) fn needs_a_shell(&self, task: &WorkerTaskResp) -> bool {
        let own = |(name, value): (&String, &String)| {
            direct::needs_a_shell(format!("{name}={value}").as_bytes())
        };
        self.needs_a_shell || task.spec.env.iter().any(own)
    }

    /// Takes back what [`Self::for_task`] gave, for the next task.
    pub(super) fn give_back(&mut self, mut variables: Vec<CString>) {
        variables.truncate(self.constant.len());
        // One that was built around overrides begins differently and is dropped.
        if self.spare.is_none() && variables == self.constant {
            self.spare = Some(variables);
        }
    }

    /// The search path of a task.
    pub(super) fn path<'a>(&'a self, task: &'a WorkerTaskResp) -> Option<Cow<'a, OsStr>> {
        let own = task.spec.env.get("PATH").map(|path| to_os(path));
        own.or_else(|| self.path.as_deref().map(Cow::Borrowed))
    }
}

/// `PWD` as a shell in `cwd` sets it.
fn encoded_pwd(cwd: &Path, known: Option<&OsStr>) -> Option<CString> {
    let pwd = direct::pwd(cwd, known)?;
    encode(PWD.as_bytes(), pwd.as_os_str().as_bytes())
}

fn passes(policy: EnvPolicy, name: &[u8]) -> bool {
    let reserved = RESERVED.iter().any(|known| known.as_bytes() == name);
    match policy {
        EnvPolicy::Inherit => !reserved && !name.starts_with(PRIVATE_PREFIX),
        EnvPolicy::AllowList => {
            name.starts_with(b"LC_") || ALLOWED.iter().any(|known| known.as_bytes() == name)
        }
    }
}

/// What differs from task to task.
fn about(task: &WorkerTaskResp) -> impl Iterator<Item = CString> {
    let always = [
        ("MITO_TASK_ID", task.id.to_string()),
        ("MITO_TASK_UUID", task.uuid.to_string()),
        ("MITO_ATTEMPT", task.attempt.to_string()),
        ("MITO_SUITE_UUID", task.suite_uuid.to_string()),
    ];
    let upstream = task.upstream_task_uuid.map(|uuid| uuid.to_string());
    let index = task.spec.array_index.map(|index| index.to_string());
    let ids = task.ids.as_ref();
    let cpus = ids.filter(|ids| !ids.cpus.is_empty());
    let gpus = ids.filter(|ids| !ids.gpus.is_empty());
    let sometimes = [
        ("MITO_CPUS", cpus.map(ResourceIds::cpu_list)),
        (GPUS, gpus.map(|ids| ids.gpus.join(","))),
        ("MITO_UPSTREAM_TASK_UUID", upstream),
        ("MITO_ARRAY_INDEX", index),
        ("MITO_ENTRY", task.spec.entry.clone()),
    ];
    let sometimes = sometimes
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let all = always.into_iter().chain(sometimes);
    all.filter_map(|(name, value)| encode(name.as_bytes(), &to_bytes(&value)))
}

fn encode(name: &[u8], value: &[u8]) -> Option<CString> {
    let mut variable = Vec::with_capacity(name.len() + value.len() + 2);
    variable.extend_from_slice(name);
    variable.push(b'=');
    variable.extend_from_slice(value);
    CString::new(variable).ok()
}

fn name_of(variable: &CString) -> &[u8] {
    let bytes = variable.as_bytes();
    bytes.split(|byte| *byte == b'=').next().unwrap_or(bytes)
}
