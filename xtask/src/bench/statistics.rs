//! Percentiles, given only where the number of samples allows them.

/// Measurements of one thing, in the order of their size.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    sorted: Vec<f64>,
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }
}

impl Samples {
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn maximum(&self) -> Option<f64> {
        self.sorted.last().copied()
    }

    /// The `percent`th percentile by nearest rank: a value that was measured, never one between two. None when fewer
    /// samples lie beyond it than one: p99 needs 100 of them, p90 needs 10, the median 2 - one sample is no distribution.
    pub(super) fn percentile(&self, percent: u32) -> Option<f64> {
        let (n, percent) = (self.sorted.len(), usize::try_from(percent).ok()?);
        let beyond = 100_usize.checked_sub(percent)?;
        if percent == 0 || n * beyond < 100 {
            return None;
        }
        let rank = (n * percent).div_ceil(100);
        self.sorted.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(n: u32) -> Samples {
        (1..=n).rev().map(f64::from).collect()
    }

    #[test]
    fn a_percentile_is_a_measured_value() {
        assert_eq!(samples(100).percentile(99), Some(99.0));
        assert_eq!(samples(1_000).percentile(99), Some(990.0));
        assert_eq!(samples(3).percentile(50), Some(2.0));
        assert_eq!(samples(10).percentile(90), Some(9.0));
    }

    #[test]
    fn too_few_samples_give_none() {
        assert_eq!(samples(99).percentile(99), None);
        assert_eq!(samples(9).percentile(90), None);
        assert_eq!(samples(1).percentile(50), None);
        assert_eq!(samples(0).percentile(50), None);
        assert_eq!(samples(100).percentile(100), None);
        assert_eq!(samples(1).maximum(), Some(1.0));
    }
}
