//! All that happened under a load, and what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::client::{Exchange, Failure};
use super::order::{self, Activation, Violation};

/// An answer that was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When the request was begun.
    pub start: Duration,
    /// When the answer had been read.
    pub end: Duration,
    /// The connection, named by no other.
    pub connection: u64,
    /// The release that answered.
    pub release: String,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// When it was begun.
    pub start: Duration,
    /// When it had failed.
    pub end: Duration,
    /// The connection.
    pub connection: u64,
    /// Its port on the client's side, and when it was begun to be opened; none where that did not succeed.
    pub opened: Option<(u16, Duration)>,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// Why.
    pub failure: Failure,
}

impl Failed {
    /// The number of the client that it happened to, which sends one request at a time.
    #[must_use]
    pub const fn worker(&self) -> u64 {
        self.connection >> 32
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, connection, opened, method, path, failure } = self;
        write!(f, "{method} {path} on connection {connection:x}")?;
        if let Some((port, opened)) = opened {
            write!(f, " (port {port}, opened at {opened:?})")?;
        }
        write!(f, " from {start:?} to {end:?}: {failure}")
    }
}

/// Something that was killed on purpose: what was in flight then may fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// What.
    pub what: String,
    /// When, on the load's clock: just before the signal was sent.
    pub at: Duration,
    /// How long its effects may last: until the process has ended where only what was in flight may fail, 5 s and more for an
    /// app's only instance.
    pub effect: Duration,
    /// Whether the listeners were lost with it: connections are refused until they are there again.
    pub refuses: bool,
    /// The clients' ports of the connections that died with it, where those are known: then nothing else may fail, but these whenever
    /// their client hears of it. The end of one need not have reached the client yet when the process has ended.
    pub connections: Option<BTreeSet<u16>>,
}

impl Kill {
    /// Whether `failed` was on a connection that died with this; where those are not known, or the listeners were lost, too: whether it was
    /// in flight when this happened, or begun while its effects lasted. A refused connection is excused by nothing but the loss of the
    /// listeners: they belong to the supervisor and to edge, and while one of them lives the kernel queues.
    #[must_use]
    pub fn explains(&self, failed: &Failed) -> bool {
        if failed.end < self.at || (failed.failure == Failure::Refused && !self.refuses) {
            return false;
        }
        let over = self.at + self.effect;
        let by_time = self.connections.is_none() || self.refuses;
        (by_time && failed.start <= over)
            || failed.opened.is_some_and(|(port, opened)| opened <= over && self.held(port))
    }

    fn held(&self, port: u16) -> bool {
        self.connections.as_ref().is_some_and(|ports| ports.contains(&port))
    }
}

/// A request that was sent, whatever came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// By which protocol, or in which session.
    pub(super) kind: &'static str,
    pub(super) start: Duration,
    pub(super) end: Duration,
    /// The client that sent it, which has one request under way at a time.
    pub(super) number: u32,
    pub(super) over: Way,
}

/// Which of a client's connections a request went over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    /// One for each that was opened, never the same again.
    pub(super) serial: u64,
    /// Its port on the client's side, and when it was begun to be opened, once it was.
    pub(super) opened: Option<(u16, Duration)>,
}

impl Sent {
    fn connection(&self) -> u64 {
        (u64::from(self.number) << 32) | self.over.serial
    }
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Right answers, in the order of their ends.
    pub samples: Vec<Sample>,
    /// Failures, in the order of their ends.
    pub failed: Vec<Failed>,
    /// How many were right by each protocol, and in each session that lasts; the latter are no samples.
    pub right: BTreeMap<&'static str, u64>,
    asked: u32,
    took: Duration,
}

impl Outcome {
    pub(super) fn new(asked: u32, took: Duration) -> Self {
        Self { asked, took, ..Self::default() }
    }

    /// Notes what came of a request.
    pub(super) fn note(&mut self, sent: Sent, exchange: &Exchange, answer: Result<String, Failure>) {
        match answer {
            Ok(release) => {
                *self.right.entry(sent.kind).or_default() += 1;
                let Sent { start, end, .. } = sent;
                self.samples.push(Sample { start, end, connection: sent.connection(), release });
            }
            Err(failure) => self.fail(sent, exchange.method, &exchange.path, failure),
        }
    }

