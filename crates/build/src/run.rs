//! Running a build's command: as its own user, within limits, its output read, its whole tree ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::Clock;
use berth_process::{
    Cgroup, Child, Enclosed, Enclosure, Group, Launch, LaunchError, Limits, Mark, Program, Stdio, Tree,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

use crate::builder::blocking;
use crate::error::BuildError;
use crate::log::{LineCutter, Log, Stream};
use crate::weigh::{free, weigh};

/// How long the processes of a build may take to vanish after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the pipes may take to end once nobody holds them.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How often a build is looked at for what it takes of the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A line of cargo's messages is at most so long; one that is longer names no program.
const MESSAGE_MAX: usize = 1024 * 1024;

/// A command of a build.
pub(crate) struct Run<'a> {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
    /// The command as messages name it.
    pub(crate) shown: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) mark: Mark,
    pub(crate) cgroup: Option<Cgroup>,
    /// How many processes it may have at once.
    pub(crate) processes_max: u64,
    /// How many bytes of memory, where its group limits that.
    pub(crate) memory_max: Option<u64>,
    /// Whether its user is nobody else's.
    pub(crate) own_user: bool,
    /// How long all commands of the build together may take.
    pub(crate) limit: berth_spec::Millis,
    /// How much of that is left.
    pub(crate) left: Duration,
    /// Whether it is kept from every network.
    pub(crate) offline: bool,
    /// What stands around it, if anything does.
    pub(crate) enclosure: Option<&'a Arc<dyn Enclosure>>,
    pub(crate) sight: Sight,
    pub(crate) watch: Watch,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) log: &'a Log,
}

/// What a build sees of the machine, beside the programs and settings that everybody has, where something stands around it.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    /// An empty folder for its root.
    pub(crate) root: PathBuf,
    /// What it has as its `/tmp`.
    pub(crate) scratch: PathBuf,
    /// The tools that it was given, and what they need.
    pub(crate) readable: BTreeSet<PathBuf>,
    /// Its tree, and what is kept between its app's builds.
    pub(crate) writable: BTreeSet<PathBuf>,
}

/// What a build may take of the disk.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// What is weighed.
    pub(crate) dirs: Vec<PathBuf>,
    /// How many bytes all of it may weigh.
    pub(crate) weight_max: u64,
    /// A directory of the disk that it is on.
    pub(crate) disk: PathBuf,
    /// How many bytes of that stay free.
    pub(crate) reserve: u64,
}

enum End {
    Exited(io::Result<ExitStatus>),
    Cancelled,
    TimedOut,
    TooHeavy,
    DiskFull,
}

impl Watch {
    /// Completes when the build takes more than it may. A walk over many files costs: between two looks is twenty times what one takes.
    async fn broken(&self, clock: &dyn Clock) -> End {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            if free(&self.disk).is_some_and(|free| free < self.reserve) {
                return End::DiskFull;
            }
            let (watch, began) = (self.clone(), clock.monotonic());
            let weighed = tokio::task::spawn_blocking(move || {
                watch.dirs.iter().fold(0_u64, |sum, dir| sum.saturating_add(weigh(dir, watch.weight_max)))
            });
            if weighed.await.is_ok_and(|bytes| bytes > self.weight_max) {
                return End::TooHeavy;
            }
            pause = LOOK_EVERY.max(clock.monotonic().saturating_sub(began) * 20);
        }
    }
}

/// Kills the tree when the future is dropped before it did so itself.
struct Leash {
    tree: Tree,
    clock: Arc<dyn Clock>,
    held: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.held
            && let Err(error) = self.tree.kill(&*self.clock, KILL_LIMIT)
        {
            tracing::error!(%error, "processes of a dropped build could not be ended");
        }
    }
}

