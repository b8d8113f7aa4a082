//! One role over its restarts: running, or waiting for its next start.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use berth_process::{Child, Signal};
use berth_server::config::SupervisorRequest;

use super::launch::{RoleKind, Started};
use super::requests::Requests;

/// When a role that died is started again: at once five times, then after 100 ms, doubling to 5 s; from the start again after it lived
/// for 10 s.
///
/// Five times, because nobody but the supervisor has the listeners while there is no edge: should it end in a wait, whoever connects is refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    deaths: u32,
}

impl Backoff {
    const AT_ONCE: u32 = 5;
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);
    const FORGIVEN: Duration = Duration::from_secs(10);

    /// How long to wait now that the role died after `life`.
    pub(crate) fn after(&mut self, life: Duration) -> Duration {
        if life >= Self::FORGIVEN {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        match self.deaths.checked_sub(Self::AT_ONCE + 1) {
            None => Duration::ZERO,
            // 100 ms doubled seven times is beyond the longest.
            Some(waits) => (Self::FIRST * (1 << waits.min(7))).min(Self::LONGEST),
        }
    }
}

/// A role.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) kind: RoleKind,
    pub(crate) state: RoleState,
    /// How often it died before it was ready, in a row.
    pub(crate) failed_starts: u32,
    backoff: Backoff,
}

#[derive(Debug)]
pub(crate) enum RoleState {
    /// To be started at this time of the monotonic clock.
    Due(Duration),
    Running(Box<Running>),
    /// Ended, and not to be started again.
    Over,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    /// `None` once it is ready.
    pub(crate) ready: Option<OwnedFd>,
    pub(crate) requests: Option<Requests>,
    since: Duration,
}

impl Role {
    pub(crate) fn new(kind: RoleKind, now: Duration) -> Self {
        Self { kind, state: RoleState::Due(now), failed_starts: 0, backoff: Backoff::default() }
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.state {
            RoleState::Running(running) => Some(running),
            RoleState::Due(_) | RoleState::Over => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.running().is_some_and(|running| running.ready.is_none())
    }

    pub(crate) fn started(&mut self, started: Started, now: Duration) {
        let Started { child, ready, requests } = started;
        tracing::info!(role = %self.kind, pid = child.pid(), "started");
        let requests = requests.map(Requests::new);
        self.state =
            RoleState::Running(Box::new(Running { child, ready: Some(ready), requests, since: now }));
    }

    /// The platform is up, and no other program takes its place again.
    pub(crate) fn settle(&self) {
        if let Some(requests) = self.running().and_then(|running| running.requests.as_ref()) {
            requests.settle();
        }
    }

    /// The role could not be started: tries again as if it had died.
    pub(crate) fn not_started(&mut self, now: Duration) {
        self.failed_starts += 1;
        self.state = RoleState::Due(now + self.backoff.after(Duration::ZERO));
    }

    /// Sends it `signal` if it runs. Through its pidfd: whoever has its pid later is safe.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(running) = self.running()
            && let Err(error) = running.child.signal(signal)
        {
            tracing::error!(role = %self.kind, %error, "cannot signal");
        }
    }

    /// Looks whether it became ready; says so once.
    pub(crate) fn notice_ready(&mut self) -> bool {
        let RoleState::Running(running) = &mut self.state else { return false };
        let Some(pipe) = &running.ready else { return false };
        let mut byte = [0];
        // No byte yet, or the end without one: then its death is noticed elsewhere.
        if !matches!(rustix::io::read(pipe, &mut byte), Ok(1)) {
            return false;
        }
        running.ready = None;
        self.failed_starts = 0;
        tracing::info!(role = %self.kind, "ready");
        true
    }

    /// What it asked for since the last look.
    pub(crate) fn take_requests(&mut self) -> Vec<SupervisorRequest> {
        match &mut self.state {
            RoleState::Running(running) => running.requests.as_mut().map_or(Vec::new(), Requests::take),
            RoleState::Due(_) | RoleState::Over => Vec::new(),
        }
    }

    /// Looks whether it died; then it is due again, and its status is given.
    pub(crate) fn notice_death(&mut self, now: Duration) -> io::Result<Option<ExitStatus>> {
        let RoleState::Running(running) = &mut self.state else { return Ok(None) };
        let Some(status) = running.child.try_wait()? else { return Ok(None) };
        let was_ready = running.ready.is_none();
        let wait = self.backoff.after(now.saturating_sub(running.since));
        if !was_ready {
            self.failed_starts += 1;
        }
        self.state = RoleState::Due(now + wait);
        Ok(Some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_slower_and_slower_until_the_role_has_lived() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u128> = (0..13).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        let again: Vec<u128> = [10, 1, 1, 1, 1, 1]
            .map(|seconds| backoff.after(Duration::from_secs(seconds)).as_millis())
            .to_vec();
        assert_eq!(again, [0, 0, 0, 0, 0, 100]);
        for _ in 0..100 {
            backoff.after(short);
        }
        assert_eq!(backoff.after(short), Duration::from_secs(5));
    }
}
