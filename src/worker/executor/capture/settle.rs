//! The part of an output's end that grows with it: a name, a cut, a copy, and the slot's next file.
//!
//! Blocks for file calls, [`ordered_meanwhile`] alone does not. Owned by the stream; what it is given is a file that nobody writes to any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::compact;
use super::super::stop::StopOrder;
use crate::protocol::report::Gap;
use crate::protocol::task::OUTPUT_TAIL_BYTES;

/// Pause between two tries to write while the disk is full.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// An output that is longer than its tail.
pub(super) struct Settling {
    pub(super) file: Arc<File>,
    /// Its name in the slot.
    pub(super) path: PathBuf,
    /// Its name afterwards.
    pub(super) kept: PathBuf,
}

/// What became of it.
pub(super) struct Settled {
    pub(super) tail: Vec<u8>,
    /// The slot's next file.
    pub(super) fresh: File,
    /// Whether there is a kept file.
    pub(super) is_kept: bool,
    /// What was dropped.
    pub(super) gap: Option<Gap>,
}

impl Settling {
    /// Brings an output of `size` bytes within its limit and to where it is kept.
    pub(super) fn run(&self, size: u64, limit: u64) -> io::Result<Settled> {
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
        let gap = match size > limit {
            true => Some(compact::compact(&self.file, size, limit)?),
            false => None,
        };
        let size = size - gap.map_or(0, |gap| gap.bytes);
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
            gap,
        })
    }

    /// The same file read from its beginning, whatever its name is by now.
    fn reopen(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
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

/// An empty file in place of whatever has its name.
pub(super) fn fresh(path: &Path) -> io::Result<File> {
    remove_if_there(path)?;
    private(path)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The last bytes of a file of `size` bytes, at most [`OUTPUT_TAIL_BYTES`].
pub(super) fn read_end(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(size).map_or(OUTPUT_TAIL_BYTES, |size| size.min(OUTPUT_TAIL_BYTES));
    let mut tail = vec![0; len];
    file.read_exact_at(&mut tail, size - len as u64)?;
    Ok(tail)
}

/// Waits for a while; true when there is an order to end the task, which has ended.
pub(super) async fn ordered_meanwhile(stop: &mut watch::Receiver<StopOrder>) -> bool {
    let order = async {
        let is_order = |order: &StopOrder| *order != StopOrder::None;
        let is_given = stop.wait_for(is_order).await.is_ok();
        if !is_given {
            // Nobody will give an order any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::time::timeout(ROOM_PAUSE, order).await.is_ok()
}
