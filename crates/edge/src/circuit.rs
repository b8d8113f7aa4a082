//! Whether an instance is passed over because what it was sent failed.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_routing::breaker::Breaker;

/// It gets requests like any other.
const CLOSED: u8 = 0;
/// Others are preferred.
const PASSED_OVER: u8 = 1;
/// The next request to it is the trial.
const HALF_OPEN: u8 = 2;
/// The trial is under way, and others are preferred until it has ended.
const TRIAL: u8 = 3;

/// The breaker of one instance. Threads tell it what became of their requests; whether it is obeyed the control thread decides, which alone sees
/// all instances of an app.
///
/// What a thread looks at for each request are single atomics: the lock is taken only where something fails or has failed.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    state: AtomicU8,
    /// Whether a success changes anything.
    troubled: AtomicBool,
    /// Whether the breaker is not closed.
    open: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    breaker: Breaker,
    /// When it was spared last.
    spared: Option<Duration>,
}

/// So long after it was spared an instance is not decided about in a hurry: a lone one that fails everything would keep the control thread busy.
const CALM: Duration = Duration::from_secs(1);

/// What the control thread decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The instance is passed over for so long.
    PassOver(Duration),
    /// It gets one request to show whether it is well.
    TryAgain,
    /// It is not passed over, since too many of its app fail.
    Spare,
}

/// What a thread has to know of an instance that it picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The request is one of many.
    Plain,
    /// The request is the trial.
    Trial,
    /// The trial went to another request in this moment.
    Taken,
}

impl Circuit {
    /// Whether others are preferred.
    pub(crate) fn is_passed_over(&self) -> bool {
        matches!(self.state.load(Relaxed), PASSED_OVER | TRIAL)
    }

    /// A request goes to the instance.
    pub(crate) fn enter(&self) -> Entry {
        if self.state.load(Relaxed) != HALF_OPEN {
            return Entry::Plain;
        }
        match self.state.compare_exchange(HALF_OPEN, TRIAL, Relaxed, Relaxed) {
            Ok(_) => Entry::Trial,
            Err(_) => Entry::Taken,
        }
    }

    /// The trial has ended. If nobody learned anything from it, the next request is one.
    pub(crate) fn trial_ended(&self) {
        // Else it has decided.
        let _undecided = self.state.compare_exchange(TRIAL, HALF_OPEN, Relaxed, Relaxed);
    }

    /// A request failed at `now`. True when the control thread has to decide at once, and not only when it does so anyway, every second.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let mut record = self.record();
        self.troubled.store(true, Relaxed);
        let opened = record.breaker.failed(now);
        if opened {
            self.open.store(true, Relaxed);
            // What was passed over before stays so without another decision.
            if self.state.load(Relaxed) != CLOSED {
                self.state.store(PASSED_OVER, Relaxed);
            }
        }
        opened && record.spared.is_none_or(|at| now.saturating_sub(at) >= CALM)
    }

    /// A request succeeded. True when the instance gets requests again because of it.
    pub(crate) fn succeeded(&self, now: impl FnOnce() -> Duration) -> bool {
        if !self.troubled.load(Relaxed) {
            return false;
        }
        let mut record = self.record();
        let closed = record.breaker.succeeded(now());
        if closed {
            self.open.store(false, Relaxed);
            self.state.store(CLOSED, Relaxed);
        }
        self.troubled.store(!record.breaker.is_untroubled(), Relaxed);
        closed
    }

    /// Whether there is something to decide.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Decides at `now`: `outlier` says whether enough others of the app are well.
    pub(crate) fn decide(&self, outlier: bool, now: Duration) -> Option<Decision> {
        let mut record = self.record();
        if !self.is_open() {
            return None;
        }
        if !outlier {
            record.spared = Some(now);
            self.forget_all(&mut record.breaker, now);
            return Some(Decision::Spare);
        }
        if record.breaker.try_again(now) {
            self.state.store(HALF_OPEN, Relaxed);
            return Some(Decision::TryAgain);
        }
        let closed = self.state.compare_exchange(CLOSED, PASSED_OVER, Relaxed, Relaxed);
        closed.ok().map(|_| Decision::PassOver(record.breaker.stays_open()))
    }

    /// It is well, by what its probes say after they had said otherwise.
    pub(crate) fn recovered(&self, now: Duration) {
        self.forget_all(&mut self.record().breaker, now);
    }

    fn forget_all(&self, breaker: &mut Breaker, now: Duration) {
        breaker.close(now);
        self.troubled.store(false, Relaxed);
        self.open.store(false, Relaxed);
        self.state.store(CLOSED, Relaxed);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing in there is left half done by a panic.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened() -> Circuit {
        let circuit = Circuit::default();
        assert_eq!((0..5).map(|_| circuit.failed(SECOND)).filter(|opened| *opened).count(), 1);
        circuit
    }

    #[test]
    fn an_outlier_is_passed_over_and_comes_back_by_one_trial() {
        let circuit = opened();
        assert!(circuit.is_open() && !circuit.is_passed_over(), "the control thread decides");
        assert_eq!(circuit.decide(true, SECOND), Some(Decision::PassOver(30 * SECOND)));
        assert_eq!(circuit.decide(true, 2 * SECOND), None);
        assert_eq!((circuit.is_passed_over(), circuit.enter()), (true, Entry::Plain), "for want of another");
        assert_eq!(circuit.decide(true, 31 * SECOND), Some(Decision::TryAgain));
        assert!(!circuit.is_passed_over());
        assert_eq!([circuit.enter(), circuit.enter()], [Entry::Trial, Entry::Plain]);
        assert!(circuit.is_passed_over(), "one is enough");
        circuit.trial_ended();
        assert_eq!(circuit.enter(), Entry::Trial, "the one before taught nothing");
        assert!(circuit.succeeded(|| 32 * SECOND));
        circuit.trial_ended();
        assert!(!circuit.is_passed_over() && !circuit.is_open());
        assert_eq!(circuit.enter(), Entry::Plain);
    }

    #[test]
    fn a_trial_that_fails_is_the_last_one_for_longer() {
        let circuit = opened();
        circuit.decide(true, SECOND);
        circuit.decide(true, 31 * SECOND);
        assert_eq!(circuit.enter(), Entry::Trial);
        assert!(circuit.failed(32 * SECOND));
        circuit.trial_ended();
        assert!(circuit.is_passed_over());
        assert_eq!(circuit.decide(true, 91 * SECOND), None);
        assert_eq!(circuit.decide(true, 92 * SECOND), Some(Decision::TryAgain));
    }

    #[test]
    fn who_is_no_outlier_is_spared() {
        let circuit = opened();
        circuit.decide(true, SECOND);
        assert_eq!(circuit.decide(false, SECOND), Some(Decision::Spare));
        assert!(!circuit.is_passed_over() && !circuit.is_open());
        assert_eq!(circuit.decide(true, SECOND), None);
        let hurries = |now| (0..5).any(|_| circuit.failed(now));
        assert!(!hurries(SECOND + SECOND / 2), "it waits for the next second");
        assert_eq!(circuit.decide(false, 2 * SECOND), Some(Decision::Spare));
        assert!(hurries(3 * SECOND));
        let circuit = opened();
        circuit.decide(true, SECOND);
        circuit.recovered(SECOND);
        assert!(!circuit.is_passed_over());
    }
}
