//! The output of a task: two files in the slot that the task writes to directly.
//!
//! No pipe: nobody has to read along, a task never waits for the worker, and a descendant that keeps the stream open
//! delays nobody. The files are in append mode, so every writer continues at the end, and stay open from task to task:
//! a task that prints nothing costs one `fstat` per stream. What is longer than the tail becomes a file of its own in the
//! output directory by a rename, and the slot gets a fresh one.
//!
//! Where somebody follows output while tasks run, every task has fresh files in a directory for that, under its own name:
//! whoever reads along knows whose lines they are, and the task does not notice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ExecError;
use super::compact::{self, Punching};
use crate::protocol::report::Output;
use crate::protocol::task::{OUTPUT_TAIL_BYTES, Streams};

/// The output files of one slot.
#[derive(Debug)]
pub(super) struct Capture {
    stdout: Stream,
    stderr: Stream,
    null: File,
    output_dir: PathBuf,
    /// Where the files of the running task lie under its name.
    live_dir: Option<PathBuf>,
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
}

/// One output file of the slot.
#[derive(Debug)]
struct Stream {
    path: PathBuf,
    /// In append mode. Shared with the pool for blocking work while a hole is punched or the file is settled.
    file: Arc<File>,
    /// The middle is gone up to here.
    punched: u64,
    punching: Punching,
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
        })
    }

    /// `/dev/null`, for reading and writing.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Descriptors 1 and 2 of a task.
    pub(super) fn descriptors(&self, streams: Streams) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        match streams {
            Streams::Separate => (self.stdout.file.as_fd(), self.stderr.file.as_fd()),
            Streams::Merged => (self.stdout.file.as_fd(), self.stdout.file.as_fd()),
            Streams::Discarded => (self.null(), self.null()),
        }
    }

    /// Makes the files ready for a task that is about to start.
    pub(super) fn begin(&mut self, plan: &Plan) -> io::Result<()> {
        let Some(dir) = &self.live_dir else {
            return Ok(());
        };
        if plan.streams == Streams::Discarded {
            return Ok(());
        }
        let path = |ending| dir.join(format!("{}.{ending}", plan.name));
        self.stdout.put(path("out"))?;
        self.stderr.put(path("err"))
    }

    /// Replaces both files: an earlier task may still write to the present ones.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.stdout.renew()?;
        self.stderr.renew()
    }

    /// Gives back the middle of what exceeds the limit. Called from time to time while a task runs.
    pub(super) async fn hold_limit(&mut self, plan: &Plan) -> io::Result<()> {
        if plan.streams == Streams::Discarded {
            return Ok(());
        }
        self.stdout.hold_limit(plan.limit).await?;
        self.stderr.hold_limit(plan.limit).await
    }

    /// Takes the output of a task whose processes are gone, and makes the files ready for the next.
    pub(super) async fn finish(&mut self, plan: &Plan) -> Captured {
        let mut captured = Captured::default();
        if plan.streams == Streams::Discarded {
            return captured;
        }
        let out = self.output_dir.join(format!("{}.out", plan.name));
        let err = self.output_dir.join(format!("{}.err", plan.name));
        let mut troubles = Vec::new();
        captured.stdout = self.stdout.finish(plan.limit, out, &mut troubles).await;
        captured.stderr = self.stderr.finish(plan.limit, err, &mut troubles).await;
        if self.live_dir.is_some() {
            // A file that stays under its name is not read again: its task has ended.
            let removed = [&self.stdout, &self.stderr].map(|stream| remove_if_there(&stream.path));
            let failed = removed.into_iter().filter_map(Result::err);
            troubles.extend(failed.map(|error| format!("the followed output stays: {error}")));
        }
        if !troubles.is_empty() {
            captured.trouble = Some(troubles.join("; "));
        }
        captured
    }
}

