//! The start of an instance: what is made for it, in an order that leaves nothing unknown behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use berth_process::{Child, Group, Launch, Program};
use berth_shim::config::{AppUser, LogPolicy, Network, StartConfig};
use rustix::fs::MemfdFlags;

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
    pub(super) child: Child,
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
    let argv = argv(spec, &env)?;
    let socket = inner.layout.socket(spec.token).map_err(during("naming a socket"))?;
    remove_file(&socket).map_err(during("removing a socket"))?;
    let listener = UnixListener::bind(&socket).map_err(during("binding a shim's socket"))?;
    let quota = inner.policy.quota(spec);
    let cgroup = inner.cgroups.as_ref().map(|groups| groups.create_limited(&short(spec.token), &quota));
    let cgroup = cgroup.transpose().map_err(during("making a control group"))?;
    let places = Places {
        root: inner.layout.root(&spec.id),
        tmp: inner.layout.tmp(&spec.id),
        cgroup: cgroup.as_ref(),
    };
    let sandbox = inner.policy.sandbox(spec, &places)?;

    let mut launch = Launch::new(Program::Image(inner.shim.clone()))
        .arg0("berth-shim")
        .arg(spec.id.to_string())
        .mark(spec.token)
        .group(Group::Session)
        .dir("/");
    let inherit = during("handing descriptors to a shim");
    let listener = launch.inherit(&listener).map_err(&inherit)?;
    if let Some(lease) = &lease {
        launch.inherit(&lease.holder).map_err(&inherit)?;
    }
    let dial = network::dial_listener(&inner.layout, record)?;
    let dial = dial.map(|dial| launch.inherit(&dial)).transpose().map_err(&inherit)?;
    let namespace = network::with_way_out(inner, spec)?;
    let namespace = namespace.map(|made| launch.inherit(&made)).transpose().map_err(&inherit)?;
    let streams = ends.map(|ends| ends.inherited(|end| launch.inherit(end)));
    let streams = streams.transpose().map_err(&inherit)?;
    let config = StartConfig {
        argv,
        env: assignments(spec, env),
        cgroup: cgroup.map(|cgroup| text(&cgroup.door_path())).transpose()?,
        listener,
        streams,
        sandbox,
        dial,
        namespace,
        ..config(inner, spec)?
    };
    let config = memory_file(&config.encode()).map_err(during("writing a shim's configuration"))?;
    let number = launch.inherit(&config).map_err(&inherit)?;
    let child = launch.arg(number.to_string()).start()?;
    record.shim = Some(child.identity().clone());
    record.write(&inner.layout.instance(&spec.id)).map_err(during("writing start.json"))?;
    Ok(Launched { child, record: record.clone(), socket })
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
fn argv(spec: &InstanceSpec, env: &BTreeMap<String, String>) -> Result<Vec<String>, RuntimeError> {
    let argv = spec.command.argv(env)?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(RuntimeError::Invalid("its command is empty"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(RuntimeError::Invalid("its command holds a NUL"));
    }
    Ok(argv)
}

fn assignments(spec: &InstanceSpec, env: BTreeMap<String, String>) -> Vec<String> {
    let entries = env.into_iter().map(|(name, value)| format!("{name}={value}"));
    entries.chain([spec.token.assignment()]).collect()
}

fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("berth-shim-start", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

fn text(path: &Path) -> Result<String, RuntimeError> {
    path.to_str().map(str::to_owned).ok_or(RuntimeError::Invalid("a path is not UTF-8"))
}
