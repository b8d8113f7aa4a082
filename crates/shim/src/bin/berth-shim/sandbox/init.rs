//! The first process of an app's pid namespace: it builds the root, starts the app, and reaps whatever has lost its parent.
//!
//! An app as the first process itself would ignore every signal that it has no handler for, and leave its zombies standing. When
//! this one ends, the kernel ends all the others, so that killing it is killing the tree. It tells the shim how the app ended and
//! lives on for what the app left behind, until that is gone or the shim has it killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use berth_shim::sandbox::{BindMode, Entry, IdRange, Room, Sandbox, View};
use berth_shim::wire::Step;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::SendFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Pid, Signal};
use rustix::thread::UnshareFlags;

use super::join::{self, Namespaces};
use super::{confine, kernel, root};
use crate::app::{Failed, at};
use crate::system::{self, Reaped};

/// What the app says before anything else, so that the shim learns its pid from the kernel. Its namespaces come with it.
const BEGUN: u8 = b'b';
/// What init is told when the app is to be started. The network that it is to have comes with it, where that is not init's own.
const GO: u8 = b'g';
/// What init says when the app has ended.
const ENDED: u8 = b'e';
/// How long the app may take to begin. A folder on a dead network drive would keep the shim from being told to stop.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// The init of an app that runs, as its shim knows it.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: u32,
    /// The app's namespaces, for what is to run beside it; none where it did not begin, or could not open them.
    pub(crate) namespaces: Option<Namespaces>,
    report: OwnedFd,
    /// Init looks whether this is still held, once: a shim that died before it could ask to be told has closed it.
    _lifeline: OwnedFd,
}

/// Init's side.
struct Inside {
    report: OwnedFd,
    lifeline: OwnedFd,
    /// Whether it is in the group that holds all already.
    is_within: bool,
}

/// What init and the app need of the rest.
pub(crate) struct Plan<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) view: &'a View,
    /// The control group that holds all, if there is one.
    pub(crate) group: Option<&'a str>,
    /// Those that limit, where they are others.
    pub(crate) doors: Vec<&'a str>,
    /// The app's user and group, as they are within its user namespace.
    pub(crate) user: Option<(u32, u32)>,
}

