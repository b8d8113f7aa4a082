//! Checks that are commands: what the shim is told of one, and what it tells of how they came out.
//!
//! Times are milliseconds. What an image says of its check means here what it means to Docker, with one difference: until the first check
//! has passed they follow one another quickly, since somebody waits for it.

use crate::tlv::{self, Fields, Malformed, put, put_i32, put_u64};
use crate::wire::{Failure, Step};

/// The most that is kept of what a check wrote, in bytes: its beginning, as much as Docker keeps.
pub const OUTPUT_MAX: usize = 4 << 10;

/// A command that says by its status whether the app is well: to the shim a program and its arguments, before that whatever `C` writes
/// commands as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<C = Vec<String>> {
    /// What is run, with the app's environment, directory, user, limits and confinement.
    pub command: C,
    /// From the end of one to the beginning of the next.
    pub interval: u64,
    /// How long one may take, until it is killed with all that it started and has failed.
    pub timeout: u64,
    /// How long from the app's start on a failure does not count, unless one has passed before. It is at least [`Check::interval`].
    pub start_period: u64,
    /// From one to the next as long as none has passed; of failures after the start period one in an interval counts.
    pub start_interval: u64,
    /// How many must fail in a row for the app to be unwell.
    pub retries: u32,
    /// The signal that asks an unwell app to end.
    pub stop_signal: i32,
    /// When it is killed after that.
    pub kill_after: u64,
}

/// What the checks make of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// None has passed yet since it was started.
    #[default]
    Starting,
    /// It is well.
    Healthy,
    /// So many failed in a row that it is ended.
    Unhealthy,
}

/// How an app stands with its checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What they make of it.
    pub verdict: Verdict,
    /// How many have failed since the last that passed, those that do not count among them.
    pub failures: u64,
    /// The last one. It may be of the app's life before this one.
    pub last: Option<CheckRun>,
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckRun {
    /// Its exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed because it took too long.
    pub timed_out: bool,
    /// Why it could not be run at all.
    pub failure: Option<Failure>,
    /// The beginning of what it wrote to its output and its errors, at most [`OUTPUT_MAX`] bytes.
    pub output: Vec<u8>,
}

impl CheckRun {
    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.code == Some(0) && !self.timed_out && self.failure.is_none()
    }
}

impl std::fmt::Display for CheckRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { failure: Some(failure), .. } => write!(f, "could not be run: {failure}"),
            Self { timed_out: true, .. } => f.write_str("took too long and was killed"),
            Self { code: Some(code), .. } => write!(f, "ended with status {code}"),
            Self { signal: Some(signal), .. } => write!(f, "was ended by signal {signal}"),
            _ => f.write_str("was killed before it had ended"),
        }
    }
}

impl<C> Check<C> {
    /// The same with this command.
    pub fn with<D>(&self, command: D) -> Check<D> {
        Check {
            command,
            interval: self.interval,
            timeout: self.timeout,
            start_period: self.start_period,
            start_interval: self.start_interval,
            retries: self.retries,
            stop_signal: self.stop_signal,
            kill_after: self.kill_after,
        }
    }
}

impl Check {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.command.iter().for_each(|arg| put(&mut out, 1, arg.as_bytes()));
        put_u64(&mut out, 2, self.interval);
        put_u64(&mut out, 3, self.timeout);
        put_u64(&mut out, 4, self.start_period);
        put_u64(&mut out, 5, self.start_interval);
        put_u64(&mut out, 6, self.retries.into());
        put_i32(&mut out, 7, self.stop_signal);
        put_u64(&mut out, 8, self.kill_after);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut check = Self {
            command: Vec::new(),
            interval: 0,
            timeout: 0,
            start_period: 0,
            start_interval: 0,
            retries: 0,
            stop_signal: 15,
            kill_after: 0,
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, field) => check.command.push(tlv::path(field)?),
                (2, field) => check.interval = tlv::number(field)?,
                (3, field) => check.timeout = tlv::number(field)?,
                (4, field) => check.start_period = tlv::number(field)?,
                (5, field) => check.start_interval = tlv::number(field)?,
                (6, field) => {
                    let retries = u32::try_from(tlv::number(field)?);
                    check.retries = retries.map_err(|_ignored| Malformed("a check fails too often"))?;
                }
                (7, field) => check.stop_signal = tlv::small(field)?,
                (8, field) => check.kill_after = tlv::number(field)?,
                _ => return Err(Malformed("a field of the check is not known")),
            }
        }
        if check.command.first().is_none_or(String::is_empty) {
            return Err(Malformed("the check has no command"));
        }
        if [check.interval, check.timeout, check.start_interval, check.retries.into()].contains(&0) {
            return Err(Malformed("the check would run without a pause, or an end"));
        }
        Ok(check)
    }
}

