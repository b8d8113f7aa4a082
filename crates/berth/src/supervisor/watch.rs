//! The supervisor's loop: look at everything that may have changed, act on what is found, wait for the next change.
//!
//! Each turn looks at all of it again instead of at the event that woke it. Two events at once, an event that came while
//! another was handled, or a spurious one therefore need no cases of their own.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use berth_clock::Clock;
use berth_process::Signal;
use berth_server::config::SupervisorRequest;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::launch::{RoleKind, Site, StartError};
use super::orphans::Orphan;
use super::role::{Role, RoleState};
use super::sockets::Sockets;
use super::stop::Stop;
use super::upgrade::Successor;
use super::voice::Voice;
use crate::signals::Signals;

/// How often the logs' sizes are looked at: what makes the bound on them one of rate times this.
const LOG_CHECK: Duration = Duration::from_secs(30);
/// How often in a row a role may die before it was ready, while the platform has not come up yet. Later ones are tried for
/// ever: the platform was well once, and a person or a full disk may be at work.
const START_ATTEMPTS: u32 = 3;

/// The loop and what it looks after.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(super) site: Site,
    pub(super) control: Role,
    pub(super) edge: Role,
    /// Roles of a killed supervisor; told to end once ours serve.
    pub(super) orphans: Vec<Orphan>,
    pub(super) phase: Phase,
    pub(super) clock: &'a dyn Clock,
    pub(super) voice: Voice,
    signals: Signals,
    logs_checked: Duration,
    /// The program to become.
    successor: Option<Successor>,
    /// Whether no program before this one takes its place any more.
    settled: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    Starting,
    Serving,
    Stopping(Stop),
}

/// What a turn of the loop came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Go on.
    Quiet,
    /// Both roles serve; said once.
    Up,
    /// Another program is to take over.
    Upgrade(Successor),
    /// Everything has ended.
    Down,
}

