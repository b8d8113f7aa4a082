//! What keeps an app awake, and what wakes it.
//!
//! Requests do, while they are under way; so does what a client sends on a connection that stands open. Such a connection by itself does not,
//! nor what the app sends on it: it would keep itself awake. Probes of health do not come by here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use berth_routing::Generation;
use tokio::sync::Notify;

/// Of one app, over all threads and snapshots.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Whether somebody did something since this was last looked at.
    stirred: AtomicBool,
    /// Since which generation it sleeps; nought while it is awake. No app sleeps before the journal has events.
    asleep: AtomicU64,
    /// Whether somebody waits for it while it sleeps.
    wanted: AtomicBool,
    /// How many requests for it wait.
    held: AtomicU64,
    /// Wakes the control thread.
    changed: Arc<Notify>,
}

impl Activity {
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self {
            stirred: AtomicBool::new(false),
            asleep: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            held: AtomicU64::new(0),
            changed,
        }
    }

    /// A client did something. Where the app sleeps, control is told that it is wanted.
    pub(crate) fn stir(&self) {
        self.stirred.store(true, Relaxed);
        if self.asleep.load(Relaxed) != 0 && !self.wanted.swap(true, SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Whether it sleeps by the newest snapshot.
    pub(crate) fn sleeps(&self) -> bool {
        self.asleep.load(Relaxed) != 0
    }

    /// Whether a client did something since the last call.
    pub(crate) fn take_stirred(&self) -> bool {
        self.stirred.swap(false, Relaxed)
    }

    /// The snapshot that is about to be used says that it sleeps since then, or is awake. What was wanted of an earlier sleep is not of this one.
    pub(crate) fn set_asleep(&self, since: Option<Generation>) {
        let since = since.map_or(0, |generation| generation.0);
        if self.asleep.swap(since, SeqCst) != since {
            self.wanted.store(false, SeqCst);
        }
    }

    /// Whether a request for it waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.held.load(Relaxed) > 0
    }

    /// Since when it sleeps, if somebody waits for it.
    pub(crate) fn wanted(&self) -> Option<Generation> {
        let asleep = self.asleep.load(SeqCst);
        (asleep != 0 && self.wanted.load(SeqCst)).then_some(Generation(asleep))
    }

    /// Counts a request that waits.
    pub(crate) fn hold(this: &Arc<Self>) -> Waits {
        this.held.fetch_add(1, Relaxed);
        Waits(Arc::clone(this))
    }
}

/// A request that waits for its app.
#[derive(Debug)]
pub(crate) struct Waits(Arc<Activity>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_while_it_sleeps_says_that_it_is_wanted() {
        let activity = Activity::new(Arc::default());
        activity.stir();
        assert_eq!(
            (activity.take_stirred(), activity.take_stirred(), activity.wanted()),
            (true, false, None)
        );
        activity.set_asleep(Some(Generation(7)));
        assert_eq!(activity.wanted(), None, "what came before it fell asleep does not wake it");
        activity.stir();
        activity.set_asleep(Some(Generation(7)));
        assert_eq!(activity.wanted(), Some(Generation(7)));
        activity.set_asleep(None);
        assert_eq!(activity.wanted(), None);
        activity.set_asleep(Some(Generation(9)));
        assert_eq!(activity.wanted(), None, "the next sleep is another");
    }

    #[test]
    fn it_is_waited_for_while_a_request_waits() {
        let activity = Arc::new(Activity::new(Arc::default()));
        let (first, second) = (Activity::hold(&activity), Activity::hold(&activity));
        drop(first);
        assert!(activity.is_waited_for());
        drop(second);
        assert!(!activity.is_waited_for());
    }
}
