//! How fast tasks end lately, and how long the rest will take. Pure: time is passed in.

use std::time::Duration;

/// Over about how long the rate is averaged: the last of it counts most.
const MEMORY: Duration = Duration::from_secs(15);
/// Looks closer together than this say nothing about a rate.
const LEAST_STEP: Duration = Duration::from_millis(50);

/// A smoothed rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    last: Option<(Duration, u64)>,
    rate: f64,
    /// How much of the rate is known: 0 at the beginning, then towards 1.
    weight: f64,
}

impl Pace {
    /// Takes note that so many tasks have ended at this time of the run.
    pub fn note(&mut self, at: Duration, done: u64) {
        let Some((before, done_before)) = self.last else {
            self.last = Some((at, done));
            return;
        };
        let step = at.saturating_sub(before);
        if step < LEAST_STEP {
            return;
        }
        let share = 1.0 - (-step.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let now = done.saturating_sub(done_before) as f64 / step.as_secs_f64();
        self.rate += share * (now - self.rate);
        self.weight += share * (1.0 - self.weight);
        self.last = Some((at, done));
    }

    /// Tasks per second; `None` before anything is known.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        (self.weight > 0.0 && self.rate > 0.0).then(|| self.rate / self.weight)
    }

    /// How long the rest takes at this rate.
    #[must_use]
    pub fn time_left(&self, rest: u64) -> Option<Duration> {
        let seconds = rest as f64 / self.per_second()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(steps: impl IntoIterator<Item = (f64, u64)>) -> Pace {
        let mut pace = Pace::default();
        for (seconds, done) in steps {
            pace.note(Duration::from_secs_f64(seconds), done);
        }
        pace
    }

    #[test]
    fn nothing_is_said_before_anything_is_known() {
        assert_eq!(after([]).per_second(), None);
        assert_eq!(after([(0.0, 0), (1.0, 0)]).time_left(5), None);
    }

    #[test]
    fn the_latest_counts_most() {
        let slow = (0..100u32).map(|n| (f64::from(n), u64::from(n)));
        let fast = (1..60u32).map(|n| (99.0 + f64::from(n), 99 + 10 * u64::from(n)));
        let rate = after(slow.chain(fast)).per_second().unwrap();
        assert!((9.0..10.5).contains(&rate), "{rate}");
    }

    proptest! {
        #[test]
        fn a_steady_rate_is_what_it_is_from_the_first_look_on(
            per_step in 1u64..1000, steps in 1u32..50
        ) {
            let pace = after((0..=steps).map(|n| (f64::from(n) * 0.1, u64::from(n) * per_step)));
            let (rate, wanted) = (pace.per_second().unwrap(), per_step as f64 * 10.0);
            prop_assert!((rate - wanted).abs() < wanted * 0.01, "{rate} {wanted}");
            let left = pace.time_left(per_step * 100).unwrap();
            prop_assert!((left.as_secs_f64() - 10.0).abs() < 0.2, "{left:?}");
        }
    }
}
