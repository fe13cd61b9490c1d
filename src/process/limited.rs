//! Starting a program under limits, without leaving the fast path of [`super::spawn()`].
//!
//! `posix_spawn` can set no limit and enter no control group, and nothing of ours runs between `vfork` and `exec`. So a
//! program with limits is started in two steps: the spawn executes *this* program again, as a wrapper that has one
//! thread and nothing to lose, and the wrapper limits itself, enters the groups, and executes the program in its own
//! place: same pid, same group, same descriptors. A program without limits has no wrapper.
//!
//! ```text
//!   worker --posix_spawn--> wrapper: enter groups, set limits --execv--> program
//!      ^                       | descriptor 3, closed by the execv
//!      +--- Entry::entered ----+ nothing: the program runs; 8 bytes: which step failed, and why
//! ```
//!
//! So a program that cannot be executed is told in the same words with limits as without. The wrapper tries again what
//! fails for a passing reason, because only it can.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::SpawnError;
use super::spawn::{exec, inherited, watch_readable};
use super::spec::SpawnSpec;

/// First argument of the wrapper; no command of ours has such a name.
const WORD: &str = "mitosis:limited";
/// The running program: also when its file was replaced, and for a process that denies inspection by others.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// How long the wrapper is waited for. A program that is not executed by then counts as started: it can be ended like any
/// other, and a failure becomes exit code [`NOT_EXECUTED`].
const PATIENCE: Duration = Duration::from_secs(2);
/// Exit code of a wrapper that could not execute the program. Seen only by who did not wait for it.
const NOT_EXECUTED: u8 = 127;
/// Pauses before the program is executed again that could not be for a passing reason.
const RETRY_PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(160),
    Duration::from_millis(640),
];

/// The limits of one program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limited {
    /// Size of every file it writes.
    pub file_size_bytes: Option<u64>,
    /// Descriptors it may have open.
    pub open_files: Option<u64>,
    /// Control groups to enter, by the files that take processes in.
    pub groups: Vec<PathBuf>,
}

/// What the wrapper does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Group,
    FileSize,
    OpenFiles,
    Execute,
}

impl Step {
    const ALL: [Self; 4] = [Self::Group, Self::FileSize, Self::OpenFiles, Self::Execute];
}

/// Turns what starts a program into what starts it under limits: spawned, it is a wrapper, and the program is executed
/// once [`Entry::entered`] says so. The spec is to be dropped before that is asked.
///
/// # Errors
/// When the system is short of descriptors, or a path contains a NUL byte.
pub fn wrap<'fd>(
    spec: SpawnSpec<'fd>,
    limited: Limited,
) -> Result<(SpawnSpec<'fd>, Entry), SpawnError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SpawnError::Os {
        operation: "pipe",
        program: spec.program.clone(),
        source: errno.into(),
    })?;
    let argv = wrapper_argv(&spec, &limited)?;
    let texts = [&spec.argv, &spec.env].into_iter().flatten();
    let target = Target {
        bytes: texts.map(|text| text.as_bytes_with_nul().len()).sum(),
        program: spec.program,
        cwd: spec.cwd.clone(),
        limited,
    };
    let wrapper = SpawnSpec {
        program: OWN_PROGRAM.into(),
        argv,
        inherit: vec![(write, 3)],
        ..spec
    };
    Ok((wrapper, Entry { read, target }))
}

fn wrapper_argv(spec: &SpawnSpec<'_>, limited: &Limited) -> Result<Vec<CString>, SpawnError> {
    let number = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| SpawnError::Nul {
            what: "the program's path",
        })
    };
    let head = [
        "mitosis".to_owned(),
        WORD.to_owned(),
        number(limited.file_size_bytes),
        number(limited.open_files),
        limited.groups.len().to_string(),
    ];
    let groups = limited.groups.iter().map(PathBuf::as_path);
    let paths = groups.chain([spec.program.as_path()]);
    let words = head
        .iter()
        .map(|word| text(word.as_bytes()))
        .chain(paths.map(|path| text(path.as_os_str().as_bytes())));
    let mut argv = words.collect::<Result<Vec<_>, _>>()?;
    argv.extend(spec.argv.iter().cloned());
    Ok(argv)
}

