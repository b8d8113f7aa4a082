//! The start of an instance: what is made for it, in an order that leaves nothing unknown behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use berth_process::{Cgroup, Child, Group, Identity, Launch, Program, Stdio};
use berth_shim::config::{AppUser, LogPolicy, Network, StartConfig};
use berth_shim::door;
use berth_spec::Command;
use rustix::fs::MemfdFlags;

use super::contain::{Containers, Parcel};
use super::{Inner, network, remove_file};
use crate::attach::AppEnds;
use crate::error::{RuntimeError, during};
use crate::instance::{InstanceSpec, Root};
use crate::layout::short;
use crate::port;
use crate::record::StartRecord;
use crate::sandbox::Places;

/// The `PATH` of an app that sets none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where an app in a root of its own has what it may write to.
const TMP: &str = "/tmp";

/// An instance whose shim was started and has not been spoken to.
pub(super) struct Launched {
    /// The shim, where it is a child of ours.
    pub(super) child: Option<Child>,
    pub(super) record: StartRecord,
    pub(super) socket: PathBuf,
}

/// Starts the shim of `spec`. Blocks. On an error nothing is left of the attempt.
///
/// The record comes first. From then on a control that dies leaves something that the next one finds, knows to be of this
/// token, and ends.
pub(super) fn launch(
    inner: &Inner,
    spec: &InstanceSpec,
    ends: Option<&AppEnds>,
) -> Result<Launched, RuntimeError> {
    check(inner, spec)?;
    let layout = &inner.layout;
    let folder = layout.instance(&spec.id);
    if let Some(earlier) = StartRecord::read(&folder).map_err(during("reading start.json"))? {
        if earlier.token != spec.token {
            return Err(RuntimeError::Occupied(spec.id.clone()));
        }
        // An attempt that was cut short. What it may have started nobody has spoken to, so it is ended.
        inner.clear(&earlier)?;
    }
    // Before anything is made: a port that is not to be had leaves nothing.
    let (port, lease) = match spec.network {
        Network::Host => {
            let lease = port::lease(&spec.port, &*inner.clock)?;
            (lease.as_ref().map(|lease| lease.port), lease)
        }
        Network::Own => (network::port(&spec.port), None),
    };
    layout.prepare_instance(&spec.id, spec.user.as_ref()).map_err(during("making an instance's folders"))?;
    let mut record = StartRecord {
        id: spec.id.clone(),
        token: spec.token,
        boot: inner.boot.clone(),
        port,
        network: spec.network,
        aliases: spec.aliases.clone(),
        shim: None,
    };
    record.write(&folder).map_err(during("writing start.json"))?;
    let started = spawn(inner, spec, ends, lease, &mut record);
    started.or_else(|error| {
        inner.clear(&record)?;
        layout.remove_instance(&spec.id).map_err(during("removing an instance's folder"))?;
        Err(error)
    })
}

fn spawn(
    inner: &Inner,
    spec: &InstanceSpec,
    ends: Option<&AppEnds>,
    lease: Option<port::PortLease>,
    record: &mut StartRecord,
) -> Result<Launched, RuntimeError> {
    let env = environment(inner, spec, record.port)?;
    let check = spec.check.as_ref();
    let check = check.map(|check| argv(&check.command, &env).map(|argv| check.with(argv))).transpose()?;
    let argv = argv(&spec.command, &env)?;
    let socket = inner.layout.socket(spec.token).map_err(during("naming a socket"))?;
    remove_file(&socket).map_err(during("removing a socket"))?;
    let listener = UnixListener::bind(&socket).map_err(during("binding a shim's socket"))?;
    let quota = inner.policy.quota(spec);
    let cgroup = inner.cgroups.as_ref().map(|groups| groups.create_limited(&short(spec.token), &quota));
    let cgroup = cgroup.transpose().map_err(during("making a control group"))?;
    let mut vessel = Vessel::of(inner);
    let handing = during("handing descriptors to a shim");
    let listener = vessel.parcel.add(&listener).map_err(&handing)?;
    if let Some(lease) = &lease {
        vessel.parcel.add(&lease.holder).map_err(&handing)?;
    }
    let config = config(inner, spec)?;
    if config.internal.is_some() {
        inner.write_hosts(spec).map_err(during("writing the names of apps"))?;
    }
    let dial = network::dial_listener(&inner.layout, record, config.internal.is_some())?;
    let dial = dial.map(|dial| vessel.parcel.add(&dial)).transpose().map_err(&handing)?;
    let streams = ends.map(|ends| ends.numbered(|end| vessel.parcel.add(end)));
    let streams = streams.transpose().map_err(&handing)?;
    let config = StartConfig {
        argv,
        check,
        env: assignments(spec, env),
        cgroup: cgroup.as_ref().map(|cgroup| text(&cgroup.door_path())).transpose()?,
        listener,
        streams,
        dial,
        ..vessel.surround(inner, spec, cgroup.as_ref(), config)?
    };
    let config = memory_file(&config.encode()).map_err(during("writing a shim's configuration"))?;
    // It comes last, by which the shim knows it.
    vessel.parcel.add(&config).map_err(&handing)?;
    let (shim, child) = vessel.start(inner, spec)?;
    record.shim = Some(shim);
    record.write(&inner.layout.instance(&spec.id)).map_err(during("writing start.json"))?;
    Ok(Launched { child, record: record.clone(), socket })
}

