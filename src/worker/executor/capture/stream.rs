//! One stream of a slot's tasks: from the pipe into the result's tail, or into the slot's file and from there to where
//! long output is kept.
//!
//! A task that writes little and ends soon is read once, after its end, and no file is touched. What is read while it
//! runs goes to the slot's file at once, because whoever follows the task reads that. Bytes are taken out of the pipe
//! only when there is a place for them: while the disk is full the task waits, as it would in front of a slow reader.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::super::compact::{self, Punching};
use super::super::stop::StopOrder;
use super::pipe::{FILL, Flow, Pipe};
use super::settle::{Settling, fresh, ordered_meanwhile, read_end, remove_if_there};
use crate::file_system::{Unwritable, lacks_room};
use crate::protocol::report::Output;
use crate::protocol::task::OUTPUT_TAIL_BYTES;

/// From here on bytes are moved instead of read, and the pipe is enlarged.
const MUCH: usize = 16 << 10;
/// Most bytes that are moved before something else is looked at.
const TURN: u64 = 4 << 20;
/// Most bytes that are taken after the task's end: what the largest pipe holds. Whoever goes on writing is not the task.
const REST: u64 = 2 << 20;
/// Growth after which the middle of a limited output is given back.
const HOLD_STEP: u64 = 1 << 20;
/// Longest output that is settled without another thread, where it only has to be renamed.
const SETTLED_HERE: u64 = 1 << 20;

/// What becomes of an output at its task's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    /// Most bytes that are kept.
    pub(super) limit: u64,
    /// The name of a long one.
    pub(super) kept: &'a Path,
    /// What comes behind it.
    pub(super) last_words: &'a str,
}

/// One output stream of the slot.
#[derive(Debug)]
pub(super) struct Stream {
    /// `None` until the first task, and after one that may have left its end open somewhere.
    pipe: Option<Pipe>,
    /// Whether the running task writes to it, as far as is known.
    is_open: bool,
    buffer: Vec<u8>,
    /// What was read and is in no file yet.
    held: Range<usize>,
    path: PathBuf,
    /// Shared with the pool for blocking work while the file is settled.
    file: Arc<File>,
    /// Bytes of the running task in the file.
    written: u64,
    /// The size at which the limit was looked after last.
    looked_at: u64,
    /// The middle is gone up to here.
    punched: u64,
    punching: Punching,
    is_much: bool,
    can_move: bool,
}

