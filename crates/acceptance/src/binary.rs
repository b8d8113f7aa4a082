//! Where the binary under test is, and that it is of the sources under test.
//!
//! Cargo builds the binaries of a package for that package's own tests alone, and a test crate that depended on `berth` would
//! get its library, which it has not. So the harness looks where cargo puts it, two folders above the test's own executable,
//! and has cargo build it once for each test process where it is missing or older than a source. `BERTH_BIN` names another
//! binary, which is taken as it is: a release build, or one that was installed. `BERTH_TEST_APPS` names a folder of apps that
//! are taken as they are, for where cargo is not.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use crate::reach::reachable;

/// The binary under test.
#[must_use]
pub fn berth() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("BERTH_BIN") {
        Some(path) => fs::canonicalize(path).expect("BERTH_BIN names a file"),
        None => reachable(built()),
    })
}

/// The directory of an example of the repository.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    workspace().join("examples").join(name)
}

/// The executable of an example, built once for each test process: for users who cannot reach the toolchain.
#[must_use]
pub fn example_binary(name: &str) -> PathBuf {
    built_alone(name, &example(name))
}

/// The executable that plays apps on their bad days, built once for each test process.
#[must_use]
pub fn actor_binary() -> PathBuf {
    built_alone("actor", &actor_source())
}

/// The Cargo project of [`actor_binary`].
#[must_use]
pub fn actor_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/actor")
}

/// The executable `name` of the project in `directory`, which is no member of the workspace.
fn built_alone(name: &str, directory: &Path) -> PathBuf {
    static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if let Some(folder) = env::var_os("BERTH_TEST_APPS") {
        return Path::new(&folder).join(name);
    }
    let target = workspace().join("target/examples-of-tests");
    let binary = target.join("release").join(name);
    // Held while it is built, so that a second test waits instead of building too.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert(binary.clone()) {
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--release", "--target-dir"]).arg(&target).current_dir(directory);
        assert!(cargo.status().expect("cargo can be started").success(), "the example does not build");
    }
    drop(built);
    reachable(binary)
}

fn built() -> PathBuf {
    let test = env::current_exe().expect("a process knows its executable");
    let profile = test.ancestors().nth(2).expect("cargo puts tests into target/<profile>/deps");
    let binary = profile.join("berth");
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let fresh = age(&binary).is_some_and(|built| newest_source(&workspace().join("crates")) <= built);
    if !fresh {
        build(profile);
    }
    binary
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn build(profile: &Path) {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--package", "berth"]).current_dir(workspace());
    // target/debug is the profile `dev`; every other folder is called as its profile.
    match profile.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "the binary under test does not build");
}

fn newest_source(directory: &Path) -> SystemTime {
    let entries = fs::read_dir(directory).expect("the sources can be listed");
    entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let skip = entry.file_name() == "tests" || entry.file_name() == "acceptance";
            match metadata.is_dir() {
                true if skip => None,
                true => Some(newest_source(&entry.path())),
                false => metadata.modified().ok(),
            }
        })
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in crates/")
}
