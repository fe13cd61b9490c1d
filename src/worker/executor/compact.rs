//! Keeping an output file within its limit: head and tail stay, the middle goes.
//!
//! While the task runs, [`punch`] gives the blocks of the middle back to the file system; offsets do not change, so
//! the writers in append mode notice nothing. After the end, [`compact`] moves the tail down behind a marker line. Where
//! the file system cannot punch holes only the second step happens.
//!
//! ```text
//!   0      head                      from           size
//!   |-------|........ dropped ........|------tail-----|        while it runs
//!   |-------|[mitosis: N bytes dropped]|------tail-----|       after the end
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::protocol::output::{Split, dropped_line};

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

/// Cuts a file of `size` bytes down to `limit` bytes, marker line included, and returns its new size.
///
/// A limit too small for the marker line still gets one, because a cut that is not seen is worse than some bytes
/// more. The file must not be open in append mode here.
pub(super) fn compact(file: &File, size: u64, limit: u64) -> io::Result<u64> {
    let Split { head, tail } = Split::of(limit);
    // The number in the marker depends on the length of the tail, which depends on the length of the marker: room is
    // made for the longest it can be.
    let longest = marker(file, head, size)?.len() as u64;
    let tail = tail.saturating_sub(longest);
    let line = marker(file, head, size - head - tail)?;
    file.write_all_at(line.as_bytes(), head)?;
    let end = head + line.len() as u64;
    move_down(file, size - tail, end, tail)?;
    file.set_len(end + tail)?;
    Ok(end + tail)
}

fn marker(file: &File, head: u64, dropped: u64) -> io::Result<String> {
    let mut last = [b'\n'];
    if let Some(at) = head.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    let lead = if last == *b"\n" { "" } else { "\n" };
    Ok(format!("{lead}{}", dropped_line(dropped)))
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

    fn compacted(content: &[u8], limit: u64) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let size = compact(&file, content.len() as u64, limit).unwrap();
        let mut kept = vec![0; usize::try_from(size).unwrap()];
        file.read_exact_at(&mut kept, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        kept
    }

    #[test]
    fn the_marker_stands_on_a_line_of_its_own() {
        let text = "0123456789\n".repeat(100);
        let kept = String::from_utf8(compacted(text.as_bytes(), 120)).unwrap();
        assert_eq!(
            kept.lines()
                .filter(|line| line.starts_with("[mitosis: "))
                .count(),
            1
        );
        assert!(kept.starts_with("0123456789\n") && kept.ends_with("0123456789\n"));
    }

    #[test]
    fn a_small_excess_over_a_limit_is_cut_too() {
        let kept = compacted(&[b'x'; 101], 100);
        assert!(kept.len() <= 100, "{}", kept.len());
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
        fn head_and_tail_are_the_tasks_own_bytes_and_the_count_is_right(
            content in proptest::collection::vec(any::<u8>(), 1..3000),
            limit in 0..3000u64,
        ) {
            let size = content.len() as u64;
            prop_assume!(size > limit);
            let kept = compacted(&content, limit);
            let head = usize::try_from(limit / 2).unwrap();
            prop_assert_eq!(&kept[..head], &content[..head]);
            let rest = &kept[head..];
            let rest = rest.strip_prefix(b"\n").filter(|rest| rest.starts_with(b"[mitosis: ")).unwrap_or(rest);
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let line = std::str::from_utf8(&rest[..end]).unwrap();
            let dropped: usize = line
                .strip_prefix("[mitosis: ").unwrap()
                .strip_suffix(" bytes dropped]").unwrap()
                .parse().unwrap();
            let tail = &rest[end + 1..];
            prop_assert_eq!(tail, &content[content.len() - tail.len()..]);
            prop_assert_eq!(head + dropped + tail.len(), content.len());
            prop_assert!(kept.len() as u64 <= limit.max(limit / 2 + 40));
        }
    }
}
