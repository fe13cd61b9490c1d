//! The board: one shared record per manager with its doorbell bitmap and the gate of everything it runs.
//!
//! Created by the server, inherited by every worker. A worker that has sent something sets the bit of its slot; the
//! server's poller takes the bits and looks at those ports alone, instead of scanning all. See [`crate::doorbell`] for the
//! order of steps that makes this safe against a lost wake-up.
#![expect(
    unsafe_code,
    reason = "promises that the layout may live in shared memory"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::ids::{LocalId, MAX_WORKERS};
use crate::map::{SharedLayout, SharedMap};

const WORD_BITS: usize = 64;
const WORDS: usize = MAX_WORKERS as usize / WORD_BITS;
const BOARD_VERSION: u32 = 3;

#[derive(Debug, Default)]
#[repr(C)]
struct BoardLayout {
    version: AtomicU32,
    /// 1 while the manager's poller is about to block or blocked; whoever swaps it to 0 rings the doorbell.
    asleep: AtomicU32,
    bits: [AtomicU64; WORDS],
    /// Causes for which nothing may be begun, see [`crate::gate`].
    gate: AtomicU32,
    /// Milliseconds that workers and tasks were stopped on purpose, all together.
    stood_still_ms: AtomicU32,
    /// Ends that count for the gate: failed, completed.
    ends: [AtomicU32; 2],
    /// Nanoseconds of the monotonic clock before which nothing more is begun, where beginnings are kept apart.
    next_start: AtomicU64,
}

// SAFETY: `repr(C)`, only atomics, no padding (4 + 4 + 32 + 16 + 8 bytes), no drop, any bit pattern is a value.
unsafe impl SharedLayout for BoardLayout {
    const NAME: &'static str = "mitosis-board";
}

/// Access to the board, the same for both sides; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    map: Arc<SharedMap<BoardLayout>>,
}

impl Board {
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (map, fd) = SharedMap::<BoardLayout>::create()?;
        map.version.store(BOARD_VERSION, Ordering::Relaxed);
        Ok((Self { map: Arc::new(map) }, fd))
    }

    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        let map = SharedMap::<BoardLayout>::open(fd)?;
        if map.version.load(Ordering::Relaxed) != BOARD_VERSION {
            let words = "the inherited board has another version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        Ok(Self { map: Arc::new(map) })
    }

    /// A descriptor of the same board for one more worker.
    pub(crate) fn share(fd: &impl AsFd) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)
    }

    pub(crate) fn asleep(&self) -> &AtomicU32 {
        &self.map.asleep
    }

    pub(crate) fn gate(&self) -> &AtomicU32 {
        &self.map.gate
    }

    pub(crate) fn next_start(&self) -> &AtomicU64 {
        &self.map.next_start
    }

    pub(crate) fn stood_still_ms(&self) -> &AtomicU32 {
        &self.map.stood_still_ms
    }

    pub(crate) fn ends(&self) -> &[AtomicU32; 2] {
        &self.map.ends
    }

    /// Says that the worker in this slot has sent something.
    pub(crate) fn raise(&self, local_id: LocalId) {
        let index = local_id.index();
        self.map.bits[index / WORD_BITS].fetch_or(1 << (index % WORD_BITS), Ordering::SeqCst);
    }

    /// Whether any slot has something to say.
    pub(crate) fn any(&self) -> bool {
        self.map
            .bits
            .iter()
            .any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Takes all bits; calls `visit` for each slot that had one.
    pub(crate) fn take(&self, mut visit: impl FnMut(LocalId)) {
        for (word_index, word) in self.map.bits.iter().enumerate() {
            // An idle board costs four plain loads; only a word with bits is swapped.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let index = word_index * WORD_BITS + bit;
                visit(LocalId(
                    u8::try_from(index).expect("the board has 256 bits"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_bit_of_its_own_and_bits_are_taken_once() {
        let (ours, fd) = Board::create().unwrap();
        let theirs = Board::open(Board::share(&fd).unwrap()).unwrap();
        let raised = [0_u8, 1, 63, 64, 200, 255];
        for id in raised {
            theirs.raise(LocalId(id));
            theirs.raise(LocalId(id));
        }
        assert!(ours.any());
        let mut seen = Vec::new();
        ours.take(|id| seen.push(id.0));
        assert_eq!(seen, raised);
        assert!(!ours.any());
        ours.take(|_| panic!("the bits were taken"));
    }
}
