//! Commands of builds in the sandbox that instances have: one command, run once, whose end somebody waits for.
//!
//! They are no instances: nobody adopts them, and they end with whoever waits. So they are no business of the rest of the backend, and have
//! the machine's own sandbox also where instances are in containers.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_clock::random_bytes;
use berth_process::{Controller, Enclosed, Enclosure, Launch, Mark, Program};
use berth_shim::config::{AppUser, Network, StartConfig};
use berth_shim::way_out as config;
use berth_spec::Isolation;

use super::launch::{memory_file, text};
use super::{Inner, PlainRuntime};
use crate::egress::WayOut;
use crate::error::{RuntimeError, during};
use crate::sandbox::{Abilities, Policy};

/// The word that has a shim run one command.
const WITHIN: &str = "within";

/// Puts the machine's sandbox up around commands of builds.
#[derive(Debug)]
pub struct CommandSandbox {
    inner: Arc<Inner>,
    policy: Policy,
    covered: PathBuf,
    network: Network,
}

impl PlainRuntime {
    /// The sandbox for commands of builds, at the level that instances have or, where those are in containers, at the best one that there
    /// is; `covered`, the platform's home, is never seen in it. `controllers` are those of the commands' control groups. `network` is where
    /// commands are that may have one: in one of their own they have the way out that instances have, which must be there. Blocks.
    ///
    /// # Errors
    /// When the machine cannot be tried.
    pub fn commands(
        &self,
        covered: PathBuf,
        controllers: BTreeSet<Controller>,
        network: Network,
    ) -> Result<CommandSandbox, RuntimeError> {
        let inner = &self.inner;
        let found = Abilities::find(&inner.shim, controllers);
        let abilities = found.map_err(during("trying what this machine isolates with"))?;
        let level = if inner.containers.is_some() { abilities.best() } else { inner.policy.level };
        let policy = Policy::new(level, abilities);
        Ok(CommandSandbox { inner: Arc::clone(inner), policy, covered, network })
    }
}

impl CommandSandbox {
    /// The level of isolation that commands have.
    #[must_use]
    pub fn level(&self) -> Isolation {
        self.policy.level
    }

    fn launch(&self, command: &Enclosed) -> Result<Launch, RuntimeError> {
        let mut launch = Launch::new(Program::Image(self.inner.shim.clone())).arg0("berth-shim").arg(WITHIN);
        launch = launch.mark(command.mark).dir("/");
        let network = self.network(command);
        if command.offline && network == Network::Host {
            launch = launch.offline();
        }
        let made = self.made_network(command, network)?;
        let namespace = made.as_ref().map(|made| launch.inherit(made)).transpose();
        let namespace = namespace.map_err(during("handing a network to a shim"))?;
        let bytes = StartConfig { namespace, ..self.config(command, network)? }.encode();
        // It checks what it is told, and could not tell anybody what is wrong with it.
        let number = StartConfig::decode(&bytes)
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidInput, malformed))
            .and_then(|_checked| memory_file(&bytes))
            .and_then(|file| launch.inherit(&file))
            .map_err(during("describing a command to its shim"))?;
        Ok(launch.arg(number.to_string()))
    }

    fn network(&self, command: &Enclosed) -> Network {
        match self.network {
            Network::Own => Network::Own,
            Network::Host if command.offline && self.policy.own_network() => Network::Own,
            Network::Host => Network::Host,
        }
    }

    /// The network of a command that gets out of it; one that does not its shim makes.
    fn made_network(&self, command: &Enclosed, network: Network) -> Result<Option<OwnedFd>, RuntimeError> {
        if command.offline || network == Network::Host {
            return Ok(None);
        }
        let pair = match &self.inner.way_out {
            Ok(WayOut::Pair(pair)) => pair,
            Ok(WayOut::Slirp(_)) => return Ok(None),
            Err(_) => return Err(RuntimeError::Invalid("there is no way out of a network of its own")),
        };
        // Not by the mark, which all commands of a build have: the kernel takes its time to remove the last one's interfaces.
        let clock = &*self.inner.clock;
        let made = pair.network(Mark(random_bytes(clock)), clock);
        made.map(Some).map_err(during("making a network with a way out"))
    }

    /// The way out that the command's shim makes, where it gets out of its network and root makes none.
    fn by_slirp(&self, command: &Enclosed, network: Network) -> Option<config::WayOut> {
        match &self.inner.way_out {
            Ok(WayOut::Slirp(slirp)) if !command.offline && network == Network::Own => Some(slirp.config()),
            _ => None,
        }
    }

    fn config(&self, command: &Enclosed, network: Network) -> Result<StartConfig, RuntimeError> {
        let (program, ground) = (&command.program, command.program.ground());
        let env = command.env.iter().filter(|(name, _)| *name != Mark::VARIABLE);
        let env = env.map(|(name, value)| format!("{name}={value}")).chain([command.mark.assignment()]);
        let own = [text(program.path())?];
        Ok(StartConfig {
            instance: "a command of a build".to_owned(),
            token: command.mark.0,
            argv: own.into_iter().chain(program.args().iter().chain(&command.args).cloned()).collect(),
            env: env.collect(),
            dir: text(ground.dir())?,
            user: ground.user().map(|user| AppUser {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.clone(),
            }),
            limits: command.limits.numbers(),
            sandbox: Some(self.policy.around(command, &self.covered, network)),
            network,
            way_out: self.by_slirp(command, network),
            ..StartConfig::blank()
        })
    }
}

impl Enclosure for CommandSandbox {
    fn enclose(&self, command: &Enclosed) -> Result<Launch, Box<dyn Error + Send + Sync>> {
        Ok(self.launch(command)?)
    }
}
