//! How long things took: medians and tails.

use std::time::Duration;

use serde::Serialize;

/// Durations that were measured.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

/// What half and what all but a hundredth of them stay below, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Samples {
    /// Notes one.
    pub(super) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Notes those of another series.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// `None` without samples.
    pub(super) fn quantiles(&mut self) -> Option<Quantiles> {
        self.0.sort_unstable();
        Some(Quantiles { p50: self.at(50)?, p99: self.at(99)? })
    }

    /// The smallest sample that so many per cent don't exceed, in milliseconds.
    fn at(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        let sample = self.0.get(rank - 1)?;
        Some((sample.as_secs_f64() * 1e6).round() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        for (count, expected) in [
            (0, None),
            (1, Some((1.0, 1.0))),
            (2, Some((1.0, 2.0))),
            (100, Some((50.0, 99.0))),
            (1000, Some((500.0, 990.0))),
        ] {
            let mut samples = Samples::default();
            for millis in (1..=count).rev() {
                samples.add(Duration::from_millis(millis));
            }
            let expected = expected.map(|(p50, p99)| Quantiles { p50, p99 });
            assert_eq!(samples.quantiles(), expected, "{count} samples");
        }
    }
}
