//! Builds in the sandbox that a platform puts up around their commands: what holds for bare ones holds for these, and what a build tries to
//! get out of it fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]
#![expect(clippy::print_stdout, reason = "a test says what it could not look at")]

mod attacks;
#[path = "../suite/builds.rs"]
mod builds;
mod ends;
#[path = "../suite/place.rs"]
mod place;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_build::Config;
use berth_clock::SystemClock;
use berth_process::{Cgroups, Controller, Enclosure};
use berth_runtime::{CommandSandbox, Layout, Network, PlainRuntime};
use berth_spec::Isolation;

use crate::place::Place;

/// Whether something stands around commands.
const ENCLOSED: bool = true;

/// What stands around the commands of builds of the platform at `home`, in the machine's network.
fn enclosure(home: &Path) -> Option<Arc<dyn Enclosure>> {
    Some(Arc::new(sandbox(&runtime(home), home, Network::Host)))
}

fn sandbox(runtime: &PlainRuntime, home: &Path, network: Network) -> CommandSandbox {
    runtime.commands(home.to_owned(), Controller::ALL.into(), network).unwrap()
}

fn runtime(home: &Path) -> PlainRuntime {
    runtime_at(home, None)
}

/// The runtime of the platform at `home`, at the level of isolation that is wanted, or the best that there is.
fn runtime_at(home: &Path, level: Option<Isolation>) -> PlainRuntime {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let platform = format!("test-builds-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let below = |name: &str| home.join(name);
    let layout = Layout {
        instances: below("instances"),
        logs: below("logs"),
        run: below("run"),
        platform: platform.clone(),
        edge: None,
    };
    let runtime = PlainRuntime::open(layout, Arc::new(SystemClock::new()), level).unwrap();
    // It has no instances that would be in them.
    if let Some(groups) = Cgroups::discover(&format!("berth-{platform}")) {
        groups.remove().unwrap();
    }
    runtime
}

/// A place whose builds have a root of their own; none on a machine without namespaces, which is said loudly, since nothing is shown there.
fn enclosed(change: impl FnOnce(&mut Config)) -> Option<Place> {
    let look = tempfile::tempdir().unwrap();
    let level = sandbox(&runtime(look.path()), look.path(), Network::Host).level();
    if level < Isolation::Namespaces {
        println!("!! NOT TESTED: this machine has no namespaces for us, only {level}");
        return None;
    }
    Some(Place::with(change))
}