    /// Notes what came of a session.
    pub(super) fn note_session(&mut self, sent: Sent, path: &str, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => *self.right.entry(sent.kind).or_default() += 1,
            Err(failure) => self.fail(sent, sent.kind, path, failure),
        }
    }

    fn fail(&mut self, sent: Sent, method: &str, path: &str, failure: Failure) {
        let (connection, Sent { start, end, over: Way { opened, .. }, .. }) = (sent.connection(), sent);
        let (method, path) = (method.to_owned(), path.to_owned());
        self.failed.push(Failed { start, end, connection, opened, method, path, failure });
    }

    pub(super) fn add(&mut self, part: Self) {
        self.samples.extend(part.samples);
        self.failed.extend(part.failed);
        for (kind, count) in part.right {
            *self.right.entry(kind).or_default() += count;
        }
    }

    pub(super) fn sort(&mut self) {
        self.samples.sort_by_key(|sample| sample.end);
        self.failed.sort_by_key(|failed| failed.end);
    }

    /// Requests in a second that were begun, which is less than was asked for where the machine or the server did not keep up.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let requests = u32::try_from(self.samples.len() + self.failed.len()).unwrap_or(u32::MAX);
        f64::from(requests) / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Failures that none of `kills` explains.
    #[must_use]
    pub fn unexplained(&self, kills: &[Kill]) -> Vec<&Failed> {
        self.failed.iter().filter(|failed| !kills.iter().any(|kill| kill.explains(failed))).collect()
    }

    /// Answers that came from a release whose time it was not.
    #[must_use]
    pub fn violations(&self, activations: &[Activation]) -> Vec<Violation> {
        order::violations(&self.samples, activations)
    }

    /// Panics unless every failure is explained, every release answered in its time, and there was any load at all.
    pub fn assert_clean(&self, activations: &[Activation], kills: &[Kill]) {
        const SHOWN: usize = 20;
        let show = |lines: Vec<String>| lines.into_iter().take(SHOWN).collect::<Vec<_>>().join("\n  ");
        assert!(!self.samples.is_empty(), "no request was answered: {self}");
        let unexplained = self.unexplained(kills);
        let lines = unexplained.iter().map(ToString::to_string).collect();
        assert!(unexplained.is_empty(), "{self}\nfailures that no kill explains:\n  {}", show(lines));
        let violations = self.violations(activations);
        let lines = violations.iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{self}\nanswers out of order:\n  {}", show(lines));
    }

    /// The time within which `part` of a hundred right answers came.
    fn percentile(&self, part: usize) -> Option<Duration> {
        let mut times: Vec<Duration> = self.samples.iter().map(|sample| sample.end - sample.start).collect();
        times.sort_unstable();
        let index = (times.len() * part / 100).min(times.len().checked_sub(1)?);
        Some(times[index])
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (right, wrong) = (self.samples.len(), self.failed.len());
        write!(
            f,
            "{right} right and {wrong} failed in {:?}, {:.0}/s of {}/s",
            self.took,
            self.rate(),
            self.asked
        )?;
        if let (Some(median), Some(late), true) = (self.percentile(50), self.percentile(99), right >= 100) {
            write!(f, ", p50 {median:?}, p99 {late:?}")?;
        }
        if self.right.len() > 1 {
            let right: Vec<String> =
                self.right.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
            write!(f, "\n  {} were right", right.join(", "))?;
        }
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for failed in &self.failed {
            *kinds.entry(failed.failure.to_string()).or_default() += 1;
        }
        kinds.iter().try_for_each(|(kind, count)| write!(f, "\n  {count} x {kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a connection that was opened at 50 ms, from the port of that name.
    fn failed(start: u64, end: u64, port: u16, failure: Failure) -> Failed {
        let ms = Duration::from_millis;
        let (method, path, opened) = ("GET".to_owned(), "/".to_owned(), Some((port, ms(50))));
        Failed { start: ms(start), end: ms(end), connection: 1, opened, method, path, failure }
    }

    fn kill(effect: u64) -> Kill {
        Kill {
            what: "edge".to_owned(),
            at: Duration::from_millis(100),
            effect: Duration::from_millis(effect),
            refuses: false,
            connections: None,
        }
    }

    #[test]
    fn only_what_was_in_flight_is_explained_and_never_a_refusal() {
        let mut outcome = Outcome::new(10, Duration::from_secs(1));
        outcome.failed = vec![
            failed(0, 90, 1, Failure::ClosedWithin),
            failed(90, 110, 1, Failure::ClosedWithin),
            failed(120, 130, 1, Failure::ClosedBefore { reused: true }),
            failed(95, 105, 1, Failure::Refused),
        ];
        assert_eq!(outcome.unexplained(&[]).len(), 4);
        assert_eq!(outcome.unexplained(&[kill(0)]).len(), 3);
        assert_eq!(outcome.unexplained(&[kill(50)]).len(), 2);
        assert!(outcome.to_string().contains("2 x closed within the answer"));
    }

    #[test]
    fn where_the_lost_connections_are_known_nothing_else_is_explained() {
        let closed = Failure::ClosedBefore { reused: true };
        let mut edge = Kill { connections: Some(BTreeSet::from([7])), ..kill(20) };
        assert!(edge.explains(&failed(90, 110, 7, closed.clone())), "it was in flight");
        assert!(edge.explains(&failed(300, 301, 7, closed.clone())), "its end came late");
        assert!(!edge.explains(&failed(90, 110, 8, closed.clone())), "it was another process's");
        assert!(!edge.explains(&failed(60, 99, 7, closed.clone())), "it had failed before");
        assert!(!edge.explains(&failed(90, 110, 7, Failure::Refused)));
        let again = Some((7, Duration::from_millis(121)));
        assert!(
            !edge.explains(&Failed { opened: again, ..failed(122, 130, 7, closed.clone()) }),
            "a later one"
        );
        assert!(
            !edge.explains(&Failed { opened: None, ..failed(90, 110, 7, closed.clone()) }),
            "there was none"
        );
        edge.refuses = true;
        assert!(
            edge.explains(&failed(90, 110, 8, closed)),
            "what nobody had accepted went with the listeners"
        );
        assert!(edge.explains(&failed(110, 115, 8, Failure::Refused)));
    }
}
