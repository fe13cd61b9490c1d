//! The state words of dispatches: who begins a task that lies in a worker, decided without a round trip.
//!
//! ```text
//!            hand (poller)            begin (worker)
//!   free ------------------> handed ----------------> started --- clear (worker) ---> free
//!                               |
//!                               | withdraw (manager)
//!                               v
//!                           withdrawn ---------------- clear (worker) -------------> free
//! ```
//!
//! A word holds the key of its hand-over beside its state, so a late look at a word that serves another by now finds
//! nothing. Out of `handed` there are two ways, both by compare-and-swap: whoever loses knows it. Only the poller takes
//! a free word, only the worker frees one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one worker: more than it may hold unbegun and begun at once.
pub(crate) const WORDS: usize = 64;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const HANDED: u64 = 1;
const STARTED: u64 = 2;
const WITHDRAWN: u64 = 3;

/// Where the state word of a dispatch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(pub(crate) u16);

impl Word {
    /// The dispatch has no word: it cannot be withdrawn, whoever has it begins it.
    pub const NONE: Self = Self(u16::MAX);
}

/// What came of taking a dispatch back from the worker that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It was not begun and will not be.
    Withdrawn,
    /// The worker began it, or is through with it.
    Begun,
}

fn pack(key: u64, state: u64) -> u64 {
    key << STATE_BITS | state
}

/// The words of one worker.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Words([AtomicU64; WORDS]);

impl Default for Words {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Words {
    /// Takes a free word for a hand-over. One caller: the server's poller.
    pub(super) fn hand(&self, key: u64) -> Word {
        let handed = pack(key, HANDED);
        for (index, word) in self.0.iter().enumerate() {
            let taken = word.compare_exchange(0, handed, Ordering::SeqCst, Ordering::Relaxed);
            if taken.is_ok() {
                return Word(u16::try_from(index).expect("there are few words"));
            }
        }
        Word::NONE
    }

    /// The word of a hand-over that was made before.
    pub(super) fn find(&self, key: u64) -> Word {
        let same = |word: &AtomicU64| {
            let value = word.load(Ordering::Relaxed);
            value != 0 && value >> STATE_BITS == key
        };
        let index = self.0.iter().position(same);
        index.map_or(Word::NONE, |index| {
            Word(u16::try_from(index).expect("there are few words"))
        })
    }

    fn leave_handed(&self, at: Word, key: u64, state: u64) -> bool {
        let Some(word) = self.0.get(usize::from(at.0)) else {
            return false;
        };
        let (from, to) = (pack(key, HANDED), pack(key, state));
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn withdraw(&self, key: u64) -> Revocation {
        if self.leave_handed(self.find(key), key, WITHDRAWN) {
            Revocation::Withdrawn
        } else {
            Revocation::Begun
        }
    }

    pub(super) fn begin(&self, at: Word, key: u64) -> bool {
        at == Word::NONE || self.leave_handed(at, key, STARTED)
    }

    pub(super) fn clear(&self, at: Word, key: u64) {
        if let Some(word) = self.0.get(usize::from(at.0)) {
            let value = word.load(Ordering::Relaxed);
            // Only a word that nobody else may change any more is freed.
            if value >> STATE_BITS == key && value & STATE_MASK != HANDED {
                word.store(0, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn what_is_begun_cannot_be_withdrawn_and_the_other_way_round() {
        let words = Words::default();
        let (one, two) = (words.hand(7), words.hand(8));
        assert!(words.begin(one, 7));
        assert_eq!(words.withdraw(7), Revocation::Begun);
        assert_eq!(words.withdraw(8), Revocation::Withdrawn);
        assert!(!words.begin(two, 8));
        assert_eq!(words.withdraw(9), Revocation::Begun, "nobody has it");
    }

    #[test]
    fn a_word_serves_again_once_its_worker_is_through() {
        let words = Words::default();
        let one = words.hand(7);
        words.clear(one, 7);
        assert_eq!(words.find(7), one, "nobody began or withdrew it");
        assert!(words.begin(one, 7));
        words.clear(one, 8);
        assert_eq!(words.find(7), one, "another hand-over's");
        words.clear(one, 7);
        assert_eq!(words.find(7), Word::NONE);
        assert_eq!(words.hand(9), one);
    }

    #[test]
    fn without_a_free_word_a_dispatch_cannot_be_withdrawn() {
        let words = Words::default();
        for key in 1..=64 {
            assert_ne!(words.hand(key), Word::NONE);
        }
        let none = words.hand(65);
        assert_eq!(none, Word::NONE);
        assert!(words.begin(none, 65));
        words.clear(none, 65);
        assert_eq!(words.withdraw(65), Revocation::Begun);
        assert!(!words.begin(Word(999), 65), "no such word");
    }

    #[test]
    fn of_two_who_want_a_dispatch_at_once_one_gets_it() {
        let words = Arc::new(Words::default());
        let began = Arc::new(AtomicUsize::new(0));
        let keys = 1..=10_000_u64;
        let worker = std::thread::Builder::new().spawn({
            let (words, began, keys) = (Arc::clone(&words), Arc::clone(&began), keys.clone());
            move || {
                for key in keys {
                    let word = words.hand(key);
                    std::thread::yield_now();
                    if words.begin(word, key) {
                        began.fetch_add(1, Ordering::Relaxed);
                    }
                    words.clear(word, key);
                }
            }
        });
        let worker = worker.unwrap();
        let mut withdrawn = 0;
        for key in keys.clone() {
            while words.find(key) == Word::NONE && !worker.is_finished() {
                if words.0[0].load(Ordering::Relaxed) >> STATE_BITS > key {
                    break;
                }
                std::hint::spin_loop();
            }
            withdrawn += usize::from(words.withdraw(key) == Revocation::Withdrawn);
        }
        worker.join().unwrap();
        assert_eq!(began.load(Ordering::Relaxed) + withdrawn, keys.count());
    }
}
