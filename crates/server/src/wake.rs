//! Whose turn it is to wake: not all apps at once, or none of them would be up in time.
//!
//! An app that is wanted asks for its turn at each look. It has the turn until it is routed to again, or for as long as a request would have
//! waited for it; those that asked first come first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_control::route::WAKE_HOLD;
use berth_spec::AppId;

/// Who wakes, and who waits for a turn.
#[derive(Debug)]
pub(crate) struct WakeTurns {
    most: usize,
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// Since when each wakes.
    waking: BTreeMap<AppId, Duration>,
    /// Each once: bounded by the apps there are.
    waiting: VecDeque<AppId>,
}

impl Turns {
    fn expire(&mut self, now: Duration) {
        self.waking.retain(|_, since| now.saturating_sub(*since) < WAKE_HOLD.as_duration());
    }
}

impl WakeTurns {
    /// Turns for a machine of this one's kind. What wakes needs a processor, and two at a time hide each other's waits.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(cores.max(2))
    }

    fn of(most: usize) -> Self {
        Self { most, turns: Mutex::default() }
    }

    /// Whether it is the turn of `app`, which asks for one. Where memory is short, one wakes after the other.
    pub(crate) fn ask(&self, app: &AppId, memory_short: bool, now: Duration) -> bool {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.expire(now);
        if turns.waking.contains_key(app) {
            return true;
        }
        if !turns.waiting.contains(app) {
            turns.waiting.push_back(app.clone());
        }
        let free = if memory_short { 1 } else { self.most }.saturating_sub(turns.waking.len());
        let place = turns.waiting.iter().position(|it| it == app);
        if place.is_none_or(|place| place >= free) {
            return false;
        }
        turns.waiting.retain(|it| it != app);
        turns.waking.insert(app.clone(), now);
        true
    }

    /// The app is awake, or nobody wants it any more. Gives those whose turn it may be now.
    pub(crate) fn done(&self, app: &AppId) -> Vec<AppId> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = turns.waiting.len();
        turns.waiting.retain(|it| it != app);
        if turns.waking.remove(app).is_none() && turns.waiting.len() == waited {
            return Vec::new();
        }
        let free = self.most.saturating_sub(turns.waking.len());
        turns.waiting.iter().take(free).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppId {
        format!("a/b/{name}").parse().unwrap()
    }

    #[test]
    fn so_many_wake_at_once_and_the_others_in_the_order_in_which_they_asked() {
        let turns = WakeTurns::of(2);
        let now = Duration::ZERO;
        let asked = |name: &str| turns.ask(&app(name), false, now);
        assert!(asked("a") && asked("b") && asked("a"));
        assert!(!asked("c") && !asked("d") && !asked("c"));
        assert_eq!(turns.done(&app("a")), [app("c")]);
        assert!(!asked("d"), "c asked before it");
        assert!(asked("c") && !asked("d"));
        assert_eq!(turns.done(&app("x")), [], "who had no turn frees none");
        assert_eq!(turns.done(&app("b")), [app("d")]);
        assert!(asked("d"));
    }

    #[test]
    fn one_that_does_not_come_up_gives_its_turn_back() {
        let turns = WakeTurns::of(1);
        assert!(turns.ask(&app("a"), false, Duration::ZERO));
        assert!(!turns.ask(&app("b"), false, Duration::from_secs(29)));
        assert!(turns.ask(&app("b"), false, Duration::from_secs(30)));
    }

    #[test]
    fn where_memory_is_short_one_wakes_after_the_other() {
        let turns = WakeTurns::of(4);
        assert!(turns.ask(&app("a"), true, Duration::ZERO));
        assert!(!turns.ask(&app("b"), true, Duration::ZERO));
        assert!(turns.ask(&app("b"), false, Duration::ZERO));
    }
}
