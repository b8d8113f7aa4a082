//! Pulls from registries: honest ones with their troubles, hostile ones, and Debian's real one.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it could not test"
)]

mod honest;
mod hostile;
mod real;
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_image::registry::Config;
use berth_image::{ImageError, Limits, Ownership, Platform, Pulled, Registries, Store, Wanted};

use server::{HOST, Network};

/// A pull and what it left.
pub(crate) struct Pull {
    pub(crate) outcome: Result<Pulled, ImageError>,
    pub(crate) store: tempfile::TempDir,
    pub(crate) network: Arc<Network>,
}

pub(crate) fn quick() -> Config {
    Config {
        backoff: Duration::from_millis(1),
        attempts: 3,
        insecure: BTreeSet::from([HOST.to_owned()]),
        ..Config::default()
    }
}

pub(crate) fn wanted(reference: &str) -> Wanted {
    let platform = Platform { architecture: "amd64".to_owned(), os: "linux".to_owned(), variant: None };
    Wanted {
        reference: reference.parse().unwrap(),
        platform,
        ownership: Ownership::Own,
        had: BTreeSet::new(),
    }
}

/// Pulls `app` from the registry that is called `host`.
pub(crate) async fn pull_over(network: Arc<Network>, host: &str) -> Pull {
    let store = tempfile::tempdir().unwrap();
    let registries = Registries::over(quick(), Arc::<Network>::clone(&network));
    let opened = Store::open(store.path(), Limits::default()).unwrap();
    let outcome = opened.pull(&registries, &wanted(&format!("{host}/app")), &|_| ()).await;
    Pull { outcome, store, network }
}
