//! Keeping an output file within its limit: head and tail stay, the middle goes.
//!
//! While the task runs, [`punch`] gives the blocks of the middle back to the file system; offsets do not change. After the
//! end, [`compact`] moves the tail down behind the head. Nothing is put between them: the file has the task's bytes and
//! no others, and the gap is told beside it. Where the file system cannot punch holes only the second step happens.
//!
//! ```text
//!   0      head                      from           size
//!   |-------|........ dropped ........|------tail-----|        while it runs
//!   |-------|------tail-----|                                  after the end, with a gap at `head`
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::protocol::output::Split;
use crate::protocol::report::Gap;

/// Least length worth a system call; smaller pieces wait for the next look.
const WORTH_PUNCHING: u64 = 64 << 10;
const CHUNK: usize = 128 << 10;

/// Whether a file system gives back the middle of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Punching {
    /// It did or may.
    Possible,
    /// It said that it cannot.
    Unsupported,
}

/// The part of a growing file of `size` bytes that is not needed any more, `punched` bytes of it being gone already.
/// Empty when there is too little of it.
pub(super) fn droppable(size: u64, punched: u64, limit: u64) -> Range<u64> {
    let Split { head, tail } = Split::of(limit);
    let range = punched.max(head)..size.saturating_sub(tail);
    if range.end < range.start + WORTH_PUNCHING {
        return range.start..range.start;
    }
    range
}

/// Frees the blocks of `range`; it reads as zeroes afterwards.
pub(super) fn punch(file: &File, range: &Range<u64>) -> io::Result<Punching> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, range.start, range.end - range.start) {
        Ok(()) => Ok(Punching::Possible),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Punching::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// Cuts a file of `size` bytes down to `limit` bytes and says what is gone.
pub(super) fn compact(file: &File, size: u64, limit: u64) -> io::Result<Gap> {
    let Split { head, tail } = Split::of(limit);
    move_down(file, size - tail, head, tail)?;
    file.set_len(limit)?;
    Ok(Gap {
        offset: head,
        bytes: size - limit,
    })
}

/// Copies `len` bytes from `from` to `to`, which is not after `from`; the ranges may overlap.
fn move_down(file: &File, from: u64, to: u64, len: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).map_or(CHUNK, |left| left.min(CHUNK));
        let part = &mut chunk[..wanted];
        file.read_exact_at(part, from + done)?;
        file.write_all_at(part, to + done)?;
        done += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compacted(content: &[u8], limit: u64) -> (Vec<u8>, Gap) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let gap = compact(&file, content.len() as u64, limit).unwrap();
        let size = file.metadata().unwrap().len();
        let mut kept = vec![0; usize::try_from(size).unwrap()];
        file.read_exact_at(&mut kept, 0).unwrap();
        (kept, gap)
    }

    #[test]
    fn nothing_is_punched_for_a_few_bytes_or_twice() {
        assert!(droppable(1000, 0, 100).is_empty());
        assert_eq!(droppable(1 << 20, 0, 1000), 500..(1 << 20) - 500);
        assert!(droppable(1 << 20, (1 << 20) - 500, 1000).is_empty());
        assert!(droppable(10, 0, 1 << 20).is_empty());
    }

    proptest! {
        #[test]
        fn head_and_tail_are_the_tasks_own_bytes_and_the_gap_is_what_is_between(
            content in proptest::collection::vec(any::<u8>(), 1..3000),
            limit in 0..3000u64,
        ) {
            let size = content.len() as u64;
            prop_assume!(size > limit);
            let (kept, gap) = compacted(&content, limit);
            let (head, gone) = (usize::try_from(gap.offset).unwrap(), usize::try_from(gap.bytes).unwrap());
            prop_assert_eq!(kept.len() as u64, limit);
            prop_assert_eq!(&kept[..head], &content[..head]);
            prop_assert_eq!(&kept[head..], &content[head + gone..]);
        }
    }
}
