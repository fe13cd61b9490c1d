//! Sources of arguments combined: every value of one with every value of the next, or linked value by value.
//!
//! The order is GNU parallel's: the last source varies fastest. Linked sources (`:::+`) move together and end with the
//! shortest of them. The number of combinations is known before the first one is made. Pure.

/// Most tasks of one input that is made of combinations.
pub const MAX_COMBINATIONS: u64 = 1_000_000;

/// The values of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// One row per value, one string per column of it.
    pub rows: Vec<Vec<String>>,
    /// Moves together with the source before it.
    pub linked: bool,
}

impl Table {
    /// Takes the first row away, whose columns are names.
    pub(super) fn take_header(&mut self) -> Vec<String> {
        match self.rows.is_empty() {
            true => Vec::new(),
            false => self.rows.remove(0),
        }
    }

    /// Makes one row of so many values each time; the last one may have fewer.
    pub(super) fn gather(&mut self, per_row: usize) {
        let values = std::mem::take(&mut self.rows);
        let rows = values.chunks(per_row.max(1)).map(<[Vec<String>]>::concat);
        self.rows = rows.collect();
    }
}

/// More combinations than anybody wants by intention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the arguments make {} tasks ({}); one run takes at most {}: split one of the sources and run it in parts, or link \
     sources with `:::+` where not every value belongs to every other",
    grouped(.count),
    .lengths.iter().map(grouped).collect::<Vec<_>>().join(" x "),
    grouped(&u128::from(MAX_COMBINATIONS))
)]
pub struct TooMany {
    /// Combinations.
    pub count: u128,
    /// Values of each source that counts for itself.
    pub lengths: Vec<u128>,
}

/// Sources that are ready to be combined.
#[derive(Debug)]
pub struct Combinations {
    /// Sources that move together, with the rows that they have in common.
    groups: Vec<(Vec<Table>, usize)>,
    count: usize,
}

