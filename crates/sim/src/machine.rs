//! The machine: instances under their shims, their ports, their whims. It goes on when control dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_control::event::{Exit, Failure, Ordinal, RunEnd, RunNumber, RunStop, VolumeDeed, VolumeWork};
use berth_control::invariant::{Breach, Invariant};
use berth_control::state::Run;
use berth_control::world::{Check, Life, Listener, Seen, SeenRun, Verdict};
use berth_routing::Endpoint;
use berth_spec::{AppId, CronName, Millis, ProcessName, ReleaseNumber, Timestamp, VolumeName};

use crate::builder::Quality;
use crate::chance::Chance;
use crate::fault::{Fault, Tally};

/// Few ports, so that one that is given again too early is soon noticed.
const PORTS: std::ops::Range<u16> = 20_000..20_080;

/// The port of an instance in a network of its own.
const OWN_PORT: u16 = 8_080;

/// What is asked of the machine.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) app: AppId,
    pub(crate) ordinal: Ordinal,
    pub(crate) process: ProcessName,
    /// The release that it is started for.
    pub(crate) release: ReleaseNumber,
    /// The volumes that it has.
    pub(crate) volumes: BTreeSet<VolumeName>,
    pub(crate) token: String,
    pub(crate) quality: Quality,
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Proc {
    process: ProcessName,
    release: ReleaseNumber,
    volumes: BTreeSet<VolumeName>,
    token: String,
    quality: Quality,
    pub(crate) port: Option<u16>,
    /// Whether the port is in a network of its own.
    own_network: bool,
    stage: Stage,
    /// Whether control told it to stop.
    pub(crate) told: bool,
    /// Whether it stands still.
    pub(crate) frozen: bool,
    restarts: u32,
    last_exit: Option<Exit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Starting {
        until: Duration,
    },
    /// `passes` is when its own check does, of one that has a check.
    Running {
        since: Duration,
        listens: Duration,
        exits: Duration,
        passes: Option<Duration>,
    },
    BackingOff {
        until: Duration,
    },
    Stopping {
        until: Duration,
    },
    Gone,
    NotStarted,
}

impl Proc {
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.stage, Stage::Gone | Stage::NotStarted)
    }

    /// The name by which it is reached in a network of its own.
    fn dialer(&self) -> Option<String> {
        (self.own_network && self.port.is_some()).then(|| self.token.clone())
    }

    /// Its port, if that is the machine's.
    pub(crate) fn shared_port(&self) -> Option<u16> {
        self.port.filter(|_| !self.own_network)
    }

    /// Whether a connection to its port is taken.
    pub(crate) fn accepts(&self, now: Duration) -> bool {
        let Stage::Running { listens, .. } = self.stage else { return false };
        listens <= now && self.quality != Quality::Elsewhere
    }

    fn listener(&self, now: Duration) -> Listener {
        match self.stage {
            Stage::Running { listens, .. } if listens <= now && self.port.is_some() => {
                if self.quality == Quality::Elsewhere {
                    Listener::Elsewhere(vec![3_000])
                } else {
                    Listener::Expected
                }
            }
            _ => Listener::None,
        }
    }

    /// How it stands with its own check, if it has one.
    fn check(&self, now: Duration) -> Option<Check> {
        let check = |verdict| Some(Check { verdict, evidence: Vec::new() });
        match self.stage {
            Stage::Running { passes: Some(passes), .. } if passes <= now => check(Verdict::Healthy),
            _ if matches!(self.quality, Quality::Ailing | Quality::Sick) => check(Verdict::Starting),
            _ => None,
        }
    }

    /// When something happens to it by itself.
    fn next(&self) -> impl Iterator<Item = Duration> {
        let moments = match self.stage {
            Stage::Starting { until } | Stage::BackingOff { until } | Stage::Stopping { until } => [until; 3],
            Stage::Running { listens, exits, passes, .. } => {
                [listens, exits, passes.unwrap_or(Duration::MAX)]
            }
            Stage::Gone | Stage::NotStarted => [Duration::MAX; 3],
        };
        moments.into_iter().filter(|moment| *moment < Duration::MAX)
    }
}

