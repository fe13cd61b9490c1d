//! Which task of the store stands where in the input, and which of them have ended, in a few bytes per task.
//!
//! Tasks that were accepted one after the other from lines that follow each other are one run of numbers, whatever their
//! count; a task that breaks the row (a comment before it, an order that was changed) costs an entry. That it has ended is one
//! bit. Pure.

use std::collections::BTreeMap;

/// Tasks whose ends share a word list: 512 bytes of bits.
const CHUNK_BITS: i64 = 4096;
const WORD_BITS: u64 = 64;
/// Words of a chunk.
const WORDS: usize = 64;

/// Tasks with consecutive row ids on consecutive lines.
#[derive(Debug, Clone, Copy)]
struct Row {
    line: u64,
    len: u32,
}

/// A set of row ids.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    chunks: BTreeMap<i64, Box<[u64; WORDS]>>,
}

impl IdSet {
    /// Adds an id; false when it was there.
    pub(super) fn insert(&mut self, id: i64) -> bool {
        let chunk = self.chunks.entry(id.div_euclid(CHUNK_BITS));
        let words = chunk.or_insert_with(|| Box::new([0; WORDS]));
        let (word, mask) = place_of(id);
        let fresh = words[word] & mask == 0;
        words[word] |= mask;
        fresh
    }

    /// True for an id that was added.
    pub(super) fn contains(&self, id: i64) -> bool {
        let (word, mask) = place_of(id);
        let chunk = self.chunks.get(&id.div_euclid(CHUNK_BITS));
        chunk.is_some_and(|words| words[word] & mask != 0)
    }
}

/// Word and bit of an id in its chunk.
fn place_of(id: i64) -> (usize, u64) {
    let bit = id.rem_euclid(CHUNK_BITS).unsigned_abs();
    let word = usize::try_from(bit / WORD_BITS).expect("a chunk has a few words");
    (word, 1 << (bit % WORD_BITS))
}

/// Lines of tasks by row id.
#[derive(Debug, Default)]
pub(super) struct Places {
    rows: BTreeMap<i64, Row>,
    ended: IdSet,
}

impl Places {
    /// Adds a task. False when it is there already: then nothing changes.
    pub(super) fn add(&mut self, id: i64, line: u64) -> bool {
        if let Some((first, row)) = self.rows.range_mut(..=id).next_back() {
            let at = id - first;
            if at < i64::from(row.len) {
                return false;
            }
            let follows = at == i64::from(row.len) && row.line + u64::from(row.len) == line;
            if follows && row.len < u32::MAX {
                row.len += 1;
                return true;
            }
        }
        self.rows.insert(id, Row { line, len: 1 });
        true
    }

    /// The line of a task that was added.
    pub(super) fn line(&self, id: i64) -> Option<u64> {
        let (first, row) = self.rows.range(..=id).next_back()?;
        let at = id - first;
        (at < i64::from(row.len)).then(|| row.line + at.unsigned_abs())
    }

    /// The line of a task that is told to have ended, the first time that it is told.
    pub(super) fn end(&mut self, id: i64) -> Option<u64> {
        let line = self.line(id)?;
        self.ended.insert(id).then_some(line)
    }

    /// Rows of numbers in which the tasks are kept; what they cost.
    #[cfg(test)]
    fn rows(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_without_gaps_is_one_row_however_long_it_is() {
        let mut places = Places::default();
        for number in 0..10_000 {
            assert!(places.add(100 + number, 1 + number.unsigned_abs()));
        }
        assert_eq!(places.rows(), 1);
        assert!(!places.add(100, 7), "known");
        assert_eq!(
            (places.end(100 + 9_999), places.end(100 + 9_999)),
            (Some(10_000), None)
        );
        assert_eq!((places.end(99), places.end(10_100)), (None, None));
    }

    proptest! {
        #[test]
        fn every_task_has_its_line_and_ends_once(
            tasks in proptest::collection::vec((0..300i64, 0..300u64), 0..200),
            ends in proptest::collection::vec(0..300i64, 0..200),
        ) {
            let mut places = Places::default();
            let mut model: HashMap<i64, u64> = HashMap::new();
            for (id, line) in tasks {
                let fresh = !model.contains_key(&id);
                prop_assert_eq!(places.add(id, line), fresh);
                model.entry(id).or_insert(line);
            }
            for id in ends {
                prop_assert_eq!(places.end(id), model.remove(&id));
            }
        }
    }
}
