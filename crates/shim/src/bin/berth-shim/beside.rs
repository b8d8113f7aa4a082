//! What runs beside the app: its check, and commands that somebody asked for.

use std::os::fd::OwnedFd;

use berth_shim::check::{CheckRun, Checked, OUTPUT_MAX};
use berth_shim::config::StartConfig;
use berth_shim::wire::{Exit, Failure};
use rustix::event::{PollFd, PollFlags};

use crate::app::{App, Streams};
use crate::check::Checks;
use crate::exec::Exec;

/// Milliseconds between two looks at what is left of a command that is being killed: the first, doubling up to the last.
const SWEEP_FIRST: u64 = 5;
const SWEEP_LAST: u64 = 1_000;
/// Bytes read at once from a check, and how often in a turn: what it writes beyond what is kept is thrown away, and others must be heard too.
const READ_AT_ONCE: usize = 16 << 10;
const READS_IN_A_TURN: usize = 16;

/// A check that runs.
#[derive(Debug)]
struct Checking {
    exec: Exec,
    /// What it writes; `None` once that has ended.
    output: Option<OwnedFd>,
    said: Vec<u8>,
    /// When it is killed.
    until: u64,
    timed_out: bool,
    /// Whether its outcome says nothing: the app stood still meanwhile.
    is_void: bool,
}

/// A command that somebody asked for and waits for.
#[derive(Debug)]
struct Asked {
    client: u64,
    exec: Exec,
}

/// All that runs beside the app.
#[derive(Debug)]
pub(crate) struct Beside {
    checks: Option<Checks>,
    checking: Option<Checking>,
    asked: Vec<Asked>,
    /// Whether there is something to be told of the checks.
    is_news: bool,
    /// When what is to go is looked at next, and the pause after that.
    sweep_at: u64,
    pause: u64,
}

impl Beside {
    pub(crate) fn new(config: &StartConfig) -> Self {
        let checks = config.check.clone().map(Checks::new);
        Self { checks, checking: None, asked: Vec::new(), is_news: false, sweep_at: 0, pause: SWEEP_FIRST }
    }

    /// The app was started.
    pub(crate) fn begin(&mut self, now: u64) {
        if let Some(checks) = &mut self.checks {
            checks.begin(now);
        }
    }

