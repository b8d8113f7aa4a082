//! The start of the app: what happens between fork and exec, and what is left to the parent.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use berth_shim::config::StartConfig;
use berth_shim::sandbox::{Sandbox, View};
use berth_shim::wire::{Failure, Step};
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Pid, Signal, Uid};

use crate::lookup;
use crate::sandbox::{self, Init, Plan};
use crate::system::{self, Reaped};

/// Its output and its errors; `None` once they ended. They may outlive the app, held by what it started.
pub(crate) type Pipes = [Option<OwnedFd>; 2];

/// An app that was started.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) pid: u32,
    /// Where the child says which step failed. The exec closes it.
    failure: OwnedFd,
    /// The init of its pid namespace, if it has one.
    init: Option<Init>,
}

/// The app's texts in the form that exec takes, made before the fork.
struct Texts {
    paths: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    dir: CString,
}

/// A step of the start, and the number of the error that it failed with.
pub(crate) type Failed = (Step, i32);

/// What the app reads and writes, on its side.
#[derive(Debug)]
pub(crate) struct Streams {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    terminal: bool,
}

impl Streams {
    /// Takes over what was inherited for the app; `None` when its output goes to the log.
    pub(crate) fn inherited(config: &StartConfig) -> io::Result<Option<Self>> {
        let Some(streams) = config.streams else { return Ok(None) };
        Ok(Some(Self {
            input: system::inherited(streams.input)?,
            output: system::inherited(streams.output)?,
            errors: system::inherited(streams.errors)?,
            terminal: streams.terminal,
        }))
    }

    /// What this process itself reads and writes.
    pub(crate) fn own() -> io::Result<Self> {
        let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        Ok(Self {
            input: copy(io::stdin().as_fd())?,
            output: copy(io::stdout().as_fd())?,
            errors: copy(io::stderr().as_fd())?,
            terminal: false,
        })
    }

    /// Nothing to read, and pipes to us to write to.
    fn logged(config: &StartConfig) -> Result<(Self, Pipes), Failed> {
        let input = std::fs::File::open("/dev/null").map_err(at(Step::Setup))?.into();
        let (out, output) = pipe()?;
        let (err, errors) = pipe()?;
        for app_end in [&output, &errors] {
            // A program that opens /dev/stdout anew, as web servers do, is asked for its permission then.
            if let Some(user) = &config.user {
                let users = config.sandbox.as_ref().and_then(|sandbox| sandbox.users);
                let outside = |id| users.map_or(id, |users| users.outside(id));
                let (uid, gid) = (Uid::from_raw(outside(user.uid)), Gid::from_raw(outside(user.gid)));
                rustix::fs::fchown(app_end, Some(uid), Some(gid)).map_err(at(Step::Fork))?;
            }
        }
        Ok((Self { input, output, errors, terminal: false }, [Some(out), Some(err)]))
    }
}

/// A pipe to us. Our end alone does not block: a pipe's two ends have a status each.
fn pipe() -> Result<(OwnedFd, OwnedFd), Failed> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Fork))?;
    rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK).map_err(at(Step::Fork))?;
    Ok((ours, theirs))
}

impl App {
    /// Starts the app, the `first` one or another. What it reads and writes is the app's alone afterwards.
    pub(crate) fn start(
        config: &StartConfig,
        streams: Option<Streams>,
        first: bool,
    ) -> Result<(Self, Pipes), Failure> {
        Self::fork(config, streams, first).map_err(|(step, errno)| Failure { step, errno })
    }

    fn fork(config: &StartConfig, streams: Option<Streams>, first: bool) -> Result<(Self, Pipes), Failed> {
        let texts = Texts::of(config)?;
        let (streams, pipes) = match streams {
            Some(streams) => (streams, [None, None]),
            None => Streams::logged(config)?,
        };
        let (failure, app_failure) = pipe()?;
        let tell = |(step, errno): Failed| {
            let [first, second, third, fourth] = errno.to_le_bytes();
            // The shim reads it; when it is gone there is nobody to tell.
            system::unheeded(rustix::io::write(&app_failure, &[step.number(), first, second, third, fourth]));
        };
        let become_app = |parent| become_app(config, &texts, parent, &streams);
        if let Some((sandbox, view)) = config.sandbox.as_ref().and_then(|it| Some((it, it.view.as_ref()?))) {
            let (init, pid) = Init::start(&plan(config, sandbox, view), first, &become_app, &tell)?;
            return Ok((Self { pid, failure, init: Some(init) }, pipes));
        }
        let parent = rustix::process::getpid();
        let Some(pid) = system::fork().map_err(at(Step::Fork))? else {
            tell(become_app(parent));
            system::end_child(127);
        };
        Ok((Self { pid, failure, init: None }, pipes))
    }

    /// The init of its pid namespace, if it has one: readable once it has told how the app ended.
    pub(crate) fn init(&self) -> Option<&Init> {
        self.init.as_ref()
    }

