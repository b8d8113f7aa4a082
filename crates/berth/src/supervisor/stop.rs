//! Taking the platform down: control stops every app, then what is left of them is killed, then edge ends.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::SystemClock;
use berth_process::{Cgroup, Cgroups, Signal, procfs};
use berth_server::config::cgroup_folders;
use berth_server::machine::end_instances;
use rustix::event::Timespec;

use super::launch::RoleKind;
use super::orphans::Orphan;
use super::role::{Role, RoleState};
use super::service_manager;
use super::watch::{Phase, Watch, WatchError};

/// How long control may take before it has said how long the apps need.
const UNTIL_TOLD: Duration = Duration::from_secs(30);
/// Added to what the apps' shutdown rules allow.
const MARGIN: Duration = Duration::from_secs(10);
/// What is left after a second signal.
const HURRIED: Duration = Duration::from_secs(5);
/// How long edge may take to end the connections that wait for no app any more.
const EDGE_DRAIN: Duration = Duration::from_secs(5);
/// How often control may die on its way before the apps are killed without it.
const CONTROL_ATTEMPTS: u32 = 3;

/// How far the stop has come.
#[derive(Debug)]
pub(super) struct Stop {
    stage: Stage,
    deadline: Duration,
    signals: u32,
    control_deaths: u32,
    announced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Control is to be told, as soon as it is ready.
    Tell,
    /// Control was told and stops the apps.
    Apps,
    /// Edge ends.
    Edge,
}

impl Stop {
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A role ended while the platform stops: control with success has stopped every app; without, it is started again to
    /// finish. Edge is needed no more once the apps are gone.
    pub(super) fn role_ended(&mut self, role: &mut Role, status: ExitStatus) {
        match (role.kind, self.stage) {
            (RoleKind::Control, Stage::Apps) if status.success() => role.state = RoleState::Over,
            (RoleKind::Control, Stage::Tell | Stage::Apps) => {
                self.control_deaths += 1;
                self.stage = Stage::Tell;
                if self.control_deaths >= CONTROL_ATTEMPTS {
                    role.state = RoleState::Over;
                }
            }
            (RoleKind::Control | RoleKind::Edge, Stage::Edge) => role.state = RoleState::Over,
            (RoleKind::Edge, Stage::Tell | Stage::Apps) => {}
        }
    }
}

