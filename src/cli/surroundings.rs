//! Where and as what submitted tasks run: the directory and the variables of whoever submits them, and their labels.
//!
//! A spec that says something itself keeps it. Nothing is looked at when a task runs: all of it travels in the spec, so
//! that tasks which are submitted over HTTP have the same fields.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::anyhow;
use clap::Args;

use super::failure::{Failure, OrFail};
use super::output;
use crate::protocol::TaskSpec;

/// Variables of this program, which may hold tokens.
const PRIVATE_PREFIX: &str = "MITOSIS_";
/// Variables that the system sets for a task, and those of the shell that are about itself.
const OWN_PREFIX: &str = "MITO_";
const OF_THE_SHELL: [&str; 4] = ["_", "SHLVL", "OLDPWD", "PWD"];

/// Where submitted tasks run, and with what.
#[derive(Debug, Args)]
pub(super) struct SurroundingsArgs {
    /// Working directory of tasks that name none; `task` for an empty one of each task [default: the current directory].
    #[arg(long, value_name = "DIR|task")]
    cwd: Option<Cwd>,
    /// A variable for tasks that do not set it themselves; without a value, the one it has here. Several times for several.
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<Variable>,
    /// Every variable there is here, but those of this program (MITOSIS_…).
    #[arg(long)]
    env_all: bool,
    /// A label to find the tasks by (label:KEY=VALUE); a task's own goes before it. Several times for several.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<Label>,
}

/// Where tasks run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cwd {
    Task,
    Dir(PathBuf),
}

impl FromStr for Cwd {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("name a directory, or write `task`"),
            "task" => Ok(Self::Task),
            dir => Ok(Self::Dir(dir.into())),
        }
    }
}

/// A variable, with its value or without.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable(String, Option<String>);

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = split(text);
        if name.is_empty() {
            return Err("write NAME or NAME=VALUE".to_owned());
        }
        if name.starts_with(OWN_PREFIX) {
            return Err(format!("{name} is set by the system for each task"));
        }
        Ok(Self(name, value))
    }
}

/// A label; its value is empty where none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label(String, String);

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = split(text);
        if key.is_empty() {
            return Err("write KEY or KEY=VALUE");
        }
        Ok(Self(key, value.unwrap_or_default()))
    }
}

fn split(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// What is put into specs that do not say otherwise.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    cwd: Option<PathBuf>,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl SurroundingsArgs {
    /// Looks at this process's directory and variables.
    pub(super) fn read(&self, is_quiet: bool) -> Result<Surroundings, Failure> {
        let here = here()?;
        let cwd = match &self.cwd {
            None => Some(here),
            Some(Cwd::Task) => None,
            Some(Cwd::Dir(dir)) => Some(here.join(dir)),
        };
        let (env, left_out) =
            variables(self.env_all, &self.variables, |name| std::env::var_os(name)).or_usage()?;
        if !left_out.is_empty() && !is_quiet {
            let names: Vec<_> = left_out.iter().map(|name| name.to_string_lossy()).collect();
            output::note(&format!(
                "mitosis: not UTF-8, and left out of the tasks' variables: {}",
                names.join(", ")
            ));
        }
        let labels = self.labels.iter();
        Ok(Surroundings {
            cwd,
            env,
            labels: labels
                .map(|Label(key, value)| (key.clone(), value.clone()))
                .collect(),
        })
    }
}

/// The current directory by the name that the caller's shell has for it: behind links it may be the one that other
/// machines have too.
fn here() -> Result<PathBuf, Failure> {
    let physical = std::env::current_dir().map_err(|error| {
        Failure::usage(anyhow!(
            "the current directory cannot be read ({error}); go to one that is there, or give --cwd"
        ))
    })?;
    let named = std::env::var_os("PWD").map(PathBuf::from);
    Ok(named
        .filter(|named| named.is_absolute() && is_same(named, &physical))
        .unwrap_or(physical))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    place(one).is_some() && place(one) == place(other)
}

/// What is unset and asked for by name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum VariableError {
    #[error("--env {0}: there is no such variable here; write --env {0}=VALUE, or leave it out")]
    Unset(String),
    #[error("--env {0}: its value is not UTF-8, which a task's variables have to be")]
    NotText(String),
}

