//! A platform of the test's own: the real binary in a temporary home, as root or as an ordinary user.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use berth_clock::{Clock, SystemClock};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::berth;
use crate::leaks::{Leaks, Process, Traces};

/// How long the platform may take to come up, and to go down: not what it should take, but what a machine that is busy with
/// other tests is given before the test says that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// As whom the platform runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// As the test itself: root in CI.
    Own,
    /// As an ordinary user, reached from root with setpriv(1). Where the test is an ordinary user already, as that.
    Ordinary,
}

/// The user id that [`User::Ordinary`] is, and its group: nobody's on any machine.
const ORDINARY: u32 = 61_234;

/// How to start a platform.
#[derive(Debug, Clone)]
pub struct Options {
    /// As whom.
    pub user: User,
    /// Variables of its environment, beside the few that it gets anyway.
    pub env: Vec<(String, String)>,
    /// How many bytes the home may hold: it is a file system of its own then, which only root can make.
    pub home_size: Option<u64>,
    /// At which level of isolation, instead of the best that there is.
    pub isolation: Option<&'static str>,
    /// In which backend, instead of Berth's own.
    pub backend: Option<&'static str>,
    /// The proxies that it believes when they say who their clients are.
    pub proxies: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user: User::Own,
            env: Vec::new(),
            home_size: None,
            isolation: None,
            backend: None,
            proxies: None,
        }
    }
}

/// A running platform. When it is dropped, it is stopped, and nothing of it may be left.
#[derive(Debug)]
pub struct Platform {
    temp: TempDir,
    options: Options,
    mounted: Option<MountedHome>,
    supervisor: Option<Supervisor>,
    greeting: Greeting,
}

#[derive(Debug)]
struct Supervisor {
    child: Child,
    /// Kept open: a supervisor without anybody to read its words is another case.
    _words: BufReader<ChildStdout>,
}

#[derive(Debug, Clone)]
struct Greeting {
    platform: String,
    run_dir: PathBuf,
    edge: SocketAddr,
    api: SocketAddr,
    https: Option<SocketAddr>,
}

/// What a verb of the command line printed.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit status; 128 and the signal's number when it was killed.
    pub status: i32,
    /// Its output.
    pub stdout: String,
    /// Its errors.
    pub stderr: String,
}

/// A verb of the command line that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// A program that was started beside the platform.
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    /// Kills it and what it started; it must be in a process group of its own.
    pub fn kill_group(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        rustix::process::kill_process_group(pid, Signal::KILL).expect("it lives");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Sends it what Ctrl-C does.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, Signal::INT).expect("it lives");
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(self) -> Answer {
        let output = self.child.wait_with_output().expect("our child");
        Answer {
            status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    /// The answer, which must be a success.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one JSON document that was printed.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}\n{}", self.stdout, self.stderr))
    }
}

impl Platform {
    /// Starts a platform in a new home, on ports that are free, and waits until it serves.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let temp =
            tempfile::Builder::new().prefix("berth-acceptance-").tempdir().expect("a temporary directory");
        // The users that apps run as walk down to the home.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
        let user_home = temp.path().join("user");
        fs::create_dir(&user_home).expect("our directory");
        if must_switch(options.user) {
            for path in [temp.path(), &user_home] {
                chown(path, Some(ORDINARY), Some(ORDINARY)).expect("root gives directories away");
            }
        }
        let mounted = options.home_size.map(|size| MountedHome::new(home_in(&temp), size));
        let (supervisor, greeting) =
            launch(&temp, &options, &["--edge", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        Self { temp, options, mounted, supervisor: Some(supervisor), greeting }
    }

    /// Starts the supervisor again in the same home, after it was killed or stopped.
    pub fn start_again(&mut self) {
        self.reap();
        let (supervisor, greeting) = launch(&self.temp, &self.options, &[]);
        self.supervisor = Some(supervisor);
        self.greeting = greeting;
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        home_in(&self.temp)
    }

    /// The directory of its sockets.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.greeting.run_dir
    }

