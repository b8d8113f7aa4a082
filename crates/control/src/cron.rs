//! What is due by a schedule: one definition for the planner, which asks for a decision, and for the decision.
//!
//! Every entry has a frontier, [`CronProgress::decided_until`]: about every moment up to it has been decided, by a run or by a word on why
//! there was none. Only moments behind the frontier can be due, and whatever is decided moves it, so that no moment is run twice: not by
//! a plan that is made twice, not by a control that is killed and started again, not when the wall clock is set back. Of all that
//! was missed - while the platform was down, or because the clock was set forward - only the last is made up for, if it is
//! not too late for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_spec::manifest::{Concurrency, CronEntry};
use berth_spec::{CronName, Millis, ReleaseNumber, Schedule, Timestamp, Zone};
use serde::{Deserialize, Serialize};

use crate::command::Refusal;
use crate::event::{CronRun, CronSkip, Event, Exit, RunMode, RunNumber, RunStop};
use crate::state::{App, Life, Release};

/// By how much the wall clock may be set back, as far as is seen, and the moments that were decided stay decided. Beyond it the clock was
/// wrong before, and an entry would wait for a time that may be years away. As long as cron(8) waits.
pub const SET_BACK_MAX: Millis = Millis::from_secs(3 * 3_600);
/// How late a run may start and still be in time, whatever `catch_up` says.
pub const IN_TIME: Millis = Millis::from_secs(60);
/// Up to how many moments that were missed are counted.
pub const MISSED_MAX: usize = 1_000;
/// How many runs one entry may have at a time.
pub const RUNS_MAX: usize = 10;
/// How many past runs of an entry the state keeps; the journal has all.
pub const PAST_MAX: usize = 20;

/// How far an entry has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronProgress {
    /// The schedule that this is about; another one begins anew.
    pub schedule: Schedule,
    /// By the clocks of which place.
    pub timezone: Zone,
    /// Every moment up to this one was decided.
    pub decided_until: Timestamp,
    /// What became of the last moments, the newest last.
    pub past: VecDeque<CronPast>,
}

/// What became of a moment, or of a wish to run the entry at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronPast {
    /// When it was due; none when somebody asked for it.
    pub due: Option<Timestamp>,
    /// When it was decided.
    pub at: Timestamp,
    /// How many moments before this one were missed and not made up for.
    pub missed: u64,
    /// What became of it.
    pub outcome: CronOutcome,
}

/// What became of a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CronOutcome {
    /// It was left out.
    Skipped(CronSkip),
    /// It was run, and is not over.
    Running(RunNumber),
    /// It was run.
    Ended {
        /// The run.
        run: RunNumber,
        /// When it was over.
        at: Timestamp,
        /// Its exit, if that was seen.
        exit: Option<Exit>,
        /// Why the platform ended it or did not run it.
        why: Option<RunStop>,
    },
}

/// What is to be done about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing before this moment, if there is one.
    Wait(Option<Timestamp>),
    /// The clock was set back so far that what was decided is of no use.
    SetBack,
    /// A moment has come.
    Due {
        /// The last that has.
        due: Timestamp,
        /// How many before it were not decided, counted up to [`MISSED_MAX`].
        missed: u64,
        /// Whether it is too late for it.
        too_late: bool,
    },
}

/// Whether all its processes are scaled to nothing: nothing runs by a schedule then. An app without processes is not stopped, it has
/// nothing else to run.
#[must_use]
pub fn is_stopped(app: &App) -> bool {
    let processes = app.serving_release().and_then(|release| release.processes());
    processes.is_some_and(|processes| {
        !processes.is_empty() && processes.keys().all(|process| app.wanted(process) == 0)
    })
}

/// The entries of the release that serves, with how far each has come; none for an app that is stopped or goes.
pub fn entries(app: &App) -> impl Iterator<Item = (&CronName, &CronEntry, &CronProgress)> {
    let release = app.serving_release().filter(|_| app.life == Life::Alive && !is_stopped(app));
    let entries = release.into_iter().flat_map(|release| &release.manifest.cron);
    entries.filter_map(|(name, entry)| Some((name, entry, app.cron.get(name)?)))
}

/// What is to be done about an entry at `at`.
#[must_use]
pub fn judge(entry: &CronEntry, progress: &CronProgress, at: Timestamp) -> Judgement {
    let CronEntry { schedule, timezone, catch_up, .. } = entry;
    let until = progress.decided_until;
    if until > at + SET_BACK_MAX {
        return Judgement::SetBack;
    }
    let next = schedule.next_after(until, timezone);
    if next.is_none_or(|next| next > at) {
        return Judgement::Wait(next);
    }
    match schedule.last_until(at, timezone).filter(|due| *due > until) {
        None => Judgement::Wait(None),
        Some(due) => {
            let count = schedule.count_between(until, due, timezone, MISSED_MAX);
            let missed = u64::try_from(count.saturating_sub(1)).unwrap_or(0);
            Judgement::Due { due, missed, too_late: at - due > (*catch_up).max(IN_TIME) }
        }
    }
}

