//! One more command beside the app: under the app's own confinement, and ended with all that it started.
//!
//! Three processes make it. The first closes everything, enters the app's control groups and namespaces, and forks the second, which is found in
//! them and is our child, too; it goes to the app's users and gives up what the app gave up. It is the parent of the command
//! and the reaper of whatever the command leaves behind, so that all of it is found by descent, and the session is over once the kernel
//! says that nobody holds its end of the socket any more. Nobody can look into any of these processes: they are not dumpable
//! until the command is the program that it runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_shim::config::{Network, StartConfig};
use berth_shim::wire::{Exit, Failure, Step};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::net::SendFlags;
use rustix::process::{DumpableBehavior, Pid, Signal};

use crate::app::{self, App, Failed, Streams, Texts, at};
use crate::sandbox::{self, Namespaces, Reach};
use crate::sweep::{children_of, sweep_below};
use crate::system::{self, Reaped};

/// What the second process says before anything else, so that we learn its pid from the kernel.
const BEGUN: u8 = b'b';

/// A command that runs beside the app.
#[derive(Debug)]
pub(crate) struct Exec {
    /// Our children, as long as they are not reaped: the one that goes in, and the one that the command descends from.
    children: Vec<u32>,
    report: OwnedFd,
    began: u64,
    ended: Option<Reaped>,
    failure: Option<Failure>,
    /// Whether nobody holds the other end of the report any more: whoever did has ended, or is about to.
    is_silent: bool,
    is_killed: bool,
}

impl Exec {
    /// Starts `argv` beside the app, with its environment and `env`, which wins.
    pub(crate) fn start(
        config: &StartConfig,
        app: &App,
        argv: &[String],
        env: &[String],
        streams: Streams,
    ) -> Result<Self, Failure> {
        let started = fork(config, app, argv, env, &streams);
        let (report, entering) = started.map_err(|(step, errno)| Failure { step, errno })?;
        Ok(Self {
            children: vec![entering],
            report,
            began: system::steady(),
            ended: None,
            failure: None,
            is_silent: false,
            is_killed: false,
        })
    }

    /// Hears what there is to be heard of it.
    pub(crate) fn hear(&mut self) {
        let mut message = [0; 32];
        while !self.is_silent {
            match sandbox::receive(&self.report, &mut message) {
                Ok((0, ..)) => self.is_silent = true,
                Ok((length, sender, _)) => self.told(message.get(..length).unwrap_or_default(), sender),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.is_silent = true,
            }
        }
    }

    fn told(&mut self, message: &[u8], sender: Option<u32>) {
        if message == [BEGUN] {
            self.children.extend(sender);
        } else if let Ok(failed) = <[u8; 5]>::try_from(message) {
            self.failure = Some(app::read(failed));
        } else if let Some(ended) = sandbox::decode(message, 0) {
            self.ended = Some(ended);
        }
    }

    /// Takes note that a child of ours was reaped, which may have said something before.
    pub(crate) fn reaped(&mut self, pid: u32) {
        self.hear();
        self.children.retain(|child| *child != pid);
    }

    /// Has it end, with all that it started.
    pub(crate) fn kill(&mut self) {
        self.is_killed = true;
    }

    /// Whether something of it is to be killed: it was told to end, or has left something behind.
    pub(crate) fn is_to_go(&self) -> bool {
        !self.is_over() && (self.is_killed || self.ended.is_some())
    }

    /// Sends the command's process group a signal.
    pub(crate) fn signal(&self, signal: i32) {
        let Some(signal) = Signal::from_named_raw(signal) else { return };
        // It is the child of the second process, and leads its session. What that took in beside it is none of whoever asks.
        let pids = self.children.iter().flat_map(|child| children_of(*child));
        for group in pids.filter_map(Pid::from_raw) {
            system::unheeded(rustix::process::kill_process_group(group, signal));
        }
    }

    /// Kills what there is of it.
    pub(crate) fn sweep(&self) {
        self.children.iter().for_each(|child| sweep_below(*child));
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_over(&self) -> bool {
        self.is_silent && self.children.is_empty()
    }

    /// What to wait for, as long as it says something. The end of its processes is told by a signal.
    pub(crate) fn polled(&self) -> Option<PollFd<'_>> {
        (!self.is_silent).then(|| PollFd::new(&self.report, PollFlags::IN))
    }

    /// How the command ended.
    pub(crate) fn exit(&self) -> Exit {
        let ended = self.ended.filter(|_| self.failure.is_none());
        Exit {
            at: system::wall(),
            code: ended.and_then(|it| it.code).or(self.failure.map(|_| 127)),
            // What takes the second process along says no more.
            signal: ended.map_or(self.failure.is_none().then_some(libc::SIGKILL), |it| it.signal),
            core: ended.is_some_and(|it| it.core),
            max_rss: ended.map_or(0, |it| it.max_rss),
            uptime: system::steady().saturating_sub(self.began),
            failure: self.failure,
            ..Exit::default()
        }
    }
}