    /// A directory of the test's own beside the home, gone with the platform.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.temp.path()
    }

    /// Where apps are reached.
    #[must_use]
    pub fn edge(&self) -> SocketAddr {
        self.greeting.edge
    }

    /// Where apps are reached by HTTPS, if they are.
    #[must_use]
    pub fn https(&self) -> Option<SocketAddr> {
        self.greeting.https
    }

    /// Where the API is reached.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.greeting.api
    }

    /// The process id of the supervisor that this harness started last.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        self.supervisor.as_ref().expect("the supervisor was not reaped").child.id()
    }

    /// The process ids of a role, `control` or `edge`, newest last. Two for a moment, where one takes over from another.
    #[must_use]
    pub fn role(&self, name: &str) -> Vec<u32> {
        let words = [format!("__{name}"), "--platform".to_owned(), self.greeting.platform.clone()];
        let processes = self.traces().processes_by(|process| {
            let arguments: Vec<&str> = process.arguments.split('\0').skip(1).take(3).collect();
            arguments == words
        });
        // A child that was forked and has not become another program yet looks like its parent.
        let is_role = |process: &&Process| processes.iter().all(|other| other.pid != process.parent);
        let mut pids: Vec<u32> = processes.iter().filter(is_role).map(|process| process.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// Kills everything of the platform at once, the apps and their shims too, as a loss of power does.
    pub fn kill_everything(&mut self) {
        assert!(self.traces().kill(), "something cannot be killed");
        self.reap();
    }

    /// Sends a signal to a process of the platform's.
    pub fn signal(&self, pid: u32, signal: Signal) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("the process lives");
    }

    /// Kills a process of the platform's and waits until it has ended: until then its connections live.
    pub fn kill(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("the process lives");
        rustix::process::pidfd_send_signal(&process, Signal::KILL).expect("we may");
        let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ended = rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit));
        assert_eq!(ended, Ok(1), "process {pid:?} does not end");
    }

    /// Runs a verb of the command line against this platform.
    #[must_use]
    pub fn cli<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Answer {
        self.begin(args).wait()
    }

    /// Runs a verb in this directory.
    #[must_use]
    pub fn cli_in<A: AsRef<OsStr>>(&self, directory: &Path, args: impl IntoIterator<Item = A>) -> Answer {
        let mut command = command(&self.temp, &self.options);
        command.args(args).current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().expect("the binary starts") }.wait()
    }

    /// Starts a verb of the command line against this platform, and leaves it running.
    #[must_use]
    pub fn begin<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        let mut command = command(&self.temp, &self.options);
        let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the binary starts") }
    }

    /// Starts a verb whose output goes into a file, as with `>`.
    #[must_use]
    pub fn begin_into<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, path: &Path) -> Running {
        let out = File::create(path).expect("our directory");
        let child = command(&self.temp, &self.options).args(args).stdout(out).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the binary starts") }
    }

    /// Starts a verb that reads its input from a file, as with `<`.
    #[must_use]
    pub fn begin_reading<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, path: &Path) -> Running {
        let mut command = command(&self.temp, &self.options);
        command.args(args).stdin(File::open(path).expect("our file"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the binary starts") }
    }

    /// Starts a verb that reads its input from a file and writes its output into another, as with `<` and `>`.
    #[must_use]
    pub fn begin_through<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: &Path,
        output: &Path,
    ) -> Running {
        let mut command = command(&self.temp, &self.options);
        command.args(args).stdin(File::open(input).expect("our file"));
        let out = File::create(output).expect("our directory");
        let child = command.stdout(out).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the binary starts") }
    }

    /// Waits for the supervisor to end, and gives its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        self.reap()
    }

    /// Whether the machine's packet filter has a table of this platform's.
    #[must_use]
    pub fn has_filter_table(&self) -> bool {
        self.traces().has_filter_table()
    }

    /// What belongs to this platform, wherever it is.
    pub(crate) fn traces(&self) -> Traces {
        Traces {
            home: self.home(),
            run_dir: self.greeting.run_dir.clone(),
            platform: self.greeting.platform.clone(),
            ports: vec![self.greeting.edge.port(), self.greeting.api.port()],
        }
    }

    /// Waits until the supervisor has ended, kills it when it does not.
    fn reap(&mut self) -> Option<i32> {
        let mut supervisor = self.supervisor.take()?;
        let ended = wait_until(PATIENCE, || supervisor.child.try_wait().expect("our child").is_some());
        if !ended {
            supervisor.child.kill().expect("our child");
            panic!("the supervisor does not end; its log:\n{}", self.log("supervisor"));
        }
        supervisor.child.wait().expect("our child").code()
    }

    /// A log of the platform's, for a message.
    #[must_use]
    pub fn log(&self, role: &str) -> String {
        let path = self.home().join(format!("logs/platform/{role}.log"));
        fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(supervisor) = &mut self.supervisor
            && matches!(supervisor.child.try_wait(), Ok(None))
        {
            let pid = supervisor.child.id();
            self.signal(pid, Signal::TERM);
        }
        if !std::thread::panicking() {
            self.reap();
        }
        let traces = self.traces();
        // What still lies there is looked at by nobody: it goes with the file system.
        drop(self.mounted.take());
        let leaks = Leaks::find(&traces);
        // Whatever was found is taken away, so that it troubles no other test.
        traces.sweep();
        if let Some(supervisor) = &mut self.supervisor {
            drop(supervisor.child.wait());
        }
        // A second panic would hide the first.
        if !std::thread::panicking() {
            assert!(leaks.is_empty(), "the platform left:\n{leaks}\n{}", self.log("supervisor"));
        }
    }
}

