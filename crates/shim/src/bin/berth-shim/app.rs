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
use crate::sandbox::{self, Init, Namespaces, Plan, Reach};
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

/// What is run, in the form that exec takes, made before the fork.
pub(crate) struct Texts {
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
    /// Takes over what was handed to us for the app; `None` when its output goes to the log.
    pub(crate) fn inherited(config: &StartConfig) -> io::Result<Option<Self>> {
        let Some(streams) = config.streams else { return Ok(None) };
        Ok(Some(Self {
            input: system::inherited(streams.input)?,
            output: system::inherited(streams.output)?,
            errors: system::inherited(streams.errors)?,
            terminal: streams.terminal,
        }))
    }

    /// What somebody handed over for one more command: its input, its output, its errors.
    pub(crate) fn handed([input, output, errors]: [OwnedFd; 3], terminal: bool) -> Self {
        Self { input, output, errors, terminal }
    }

    /// Nothing to read, and one pipe to us for all that is written.
    pub(crate) fn gathered(config: &StartConfig) -> Result<(Self, OwnedFd), Failed> {
        let input = std::fs::File::open("/dev/null").map_err(at(Step::Setup))?.into();
        let (ours, output) = pipe()?;
        give(config, &output)?;
        let errors = output.try_clone().map_err(at(Step::Fork))?;
        Ok((Self { input, output, errors, terminal: false }, ours))
    }

    /// The descriptors, to be kept open.
    pub(crate) fn descriptors(&self) -> [&OwnedFd; 3] {
        [&self.input, &self.output, &self.errors]
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
            give(config, app_end)?;
        }
        Ok((Self { input, output, errors, terminal: false }, [Some(out), Some(err)]))
    }
}

/// Makes the app's user the owner of its end: a program that opens /dev/stdout anew, as web servers do, is asked for its permission then.
fn give(config: &StartConfig, app_end: &OwnedFd) -> Result<(), Failed> {
    let Some(user) = &config.user else { return Ok(()) };
    let users = config.sandbox.as_ref().and_then(|sandbox| sandbox.users);
    let outside = |id| users.map_or(id, |users| users.outside(id));
    let (uid, gid) = (Uid::from_raw(outside(user.uid)), Gid::from_raw(outside(user.gid)));
    rustix::fs::fchown(app_end, Some(uid), Some(gid)).map_err(at(Step::Fork))
}

/// A pipe to us. Our end alone does not block: a pipe's two ends have a status each.
fn pipe() -> Result<(OwnedFd, OwnedFd), Failed> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Fork))?;
    rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK).map_err(at(Step::Fork))?;
    Ok((ours, theirs))
}

/// An app that is about to be started.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Its init puts up what is to stand around it, and waits for the word.
    Within { init: Init, failure: OwnedFd, pipes: Pipes },
    /// Nothing is to be put up.
    Outside(Option<Streams>),
}

impl Begun {
    /// Begins the start of an app, the `first` one or another: what stands around it is put up while the caller sees to the rest. What it
    /// reads and writes is the app's alone afterwards.
    pub(crate) fn new(config: &StartConfig, streams: Option<Streams>, first: bool) -> Result<Self, Failure> {
        let sandbox = config.sandbox.as_ref().and_then(|it| Some((it, it.view.as_ref()?)));
        let Some((sandbox, view)) = sandbox else { return Ok(Self::Outside(streams)) };
        let begin = || {
            let child = Forked::prepare(config, streams)?;
            // Init has entered the groups, whose files are not to be seen from within.
            let (app, tell) = (|parent| child.become_app(parent, true), |failed| child.tell(failed));
            let init = Init::begin(&plan(config, sandbox, view), first, &app, &tell)?;
            let Forked { failure, pipes, .. } = child;
            Ok(Self::Within { init, failure, pipes })
        };
        begin().map_err(failure)
    }

    /// Starts it in `network`; in that of this process where none is given.
    pub(crate) fn go(self, config: &StartConfig, network: Option<&OwnedFd>) -> Result<(App, Pipes), Failure> {
        let streams = match self {
            Self::Outside(streams) => streams,
            Self::Within { mut init, failure: report, pipes } => {
                let pid = init.go(network).map_err(failure)?;
                return Ok((App { pid, failure: report, init: Some(init) }, pipes));
            }
        };
        let fork = || {
            let child = Forked::prepare(config, streams)?;
            let parent = rustix::process::getpid();
            let Some(pid) = system::fork().map_err(at(Step::Fork))? else {
                child.tell(child.become_app(parent, false));
                system::end_child(127);
            };
            Ok((App { pid, failure: child.failure, init: None }, child.pipes))
        };
        fork().map_err(failure)
    }
}

fn failure((step, errno): Failed) -> Failure {
    Failure { step, errno }
}

/// What the app's process has from before its fork.
struct Forked<'a> {
    config: &'a StartConfig,
    texts: Texts,
    streams: Streams,
    /// Our ends.
    pipes: Pipes,
    failure: OwnedFd,
    app_failure: OwnedFd,
}

