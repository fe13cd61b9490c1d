//! What is executed for a task: its program with its arguments, a shell with its line, or the words of a line that needs no
//! shell, with the shell as the way back.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::direct;
use super::environment::Environment;
use crate::process::{SpawnError, find_as_a_shell, resolve_program};
use crate::protocol::WorkerTaskResp;
use crate::protocol::byte_text::{to_bytes, to_os};
use crate::protocol::task::Direct;

pub(super) const SHELL: &str = "/bin/sh";

/// What is executed.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) program: PathBuf,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// The shell's arguments, where a line is executed without one; what it says when that fails is the shell's to say.
    pub(super) fallback: Option<Vec<CString>>,
}

impl Command {
    /// Of a task whose spec was validated.
    pub(super) fn of(
        task: &WorkerTaskResp,
        environment: &mut Environment,
        cwd: &Path,
    ) -> Result<Self, SpawnError> {
        if !task.spec.shell {
            let args = &task.spec.args;
            let program =
                resolve_program(&to_os(&args[0]), environment.path(task).as_deref(), cwd)?;
            return Ok(Self {
                program,
                argv: strings(args.iter().map(String::as_str)),
                env: environment.for_task(task),
                fallback: None,
            });
        }
        if let Some((program, words)) = directly(task, environment, cwd) {
            return Ok(Self {
                program,
                argv: strings(words.iter().map(String::as_str)),
                env: environment.for_line(task, cwd),
                fallback: Some(shell_argv(task)),
            });
        }
        Ok(Self {
            program: SHELL.into(),
            argv: shell_argv(task),
            env: environment.for_task(task),
            fallback: None,
        })
    }

    /// True for a line that is executed without a shell.
    pub(super) fn is_direct(&self) -> bool {
        self.fallback.is_some()
    }

    /// Leaves it to the shell after all; false when there is no such way.
    pub(super) fn fall_back(&mut self) -> bool {
        let Some(argv) = self.fallback.take() else {
            return false;
        };
        self.program = SHELL.into();
        self.argv = argv;
        true
    }
}

/// The program and the words of a line that needs no shell.
fn directly(
    task: &WorkerTaskResp,
    environment: &Environment,
    cwd: &Path,
) -> Option<(PathBuf, Vec<String>)> {
    if task.spec.direct == Direct::Never || environment.needs_a_shell(task) {
        return None;
    }
    let words = direct::words(&task.spec.args[0])?;
    // A shell has a search path of its own where there is none, or an empty one.
    let path = environment.path(task).filter(|path| !path.is_empty())?;
    let program = find_as_a_shell(&to_os(&words[0]), &path, cwd)?;
    Some((program, words))
}

/// `sh -c LINE` takes the next argument as `$0` and the rest as `$1` and so on.
fn shell_argv(task: &WorkerTaskResp) -> Vec<CString> {
    let (line, positional) = task
        .spec
        .args
        .split_first()
        .expect("a validated spec has args[0]");
    let fixed = ["sh", "-c", line, "sh"].into_iter();
    strings(fixed.chain(positional.iter().map(String::as_str)))
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<CString> {
    let strings = texts.map(|text| CString::new(&*to_bytes(text)));
    let strings = strings.collect::<Result<_, _>>();
    strings.expect("a validated spec has no NUL byte")
}
