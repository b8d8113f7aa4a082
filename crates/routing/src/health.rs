//! What a probe asks, what its answers mean, and when the next one is due.

use std::collections::VecDeque;
use std::time::Duration;

use crate::balance::pause;
use crate::snapshot::{Probe, ProbePath};
use crate::wire::Health;

/// So many failures in a row make a ready instance a failing one.
pub const FAILURES_MAX: u32 = 3;
/// So many answers are kept as evidence.
pub const EVIDENCE_MAX: usize = 5;
/// The paths that are guessed, in this order.
const GUESSES: [&str; 2] = ["/healthz", "/up"];

/// What to do to an instance to learn of its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// `GET` this path.
    Get(&'a str),
    /// Connect and close again.
    Connect,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It took a connection, which was all that was asked.
    Connected,
    /// It took no connection, for this reason.
    Unreachable(String),
    /// It took a connection and gave no response, for this reason.
    Silent(String),
    /// It responded.
    Responded {
        /// The status.
        status: u16,
        /// The `Location` header.
        location: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Good(String),
    Bad(String),
    /// This path is not there: ask the next one.
    Next,
}

/// The health of one instance, as its probes have shown it.
#[derive(Debug, Clone)]
pub struct Tracker {
    probe: Probe,
    /// Which guess decides; it moves on past paths that the app does not have and starts over when a probe fails.
    guess: usize,
    health: Health,
    failures: u32,
    probes: u32,
    evidence: VecDeque<String>,
}

impl Tracker {
    /// An instance that was never probed.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        let evidence = VecDeque::with_capacity(EVIDENCE_MAX);
        Self { probe, guess: 0, health: Health::Unready, failures: 0, probes: 0, evidence }
    }

    /// What to ask now.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        match &self.probe.path {
            ProbePath::Strict(path) => Question::Get(path),
            ProbePath::Guess => GUESSES.get(self.guess).map_or(Question::Connect, |path| Question::Get(path)),
        }
    }

    /// Takes an answer to [`Tracker::question`]. True when the probe is complete, false when the next question
    /// belongs to the same probe.
    pub fn answer(&mut self, answer: &Answer) -> bool {
        match self.judge(answer) {
            Verdict::Next => {
                self.guess += 1;
                return false;
            }
            Verdict::Good(evidence) => {
                self.note(evidence);
                self.failures = 0;
                self.health = Health::Ready;
            }
            Verdict::Bad(evidence) => {
                self.note(evidence);
                self.guess = 0;
                self.failures = self.failures.saturating_add(1);
                if self.health == Health::Ready && self.failures >= FAILURES_MAX {
                    self.health = Health::Failing;
                }
            }
        }
        self.probes = self.probes.saturating_add(1);
        true
    }

    /// How long to wait between a complete probe and the next one. An instance that is not ready yet is asked again
    /// after 10 ms, doubling to 200 ms; one that stopped being well is asked at the interval, or sooner.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let interval = self.probe.interval.as_duration();
        match self.health {
            Health::Unready => pause(self.probes.saturating_sub(1)),
            Health::Ready if self.failures == 0 => interval,
            Health::Ready | Health::Failing => pause(u32::MAX).min(interval),
        }
    }

    /// How long one question may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.probe.timeout.as_duration()
    }

    /// What the answers amount to.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// The last answers in words, newest last, at most [`EVIDENCE_MAX`]. Equal neighbours are kept once.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        self.evidence.iter().cloned().collect()
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        let strict = matches!(self.probe.path, ProbePath::Strict(_));
        let path = match self.question() {
            Question::Get(path) => path,
            Question::Connect => "",
        };
        match answer {
            Answer::Connected => Verdict::Good("accepts connections".to_owned()),
            Answer::Unreachable(reason) => Verdict::Bad(format!("takes no connection: {reason}")),
            Answer::Silent(reason) if strict => Verdict::Bad(format!("GET {path}: {reason}")),
            Answer::Silent(reason) => {
                Verdict::Good(format!("GET {path}: {reason}; it accepts connections, which counts as ready"))
            }
            Answer::Responded { status: 200..=299, .. } => Verdict::Good(status_line(path, answer)),
            Answer::Responded { status: 404 | 405, .. } if !strict => Verdict::Next,
            Answer::Responded { .. } if strict => Verdict::Bad(status_line(path, answer)),
            Answer::Responded { .. } => Verdict::Good(format!(
                "{}; no health check is configured, so that it accepts connections counts as ready",
                status_line(path, answer)
            )),
        }
    }

    fn note(&mut self, evidence: String) {
        if self.evidence.back() == Some(&evidence) {
            return;
        }
        if self.evidence.len() == EVIDENCE_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back(evidence);
    }
}