/// Why the supervisor gives up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("the supervisor cannot watch its roles")]
    Io(#[from] io::Error),
    #[error("{role} does not start; its log ends with:\n{tail}")]
    RoleFails { role: RoleKind, tail: String },
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        site: Site,
        orphans: Vec<Orphan>,
        signals: Signals,
        clock: &'a dyn Clock,
        voice: Voice,
    ) -> Self {
        let now = clock.monotonic();
        Self {
            site,
            control: Role::new(RoleKind::Control, now),
            edge: Role::new(RoleKind::Edge, now),
            orphans,
            phase: Phase::Starting,
            clock,
            voice,
            signals,
            logs_checked: now,
            successor: None,
            settled: false,
        }
    }

    /// Where the platform listens and lives.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Where the supervisor speaks.
    pub(crate) fn voice(&mut self) -> &mut Voice {
        &mut self.voice
    }

    /// The platform is up and nobody waits to take it over again: control may write what only this program reads.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
        self.control.settle();
    }

    /// One turn: acts on all that has changed, then waits for more.
    ///
    /// # Errors
    /// [`WatchError`]; the roles that we started have been ended then.
    pub(crate) fn turn(&mut self) -> Result<Turn, WatchError> {
        let result = self.look_and_act();
        match &result {
            Ok(Turn::Quiet) => self.wait()?,
            Ok(Turn::Up | Turn::Upgrade(_) | Turn::Down) => {}
            Err(_) => self.abandon(),
        }
        result
    }

    fn look_and_act(&mut self) -> Result<Turn, WatchError> {
        self.take_signals()?;
        self.take_requests();
        self.control.notice_ready();
        self.edge.notice_ready();
        self.take_deaths()?;
        self.start_what_is_due()?;
        self.bound_logs();
        match &self.phase {
            Phase::Starting if self.control.is_ready() && self.edge.is_ready() => {
                self.enter_service()?;
                Ok(Turn::Up)
            }
            Phase::Serving => Ok(self.successor.take().map_or(Turn::Quiet, Turn::Upgrade)),
            Phase::Starting => Ok(Turn::Quiet),
            Phase::Stopping(_) => Ok(if self.advance_stop()? { Turn::Down } else { Turn::Quiet }),
        }
    }

    fn take_signals(&mut self) -> Result<(), WatchError> {
        while let Some(signal) = self.signals.next()? {
            if signal == Signal::CHILD {
                // The roles reap themselves; the rest are shims that outlived the control which started them, come to
                // us since we are their subreaper.
                let roles = [&self.control, &self.edge].into_iter().filter_map(Role::running);
                let except: BTreeSet<u32> = roles.map(|running| running.child.pid()).collect();
                berth_process::reap_orphans(&except)?;
            } else {
                tracing::info!(?signal, "asked to stop");
                self.stop();
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) {
        for request in self.control.take_requests() {
            tracing::info!(%request, "control asks");
            match request {
                SupervisorRequest::RestartEdge => self.edge.signal(Signal::KILL),
                SupervisorRequest::Down if !matches!(self.phase, Phase::Stopping(_)) => self.stop(),
                SupervisorRequest::Down => {}
                SupervisorRequest::Upgrade { program, listeners } => {
                    self.successor = Some(Successor { program, listeners });
                }
                SupervisorRequest::Stopping { apps, within_ms } => {
                    self.announce_stopping(apps, Duration::from_millis(within_ms));
                }
            }
        }
    }

    fn take_deaths(&mut self) -> Result<(), WatchError> {
        let now = self.clock.monotonic();
        for kind in RoleKind::ALL {
            let role = if kind == RoleKind::Control { &mut self.control } else { &mut self.edge };
            let Some(status) = role.notice_death(now)? else { continue };
            if let Phase::Stopping(stop) = &mut self.phase {
                tracing::info!(role = %kind, %status, "ended");
                stop.role_ended(role, status);
            } else {
                tracing::warn!(role = %kind, %status, "ended");
            }
        }
        self.orphans.retain(|orphan| !orphan.has_ended());
        Ok(())
    }

    fn start_what_is_due(&mut self) -> Result<(), WatchError> {
        let now = self.clock.monotonic();
        for role in [&mut self.control, &mut self.edge] {
            match role.state {
                RoleState::Due(at) if at <= now => {}
                RoleState::Due(_) | RoleState::Running(_) | RoleState::Over => continue,
            }
            if matches!(self.phase, Phase::Starting) && role.failed_starts >= START_ATTEMPTS {
                let tail = self.site.log(role.kind).tail(15)?;
                return Err(WatchError::RoleFails { role: role.kind, tail });
            }
            match self.site.start(role.kind) {
                Ok(started) => {
                    role.started(started, now);
                    if self.settled {
                        role.settle();
                    }
                }
                Err(error) => {
                    log_start_error(role.kind, &error);
                    role.not_started(now);
                }
            }
        }
        Ok(())
    }

    /// Both roles serve: the orphans have done their duty.
    fn enter_service(&mut self) -> Result<(), WatchError> {
        Sockets::publish_handover(&self.site.run_dir)?;
        for orphan in &self.orphans {
            tracing::info!(role = %orphan.kind, pid = orphan.pid, "asking an orphan to drain and end");
            orphan.signal(Signal::TERM);
        }
        self.phase = Phase::Serving;
        Ok(())
    }

    fn bound_logs(&mut self) {
        let now = self.clock.monotonic();
        if now < self.logs_checked + LOG_CHECK {
            return;
        }
        self.logs_checked = now;
        for log in [&self.site.control_log, &self.site.edge_log, self.voice.log()] {
            if let Err(error) = log.bound() {
                tracing::warn!(%error, "a log could not be cut");
            }
        }
    }

    /// The platform did not come up: what we started ends, and an orphaned edge and all instances are left as they were.
    fn abandon(&mut self) {
        for role in [&mut self.edge, &mut self.control] {
            role.signal(Signal::KILL);
            if let RoleState::Running(running) = &mut role.state
                && let Err(error) = running.child.wait()
            {
                tracing::error!(role = %role.kind, %error, "cannot wait for the role");
            }
            role.state = RoleState::Over;
        }
    }

    /// Waits until something may have changed.
    fn wait(&self) -> io::Result<()> {
        let now = self.clock.monotonic();
        let until = self.next_time();
        let limit = until.saturating_sub(now);
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let mut fds: Vec<PollFd<'_>> =
            self.watched().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.signals.as_fd()];
        for running in [&self.control, &self.edge].into_iter().filter_map(Role::running) {
            fds.push(running.child.as_fd());
            fds.extend(running.ready.as_ref().map(AsFd::as_fd));
            fds.extend(running.requests.as_ref().and_then(|requests| requests.pollable()));
        }
        fds.extend(self.orphans.iter().map(AsFd::as_fd));
        fds
    }

    fn next_time(&self) -> Duration {
        let mut next = self.logs_checked + LOG_CHECK;
        for role in [&self.control, &self.edge] {
            if let RoleState::Due(at) = role.state {
                next = next.min(at);
            }
        }
        if let Phase::Stopping(stop) = &self.phase {
            next = next.min(stop.deadline());
        }
        next
    }
}

fn log_start_error(role: RoleKind, error: &StartError) {
    let error: &dyn std::error::Error = error;
    tracing::error!(%role, error, "not started");
}