/// Forks the first process. Gives our end of what is told, and its pid.
fn fork(
    config: &StartConfig,
    app: &App,
    argv: &[String],
    env: &[String],
    streams: &Streams,
) -> Result<(OwnedFd, u32), Failed> {
    let texts = Texts::of(argv, &overlaid(&config.env, env), &config.dir)?;
    let namespaces = app.namespaces();
    if namespaces.is_none() && app.init().is_some() {
        return Err((Step::Namespaces, libc::ENOENT));
    }
    let (report, inside) = sandbox::report().map_err(at(Step::Fork))?;
    rustix::fs::fcntl_setfl(&report, OFlags::NONBLOCK).map_err(at(Step::Fork))?;
    let inside = Inside { config, texts: &texts, streams, namespaces, report: &inside };
    let shim = rustix::process::getpid();
    match system::fork().map_err(at(Step::Fork))? {
        Some(entering) => Ok((report, entering)),
        None => {
            if let Err(failed) = inside.go_in(shim) {
                inside.tell(failed);
            }
            system::end_child(127);
        }
    }
}

/// The app's environment with more, which wins.
fn overlaid(env: &[String], more: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.len(), |(name, _)| name.len());
    let named = |entry: &&String| more.iter().any(|it| it.get(..name(it)) == entry.get(..name(entry)));
    env.iter().filter(|entry| !named(entry)).chain(more).cloned().collect()
}

/// What the processes of a command know.
struct Inside<'a> {
    config: &'a StartConfig,
    texts: &'a Texts,
    streams: &'a Streams,
    namespaces: Option<&'a Namespaces>,
    report: &'a OwnedFd,
}

impl Inside<'_> {
    fn tell(&self, failed: Failed) {
        // The shim reads it; when it is gone there is nobody to tell.
        system::unheeded(rustix::net::send(self.report, &app::written(failed), SendFlags::NOSIGNAL));
    }

    /// The app is beyond a border of Landlock's. Where nobody but the instance is within a namespace, that is border enough.
    fn reach(&self) -> Reach {
        Reach {
            signals: self.namespaces.is_some() || self.config.is_in_network,
            sockets: self.config.network == Network::Own,
        }
    }

    /// All that the first process does.
    fn go_in(&self, shim: Pid) -> Result<(), Failed> {
        rustix::thread::set_name(c"berth-exec").map_err(at(Step::Setup))?;
        hide()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
        if rustix::process::getppid() != Some(shim) {
            return Err((Step::Setup, libc::ESRCH));
        }
        let mut kept: Vec<BorrowedFd<'_>> = vec![self.report.as_fd()];
        kept.extend(self.streams.descriptors().map(AsFd::as_fd));
        kept.extend(self.namespaces.into_iter().flat_map(Namespaces::descriptors).map(AsFd::as_fd));
        system::close_all_but(&kept).map_err(at(Step::Setup))?;
        app::enter_groups(self.config)?;
        let Some(namespaces) = self.namespaces else { return self.look_after() };
        namespaces.enter()?;
        match sandbox::fork_sibling().map_err(at(Step::Fork))? {
            Some(_) => system::end_child(0),
            None => self.look_after(),
        }
    }

    /// All that the second process does: what is now in the app's namespaces for good, starts the command, and reaps.
    fn look_after(&self) -> Result<(), Failed> {
        system::unheeded(rustix::net::send(self.report, &[BEGUN], SendFlags::NOSIGNAL));
        if let Some(namespaces) = self.namespaces
            && self.config.sandbox.as_ref().is_some_and(|sandbox| sandbox.users.is_some())
        {
            namespaces.enter_users()?;
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(at(Step::Setup))?;
        let own = rustix::process::getpid();
        let Some(command) = system::fork().map_err(at(Step::Fork))? else {
            let how = (true, self.reach());
            self.tell(app::become_program(self.config, self.texts, own, self.streams, how));
            system::end_child(127);
        };
        system::close_all_but(&[self.report.as_fd()]).map_err(at(Step::Setup))?;
        app::become_user(self.config)?;
        hide()?;
        // It was cleared by the change of user. An app that has a namespace of processes ends with its shim anyway, and all in it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
        let sandbox = self.config.sandbox.as_ref();
        let confined = sandbox.map_or(Ok(()), |sandbox| sandbox::confine(sandbox, self.reach()));
        confined.map_err(at(Step::Confine))?;
        while let Some(reaped) = system::wait() {
            if reaped.pid == command {
                let told = sandbox::encode(&reaped);
                system::unheeded(rustix::net::send(self.report, &told, SendFlags::NOSIGNAL));
            }
        }
        system::end_child(0)
    }
}

/// Lets nobody look into this process who has no right over all of them.
fn hide() -> Result<(), Failed> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Setup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_given_win() {
        let texts = |entries: &[&str]| entries.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let all = overlaid(&texts(&["A=1", "AB=2", "C="]), &texts(&["A=x=y", "D="]));
        assert_eq!(all, texts(&["AB=2", "C=", "A=x=y", "D="]));
        assert_eq!(overlaid(&texts(&["A=1"]), &[]), texts(&["A=1"]));
    }
}