/// What an error is about.
#[derive(Debug)]
struct Target {
    program: PathBuf,
    cwd: Option<PathBuf>,
    /// Length of arguments and environment.
    bytes: usize,
    limited: Limited,
}

/// A wrapper on its way to its program.
#[derive(Debug)]
#[must_use = "whether the program was executed is known only afterwards"]
pub struct Entry {
    read: OwnedFd,
    target: Target,
}

impl Entry {
    /// Waits until the program is executed. One whose wrapper cannot be watched, or takes longer than two seconds, counts as
    /// started.
    ///
    /// # Errors
    /// What prevented it. The wrapper ends by itself then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn entered(self) -> Result<(), SpawnError> {
        let Self { read, target } = self;
        let Ok(watched) = watch_readable(read) else {
            return Ok(());
        };
        match tokio::time::timeout(PATIENCE, watched.readable()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        let mut message = [0; MESSAGE];
        // Readable means the end, or a message that was written in one piece; neither blocks.
        let read = std::fs::File::from(watched.into_inner()).read(&mut message);
        match (read, decode(message)) {
            (Ok(MESSAGE), Some((step, errno))) => Err(target.error(step, errno)),
            _ => Ok(()),
        }
    }
}

impl Target {
    fn error(&self, step: Step, errno: i32) -> SpawnError {
        let source = io::Error::from_raw_os_error(errno);
        match step {
            Step::Group => SpawnError::Group { source },
            Step::FileSize => self.refused("limits.file_size_bytes", Resource::Fsize, source),
            Step::OpenFiles => self.refused("limits.open_files", Resource::Nofile, source),
            Step::Execute => SpawnError::of_errno(
                self.cwd.as_deref(),
                &self.program,
                self.bytes,
                ("execv", errno),
            ),
        }
    }

    fn refused(&self, limit: &'static str, resource: Resource, source: io::Error) -> SpawnError {
        let asked = match resource {
            Resource::Fsize => self.limited.file_size_bytes,
            _ => self.limited.open_files,
        };
        SpawnError::Limit {
            limit,
            asked: asked.unwrap_or_default(),
            // The wrapper was limited as this process is.
            most: getrlimit(resource).maximum,
            source,
        }
    }
}

/// Length of what a wrapper says: the place of its step and the error's number.
const MESSAGE: usize = 8;

fn encode(step: Step, errno: i32) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    let place = Step::ALL.iter().position(|known| *known == step);
    message[0] = place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX);
    message[4..].copy_from_slice(&errno.to_le_bytes());
    message
}

fn decode(message: [u8; MESSAGE]) -> Option<(Step, i32)> {
    let [place, _, _, _, errno @ ..] = message;
    let step = Step::ALL.get(usize::from(place))?;
    Some((*step, i32::from_le_bytes(errno)))
}

/// Becomes the program that the arguments name, if this process was started as a wrapper. Returns only when it was not
/// (`None`), or when the program cannot be executed. To be called before anything else in `main`.
#[must_use]
pub fn become_if_asked(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != WORD {
        return None;
    }
    let channel = inherited();
    let (step, error) = match read_order(arguments) {
        Some(order) => order.perform(),
        None => (Step::Execute, io::ErrorKind::InvalidInput.into()),
    };
    let told = channel.is_some_and(|channel| {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        std::fs::File::from(channel)
            .write_all(&encode(step, errno))
            .is_ok()
    });
    if !told {
        // Nobody waits any more: the task's own standard error is the only place left, if it is open.
        let _ = writeln!(
            io::stderr(),
            "mitosis: the program cannot be executed: {error}"
        );
    }
    Some(NOT_EXECUTED.into())
}

/// What a wrapper was told.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    limited: Limited,
    program: OsString,
    argv: Vec<OsString>,
}