/// The variables of tasks, and the names of those that cannot be passed on.
fn variables(
    all: bool,
    asked: &[Variable],
    value_of: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<(BTreeMap<String, String>, Vec<OsString>), VariableError> {
    let mut env = BTreeMap::new();
    let mut left_out = Vec::new();
    if all {
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) if passes(&name) => drop(env.insert(name, value)),
                (Ok(_), Ok(_)) => {}
                (Ok(name), Err(_)) => left_out.push(name.into()),
                (Err(name), _) => left_out.push(name),
            }
        }
    }
    for Variable(name, value) in asked {
        let value = match value {
            Some(value) => value.clone(),
            None => value_of(OsStr::new(name))
                .ok_or_else(|| VariableError::Unset(name.clone()))?
                .into_string()
                .map_err(|_| VariableError::NotText(name.clone()))?,
        };
        env.insert(name.clone(), value);
    }
    Ok((env, left_out))
}

/// True for a variable that is the caller's own and not this program's or his shell's.
fn passes(name: &str) -> bool {
    let ours = name.starts_with(PRIVATE_PREFIX) || name.starts_with(OWN_PREFIX);
    !ours && !OF_THE_SHELL.contains(&name)
}

impl Surroundings {
    /// The spec with these where it says nothing.
    pub(super) fn applied(&self, spec: TaskSpec) -> Result<TaskSpec, Failure> {
        let cwd = match (&self.cwd, spec.cwd) {
            (Some(base), Some(own)) => Some(base.join(own)),
            (Some(base), None) => Some(base.clone()),
            (None, own) => own.map(PathBuf::from),
        };
        let cwd = cwd.map(PathBuf::into_os_string).map(OsString::into_string);
        let cwd = cwd.transpose().map_err(|dir| {
            Failure::usage(anyhow!(
                "the directory `{}` is not UTF-8, which a task's directory has to be; give another with --cwd",
                dir.display()
            ))
        })?;
        Ok(TaskSpec {
            cwd,
            env: with(&self.env, spec.env),
            labels: with(&self.labels, spec.labels),
            ..spec
        })
    }
}

fn with(
    common: &BTreeMap<String, String>,
    own: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = common.clone();
    all.extend(own);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_spec_keeps_what_it_says_and_its_relative_directory_begins_at_the_callers() {
        let surroundings = Surroundings {
            cwd: Some("/here".into()),
            env: map(&[("A", "1"), ("B", "1")]),
            labels: map(&[("sweep", "a")]),
        };
        let plain = surroundings.applied(TaskSpec::argv(["x"])).unwrap();
        assert_eq!(plain.cwd.as_deref(), Some("/here"));
        assert_eq!(plain.labels, map(&[("sweep", "a")]));
        let own = TaskSpec {
            cwd: Some("below".to_owned()),
            env: map(&[("B", "2")]),
            ..TaskSpec::argv(["x"])
        };
        let own = surroundings.applied(own).unwrap();
        assert_eq!(own.cwd.as_deref(), Some("/here/below"));
        assert_eq!(own.env, map(&[("A", "1"), ("B", "2")]));
        let of_task = Surroundings::default().applied(TaskSpec::argv(["x"]));
        assert_eq!(of_task.unwrap(), TaskSpec::argv(["x"]));
    }

    #[test]
    fn a_variable_without_a_value_has_the_one_of_here_and_has_to_be_there() {
        let here = |name: &OsStr| (name == "SET").then(|| OsString::from("here"));
        let asked = |texts: &[&str]| -> Vec<Variable> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let (env, left_out) =
            variables(false, &asked(&["SET", "OTHER=a=b", "EMPTY="]), here).unwrap();
        assert_eq!(
            env,
            map(&[("SET", "here"), ("OTHER", "a=b"), ("EMPTY", "")])
        );
        assert!(left_out.is_empty());
        let unset = variables(false, &asked(&["UNSET"]), here);
        assert_eq!(unset, Err(VariableError::Unset("UNSET".to_owned())));
        assert!("=x".parse::<Variable>().is_err());
        assert!("MITO_ATTEMPT=1".parse::<Variable>().is_err());
    }

    #[test]
    fn secrets_and_what_is_about_the_shell_stay_behind() {
        for name in [
            "MITOSIS_TOKEN",
            "MITOSIS_TOKEN_FILE",
            "MITO_TASK_ID",
            "PWD",
            "_",
        ] {
            assert!(!passes(name), "{name}");
        }
        assert!(passes("FOO") && passes("PATH"));
    }
}
