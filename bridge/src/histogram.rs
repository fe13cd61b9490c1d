//! Fixed histogram of durations in atomics, for one writer and any reader.
//!
//! Lives in the status block (shared memory) and in the poller's own statistics. One record costs a scan of 20 constants
//! and two plain stores; nothing grows and nothing is flushed. Turning it into an exposition is the manager's business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets with an upper bound; one more counts what lies beyond the last.
pub const BUCKETS: usize = 20;

/// Upper bounds in nanoseconds: a factor of about 3 from 1 microsecond to 1 hour.
pub const BOUNDS_NS: [u64; BUCKETS] = [
    1_000,
    3_000,
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
    3_000_000_000,
    10_000_000_000,
    30_000_000_000,
    120_000_000_000,
    400_000_000_000,
    1_200_000_000_000,
    3_600_000_000_000,
];

/// Adds to a counter that this thread alone writes: a load and a store instead of a locked instruction.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

/// The counters. Zeroed memory is an empty histogram.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration. One thread only may record into one histogram.
    pub(crate) fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = BOUNDS_NS
            .iter()
            .position(|bound| ns <= *bound)
            .unwrap_or(BUCKETS);
        bump(&self.buckets[index], 1);
        bump(&self.sum_ns, ns);
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

/// What a histogram held when it was read. A record made meanwhile may be in the sum and not yet in the buckets, or the
/// other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistogramSnapshot {
    /// Counts by bucket (not cumulative); the last one is beyond [`BOUNDS_NS`].
    pub buckets: [u64; BUCKETS + 1],
    /// Sum of all durations.
    pub sum: Duration,
}

impl HistogramSnapshot {
    /// Number of recorded durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another histogram.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|i| self.buckets[i].wrapping_add(other.buckets[i])),
            sum: self.sum.saturating_add(other.sum),
        }
    }

    /// The duration below which the share `q` (0 to 1) of the records lies, interpolated inside its bucket; `None`
    /// without records. Beyond the last bound it is the last bound.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate inside a bucket that is a factor of three wide"
    )]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut below = 0_u64;
        for (index, bound) in BOUNDS_NS.iter().enumerate() {
            let inside = self.buckets[index];
            if inside > 0 && (below + inside) as f64 >= rank {
                let floor = if index == 0 { 0 } else { BOUNDS_NS[index - 1] };
                let share = ((rank - below as f64) / inside as f64).clamp(0.0, 1.0);
                let ns = floor as f64 + share * (bound - floor) as f64;
                return Some(Duration::from_nanos(ns as u64));
            }
            below += inside;
        }
        Some(Duration::from_nanos(BOUNDS_NS[BUCKETS - 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for ns in [0, 1_000, 1_001, 3_600_000_000_000, 3_600_000_000_001] {
            histogram.record(Duration::from_nanos(ns));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..2], [2, 1]);
        assert_eq!(snapshot.buckets[BUCKETS - 1..], [1, 1]);
        assert_eq!(snapshot.count(), 5);
    }

    #[test]
    fn quantiles_lie_inside_the_bucket_of_their_rank() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for _ in 0..99 {
            histogram.record(Duration::from_micros(2));
        }
        histogram.record(Duration::from_secs(2));
        let snapshot = histogram.snapshot();
        let half = snapshot.quantile(0.5).unwrap();
        assert!((1_000..=3_000).contains(&half.as_nanos()), "{half:?}");
        let last = snapshot.quantile(1.0).unwrap();
        assert_eq!(last, Duration::from_secs(3));
    }

    #[test]
    fn merging_adds_counts_and_sums() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(5));
        let one = histogram.snapshot();
        let two = one.merge(&one);
        assert_eq!((two.count(), two.sum), (2, Duration::from_micros(10)));
    }
}