impl Stream {
    fn create(path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(fresh(&path)?),
            path,
            punched: 0,
            punching: Punching::Possible,
        })
    }

    /// A fresh file under another name.
    fn put(&mut self, path: PathBuf) -> io::Result<()> {
        self.path = path;
        self.renew()
    }

    fn renew(&mut self) -> io::Result<()> {
        self.file = Arc::new(fresh(&self.path)?);
        self.punched = 0;
        Ok(())
    }

    async fn hold_limit(&mut self, limit: u64) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let range = compact::droppable(size, self.punched, limit);
        if range.is_empty() || self.punching == Punching::Unsupported {
            return Ok(());
        }
        let (file, end) = (Arc::clone(&self.file), range.end);
        self.punching = blocking(move || compact::punch(&file, &range)).await?;
        self.punched = end;
        Ok(())
    }

    async fn finish(&mut self, limit: u64, kept: PathBuf, troubles: &mut Vec<String>) -> Output {
        let mut output = Output::default();
        if let Err(error) = self.settle(limit, &kept, &mut output).await {
            troubles.push(format!(
                "the output could not be kept in `{}`: {error}",
                kept.display()
            ));
            // A file in an unknown state is not given to the next task; if even that fails, truncating the present
            // one is what is left to try.
            let renewed = self.renew().or_else(|_| self.file.set_len(0));
            troubles.extend(
                renewed
                    .err()
                    .map(|error| format!("nor be removed: {error}")),
            );
        }
        output
    }

    async fn settle(&mut self, limit: u64, kept: &Path, output: &mut Output) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        if size == 0 {
            return Ok(());
        }
        self.punched = 0;
        output.bytes = size;
        output.truncated = size > limit;
        if size <= limit.min(OUTPUT_TAIL_BYTES as u64) {
            output.tail = read_end(&self.file, size)?;
            return self.file.set_len(0);
        }
        let settling = Settling {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            kept: kept.to_owned(),
        };
        let settled = blocking(move || settling.run(size, limit)).await?;
        output.tail = settled.tail;
        self.file = Arc::new(settled.fresh);
        if settled.is_kept {
            output.file = Some(kept.to_string_lossy().into_owned());
        }
        Ok(())
    }
}

/// The part of [`Stream::settle`] that grows with the output.
struct Settling {
    file: Arc<File>,
    path: PathBuf,
    kept: PathBuf,
}

struct Settled {
    tail: Vec<u8>,
    /// The slot's next file.
    fresh: File,
    /// Whether there is a kept file.
    is_kept: bool,
}

impl Settling {
    fn run(&self, size: u64, limit: u64) -> io::Result<Settled> {
        let settled = self.settle(size, limit);
        if settled.is_err() {
            // Half an output under the name of a whole one; that it is missing is told by the error.
            let _ = remove_if_there(&self.kept);
        }
        settled
    }

    fn settle(&self, size: u64, limit: u64) -> io::Result<Settled> {
        // The name first: who follows a running task believes what the named file says, and takes its bytes to be where
        // the task wrote them.
        let is_moved = self.take_name()?;
        let size = match size > limit {
            true => compact::compact(&self.reopen()?, size, limit)?,
            false => size,
        };
        let tail = read_end(&self.file, size)?;
        let is_kept = size > OUTPUT_TAIL_BYTES as u64;
        match (is_moved, is_kept) {
            (true, false) => remove_if_there(&self.kept)?,
            (false, true) => self.copy()?,
            (true, true) | (false, false) => {}
        }
        Ok(Settled {
            tail,
            fresh: fresh(&self.path)?,
            is_kept,
        })
    }

    /// The same file without append mode, whatever its name is by now.
    fn reopen(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Moves the file to where it is kept; false when it can only be copied there, and has no name any more.
    fn take_name(&self) -> io::Result<bool> {
        let open = self.file.metadata()?;
        // The task can reach the slot: the name may be gone, or be another file's.
        let named = std::fs::symlink_metadata(&self.path);
        let same = named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
        if same {
            match std::fs::rename(&self.path, &self.kept) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                renamed => return renamed.map(|()| true),
            }
        }
        remove_if_there(&self.path)?;
        Ok(false)
    }

    fn copy(&self) -> io::Result<()> {
        // Never write through what already has the name.
        remove_if_there(&self.kept)?;
        let mut kept = private(&self.kept)?;
        io::copy(&mut self.reopen()?, &mut kept)?;
        Ok(())
    }
}

/// An empty file in append mode in place of whatever has its name.
fn fresh(path: &Path) -> io::Result<File> {
    remove_if_there(path)?;
    private(path)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The last bytes of a file of `size` bytes, at most [`OUTPUT_TAIL_BYTES`].
fn read_end(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(size).map_or(OUTPUT_TAIL_BYTES, |size| size.min(OUTPUT_TAIL_BYTES));
    let mut tail = vec![0; len];
    file.read_exact_at(&mut tail, size - len as u64)?;
    Ok(tail)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
