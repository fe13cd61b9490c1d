//! The output of a task: two pipes of the slot that the task writes to, as it would to a terminal's reader.
//!
//! A file would lose bytes: a task that opens `/dev/stdout` again cuts it, one that seeks overwrites it. A pipe keeps
//! every byte, whatever the task does with it. A task is never waited for because a descendant of it has the pipe open:
//! its end is its leader's end, and then what the pipe holds is taken.
//!
//! | what a task writes | where it goes |
//! |---|---|
//! | at most the tail, within some milliseconds | from the pipe into the result, once, after its end |
//! | while it runs longer | into the slot's file at once, by moving pages where it is much |
//! | more than the tail | the slot's file becomes the kept file by a rename, and the slot gets a fresh one |
//!
//! Where somebody follows output while tasks run, every task has fresh files in a directory for that, under its own name:
//! whoever reads along knows whose lines they are, and the task does not notice.

mod pipe;
mod settle;
mod stream;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use self::pipe::FILL;
use self::stream::{Ending, Stream};
use super::ExecError;
use super::stop::StopOrder;
use crate::protocol::output::LogStream;
use crate::protocol::report::Output;
use crate::protocol::task::Streams;

pub(super) use self::pipe::Flow;

/// The output streams of one slot.
#[derive(Debug)]
pub(super) struct Capture {
    stdout: Stream,
    stderr: Stream,
    null: File,
    output_dir: PathBuf,
    /// Where the files of the running task lie under its name.
    live_dir: Option<PathBuf>,
    /// Whether the last task wrote so much that it would have waited for a reader who comes late.
    expects_much: bool,
}

/// What is kept of one task's output, and under which name.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Which streams.
    pub(super) streams: Streams,
    /// Most bytes per stream.
    pub(super) limit: u64,
    /// Name of the kept files without `.out` and `.err`.
    pub(super) name: String,
}

/// What a task wrote.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// What could not be kept and why, for people.
    pub(super) trouble: Option<String>,
    /// Whether bytes that the task wrote are gone.
    pub(super) is_lost: bool,
}

impl Capture {
    /// Makes fresh files, and the output directory if it is missing.
    pub(super) fn create(
        slot: &Path,
        output_dir: &Path,
        live_dir: Option<PathBuf>,
    ) -> Result<Self, ExecError> {
        let error = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ExecError::Path {
                operation,
                path,
                source,
            }
        };
        std::fs::create_dir_all(output_dir).map_err(error("create the directory", output_dir))?;
        let stream = |name| {
            let path = slot.join(name);
            Stream::create(path.clone()).map_err(error("create the file", &path))
        };
        let null = Path::new("/dev/null");
        Ok(Self {
            stdout: stream("stdout")?,
            stderr: stream("stderr")?,
            null: OpenOptions::new()
                .read(true)
                .write(true)
                .open(null)
                .map_err(error("open", null))?,
            output_dir: output_dir.to_owned(),
            live_dir,
            expects_much: false,
        })
    }

    /// A descriptor of a task: the given one, or `/dev/null`, for reading and writing.
    pub(super) fn or_null<'a>(&'a self, given: Option<&'a OwnedFd>) -> BorrowedFd<'a> {
        given.map_or_else(|| self.null.as_fd(), AsFd::as_fd)
    }

    /// Makes the streams ready for a task that is about to start, and gives its descriptors 1 and 2. They are to be
    /// closed here once the task has them.
    pub(super) fn begin(&mut self, plan: &Plan) -> io::Result<[Option<OwnedFd>; 2]> {
        if plan.streams == Streams::Discarded {
            return Ok([None, None]);
        }
        if let Some(dir) = &self.live_dir {
            let path = |ending| dir.join(format!("{}.{ending}", plan.name));
            self.stdout.put(path("out"))?;
            self.stderr.put(path("err"))?;
        }
        let stdout = self.stdout.begin()?;
        let stderr = match plan.streams {
            Streams::Separate => self.stderr.begin()?,
            Streams::Merged | Streams::Discarded => stdout.try_clone()?,
        };
        Ok([Some(stdout), Some(stderr)])
    }

    /// Replaces files and pipes: an earlier task may still write to the present ones.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.stdout.renew()?;
        self.stderr.renew()
    }

    /// True when the next task is better read from its start on.
    pub(super) fn expects_much(&self) -> bool {
        self.expects_much
    }

    /// The pipe of a stream, as long as the running task may write to it.
    pub(super) fn source(&self, stream: LogStream) -> Option<BorrowedFd<'_>> {
        match stream {
            LogStream::Stdout => self.stdout.source(),
            LogStream::Stderr => self.stderr.source(),
        }
    }

    /// Moves what the running task has written to the stream's file.
    ///
    /// # Errors
    /// When the file takes no more; the task waits then, and the same call goes on where this one stopped.
    pub(super) fn pump(&mut self, stream: LogStream, plan: &Plan) -> io::Result<Flow> {
        match stream {
            LogStream::Stdout => self.stdout.pump(plan.limit),
            LogStream::Stderr => self.stderr.pump(plan.limit),
        }
    }

    /// Takes the output of a task whose processes are gone, and makes the streams ready for the next. `last_words` come
    /// behind its error output. A full disk is waited for until `stop` has an order.
    pub(super) async fn finish(
        &mut self,
        plan: &Plan,
        last_words: &str,
        mut stop: watch::Receiver<StopOrder>,
    ) -> Captured {
        let mut captured = Captured::default();
        if plan.streams == Streams::Discarded {
            return captured;
        }
        let out = self.output_dir.join(format!("{}.out", plan.name));
        let err = self.output_dir.join(format!("{}.err", plan.name));
        let mut troubles = Vec::new();
        let (of_stdout, of_stderr) = match plan.streams {
            Streams::Merged => (last_words, ""),
            Streams::Separate | Streams::Discarded => ("", last_words),
        };
        let stdout = Ending {
            limit: plan.limit,
            kept: &out,
            last_words: of_stdout,
        };
        captured.stdout = self.stdout.finish(stdout, &mut stop, &mut troubles).await;
        if plan.streams == Streams::Separate {
            let stderr = Ending {
                limit: plan.limit,
                kept: &err,
                last_words: of_stderr,
            };
            captured.stderr = self.stderr.finish(stderr, &mut stop, &mut troubles).await;
        }
        captured.is_lost = !troubles.is_empty();
        let longest = captured.stdout.bytes.max(captured.stderr.bytes);
        self.expects_much = longest >= FILL as u64 / 2;
        if self.live_dir.is_some() {
            // A file that stays under its name is not read again: its task has ended.
            let removed = [&self.stdout, &self.stderr].map(Stream::unname);
            let failed = removed.into_iter().filter_map(Result::err);
            troubles.extend(failed.map(|error| format!("the followed output stays: {error}")));
        }
        if !troubles.is_empty() {
            captured.trouble = Some(troubles.join("; "));
        }
        captured
    }
}