/// Waits until `state` holds, at most for `limit`; says whether it does. It is looked at every few milliseconds.
pub fn wait_until(limit: Duration, mut state: impl FnMut() -> bool) -> bool {
    let clock = SystemClock::new();
    loop {
        if state() {
            return true;
        }
        if clock.monotonic() >= limit {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn home_in(temp: &TempDir) -> PathBuf {
    temp.path().join("home")
}

/// A home that is a file system of its own, unmounted when it is dropped, also by a platform that did not come up.
#[derive(Debug)]
struct MountedHome {
    path: PathBuf,
}

impl MountedHome {
    fn new(path: PathBuf, size: u64) -> Self {
        fs::create_dir(&path).expect("our directory");
        let options = std::ffi::CString::new(format!("size={size},mode=0755")).expect("it holds no NUL");
        let flags = rustix::mount::MountFlags::empty();
        let mounted = rustix::mount::mount("tmpfs", &path, "tmpfs", flags, Some(options.as_c_str()));
        mounted.expect("root may mount");
        Self { path }
    }
}

impl Drop for MountedHome {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(&self.path, flags).expect("we mounted it");
    }
}

/// The binary under test as another program, in the platform's scratch space: what is behind the end of a program changes its hash and
/// nothing else. One of that name may run meanwhile.
#[must_use]
pub fn another(platform: &Platform, name: &str, behind: &str) -> PathBuf {
    let (path, draft) = (platform.scratch().join(name), platform.scratch().join(format!("{name}.draft")));
    fs::copy(berth(), &draft).expect("our directory");
    let mut file = File::options().append(true).open(&draft).expect("it was copied");
    file.write_all(behind.as_bytes()).expect("our directory");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("our file");
    fs::rename(&draft, &path).expect("our directory");
    path
}

fn must_switch(user: User) -> bool {
    user == User::Ordinary && rustix::process::geteuid().is_root()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn command(temp: &TempDir, options: &Options) -> Command {
    let mut command = if must_switch(options.user) {
        let mut command = Command::new("setpriv");
        let id = ORDINARY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(berth());
        command
    } else {
        Command::new(berth())
    };
    let user_home = temp.path().join("user");
    command.env_clear().env("BERTH_HOME", home_in(temp)).env("HOME", &user_home).current_dir(temp.path());
    for name in ["PATH", "CARGO_HOME", "RUSTUP_HOME", "RUST_BACKTRACE", "BERTH_LOG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(options.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    command
}

fn launch(temp: &TempDir, options: &Options, args: &[&str]) -> (Supervisor, Greeting) {
    let errors = temp.path().join("up.stderr");
    let mut child = command(temp, options)
        .args(["up", "--json"])
        .args(options.isolation.iter().flat_map(|level| ["--isolation", level]))
        .args(options.backend.iter().flat_map(|name| ["--backend", name]))
        .args(options.proxies.iter().flat_map(|networks| ["--proxy-protocol", networks]))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).expect("our directory"))
        .spawn()
        .expect("the binary starts");
    let mut words = BufReader::new(child.stdout.take().expect("it is piped"));
    match read_greeting(&mut words) {
        Ok(greeting) => (Supervisor { child, _words: words }, greeting),
        Err(problem) => {
            drop(child.kill());
            drop(child.wait());
            let errors = fs::read_to_string(&errors).unwrap_or_default();
            let log = |role| {
                fs::read_to_string(home_in(temp).join(format!("logs/platform/{role}.log")))
                    .unwrap_or_default()
            };
            panic!(
                "the platform did not come up ({problem}): {errors}\n{}\n{}\n{}",
                log("supervisor"),
                log("control"),
                log("edge")
            )
        }
    }
}

fn read_greeting(words: &mut BufReader<ChildStdout>) -> Result<Greeting, String> {
    let mut fds = [PollFd::new(words.get_ref(), PollFlags::IN)];
    let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if rustix::event::poll(&mut fds, Some(&limit)).map_err(|error| error.to_string())? == 0 {
        return Err("it said nothing".to_owned());
    }
    let mut line = String::new();
    words.read_line(&mut line).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&line).map_err(|error| {
        let mut rest = String::new();
        drop(words.by_ref().take(1_000).read_to_string(&mut rest));
        format!("{error}: {line}{rest}")
    })?;
    let text =
        |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in {value}"));
    let address = |key: &str| text(key)?.parse().map_err(|_error| format!("{key} is no address in {value}"));
    Ok(Greeting {
        platform: text("platform")?,
        run_dir: text("run")?.into(),
        edge: address("edge")?,
        api: address("api")?,
        https: address("https").ok(),
    })
}
