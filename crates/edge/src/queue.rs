//! The requests of one app that wait, over all threads: how many may, and in which order they get their turn.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_routing::waiting::{Pace, may_take};
use tokio::sync::Notify;

use crate::answer::Reason;
use crate::record::Record;
use crate::worker::{Choice, Target, Worker};

/// So many requests wait, of all apps together. Each costs its head, at most 32 KiB, beside the client's connection that it takes up anyway; so
/// all of them cost 256 MiB and mostly a small part of it. The apps share these places by [`may_take`].
const WAITING_MAX: usize = 8_192;

/// Those of one app that wait. It outlives snapshots.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whatever they wait for.
    waiting: AtomicUsize,
    /// Those among them that wait for an instance to have room, in a line.
    in_line: AtomicUsize,
    pace: Mutex<Pace>,
    /// An instance that had as many requests as it may has one less.
    freed: Notify,
    /// Those of all apps that wait.
    all: Arc<AtomicUsize>,
}

/// A request that waits, counted for as long as this exists.
pub(crate) struct Waiting<'a>(&'a Queue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
        self.0.all.fetch_sub(1, SeqCst);
    }
}

/// A place in the line.
struct InLine<'a> {
    queue: &'a Queue,
    since: Duration,
    ahead: usize,
    _waiting: Waiting<'a>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.queue.in_line.fetch_sub(1, SeqCst);
    }
}

impl Queue {
    /// The queue of an app that shares the places of all with others.
    pub(crate) fn among(all: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { all: Arc::clone(all), ..Self::default() })
    }

    /// Whether some wait for room, so that whoever comes has to queue up behind them.
    pub(crate) fn has_line(&self) -> bool {
        self.in_line.load(SeqCst) > 0
    }

    /// Gives the first in the line its turn. Whoever queues up counts itself first and looks for room then; what is freed is counted before
    /// this is called: one of the two sees the other.
    pub(crate) fn freed(&self) {
        if self.has_line() {
            self.freed.notify_one();
        }
    }

    /// Waits for `pause`, or less when something changed on this thread that may let a request through. False when too many wait.
    pub(crate) async fn wait(&self, worker: &Worker, pause: Duration) -> bool {
        let Some(_waiting) = self.enter() else { return false };
        // Either way the next thing is to try again.
        let _changed = tokio::time::timeout(pause, worker.stirred()).await.is_ok();
        true
    }

    /// Waits in the line until `target` has room or something else becomes of it, for `patience` at most. Backends that were `tried` are
    /// tried again once something changed.
    pub(crate) async fn turn(
        &self,
        worker: &Rc<Worker>,
        target: &Target,
        tried: &mut Vec<u64>,
        patience: Duration,
        mut record: Option<&mut Record>,
    ) -> Result<Choice, Reason> {
        let place = self.line_up(worker.now(), patience).map_err(Reason::busy)?;
        let mut deadline = pin!(tokio::time::sleep(patience));
        loop {
            // It is in the line from here on, before it looks: what is freed after the look is not missed.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            loop {
                let stirred = worker.stirred();
                match worker.choose(target, tried, true, record.as_deref_mut()) {
                    Choice::Full(_) => {}
                    Choice::Backend(lease) => {
                        self.pace().had_turn(
                            worker.now(),
                            worker.now().saturating_sub(place.since),
                            place.ahead,
                        );
                        return Ok(Choice::Backend(lease));
                    }
                    other => return Ok(other),
                }
                tokio::select! {
                    () = &mut freed => break,
                    () = stirred => tried.clear(),
                    () = &mut deadline => return Err(Reason::Full),
                }
            }
        }
    }

    /// A place among those that wait, if there is one.
    pub(crate) fn enter(&self) -> Option<Waiting<'_>> {
        // Counted first and looked at then, so that no two take the last place. Who is one too many by another's try may be refused too.
        let all = self.all.fetch_add(1, SeqCst);
        let own = self.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(self);
        may_take(own, all, WAITING_MAX).then_some(waiting)
    }

    /// A place at the end of the line; else after how long to try again.
    fn line_up(&self, now: Duration, patience: Duration) -> Result<InLine<'_>, Duration> {
        let waiting = self.enter().ok_or(Duration::ZERO)?;
        let ahead = self.in_line.fetch_add(1, SeqCst);
        let place = InLine { queue: self, since: now, ahead, _waiting: waiting };
        let mut pace = self.pace();
        if ahead == 0 {
            *pace = Pace::new(now);
        }
        pace.may_wait(now, ahead, patience).map(|()| place)
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        // Nothing in there is left half done by a panic.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_of_one_app_leaves_places_to_another() {
        let all = Arc::default();
        let (crowd, other) = (Queue::among(&all), Queue::among(&all));
        let held: Vec<_> = std::iter::from_fn(|| crowd.enter()).collect();
        assert_eq!(held.len(), WAITING_MAX / 2);
        let beside: Vec<_> = std::iter::from_fn(|| other.enter()).collect();
        assert_eq!(beside.len(), WAITING_MAX / 4);
        drop(held);
        assert!(crowd.enter().is_some());
        drop(beside);
        assert_eq!(all.load(SeqCst), 0, "who left takes up no place");
    }

    #[test]
    fn who_would_wait_in_vain_is_told_at_once() {
        let queue = Queue::among(&Arc::default());
        let second = Duration::from_secs(1);
        let first = queue.line_up(second, second).ok().unwrap();
        let beside = queue.line_up(second, second).ok().unwrap();
        // Nobody had a turn for a second, and two are before it.
        assert!(queue.line_up(2 * second, second).is_err_and(|after| after >= 2 * second));
        assert!(queue.has_line());
        drop((first, beside));
        assert!(!queue.has_line());
        assert!(queue.line_up(9 * second, second).is_ok(), "another line is another matter");
    }
}
