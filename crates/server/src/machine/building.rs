//! The builder of this platform: where it builds, what stands around its commands, what they may take, in which network they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_build::{Builder, Config, Engines, Keeping, Platform, ToolchainPlaces};
use berth_process::{Cgroups, Enclosure};
use berth_runtime::{Network, PlainRuntime, Runtime as _, resolv_conf};
use berth_spec::{Isolation, Millis};

use super::{in_full, instances};
use crate::config::{BuildNetwork, ControlConfig, UidPlan};
use crate::events;

/// How many builds run at once: each is a compiler that takes all it gets.
const BUILDS: usize = 2;
/// How long the commands of one build may take.
pub(super) const BUILD_TIMEOUT: Millis = Millis::from_secs(30 * 60);
/// How many processes the builds of one app may have at once: far more than any compiler starts.
const BUILD_PROCESSES: u64 = 4_096;
/// How many bytes a build may have on the disk while it runs, its app's caches included: a large Rust workspace has some 10 GiB.
const BUILD_WEIGHT: u64 = 24 << 30;
/// How many bytes of the disk builds leave alone, a twentieth of a small one: the journal and the logs live on the same one.
pub(super) const RESERVE: u64 = 256 << 20;
/// Below how many free bytes, or a fifth of a small disk, what builds keep is removed before the next one.
const LOW_WATER: u64 = 2 << 30;
/// How many bytes of caches and layers that no artifact needs are kept for one app.
const CACHE_PER_APP: u64 = 12 << 30;
/// How many for all apps together.
const CACHE_IN_ALL: u64 = 48 << 30;
/// After which time without a build they go.
const CACHE_UNUSED: Millis = Millis::from_secs(30 * 24 * 3_600);

/// What builds, and what is to be said of it.
pub(super) struct Building {
    pub(super) builder: Builder,
    /// What stands around its commands.
    pub(super) isolation: Isolation,
    /// In which network they are, in words.
    pub(super) network: String,
}

/// The builder, whose commands are in the sandbox that `runtime` has for them. Blocks.
///
/// # Errors
/// When that cannot be had as it is wanted, in words.
pub(super) fn open(config: &ControlConfig, runtime: &PlainRuntime) -> Result<Building, String> {
    let cgroups = Cgroups::discover(&format!("berth-builds-{}", config.platform));
    if let Some(Err(error)) = cgroups.as_ref().map(Cgroups::give_way) {
        events::could_not("have builds give way to apps", &error);
    }
    let controllers = cgroups.as_ref().map(Cgroups::controllers).unwrap_or_default();
    let env = berth_build::handed_on();
    let no_way_out = runtime.capabilities().no_egress;
    let (network, words) = network(config.build_bounds.network, no_way_out, || stays(&env))?;
    let commands = runtime.commands(config.home.clone(), controllers, network);
    let commands = commands.map_err(|error| in_full(&error))?;
    let isolation = commands.level();
    let encloses = isolation > Isolation::Plain;
    let enclosure: Option<Arc<dyn Enclosure>> = if encloses { Some(Arc::new(commands)) } else { None };
    let network = if encloses { words } else { "the machine's: nothing stands around builds".to_owned() };
    let disk = disk(&config.home);
    let memory = instances::meminfo("MemTotal:").map(|kibibytes| kibibytes.saturating_mul(1_024) / 4 * 3);
    let builds = Config {
        chunks: config.home.join("chunks"),
        artifacts: config.home.join("artifacts"),
        builds: config.home.join("builds"),
        passage_gid: config.uid_plan.map(UidPlan::platform_gid),
        sealed_uid: config.uid_plan.map(UidPlan::sealed),
        parallel: BUILDS,
        timeout: BUILD_TIMEOUT,
        toolchains: ToolchainPlaces::from_env(),
        platform: Platform::current(),
        cgroups,
        enclosure,
        memory_max: config.build_bounds.memory.or(memory),
        env,
        processes_max: BUILD_PROCESSES,
        weight_max: BUILD_WEIGHT,
        reserve: reserve(disk),
        low_water: LOW_WATER.min(disk / 5),
        keeping: Keeping { per_app: CACHE_PER_APP, in_all: CACHE_IN_ALL, unused: CACHE_UNUSED },
        engines: Engines::from_env(config.build_bounds.engine),
    };
    let builder = Builder::new(builds, Arc::clone(&config.clock));
    Ok(Building { builder, isolation, network })
}

/// The bytes of the disk at `path`, used or not.
fn disk(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// How many bytes of the disk that the home is on are left alone by what tenants send and make.
pub(super) fn reserve_of(home: &Path) -> u64 {
    reserve(disk(home))
}

fn reserve(disk: u64) -> u64 {
    RESERVE.min(disk / 20)
}

/// In which network builds are, and that in words. `stays` finds out why they would not reach from another what they are told to.
///
/// # Errors
/// When the wish cannot be had.
fn network(
    wish: Option<BuildNetwork>,
    no_way_out: Option<String>,
    stays: impl FnOnce() -> Option<String>,
) -> Result<(Network, String), String> {
    let own = || (Network::Own, "one of their own, with a way out".to_owned());
    match (wish, no_way_out) {
        (Some(BuildNetwork::Machine), _) => Ok((Network::Host, "the machine's, as was asked for".to_owned())),
        (Some(BuildNetwork::Own), None) => Ok(own()),
        (Some(BuildNetwork::Own), Some(why)) => {
            Err(format!("builds can have no network of their own, which BERTH_BUILD_NETWORK asks for: {why}"))
        }
        (None, why) => Ok(match why.or_else(stays) {
            Some(why) => (Network::Host, format!("the machine's: {why}")),
            None => own(),
        }),
    }
}

/// Why builds would not get from a network of their own to where they are told to.
fn stays(env: &BTreeMap<String, String>) -> Option<String> {
    let resolves = resolv_conf().lines().any(|line| line.trim_start().starts_with("nameserver"));
    let no_names = (!resolves).then(|| "names are resolved at its loopback alone".to_owned());
    berth_build::leads_here(env).or(no_names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_get_a_network_of_their_own_where_it_serves() {
        let why = || Some("HTTPS_PROXY leads to localhost, which is this machine".to_owned());
        let of = |wish, no_way_out: Option<&str>, stays: Option<String>| {
            network(wish, no_way_out.map(str::to_owned), || stays)
        };
        assert_eq!(of(None, None, None).unwrap().0, Network::Own);
        let (network, words) = of(None, None, why()).unwrap();
        assert_eq!(network, Network::Host);
        assert!(words.starts_with("the machine's: HTTPS_PROXY leads to localhost"), "{words}");
        assert_eq!(of(None, Some("no nft"), None).unwrap().1, "the machine's: no nft");
        // What was asked for is had or refused.
        assert_eq!(of(Some(BuildNetwork::Own), None, why()).unwrap().0, Network::Own);
        assert!(of(Some(BuildNetwork::Own), Some("no nft"), None).unwrap_err().ends_with(": no nft"));
        assert_eq!(of(Some(BuildNetwork::Machine), None, None).unwrap().0, Network::Host);
    }
}
