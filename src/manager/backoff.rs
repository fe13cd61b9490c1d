//! Exponential back-off with jitter. Pure: the random number comes in.
//!
//! Used for the coordinator (a fleet that lost it must not return in step) and for workers that do not come up.

use std::time::Duration;

/// Grows from `first` to `max` by doubling.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// The pause after one more failure: between half and all of the doubled value.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let full = self
            .first
            .saturating_mul(2u32.saturating_pow(self.failures.min(30)))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        let share = u32::try_from(random % 1001).unwrap_or(0);
        full / 2 + full.saturating_mul(share) / 2000
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_stay_in_bounds_and_are_never_zero(randoms in proptest::collection::vec(any::<u64>(), 1..60)) {
            let (first, max) = (Duration::from_millis(50), Duration::from_secs(10));
            let mut backoff = Backoff::new(first, max);
            for (index, random) in randoms.into_iter().enumerate() {
                let full = first.saturating_mul(2u32.saturating_pow(u32::try_from(index).unwrap().min(30))).min(max);
                let pause = backoff.next(random);
                prop_assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(0) <= first);
        }
    }
}