/// A one-off command.
#[derive(Debug)]
struct OneOff {
    token: String,
    exits: Duration,
    ended: Option<RunEnd>,
}

/// All instances.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    procs: BTreeMap<(AppId, Ordinal), Proc>,
    runs: BTreeMap<(AppId, RunNumber), OneOff>,
    /// All one-off commands that were ever started.
    ran: BTreeSet<(AppId, RunNumber)>,
    /// All moments at which a cron entry was due that a command was started for, with the last of them.
    moments: BTreeMap<(AppId, CronName, Timestamp), RunNumber>,
    /// Where a clock that was wrong was set back, and the last command that was asked for before.
    set_back: BTreeMap<AppId, Vec<(Timestamp, RunNumber)>>,
    /// What was last done with a volume of an app, and that it did not fail.
    pub(crate) worked: BTreeMap<AppId, (VolumeWork, Option<Failure>)>,
    /// The apps that have volumes.
    pub(crate) volumes: BTreeSet<AppId>,
}

impl Machine {
    pub(crate) fn get(&self, app: &AppId, ordinal: Ordinal) -> Option<&Proc> {
        self.procs.get(&(app.clone(), ordinal))
    }

    /// The instance that is reached there.
    pub(crate) fn at(&self, endpoint: &Endpoint) -> Option<(&(AppId, Ordinal), &Proc)> {
        let is_there = |it: &Proc| match endpoint {
            Endpoint::Tcp { addr } => it.shared_port() == Some(addr.port()),
            Endpoint::Dialer { name, port } => it.port == Some(*port) && it.dialer().as_ref() == Some(name),
        };
        self.procs.iter().find(|(_, it)| it.lives() && is_there(it))
    }

    pub(crate) fn apps(&self) -> BTreeSet<AppId> {
        self.procs.keys().chain(self.runs.keys()).map(|(app, _)| app.clone()).collect()
    }

    /// Starts a one-off command, which no repeat may do again; or finds that it cannot be started.
    pub(crate) fn start_run(
        &mut self,
        app: &AppId,
        run: RunNumber,
        wanted: &Run,
        ordered: bool,
        chance: &Chance,
    ) -> Result<(), Breach> {
        let key = (app.clone(), run);
        let token = &wanted.token;
        let known = self.runs.get(&key).is_some_and(|it| it.token == *token);
        if known {
            return Ok(());
        }
        let ended = (!ordered).then(|| RunEnd::stopped(RunStop::NotStarted));
        if ordered && !self.ran.insert(key.clone()) {
            let detail = format!("{app} ran run.{run} a second time");
            return Err(Breach { invariant: Invariant::NumbersAreUnique, detail });
        }
        let due = wanted.cron.as_ref().and_then(|cron| Some((app.clone(), cron.entry.clone(), cron.due?)));
        if let Some(moment) = due.filter(|_| ordered)
            && let Some(before) = self.moments.insert(moment.clone(), run)
            && !self.comes_again(&moment, before, run)
        {
            let detail = format!("{moment:?} was run as run.{before} and as run.{run}");
            return Err(Breach { invariant: Invariant::MomentsRunOnce, detail });
        }
        let exits = if chance.one_in(4) { chance.later(60_000, 400_000) } else { chance.later(5, 20_000) };
        self.runs.insert(key, OneOff { token: token.to_owned(), exits, ended });
        Ok(())
    }

    /// The clock that said later times than this was wrong: they come again, for commands after `last`.
    pub(crate) fn clock_was_wrong(&mut self, app: &AppId, to: Timestamp, last: RunNumber) {
        self.set_back.entry(app.clone()).or_default().push((to, last));
    }

    fn comes_again(&self, moment: &(AppId, CronName, Timestamp), before: RunNumber, run: RunNumber) -> bool {
        let mut set_back = self.set_back.get(&moment.0).into_iter().flatten();
        set_back.any(|(to, last)| *to < moment.2 && (before..run).contains(last))
    }

