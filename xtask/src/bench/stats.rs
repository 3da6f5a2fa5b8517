//! Medians with their spread.

/// The median of some values, and between which they lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// None of no values. Values that are no numbers do not count.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            median: middle(&sorted)?,
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }

    /// The ratio of each value to the one of the same round: the machine's speed changes from
    /// round to round, and so it does not count.
    pub(super) fn of_ratios(values: &[f64], references: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = values
            .iter()
            .zip(references)
            .filter(|(_, reference)| **reference > 0.0)
            .map(|(value, reference)| value / reference)
            .collect();
        Self::of(&ratios)
    }
}

/// The value that this share of the values, between 0 and 1, does not exceed.
pub(super) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let sorted = sorted(values);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index far below 2^52"
    )]
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().checked_sub(1)?)).copied()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_the_least_and_the_most() {
        let spread = |median, least, most| {
            Some(Spread {
                median,
                least,
                most,
            })
        };
        assert_eq!(Spread::of(&[3.0, 1.0, 10.0]), spread(3.0, 1.0, 10.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 10.0, 2.0]), spread(3.0, 1.0, 10.0));
        assert_eq!(Spread::of(&[7.0, f64::NAN]), spread(7.0, 7.0, 7.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine is three times slower in the second round, which changes no ratio.
        let ratios = Spread::of_ratios(&[20.0, 60.0, 21.0], &[10.0, 30.0, 10.0]);
        let ratios = ratios.expect("there are some");
        assert!((ratios.median - 2.0).abs() < 1e-9);
        assert!((ratios.most - 2.1).abs() < 1e-9);
        assert_eq!(Spread::of_ratios(&[1.0], &[0.0]), None);
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }

    #[test]
    fn quantiles_of_a_known_sequence() {
        let values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(50.0));
        assert_eq!(quantile(&values, 0.99), Some(99.0));
        assert_eq!(quantile(&values, 1.0), Some(99.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
