//! Latencies of any number of calls in constant memory, within 0.4 % of each value.
//!
//! Buckets grow with the value: 256 of one nanosecond each, then 256 per power of two. Recording is an addition; the
//! client does it between two calls. The largest value is kept exactly.

use serde::{Deserialize, Serialize};

/// Buckets per power of two, as a power of two.
const BITS: u32 = 8;
const STEPS: u64 = 1 << BITS;
/// Values from 2^41 ns (half an hour) on are counted as that.
const LARGEST: u64 = (1 << 41) - 1;

/// Counts of latencies.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// A histogram on its way between processes: buckets that are not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    buckets: Vec<(u32, u64)>,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; index(LARGEST) + 1],
            total: 0,
            max: 0,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an index is below 2^14 for the largest value"
)]
fn index(value: u64) -> usize {
    let value = value.min(LARGEST);
    let octave = value.max(1).ilog2();
    if octave < BITS {
        return value as usize;
    }
    let shift = octave - BITS;
    ((u64::from(shift) * STEPS) + (value >> shift)) as usize
}

/// The middle of a bucket.
fn value(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let low = (index - shift * STEPS) << shift;
    low + (1 << shift) / 2
}

impl Histogram {
    /// Counts one value.
    pub(super) fn record(&mut self, nanoseconds: u64) {
        self.counts[index(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds what another process counted.
    pub(super) fn add(&mut self, other: &Counts) {
        for (bucket, count) in &other.buckets {
            // A bucket beyond the last can only come from another version; it is counted as the last.
            let bucket = (*bucket as usize).min(self.counts.len() - 1);
            self.counts[bucket] += count;
            self.total += count;
        }
        self.max = self.max.max(other.max);
    }

    /// What to send to another process.
    #[must_use]
    pub(super) fn counts(&self) -> Counts {
        let filled = (0_u32..).zip(&self.counts).filter(|(_, count)| **count > 0);
        Counts {
            buckets: filled.map(|(bucket, count)| (bucket, *count)).collect(),
            max: self.max,
        }
    }

    /// How many values there are.
    #[must_use]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The largest value.
    #[must_use]
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The value that `permille` of the values do not exceed; 0 without any.
    #[must_use]
    pub(super) fn quantile(&self, permille: u64) -> u64 {
        let rank = (self.total * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return value(bucket).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_small_values_are_exact() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.total(), 100);
        assert_eq!(
            [500, 900, 990, 999, 1000].map(|permille| histogram.quantile(permille)),
            [50, 90, 99, 100, 100]
        );
        assert_eq!(Histogram::default().quantile(500), 0);
    }

    #[test]
    fn halves_from_two_processes_make_one_whole() {
        let (mut left, mut right, mut whole) = (
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for value in (0..5000).map(|step| step * 777) {
            if value % 2 == 0 {
                &mut left
            } else {
                &mut right
            }
            .record(value);
            whole.record(value);
        }
        left.add(&right.counts());
        assert_eq!(left.counts(), whole.counts());
        assert_eq!(left.total(), whole.total());
    }

    proptest! {
        #[test]
        fn a_value_is_found_again_within_its_precision(nanoseconds in 0_u64..LARGEST) {
            let found = value(index(nanoseconds));
            let error = found.abs_diff(nanoseconds);
            prop_assert!(error * STEPS <= nanoseconds, "{nanoseconds} -> {found}");
        }

        #[test]
        fn larger_values_are_in_later_buckets(one in 0_u64..LARGEST, other in 0_u64..LARGEST) {
            prop_assert!((one <= other) == (index(one) <= index(other)) || index(one) == index(other));
        }
    }
}