fn read_order(mut words: impl Iterator<Item = OsString>) -> Option<Order> {
    let mut limit = || -> Option<Option<u64>> {
        let word = words.next()?;
        if word.is_empty() {
            return Some(None);
        }
        word.to_str()?.parse().ok().map(Some)
    };
    let (file_size_bytes, open_files) = (limit()?, limit()?);
    let count: usize = words.next()?.to_str()?.parse().ok()?;
    let groups: Vec<PathBuf> = words.by_ref().take(count).map(PathBuf::from).collect();
    Some(Order {
        limited: Limited {
            file_size_bytes,
            open_files,
            groups,
        },
        program: words.next()?,
        argv: words.collect(),
    })
}

impl Order {
    /// Returns with what failed.
    fn perform(self) -> (Step, io::Error) {
        for group in &self.limited.groups {
            if let Err(error) = enter(group) {
                return (Step::Group, error);
            }
        }
        let limits = [
            (
                Step::FileSize,
                Resource::Fsize,
                self.limited.file_size_bytes,
            ),
            (Step::OpenFiles, Resource::Nofile, self.limited.open_files),
        ];
        for (step, resource, limit) in limits {
            if let Some(limit) = limit
                && let Err(error) = set(resource, limit)
            {
                return (step, error);
            }
        }
        (Step::Execute, execute(&self.program, self.argv))
    }
}

/// 0 means the process that writes it.
fn enter(group: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(group)?
        .write_all(b"0")
}

/// Both limits, so that the program cannot take it back.
fn set(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(resource, limit)?)
}

fn execute(program: &OsStr, argv: Vec<OsString>) -> io::Error {
    let text = |word: OsString| CString::new(word.into_vec());
    let argv: Result<Vec<CString>, _> = argv.into_iter().map(text).collect();
    let (Ok(program), Ok(argv)) = (text(program.to_owned()), argv) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut pauses = RETRY_PAUSES.into_iter();
    loop {
        let error = exec(&program, &argv);
        match pauses.next() {
            Some(pause) if super::error::is_passing(&error) => std::thread::park_timeout(pause),
            _ => return error,
        }
    }
}

/// Takes charge of the channel so that the program does not inherit it.
pub(super) fn keep_from_program(channel: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(channel, FdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::process::{ProcessGroup, Stdio};

    #[test]
    fn a_wrapper_is_told_what_its_spec_says() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let borrowed = || Stdio::Borrowed(null.as_fd());
        let spec = SpawnSpec {
            program: "/bin/some program".into(),
            argv: [c"name", c"", c"-x"].map(Into::into).to_vec(),
            env: Vec::new(),
            cwd: None,
            stdin: borrowed(),
            stdout: borrowed(),
            stderr: borrowed(),
            inherit: Vec::new(),
            process_group: ProcessGroup::New,
        };
        let limited = Limited {
            file_size_bytes: None,
            open_files: Some(7),
            groups: vec!["/a b".into(), "/c".into()],
        };
        let argv = wrapper_argv(&spec, &limited).unwrap();
        let words = argv
            .into_iter()
            .map(|word| OsString::from_vec(word.into_bytes()));
        let order = read_order(words.skip(2)).unwrap();
        assert_eq!(order.limited, limited);
        assert_eq!(order.program, "/bin/some program");
        assert_eq!(order.argv, ["name", "", "-x"]);
    }

    #[test]
    fn other_arguments_are_not_for_the_wrapper_and_bad_ones_execute_nothing() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(become_if_asked(words(&["mitosis"])), None);
        assert_eq!(become_if_asked(words(&["mitosis", "run", WORD])), None);
        for bad in [&["x", "", "0", "/bin/true"][..], &["", "", "2", "/a"], &[]] {
            assert_eq!(read_order(words(bad).into_iter()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_failure_survives_the_pipe() {
        for step in Step::ALL {
            assert_eq!(decode(encode(step, 13)), Some((step, 13)));
        }
        assert_eq!(decode([9; MESSAGE]), None);
    }
}
