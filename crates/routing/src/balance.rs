//! Which backend gets a request, when it may be sent again, and how long it may wait.

use std::time::Duration;

/// How long an upstream connection may idle in the pool: gunicorn closes after 2 s, Node after 5 s.
pub const IDLE_MAX: Duration = Duration::from_millis(1_500);
/// How long it may have idled when the request on it could not be sent again.
pub const IDLE_MAX_UNREPEATABLE: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How good a choice a backend is; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Whether it fails its health probes: only when all do, a failing one is chosen.
    pub failing: bool,
    /// Whether it has as many requests as it should: only when all have, it gets more.
    pub above_soft: bool,
    /// Requests in flight to it, over all threads.
    pub in_flight: u64,
}

/// Chooses one of `count` backends: the better of two random ones, or the best of all when neither of the two is
/// fit. `load` gives `None` for a backend that this request tried already, or that takes no more.
///
/// Two random choices instead of the least loaded of all: threads that see the same counts would otherwise all run
/// to the same backend. `random` is one number for each choice.
pub fn pick(count: usize, load: impl Fn(usize) -> Option<Load>, random: (u32, u32)) -> Option<usize> {
    let first = remainder(random.0, count)?;
    let second = match remainder(random.1, count - 1) {
        Some(step) => (first + 1 + step) % count,
        None => first,
    };
    let better = |a: Option<(Load, usize)>, b: Option<(Load, usize)>| match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    };
    let at = |place: usize| load(place).map(|load| (load, place));
    let of_two = better(at(first), at(second));
    if let Some((load, place)) = of_two
        && !load.failing
        && !load.above_soft
    {
        return Some(place);
    }
    (0..count).map(|step| at((first + step) % count)).fold(of_two, better).map(|(_, place)| place)
}

fn remainder(random: u32, count: usize) -> Option<usize> {
    usize::try_from(random).unwrap_or(usize::MAX).checked_rem(count)
}

/// What is known of a request that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its method is idempotent, see [`is_idempotent`].
    pub idempotent: bool,
    /// It has a body, part of which may be gone.
    pub has_body: bool,
    /// It rode a connection that had served others, and the backend may have closed that in the same moment.
    pub reused: bool,
    /// No byte of it was written, or the backend has said that it did nothing with it.
    pub nothing_sent: bool,
    /// It was sent again once before.
    pub repeated: bool,
}

impl Attempt {
    /// Whether it may be sent again: always when nothing of it was sent; otherwise once, and only when a second
    /// arrival does no harm and a closed idle connection is the likely reason. A request that failed on a connection
    /// of its own may be what brought the instance down, and is not carried to the next one.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        self.nothing_sent || (self.idempotent && !self.has_body && self.reused && !self.repeated)
    }
}

/// Whether a request with `method` may arrive twice (RFC 9110, 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether a request may ride a pooled connection that has idled for `idle`.
#[must_use]
pub fn may_ride(repeatable: bool, idle: Duration) -> bool {
    idle < if repeatable { IDLE_MAX } else { IDLE_MAX_UNREPEATABLE }
}

/// The pause before try number `tries` (from 0) at something that refused until now: 10 ms doubling to 200 ms.
#[must_use]
pub fn pause(tries: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(PAUSE_MAX)
}

/// How long a request that no backend takes may still be held.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    deadline: Duration,
    tries: u32,
}

impl Hold {
    /// A request that is held from `now` on, for `budget` at most.
    #[must_use]
    pub fn new(now: Duration, budget: Duration) -> Self {
        Self { deadline: now.saturating_add(budget), tries: 0 }
    }