impl<'a> Forked<'a> {
    fn prepare(config: &'a StartConfig, streams: Option<Streams>) -> Result<Self, Failed> {
        let texts = Texts::of(&config.argv, &config.env, &config.dir)?;
        let (streams, pipes) = match streams {
            Some(streams) => (streams, [None, None]),
            None => Streams::logged(config)?,
        };
        let (failure, app_failure) = pipe()?;
        Ok(Self { config, texts, streams, pipes, failure, app_failure })
    }

    fn become_app(&self, parent: Pid, is_within: bool) -> Failed {
        become_program(self.config, &self.texts, parent, &self.streams, (is_within, Reach::NONE))
    }

    /// The shim reads it; when it is gone there is nobody to tell.
    fn tell(&self, failed: Failed) {
        system::unheeded(rustix::io::write(&self.app_failure, &written(failed)));
    }
}

impl App {
    /// Starts the app at once, the `first` one or another.
    pub(crate) fn start(
        config: &StartConfig,
        streams: Option<Streams>,
        first: bool,
    ) -> Result<(Self, Pipes), Failure> {
        Begun::new(config, streams, first)?.go(config, None)
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
            Ok(5) => Some(read(report)),
            _ => None,
        }
    }

    /// Its namespaces, where it has some and they are known: whoever is to run beside it goes in there.
    pub(crate) fn namespaces(&self) -> Option<&Namespaces> {
        self.init.as_ref()?.namespaces.as_ref()
    }
}

/// What failed, as one side of a fork tells the other.
pub(crate) fn written((step, errno): Failed) -> [u8; 5] {
    let [first, second, third, fourth] = errno.to_le_bytes();
    [step.number(), first, second, third, fourth]
}

/// The same, read again.
pub(crate) fn read([step, first, second, third, fourth]: [u8; 5]) -> Failure {
    Failure { step: Step::from_number(step), errno: i32::from_le_bytes([first, second, third, fourth]) }
}

impl Texts {
    pub(crate) fn of(argv: &[String], env: &[String], dir: &str) -> Result<Self, Failed> {
        let text = |text: &str| CString::new(text).map_err(|_nul| (Step::Setup, libc::EINVAL));
        let all = |texts: &[String]| texts.iter().map(|it| text(it)).collect::<Result<_, _>>();
        let program = argv.first().ok_or((Step::Exec, libc::ENOENT))?;
        Ok(Self {
            paths: lookup::candidates(program, env),
            argv: all(argv)?,
            env: all(env)?,
            dir: text(dir)?,
        })
    }
}

/// What init needs of the configuration.
fn plan<'a>(config: &'a StartConfig, sandbox: &'a Sandbox, view: &'a View) -> Plan<'a> {
    let (group, doors) = (config.cgroup.as_deref(), sandbox.doors.iter().map(String::as_str).collect());
    Plan { sandbox, view, group, doors, user: config.user.as_ref().map(|user| (user.uid, user.gid)) }
}

/// Turns the forked child into a program of the app. Gives what failed. `is_within` says that it is in the app's groups already, `reach` what it reaches
/// of the instance.
pub(crate) fn become_program(
    config: &StartConfig,
    texts: &Texts,
    parent: Pid,
    streams: &Streams,
    (is_within, reach): (bool, Reach),
) -> Failed {
    match prepare(config, texts, parent, streams, (is_within, reach)) {
        Ok(()) => exec(texts),
        Err(failed) => failed,
    }
}

fn prepare(
    config: &StartConfig,
    texts: &Texts,
    parent: Pid,
    streams: &Streams,
    (is_within, reach): (bool, Reach),
) -> Result<(), Failed> {
    use rustix::{process, stdio};
    process::setsid().map_err(at(Step::Setup))?;
    if !is_within {
        enter_groups(config)?;
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
    become_user(config)?;
    // As the app's user, so that it works in a directory which it can read.
    process::chdir(&texts.dir).map_err(at(Step::Dir))?;
    end_with(parent)?;
    system::close_on_exec().map_err(at(Step::Setup))?;
    system::reset_signals();
    let confined = config.sandbox.as_ref().map_or(Ok(()), |sandbox| sandbox::confine(sandbox, reach));
    confined.map_err(at(Step::Confine))
}

/// Enters the app's control groups.
pub(crate) fn enter_groups(config: &StartConfig) -> Result<(), Failed> {
    let more = config.sandbox.iter().flat_map(|sandbox| &sandbox.doors);
    config.cgroup.iter().chain(more).try_for_each(|door| system::enter_group(door)).map_err(at(Step::Cgroup))
}

/// Becomes the app's user, who gains nothing any more by what he runs.
pub(crate) fn become_user(config: &StartConfig) -> Result<(), Failed> {
    use rustix::thread;
    config.sandbox.as_ref().map_or(Ok(()), sandbox::bound).map_err(at(Step::Confine))?;
    if let Some(user) = &config.user {
        let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        thread::set_thread_groups(&groups).map_err(at(Step::User))?;
        thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::User))?;
        thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
    }
    thread::set_no_new_privs(true).map_err(at(Step::Setup))
}

/// Has the kernel kill this process when `parent` ends, which it may have done already. After the change of user, which clears it.
fn end_with(parent: Pid) -> Result<(), Failed> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err((Step::Setup, libc::ESRCH)) }
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
