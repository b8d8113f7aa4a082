//! What a sandbox could have on this machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};

use berth_process::{Controller, Group, Launch, Program, SealedImage, Stdio};
use berth_spec::Isolation;
use rustix::pipe::PipeFlags;

/// The word that has a shim try.
const PROBE: &str = "probe";

/// What was tried here, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether we are root.
    pub(crate) root: bool,
    /// The numbers of errors by what was tried: nought for what works.
    trials: Vec<(String, i32)>,
    /// What control groups can limit.
    pub(crate) controllers: BTreeSet<Controller>,
}

impl Abilities {
    /// Has the shim try everything. Blocks, for a few milliseconds.
    ///
    /// # Errors
    /// When the shim cannot be started or does not answer.
    pub(crate) fn find(shim: &SealedImage, controllers: BTreeSet<Controller>) -> io::Result<Self> {
        let launch = Launch::new(Program::Image(shim.clone())).arg0("berth-shim").arg(PROBE);
        let (answer, out) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut child =
            launch.group(Group::Session).dir("/").stdout(Stdio::Fd(out)).start().map_err(io::Error::other)?;
        let mut text = String::new();
        File::from(answer).read_to_string(&mut text)?;
        let status = child.wait()?;
        let trials = parse(&text);
        if !status.success() || trials.is_empty() {
            return Err(io::Error::other(format!("the shim could not try what a sandbox takes: {status}")));
        }
        Ok(Self { root: rustix::process::geteuid().is_root(), trials, controllers })
    }

    /// Where containers are what instances are kept apart with: nothing has to be tried.
    pub(crate) fn of_containers() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self { root, trials: Vec::new(), controllers: BTreeSet::new() }
    }

    /// Whether this was tried with success.
    pub(crate) fn can(&self, name: &str) -> bool {
        self.trials.iter().any(|(tried, errno)| tried == name && *errno == 0)
    }

    /// Whether an instance can have a network of its own.
    #[must_use]
    pub(crate) fn own_network(&self) -> bool {
        self.can(if self.root { "network" } else { "user-network" })
    }

    /// Whether such a network can have a way to other apps.
    #[must_use]
    pub(crate) fn internal(&self) -> bool {
        self.can(if self.root { "internal" } else { "user-internal" })
    }

    /// The highest level there is here.
    #[must_use]
    pub(crate) fn best(&self) -> Isolation {
        let confines = self.can("landlock") && self.can("seccomp");
        let limits =
            [Controller::Memory, Controller::Processes].iter().all(|it| self.controllers.contains(it));
        if self.root && confines && limits && self.can("namespaces") {
            Isolation::Full
        } else if confines && self.can(if self.root { "namespaces" } else { "user-namespaces" }) {
            Isolation::Namespaces
        } else if confines {
            Isolation::Confined
        } else {
            Isolation::Plain
        }
    }

    /// What keeps this machine from the levels above `level`, a sentence each, with what to do about it.
    #[must_use]
    pub(crate) fn missing(&self, level: Isolation) -> Vec<String> {
        let mut missing = Vec::new();
        let mut lacks = |name: &str, what: &str, remedy: &str| {
            if let Some((_, errno)) = self.trials.iter().find(|(tried, errno)| tried == name && *errno != 0) {
                missing.push(format!("{what}: {}; {remedy}", io::Error::from_raw_os_error(*errno)));
            }
        };
        lacks("seccomp", "no seccomp", "a kernel with CONFIG_SECCOMP_FILTER has it");
        lacks("landlock", "no Landlock", "Linux 5.13 has it, with `landlock` in the kernel's lsm= list");
        let namespaces = "a kernel since 5.12 has them; a container may have to be given more rights";
        if self.root {
            lacks("namespaces", "no namespaces", namespaces);
        } else {
            let remedy = "see `sysctl user.max_user_namespaces kernel.unprivileged_userns_clone \
                          kernel.apparmor_restrict_unprivileged_userns`, or run Berth as root";
            lacks("user-namespaces", "no user namespaces for ordinary users", remedy);
        }
        if level < Isolation::Full && !self.root {
            missing.push("no users of their own for apps: run Berth as root".to_owned());
        }
        let unlimited: Vec<&str> = Controller::ALL
            .into_iter()
            // Where the home is on no disk of its own there is nothing to be done about it.
            .filter(|controller| *controller != Controller::Disk && !self.controllers.contains(controller))
            .map(Controller::name)
            .collect();
        if !unlimited.is_empty() {
            let remedy = if self.root {
                "the controllers must be enabled in the kernel, and not be taken by somebody else"
            } else {
                "run Berth as root, or as a service of your own with `Delegate=yes`"
            };
            missing.push(format!("no limits on {}: {remedy}", unlimited.join(", ")));
        }
        missing
    }
}

fn parse(text: &str) -> Vec<(String, i32)> {
    let line = |line: &str| {
        let (name, errno) = line.split_once(' ')?;
        Some((name.to_owned(), errno.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "namespaces 0\nuser-namespaces 0\nnetwork 0\nuser-network 0\nlandlock 0\nseccomp 0\n";

    fn abilities(root: bool, text: &str, controllers: &[Controller]) -> Abilities {
        let controllers = controllers.iter().copied().collect();
        Abilities { root, trials: parse(text), controllers }
    }

    #[test]
    fn the_level_is_the_best_of_what_works() {
        let level = |root, text: &str, controllers: &[Controller]| abilities(root, text, controllers).best();
        assert_eq!(level(true, ALL, &Controller::ALL), Isolation::Full);
        assert_eq!(level(true, ALL, &[Controller::Cpu]), Isolation::Namespaces);
        assert_eq!(level(false, ALL, &Controller::ALL), Isolation::Namespaces);
        let refused = ALL.replace("user-namespaces 0", "user-namespaces 1");
        assert_eq!(level(false, &refused, &[]), Isolation::Confined);
        assert_eq!(level(true, &refused, &Controller::ALL), Isolation::Full);
        assert_eq!(
            level(true, &ALL.replace("landlock 0", "landlock 95"), &Controller::ALL),
            Isolation::Plain
        );
        assert_eq!(level(true, "", &Controller::ALL), Isolation::Plain);
    }

    #[test]
    fn what_is_missing_is_said_with_its_reason() {
        let refused = abilities(false, &ALL.replace("user-namespaces 0", "user-namespaces 13"), &[]);
        let missing = refused.missing(refused.best());
        assert!(missing[0].contains("Permission denied") && missing[0].contains("apparmor"), "{missing:?}");
        assert!(missing.iter().any(|line| line.contains("memory, cpu, pids") && line.contains("Delegate")));
        let whole = abilities(true, ALL, &Controller::ALL);
        assert_eq!(whole.missing(whole.best()), Vec::<String>::new());
    }
}
