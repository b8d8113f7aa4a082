//! The operator's program that proves hosts by DNS: which file may be one, and how it is run.
//!
//! It is called as `PROGRAM present NAME VALUE` to have a TXT record there, and as `PROGRAM cleanup NAME VALUE` to have it gone. The name is whole and
//! ends with a dot. That is how lego's provider `exec` calls programs, so that those that were written for it do.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock, random_bytes};
use berth_contract::Code;
use berth_control::certificate::{DnsHook, DnsRecord};
use berth_control::event::Failure;
use berth_process::{Child, Group, Launch, LaunchError, Limits, Mark, Program, Stdio, Tree};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::events;

/// Where it finds other programs. It has nothing else of an environment, but the mark by which what it starts is found again.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// So much of what it prints last is kept for people.
const SAID_MAX: usize = 4 << 10;
/// So many lines of it are shown.
const LINES_MAX: usize = 10;
/// How long what it left running may take to end once it is killed.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// The path leads from no certain place.
    #[error("{0} is not an absolute path")]
    Relative(String),
    /// There is no such file, or it cannot be looked at.
    #[error("{} cannot be looked at: {source}", .path.display())]
    Unseen { path: PathBuf, source: io::Error },
    /// It is no program.
    #[error("{} is not a file that may be executed", .0.display())]
    NoProgram(PathBuf),
    /// Somebody else could have the platform run what they like.
    #[error("{} can be changed by others than root and the platform's user", .0.display())]
    Writable(PathBuf),
    /// Apps and builds write there.
    #[error("{} lies in the platform's home, where apps' files are", .0.display())]
    Home(PathBuf),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] LaunchError),
    /// It could not be followed.
    #[error("it could not be followed: {0}")]
    Lost(#[from] io::Error),
    /// It said no.
    #[error("it ended with {status}")]
    Failed { status: std::process::ExitStatus, said: Vec<String> },
    /// It took too long.
    #[error("it did not end within {}", berth_spec::Millis(u64::try_from(.limit.as_millis()).unwrap_or(u64::MAX)))]
    Late { limit: Duration, said: Vec<String> },
}

/// What it is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Have the record there.
    Present,
    /// Have it gone.
    Cleanup,
}

impl Deed {
    const fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

impl HookError {
    /// As a failure with a code.
    pub(crate) fn failure(self, hook: &DnsHook) -> Failure {
        let summary = format!("the DNS hook {} did not write the record: {self}", hook.program);
        let log = match self {
            Self::Failed { said, .. } | Self::Late { said, .. } => said,
            _ => Vec::new(),
        };
        let next =
            "run it by hand as `PROGRAM present NAME VALUE`; `berth certs renew HOST` tries again at once";
        Failure { log, next: Some(next.to_owned()), ..Failure::new(Code::DnsHookFailed.as_str(), summary) }
    }
}

/// The file at `path` without links on the way, if it may be a hook: nobody but root and the platform's user can change it or put another in its
/// place. The path comes by the API, and a file that an app or its build wrote must not become a program that the platform runs as itself.
///
/// # Errors
/// [`HookError`], which says what is against it.
pub(crate) fn checked(path: &str, home: &Path) -> Result<PathBuf, HookError> {
    if !path.starts_with('/') {
        return Err(HookError::Relative(path.to_owned()));
    }
    let unseen = |path: &Path| {
        let path = path.to_owned();
        |source| HookError::Unseen { path, source }
    };
    let file = std::fs::canonicalize(path).map_err(unseen(Path::new(path)))?;
    if file.starts_with(home) {
        return Err(HookError::Home(file));
    }
    let ours = rustix::process::geteuid().as_raw();
    for step in file.ancestors() {
        let found = std::fs::symlink_metadata(step).map_err(unseen(step))?;
        let mode = found.permissions().mode();
        // In a directory like /tmp nobody replaces what is another's.
        let sticky = found.is_dir() && mode & 0o1000 != 0;
        if (found.uid() != 0 && found.uid() != ours) || (mode & 0o022 != 0 && !sticky) {
            return Err(HookError::Writable(step.to_owned()));
        }
    }
    let found = std::fs::symlink_metadata(&file).map_err(unseen(&file))?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(file)
    } else {
        Err(HookError::NoProgram(file))
    }
}