    /// The app is to end: it is asked no more whether it is well.
    pub(crate) fn end_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.end();
        }
        if let Some(checking) = &mut self.checking {
            checking.is_void = true;
            checking.exec.kill();
        }
        self.pause = SWEEP_FIRST;
    }

    /// The app has ended. What runs beside it ends with it.
    pub(crate) fn end(&mut self) {
        self.end_checks();
        self.asked.iter_mut().for_each(|asked| asked.exec.kill());
    }

    /// Looks after a command of `client`.
    pub(crate) fn add(&mut self, client: u64, exec: Exec) {
        self.asked.push(Asked { client, exec });
    }

    /// Sends the process group of a client's command a signal.
    pub(crate) fn signal(&self, client: u64, signal: i32) {
        self.asked.iter().filter(|asked| asked.client == client).for_each(|asked| asked.exec.signal(signal));
    }

    /// How many commands somebody waits for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Ends the commands of those who are not there any more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        self.asked.iter_mut().filter(|asked| !is_there(asked.client)).for_each(|asked| asked.exec.kill());
    }

    /// Does what has come due while `app` runs, and gives the milliseconds until more does.
    pub(crate) fn advance(&mut self, config: &StartConfig, app: &App, now: u64) -> Option<u64> {
        let mut due = None;
        if let Some(checks) = &mut self.checks
            && self.checking.is_none()
        {
            due = checks.due_in(now);
            if due == Some(0) {
                if stands_still(config) {
                    checks.put_off(now);
                } else {
                    checks.started();
                    match Checking::start(config, checks, app, now) {
                        Ok(checking) => self.checking = Some(checking),
                        Err(failure) => {
                            let run = CheckRun { failure: Some(failure), ..CheckRun::default() };
                            self.is_news |= checks.ended(run, now);
                        }
                    }
                }
                due = checks.due_in(now);
            }
        }
        if let Some(checking) = self.checking.as_mut().filter(|it| !it.timed_out && !it.exec.is_over()) {
            if checking.until <= now {
                checking.timed_out = true;
                checking.is_void |= stands_still(config);
                checking.exec.kill();
            } else {
                due = Some(checking.until - now);
            }
        }
        [due, self.sweep(now)].into_iter().flatten().min()
    }

    /// Kills what is to go, with a pause between two tries. Gives the milliseconds until the next.
    pub(crate) fn sweep(&mut self, now: u64) -> Option<u64> {
        if !self.all().any(Exec::is_to_go) {
            self.pause = SWEEP_FIRST;
            return None;
        }
        if self.sweep_at <= now {
            self.all().filter(|exec| exec.is_to_go()).for_each(Exec::sweep);
            self.sweep_at = now + self.pause;
            self.pause = (self.pause * 2).min(SWEEP_LAST);
        }
        Some(self.sweep_at.saturating_sub(now))
    }

    fn all(&self) -> impl Iterator<Item = &Exec> {
        self.checking.iter().map(|it| &it.exec).chain(self.asked.iter().map(|it| &it.exec))
    }

    /// What to wait for.
    pub(crate) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let outputs = self.checking.iter().filter_map(|it| it.output.as_ref());
        let outputs = outputs.map(|output| PollFd::new(output, PollFlags::IN));
        self.all().filter_map(Exec::polled).chain(outputs)
    }

    /// Hears what there is to be heard. Gives the ends of commands, each with whose it was, and whether there is news of the check.
    pub(crate) fn hear(&mut self, now: u64) -> (Vec<(u64, Exit)>, bool) {
        let mut ends = Vec::new();
        self.asked.retain_mut(|asked| {
            asked.exec.hear();
            if asked.exec.is_over() {
                ends.push((asked.client, asked.exec.exit()));
            }
            !asked.exec.is_over()
        });
        if let Some(checking) = &mut self.checking {
            checking.hear();
        }
        if let Some(ended) = self.checking.take_if(|checking| checking.exec.is_over())
            && let Some(checks) = &mut self.checks
        {
            if ended.is_void {
                checks.put_off(now);
            } else {
                self.is_news |= checks.ended(ended.outcome(), now);
            }
        }
        (ends, std::mem::take(&mut self.is_news))
    }

    /// Takes note that a child of ours was reaped.
    pub(crate) fn reaped(&mut self, pid: u32) {
        let checking = self.checking.iter_mut().map(|it| &mut it.exec);
        checking.chain(self.asked.iter_mut().map(|it| &mut it.exec)).for_each(|exec| exec.reaped(pid));
    }

    /// How the app stands with its checks.
    pub(crate) fn checked(&self) -> Option<&Checked> {
        self.checks.as_ref().map(Checks::checked)
    }

    /// Whether the app is to be ended because its checks failed.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.checks.as_ref().is_some_and(Checks::is_unhealthy)
    }
}

impl Checking {
    fn start(config: &StartConfig, checks: &Checks, app: &App, now: u64) -> Result<Self, Failure> {
        let gathered = Streams::gathered(config).map_err(|(step, errno)| Failure { step, errno });
        let (streams, output) = gathered?;
        let exec = Exec::start(config, app, &checks.check.command, &[], streams)?;
        let until = now.saturating_add(checks.check.timeout);
        Ok(Self { exec, output: Some(output), said: Vec::new(), until, timed_out: false, is_void: false })
    }

    fn hear(&mut self) {
        let mut buffer = [0; READ_AT_ONCE];
        for _ in 0..READS_IN_A_TURN {
            let Some(output) = &self.output else { break };
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = OUTPUT_MAX.saturating_sub(self.said.len()).min(length);
                    self.said.extend_from_slice(buffer.get(..room).unwrap_or_default());
                }
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        self.exec.hear();
    }

    fn outcome(mut self) -> CheckRun {
        // What it wrote last before it ended.
        self.hear();
        let exit = self.exec.exit();
        CheckRun {
            code: exit.code.filter(|_| exit.failure.is_none()),
            signal: exit.signal,
            timed_out: self.timed_out,
            failure: exit.failure,
            output: self.said,
        }
    }
}

/// Whether the app's control group stands still: a command would too.
fn stands_still(config: &StartConfig) -> bool {
    let Some(group) = config.cgroup.as_deref().and_then(|door| door.strip_suffix("cgroup.procs")) else {
        return false;
    };
    let says = |file: &str| std::fs::read_to_string(format!("{group}{file}")).unwrap_or_default();
    says("cgroup.freeze").trim() == "1" || ["FROZEN", "FREEZING"].contains(&says("freezer.state").trim())
}
