//! Outputs in the order of the input: which of them may be written now.
//!
//! Pure: it holds places and whatever stands for an output, and says what is due. An output is due when every task
//! before it has ended; a follow-up stands behind its line and before the next one. Lines that follow each other are kept
//! as one row, so a list that waits costs nothing per line; what has ended out of turn costs an entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ledger::Place;

/// Ended tasks that wait for those before them.
#[derive(Debug)]
pub struct Turns<T> {
    /// Lines that have not been written, ascending: first and last of each row.
    lines: VecDeque<(u64, u64)>,
    /// Other tasks that have not ended.
    outstanding: BTreeSet<Place>,
    waiting: BTreeMap<Place, T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            outstanding: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Turns<T> {
    /// One more task will end.
    pub fn expect(&mut self, place: Place) {
        match self.lines.back_mut() {
            _ if place.follow_up > 0 => {
                self.outstanding.insert(place);
            }
            Some((_, last)) if place.line == *last + 1 => *last = place.line,
            Some((_, last)) if place.line <= *last => {
                self.outstanding.insert(place);
            }
            _ => self.lines.push_back((place.line, place.line)),
        }
    }

    /// The task of this place has ended.
    pub fn ended(&mut self, place: Place, output: T) {
        self.outstanding.remove(&place);
        self.waiting.insert(place, output);
    }

    /// The next output that has its turn.
    pub fn next_due(&mut self) -> Option<T> {
        let first = *self.waiting.first_key_value()?.0;
        if self.outstanding.first().is_some_and(|open| *open < first) {
            return None;
        }
        match self.lines.front_mut() {
            Some((line, _)) if Place::line(*line) < first => None,
            Some((line, last)) => {
                if Place::line(*line) == first {
                    *line += 1;
                    if line > last {
                        self.lines.pop_front();
                    }
                }
                self.next_waiting()
            }
            None => self.next_waiting(),
        }
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

    fn turns(lines: impl IntoIterator<Item = u64>) -> Turns<u64> {
        let mut turns = Turns::default();
        lines
            .into_iter()
            .for_each(|line| turns.expect(Place::line(line)));
        turns
    }

    fn due(turns: &mut Turns<u64>) -> Vec<u64> {
        std::iter::from_fn(|| turns.next_due()).collect()
    }

    #[test]
    fn an_output_waits_for_all_before_it() {
        let mut turns = turns([1, 2, 3]);
        turns.ended(Place::line(2), 2);
        assert_eq!(due(&mut turns), Vec::<u64>::new());
        turns.ended(Place::line(1), 1);
        assert_eq!(due(&mut turns), [1, 2]);
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn follow_ups_stand_after_their_line_and_before_the_next() {
        let mut turns = turns([1, 2]);
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
    fn a_list_that_waits_is_one_row() {
        let mut turns = turns(1..=10_000);
        assert_eq!(turns.lines.len(), 1);
        turns.expect(Place::line(20_000));
        assert_eq!(turns.lines.len(), 2);
        turns.ended(Place::line(1), 1);
        assert_eq!(due(&mut turns), [1]);
    }

    #[test]
    fn what_waits_for_a_task_that_will_not_end_comes_at_the_end() {
        let mut turns = turns([1, 2, 3]);
        turns.ended(Place::line(3), 3);
        turns.ended(Place::line(2), 2);
        assert_eq!(due(&mut turns), Vec::<u64>::new());
        let rest: Vec<u64> = std::iter::from_fn(|| turns.next_waiting()).collect();
        assert_eq!(rest, [2, 3]);
    }

    proptest! {
        #[test]
        fn in_whatever_order_tasks_end_their_outputs_come_in_the_order_of_lines(
            order in Just((1..40u64).collect::<Vec<_>>()).prop_shuffle(),
            gap in 0..40u64,
        ) {
            let line = |number: u64| number + 10 * u64::from(number > gap);
            let mut turns = turns((1..40).map(line));
            let mut written = Vec::new();
            for number in order {
                turns.ended(Place::line(line(number)), number);
                written.extend(due(&mut turns));
            }
            prop_assert_eq!(written, (1..40).collect::<Vec<_>>());
        }
    }
}