/// Decides about the entry `name` at `at`: nothing, where there is nothing to be done any more.
pub(crate) fn decide(app: &App, name: &CronName, at: Timestamp, token: &str) -> Result<Vec<Event>, Refusal> {
    let Some((_, entry, progress)) = entries(app).find(|(it, ..)| *it == name) else {
        return Err(Refusal::Stale("the release that serves has no such cron entry"));
    };
    let (due, missed, too_late) = match judge(entry, progress, at) {
        Judgement::Wait(_) => return Ok(Vec::new()),
        Judgement::SetBack => return Ok(vec![Event::CronSetBack { to: at }]),
        Judgement::Due { due, missed, too_late } => (due, missed, too_late),
    };
    let running = running(app, name);
    let skip = match (entry.concurrency, running.last()) {
        _ if too_late => Some(CronSkip::TooLate),
        (Concurrency::Forbid, Some(run)) => Some(CronSkip::StillRunning { run: *run }),
        _ if running.len() >= RUNS_MAX => Some(CronSkip::TooMany),
        _ => None,
    };
    if let Some(why) = skip {
        return Ok(vec![Event::CronSkipped { entry: name.clone(), due, why, missed }]);
    }
    let cron = CronRun { entry: name.clone(), due: Some(due), missed, replaces: replaced(entry, running) };
    Ok(vec![assigned(app, entry, cron, token)])
}

/// Decides about a wish to run the entry at once, stopped or not.
pub(crate) fn run_now(app: &App, name: &CronName, token: &str) -> Result<Vec<Event>, Refusal> {
    let id = || app.id.clone();
    let release = app.serving_release().ok_or_else(|| Refusal::NothingServes(id()))?;
    let Some(entry) = release.manifest.cron.get(name) else {
        let has = release.manifest.cron.keys().cloned().collect();
        return Err(Refusal::NoSuchCron { app: id(), entry: name.clone(), has });
    };
    let running = running(app, name);
    if let (Concurrency::Forbid, Some(run)) = (entry.concurrency, running.last()) {
        return Err(Refusal::CronRuns { app: id(), entry: name.clone(), run: *run });
    }
    if running.len() >= RUNS_MAX {
        let (what, count) = ("runs of one cron entry at a time", running.len() + 1);
        return Err(Refusal::TooMany { app: id(), what, count, max: RUNS_MAX });
    }
    let cron = CronRun { entry: name.clone(), due: None, missed: 0, replaces: replaced(entry, running) };
    Ok(vec![assigned(app, entry, cron, token)])
}

/// Its runs that are not over, the newest last.
#[must_use]
pub fn running(app: &App, name: &CronName) -> Vec<RunNumber> {
    let of_entry = |run: &crate::state::Run| run.cron.as_ref().is_some_and(|cron| cron.entry == *name);
    app.runs.iter().filter(|(_, run)| of_entry(run)).map(|(number, _)| *number).collect()
}

fn replaced(entry: &CronEntry, running: Vec<RunNumber>) -> BTreeSet<RunNumber> {
    match entry.concurrency {
        Concurrency::Replace => running.into_iter().collect(),
        Concurrency::Allow | Concurrency::Forbid => BTreeSet::new(),
    }
}

fn assigned(app: &App, entry: &CronEntry, cron: CronRun, token: &str) -> Event {
    Event::RunAssigned {
        run: app.last_run + 1,
        release: app.serving.unwrap_or(ReleaseNumber(0)),
        command: entry.command.clone(),
        variables: BTreeSet::new(),
        mode: RunMode::Detached,
        limit: entry.timeout,
        token: token.to_owned(),
        cron: Some(cron),
        within: None,
    }
}

/// How far the entries of `release` have come when it is activated at `at`: an entry that is as it was goes on, another one begins. None
/// begins before what was decided under its name, or under any that is gone.
pub(crate) fn carried_over(
    release: &Release,
    before: &BTreeMap<CronName, CronProgress>,
    floor: Timestamp,
    at: Timestamp,
) -> BTreeMap<CronName, CronProgress> {
    let begun = |name: &CronName, entry: &CronEntry| {
        let known = before.get(name).cloned();
        let begins = |past| CronProgress {
            schedule: entry.schedule.clone(),
            timezone: entry.timezone.clone(),
            decided_until: at.max(floor),
            past,
        };
        match known {
            Some(it) if it.schedule == entry.schedule && it.timezone == entry.timezone => it,
            Some(it) => {
                let until = it.decided_until;
                let begins = begins(it.past);
                CronProgress { decided_until: begins.decided_until.max(until), ..begins }
            }
            None => begins(VecDeque::new()),
        }
    };
    release.manifest.cron.iter().map(|(name, entry)| (name.clone(), begun(name, entry))).collect()
}

impl CronProgress {
    /// Adds what became of a moment.
    pub(crate) fn add(&mut self, past: CronPast) {
        self.decided_until = self.decided_until.max(past.due.unwrap_or_default());
        if self.past.len() >= PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(past);
    }

    /// Notes how one of its runs ended.
    pub(crate) fn end(&mut self, number: RunNumber, exit: Option<Exit>, why: Option<RunStop>, at: Timestamp) {
        let of_run = |past: &&mut CronPast| past.outcome == CronOutcome::Running(number);
        if let Some(past) = self.past.iter_mut().rev().find(of_run) {
            past.outcome = CronOutcome::Ended { run: number, at, exit, why };
        }
    }
}

#[cfg(test)]
mod tests;
