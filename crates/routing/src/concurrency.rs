//! How many requests an instance gets at a time: the limits of `[http.concurrency]` as edge counts by them.

use berth_spec::RequestConcurrency;

/// The limits of one instance; without one the greatest number stands in its place.
///
/// The words and what they mean are Fly's (<https://fly.io/docs/reference/concurrency/>): from the soft limit on an instance gets requests
/// only where every other has reached its own, and at the hard limit it gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From so many requests in flight on others are preferred.
    pub soft: u64,
    /// At so many it gets no more.
    pub hard: u64,
}

impl Bounds {
    /// No limit at all.
    pub const NONE: Self = Self { soft: u64::MAX, hard: u64::MAX };

    /// Whether others are preferred to an instance with `in_flight` requests.
    #[must_use]
    pub fn is_above_soft(&self, in_flight: u64) -> bool {
        in_flight >= self.soft
    }

    /// Whether an instance with `in_flight` requests gets no more.
    #[must_use]
    pub fn is_full(&self, in_flight: u64) -> bool {
        in_flight >= self.hard
    }
}

impl From<RequestConcurrency> for Bounds {
    fn from(limits: RequestConcurrency) -> Self {
        let bound = |limit: Option<u32>| limit.map_or(u64::MAX, u64::from);
        Self { soft: bound(limits.soft_limit), hard: bound(limits.hard_limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_at_its_number() {
        let bounds = Bounds::from(RequestConcurrency { soft_limit: Some(2), hard_limit: Some(3) });
        let told: Vec<(bool, bool)> =
            (1..=4).map(|count| (bounds.is_above_soft(count), bounds.is_full(count))).collect();
        assert_eq!(told, [(false, false), (true, false), (true, true), (true, true)]);
        assert_eq!(Bounds::from(RequestConcurrency::default()), Bounds::NONE);
        assert!(!Bounds::NONE.is_full(u64::MAX - 1));
    }
}
