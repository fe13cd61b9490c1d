//! Starting a program under limits, without leaving the fast path of [`super::spawn()`].
//!
//! `posix_spawn` can set no limit and enter no control group, and nothing of ours runs between `vfork` and `exec`. So a
//! program with limits is started in two steps: the spawn executes *this* program again, as a wrapper that has one
//! thread and nothing to lose, and the wrapper limits itself, enters the groups, and executes the program in its own
//! place: same pid, same group, same descriptors. A program without limits has no wrapper.
//!
//! ```text
//!   worker --spawn--> wrapper: enter groups, set limits --execve--> program
//!      ^                 | descriptor 3 or the next that is free, closed by the execve
//!      +- Entry::entered +- 8 bytes: nothing is left but the program, or which step failed, and why
//! ```
//!
//! A wrapper that ends without a word was killed before its program began. Variables that change how programs are loaded
//! reach the program alone.
//!
//! So a program that cannot be executed is told in the same words with limits as without. The wrapper tries again what
//! fails for a passing reason, because only it can.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use tokio::io::unix::AsyncFd;

use super::error::SpawnError;
use super::passed::FIRST;
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
    let (read, write) = answer_pipe().map_err(|source| SpawnError::Os {
        operation: "pipe",
        program: spec.program.clone(),
        source,
    })?;
    let texts = [&spec.argv, &spec.env].into_iter().flatten();
    let bytes = texts.map(|text| text.as_bytes_with_nul().len()).sum();
    let mut spec = spec;
    let env = std::mem::take(&mut spec.env);
    let (hidden, shown) = env.into_iter().partition(is_for_the_program_alone);
    spec.env = shown;
    let is_taken = |number: &RawFd| spec.inherit.iter().any(|(_, taken)| taken == number);
    let channel = (FIRST..).find(|number| !is_taken(number)).unwrap_or(FIRST);
    let argv = wrapper_argv(&spec, (&limited, channel), hidden)?;
    spec.inherit.push((write.into(), channel));
    spec.inherit.sort_by_key(|(_, number)| *number);
    let target = Target {
        bytes,
        program: spec.program,
        cwd: spec.cwd.clone(),
        limited,
    };
    let wrapper = SpawnSpec {
        program: OWN_PROGRAM.into(),
        argv,
        ..spec
    };
    Ok((wrapper, Entry { read, target }))
}

/// The wrapper's end is closed by its program's start; this one is read without waiting.
fn answer_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// True for a variable that changes how any program is loaded: it is not to change the wrapper, which has the rights and the
/// limits of the worker.
fn is_for_the_program_alone(variable: &CString) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"LD_", b"GLIBC_", b"MALLOC_", b"GCONV_"];
    let bytes = variable.as_bytes();
    PREFIXES.iter().any(|prefix| bytes.starts_with(prefix))
}

fn wrapper_argv(
    spec: &SpawnSpec<'_>,
    (limited, channel): (&Limited, RawFd),
    hidden: Vec<CString>,
) -> Result<Vec<CString>, SpawnError> {
    let number = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| SpawnError::Nul {
            what: "the program's path",
        })
    };
    let head = [
        "mitosis".to_owned(),
        WORD.to_owned(),
        channel.to_string(),
        number(limited.file_size_bytes),
        number(limited.open_files),
        limited.groups.len().to_string(),
        hidden.len().to_string(),
    ];
    let groups = limited.groups.iter().map(PathBuf::as_path);
    let words = head
        .iter()
        .map(|word| text(word.as_bytes()))
        .chain(groups.map(|path| text(path.as_os_str().as_bytes())));
    let mut argv = words.collect::<Result<Vec<_>, _>>()?;
    argv.extend(hidden);
    argv.push(text(spec.program.as_os_str().as_bytes())?);
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
        match tokio::time::timeout(PATIENCE, answer(&watched)).await {
            Ok(Ok(Answer::Executed)) | Ok(Err(_)) | Err(_) => Ok(()),
            Ok(Ok(Answer::Failed(step, errno))) => Err(target.error(step, errno)),
            Ok(Ok(Answer::Died)) => Err(SpawnError::Wrapper {
                program: target.program,
            }),
        }
    }
}

/// What a wrapper said before it was gone.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It announced the program, and nothing after that.
    Executed,
    Failed(Step, i32),
    /// Nothing at all.
    Died,
}