impl Combinations {
    /// Counts the combinations.
    ///
    /// # Errors
    /// When there are more than [`MAX_COMBINATIONS`].
    pub fn of(tables: Vec<Table>) -> Result<Self, TooMany> {
        let mut groups: Vec<(Vec<Table>, usize)> = Vec::new();
        for table in tables {
            let rows = table.rows.len();
            match groups.last_mut() {
                Some((group, common)) if table.linked => {
                    *common = rows.min(*common);
                    group.push(table);
                }
                _ => groups.push((vec![table], rows)),
            }
        }
        let lengths: Vec<u128> = groups.iter().map(|(_, rows)| *rows as u128).collect();
        let product = |product: u128, length: &u128| product.saturating_mul(*length);
        let count = match lengths.as_slice() {
            [] => 0,
            // An empty source leaves nothing, however long the others are.
            lengths if lengths.contains(&0) => 0,
            lengths => lengths.iter().fold(1, product),
        };
        match usize::try_from(count) {
            Ok(fits) if count <= u128::from(MAX_COMBINATIONS) => Ok(Self {
                groups,
                count: fits,
            }),
            _ => Err(TooMany { count, lengths }),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Columns of each combination, for sources whose rows are all as long as their first.
    #[must_use]
    pub fn width(&self) -> usize {
        let tables = self.groups.iter().flat_map(|(group, _)| group);
        tables
            .map(|table| table.rows.first().map_or(1, Vec::len))
            .sum()
    }

    /// All of them in order, each as the columns of its rows, source by source.
    pub fn iter(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        (0..self.count).map(|number| self.nth(number))
    }

    /// The combination of this number, from 0.
    #[must_use]
    pub(super) fn nth(&self, number: usize) -> Vec<String> {
        let mut rest = number;
        let mut rows = vec![0; self.groups.len()];
        for (row, (_, length)) in rows.iter_mut().zip(&self.groups).rev() {
            *row = rest % length;
            rest /= length;
        }
        let tables = rows
            .into_iter()
            .zip(&self.groups)
            .flat_map(|(row, (group, _))| group.iter().map(move |table| &table.rows[row]));
        tables.flatten().cloned().collect()
    }
}

/// A number with its digits in threes, as people read large ones.
fn grouped(number: &u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(linked: bool, rows: &[&str]) -> Table {
        let row = |text: &&str| text.split(',').map(str::to_owned).collect();
        Table {
            rows: rows.iter().map(row).collect(),
            linked,
        }
    }

    #[track_caller]
    fn check(tables: &[Table], expected: &[&str]) {
        let combinations = Combinations::of(tables.to_vec()).expect("few enough");
        let all: Vec<_> = combinations.iter().map(|row| row.join(" ")).collect();
        assert_eq!(all, expected);
        assert_eq!(combinations.count(), expected.len());
    }

    #[test]
    fn the_last_source_varies_fastest() {
        let (letters, digits) = (table(false, &["a", "b"]), table(false, &["1", "2"]));
        check(&[letters, digits], &["a 1", "a 2", "b 1", "b 2"]);
        check(&[table(false, &["a", "b"])], &["a", "b"]);
        check(&[], &[]);
    }

    #[test]
    fn linked_sources_move_together_and_end_with_the_shortest() {
        let (letters, digits) = (table(false, &["a", "b", "c"]), table(true, &["1", "2"]));
        check(&[letters.clone(), digits.clone()], &["a 1", "b 2"]);
        let more = table(false, &["X", "Y"]);
        check(
            &[letters, digits, more],
            &["a 1 X", "a 1 Y", "b 2 X", "b 2 Y"],
        );
    }

    #[test]
    fn the_columns_of_a_row_stay_together() {
        let pairs = table(false, &["a,1", "b,2"]);
        check(
            &[pairs, table(false, &["X", "Y"])],
            &["a 1 X", "a 1 Y", "b 2 X", "b 2 Y"],
        );
    }

    #[test]
    fn an_empty_source_leaves_nothing() {
        check(&[table(false, &["a", "b"]), table(false, &[])], &[]);
        check(&[table(false, &["a"]), table(true, &[])], &[]);
    }

    #[test]
    fn ten_million_combinations_are_refused_before_they_are_made() {
        let source = |rows: usize| Table {
            rows: vec![vec![String::new()]; rows],
            linked: false,
        };
        let error = Combinations::of(vec![source(1000), source(100), source(100)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("10,000,000 tasks (1,000 x 100 x 100)") && text.contains("1,000,000:"),
            "{text}"
        );
        // A count beyond every integer is still a count.
        let many = vec![source(1000); 20];
        assert_eq!(Combinations::of(many).unwrap_err().count, u128::MAX);
        assert_eq!(
            Combinations::of(vec![source(1000); 2]).unwrap().count(),
            1_000_000
        );
        let nothing = vec![source(1_000), source(10_000), source(0)];
        assert_eq!(Combinations::of(nothing).unwrap().count(), 0);
    }

    /// The same by nested loops.
    fn model(groups: &[Vec<Vec<String>>]) -> Vec<Vec<String>> {
        let Some((first, rest)) = groups.split_first() else {
            return vec![Vec::new()];
        };
        let tails = model(rest);
        let rows = first.iter();
        rows.flat_map(|row| {
            tails
                .iter()
                .map(|tail| [row.clone(), tail.clone()].concat())
        })
        .collect()
    }

    proptest! {
        #[test]
        fn combinations_are_those_of_nested_loops(
            sizes in proptest::collection::vec((0_usize..4, any::<bool>()), 1..6),
        ) {
            let mut tables = Vec::new();
            let mut groups: Vec<Vec<Vec<String>>> = Vec::new();
            for (place, (size, linked)) in sizes.into_iter().enumerate() {
                let linked = linked && place > 0;
                let rows: Vec<Vec<String>> = (0..size).map(|row| vec![format!("{place}.{row}")]).collect();
                if linked {
                    let group = groups.last_mut().unwrap();
                    group.truncate(rows.len());
                    for (row, more) in group.iter_mut().zip(&rows) {
                        row.extend(more.clone());
                    }
                } else {
                    groups.push(rows.clone());
                }
                tables.push(Table { rows, linked });
            }
            let combinations = Combinations::of(tables).unwrap();
            let all: Vec<_> = combinations.iter().collect();
            prop_assert_eq!(all, model(&groups));
        }
    }
}