impl Init {
    /// Starts the init of a new namespace, which puts up the root and waits for [`Init::go`]; `app` becomes the app in a process of its own
    /// there, and gives what failed. `tell` is told of what fails, inside.
    pub(crate) fn begin(
        plan: &Plan<'_>,
        first: bool,
        app: &dyn Fn(Pid) -> Failed,
        tell: &dyn Fn(Failed),
    ) -> Result<Self, Failed> {
        let (report, inside) = super::report().map_err(at(Step::Fork))?;
        let (lifeline, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Fork))?;
        // Where that is not to be had it enters by itself. So does whoever comes after a sweep: kernels from 6.14 to 6.18 at least take a child that is born into a
        // group for one that `cgroup.kill` has missed, if there ever was such an order (they compare with the parent's group).
        let born_within = plan.group.filter(|_| first).and_then(|door| clone_into(door).ok());
        let is_within = born_within.is_some();
        let born =
            born_within.map_or_else(|| kernel::clone(namespaces()), Ok).map_err(at(Step::Namespaces))?;
        let Some(pid) = born else {
            // What the shim alone may hold.
            drop((report, held));
            let inside = Inside { report: inside, lifeline, is_within };
            match inside.run(plan, app, tell) {
                Ok(()) => system::end_child(0),
                Err(failed) => tell(failed),
            }
            system::end_child(127);
        };
        drop((inside, lifeline));
        Ok(Self { pid, namespaces: None, report, _lifeline: held })
    }

    /// Has it start the app in `network`; in the one that init was born in where none is given. Gives the app's pid, or init's when the
    /// app did not begin.
    pub(crate) fn go(&mut self, network: Option<&OwnedFd>) -> Result<u32, Failed> {
        let attached: Vec<BorrowedFd<'_>> = network.iter().map(|network| network.as_fd()).collect();
        // One that has ended has said why.
        system::unheeded(join::send(&self.report, GO, &attached));
        let begun = begun(&self.report).map_err(at(Step::Fork))?;
        rustix::fs::fcntl_setfl(&self.report, OFlags::NONBLOCK).map_err(at(Step::Fork))?;
        let Some((app, namespaces)) = begun else { return Ok(self.pid) };
        self.namespaces = namespaces;
        Ok(app)
    }

    /// How the app ended, once it has.
    pub(crate) fn told(&self, app: u32) -> Option<Reaped> {
        let mut message = [0; 32];
        let (length, ..) = join::receive(&self.report, &mut message).ok()?;
        decode(message.get(..length)?, app)
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// Waits for the app's first word, and gives its pid and its namespaces; `None` when there comes none.
fn begun(report: &OwnedFd) -> io::Result<Option<(u32, Option<Namespaces>)>> {
    let limit = Timespec { tv_sec: BEGIN_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        let mut polled = [PollFd::new(report, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Ok(None),
            Ok(_) => break,
        }
    }
    let mut message = [0; 32];
    let (length, pid, attached) = match join::receive(report, &mut message) {
        // It ended before it had heard the word.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    let spoke = message.get(..length) == Some(&[BEGUN]);
    Ok(pid.filter(|_| spoke).map(|pid| (pid, Namespaces::of(attached))))
}

/// Forks into new namespaces and into the control group behind `door`.
fn clone_into(door: &str) -> io::Result<Option<u32>> {
    let folder = door.strip_suffix("/cgroup.procs").ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group = rustix::fs::open(folder, flags, rustix::fs::Mode::empty())?;
    kernel::clone_into(namespaces(), group.as_fd())
}

fn namespaces() -> UnshareFlags {
    UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS
}

impl Inside {
    fn run(self, plan: &Plan<'_>, app: &dyn Fn(Pid) -> Failed, tell: &dyn Fn(Failed)) -> Result<(), Failed> {
        self.hold_on()?;
        let group = plan.group.filter(|_| !self.is_within);
        group
            .iter()
            .chain(&plan.doors)
            .try_for_each(|door| system::enter_group(door))
            .map_err(at(Step::Cgroup))?;
        // Only now: the group that a process is in becomes the top of what it sees.
        kernel::unshare(UnshareFlags::NEWCGROUP).map_err(at(Step::Namespaces))?;
        rustix::system::sethostname(plan.view.hostname.as_bytes()).map_err(at(Step::Namespaces))?;
        root::enter(plan.view, plan.owner(), plan.root_owner()).map_err(at(Step::Root))?;
        self.wait_for_word()?;
        let app = self.start_app(plan, app, tell)?;
        self.reap(plan.sandbox, app)
    }

    /// Ends with the shim.
    fn hold_on(&self) -> Result<(), Failed> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
        // Nobody may look into this process: it is one of the app's user where there is no other.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Setup))?;
        let mut polled = [PollFd::new(&self.lifeline, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut polled, Some(&now)) {
            Ok(0) => Ok(()),
            _ => Err((Step::Setup, libc::ESRCH)),
        }
    }

    /// Waits until the app is to be started, and goes into the network that it is to have: that is made while the root is put up.
    fn wait_for_word(&self) -> Result<(), Failed> {
        let mut message = [0; 1];
        let (length, _, network) = join::receive(&self.report, &mut message).map_err(at(Step::Setup))?;
        if message.get(..length) != Some(&[GO]) {
            return Err((Step::Setup, libc::ESRCH));
        }
        network.iter().try_for_each(join::join).map_err(at(Step::Namespaces))
    }

    /// Starts the app, in a user namespace of its own if it is to have one. Gives its pid as it is seen here.
    fn start_app(
        &self,
        plan: &Plan<'_>,
        app: &dyn Fn(Pid) -> Failed,
        tell: &dyn Fn(Failed),
    ) -> Result<u32, Failed> {
        let users = plan.sandbox.users;
        let namespace = if users.is_some() { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
        let (go, start) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Fork))?;
        let init = rustix::process::getpid();
        let Some(pid) = kernel::clone(namespace).map_err(at(Step::Namespaces))? else {
            drop(start);
            // Whoever waits for this has ended if it cannot be said.
            system::unheeded(Namespaces::send_own(&self.report, BEGUN));
            match rustix::io::read(&go, &mut [0; 1][..]) {
                Ok(1) => tell(app(init)),
                _ => tell((Step::Namespaces, libc::ESRCH)),
            }
            system::end_child(127);
        };
        if let Some(users) = users {
            map(pid, users).map_err(at(Step::Namespaces))?;
        }
        rustix::io::write(&start, b"g").map_err(at(Step::Setup))?;
        Ok(pid)
    }

    fn reap(self, sandbox: &Sandbox, app: u32) -> Result<(), Failed> {
        drop(self.lifeline);
        // The app's pipes would not end otherwise, when it has closed them.
        system::close_all_but(&[self.report.as_fd()]).map_err(at(Step::Setup))?;
        rustix::thread::set_no_new_privs(true).map_err(at(Step::Confine))?;
        kernel::set_capabilities(0, 0).map_err(at(Step::Confine))?;
        confine::filter(&sandbox.filter).map_err(at(Step::Confine))?;
        while let Some(reaped) = system::wait() {
            if reaped.pid == app {
                system::unheeded(rustix::net::send(&self.report, &encode(&reaped), SendFlags::NOSIGNAL));
            }
        }
        Ok(())
    }
}

impl Plan<'_> {
    /// Whom an image's root belongs to, likewise: the first of its users.
    fn root_owner(&self) -> (u32, u32) {
        self.sandbox.users.map_or_else(|| self.owner(), |users| (users.outer, users.outer))
    }

    /// Whom what is writable belongs to, as it is seen where the root is built.
    fn owner(&self) -> (u32, u32) {
        let (uid, gid) = self
            .user
            .unwrap_or_else(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        self.sandbox.users.map_or((uid, gid), |users| (users.outside(uid), users.outside(gid)))
    }
}

/// Says which users there are in the user namespace of `pid`.
fn map(pid: u32, IdRange { inner, outer, count }: IdRange) -> io::Result<()> {
    let map = format!("{inner} {outer} {count}");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)
}

/// How a child ended, as it is told from one side of the namespaces to the other.
pub(crate) fn encode(reaped: &Reaped) -> Vec<u8> {
    let mut out = vec![ENDED, u8::from(reaped.core)];
    out.extend(reaped.code.unwrap_or(-1).to_ne_bytes());
    out.extend(reaped.signal.unwrap_or(-1).to_ne_bytes());
    out.extend(reaped.max_rss.to_ne_bytes());
    out
}

/// The same, read again; `app` is what its process is called on this side.
pub(crate) fn decode(message: &[u8], app: u32) -> Option<Reaped> {
    let (head, rest) = message.split_at_checked(2)?;
    let (code, rest) = rest.split_first_chunk::<4>()?;
    let (signal, max_rss) = rest.split_first_chunk::<4>()?;
    let [ENDED, core] = *head else { return None };
    let number = |bytes: &[u8; 4]| Some(i32::from_ne_bytes(*bytes)).filter(|number| *number >= 0);
    Some(Reaped {
        pid: app,
        code: number(code),
        signal: number(signal),
        core: core == 1,
        max_rss: u64::from_ne_bytes(max_rss.try_into().ok()?),
    })
}

/// Does something in a process of its own, and gives the number of the error that came of it.
pub(super) fn attempt(work: fn() -> io::Result<()>) -> i32 {
    match system::fork() {
        Ok(None) => {
            let errno = work().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
            system::end_child(errno);
        }
        Ok(Some(_)) => system::wait().and_then(|reaped| reaped.code).unwrap_or(libc::EIO),
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// Builds a small root in new namespaces.
pub(super) fn try_namespaces() -> io::Result<()> {
    let Some(_) = kernel::clone(namespaces())? else {
        let errno = try_root().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        system::end_child(errno);
    };
    match system::wait().and_then(|reaped| reaped.code) {
        Some(0) => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
    }
}

fn try_root() -> io::Result<()> {
    kernel::unshare(UnshareFlags::NEWCGROUP)?;
    rustix::system::sethostname(b"trial")?;
    let path = |text: &str| text.to_owned();
    let view = View {
        place: path("/tmp"),
        room: Room { bytes: 1 << 20, inodes: 64 },
        read_only: true,
        entries: vec![
            Entry::Bind { source: path("/usr"), path: path("/usr"), how: BindMode::default() },
            Entry::Processes { path: path("/proc") },
            Entry::Terminals { path: path("/dev/pts") },
            Entry::Freeze { path: path("/proc/sys") },
        ],
        ..View::default()
    };
    let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    root::enter(&view, user, user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_an_app_ended_comes_back_from_its_bytes() {
        let exit = Reaped { pid: 7, code: Some(3), signal: None, core: false, max_rss: 99 };
        assert_eq!(
            decode(&encode(&exit), 7).map(|it| (it.pid, it.code, it.signal, it.max_rss)),
            Some((7, Some(3), None, 99))
        );
        let signal = Reaped { code: None, signal: Some(9), core: true, ..exit };
        assert_eq!(
            decode(&encode(&signal), 7).map(|it| (it.code, it.signal, it.core)),
            Some((None, Some(9), true))
        );
        for cut in 0..encode(&signal).len() {
            assert!(decode(&encode(&signal)[..cut], 7).is_none());
        }
        assert!(decode(&[BEGUN; 32], 7).is_none());
    }
}
