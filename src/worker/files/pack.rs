//! Packs a directory that a task left into one `tar.zst`, entry by entry and without following a link.
//!
//! Regular files, directories and symbolic links (as links) are taken. Devices, pipes, sockets and what cannot be read
//! are left out and named in the notes: whatever a task leaves is no reason to fail. Blocks for as long as the files
//! take, so it belongs on a thread for that; a flag stops it between two reads.
//!
//! The task's processes are gone by now. Should one be left that cannot be killed, the worst it can do is what it
//! could do itself: files are opened without following a link and without waiting for a writer.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ring::digest::{Context, SHA256};
use tar::{Builder, EntryType, Header, HeaderMode};

use crate::protocol::signed_url::hex;

/// Compression level: the library's default is 3; below it compression is faster than most disks.
const LEVEL: i32 = 1;
/// Entries that are left out and named; the rest is counted.
const NAMED: usize = 3;

/// A packed directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Size of the archive.
    pub size_bytes: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// What was left out, in words.
    pub left_out: Option<String>,
}

/// Why a directory could not be packed. No archive is left.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its files are larger than allowed.
    #[error("they are larger than {limit} bytes")]
    TooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// It was told to stop.
    #[error("there was no time for it")]
    Stopped,
    /// The disk is full, or something else refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Packs what is below `root` into the new file `target`, which is complete or not there.
///
/// # Errors
/// When the files are larger than `limit`, `stop` is set, or the archive cannot be written.
pub fn pack(
    root: &Path,
    target: &Path,
    limit: u64,
    stop: &AtomicBool,
) -> Result<Packed, PackError> {
    let part = target.with_extension("part");
    let packed = Packing::begin(&part, limit, stop).and_then(|packing| packing.run(root));
    let kept = packed.and_then(|packed| Ok(std::fs::rename(&part, target).map(|()| packed)?));
    if kept.is_err() {
        // It may not be there at all; the slot's next life removes what is left.
        let _ = std::fs::remove_file(&part);
    }
    kept
}

/// SHA-256 of a file in hex, and its size.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut sink = Digesting::new(io::sink());
    let size = io::copy(&mut File::open(path)?, &mut sink)?;
    Ok((size, hex(sink.context.finish().as_ref())))
}

type Sink = zstd::Encoder<'static, Digesting<BufWriter<File>>>;

struct Packing<'a> {
    archive: Builder<Sink>,
    left: u64,
    limit: u64,
    stop: &'a AtomicBool,
    left_out: LeftOut,
}

impl<'a> Packing<'a> {
    fn begin(part: &Path, limit: u64, stop: &'a AtomicBool) -> Result<Self, PackError> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(part)?;
        let sink = zstd::Encoder::new(Digesting::new(BufWriter::new(file)), LEVEL)?;
        Ok(Self {
            archive: Builder::new(sink),
            left: limit,
            limit,
            stop,
            left_out: LeftOut::default(),
        })
    }

    fn run(mut self, root: &Path) -> Result<Packed, PackError> {
        // Directories that are still to be read, relative to the root.
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            for name in self.names(root, &directory)? {
                let path = directory.join(name);
                if self.entry(root, &path)? {
                    waiting.push(path);
                }
            }
        }
        let digesting = self.archive.into_inner()?.finish()?;
        let mut file = digesting.inner;
        file.flush()?;
        Ok(Packed {
            size_bytes: digesting.written,
            sha256: hex(digesting.context.finish().as_ref()),
            left_out: self.left_out.words(),
        })
    }

    /// The names in a directory, in order, so that the same files make the same archive.
    fn names(
        &mut self,
        root: &Path,
        directory: &Path,
    ) -> Result<Vec<std::ffi::OsString>, PackError> {
        let listed = std::fs::read_dir(root.join(directory)).and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        match listed {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) => {
                self.left_out.add(directory, &error.to_string());
                Ok(Vec::new())
            }
        }
    }

    /// Takes one entry; true when it is a directory, whose entries are to follow.
    fn entry(&mut self, root: &Path, path: &Path) -> Result<bool, PackError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(PackError::Stopped);
        }
        let whole = root.join(path);
        let meta = match std::fs::symlink_metadata(&whole) {
            Ok(meta) => meta,
            Err(error) => {
                self.left_out.add(path, &error.to_string());
                return Ok(false);
            }
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut header = header(&meta, EntryType::Directory, 0);
            self.archive.append_data(&mut header, path, io::empty())?;
            return Ok(true);
        }
        if kind.is_file() {
            self.file(&whole, path)?;
        } else if kind.is_symlink() {
            match std::fs::read_link(&whole) {
                Ok(to) => {
                    let mut header = header(&meta, EntryType::Symlink, 0);
                    self.archive.append_link(&mut header, path, to)?;
                }
                Err(error) => self.left_out.add(path, &error.to_string()),
            }
        } else {
            self.left_out.add(path, special(&meta));
        }
        Ok(false)
    }

    fn file(&mut self, whole: &Path, path: &Path) -> Result<(), PackError> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(whole)
            .and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = match opened {
            Ok((meta, file)) if meta.is_file() => (meta, file),
            Ok((meta, _)) => {
                self.left_out.add(path, special(&meta));
                return Ok(());
            }
            Err(error) => {
                self.left_out.add(path, &error.to_string());
                return Ok(());
            }
        };
        let size = meta.len();
        let limit = self.limit;
        self.left = self
            .left
            .checked_sub(size)
            .ok_or(PackError::TooLarge { limit })?;
        let mut header = header(&meta, EntryType::Regular, size);
        let watched = Watched {
            file,
            stop: self.stop,
        };
        // The header promises a size; a file that is shorter by now is filled up, one that grew is cut.
        let content = watched.chain(io::repeat(0)).take(size);
        let appended = self.archive.append_data(&mut header, path, content);
        match appended {
            Err(_) if self.stop.load(Ordering::Relaxed) => Err(PackError::Stopped),
            appended => Ok(appended?),
        }
    }
}

/// What is special about an entry that is neither file nor directory nor link.
fn special(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Name, mode and time of an entry; whose it was is nobody's business elsewhere.
fn header(meta: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(meta, HeaderMode::Complete);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

/// Entries that are not in the archive.
#[derive(Debug, Default)]
struct LeftOut {
    named: Vec<String>,
    more: u64,
}

impl LeftOut {
    fn add(&mut self, path: &Path, why: &str) {
        if self.named.len() == NAMED {
            self.more += 1;
            return;
        }
        let name = if path.as_os_str().is_empty() {
            OsStr::new(".")
        } else {
            path.as_os_str()
        };
        let name = name.to_string_lossy();
        self.named
            .push(format!("`{}` ({why})", name.escape_debug()));
    }

    fn words(self) -> Option<String> {
        if self.named.is_empty() {
            return None;
        }
        let mut text = format!("left out: {}", self.named.join(", "));
        if self.more > 0 {
            text.push_str(&format!(" and {} more", self.more));
        }
        Some(text)
    }
}

/// Ends the reading when the flag is set.
struct Watched<'a> {
    file: File,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

/// Counts and digests what is written.
struct Digesting<W> {
    inner: W,
    context: Context,
    written: u64,
}

impl<W> Digesting<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
            written: 0,
        }
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
