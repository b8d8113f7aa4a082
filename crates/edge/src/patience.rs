//! When a client's connection has been too slow for too long.

use std::time::Duration;

use crate::client_stream::Seen;
use crate::strict::Phase;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a whole head, from its first byte, and for the first one from the connection's beginning: dripping bytes
    /// does not extend it.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For the next byte of a body, or to take the next byte of a response. A slow upload that moves lives on.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { head: Duration::from_secs(10), idle: minute, stall: minute }
    }
}

/// Why a client's connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooSlow {
    Head,
    Idle,
    Stall,
}

/// How long a connection has been in the state that it was last seen in.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    kind: Option<TooSlow>,
    heads: u32,
    age: Duration,
    /// How long ago it was told to end.
    told: Option<Duration>,
}

impl Waiting {
    /// How long the connection has been in the state that it was last seen in.
    pub(crate) fn age(&self) -> Duration {
        self.age
    }

    /// What it was last seen to wait for.
    pub(crate) fn kind(&self) -> Option<TooSlow> {
        self.kind
    }

    /// It is told to end once it is idle.
    pub(crate) fn tell(&mut self) {
        self.told.get_or_insert_default();
    }

    /// Whether it was told so `limit` ago or longer.
    pub(crate) fn was_told(&self, limit: Duration) -> bool {
        self.told.is_some_and(|told| told >= limit)
    }

    /// Whether it was told so, is idle and still there, and nothing has moved for `limit`. A connection of HTTP/2 ends once its client has said, by
    /// a PONG, that it heard of the end, and nothing makes a client say that.
    pub(crate) fn outstays(&self, limit: Duration) -> bool {
        self.kind == Some(TooSlow::Idle) && self.was_told(limit) && self.age >= limit
    }

    /// Takes what was `seen` after `span` has passed. `busy` says that a request is being answered.
    ///
    /// Ages are counted in whole looks instead of by a timer for each connection: a timer costs more than the rest of
    /// this, and nobody needs 10 s to be exact.
    pub(crate) fn look(
        &mut self,
        seen: Seen,
        busy: bool,
        span: Duration,
        patience: &Patience,
    ) -> Option<TooSlow> {
        let kind = match seen.phase {
            _ if seen.wants_write => Some(TooSlow::Stall),
            Phase::Head => Some(TooSlow::Head),
            Phase::Body if seen.wants_read => Some(TooSlow::Stall),
            // Who connects has something to say: the time for the first head runs from there.
            Phase::Idle if seen.heads == 0 => Some(TooSlow::Head),
            Phase::Idle if !busy => Some(TooSlow::Idle),
            Phase::Idle | Phase::Body | Phase::Raw => None,
        };
        let goes_on =
            kind == self.kind && seen.heads == self.heads && (kind == Some(TooSlow::Head) || !seen.moved);
        self.age = if goes_on { self.age + span } else { Duration::ZERO };
        self.told = self.told.map(|told| told + span);
        self.kind = kind;
        self.heads = seen.heads;
        let limit = match kind? {
            TooSlow::Head => patience.head,
            TooSlow::Idle => patience.idle,
            TooSlow::Stall => patience.stall,
        };
        kind.filter(|_| self.age >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: Seen =
        Seen { phase: Phase::Idle, heads: 0, moved: false, wants_read: true, wants_write: false };

    /// The second at which a connection that is seen as `seen` over and over is ended.
    fn ended(seen: impl Fn(u32) -> Seen, busy: bool) -> Option<(u32, TooSlow)> {
        let mut waiting = Waiting::default();
        (0..200).find_map(|second| {
            waiting.look(seen(second), busy, SECOND, &Patience::default()).map(|why| (second, why))
        })
    }

    #[test]
    fn a_dripping_head_is_cut_off_after_its_whole_time() {
        let dripping = |_| Seen { phase: Phase::Head, moved: true, ..QUIET };
        assert_eq!(ended(dripping, false), Some((10, TooSlow::Head)));
    }

    #[test]
    fn who_connects_and_says_nothing_is_cut_off() {
        assert_eq!(ended(|_| QUIET, false), Some((10, TooSlow::Head)));
    }

    #[test]
    fn heads_that_complete_start_over() {
        let busy_client = |second| Seen { phase: Phase::Head, heads: second, moved: true, ..QUIET };
        assert_eq!(ended(busy_client, false), None);
    }

    #[test]
    fn a_slow_upload_lives_and_a_stalled_one_does_not() {
        let slow = |second: u32| Seen { phase: Phase::Body, moved: second.is_multiple_of(50), ..QUIET };
        assert_eq!(ended(slow, true), None);
        let stalled = |_| Seen { phase: Phase::Body, ..QUIET };
        assert_eq!(ended(stalled, true), Some((60, TooSlow::Stall)));
        let held_back_by_the_app = |_| Seen { phase: Phase::Body, wants_read: false, ..QUIET };
        assert_eq!(ended(held_back_by_the_app, true), None);
    }

    #[test]
    fn idle_ends_and_waiting_for_the_app_does_not() {
        let between = Seen { heads: 1, ..QUIET };
        assert_eq!(ended(|_| between, false), Some((60, TooSlow::Idle)));
        assert_eq!(ended(|_| between, true), None);
        assert_eq!(ended(|_| Seen { phase: Phase::Raw, ..between }, true), None);
    }

    #[test]
    fn who_was_told_to_end_may_stay_no_longer_than_a_head_may_take() {
        let limit = Patience::default().head;
        let between = Seen { heads: 1, ..QUIET };
        let outstays = |seen: &dyn Fn(u32) -> Seen, busy| {
            let mut waiting = Waiting::default();
            (0..200_u32).find(|second| {
                if *second == 5 {
                    waiting.tell();
                }
                waiting.look(seen(*second), busy, SECOND, &Patience::default());
                waiting.outstays(limit)
            })
        };
        assert_eq!(outstays(&|_| between, false), Some(14));
        assert_eq!(outstays(&|_| between, true), None, "it is being answered");
        let takes_the_rest = |second: u32| Seen { moved: second < 100, ..between };
        assert_eq!(outstays(&takes_the_rest, false), Some(109));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off() {
        assert_eq!(ended(|_| Seen { wants_write: true, ..QUIET }, true), Some((60, TooSlow::Stall)));
    }
}
