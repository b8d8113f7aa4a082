//! The keeper of a way out: a process that stays in the machine's network and outside of the instance's user namespace, where the shim does not get
//! to any more once it has left both.
//!
//! It runs the program at the other end of the instance's interface, again whenever that ends, and has the instance's network refuse what the machine's
//! own addresses are, as they come and go. It ends with the shim, and the program with it, which the kernel sees to. Should it end by itself
//! the program does too, so that nothing leads out that nobody keeps, and the shim ends the instance, to be replaced.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use berth_shim::dial;
use berth_shim::netlink::{Netlink, Prefix, Watch};
use berth_shim::sandbox::{Landlock, Sandbox};
use berth_shim::way_out::LINK;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::sandbox::{self, Reach};
use crate::{system, tap};

/// Milliseconds before the program is started again, doubling from the first to the last with each short life.
const WAIT_FIRST: u64 = 20;
const WAIT_LAST: u64 = 5_000;
/// A life of so many milliseconds is none that was short.
const GOOD_LIFE: u64 = 10_000;

/// What the program reads: itself and its libraries, wherever a machine has these, and its own descriptors.
const READABLE: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/etc", "/proc"];

/// The keeper, as its shim knows it. It ends when this does.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Its process.
    pub(crate) pid: u32,
    line: UnixStream,
}

impl Keeper {
    /// Starts a keeper of `program`, which waits for its first word. The calling process has to be in the machine's network still, and in no user
    /// namespace of its own.
    pub(crate) fn start(program: &[String]) -> io::Result<Self> {
        let shim = rustix::process::getpid();
        let (line, theirs) = UnixStream::pair()?;
        let Some(pid) = system::fork()? else {
            drop(line);
            // Whatever came of it: there is nobody to tell but by the end.
            system::unheeded(keep(shim, &theirs.into(), program));
            system::end_child(1);
        };
        Ok(Self { pid, line })
    }

    /// Has it begin, now that this process is where it will stay. `routes` is what makes routes in this network.
    pub(crate) fn begin(&self, routes: Netlink) -> io::Result<()> {
        let [user, network] = ["user", "net"].map(|kind| File::open(format!("/proc/self/ns/{kind}")));
        dial::answer(&self.line, &[routes.into_socket(), user?.into(), network?.into()])
    }
}

/// All that the keeper does. Ends with an error, or when its shim is gone.
fn keep(shim: Pid, line: &OwnedFd, program: &[String]) -> io::Result<()> {
    rustix::thread::set_name(c"berth-way-out")?;
    end_with(shim)?;
    // What the shim was handed is the app's, or edge's, or whoever's waits for a command to have ended.
    system::close_all_but(&[line.as_fd()])?;
    for _ in 0..3 {
        // The first three numbers, which are free now, and are the program's too.
        let _number = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?.into_raw_fd();
    }
    let told = <[OwnedFd; 3]>::try_from(dial::receive(line)?);
    let [routes, user, network] = told.map_err(|_others| io::ErrorKind::InvalidData)?;
    let mut refused = Refused::open(Netlink::over(routes))?;
    let program = Program::of(program, [user, network])?;
    let mut running: Option<Running> = None;
    let (mut wait, mut due) = (WAIT_FIRST, system::steady());
    loop {
        let now = system::steady();
        if running.is_none() && now >= due {
            running = Some(Running::start(&program, now)?);
        }
        let timeout = running.is_none().then(|| due.saturating_sub(now));
        if is_over(line, &refused.watch, running.as_ref(), timeout)? {
            return Ok(());
        }
        if refused.watch.own_addresses_changed()? {
            refused.update()?;
        }
        while let Some(reaped) = system::reap() {
            let Some(ended) = running.take_if(|running| running.pid == reaped.pid) else { continue };
            let now = system::steady();
            wait = if now >= ended.since + GOOD_LIFE { WAIT_FIRST } else { (wait * 2).min(WAIT_LAST) };
            due = now + wait;
        }
    }
}

