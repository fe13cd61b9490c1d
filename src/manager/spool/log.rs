//! The file behind the spool and the thread that writes it.
//!
//! A batch is one write. When it fails (a full disk), the file is cut back to its last whole record and the same batch
//! is tried again every second: reports are not acknowledged meanwhile, so workers keep them. That it fails, and that it
//! works again, is logged once.
//! When every report is committed the file is emptied; when it has grown large with few open reports, those are written
//! to a fresh file that replaces it.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::super::config::Durability;
use super::record::{MAGIC, Record};
use super::recovery::{Open, Recovered, read};
use super::unreported::SlotNotes;
use super::{Progress, invalid};
use crate::file_system::Unwritable;

const FILE: &str = "reports.log";
/// The file is emptied only from this size on: emptying costs as much as some dozen appends.
const WORTH_EMPTYING: u64 = 256 << 10;
/// From this size on, and from twice the size after the last rewrite, the file is rewritten.
const WORTH_REWRITING: u64 = 64 << 20;
const RETRY: Duration = Duration::from_secs(1);

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    durability: Durability,
    bytes: u64,
    open: Open,
    rewrite_at: u64,
}

impl Log {
    /// Opens or creates the log of `dir`, drops what is no record, and keeps the open reports alone.
    pub(super) fn open(
        dir: &Path,
        durability: Durability,
        notes: SlotNotes,
    ) -> io::Result<(Self, Recovered)> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if !bytes.is_empty() && bytes.len() >= MAGIC.len() && !bytes.starts_with(MAGIC) {
            return Err(invalid(
                "it is not a log of this version; finish it with the version that wrote it, or move it away",
            ));
        }
        let mut recovered = read(&bytes);
        recovered.add_notes(notes);
        let mut open = Open::default();
        for commit in recovered.finals.iter().chain(&recovered.lost) {
            open.apply(Record::Report(commit.clone()));
        }
        let file = fresh(&path, durability, &open)?;
        let length = file.metadata()?.len();
        let log = Self {
            path,
            file,
            durability,
            bytes: length,
            open,
            rewrite_at: WORTH_REWRITING.max(2 * length),
        };
        Ok((log, recovered))
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes encoded records in one piece.
    fn write(&mut self, encoded: &[u8]) -> io::Result<()> {
        let outcome = self
            .file
            .write_all_at(encoded, self.bytes)
            .and_then(|()| self.sync());
        match outcome {
            Ok(()) => {
                self.bytes += encoded.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A torn tail would end the log for the next reader. If cutting fails as well, the retry overwrites
                // the same place.
                let _ = self.file.set_len(self.bytes);
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.durability {
            Durability::Process => Ok(()),
            Durability::Power => self.file.sync_data(),
        }
    }

    /// Shrinks the file where that is worth it. A failure changes nothing: the file only stays larger.
    fn tidy(&mut self) -> io::Result<()> {
        if self.open.is_empty() && self.bytes >= WORTH_EMPTYING {
            self.file.set_len(MAGIC.len() as u64)?;
            self.bytes = MAGIC.len() as u64;
        } else if self.bytes >= self.rewrite_at {
            self.file = fresh(&self.path, self.durability, &self.open)?;
            self.bytes = self.file.metadata()?.len();
            self.rewrite_at = WORTH_REWRITING.max(2 * self.bytes);
        }
        Ok(())
    }
}

/// Writes a new log with the open reports and puts it in the place of the old one.
fn fresh(path: &Path, durability: Durability, open: &Open) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut encoded = MAGIC.to_vec();
    for commit in open.reports() {
        Record::Report(commit.clone()).encode(&mut encoded);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&encoded)?;
    // An empty log that a power cut takes is an empty log; and what replaces one with reports must be whole before.
    if durability == Durability::Power || !open.is_empty() {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    if durability == Durability::Power
        && let Some(dir) = path.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

/// The thread: batches in, progress out, until the channel is closed and empty.
pub(super) fn run(
    mut log: Log,
    batches_rx: &flume::Receiver<Vec<Record>>,
    patience_rx: &flume::Receiver<Infallible>,
    progress_tx: &watch::Sender<Progress>,
) {
    let mut encoded = Vec::new();
    while let Ok(first) = batches_rx.recv() {
        encoded.clear();
        let mut records = 0;
        for record in std::iter::once(first)
            .chain(batches_rx.try_iter())
            .flatten()
        {
            record.encode(&mut encoded);
            log.open.apply(record);
            records += 1;
        }
        if !write_until_done(&mut log, &encoded, patience_rx, progress_tx) {
            return;
        }
        if let Err(error) = log.tidy() {
            tracing::warn!(%error, file = %log.path.display(), "the spool could not be shortened");
        }
        progress_tx.send_modify(|progress| {
            progress.written += records;
            progress.bytes = log.bytes;
            progress.failing = None;
        });
    }
    // The last chance: what was acknowledged and not committed shall survive the power as well, whatever was promised.
    if !log.open.is_empty() {
        let _ = log.file.sync_data();
    }
}

/// False when the manager gave up before the disk did.
fn write_until_done(
    log: &mut Log,
    encoded: &[u8],
    patience_rx: &flume::Receiver<Infallible>,
    progress_tx: &watch::Sender<Progress>,
) -> bool {
    let mut told = false;
    while let Err(error) = log.write(encoded) {
        if !std::mem::replace(&mut told, true) {
            tracing::error!(%error, file = %log.path.display(), "the spool cannot be written; trying again until it can");
        }
        let what = format!("`{}`", log.path.display());
        let failing = Unwritable::of(&what, &error);
        progress_tx.send_if_modified(|progress| {
            let news = progress.failing.as_ref() != Some(&failing);
            progress.failing = Some(failing);
            news
        });
        // Batches wait in their channel until this one is written.
        if patience_rx.recv_timeout(RETRY) == Err(flume::RecvTimeoutError::Disconnected) {
            return false;
        }
    }
    if told {
        tracing::info!(file = %log.path.display(), "the spool can be written again");
    }
    true
}

/// Reads a whole log for a test or a tool.
#[cfg(test)]
pub(super) fn read_file(path: &Path) -> io::Result<Recovered> {
    Ok(read(&fs::read(path)?))
}
