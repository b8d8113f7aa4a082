//! Measures instances, for `cargo xtask bench runtime` and `bench network`.
//!
//! `measure latency`: requests into an instance's own network. `measure instances STARTS MANY SCRATCH [PEER ...]`: starts, memory, freezing,
//! beside peers. `measure commands COUNT`: what a command of a build costs more in its sandbox. `measure way-out STARTS MANY`: what the way out of an
//! ordinary user's instances costs. Each prints one object of JSON.
#![expect(clippy::print_stdout, reason = "what it prints is its result")]

mod commands;
mod instances;
mod latency;
mod peers;
mod way_out;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use berth_clock::{SystemClock, random_bytes};
use berth_process::Cgroups;
use berth_runtime::{
    Backoff, InstanceSpec, Layout, Limits, Mark, Network, PlainRuntime, PortWish, Resources, Restart, Root,
    User,
};
use berth_spec::Command;
use berth_spec::manifest::Egress;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A user of nobody's.
const USER: u32 = 2_000_899_999;

fn main() -> Outcome<()> {
    if let Ok(port) = std::env::var("PORT") {
        return latency::serve(port.parse()?);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let home = tempfile::tempdir()?;
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = match &args[..] {
        ["latency"] => runtime.block_on(latency::measure(home.path())),
        ["instances", starts, many, scratch, peers @ ..] => {
            let wish = instances::Wish {
                starts: starts.parse()?,
                many: many.parse()?,
                scratch: Path::new(scratch),
                peers,
            };
            runtime.block_on(instances::measure(home.path(), &wish))
        }
        ["way-out", starts, many] => {
            runtime.block_on(way_out::measure(home.path(), starts.parse()?, many.parse()?))
        }
        ["commands", count] => commands::measure(home.path(), count.parse()?),
        _ => Err("measure latency, commands COUNT, way-out STARTS MANY, or instances STARTS MANY SCRATCH [PEER ...]".into()),
    };
    measured.and(leave_nothing(home.path()))
}

/// Removes what outlives the instances: the packet filter's table and the folder of control groups.
fn leave_nothing(home: &Path) -> Outcome<()> {
    open(home)?.end_all()?;
    let groups = Cgroups::discover(&format!("berth-{}", platform()));
    groups.map_or(Ok(()), |groups| groups.remove()).map_err(Into::into)
}

fn platform() -> String {
    format!("bench-{}", std::process::id())
}

/// A runtime at the best level that the machine has.
fn open(home: &Path) -> Outcome<PlainRuntime> {
    let layout = Layout {
        instances: home.join("instances"),
        logs: home.join("logs"),
        run: home.join("run"),
        platform: platform(),
        edge: None,
    };
    Ok(PlainRuntime::open(layout, Arc::new(SystemClock::new()), None)?)
}

/// An instance that runs `command` in a network of its own without a way out.
fn spec(number: usize, command: &[&str]) -> Outcome<InstanceSpec> {
    let as_root = rustix::process::geteuid().is_root();
    Ok(InstanceSpec {
        id: format!("default/default/bench/web.{}", number + 1).parse()?,
        token: Mark(random_bytes(&SystemClock::new())),
        command: Command::Argv(command.iter().map(|word| (*word).to_owned()).collect()),
        env: BTreeMap::new(),
        dir: "/".into(),
        root: Root::Host,
        mounts: Vec::new(),
        resources: Resources::default(),
        user: as_root.then(|| User { uid: USER, gid: USER, groups: Vec::new() }),
        port: PortWish::Any { exclude: BTreeSet::new() },
        network: Network::Own,
        egress: Egress::None,
        aliases: BTreeMap::new(),
        limits: Limits::default(),
        restart: Restart::Never,
        backoff: Backoff::default(),
        check: None,
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