    /// How the app ended, when init has told it.
    pub(crate) fn told(&self) -> Option<Reaped> {
        self.init.as_ref()?.told(self.pid)
    }

    /// How the app ended, when what was reaped here means that: itself, or an init that took the app with it.
    pub(crate) fn ended_with(&self, reaped: &Reaped) -> Option<Reaped> {
        match &self.init {
            Some(init) if init.pid == reaped.pid => {
                Some(self.told().unwrap_or(Reaped { pid: self.pid, ..*reaped }))
            }
            None if self.pid == reaped.pid => Some(*reaped),
            _ => None,
        }
    }

    /// The step at which the start failed. Asked once the child has ended.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let mut report = [0; 5];
        match rustix::io::read(&self.failure, &mut report) {
            Ok(5) => {
                let [step, first, second, third, fourth] = report;
                let errno = i32::from_le_bytes([first, second, third, fourth]);
                Some(Failure { step: Step::from_number(step), errno })
            }
            _ => None,
        }
    }
}

impl Texts {
    fn of(config: &StartConfig) -> Result<Self, Failed> {
        let text = |text: &String| CString::new(text.as_str()).map_err(|_nul| (Step::Setup, libc::EINVAL));
        let program = config.argv.first().ok_or((Step::Exec, libc::ENOENT))?;
        Ok(Self {
            paths: lookup::candidates(program, &config.env),
            argv: config.argv.iter().map(text).collect::<Result<_, _>>()?,
            env: config.env.iter().map(text).collect::<Result<_, _>>()?,
            dir: text(&config.dir)?,
        })
    }
}

/// What init needs of the configuration.
fn plan<'a>(config: &'a StartConfig, sandbox: &'a Sandbox, view: &'a View) -> Plan<'a> {
    let (group, doors) = (config.cgroup.as_deref(), sandbox.doors.iter().map(String::as_str).collect());
    Plan { sandbox, view, group, doors, user: config.user.as_ref().map(|user| (user.uid, user.gid)) }
}

/// Turns the forked child into the app. Gives what failed.
fn become_app(config: &StartConfig, texts: &Texts, parent: Pid, streams: &Streams) -> Failed {
    match prepare(config, texts, parent, streams) {
        Ok(()) => exec(texts),
        Err(failed) => failed,
    }
}

fn prepare(config: &StartConfig, texts: &Texts, parent: Pid, streams: &Streams) -> Result<(), Failed> {
    use rustix::{process, stdio, thread};
    process::setsid().map_err(at(Step::Setup))?;
    let sandbox = config.sandbox.as_ref();
    // Init has entered the groups, whose files are not to be seen from within.
    if sandbox.is_none_or(|sandbox| sandbox.view.is_none()) {
        let more = sandbox.into_iter().flat_map(|sandbox| &sandbox.doors);
        config
            .cgroup
            .iter()
            .chain(more)
            .try_for_each(|door| system::enter_group(door))
            .map_err(at(Step::Cgroup))?;
    }
    if streams.terminal {
        process::ioctl_tiocsctty(&streams.input).map_err(at(Step::Setup))?;
    }
    stdio::dup2_stdin(&streams.input).map_err(at(Step::Setup))?;
    stdio::dup2_stdout(&streams.output).map_err(at(Step::Setup))?;
    stdio::dup2_stderr(&streams.errors).map_err(at(Step::Setup))?;
    for (resource, value) in &config.limits {
        system::limit(*resource, *value).map_err(at(Step::Limits))?;
    }
    process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    sandbox.map_or(Ok(()), sandbox::bound).map_err(at(Step::Confine))?;
    if let Some(user) = &config.user {
        let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        thread::set_thread_groups(&groups).map_err(at(Step::User))?;
        thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::User))?;
        thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
    }
    // As the app's user, so that it works in a directory which it can read.
    process::chdir(&texts.dir).map_err(at(Step::Dir))?;
    thread::set_no_new_privs(true).map_err(at(Step::Setup))?;
    // After the change of user, which clears it; a shim that died before has left us another parent.
    process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
    if process::getppid() != Some(parent) {
        return Err((Step::Setup, libc::ESRCH));
    }
    system::close_on_exec().map_err(at(Step::Setup))?;
    system::reset_signals();
    sandbox.map_or(Ok(()), sandbox::confine).map_err(at(Step::Confine))
}

fn exec(texts: &Texts) -> Failed {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(&texts.argv), pointers(&texts.env));
    let mut worst = libc::ENOENT;
    for path in &texts.paths {
        let errno = system::exec(path, &argv, &env).raw_os_error().unwrap_or(libc::EIO);
        // As a shell does it: look on, but tell of the one that was there and could not be run.
        match errno {
            libc::ENOENT | libc::ENOTDIR => {}
            other => worst = other,
        }
    }
    (Step::Exec, worst)
}

pub(crate) fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Failed {
    move |error| (step, error.into().raw_os_error().unwrap_or(libc::EIO))
}
