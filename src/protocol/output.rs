//! The output of a task: how it is cut to its limit, and how a part of it is asked for while the task runs.
//!
//! Offsets always count the bytes that the task wrote to a stream, from 0, whatever was dropped since. One execution
//! writes one such sequence per stream, so a part is named by execution, stream and offset.
//!
//! ```text
//!   0      head                         size - tail     size
//!   |-------|.......... may be gone ..........|------------|
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::report::Gap;
use super::session::HeldLease;

/// Most bytes of one part.
pub const MAX_PART_BYTES: u32 = 64 << 10;

/// One of the two streams of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The word used in the API, and the name of the stream's file in a worker's slot.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Asks for a part of the output of a running task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRequest {
    /// The task, under the lease of whoever is asked.
    pub lease: HeldLease,
    /// Which stream.
    pub stream: LogStream,
    /// The execution whose output was read so far; 0 when none was. Of another one the beginning is sent.
    pub attempt: u32,
    /// Where to go on.
    pub offset: u64,
}

/// What a manager answers to a [`PartRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartAnswer {
    /// A part, possibly an empty one: the task has written nothing beyond the offset.
    Part(OutputPart),
    /// The task is here, but does not run yet or any more; ask again.
    NotNow,
    /// The manager does not hold this lease; ask the store who does.
    NotHere,
}

/// Some bytes that a running task wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPart {
    /// The execution that wrote them.
    pub attempt: u32,
    /// Offset of the first of them; beyond the one that was asked for when what is between is gone.
    pub offset: u64,
    /// At most [`MAX_PART_BYTES`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// How a task stands whose output is read part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has not begun, or not begun again.
    Waiting,
    /// It runs.
    Running,
    /// Its manager cannot be reached now.
    Away,
    /// It has ended, and the part is the last.
    Ended,
}

impl Progress {
    const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Away, Self::Ended];

    /// The word used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Away => "away",
            Self::Ended => "ended",
        }
    }

    /// The progress with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// The parts of a long output that are kept at a limit: its first `head` and its last `tail` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Bytes kept of the beginning.
    pub head: u64,
    /// Bytes kept of the end.
    pub tail: u64,
}

impl Split {
    /// How a limit is divided.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let head = limit / 2;
        let tail = limit - head;
        Self { head, tail }
    }

    /// The first offset from `offset` on whose bytes are certainly still there when the output has `size` bytes.
    #[must_use]
    pub fn kept_from(self, offset: u64, size: u64) -> u64 {
        if offset < self.head {
            return offset;
        }
        offset.max(size.saturating_sub(self.tail))
    }

    /// How many bytes from `offset` on are certainly there and belong together, when the output has `size` bytes.
    #[must_use]
    pub fn run_from(self, offset: u64, size: u64) -> u64 {
        let is_cut = size > self.head + self.tail;
        let end = if offset < self.head && is_cut {
            self.head
        } else {
            size
        };
        end.saturating_sub(offset)
    }
}

/// What people are told about bytes that were dropped. It never stands among the bytes of a task.
#[must_use]
pub fn dropped_words(stream: LogStream, gap: Gap) -> String {
    format!(
        "mitosis: {} bytes of its {} are not kept, from byte {} on: more than its capture limit",
        gap.bytes,
        stream.as_str(),
        gap.offset,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn within_the_limit_everything_is_there() {
        let split = Split::of(10);
        assert_eq!((split.head, split.tail), (5, 5));
        for offset in 0..=10 {
            assert_eq!(split.kept_from(offset, 10), offset);
            assert_eq!(split.run_from(offset, 10), 10 - offset);
        }
    }

    #[test]
    fn beyond_the_limit_a_reader_in_the_middle_goes_on_at_the_tail() {
        let split = Split::of(10);
        assert_eq!((split.kept_from(3, 100), split.run_from(3, 100)), (3, 2));
        assert_eq!((split.kept_from(5, 100), split.run_from(95, 100)), (95, 5));
        assert_eq!(split.kept_from(97, 100), 97);
        assert_eq!(split.run_from(120, 100), 0);
    }

    proptest! {
        /// Reading with these two rules gives only bytes that head and tail keep, each once and in order.
        #[test]
        fn no_byte_of_the_dropped_middle_is_ever_read(limit in 0..200u64, sizes in prop::collection::vec(0..50u64, 1..40)) {
            let split = Split::of(limit);
            let (mut size, mut at) = (0, 0);
            for more in sizes {
                size += more;
                let from = split.kept_from(at, size);
                let run = split.run_from(from, size);
                prop_assert!(from >= at && from + run <= size.max(from));
                for byte in from..from + run {
                    prop_assert!(byte < split.head || byte + split.tail >= size);
                }
                at = from + run;
            }
        }
    }
}
