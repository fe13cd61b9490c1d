//! How much dearer one contestant is than another, from pairs that were measured side by side.

use serde::Serialize;

use mitosis::run::summary::median;

/// A ratio of two costs. Field names are the JSON keys.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the pairs' ratios.
    pub median: f64,
    /// Upper bound of the mean ratio at 95 % confidence (one-sided, Student's t over the logarithms); absent for fewer
    /// than four pairs.
    pub upper_95: Option<f64>,
}

impl Ratio {
    /// Of pairs `(with, without)`. Pairs with a cost of 0 say nothing and are left out.
    pub(super) fn of(pairs: &[(f64, f64)]) -> Self {
        let ratios: Vec<f64> = pairs
            .iter()
            .filter(|(with, without)| *with > 0.0 && *without > 0.0)
            .map(|(with, without)| with / without)
            .collect();
        Self {
            median: median(&ratios),
            upper_95: upper_95(&ratios),
        }
    }
}

fn upper_95(ratios: &[f64]) -> Option<f64> {
    if ratios.len() < 4 {
        return None;
    }
    let count = ratios.len() as f64;
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((mean + t_95(count - 1.0) * (variance / count).sqrt()).exp())
}

/// The 95 % quantile of Student's t, by the expansion of Cornish and Fisher: right to 1 % from 3 degrees of freedom.
fn t_95(freedom: f64) -> f64 {
    const Z: f64 = 1.644_853_6;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    let third = (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0;
    Z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_agrees_with_the_table() {
        for (freedom, expected) in [(3.0, 2.353), (9.0, 1.833), (19.0, 1.729), (99.0, 1.660)] {
            let t = t_95(freedom);
            assert!((t / expected - 1.0).abs() < 0.01, "{freedom}: {t}");
        }
    }

    #[test]
    fn equal_pairs_are_bounded_by_their_ratio_and_scattered_ones_by_more() {
        let equal = Ratio::of(&[(1.02, 1.0); 20]);
        assert!((equal.upper_95.unwrap() - 1.02).abs() < 1e-9);
        let scattered = Ratio::of(&[(1.2, 1.0), (1.0, 1.2), (1.1, 1.0), (1.0, 1.1)]);
        assert!((scattered.median - 1.0).abs() < 0.1);
        assert!(scattered.upper_95 > Some(1.1), "{scattered:?}");
    }

    #[test]
    fn too_few_pairs_have_no_bound() {
        let ratio = Ratio::of(&[(3.0, 2.0), (0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]);
        assert_eq!((ratio.median, ratio.upper_95), (1.5, None));
    }
}
