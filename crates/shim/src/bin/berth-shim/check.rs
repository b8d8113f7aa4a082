//! When an app's check is due, and what its outcomes make of the app.

use berth_shim::check::{Check, CheckRun, Checked, Verdict};

/// The checks of an app. Times are milliseconds of the steady clock.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) check: Check,
    checked: Checked,
    /// When the next one is due; `None` while one runs, or the app does not.
    next: Option<u64>,
    /// Whether the app runs, and is to.
    runs: bool,
    /// How many of the last failures count.
    counted: u32,
    /// From when on a failure counts. As long as none has passed they follow quickly, and no more than one in an interval counts.
    counts_from: u64,
}

impl Checks {
    pub(crate) fn new(check: Check) -> Self {
        Self { check, checked: Checked::default(), next: None, runs: false, counted: 0, counts_from: 0 }
    }

    /// The app was started.
    pub(crate) fn begin(&mut self, now: u64) {
        let last = self.checked.last.take();
        self.checked = Checked { last, ..Checked::default() };
        (self.counted, self.runs) = (0, true);
        self.counts_from = now.saturating_add(self.check.start_period.max(self.check.interval));
        self.next = Some(now.saturating_add(self.check.start_interval));
    }

    /// The app has ended, or is to.
    pub(crate) fn end(&mut self) {
        (self.next, self.runs) = (None, false);
    }

    /// In how many milliseconds one is due; `None` when none will be.
    pub(crate) fn due_in(&self, now: u64) -> Option<u64> {
        self.next.map(|next| next.saturating_sub(now))
    }

    /// One begins.
    pub(crate) fn started(&mut self) {
        self.next = None;
    }

    /// One could not begin, or has come to nothing: neither the app nor the check has done anything wrong.
    pub(crate) fn put_off(&mut self, now: u64) {
        self.wait(now);
    }

    /// One has ended. Whether that is news to whoever looks at the app.
    pub(crate) fn ended(&mut self, run: CheckRun, now: u64) -> bool {
        let before = self.checked.verdict;
        let failed = !run.passed() || self.checked.last.as_ref().is_none_or(|last| !last.passed());
        if run.passed() {
            self.checked = Checked { verdict: Verdict::Healthy, failures: 0, last: None };
            self.counted = 0;
        } else {
            self.checked.failures += 1;
            if !self.is_starting() {
                self.counted += 1;
            } else if now >= self.counts_from {
                self.counted += 1;
                self.counts_from = now.saturating_add(self.check.interval);
            }
            if self.counted >= self.check.retries {
                self.checked.verdict = Verdict::Unhealthy;
            }
        }
        self.checked.last = Some(run);
        self.wait(now);
        failed || before != self.checked.verdict
    }

    /// Has the next one come after a pause.
    fn wait(&mut self, now: u64) {
        // Nobody waits for it longer than for others once they have passed.
        let quick = self.check.start_interval.min(self.check.interval);
        let pause = if self.is_starting() { quick } else { self.check.interval };
        self.next = (self.runs && !self.is_unhealthy()).then(|| now.saturating_add(pause));
    }

    /// Whether none has passed yet.
    fn is_starting(&self) -> bool {
        self.checked.verdict == Verdict::Starting
    }

    /// How the app stands.
    pub(crate) fn checked(&self) -> &Checked {
        &self.checked
    }

    pub(crate) fn is_unhealthy(&self) -> bool {
        self.checked.verdict == Verdict::Unhealthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(start_period: u64) -> Checks {
        let check = Check {
            command: vec!["check".to_owned()],
            interval: 30,
            timeout: 30,
            start_period,
            start_interval: 1,
            retries: 3,
            stop_signal: 15,
            kill_after: 10,
        };
        let mut checks = Checks::new(check);
        checks.begin(100);
        checks
    }

    fn ended(code: i32) -> CheckRun {
        CheckRun { code: Some(code), ..CheckRun::default() }
    }

    /// Fails or passes as soon as it is due, and gives when that was.
    fn turn(checks: &mut Checks, mut now: u64, code: i32) -> u64 {
        now += checks.due_in(now).unwrap();
        checks.started();
        assert_eq!(checks.due_in(now), None);
        checks.ended(ended(code), now);
        now
    }

    #[test]
    fn until_one_has_passed_they_follow_quickly_and_failures_do_not_count() {
        let mut checks = checks(0);
        let mut now = 100;
        // Of those after the time that is excused one in an interval counts: 130, 160, 190.
        for expected in 101..190 {
            now = turn(&mut checks, now, 1);
            assert_eq!((now, checks.checked().verdict), (expected, Verdict::Starting));
        }
        now = turn(&mut checks, now, 1);
        assert_eq!((now, checks.checked().verdict), (190, Verdict::Unhealthy));
        assert_eq!((checks.due_in(now), checks.checked().failures), (None, 90));
    }

    #[test]
    fn one_that_is_ready_late_is_found_at_once() {
        let mut checks = checks(0);
        let mut now = 100;
        while now < 145 {
            now = turn(&mut checks, now, 1);
        }
        now = turn(&mut checks, now, 0);
        assert_eq!((now, checks.checked().verdict), (146, Verdict::Healthy));
        assert_eq!(checks.due_in(now), Some(30), "and is asked as often as it says from there on");
    }

    #[test]
    fn so_many_in_a_row_make_it_unhealthy_and_one_that_passes_begins_anew() {
        let mut checks = checks(500);
        let mut now = turn(&mut checks, 100, 0);
        assert_eq!(checks.checked().verdict, Verdict::Healthy);
        // Once one has passed no failure is excused, however long the start was said to take.
        for code in [1, 1, 0, 1, 1] {
            now = turn(&mut checks, now, code);
            assert_eq!(checks.checked().verdict, Verdict::Healthy);
        }
        assert_eq!(now, 101 + 5 * 30);
        turn(&mut checks, now, 1);
        assert!(checks.is_unhealthy());
        // Started again it has its chance, and what it failed with is still there to be told.
        checks.begin(1_000);
        assert_eq!(checks.checked().verdict, Verdict::Starting);
        assert_eq!(checks.checked().last, Some(ended(1)));
        assert_eq!(checks.due_in(1_000), Some(1));
    }

    #[test]
    fn what_stays_as_it_was_is_no_news() {
        let mut checks = checks(0);
        assert!(checks.ended(ended(1), 101));
        assert!(checks.ended(ended(0), 102));
        assert!(!checks.ended(ended(0), 132));
        assert!(checks.ended(ended(1), 162));
        assert!(checks.ended(ended(0), 192));
        checks.put_off(200);
        assert_eq!(checks.due_in(200), Some(30));
        checks.end();
        checks.put_off(200);
        assert_eq!(checks.due_in(200), None);
    }
}
