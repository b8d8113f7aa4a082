//! How the requests of an app are shared between two of its releases, and which visitor gets which.

use std::collections::BTreeSet;

use berth_spec::ReleaseNumber;
use serde::{Deserialize, Serialize};

/// A request with this header goes to the release that it names, `v43`, as long as that has a share.
pub const PIN_HEADER: &str = "berth-release";
/// The cookie that keeps a visitor at one release.
pub const VISITOR_COOKIE: &str = "berth-visitor";
/// Into how many places visitors are put: a share of one percent has a hundred of them.
const PLACES: u64 = 10_000;

/// The share of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which release.
    pub release: ReleaseNumber,
    /// How many of a hundred requests go to it.
    pub percent: u8,
    /// The ordinals of its routed instances. While none of them can be had its share goes to the others.
    pub instances: BTreeSet<u64>,
}

/// Which of `shares` a visitor gets, who keeps his place for as long as they are of the same releases.
///
/// The share of the first one begins at the first place, so that a visitor who once was there stays when it grows: he changes over at
/// most once in a rollout, and back only when that is taken back.
#[must_use]
pub fn choose(shares: &[Share], visitor: u64) -> Option<usize> {
    let first = shares.first()?;
    // Who is among the first in one rollout is not among the first in all.
    let place = mixed(visitor ^ first.release.0.rotate_left(32)) % PLACES;
    let mut end = 0;
    let found = shares.iter().position(|share| {
        end += u64::from(share.percent) * (PLACES / 100);
        place < end
    });
    found.or_else(|| shares.len().checked_sub(1))
}

/// Which of `shares` is the pinned release's. One that has none cannot be had by naming it.
#[must_use]
pub fn pinned(shares: &[Share], release: ReleaseNumber) -> Option<usize> {
    shares.iter().position(|share| share.release == release)
}

/// The visitor that a `Cookie` header names, if it names one.
#[must_use]
pub fn visitor_of(cookies: &str) -> Option<u64> {
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == VISITOR_COOKIE)?;
    u64::from_str_radix(value, 16).ok().filter(|_| value.len() == 16)
}

/// The `Set-Cookie` that makes a browser come back as this visitor, for a day.
#[must_use]
pub fn cookie(visitor: u64) -> String {
    format!("{VISITOR_COOKIE}={visitor:016x}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax")
}

/// The last steps of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): whatever numbers visitors come with, they are spread evenly.
fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(percent: u8) -> [Share; 2] {
        let share = |number, percent| Share {
            release: ReleaseNumber(number),
            percent,
            instances: BTreeSet::from([number]),
        };
        [share(2, percent), share(1, 100 - percent)]
    }

    #[test]
    fn each_gets_its_share_of_visitors() {
        for percent in [0, 5, 50, 100] {
            let first = (0..20_000_u64).filter(|it| choose(&shares(percent), *it) == Some(0)).count();
            let wanted = usize::from(percent) * 200;
            assert!(first.abs_diff(wanted) <= 200, "{percent}: {first}");
        }
        assert_eq!(choose(&[], 7), None);
    }

    #[test]
    fn a_pin_counts_only_for_what_has_a_share() {
        assert_eq!(pinned(&shares(5), ReleaseNumber(2)), Some(0));
        assert_eq!(pinned(&shares(5), ReleaseNumber(1)), Some(1));
        assert_eq!(pinned(&shares(5), ReleaseNumber(3)), None);
    }

    #[test]
    fn a_visitor_is_known_by_his_cookie() {
        let set = cookie(0xfeed);
        let (pair, _) = set.split_once(';').unwrap();
        assert_eq!(visitor_of(&format!("a=b; {pair};c=d")), Some(0xfeed));
        for other in ["", "berth-visitor", "berth-visitor=1", "berth-visitor=zzzzzzzzzzzzzzzz", "x=y"] {
            assert_eq!(visitor_of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn who_was_there_stays_when_the_share_grows(visitor in any::<u64>(), before in 0_u8..=100, after in 0_u8..=100) {
            let (less, more) = (before.min(after), before.max(after));
            if choose(&shares(less), visitor) == Some(0) {
                prop_assert_eq!(choose(&shares(more), visitor), Some(0));
            }
        }
    }
}
