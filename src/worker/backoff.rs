//! Pauses between attempts at the same call: exponential, capped, with jitter.
//!
//! Jitter matters because 256 workers of one machine lose their peer in the same instant. Used by the fetch loop and
//! the outbox; it keeps no time, callers add the pause to their own clock.

use std::time::Duration;

/// First pause.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// A source of jitter: a small generator that needs no system call per number.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// Seeded from the system.
    #[must_use]
    pub fn new() -> Self {
        // Without a seed all workers pause in step, which is unpleasant and nothing worse.
        Self(getrandom::u64().unwrap_or(0))
    }

    /// Always the same numbers, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The pause after `failures` failed attempts in a row, from 1: between half and all of the exponential pause.
    pub fn pause(&mut self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
        let whole = FIRST.saturating_mul(factor).min(LONGEST);
        whole / 2 + (whole / 2).mul_f64(self.fraction())
    }

    /// A number in [0, 1), by splitmix64.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let upper =
            u32::try_from((z ^ (z >> 31)) >> 32).expect("a u64 shifted right by 32 fits u32");
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_fall_below_half() {
        let mut jitter = Jitter::seeded(7);
        for (failures, whole_ms) in [
            (1, 50),
            (2, 100),
            (3, 200),
            (8, 6400),
            (9, 10_000),
            (999, 10_000),
        ] {
            let whole = Duration::from_millis(whole_ms);
            let pause = jitter.pause(failures);
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{failures}: {pause:?}"
            );
        }
    }

    #[test]
    fn two_workers_do_not_pause_in_step() {
        let (mut a, mut b) = (Jitter::new(), Jitter::new());
        let series = |jitter: &mut Jitter| (1..9).map(|n| jitter.pause(n)).collect::<Vec<_>>();
        assert_ne!(series(&mut a), series(&mut b));
    }
}