impl Watch<'_> {
    /// Begins to stop, or hurries what has begun.
    pub(super) fn stop(&mut self) {
        let now = self.clock.monotonic();
        match &mut self.phase {
            Phase::Starting | Phase::Serving => {
                service_manager::stopping();
                self.phase = Phase::Stopping(Stop {
                    stage: Stage::Tell,
                    deadline: now + UNTIL_TOLD,
                    signals: 1,
                    control_deaths: 0,
                    announced: false,
                });
            }
            Phase::Stopping(stop) => {
                stop.signals += 1;
                let left = if stop.signals == 2 { HURRIED } else { Duration::ZERO };
                stop.deadline = stop.deadline.min(now + left);
                if stop.signals == 2 && stop.stage == Stage::Apps {
                    self.voice.say("killing the apps");
                    self.control.signal(Signal::TERM);
                }
            }
        }
    }

    /// Control has said what it stops.
    pub(super) fn announce_stopping(&mut self, apps: u32, within: Duration) {
        let now = self.clock.monotonic();
        let Phase::Stopping(stop) = &mut self.phase else { return };
        if stop.signals == 1 {
            stop.deadline = now + within + MARGIN;
        }
        if !stop.announced && apps > 0 {
            stop.announced = true;
            let plural = if apps == 1 { "" } else { "s" };
            let seconds = within.as_secs();
            self.voice.say(&format!(
                "stopping {apps} app{plural} (they may take {seconds} s; another Ctrl-C kills them)"
            ));
        }
    }

    /// Goes as far as it can now; says whether everything has ended.
    pub(super) fn advance_stop(&mut self) -> Result<bool, WatchError> {
        let now = self.clock.monotonic();
        loop {
            let Phase::Stopping(stop) = &mut self.phase else { return Ok(false) };
            let overdue = stop.deadline <= now;
            let control_over = matches!(self.control.state, RoleState::Over);
            match stop.stage {
                Stage::Tell if self.control.is_ready() => {
                    self.control.signal(Signal::TERM);
                    stop.stage = Stage::Apps;
                }
                Stage::Tell | Stage::Apps if overdue || control_over => self.end_apps(now)?,
                Stage::Tell | Stage::Apps => return Ok(false),
                Stage::Edge if overdue => {
                    self.edge.signal(Signal::KILL);
                    self.orphans.iter().for_each(|orphan| orphan.signal(Signal::KILL));
                    return self.edge_is_gone();
                }
                Stage::Edge => return self.edge_is_gone(),
            }
        }
    }

    fn edge_is_gone(&mut self) -> Result<bool, WatchError> {
        let ended = !matches!(self.edge.state, RoleState::Running(_));
        Ok(ended && self.orphans.iter().all(Orphan::has_ended))
    }

    /// Control has done what it could. Ends it if it did not end, kills what it left and turns to edge.
    fn end_apps(&mut self, now: Duration) -> Result<(), WatchError> {
        if let RoleState::Running(running) = &mut self.control.state {
            self.voice.say("control did not stop the apps in time: killing it and them");
            running.child.signal(Signal::KILL)?;
            running.child.wait()?;
        }
        self.control.state = RoleState::Over;
        let groups = AppGroups::find(&self.site.home.platform.platform);
        groups.kill();
        self.kill_leftovers()?;
        self.end_recorded();
        groups.remove();
        self.edge.signal(Signal::TERM);
        self.orphans.iter().for_each(|orphan| orphan.signal(Signal::TERM));
        if matches!(self.edge.state, RoleState::Due(_)) {
            self.edge.state = RoleState::Over;
        }
        if let Phase::Stopping(stop) = &mut self.phase {
            stop.stage = Stage::Edge;
            stop.deadline = now + EDGE_DRAIN;
        }
        Ok(())
    }

    /// Ends what control groups and descent do not show: where the machine has no groups, the instances of an earlier supervisor
    /// are known by their records alone. Removes the sockets of all that was killed.
    fn end_recorded(&self) {
        let (home, run_dir) = (&self.site.home, &self.site.run_dir);
        let clock = Arc::new(SystemClock::new());
        if let Err(error) =
            end_instances(&home.path, run_dir, &home.platform.platform, self.site.kind.backend, clock)
        {
            tracing::error!(error, "an instance is left");
        }
    }

    /// Kills every child of ours but edge, and the children that come to us by that, until none is left. With control gone
    /// whatever it started is a child of ours, and nothing else is.
    fn kill_leftovers(&mut self) -> Result<(), WatchError> {
        let own = std::process::id();
        let edge = self.edge.running().map(|running| running.child.pid());
        loop {
            let leftovers: Vec<u32> = procfs::all()?
                .into_iter()
                .filter(|stat| stat.parent == own && Some(stat.pid) != edge)
                .map(|stat| stat.pid)
                .collect();
            if leftovers.is_empty() {
                return Ok(());
            }
            tracing::warn!(pids = ?leftovers, "killing what control left");
            for pid in leftovers {
                kill_and_reap(pid)?;
            }
        }
    }
}

/// The control groups of instances and builds, where the machine has such. They hold what descends from nobody of ours: shims
/// that an earlier supervisor started, processes that left their session.
struct AppGroups {
    folders: Vec<Cgroups>,
}

impl AppGroups {
    /// How often, and how far apart, an emptied group is tried: killed processes take a moment to leave.
    const TRIES: u32 = 100;
    const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

    fn find(platform: &str) -> Self {
        Self { folders: cgroup_folders(platform).iter().filter_map(|name| Cgroups::discover(name)).collect() }
    }

    fn groups(&self) -> impl Iterator<Item = Cgroup> {
        let of = |folder: &Cgroups| {
            let names = folder.names().unwrap_or_default();
            names.into_iter().map(|name| folder.group(&name)).collect::<Vec<_>>()
        };
        self.folders.iter().flat_map(of)
    }

    fn kill(&self) {
        for group in self.groups() {
            if let Err(error) = group.kill() {
                tracing::warn!(group = %group.door_path().display(), %error, "cannot kill what control left");
            }
        }
    }

    fn remove(&self) {
        for group in self.groups() {
            Self::remove_patiently(|| group.remove(), &group.door_path().display().to_string());
        }
        for folder in &self.folders {
            Self::remove_patiently(|| folder.remove(), "the folder of control groups");
        }
    }

    fn remove_patiently(mut remove: impl FnMut() -> io::Result<()>, what: &str) {
        for _ in 0..Self::TRIES {
            if remove().is_ok() {
                return;
            }
            // An early return by a signal only shortens the pause.
            let _woken = rustix::event::poll(&mut [], Some(&Self::PAUSE));
        }
        tracing::warn!(what, "a control group could not be removed");
    }
}

/// Kills a child of ours by its pid, which is its own until we have reaped it.
fn kill_and_reap(pid: u32) -> Result<(), WatchError> {
    use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}