impl Stream {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            pipe: None,
            is_open: false,
            buffer: vec![0; FILL],
            held: 0..0,
            file: Arc::new(fresh(&path)?),
            path,
            written: 0,
            looked_at: 0,
            punched: 0,
            punching: Punching::Possible,
            is_much: false,
            can_move: true,
        })
    }

    /// The end that the next task writes to. It is to be closed here once the task has it.
    pub(super) fn begin(&mut self) -> io::Result<OwnedFd> {
        let again = self.pipe.as_ref().and_then(|pipe| pipe.writer().ok());
        let writer = match again {
            Some(writer) => writer,
            None => {
                let (pipe, writer) = Pipe::create()?;
                self.pipe = Some(pipe);
                writer
            }
        };
        self.is_open = true;
        Ok(writer)
    }

    /// A fresh file under another name.
    pub(super) fn put(&mut self, path: PathBuf) -> io::Result<()> {
        self.path = path;
        self.renew()
    }

    /// Takes away the file's name.
    pub(super) fn unname(&self) -> io::Result<()> {
        remove_if_there(&self.path)
    }

    /// A fresh file, and a fresh pipe for the next task.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.forget();
        self.pipe = None;
        self.file = Arc::new(fresh(&self.path)?);
        Ok(())
    }

    fn forget(&mut self) {
        self.held = 0..0;
        (self.written, self.looked_at, self.punched) = (0, 0, 0);
        (self.is_open, self.is_much) = (false, false);
    }

    /// The pipe, as long as the running task may write to it.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        let pipe = self.pipe.as_ref().filter(|_| self.is_open);
        pipe.map(AsFd::as_fd)
    }

    /// Moves what is in the pipe to the file, a few megabytes at most, and keeps the file's middle within `limit`.
    ///
    /// # Errors
    /// When the file takes no more. Nothing is lost: the same call goes on where this one stopped.
    pub(super) fn pump(&mut self, limit: u64) -> io::Result<Flow> {
        let end = self.written + TURN;
        let flow = loop {
            match self.step()? {
                Flow::More if self.written < end => {}
                flow => break flow,
            }
        };
        self.is_open &= flow != Flow::End;
        self.hold_limit(limit)?;
        Ok(flow)
    }

    fn step(&mut self) -> io::Result<Flow> {
        self.flush()?;
        let Some(pipe) = &mut self.pipe else {
            return Ok(Flow::End);
        };
        if self.is_much && self.can_move {
            match pipe.move_into(&self.file, self.written) {
                Ok((count, flow)) => {
                    self.written += count as u64;
                    return Ok(flow);
                }
                // A file system that nothing can be moved into.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.can_move = false,
                Err(error) => return Err(error),
            }
        }
        let flow = self.fill()?;
        self.flush()?;
        Ok(flow)
    }

    /// Reads until the buffer is full or the pipe is empty.
    fn fill(&mut self) -> io::Result<Flow> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(Flow::End);
        };
        let mut flow = Flow::More;
        while flow == Flow::More && self.held.end < self.buffer.len() {
            let (count, next) = pipe.read(&mut self.buffer[self.held.end..])?;
            self.held.end += count;
            flow = next;
        }
        if self.held.len() >= MUCH && !self.is_much {
            self.is_much = true;
            pipe.enlarge();
        }
        Ok(flow)
    }

    /// Brings what is held into the file.
    fn flush(&mut self) -> io::Result<()> {
        while !self.held.is_empty() {
            let held = &self.buffer[self.held.clone()];
            match self.file.write_at(held, self.written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.held.start += count;
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held = 0..0;
        Ok(())
    }

    /// Gives back the middle of what exceeds the limit.
    fn hold_limit(&mut self, limit: u64) -> io::Result<()> {
        if self.written < self.looked_at + HOLD_STEP || self.punching == Punching::Unsupported {
            return Ok(());
        }
        self.looked_at = self.written;
        let range = compact::droppable(self.written, self.punched, limit);
        if !range.is_empty() {
            self.punching = compact::punch(&self.file, &range)?;
            self.punched = range.end;
        }
        Ok(())
    }

    /// Takes the rest of a task that has ended, and makes the stream ready for the next.
    pub(super) async fn finish(
        &mut self,
        mut ending: Ending<'_>,
        stop: &mut watch::Receiver<StopOrder>,
        troubles: &mut Vec<String>,
    ) -> Output {
        let mut output = Output::default();
        while let Err(error) = self.settle(&mut ending, &mut output).await {
            // What exceeds its limit may be half cut already.
            let is_whole = output.bytes <= ending.limit;
            if is_whole && lacks_room(&error) && !ordered_meanwhile(stop).await {
                continue;
            }
            let what = format!("the output of the task in `{}`", ending.kept.display());
            let unwritable = Unwritable::of(&what, &error);
            troubles.push(format!("{unwritable}; {}", unwritable.remedy()));
            // A file in an unknown state is not given to the next task; if even that fails, truncating the present
            // one is what is left to try.
            let renewed = self.renew().or_else(|_| self.file.set_len(0));
            troubles.extend(
                renewed
                    .err()
                    .map(|error| format!("nor be removed: {error}")),
            );
            break;
        }
        self.forget();
        output
    }

    /// Goes on where it stopped when it is called again after an error.
    async fn settle(&mut self, ending: &mut Ending<'_>, output: &mut Output) -> io::Result<()> {
        let (limit, kept) = (ending.limit, ending.kept);
        let mut flow = self.fill()?;
        if flow != Flow::More {
            self.add(std::mem::take(&mut ending.last_words));
        }
        let size = self.written + self.held.len() as u64;
        let small = limit.min(OUTPUT_TAIL_BYTES as u64);
        if self.written == 0 && flow != Flow::More && size <= small {
            output.bytes = size;
            output.tail = self.buffer[self.held.clone()].to_vec();
            self.retire_pipe(flow);
            return Ok(());
        }
        let taken = self.take_rest(flow, &mut ending.last_words);
        let size = self.written + self.held.len() as u64;
        output.bytes = size;
        flow = taken?;
        self.retire_pipe(flow);
        if size <= small {
            output.tail = read_end(&self.file, size)?;
            return self.file.set_len(0);
        }
        let settling = Settling {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            kept: kept.to_owned(),
        };
        let settled = if size <= limit.min(SETTLED_HERE) {
            settling.run(size, limit)?
        } else {
            blocking(move || settling.run(size, limit)).await?
        };
        output.tail = settled.tail;
        output.truncated = settled.gap.is_some();
        output.gap = settled.gap;
        self.file = Arc::new(settled.fresh);
        if settled.is_kept {
            output.file = Some(kept.to_owned());
        }
        Ok(())
    }

    /// Moves what the pipe still holds to the file.
    fn take_rest(&mut self, mut flow: Flow, last_words: &mut &str) -> io::Result<Flow> {
        let end = self.written + REST;
        self.flush()?;
        if flow == Flow::More {
            while flow == Flow::More && self.written < end {
                flow = self.step()?;
            }
            self.add(std::mem::take(last_words));
            self.flush()?;
        }
        Ok(flow)
    }

    /// Holds some words behind what was read; the buffer is nearly always nearly empty.
    fn add(&mut self, words: &str) {
        let room = self.held.end..self.held.end + words.len();
        if let Some(room) = self.buffer.get_mut(room) {
            room.copy_from_slice(words.as_bytes());
            self.held.end += words.len();
        }
    }

    /// A pipe that somebody may still write to is not given to another task.
    fn retire_pipe(&mut self, flow: Flow) {
        match (&mut self.pipe, flow) {
            (Some(pipe), Flow::End) => pipe.shrink(),
            _ => self.pipe = None,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