impl Checked {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let verdict = match self.verdict {
            Verdict::Starting => 0,
            Verdict::Healthy => 1,
            Verdict::Unhealthy => 2,
        };
        put(&mut out, 1, &[verdict]);
        put_u64(&mut out, 2, self.failures);
        if let Some(last) = &self.last {
            put(&mut out, 3, &last.encode());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut checked = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, [0]) => checked.verdict = Verdict::Starting,
                (1, [1]) => checked.verdict = Verdict::Healthy,
                (1, [2]) => checked.verdict = Verdict::Unhealthy,
                (1, _) => return Err(Malformed("a verdict is not known")),
                (2, field) => checked.failures = tlv::number(field)?,
                (3, field) => checked.last = Some(CheckRun::decode(field)?),
                _ => {}
            }
        }
        Ok(checked)
    }
}

impl CheckRun {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(code) = self.code {
            put_i32(&mut out, 1, code);
        }
        if let Some(signal) = self.signal {
            put_i32(&mut out, 2, signal);
        }
        put(&mut out, 3, &[u8::from(self.timed_out)]);
        if let Some(failure) = self.failure {
            put(&mut out, 4, &[failure.step.number()]);
            put_i32(&mut out, 5, failure.errno);
        }
        put(&mut out, 6, self.output.get(..self.output.len().min(OUTPUT_MAX)).unwrap_or_default());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut run = Self::default();
        let (mut step, mut errno) = (None, 0);
        for field in Fields::of(bytes) {
            match field? {
                (1, field) => run.code = Some(tlv::small(field)?),
                (2, field) => run.signal = Some(tlv::small(field)?),
                (3, field) => run.timed_out = field == [1],
                (4, field) => step = field.first().copied().map(Step::from_number),
                (5, field) => errno = tlv::small(field)?,
                (6, field) => run.output = field.to_vec(),
                _ => {}
            }
        }
        run.failure = step.map(|step| Failure { step, errno });
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check() -> Check {
        Check {
            command: vec!["pg_isready".to_owned(), "-q".to_owned()],
            interval: 30_000,
            timeout: 5_000,
            start_period: 0,
            start_interval: 1_000,
            retries: 3,
            stop_signal: 2,
            kill_after: 10_000,
        }
    }

    #[test]
    fn a_check_comes_back_and_one_that_never_rests_is_refused() {
        assert_eq!(Check::decode(&check().encode()), Ok(check()));
        for wrong in [
            Check { interval: 0, ..check() },
            Check { timeout: 0, ..check() },
            Check { start_interval: 0, ..check() },
            Check { retries: 0, ..check() },
            Check { command: Vec::new(), ..check() },
            Check { command: vec!["a\0b".to_owned()], ..check() },
        ] {
            assert!(Check::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_came_out_is_said() {
        let run = CheckRun { code: Some(3), ..CheckRun::default() };
        assert_eq!(run.to_string(), "ended with status 3");
        let slow = CheckRun { timed_out: true, signal: Some(9), ..CheckRun::default() };
        assert_eq!((slow.to_string().as_str(), slow.passed()), ("took too long and was killed", false));
        assert!(CheckRun { code: Some(0), ..CheckRun::default() }.passed());
        assert!(!CheckRun::default().passed());
    }

    proptest! {
        #[test]
        fn how_checks_came_out_comes_back(
            failures: u64,
            code: Option<i32>,
            signal: Option<i32>,
            timed_out: bool,
            failed: Option<(u8, i32)>,
            output in prop::collection::vec(any::<u8>(), 0..OUTPUT_MAX),
            verdict in prop::sample::select(vec![Verdict::Starting, Verdict::Healthy, Verdict::Unhealthy]),
        ) {
            let failure = failed.map(|(step, errno)| Failure { step: Step::from_number(step), errno });
            let last = Some(CheckRun { code, signal, timed_out, failure, output });
            let checked = Checked { verdict, failures, last };
            prop_assert_eq!(Checked::decode(&checked.encode()).unwrap(), checked);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop((Check::decode(&bytes), Checked::decode(&bytes)));
        }
    }
}