/// Runs the hook to its end. Whatever it started ends with it.
///
/// # Errors
/// [`HookError`].
pub(crate) async fn run(
    hook: &DnsHook,
    deed: Deed,
    record: &DnsRecord,
    home: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<(), HookError> {
    let file = checked(&hook.program, home)?;
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let mark = Mark(random_bytes(&**clock));
    let mut child = Launch::new(Program::Hook(file))
        .args([deed.word(), &record.name, &record.value])
        .env("PATH", PATH)
        .mark(mark)
        .dir("/")
        .umask(0o077)
        .group(Group::Session)
        .limits(Limits { core: Some(0), open_files: Some(1_024), ..Limits::default() })
        .no_new_privs()
        .die_with_parent()
        .stdout(Stdio::Fd(theirs.try_clone()?))
        .stderr(Stdio::Fd(theirs))
        .start()?;
    let limit = hook.limit.as_duration();
    let mut said = Said::new(ours)?;
    let ended = tokio::time::timeout(limit, said.until_end_of(&mut child)).await;
    // Also when it ended well: what it left in the background would be nobody's.
    let tree = Tree { root: Some(child.identity().clone()), mark: Some(mark), cgroup: None };
    let clock = Arc::clone(clock);
    match tokio::task::spawn_blocking(move || tree.kill(&*clock, KILL_WITHIN)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => events::could_not("end the DNS hook", &error),
        Err(error) => events::could_not("end the DNS hook", &error),
    }
    match ended {
        Ok(status) => {
            let status = status?;
            if status.success() { Ok(()) } else { Err(HookError::Failed { status, said: said.lines() }) }
        }
        Err(_elapsed) => {
            let _killed = child.ended().await?;
            Err(HookError::Late { limit, said: said.lines() })
        }
    }
}

/// What a program prints, the end of it.
struct Said {
    pipe: Receiver,
    text: Vec<u8>,
}

impl Said {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, text: Vec::new() })
    }

    /// Reads until `child` has ended, and gives how. What it started may hold the pipe open for ever, so that its end is not waited for.
    async fn until_end_of(&mut self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        let mut open = true;
        let mut part = [0; 1024];
        loop {
            tokio::select! {
                status = child.ended() => {
                    // Asked of the kernel: what tokio has not looked at yet it takes for nothing.
                    while let Ok(read @ 1..) = rustix::io::read(&self.pipe, &mut part) {
                        self.keep(&part[..read]);
                    }
                    return status;
                }
                read = self.pipe.read(&mut part), if open => match read? {
                    0 => open = false,
                    read => self.keep(&part[..read]),
                },
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        self.text.extend_from_slice(part);
        let over = self.text.len().saturating_sub(SAID_MAX);
        self.text.drain(..over);
    }

    /// The last lines, without what a terminal would take for orders.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text);
        let clean =
            |line: &str| line.chars().filter(|it| !it.is_control()).collect::<String>().trim_end().to_owned();
        let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use berth_clock::SystemClock;
    use berth_spec::Millis;
    use tempfile::TempDir;

    use super::*;

    struct Place {
        folder: TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn at(&self, name: &str) -> PathBuf {
            fs::canonicalize(self.folder.path()).unwrap().join(name)
        }

        fn script(&self, text: &str) -> DnsHook {
            let path = self.at("hook");
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            let program = path.display().to_string();
            DnsHook { program, wait: Millis(0), limit: Millis::from_secs(30), every_host: false }
        }

        async fn run(&self, hook: &DnsHook) -> Result<(), HookError> {
            let record =
                DnsRecord { name: "_acme-challenge.shop.com.".to_owned(), value: "a b;c".to_owned() };
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            run(hook, Deed::Present, &record, &self.at("home"), &clock).await
        }
    }

    #[tokio::test]
    async fn it_is_told_by_arguments_and_has_a_path_and_no_other_environment() {
        let place = Place::new();
        let out = place.at("out");
        let text = format!(
            "printf '%s|' \"$@\" > {0}; env | cut -d= -f1 | sort | tr '\\n' ' ' >> {0}",
            out.display()
        );
        place.run(&place.script(&text)).await.unwrap();
        // PWD and OLDPWD are the shell's own.
        let told = fs::read_to_string(out).unwrap();
        let told: Vec<&str> =
            told.split(' ').filter(|word| !matches!(*word, "PWD" | "OLDPWD" | "_")).collect();
        assert_eq!(told.join(" "), "present|_acme-challenge.shop.com.|a b;c|BERTH_TOKEN PATH ");
    }

    #[tokio::test]
    async fn what_it_says_is_told_when_it_fails() {
        let place = Place::new();
        let hook = place.script("echo asked; printf 'no such \\033[31mzone\\n' >&2; exit 3");
        let failure = place.run(&hook).await.unwrap_err().failure(&hook);
        assert_eq!(failure.code, "dns_hook_failed");
        assert_eq!(failure.log, ["asked", "no such [31mzone"]);
        assert!(failure.summary.contains("exit status: 3"), "{}", failure.summary);
        let long = place.script("seq 100000; exit 1");
        let Err(HookError::Failed { said, .. }) = place.run(&long).await else { panic!("it failed") };
        assert_eq!((said.len(), said.last().map(String::as_str)), (LINES_MAX, Some("100000")));
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_that_it_started() {
        let place = Place::new();
        let pid = place.at("pid");
        let text = format!("echo begun; setsid sleep 1000 & echo $! > {}; wait", pid.display());
        let hook = DnsHook { limit: Millis(500), ..place.script(&text) };
        let Err(HookError::Late { said, .. }) = place.run(&hook).await else { panic!("it was late") };
        assert_eq!(said, ["begun"]);
        let pid = fs::read_to_string(pid).unwrap();
        let left = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(left.is_empty() || left.contains(") Z "), "{left}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_does_not_keep_it_from_having_ended() {
        let place = Place::new();
        place.run(&place.script("sleep 1000 & exit 0")).await.unwrap();
    }

    #[test]
    fn a_file_that_others_can_change_is_none() {
        let place = Place::new();
        let home = place.at("home");
        let hook = place.script("exit 0");
        let refused = |path: &str| checked(path, &home).unwrap_err().to_string();
        assert_eq!(checked(&hook.program, &home).unwrap(), PathBuf::from(&hook.program));
        let link = place.at("link");
        std::os::unix::fs::symlink(&hook.program, &link).unwrap();
        assert_eq!(checked(link.to_str().unwrap(), &home).unwrap(), PathBuf::from(&hook.program));
        assert!(refused("bin/hook").contains("absolute"));
        assert!(refused("/nowhere/hook").contains("cannot be looked at"));
        fs::set_permissions(&hook.program, Permissions::from_mode(0o600)).unwrap();
        assert!(refused(&hook.program).contains("executed"));
        fs::set_permissions(&hook.program, Permissions::from_mode(0o720)).unwrap();
        assert!(refused(&hook.program).contains("changed by others"));
        fs::set_permissions(&hook.program, Permissions::from_mode(0o700)).unwrap();
        let folder = place.at("");
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&hook.program).contains("changed by others"));
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        assert!(checked(&hook.program, &folder).unwrap_err().to_string().contains("home"));
    }
}
