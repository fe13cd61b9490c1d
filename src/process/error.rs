//! Why a program could not be started, in words for the author of the command.
//!
//! `posix_spawn` reports one number for everything between `vfork` and `exec`. [`SpawnError::diagnose`] looks at the
//! directory and at the program again to say which of them was meant; it runs only after a failure.

use std::io;
use std::path::{Path, PathBuf};

use super::spec::SpawnSpec;

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No directory of the search path has it.
    #[error(
        "`{program}` was not found in PATH ({path}); install it, give its full path, or set PATH in `env`"
    )]
    NotFound {
        /// The name that was looked for.
        program: String,
        /// The search path.
        path: String,
    },
    /// A path was given and nothing is there.
    #[error("`{}` does not exist; check the path and the working directory", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is there and may not be executed.
    #[error("`{}` is not executable; run `chmod +x` on it or name its interpreter", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The cores it is to stay on cannot be used.
    #[error(
        "the task cannot be kept on the CPUs it was given; are they offline or outside this machine's share?"
    )]
    Cores(#[source] io::Error),
    /// It is a directory.
    #[error("`{}` is a directory; name a program inside it", path.display())]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The working directory cannot be entered.
    #[error("the working directory `{}` cannot be entered on this machine; create it there, or change `cwd` (submit with --cwd DIR, or with --cwd task for a directory of the task's own)", path.display())]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program is there, what it needs to be loaded is not.
    #[error(
        "the interpreter of `{}` (its `#!` line or its dynamic loader) does not exist; install it or correct the line",
        path.display()
    )]
    Interpreter {
        /// The program.
        path: PathBuf,
    },
    /// The kernel cannot execute a file of this kind.
    #[error(
        "`{}` is no program that this machine can execute; add a `#!` line or use one built for this machine",
        path.display()
    )]
    Format {
        /// The program.
        path: PathBuf,
    },
    /// Arguments and environment are too long.
    #[error(
        "arguments and environment take {bytes} bytes, more than the kernel accepts; pass the data by standard input or in a file"
    )]
    TooLong {
        /// Their size, terminators included.
        bytes: usize,
    },
    /// A NUL byte cannot reach `execve`.
    #[error("{what} contains a NUL byte, which no program can be given")]
    Nul {
        /// What holds it.
        what: &'static str,
    },
    /// The numbers in [`SpawnSpec::inherit`] are not in order.
    #[error(
        "inherited descriptors must be numbered from 3 in ascending order; found {found} where {expected} or more is due"
    )]
    Numbering {
        /// The least number that is due.
        expected: i32,
        /// The number given.
        found: i32,
    },
    /// A limit that this process may not give.
    #[error(
        "`{limit}` of {asked} cannot be set here{}; ask for less, or leave it out",
        most.map_or_else(String::new, |most| format!(", where {most} is the most"))
    )]
    Limit {
        /// The field that asks for it.
        limit: &'static str,
        /// What it asks for.
        asked: u64,
        /// What may be had.
        most: Option<u64>,
        /// The cause.
        source: io::Error,
    },
    /// The control group is not to be entered.
    #[error(
        "the task cannot be put into its control group; leave `limits.memory_bytes` out, or start its worker where it may"
    )]
    Group {
        /// The cause.
        source: io::Error,
    },
    /// What was to become the program ended before that.
    #[error(
        "`{}` was not started: the process that was to become it ended before; did the machine run out of memory?",
        program.display()
    )]
    Wrapper {
        /// The program.
        program: PathBuf,
    },
    /// The system refused.
    #[error("`{operation}` failed for `{}`", program.display())]
    Os {
        /// The call.
        operation: &'static str,
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SpawnError {
    /// True when the same call may succeed a moment later: the system is short of something, or the file is still
    /// open for writing somewhere.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Os { source, .. } if is_passing(source))
    }

    /// The error that `errno` of the operation means for `spec`.
    pub(super) fn diagnose(spec: &SpawnSpec<'_>, operation: &'static str, errno: i32) -> Self {
        let texts = [&spec.argv, &spec.env].into_iter().flatten();
        let bytes = texts.map(|text| text.as_bytes_with_nul().len()).sum();
        let failure = (operation, errno);
        Self::of_errno(spec.cwd.as_deref(), &spec.program, bytes, failure)
    }

    /// The error that a failed operation means for a program, a directory to run in, and that many bytes of arguments
    /// and environment.
    pub(super) fn of_errno(
        cwd: Option<&Path>,
        program: &Path,
        bytes: usize,
        (operation, errno): (&'static str, i32),
    ) -> Self {
        let source = io::Error::from_raw_os_error(errno);
        if let Some(path) = cwd
            && let Err(source) = enterable(path)
        {
            let path = path.to_owned();
            return Self::Cwd { path, source };
        }
        let path = match cwd {
            Some(cwd) => cwd.join(program),
            None => program.to_owned(),
        };
        match errno {
            libc::ENOENT if path.exists() => Self::Interpreter { path },
            libc::ENOENT | libc::ENOTDIR => Self::Missing { path },
            libc::EACCES if path.is_dir() => Self::IsDirectory { path },
            libc::EACCES => Self::NotExecutable { path },
            libc::ENOEXEC => Self::Format { path },
            libc::E2BIG => Self::TooLong { bytes },
            _ => Self::Os {
                operation,
                program: path,
                source,
            },
        }
    }
}

/// True for errors of a start that a moment later may not come again.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY)
    )
}

impl SpawnError {
    /// Why a program cannot be started in this directory, if it cannot.
    #[must_use]
    pub fn of_cwd(cwd: &Path) -> Option<Self> {
        let source = enterable(cwd).err()?;
        let path = cwd.to_owned();
        Some(Self::Cwd { path, source })
    }
}

fn enterable(path: &Path) -> io::Result<()> {
    if !std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?;
    Ok(())
}