/// What a shim is handed, wherever it is started.
struct Vessel<'a> {
    parcel: Parcel,
    /// It is the first process of a container; a child of ours otherwise.
    containers: Option<&'a Containers>,
}

impl<'a> Vessel<'a> {
    fn of(inner: &'a Inner) -> Self {
        Self { parcel: Parcel::default(), containers: inner.containers.as_ref() }
    }

    /// Says in the configuration what is around the app.
    fn surround(
        &mut self,
        inner: &Inner,
        spec: &InstanceSpec,
        cgroup: Option<&Cgroup>,
        config: StartConfig,
    ) -> Result<StartConfig, RuntimeError> {
        let handing = during("handing descriptors to a shim");
        let Some(containers) = self.containers else {
            let (root, tmp) = (inner.layout.root(&spec.id), inner.layout.tmp(&spec.id));
            let hosts = config.internal.is_some().then(|| inner.layout.hosts(&spec.id));
            let sandbox = inner.policy.sandbox(spec, &Places { root, tmp, cgroup, hosts })?;
            let namespace = network::with_way_out(inner, spec)?;
            let namespace = namespace.map(|made| self.parcel.add(&made)).transpose().map_err(&handing)?;
            return Ok(StartConfig { sandbox, namespace, ..config });
        };
        let sandbox = Some(inner.policy.contained(spec, containers.oom_counter()));
        let log = File::open(inner.layout.log(&spec.id)).and_then(|folder| self.parcel.add(&folder));
        // The folder itself is not in the container.
        let log_dir = format!("/proc/self/fd/{}", log.map_err(&handing)?);
        let beside = config.internal.as_ref().map(|way| self.parcel.add_beside(way)).transpose();
        let beside = beside.map_err(during("making a network beside a container's"))?;
        let beside = beside.unwrap_or_default();
        Ok(StartConfig { sandbox, log_dir, is_in_network: true, beside, ..config })
    }

    /// Starts the shim. Gives it as it is known out here.
    fn start(self, inner: &Inner, spec: &InstanceSpec) -> Result<(Identity, Option<Child>), RuntimeError> {
        if let Some(containers) = self.containers {
            return containers.start(inner, spec, self.parcel).map(|shim| (shim, None));
        }
        let handing = during("handing descriptors to a shim");
        let (ours, theirs) = UnixStream::pair().map_err(&handing)?;
        self.parcel.hand(&ours).map_err(&handing)?;
        let launch = Launch::new(Program::Image(inner.shim.clone())).arg0("berth-shim");
        let launch = launch.arg(spec.id.to_string()).arg(door::AT_INPUT).stdin(Stdio::Fd(theirs.into()));
        let child = launch.mark(spec.token).group(Group::ByItself).dir("/").start()?;
        Ok((child.identity().clone(), Some(child)))
    }
}