    /// How long it may still be held, `None` when the time is up.
    #[must_use]
    pub fn left(&self, now: Duration) -> Option<Duration> {
        self.deadline.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// How long to wait before the next try, `None` when the time is up. The last wait ends at the deadline.
    pub fn wait(&mut self, now: Duration) -> Option<Duration> {
        let left = self.left(now)?;
        let wait = pause(self.tries).min(left);
        self.tries = self.tries.saturating_add(1);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(failing: bool, in_flight: u64) -> Option<Load> {
        Some(Load { failing, above_soft: false, in_flight })
    }

    #[test]
    fn a_failing_backend_is_chosen_only_when_all_fail() {
        let loads = [load(true, 0), load(true, 0), load(false, 900)];
        assert_eq!(pick(3, |place| loads[place], (0, 0)), Some(2));
        let loads = [load(true, 5), load(true, 1)];
        assert_eq!(pick(2, |place| loads[place], (0, 0)), Some(1));
        let busy = [
            Some(Load { failing: false, above_soft: true, in_flight: 2 }),
            None,
            load(false, 900),
            load(true, 0),
        ];
        assert_eq!(pick(4, |place| busy[place], (0, 0)), Some(2), "above its soft limit only when all are");
        assert_eq!(pick(2, |place| busy[place], (0, 0)), Some(0));
        assert_eq!(pick(0, |_| load(false, 0), (7, 7)), None);
        assert_eq!(pick(1, |_| None, (7, 7)), None);
    }

    #[test]
    fn a_request_is_repeated_only_where_that_does_no_harm() {
        let stale =
            Attempt { idempotent: true, has_body: false, reused: true, nothing_sent: false, repeated: false };
        assert!(stale.may_repeat());
        assert!(!Attempt { repeated: true, ..stale }.may_repeat());
        assert!(!Attempt { idempotent: false, ..stale }.may_repeat());
        assert!(!Attempt { has_body: true, ..stale }.may_repeat());
        assert!(!Attempt { reused: false, ..stale }.may_repeat());
        let refused = Attempt { idempotent: false, has_body: true, nothing_sent: true, ..stale };
        assert!(refused.may_repeat());
    }

    #[test]
    fn pauses_double_from_10_to_200_ms() {
        let pauses: Vec<u128> = (0..7).map(|tries| pause(tries).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 200, 200]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn what_cannot_be_repeated_rides_only_fresh_connections() {
        assert!(may_ride(true, Duration::from_millis(1_499)) && !may_ride(true, IDLE_MAX));
        assert!(may_ride(false, Duration::from_millis(499)) && !may_ride(false, IDLE_MAX_UNREPEATABLE));
    }

    proptest! {
        #[test]
        fn the_pick_is_fit_and_never_worse_than_its_first_choice(
            loads in proptest::collection::vec(
                proptest::option::of((any::<bool>(), any::<bool>(), 0_u64..5)), 0..8),
            random in any::<(u32, u32)>(),
        ) {
            let at = |place: usize| {
                loads[place].map(|(failing, above_soft, in_flight)| Load { failing, above_soft, in_flight })
            };
            match pick(loads.len(), at, random) {
                None => prop_assert!(loads.iter().all(Option::is_none)),
                Some(place) => {
                    let chosen = at(place).expect("a backend that was tried is not picked again");
                    let first = at(random.0 as usize % loads.len());
                    prop_assert!(first.is_none_or(|first| chosen <= first));
                    let class = |load: Load| (load.failing, load.above_soft);
                    let best = (0..loads.len()).filter_map(at).map(class).min();
                    prop_assert_eq!(Some(class(chosen)), best);
                }
            }
        }

        #[test]
        fn a_hold_waits_exactly_its_budget(start in 0_u64..1_000_000, budget in 0_u64..10_000) {
            let start = Duration::from_millis(start);
            let (mut hold, mut now) = (Hold::new(start, Duration::from_millis(budget)), start);
            while let Some(wait) = hold.wait(now) {
                prop_assert!(!wait.is_zero() && wait <= PAUSE_MAX);
                now += wait;
            }
            prop_assert_eq!(now - start, Duration::from_millis(budget));
        }
    }
}
