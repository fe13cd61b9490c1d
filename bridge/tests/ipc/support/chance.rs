//! Numbers by chance that can be had again: the seed is printed, and `MITOSIS_SEED` sets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names the seed to use.
const SEED: &str = "MITOSIS_SEED";

/// A generator (xorshift64*); good enough to pick moments.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The seed of the environment, else one of the clock. It is printed, and shown when the test fails.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().unwrap(),
            Err(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::from(since.subsec_nanos()) << 20 | since.as_secs() & 0xf_ffff
            }
        };
        eprintln!("{SEED}={seed}");
        Self::seeded(seed)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        // Zero is the one state that never changes.
        Self(seed.max(1))
    }

    /// From 0 to below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }

    pub(crate) fn moment(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_nanos()).unwrap();
        Duration::from_nanos(self.below(longest))
    }
}