async fn answer(channel: &AsyncFd<OwnedFd>) -> io::Result<Answer> {
    let mut said = Vec::new();
    loop {
        let mut guard = channel.readable().await?;
        let mut part = [0; 2 * MESSAGE];
        match rustix::io::read(channel.get_ref(), &mut part) {
            Ok(0) => return Ok(understood(&said)),
            Ok(count) => said.extend_from_slice(&part[..count]),
            Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn understood(said: &[u8]) -> Answer {
    let mut messages = said
        .chunks_exact(MESSAGE)
        .filter_map(|message| decode(message.try_into().ok()?));
    match messages.next_back() {
        None => Answer::Died,
        Some((Step::Execute, 0)) => Answer::Executed,
        Some((step, errno)) => Answer::Failed(step, errno),
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
    let number = arguments
        .next()
        .and_then(|number| number.to_str()?.parse().ok());
    let mut channel = number.and_then(inherited).map(std::fs::File::from);
    let mut tell = |step, errno| {
        let channel = channel.as_mut();
        channel.is_some_and(|channel| channel.write_all(&encode(step, errno)).is_ok())
    };
    let (step, error) = match read_order(arguments) {
        Some(order) => order.perform(|| {
            tell(Step::Execute, 0);
        }),
        None => (Step::Execute, io::ErrorKind::InvalidInput.into()),
    };
    let told = tell(step, error.raw_os_error().unwrap_or(libc::EINVAL));
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
    /// Variables of the program that this process does not have.
    hidden: Vec<OsString>,
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
    let mut count = || -> Option<usize> { words.next()?.to_str()?.parse().ok() };
    let (count, hidden) = (count()?, count()?);
    let groups: Vec<PathBuf> = words.by_ref().take(count).map(PathBuf::from).collect();
    Some(Order {
        limited: Limited {
            file_size_bytes,
            open_files,
            groups,
        },
        hidden: words.by_ref().take(hidden).collect(),
        program: words.next()?,
        argv: words.collect(),
    })
}

impl Order {
    /// Returns with what failed; `announce` is called when nothing is left to do but the program itself.
    fn perform(self, announce: impl FnOnce()) -> (Step, io::Error) {
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
        announce();
        let error = execute(&self.program, self.argv, self.hidden);
        (Step::Execute, error)
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

fn execute(program: &OsStr, argv: Vec<OsString>, hidden: Vec<OsString>) -> io::Error {
    let text = |word: OsString| CString::new(word.into_vec());
    let own = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let env: Result<Vec<CString>, _> = own.chain(hidden).map(text).collect();
    let argv: Result<Vec<CString>, _> = argv.into_iter().map(text).collect();
    let (Ok(program), Ok(argv), Ok(env)) = (text(program.to_owned()), argv, env) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut pauses = RETRY_PAUSES.into_iter();
    loop {
        let error = exec(&program, &argv, &env);
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
        let argv = wrapper_argv(&spec, (&limited, 3), vec![c"LD_PRELOAD=x".into()]).unwrap();
        let words = argv
            .into_iter()
            .map(|word| OsString::from_vec(word.into_bytes()));
        let order = read_order(words.skip(3)).unwrap();
        assert_eq!(order.limited, limited);
        assert_eq!(order.hidden, ["LD_PRELOAD=x"]);
        assert_eq!(order.program, "/bin/some program");
        assert_eq!(order.argv, ["name", "", "-x"]);
    }

    #[test]
    fn other_arguments_are_not_for_the_wrapper_and_bad_ones_execute_nothing() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(become_if_asked(words(&["mitosis"])), None);
        assert_eq!(become_if_asked(words(&["mitosis", "run", WORD])), None);
        for bad in [
            &["x", "", "0", "0", "/bin/true"][..],
            &["", "", "2", "0", "/a"],
            &["", "", "0", "2", "/a"],
            &[],
        ] {
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

    #[test]
    fn a_wrapper_that_died_before_its_program_is_told_from_one_that_became_it() {
        let announced = encode(Step::Execute, 0);
        let failed = encode(Step::Execute, libc::ENOENT);
        assert_eq!(understood(&[]), Answer::Died);
        assert_eq!(understood(&announced), Answer::Executed);
        let both = [announced, failed].concat();
        assert_eq!(
            understood(&both),
            Answer::Failed(Step::Execute, libc::ENOENT)
        );
        let early = encode(Step::Group, libc::EPERM);
        assert_eq!(understood(&early), Answer::Failed(Step::Group, libc::EPERM));
    }

    #[test]
    fn what_changes_how_programs_are_loaded_does_not_change_the_wrapper() {
        for (variable, hidden) in [
            (c"LD_PRELOAD=/tmp/x.so", true),
            (c"LD_LIBRARY_PATH=/x", true),
            (c"GLIBC_TUNABLES=x", true),
            (c"PATH=/bin", false),
            (c"LDFLAGS=-s", false),
        ] {
            assert_eq!(
                is_for_the_program_alone(&variable.into()),
                hidden,
                "{variable:?}"
            );
        }
    }
}