    /// Tells a one-off command to end.
    pub(crate) fn stop_run(&mut self, app: &AppId, run: RunNumber, why: RunStop) {
        if let Some(run) = self.runs.get_mut(&(app.clone(), run)).filter(|run| run.ended.is_none()) {
            run.ended = Some(RunEnd::stopped(why));
        }
    }

    pub(crate) fn remove_run(&mut self, app: &AppId, run: RunNumber) {
        self.runs.remove(&(app.clone(), run));
    }

    /// The one-off commands of an app, by what is known of who is connected to them.
    pub(crate) fn runs(&self, app: &AppId, attended: impl Fn(&str) -> bool) -> BTreeMap<RunNumber, SeenRun> {
        let of_app = self.runs.iter().filter(|((it, _), _)| it == app);
        let seen = |run: &OneOff| SeenRun {
            token: run.token.clone(),
            attended: attended(&run.token),
            ended: run.ended.clone(),
        };
        of_app.map(|((_, number), run)| (*number, seen(run))).collect()
    }

    pub(crate) fn living(&self, app: &AppId) -> BTreeSet<Ordinal> {
        let living = self.procs.iter().filter(|((it, _), proc)| it == app && proc.lives());
        living.map(|((_, ordinal), _)| *ordinal).collect()
    }

    pub(crate) fn observe(&self, app: &AppId, now: Duration) -> BTreeMap<Ordinal, Seen> {
        let of_app = self.procs.range((app.clone(), 0)..).take_while(|((it, _), _)| it == app);
        let seen = |proc: &Proc| Seen {
            token: proc.token.clone(),
            life: match proc.stage {
                Stage::Starting { .. } => Life::Starting,
                Stage::Running { .. } => Life::Running,
                Stage::BackingOff { .. } => Life::BackingOff,
                Stage::Stopping { .. } => Life::Stopping,
                Stage::Gone => Life::Gone,
                Stage::NotStarted => Life::NotStarted {
                    code: "start_failed".to_owned(),
                    detail: "no processes are left".to_owned(),
                },
            },
            port: proc.port,
            dialer: proc.dialer(),
            listener: proc.listener(now),
            restarts: proc.restarts,
            last_exit: proc.last_exit,
            log_tail: Vec::new(),
            not_begun: Vec::new(),
            check: proc.check(now),
        };
        of_app.map(|((_, ordinal), proc)| (*ordinal, seen(proc))).collect()
    }

    /// Starts an instance in a network of its own, or on a port that is neither held nor `excluded`; does nothing if it runs already.
    pub(crate) fn start(
        &mut self,
        order: Order,
        excluded: &BTreeSet<u16>,
        chance: &Chance,
        tally: &mut Tally,
        calm: bool,
    ) -> Result<(), Breach> {
        let key = (order.app.clone(), order.ordinal);
        if self.procs.get(&key).is_some_and(|it| it.token == order.token && it.stage != Stage::NotStarted) {
            return Ok(());
        }
        self.check_volumes(&order)?;
        if !order.volumes.is_empty() {
            self.volumes.insert(order.app.clone());
        }
        let held: BTreeSet<u16> =
            self.procs.values().filter(|it| it.lives()).filter_map(Proc::shared_port).collect();
        // Both at once are on a machine whose instances outlive the version of Berth that started them.
        let own_network = chance.one_in(3);
        let free = PORTS.into_iter().find(|port| !held.contains(port) && !excluded.contains(port));
        let port = if own_network { Some(OWN_PORT) } else { free };
        let port = port.filter(|_| order.process.is_web());
        let fails = (port.is_none() && order.process.is_web()) || (!calm && chance.one_in(25));
        if fails {
            tally.add(Fault::StartFailed);
        }
        match order.quality {
            Quality::Good => {}
            Quality::Slow => tally.add(Fault::ListensLate),
            Quality::Crashes => tally.add(Fault::CrashLoop),
            Quality::Deaf => tally.add(Fault::ListensNever),
            Quality::Elsewhere => tally.add(Fault::ListensElsewhere),
            Quality::Ailing | Quality::Sick => tally.add(Fault::CheckFails),
        }
        let proc = Proc {
            process: order.process,
            release: order.release,
            volumes: order.volumes,
            token: order.token,
            quality: order.quality,
            port: if fails { None } else { port },
            own_network,
            stage: if fails { Stage::NotStarted } else { Stage::Starting { until: chance.later(1, 60) } },
            told: false,
            frozen: false,
            restarts: 0,
            last_exit: None,
        };
        self.procs.insert(key, proc);
        Ok(())
    }

