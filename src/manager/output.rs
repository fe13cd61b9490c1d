//! Reads what running tasks have written so far, for whoever follows them.
//!
//! Owned by the loop, which is not woken for it. The files are those that the tasks write to, in the slots of their workers; no worker
//! is asked and no task notices. Reads happen on the pool for blocking work, a few at a time and no faster than the link
//! takes their answers; the others wait in line, and beyond [`MOST_WAITING`] they are not answered.
//!
//! A slot's file serves one task after the other, and is cut when a task has written more than its limit. Bytes count
//! only if, after they were read, all of this holds:
//! - the worker's status block names this hand-over and its process: the next task has not begun to write;
//! - the slot's name is still that of the file that was read: a file is cut at its end only after it lost that name;
//! - the file is still long enough: it was not emptied meanwhile;
//! - they are not of the part that is given back while a task runs ([`Split`]), by the size that the file has now.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mitosis_bridge::status::{StatusView, TaskInHand};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::protocol::output::{MAX_PART_BYTES, OutputPart, PartAnswer, PartRequest, Split};
use crate::protocol::session::ToCoordinator;
use crate::protocol::{LocalId, LogStream, Try};

use super::state::LeaseKey;

/// Reads at the same time.
const AT_ONCE: usize = 4;
/// Reads that wait or are under way.
const MOST_WAITING: usize = 256;
/// Frames on the link above which answers wait.
const LINK_SHARE: usize = 8;
/// Pause between two looks at a link that has no room.
const LINK_PAUSE: Duration = Duration::from_millis(5);
/// Readings of a file whose writer is faster than the reader.
const TRIES: usize = 3;

/// The way to the coordinator of one session, which an answer does not keep open.
pub(super) type Link = flume::WeakSender<ToCoordinator>;

/// A running execution, as the reactor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) lease: LeaseKey,
    pub(crate) try_no: Try,
    /// Its number.
    pub(crate) attempt: u32,
    /// Most bytes kept per stream.
    pub(crate) limit: u64,
}

/// Where an execution writes, and how to know that it still does.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) execution: Execution,
    pub(super) slot: LocalId,
    pub(super) status: StatusView,
}

/// The reads of one manager. Dropping it ends them.
#[derive(Debug)]
pub(super) struct OutputReader {
    slots_dir: PathBuf,
    readings: JoinSet<()>,
    turns: Arc<Semaphore>,
}

impl OutputReader {
    pub(super) fn new(slots_dir: PathBuf) -> Self {
        Self {
            slots_dir,
            readings: JoinSet::new(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Reads at a place and answers over the link.
    pub(super) fn read(&mut self, link: Link, id: u64, request: PartRequest, place: Place) {
        let turns = Arc::clone(&self.turns);
        let path = path(&self.slots_dir, place.slot, request.stream);
        self.begin(async move {
            // Kept until the answer is on its way: a slow link slows the readers and fills no memory.
            let _turn = turns.acquire().await;
            let task = request.lease.task.uuid;
            let read = tokio::task::spawn_blocking(move || {
                read(&path, &request, &place.execution, || in_hand(&place.status))
            });
            let part = read
                .await
                .unwrap_or_else(|panic| Err(io::Error::other(panic)));
            let answer = match part {
                Ok(Some(part)) => PartAnswer::Part(part),
                Ok(None) => PartAnswer::NotNow,
                Err(error) => {
                    tracing::debug!(%error, %task, "the output of a running task cannot be read");
                    PartAnswer::NotNow
                }
            };
            send(&link, id, answer).await;
        });
    }

    /// Answers a request for which nothing has to be read.
    pub(super) fn answer(&mut self, link: Link, id: u64, answer: PartAnswer) {
        self.begin(async move { send(&link, id, answer).await });
    }

    fn begin(&mut self, reading: impl Future<Output = ()> + Send + 'static) {
        while self.readings.try_join_next().is_some() {}
        // Who gets no answer asks again after a while.
        if self.readings.len() < MOST_WAITING {
            self.readings.spawn(reading);
        }
    }
}

/// Answers when the link has room for more than this: what the manager itself has to say finds it never full.
async fn send(link: &Link, id: u64, answer: PartAnswer) {
    // A session that has ended takes its readers' questions with it.
    while let Some(open) = link.upgrade() {
        if open.is_disconnected() || open.len() < LINK_SHARE {
            let _ = open.try_send(ToCoordinator::Output { id, answer });
            return;
        }
        drop(open);
        tokio::time::sleep(LINK_PAUSE).await;
    }
}

/// The file that a stream of a slot's task goes to.
fn path(slots_dir: &Path, slot: LocalId, stream: LogStream) -> PathBuf {
    slots_dir.join(slot.to_string()).join(stream.as_str())
}

/// What a worker says that it has in hand.
fn in_hand(status: &StatusView) -> Option<TaskInHand> {
    let snapshot = status.snapshot();
    snapshot.task.filter(|_| !snapshot.torn)
}

impl Execution {
    /// True when its process runs, or has not been cleared away, by what its worker says.
    fn is(&self, in_hand: Option<TaskInHand>) -> bool {
        in_hand.is_some_and(|task| {
            task.pgid != 0
                && (task.task_id, task.lease, task.attempt)
                    == (self.lease.task_id, self.lease.lease.0, self.try_no.0)
        })
    }
}

/// The next part of an execution's output; `None` when it does not run.
fn read(
    path: &Path,
    request: &PartRequest,
    execution: &Execution,
    in_hand: impl Fn() -> Option<TaskInHand>,
) -> io::Result<Option<OutputPart>> {
    if !execution.is(in_hand()) {
        return Ok(None);
    }
    let file = open(path)?;
    let offset = if request.attempt == execution.attempt {
        request.offset
    } else {
        0
    };
    let found = read_kept(&file, offset, Split::of(execution.limit))?;
    if !is_named(&file, path)? || !execution.is(in_hand()) {
        return Ok(None);
    }
    Ok(found.map(|(offset, bytes)| OutputPart {
        attempt: execution.attempt,
        offset,
        bytes,
    }))
}

/// The task can reach the slot: whatever else has the file's name is not opened, or not waited for.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes from `offset` on, or from the first that is still there behind it, and where they begin. `None` when the file
/// shrank meanwhile.
fn read_kept(file: &File, offset: u64, split: Split) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut size = file.metadata()?.len();
    for _ in 0..TRIES {
        let from = split.kept_from(offset, size);
        let run = split.run_from(from, size).min(MAX_PART_BYTES.into());
        let mut bytes = vec![0; usize::try_from(run).unwrap_or_default()];
        let read = read_at_most(file, &mut bytes, from)?;
        bytes.truncate(read);
        let end = from + read as u64;
        // Only now: what was given back while this read went on is beyond the head of this size.
        size = file.metadata()?.len();
        if size < end {
            return Ok(None);
        }
        let still_from = split.kept_from(from, size);
        if still_from < end {
            let gone = usize::try_from(still_from - from).unwrap_or(read);
            bytes.drain(..gone);
            return Ok(Some((still_from, bytes)));
        }
        if read == 0 {
            break;
        }
    }
    Ok(Some((offset, Vec::new())))
}

fn read_at_most(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], from + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
