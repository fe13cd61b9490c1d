//! The payload of a fetch answer that stays in shared memory: several replies behind each other.
//!
//! ```text
//!   key: u64 | word: u16 | reserved: u16 | length: u32 | bytes        little endian, once per reply
//! ```
//!
//! Written by the server's poller, read by the client's. Decoding takes any bytes and never reaches beyond them. A reply
//! whose bytes lie in a file is alone in its answer and does not go through here.

use bytes::Bytes;

use crate::status::Word;

/// Bytes in front of each reply.
pub(crate) const ENTRY: usize = 16;

/// One reply of a fetch answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// Names the hand-over; see [`crate::PreparedReply`].
    pub key: u64,
    /// Where its state word is, for whoever begins it.
    pub word: Word,
    /// What the manager prepared.
    pub payload: Bytes,
}

/// Appends one reply.
pub(crate) fn append(answer: &mut Vec<u8>, key: u64, word: Word, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a reply in shared memory is short");
    answer.extend_from_slice(&key.to_le_bytes());
    answer.extend_from_slice(&word.0.to_le_bytes());
    answer.extend_from_slice(&[0; 2]);
    answer.extend_from_slice(&length.to_le_bytes());
    answer.extend_from_slice(payload);
}

/// Takes an answer apart; `None` when it is no sequence of whole replies, or is empty.
pub(crate) fn split(answer: &Bytes) -> Option<Vec<Dispatch>> {
    let mut replies = Vec::new();
    let mut at = 0;
    while at < answer.len() {
        let (key, rest) = answer[at..].split_first_chunk::<8>()?;
        let (word, rest) = rest.split_first_chunk::<2>()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if length > rest.len() {
            return None;
        }
        let from = at + ENTRY;
        replies.push(Dispatch {
            key: u64::from_le_bytes(*key),
            word: Word(u16::from_le_bytes(*word)),
            payload: answer.slice(from..from + length),
        });
        at = from + length;
    }
    (!replies.is_empty()).then_some(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_appended_is_split_again(
            replies in proptest::collection::vec((any::<u64>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..50)), 1..9),
        ) {
            let mut answer = Vec::new();
            for (key, word, payload) in &replies {
                append(&mut answer, *key, Word(*word), payload);
            }
            let split = split(&Bytes::from(answer)).unwrap();
            let back: Vec<_> = split.into_iter().map(|one| (one.key, one.word.0, one.payload.to_vec())).collect();
            prop_assert_eq!(back, replies);
        }

        #[test]
        fn any_bytes_are_split_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let length = bytes.len();
            let replies = split(&Bytes::from(bytes)).unwrap_or_default();
            let total: usize = replies.iter().map(|one| one.payload.len() + ENTRY).sum();
            prop_assert!(replies.is_empty() || total == length);
        }
    }
}