    /// Has an instance stand still, or go on.
    pub(crate) fn freeze(&mut self, app: &AppId, ordinal: Ordinal, frozen: bool) {
        if let Some(proc) = self.procs.get_mut(&(app.clone(), ordinal)) {
            proc.frozen = frozen;
        }
    }

    /// Works on a volume, which nobody may have who lives.
    pub(crate) fn work_on_volume(
        &mut self,
        app: &AppId,
        work: VolumeWork,
        freezes: bool,
    ) -> Result<(), Breach> {
        let stand_still = freezes && work.what == VolumeDeed::Snapshot;
        let mut of_app = self.procs.iter().filter(|((it, _), _)| it == app);
        if let Some(((_, ordinal), _)) =
            of_app.find(|(_, proc)| !stand_still && proc.lives() && proc.volumes.contains(&work.volume))
        {
            let detail = format!("{app} had {work:?} done while {ordinal} has the volume");
            return Err(Breach { invariant: Invariant::VolumesAreExclusive, detail });
        }
        self.worked.insert(app.clone(), (work, None));
        Ok(())
    }

    /// Nobody who lives has a volume of the one that is to be started, unless it is another process of the same release.
    fn check_volumes(&self, order: &Order) -> Result<(), Breach> {
        let others =
            self.procs.iter().filter(|((app, ordinal), _)| *app == order.app && *ordinal != order.ordinal);
        let clash = others.filter(|(_, it)| it.lives()).find(|(_, it)| {
            !it.volumes.is_disjoint(&order.volumes)
                && (it.release != order.release || it.process == order.process)
        });
        let Some(((app, ordinal), other)) = clash else { return Ok(()) };
        let detail = format!(
            "{app} instance {} of {} was started while {ordinal} of {} has a volume of its",
            order.ordinal, order.release, other.release
        );
        Err(Breach { invariant: Invariant::VolumesAreExclusive, detail })
    }

    /// Sends the signal; the shim kills what ignores it after `kill_after`.
    pub(crate) fn stop(
        &mut self,
        app: &AppId,
        ordinal: Ordinal,
        kill_after: Millis,
        chance: &Chance,
        tally: &mut Tally,
    ) {
        let Some(proc) = self.procs.get_mut(&(app.clone(), ordinal)) else { return };
        if !proc.lives() || matches!(proc.stage, Stage::Stopping { .. }) {
            return;
        }
        proc.told = true;
        // What stands still hears no signal: it goes on first.
        proc.frozen = false;
        let until = if chance.one_in(6) {
            tally.add(Fault::IgnoredSignal);
            chance.now() + kill_after.as_duration()
        } else {
            chance.later(1, 400)
        };
        proc.stage = Stage::Stopping { until };
    }

    /// Kills what is left of it and forgets it.
    pub(crate) fn remove(&mut self, app: &AppId, ordinal: Ordinal) {
        self.procs.remove(&(app.clone(), ordinal));
    }

    /// The machine was started again: nothing of it is left.
    pub(crate) fn reboot(&mut self) {
        self.procs.clear();
        self.worked.clear();
        self.runs.clear();
    }

    /// Something happens to a random instance. Returns its app.
    pub(crate) fn trouble(&mut self, chance: &Chance, tally: &mut Tally) -> Option<AppId> {
        let keys: Vec<(AppId, Ordinal)> =
            self.procs.iter().filter(|(_, it)| it.lives()).map(|(key, _)| key.clone()).collect();
        let key = chance.pick(&keys)?.clone();
        let forgotten = chance.one_in(2);
        let proc = self.procs.get_mut(&key)?;
        if let Stage::Running { exits, .. } = &mut proc.stage
            && chance.one_in(2)
        {
            tally.add(Fault::AppCrashed);
            *exits = chance.now();
            return Some(key.0);
        }
        tally.add(Fault::ShimDied);
        proc.stage = Stage::Gone;
        if forgotten {
            self.procs.remove(&key);
        }
        Some(key.0)
    }

