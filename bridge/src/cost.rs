//! The resource vector of a prepared reply and of the machine that serves it.
//!
//! The server's hand-over admits by this vector: the sum of everything handed out never exceeds the capacity. The bridge
//! gives the four numbers no meaning beyond "amounts that add up"; the manager maps resources to them.

use serde::{Deserialize, Serialize};

/// Amounts of four resources: milli-CPUs, MiB of memory, GPUs, and one reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(pub [u32; 4]);

#[expect(
    clippy::should_implement_trait,
    reason = "these saturate, which operators would hide"
)]
impl Cost {
    /// Needs nothing.
    pub const ZERO: Self = Self([0; 4]);
    /// A capacity that no sum of real costs reaches.
    pub const UNLIMITED: Self = Self([u32::MAX; 4]);

    /// Whether every amount is available.
    #[must_use]
    pub fn fits(self, available: Self) -> bool {
        self.0
            .iter()
            .zip(available.0)
            .all(|(need, have)| *need <= have)
    }

    /// Sum by component, saturating.
    #[must_use]
    pub fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| {
            self.0[i].saturating_add(other.0[i])
        }))
    }

    /// Difference by component; an amount that would fall below zero is zero.
    #[must_use]
    pub fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| {
            self.0[i].saturating_sub(other.0[i])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cost_fits_only_when_every_amount_is_available() {
        assert!(Cost([1, 2, 0, 0]).fits(Cost([1, 2, 0, 0])));
        assert!(!Cost([1, 3, 0, 0]).fits(Cost([9, 2, 9, 9])));
        assert!(Cost::ZERO.fits(Cost::ZERO));
        assert!(Cost([u32::MAX; 4]).fits(Cost::UNLIMITED));
    }

    proptest! {
        #[test]
        fn what_was_added_can_be_taken_away(a in any::<[u16; 4]>(), b in any::<[u16; 4]>()) {
            let (a, b) = (Cost(a.map(u32::from)), Cost(b.map(u32::from)));
            prop_assert_eq!(a.add(b).sub(b), a);
            prop_assert!(a.fits(a.add(b)));
        }
    }
}