fn status_line(path: &str, answer: &Answer) -> String {
    match answer {
        Answer::Responded { status: status @ 300..=399, location: Some(location) } => {
            let location: String = location.chars().take(200).collect();
            format!(
                "GET {path} answered {status}, redirected to {location}; a health check must answer 2xx itself"
            )
        }
        Answer::Responded { status, .. } => format!("GET {path} answered {status}"),
        Answer::Connected | Answer::Unreachable(_) | Answer::Silent(_) => {
            format!("GET {path} was not answered")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_spec::Millis;
    use proptest::prelude::*;

    fn tracker(path: ProbePath) -> Tracker {
        Tracker::new(Probe { path, interval: Millis(1_000), timeout: Millis(5_000) })
    }

    fn responded(status: u16) -> Answer {
        Answer::Responded { status, location: None }
    }

    fn refused() -> Answer {
        Answer::Unreachable("connection refused".to_owned())
    }

    #[test]
    fn a_guess_falls_through_what_is_not_there_and_ends_at_a_connection() {
        let mut tracker = tracker(ProbePath::Guess);
        assert_eq!(tracker.question(), Question::Get("/healthz"));
        assert!(!tracker.answer(&responded(404)));
        assert_eq!(tracker.question(), Question::Get("/up"));
        assert!(!tracker.answer(&responded(405)));
        assert_eq!(tracker.question(), Question::Connect);
        assert!(tracker.answer(&Answer::Connected));
        assert_eq!(tracker.health(), Health::Ready);
        assert_eq!(tracker.question(), Question::Connect, "the path that decided is asked again");
    }

    #[test]
    fn a_guess_reports_what_it_found_and_lets_the_connection_decide() {
        let mut tracker = tracker(ProbePath::Guess);
        assert!(tracker.answer(&responded(500)));
        assert_eq!(tracker.health(), Health::Ready);
        assert!(tracker.evidence()[0].contains("GET /healthz answered 500"), "{:?}", tracker.evidence());
    }

    #[test]
    fn a_strict_path_takes_nothing_but_2xx() {
        for status in [301, 302, 400, 401, 404, 405, 500, 503] {
            let mut tracker = tracker(ProbePath::Strict("/health".to_owned()));
            assert!(tracker.answer(&responded(status)));
            assert_eq!(tracker.health(), Health::Unready, "{status}");
            assert!(tracker.answer(&responded(204)));
            assert_eq!(tracker.health(), Health::Ready, "{status}");
        }
    }

    #[test]
    fn a_redirect_is_explained() {
        let mut tracker = tracker(ProbePath::Strict("/health".to_owned()));
        tracker.answer(&Answer::Responded { status: 302, location: Some("/login".to_owned()) });
        let expected =
            "GET /health answered 302, redirected to /login; a health check must answer 2xx itself";
        assert_eq!(tracker.evidence(), [expected]);
    }

    #[test]
    fn three_failures_in_a_row_make_a_ready_instance_fail() {
        let mut tracker = tracker(ProbePath::Guess);
        for _ in 0..9 {
            tracker.answer(&refused());
        }
        assert_eq!(tracker.health(), Health::Unready, "what was never ready does not fail");
        tracker.answer(&responded(200));
        for expected in [Health::Ready, Health::Ready, Health::Failing, Health::Failing] {
            tracker.answer(&refused());
            assert_eq!(tracker.health(), expected);
        }
        tracker.answer(&responded(200));
        assert_eq!(tracker.health(), Health::Ready, "one good probe is enough");
    }

    #[test]
    fn probes_come_fast_until_ready_and_then_at_the_interval() {
        let mut tracker = tracker(ProbePath::Guess);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            tracker.answer(&refused());
            pauses.push(tracker.pause().as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 200]);
        tracker.answer(&responded(200));
        assert_eq!(tracker.pause().as_millis(), 1_000);
        tracker.answer(&refused());
        assert_eq!(tracker.pause().as_millis(), 200);
    }

    proptest! {
        #[test]
        fn evidence_and_pauses_stay_bounded(statuses in proptest::collection::vec(100_u16..600, 0..40), strict in any::<bool>()) {
            let path = if strict { ProbePath::Strict("/".to_owned()) } else { ProbePath::Guess };
            let mut tracker = tracker(path);
            for status in statuses {
                let answer = if tracker.question() == Question::Connect { Answer::Connected } else { responded(status) };
                tracker.answer(&answer);
                prop_assert!(tracker.evidence().len() <= EVIDENCE_MAX);
                prop_assert!(tracker.pause() <= Duration::from_secs(1));
            }
        }
    }
}
