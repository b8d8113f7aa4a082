//! Containers: made, started, paused, removed, and found again by their labels.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};
use bollard::query_parameters::{CreateContainerOptions, ListContainersOptions, RemoveContainerOptions};

use crate::engine::{Engine, wait};
use crate::error::{EngineError, asking};

/// A container to be made. What is not said here it does not get: no capabilities, no way to gain privileges, no network, no log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The name of its image.
    pub image: String,
    /// The program that it runs, and its arguments.
    pub command: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The user and group that it begins as, by numbers.
    pub user: String,
    /// Its working directory, which is made where it is missing.
    pub dir: String,
    /// The name of its host.
    pub hostname: String,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
    /// In which network it is.
    pub network: Net,
    /// Whether nothing may be written to its root.
    pub read_only: bool,
    /// The capabilities that it begins with, without their `CAP_`.
    pub capabilities: Vec<String>,
    /// What of the machine it has.
    pub binds: Vec<Bind>,
    /// File systems in memory by where they are, with their options.
    pub memory_mounts: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`.
    pub shared_memory: u64,
    /// Bytes of memory that it may take.
    pub memory: Option<u64>,
    /// Thousandths of a processor that it may take.
    pub cpu_millis: Option<u32>,
    /// Processes and threads that it may have.
    pub processes: Option<u64>,
}

/// In which network a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Net {
    /// One of its own, with a loopback and nothing else.
    #[default]
    Own,
    /// The machine's.
    Machine,
}

/// Something of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the machine.
    pub source: PathBuf,
    /// Where the container has it.
    pub target: String,
    /// Whether it may be written to.
    pub writable: bool,
}

/// A container that was found by a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its id.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Container {
    fn body(&self) -> ContainerCreateBody {
        let own = self.network == Net::Own;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let memory = self.memory.map(number);
        let host = HostConfig {
            network_mode: Some(if own { "none" } else { "host" }.to_owned()),
            readonly_rootfs: Some(self.read_only),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(self.capabilities.clone()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            mounts: Some(self.binds.iter().map(mount).collect()),
            tmpfs: Some(self.memory_mounts.clone().into_iter().collect()),
            shm_size: Some(number(self.shared_memory)),
            memory,
            // With more than that it would be swap.
            memory_swap: memory,
            nano_cpus: self.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: self.processes.map(number),
            // What it writes goes another way.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ipc_mode: Some("private".to_owned()),
            sysctls: own.then(settings),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(self.command.clone()),
            cmd: Some(Vec::new()),
            env: Some(self.env.clone()),
            user: Some(self.user.clone()),
            working_dir: Some(self.dir.clone()),
            // In the machine's network it has the machine's name, to Docker.
            hostname: Some(self.hostname.clone()),
            labels: Some(self.labels.clone().into_iter().collect()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

/// What the kernel is to do in a network of its own: nobody else is there whose low ports had to be kept, and the loopback has IPv6, where
/// the machine has it.
fn settings() -> HashMap<String, String> {
    let mut settings = HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())]);
    if Path::new("/proc/sys/net/ipv6/conf/all").try_exists().unwrap_or(false) {
        settings.insert("net.ipv6.conf.all.disable_ipv6".to_owned(), "0".to_owned());
    }
    settings
}

fn mount(bind: &Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.to_string_lossy().into_owned()),
        target: Some(bind.target.clone()),
        read_only: Some(!bind.writable),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

impl Engine {
    /// Makes a container and starts it. One of its name that is there already is removed before, whatever it does.
    ///
    /// # Errors
    /// When the daemon refuses; what it made by then is still there.
    pub fn run(&self, container: &Container) -> Result<(), EngineError> {
        let options = || CreateContainerOptions { name: Some(container.name.clone()), ..Default::default() };
        let create = || wait(self.client().create_container(Some(options()), container.body()));
        match create()?.map_err(asking("making a container")) {
            Err(error) if error.is_conflict() => {
                self.remove(&container.name)?;
                create()?.map_err(asking("making a container"))?;
            }
            other => drop(other?),
        }
        wait(self.client().start_container(&container.name, None))?.map_err(asking("starting a container"))
    }

    /// The process id of a container's first process out here; `None` when it does not run or is not there.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn pid(&self, name: &str) -> Result<Option<u32>, EngineError> {
        match wait(self.client().inspect_container(name, None))?.map_err(asking("looking at a container")) {
            Ok(seen) => {
                let pid = seen.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
                Ok(pid.filter(|pid| *pid != 0))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has everything in a container stand still. One that does already goes on doing so.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn pause(&self, name: &str) -> Result<(), EngineError> {
        match wait(self.client().pause_container(name))?.map_err(asking("pausing a container")) {
            Err(EngineError::Refused { message, .. }) if message.contains("already paused") => Ok(()),
            other => other,
        }
    }

    /// Has everything in a container go on. One that does already, or is not there, needs nothing.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn unpause(&self, name: &str) -> Result<(), EngineError> {
        match wait(self.client().unpause_container(name))?.map_err(asking("unpausing a container")) {
            Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
            Err(EngineError::Refused { message, .. })
                if message.contains("not paused") || message.contains("not running") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Kills what is in a container and removes it. One that is not there is removed already.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = || RemoveContainerOptions { v: true, force: true, ..Default::default() };
        let remove = || wait(self.client().remove_container(name, Some(options())));
        match remove()?.map_err(asking("removing a container")) {
            // It is being removed by somebody who began before.
            Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
            other => other,
        }
    }

    /// The containers whose label has this value, whatever they do.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn containers(&self, label: &str, value: &str) -> Result<Vec<Stray>, EngineError> {
        let filters = Some([("label".to_owned(), vec![format!("{label}={value}")])].into());
        let options = ListContainersOptions { all: true, filters, ..Default::default() };
        let found =
            wait(self.client().list_containers(Some(options)))?.map_err(asking("listing containers"))?;
        let stray = |it: bollard::models::ContainerSummary| {
            Some(Stray { id: it.id?, labels: it.labels.unwrap_or_default().into_iter().collect() })
        };
        Ok(found.into_iter().filter_map(stray).collect())
    }
}
