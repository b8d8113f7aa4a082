//! Watching what a process asks of the kernel, and making the kernel refuse it: strace, attached while the process runs.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::platform::{Platform, wait_until};

/// How long strace may take to let go by itself.
const PARTING: Duration = Duration::from_secs(2);

/// An attached strace.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    trace: PathBuf,
    /// Kept open, so that a word more does not end it.
    _words: BufReader<ChildStderr>,
}

/// Why a process cannot be traced here.
#[derive(Debug)]
pub struct CannotTrace(String);

impl fmt::Display for CannotTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run strace: {}", self.0.trim())
    }
}

/// A call that was traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The rest of the line: `(15</home/journal.db-wal>) = 0`. Of a call that had not returned yet, up to there.
    pub rest: String,
    /// Whether this is its return. Each call comes twice: as it was made and as it returned.
    pub returned: bool,
}

impl Tracer {
    /// Follows every thread of `pid`, and gives what `options` say to strace. All of its threads are followed when this returns.
    ///
    /// # Errors
    /// When strace is not there, or may not do that here.
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness stands outside of the platform and its allow-list"
    )]
    pub fn attach(platform: &Platform, pid: u32, options: &[&str]) -> Result<Self, CannotTrace> {
        let trace = platform.scratch().join(format!("trace.{pid}"));
        File::create(&trace).expect("our directory");
        let mut child = std::process::Command::new("strace")
            .args(["-f", "-y", "-s", "64", "-p", &pid.to_string(), "-o"])
            .arg(&trace)
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| CannotTrace(error.to_string()))?;
        let mut words = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        words.read_line(&mut line).map_err(|error| CannotTrace(error.to_string()))?;
        if !line.contains(" attached") {
            drop(child.wait());
            return Err(CannotTrace(line));
        }
        Ok(Self { child, trace, _words: words })
    }

    /// What the process did so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        calls(&fs::read_to_string(&self.trace).expect("our directory"))
    }

    /// Lets go of the process and gives what it did, in order.
    ///
    /// A process that died is held back from its parent until then. Strace is asked first and killed then: with the last thread of
    /// a process that was ended by a signal of its own it may wait for ever.
    #[must_use]
    pub fn detach(mut self) -> Vec<Call> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // It may have ended with the process that it followed.
        let _ended = rustix::process::kill_process(pid, Signal::TERM);
        if !wait_until(PARTING, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            self.child.kill().expect("our child");
            self.child.wait().expect("our child");
        }
        self.calls()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The calls of a trace. A call during which another thread did something has two lines, of which the second does not repeat the
/// arguments: they are taken from the first.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: Vec<(&str, String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(rest) = text.strip_prefix("<... ") {
            let Some(index) = begun.iter().position(|(it, ..)| *it == thread) else { continue };
            let (_, name, arguments) = begun.swap_remove(index);
            let rest = rest.split_once(" resumed>").map_or(rest, |(_, rest)| rest);
            calls.push(Call { name, rest: format!("{arguments}{rest}"), returned: true });
            continue;
        }
        let Some((name, rest)) = text.split_once('(') else { continue };
        let unfinished = rest.strip_suffix(" <unfinished ...>");
        let call = |rest: &str, returned| Call { name: name.to_owned(), rest: format!("({rest}"), returned };
        calls.push(call(unfinished.unwrap_or(rest), false));
        match unfinished {
            Some(arguments) => begun.push((thread, name.to_owned(), format!("({arguments}"))),
            None => calls.push(call(rest, true)),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_made_and_returns_whatever_comes_between() {
        let trace = "7 fdatasync(15</j/journal.db-wal> <unfinished ...>\n\
                     8 write(9<socket:[1]>, \"x\", 1)        = 1\n\
                     7 <... fdatasync resumed>) = 0\n\
                     8 +++ exited with 0 +++\n";
        let shown: Vec<String> = calls(trace)
            .iter()
            .map(|call| format!("{}{}{}", call.name, call.rest, if call.returned { " <-" } else { "" }))
            .collect();
        assert_eq!(
            shown,
            [
                "fdatasync(15</j/journal.db-wal>",
                "write(9<socket:[1]>, \"x\", 1)        = 1",
                "write(9<socket:[1]>, \"x\", 1)        = 1 <-",
                "fdatasync(15</j/journal.db-wal>) = 0 <-"
            ]
        );
    }
}
