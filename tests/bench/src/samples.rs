//! Percentiles and medians.

use std::time::Duration;

/// What one run measured.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Samples {
    pub(crate) fn with_capacity(count: u32) -> Self {
        Self(Vec::with_capacity(count as usize))
    }

    pub(crate) fn take(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn percentiles(mut self) -> Percentiles {
        self.0.sort_unstable();
        Percentiles { p50: self.at(50), p95: self.at(95), p99: self.at(99) }
    }

    /// The nearest rank.
    fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    }
}

impl Percentiles {
    /// The median of each, over runs.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(runs.iter().map(field).collect());
        Self { p50: of(|run| run.p50), p95: of(|run| run.p95), p99: of(|run| run.p99) }
    }
}

/// The middle; of an even number, the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut samples = Samples::default();
        (1..=100).rev().for_each(|ms| samples.take(Duration::from_millis(ms)));
        assert_eq!(samples.percentiles(), Percentiles { p50: 50.0, p95: 95.0, p99: 99.0 });
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert!(median(Vec::new()).is_nan());
    }
}