fn check(inner: &Inner, spec: &InstanceSpec) -> Result<(), RuntimeError> {
    let as_root = rustix::process::geteuid().is_root();
    let wrong = match &spec.user {
        None if as_root => Some("as root it needs a user of its own"),
        Some(_) if !as_root => Some("only root can run it as another user"),
        // The users of an image are others outside.
        Some(user)
            if spec.root == Root::Host && (user.uid == 0 || user.gid == 0 || user.groups.contains(&0)) =>
        {
            Some("it must not run as root")
        }
        _ if spec.network == Network::Own && !inner.own_network => {
            Some("an instance can have no network of its own here")
        }
        _ if !spec.dir.is_absolute() => Some("its directory is not an absolute path"),
        _ if spec.env.keys().any(|name| name.is_empty() || name.contains('=')) => {
            Some("the name of a variable is empty or holds a =")
        }
        _ => None,
    };
    if let Some(containers) = &inner.containers {
        containers.listens()?;
    }
    match wrong {
        Some(what) => Err(RuntimeError::Invalid(what)),
        None if spec.env.iter().flat_map(|(name, value)| [name, value]).any(|text| text.contains('\0')) => {
            Err(RuntimeError::Invalid("its environment holds a NUL"))
        }
        None => Ok(()),
    }
}

/// The configuration, except what only the launch knows.
fn config(inner: &Inner, spec: &InstanceSpec) -> Result<StartConfig, RuntimeError> {
    // A core file would fill the disk, and hold the app's secrets.
    let limits = berth_process::Limits { core: Some(spec.limits.core.unwrap_or(0)), ..spec.limits };
    Ok(StartConfig {
        instance: spec.id.to_string(),
        token: spec.token.0,
        argv: Vec::new(),
        env: Vec::new(),
        dir: text(&spec.dir)?,
        user: spec.user.as_ref().map(|user| AppUser {
            uid: user.uid,
            gid: user.gid,
            // In a user namespace of its own there are none but its own, and those of its image.
            groups: if inner.policy.has_view() && spec.root == Root::Host {
                Vec::new()
            } else {
                user.groups.clone()
            },
        }),
        limits: limits.numbers(),
        restart: spec.restart,
        backoff: spec.backoff,
        log_dir: text(&inner.layout.log(&spec.id))?,
        log: LogPolicy::default(),
        cgroup: None,
        stop_signal: 15,
        kill_after: 30_000,
        listener: -1,
        streams: None,
        sandbox: None,
        dial: None,
        network: spec.network,
        namespace: None,
        is_in_network: false,
        internal: network::internal(inner, spec),
        beside: Vec::new(),
        way_out: network::by_slirp(inner, spec),
        check: None,
    })
}

fn environment(
    inner: &Inner,
    spec: &InstanceSpec,
    port: Option<u16>,
) -> Result<BTreeMap<String, String>, RuntimeError> {
    let tmp = if inner.policy.has_view() { TMP.to_owned() } else { text(&inner.layout.tmp(&spec.id))? };
    let mut env = spec.env.clone();
    env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    env.entry("HOME".to_owned()).or_insert_with(|| tmp.clone());
    // An image keeps what it says of itself.
    if spec.root == Root::Host {
        env.insert("TMPDIR".to_owned(), tmp);
    }
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    env.remove(berth_process::Mark::VARIABLE);
    Ok(env)
}

/// The command as it is started. Only now is its port known, which `$PORT` in it means.
fn argv(command: &Command, env: &BTreeMap<String, String>) -> Result<Vec<String>, RuntimeError> {
    let argv = command.argv(env)?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(RuntimeError::Invalid("its command, or its check's, is empty"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(RuntimeError::Invalid("its command, or its check's, holds a NUL"));
    }
    Ok(argv)
}

fn assignments(spec: &InstanceSpec, env: BTreeMap<String, String>) -> Vec<String> {
    let entries = env.into_iter().map(|(name, value)| format!("{name}={value}"));
    entries.chain([spec.token.assignment()]).collect()
}

pub(super) fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("berth-shim-start", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

pub(super) fn text(path: &Path) -> Result<String, RuntimeError> {
    path.to_str().map(str::to_owned).ok_or(RuntimeError::Invalid("a path is not UTF-8"))
}
