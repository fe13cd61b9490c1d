//! Whose output is next when outputs keep the order of the input.
//!
//! Pure: the session says which places are outstanding and which have ended with what is to be written; what has its
//! turn comes out. An output has its turn when no place before it is outstanding; follow-ups stand right after their
//! line. What waits here should be small: large things stay where they are kept and are named.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Place;

/// Ended tasks that wait for those before them.
#[derive(Debug)]
pub struct Turns<T> {
    outstanding: BTreeSet<Place>,
    waiting: BTreeMap<Place, T>,
}

impl<T> Turns<T> {
    /// Nothing has ended yet.
    #[must_use]
    pub fn new(outstanding: impl IntoIterator<Item = Place>) -> Self {
        Self {
            outstanding: outstanding.into_iter().collect(),
            waiting: BTreeMap::new(),
        }
    }

    /// One more task will end.
    pub fn expect(&mut self, place: Place) {
        self.outstanding.insert(place);
    }

    /// The task of this place has ended.
    pub fn ended(&mut self, place: Place, output: T) {
        self.outstanding.remove(&place);
        self.waiting.insert(place, output);
    }

    /// The next output that has its turn.
    pub fn next_due(&mut self) -> Option<T> {
        let (first, _) = self.waiting.first_key_value()?;
        let is_due = self.outstanding.first().is_none_or(|open| first < open);
        is_due.then(|| self.next_waiting()).flatten()
    }

    /// The next output whether it has its turn or not: for the end of a run, when what it waits for will not come.
    pub fn next_waiting(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, output)| output)
    }

    /// How many outputs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(turns: &mut Turns<u64>) -> Vec<u64> {
        std::iter::from_fn(|| turns.next_due()).collect()
    }

    #[test]
    fn an_output_waits_for_all_before_it() {
        let mut turns = Turns::new([1, 2, 3].map(Place::line));
        turns.ended(Place::line(2), 2);
        assert_eq!(due(&mut turns), Vec::<u64>::new());
        turns.ended(Place::line(1), 1);
        assert_eq!(due(&mut turns), [1, 2]);
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn follow_ups_stand_after_their_line_and_before_the_next() {
        let mut turns = Turns::new([1, 2].map(Place::line));
        let follow_up = Place {
            line: 1,
            follow_up: 1,
        };
        turns.expect(follow_up);
        turns.ended(Place::line(2), 2);
        turns.ended(Place::line(1), 1);
        assert_eq!(due(&mut turns), [1]);
        turns.ended(follow_up, 11);
        assert_eq!(due(&mut turns), [11, 2]);
    }

    #[test]
    fn what_waits_for_a_task_that_will_not_end_comes_at_the_end() {
        let mut turns = Turns::new([1, 2, 3].map(Place::line));
        turns.ended(Place::line(3), 3);
        turns.ended(Place::line(2), 2);
        assert_eq!(due(&mut turns), Vec::<u64>::new());
        let rest: Vec<u64> = std::iter::from_fn(|| turns.next_waiting()).collect();
        assert_eq!(rest, [2, 3]);
    }

    proptest! {
        #[test]
        fn in_whatever_order_tasks_end_their_outputs_come_in_the_order_of_lines(
            order in Just((1..40u64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let mut turns = Turns::new(order.iter().copied().map(Place::line));
            let mut written = Vec::new();
            for line in order {
                turns.ended(Place::line(line), line);
                written.extend(due(&mut turns));
            }
            prop_assert_eq!(written, (1..40).collect::<Vec<_>>());
        }
    }
}
