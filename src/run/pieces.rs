//! The bytes of a list as they come: whole lines (or arguments that end with NUL), never more of them in memory than a
//! chunk.
//!
//! A file is read in chunks; of a pipe whatever is there is handed on, so that whoever reads sees the first lines of a list
//! whose end is not written yet. Nothing is parsed here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes of a chunk, unless a single piece has more.
const CHUNK: usize = 64 << 10;
/// A piece with more bytes than this has no end that anybody means: the longest spec is far shorter.
const LONGEST: usize = 64 << 20;
/// How long the first lines of a pipe are waited for to be all of it: what a script writes in one go is checked in one go.
const GATHERING: Duration = Duration::from_millis(20);

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    /// Here.
    Memory(Arc<[u8]>),
    /// In a file, from a place on and up to another.
    File {
        /// Read without moving its offset.
        file: Arc<File>,
        /// First byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// In a pipe; they can be read once.
    Stream(Arc<File>),
}

/// Whole pieces in chunks.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Bytes,
    end: u8,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to hold no end.
    scanned: usize,
    /// Bytes read so far.
    at: u64,
    begun: bool,
    over: bool,
}

impl Pieces {
    /// Pieces that each end with `end`; the last one may lack it.
    pub(super) fn new(bytes: Bytes, end: u8) -> Self {
        Self {
            bytes,
            end,
            buffer: Vec::new(),
            scanned: 0,
            at: 0,
            begun: false,
            over: false,
        }
    }

    /// Some whole pieces with their ends; `None` after the last. Waits for at least one.
    ///
    /// # Errors
    /// When nothing can be read, or a piece does not end.
    pub(super) fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let unseen = &self.buffer[self.scanned..];
            match unseen.iter().rposition(|byte| *byte == self.end) {
                Some(last) if self.buffer.len() >= CHUNK || self.over || !self.has_more()? => {
                    return Ok(Some(self.split(self.scanned + last + 1)));
                }
                Some(_) => {}
                None => self.scanned = self.buffer.len(),
            }
            if self.over {
                let rest = self.buffer.len();
                return Ok((rest > 0).then(|| self.split(rest)));
            }
            if self.buffer.len() > LONGEST {
                let problem = format!("a line has more than {} MiB", LONGEST >> 20);
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            self.read()?;
        }
    }

    fn split(&mut self, at: usize) -> Vec<u8> {
        self.begun = true;
        self.scanned = 0;
        let rest = self.buffer.split_off(at);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// True when a read returns at once.
    fn has_more(&self) -> io::Result<bool> {
        let Bytes::Stream(file) = &self.bytes else {
            return Ok(true);
        };
        let patience = if self.begun {
            Duration::ZERO
        } else {
            GATHERING
        };
        is_readable(file.as_fd(), patience)
    }

    fn read(&mut self) -> io::Result<()> {
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK, 0);
        let room = &mut self.buffer[old..];
        let read = loop {
            let read = match &mut self.bytes {
                Bytes::Memory(bytes) => {
                    let from = usize::try_from(self.at)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let count = room.len().min(bytes.len() - from);
                    room[..count].copy_from_slice(&bytes[from..from + count]);
                    Ok(count)
                }
                Bytes::File { file, from, to } => {
                    let at = *from + self.at;
                    let left = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX);
                    let count = room.len().min(left);
                    file.read_at(&mut room[..count], at)
                }
                Bytes::Stream(file) => rustix::io::read(&**file, &mut *room).map_err(Into::into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(old + count);
        self.over = read? == 0;
        self.at += count as u64;
        Ok(())
    }
}

/// True when a read would not wait longer than `patience`.
fn is_readable(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn chunks(bytes: Bytes) -> Vec<Vec<u8>> {
        let mut pieces = Pieces::new(bytes, b'\n');
        std::iter::from_fn(|| pieces.next_chunk().unwrap()).collect()
    }

    #[test]
    fn a_long_list_comes_in_chunks_of_whole_lines() {
        let text: String = (0..50_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        let text = format!("{text}the last has no end");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let to = text.len() as u64;
        let bytes = [
            Bytes::Memory(text.as_bytes().into()),
            Bytes::File {
                file: Arc::new(file),
                from: 0,
                to,
            },
        ];
        for bytes in bytes {
            let chunks = chunks(bytes);
            assert!(chunks.len() > 5, "{}", chunks.len());
            assert!(chunks.iter().all(|chunk| chunk.len() <= 2 * CHUNK));
            let (last, whole) = chunks.split_last().unwrap();
            assert!(whole.iter().all(|chunk| chunk.ends_with(b"\n")));
            assert_eq!(last, b"the last has no end");
            assert_eq!(chunks.concat(), text.as_bytes());
        }
    }

    #[test]
    fn what_a_pipe_holds_is_handed_on_before_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut pieces = Pieces::new(Bytes::Stream(Arc::new(file)), b'\n');
        writer.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(pieces.next_chunk().unwrap().unwrap(), b"one\ntwo\n");
        writer.write_all(b"ee\n").unwrap();
        assert_eq!(pieces.next_chunk().unwrap().unwrap(), b"three\n");
        drop(writer);
        assert_eq!(pieces.next_chunk().unwrap(), None);
    }

    #[test]
    fn a_piece_longer_than_a_chunk_is_whole_and_nothing_is_no_piece() {
        let long = vec![b'x'; 3 * CHUNK];
        assert_eq!(chunks(Bytes::Memory(long.clone().into())), [long]);
        assert_eq!(chunks(Bytes::Memory([].into())), Vec::<Vec<u8>>::new());
    }
}
