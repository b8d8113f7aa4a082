//! How long to wait before the next start.

use berth_shim::config::Backoff;

/// Counts exits in a row. The first start after a good life is immediate: most exits are one-offs.
#[derive(Debug)]
pub(crate) struct Waits {
    policy: Backoff,
    in_a_row: u32,
}

impl Waits {
    pub(crate) fn new(policy: Backoff) -> Self {
        Self { policy, in_a_row: 0 }
    }

    /// The wait in milliseconds after a life of `uptime` milliseconds.
    pub(crate) fn after(&mut self, uptime: u64) -> u64 {
        if uptime >= self.policy.good_life {
            self.in_a_row = 0;
        }
        let exits = self.in_a_row;
        self.in_a_row = self.in_a_row.saturating_add(1);
        match exits.checked_sub(1) {
            None => 0,
            Some(doublings) => {
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                self.policy.first.saturating_mul(factor).min(self.policy.most)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_immediate_then_it_doubles_up_to_a_minute() {
        let mut waits = Waits::new(Backoff::default());
        let seen: Vec<u64> = (0..9).map(|_| waits.after(10)).collect();
        assert_eq!(seen, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(waits.after(60_000), 0);
        assert_eq!(waits.after(59_999), 1_000);
        assert!((0..200).all(|_| waits.after(0) <= 60_000));
    }
}