    /// Lets happen what is due. Returns the apps that changed, and the exits.
    pub(crate) fn tick(&mut self, chance: &Chance) -> (BTreeSet<AppId>, Vec<(AppId, Ordinal, Exit)>) {
        let now = chance.now();
        let (mut changed, mut exited) = (BTreeSet::new(), Vec::new());
        for ((app, _), run) in self.runs.iter_mut().filter(|(_, run)| run.ended.is_none() && run.exits <= now)
        {
            let exit =
                Exit { status: Some(0), signal: None, after: Millis(1_000), oom: None, unhealthy: false };
            run.ended = Some(RunEnd { exit: Some(exit), why: None, detail: Vec::new() });
            changed.insert(app.clone());
        }
        for ((app, ordinal), proc) in &mut self.procs {
            match proc.stage {
                Stage::Starting { until } | Stage::BackingOff { until } if until <= now => {
                    proc.stage = run(proc.quality, chance);
                }
                Stage::Stopping { until } if until <= now => proc.stage = Stage::Gone,
                Stage::Running { since, exits, .. } if exits <= now => {
                    let after = Millis(u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX));
                    let unhealthy = matches!(proc.quality, Quality::Ailing | Quality::Sick);
                    let exit = Exit { status: Some(1), signal: None, after, oom: None, unhealthy };
                    proc.restarts += 1;
                    proc.last_exit = Some(exit);
                    exited.push((app.clone(), *ordinal, exit));
                    let wait = (100_u64 << proc.restarts.min(8)).min(20_000);
                    proc.stage = Stage::BackingOff { until: chance.later(wait, wait + 50) };
                }
                // It just began to listen; telling again does no harm.
                Stage::Running { listens, .. }
                    if listens <= now && now - listens < Duration::from_millis(200) => {}
                Stage::Running { passes: Some(passes), .. }
                    if passes <= now && now - passes < Duration::from_millis(200) => {}
                _ => continue,
            }
            changed.insert(app.clone());
        }
        (changed, exited)
    }

    /// Whether an instance starts, stops or has yet to listen: what follows from it is not there yet.
    pub(crate) fn is_moving(&self, now: Duration) -> bool {
        let runs = self.runs.values().any(|run| run.ended.is_none());
        runs || self.procs.values().any(|proc| match proc.stage {
            Stage::Starting { .. } | Stage::Stopping { .. } => true,
            Stage::Running { listens, passes, .. } => {
                [listens, passes.unwrap_or(now)].iter().any(|it| *it > now && *it < Duration::MAX)
            }
            Stage::BackingOff { .. } => !matches!(proc.quality, Quality::Crashes | Quality::Sick),
            Stage::Gone | Stage::NotStarted => false,
        })
    }

    /// When something happens next by itself.
    pub(crate) fn next(&self, now: Duration) -> Option<Duration> {
        let runs = self.runs.values().filter(|run| run.ended.is_none()).map(|run| run.exits);
        self.procs.values().flat_map(Proc::next).chain(runs).filter(|moment| *moment > now).min()
    }
}

fn run(quality: Quality, chance: &Chance) -> Stage {
    let never = Duration::MAX;
    let (listens, exits) = match quality {
        Quality::Good | Quality::Elsewhere => (chance.later(5, 200), never),
        Quality::Slow => (chance.later(1_000, 15_000), never),
        Quality::Crashes => (never, chance.later(10, 1_500)),
        Quality::Deaf => (never, never),
        Quality::Ailing => (chance.later(5, 200), never),
        Quality::Sick => (chance.later(5, 200), chance.later(2_000, 20_000)),
    };
    let passes = match quality {
        Quality::Ailing => Some(chance.later(200, 20_000)),
        Quality::Sick => Some(never),
        _ => None,
    };
    Stage::Running { since: chance.now(), listens, exits, passes }
}