impl Run<'_> {
    /// Runs the command to its end and ends whatever it left running. Lines of its standard output go to `take_out` when
    /// that is given, else to the log like those of its standard error.
    pub(crate) async fn complete(
        mut self,
        take_out: Option<&mut (dyn FnMut(&str) + Send)>,
    ) -> Result<(), BuildError> {
        let kills = self.cgroup.as_ref().and_then(Cgroup::oom_kills);
        let mut child = self.start().await?;
        let tree =
            Tree { root: Some(child.identity().clone()), mark: Some(self.mark), cgroup: self.cgroup.take() };
        let mut leash = Leash { tree: tree.clone(), clock: Arc::clone(self.clock), held: true };
        let pipes = child.take_pipes().map_err(|error| BuildError::Start(error.into()))?;
        let log = self.log;
        let out = async {
            match take_out {
                Some(take) => {
                    pump(pipes.stdout, LineCutter::with_max(MESSAGE_MAX), |line| take(&line)).await;
                }
                None => {
                    let keep = |line| log.output(Stream::Out, line);
                    pump(pipes.stdout, LineCutter::new(log), keep).await;
                }
            }
        };
        let err = pump(pipes.stderr, LineCutter::new(log), |line| log.output(Stream::Err, line));
        let pumps = async { tokio::join!(out, err) };
        tokio::pin!(pumps);
        let mut pumped = false;
        let end = {
            let end = self.end(&mut child);
            tokio::pin!(end);
            loop {
                tokio::select! {
                    end = &mut end => break end,
                    _ = &mut pumps, if !pumped => pumped = true,
                }
            }
        };
        if tree.cgroup.as_ref().and_then(Cgroup::refused_processes).is_some_and(|refused| refused > 0) {
            log.say(format!("the build may have {} processes at once, and wanted more", self.processes_max));
        }
        let starved = kills.zip(tree.cgroup.as_ref().and_then(Cgroup::oom_kills));
        let starved = starved.is_some_and(|(before, after)| after > before);
        let clock = Arc::clone(self.clock);
        let killed = tokio::task::spawn_blocking(move || tree.kill(&*clock, KILL_LIMIT)).await;
        killed.expect("killing a tree does not panic")?;
        leash.held = false;
        // Nobody holds the pipes any more, so this ends; the limit is for a descriptor handed to somebody outside.
        if !pumped && tokio::time::timeout(DRAIN_LIMIT, &mut pumps).await.is_err() {
            log.say("the end of the output is missing: somebody outside the build holds it open");
        }
        // Reaps the child when it was killed here.
        let reaped = child.ended().await;
        self.judge(end, reaped, starved)
    }

    async fn start(&self) -> Result<Child, BuildError> {
        let launch = match (self.enclosure, self.enclosed()) {
            (Some(enclosure), Some(command)) => {
                let enclosure = Arc::clone(enclosure);
                // A network with a way out takes a look at the packet filter.
                blocking(move || enclosure.enclose(&command).map_err(BuildError::Start)).await?
            }
            _ => self.bare(),
        };
        let mut launch = launch
            .mark(self.mark)
            .group(Group::Session)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Piped)
            .umask(0o022)
            .die_with_parent();
        if let Some(cgroup) = &self.cgroup {
            launch = launch.cgroup(cgroup.clone());
        }
        launch.start().map_err(|error| match error {
            LaunchError::System { .. } if self.offline => BuildError::NotOffline(error.into()),
            error => BuildError::Start(error.into()),
        })
    }

    /// The command as it is started with nothing around it.
    fn bare(&self) -> Launch {
        let launch = Launch::new(self.program.clone())
            .args(&self.args)
            .envs(&self.env)
            .limits(limits(self.user_processes()));
        if self.offline { launch.offline() } else { launch }
    }

    /// The command with all that it may see; `None` for one that is no tenant's.
    fn enclosed(&self) -> Option<Enclosed> {
        let Program::Tenant(program) = &self.program else { return None };
        Some(Enclosed {
            program: program.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            mark: self.mark,
            limits: limits(self.user_processes()),
            cgroup: self.cgroup.clone(),
            readable: self.sight.readable.iter().cloned().collect(),
            writable: self.sight.writable.iter().cloned().collect(),
            tmp: self.sight.scratch.clone(),
            root: self.sight.root.clone(),
            offline: self.offline,
        })
    }

    /// How many processes its user may have, where its group does not count them. The kernel counts all that a user runs: for one that also
    /// does other things any number would be wrong.
    fn user_processes(&self) -> Option<u64> {
        let counted = self.cgroup.as_ref().is_some_and(|cgroup| cgroup.refused_processes().is_some());
        (self.own_user && !counted).then_some(self.processes_max)
    }

    async fn end(&self, child: &mut Child) -> End {
        tokio::select! {
            status = child.ended() => End::Exited(status),
            () = self.cancel.cancelled() => End::Cancelled,
            () = tokio::time::sleep(self.left) => End::TimedOut,
            broken = self.watch.broken(&**self.clock) => broken,
        }
    }

    /// What is to be said of how it ended; `starved` says that the kernel killed something of it for want of memory.
    fn judge(self, end: End, reaped: io::Result<ExitStatus>, starved: bool) -> Result<(), BuildError> {
        match end {
            End::Cancelled => Err(BuildError::Cancelled),
            End::TimedOut => Err(BuildError::Timeout(self.limit)),
            End::DiskFull => Err(BuildError::DiskFull(self.watch.disk)),
            End::TooHeavy => Err(BuildError::Outcome(format!(
                "the files of the build weigh more than {} MiB, which is the limit, and it was ended; have it write less, or \
                 remove what it does not need",
                self.watch.weight_max >> 20
            ))),
            End::Exited(status) => match status.or(reaped) {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(BuildError::Failed {
                    command: self.shown,
                    outcome: outcome(status) + &starvation(starved, self.memory_max),
                    tail: self.log.tail(),
                }),
                Err(error) => Err(BuildError::Start(error.into())),
            },
        }
    }
}

fn limits(processes: Option<u64>) -> Limits {
    Limits {
        open_files: Some(65_536),
        processes,
        core: Some(0),
        file_size: Some(8 * 1024 * 1024 * 1024),
        ..Limits::default()
    }
}

fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

/// What is added to how a command ended that wanted more memory than there was.
fn starvation(starved: bool, memory_max: Option<u64>) -> String {
    match memory_max {
        _ if !starved => String::new(),
        Some(most) => format!(": it wanted more than the {} MiB of memory that a build may have", most >> 20),
        None => ": the machine ran out of memory".to_owned(),
    }
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, mut cutter: LineCutter, mut take: impl FnMut(String)) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    // A pipe that cannot be read any more has nothing more to tell than one that ended.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        cutter.feed(buffer.get(..count).unwrap_or_default(), &mut take);
    }
    if let Some(line) = cutter.rest() {
        take(line);
    }
}
