//! What is executed for a task: its program with its arguments, a shell with its line, or the words of a line that needs no
//! shell, with the shell as the way back. A file that the kernel does not execute is a script for the shell, as `execvp`
//! has it, unless it is no text.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
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
    /// What is done when it cannot be executed.
    fallback: Fallback,
}

#[derive(Debug)]
enum Fallback {
    /// Nothing.
    No,
    /// A line is left to the shell with these arguments: what it says when that fails is the shell's to say.
    Line(Vec<CString>),
    /// A file of a kind that the kernel does not know is read by the shell.
    Script,
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
                fallback: Fallback::Script,
            });
        }
        if let Some(shell) = &task.spec.shell_program {
            let mut words = shell.split_ascii_whitespace();
            let name = words.next().unwrap_or(SHELL);
            return Ok(Self {
                program: resolve_program(&to_os(name), environment.path(task).as_deref(), cwd)?,
                argv: argv_of_a_shell(task, name, words),
                env: environment.for_task(task),
                fallback: Fallback::Script,
            });
        }
        if let Some((program, words)) = directly(task, environment, cwd) {
            return Ok(Self {
                program,
                argv: strings(words.iter().map(String::as_str)),
                env: environment.for_line(task, cwd),
                fallback: Fallback::Line(shell_argv(task)),
            });
        }
        Ok(Self {
            program: SHELL.into(),
            argv: shell_argv(task),
            env: environment.for_task(task),
            fallback: Fallback::No,
        })
    }

    /// True for a line that is executed without a shell.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.fallback, Fallback::Line(_))
    }

    /// Leaves it to the shell after all; false when there is no such way.
    pub(super) fn fall_back(&mut self, error: &SpawnError) -> bool {
        match std::mem::replace(&mut self.fallback, Fallback::No) {
            Fallback::No => return false,
            Fallback::Line(argv) => self.argv = argv,
            Fallback::Script => {
                let SpawnError::Format { path } = error else {
                    return false;
                };
                let script = CString::new(path.as_os_str().as_bytes()).ok();
                let Some(script) = script.filter(|_| is_text(path)) else {
                    return false;
                };
                let arguments = self.argv.drain(..).skip(1).collect::<Vec<_>>();
                self.argv = [c"/bin/sh".into(), script]
                    .into_iter()
                    .chain(arguments)
                    .collect();
            }
        }
        self.program = SHELL.into();
        true
    }
}

/// True for a file whose beginning has nothing that no text has.
fn is_text(path: &Path) -> bool {
    let mut beginning = [0; 256];
    let read = File::open(path).and_then(|mut file| file.read(&mut beginning));
    read.is_ok_and(|count| !beginning[..count].contains(&0))
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

/// A shell that somebody named, with the options that were named with it.
fn argv_of_a_shell<'a>(
    task: &'a WorkerTaskResp,
    name: &'a str,
    options: impl Iterator<Item = &'a str> + Clone,
) -> Vec<CString> {
    // The shell itself, also behind `env`.
    let named = options
        .clone()
        .filter(|option| !option.starts_with(['-', '+']))
        .last();
    let named = if name.ends_with("env") {
        named.unwrap_or(name)
    } else {
        name
    };
    let args = task.spec.args.iter().map(String::as_str);
    let (line, positional) = (args.clone().take(1), args.skip(1));
    let head = std::iter::once(name).chain(options).chain(["-c"]);
    strings(head.chain(line).chain([named]).chain(positional))
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