/// Waits until something happens, for at most `timeout`. Whether the shim is gone, or says what it has no reason to say.
fn is_over(
    line: &OwnedFd,
    watch: &Watch,
    program: Option<&Running>,
    timeout: Option<u64>,
) -> io::Result<bool> {
    let mut polled =
        vec![PollFd::new(line, PollFlags::IN), PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
    polled.extend(program.map(|running| PollFd::new(&running.pidfd, PollFlags::IN)));
    let timeout = timeout.map(|millis| Timespec {
        tv_sec: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
    });
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.first().is_some_and(|line| !line.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the instance's network refuses besides what it always does: the addresses of the machine.
struct Refused {
    watch: Watch,
    machine: Netlink,
    instance: Netlink,
    /// Those that are refused because of this, and not whatever the machine's addresses are.
    addresses: BTreeSet<Prefix>,
}

impl Refused {
    fn open(instance: Netlink) -> io::Result<Self> {
        // Heard of before they are asked for, so that none is missed that comes in between.
        let (watch, machine) = (Watch::routes()?, Netlink::open()?);
        let mut refused = Self { watch, machine, instance, addresses: BTreeSet::new() };
        refused.update()?;
        Ok(refused)
    }

    fn update(&mut self) -> io::Result<()> {
        let mut found = self.machine.own_addresses()?;
        // What is at loopback is refused for ever. A route that has everything be the machine's own is one that proxies are fed by.
        found.retain(|(address, bits)| !address.is_loopback() && *bits > 0);
        for prefix in found.difference(&self.addresses).copied().collect::<Vec<_>>() {
            if self.instance.refuse(prefix)? {
                self.addresses.insert(prefix);
            }
        }
        for prefix in self.addresses.difference(&found).copied().collect::<Vec<_>>() {
            self.instance.refuse_no_more(prefix)?;
            self.addresses.remove(&prefix);
        }
        Ok(())
    }
}

/// The program, as long as it runs.
struct Running {
    pid: u32,
    pidfd: OwnedFd,
    since: u64,
}

impl Running {
    fn start(program: &Program, now: u64) -> io::Result<Self> {
        let keeper = rustix::process::getpid();
        let Some(pid) = system::fork()? else {
            system::unheeded(become_program(keeper, program));
            system::end_child(127);
        };
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = rustix::process::pidfd_open(known, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd, since: now })
    }
}

/// What is run, and what it finds at the numbers that it is told.
struct Program {
    argv: Vec<CString>,
    namespaces: [OwnedFd; 2],
}

impl Program {
    /// `program` with the words by which it finds the namespaces of the user and of the network. By descriptors: to look at the shim it would need rights
    /// over other processes, which it does not keep.
    fn of(program: &[String], namespaces: [OwnedFd; 2]) -> io::Result<Self> {
        let [user, network] = namespaces.each_ref().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let own = [format!("--userns-path={user}"), "--netns-type=path".to_owned(), network, LINK.to_owned()];
        let text = |word: &String| CString::new(word.as_str()).map_err(io::Error::from);
        let argv = program.iter().chain(&own).map(text).collect::<io::Result<Vec<CString>>>()?;
        Ok(Self { argv, namespaces })
    }
}

/// Turns the forked child into the program, which sees the machine's programs and the driver, and none of its user's files. Its environment is empty: ours
/// has what no other program is to read.
fn become_program(keeper: Pid, program: &Program) -> io::Result<()> {
    end_with(keeper)?;
    system::close_on_exec()?;
    for namespace in &program.namespaces {
        rustix::io::fcntl_setfd(namespace, FdFlags::empty())?;
    }
    system::reset_signals();
    rustix::thread::set_no_new_privs(true)?;
    let texts = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let landlock =
        Landlock { readable: texts(&READABLE), writable: texts(&[tap::DRIVER]), ..Landlock::default() };
    let confined = Sandbox { landlock: Some(landlock), ..Sandbox::default() };
    sandbox::confine(&confined, Reach::NONE)?;
    let pointers: Vec<*const c_char> =
        program.argv.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
    let path = program.argv.first().ok_or(io::ErrorKind::NotFound)?;
    Err(system::exec(path, &pointers, &[std::ptr::null()]))
}

/// Has the kernel kill this process when `parent` ends, which it may have done already.
fn end_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}
