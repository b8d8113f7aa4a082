//! Builds the shim as a small static program, to be carried within the binary.
//!
//! It is a build of its own, into a target folder of its own below `OUT_DIR`: another profile, other flags, and no share in
//! the features or wrappers of the build around it.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let shim = manifest_dir.join("../shim");
    for watched in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", shim.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let program = build(&shim, &PathBuf::from(env::var("OUT_DIR")?), &env::var("TARGET")?)?;
    println!("cargo::rustc-env=BERTH_SHIM_PROGRAM={}", program.display());
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script cannot start cargo through the crate it helps to build"
)]
fn build(shim: &Path, out: &Path, target: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = out.join("shim");
    let mut cargo = std::process::Command::new(env::var("CARGO")?);
    cargo.current_dir(shim).arg("build").arg("--release").args([
        "--package",
        "berth-shim",
        "--bin",
        "berth-shim",
    ]);
    cargo.args(["--target", target]).arg("--target-dir").arg(&folder);
    if shim.join("../../Cargo.lock").try_exists()? {
        cargo.arg("--locked");
    }
    for setting in [
        // Small, since each instance has one: no unwinding tables, no relocations that make pages private.
        "profile.release.opt-level='z'",
        "profile.release.panic='abort'",
        "profile.release.lto='fat'",
        "profile.release.codegen-units=1",
        "profile.release.strip='symbols'",
        "profile.release.debug=0",
    ] {
        cargo.args(["--config", setting]);
    }
    let flags = "['-Ctarget-feature=+crt-static', '-Crelocation-model=static']";
    cargo.args(["--config", &format!("target.{target}.rustflags={flags}")]);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            cargo.env_remove(&name);
        }
    }
    if !cargo.status()?.success() {
        return Err("the shim could not be built".into());
    }
    Ok(folder.join(target).join("release/berth-shim"))
}

/// Whether a variable is about the build around this one and would change the shim's.
fn leaks(name: &str) -> bool {
    const EXACT: [&str; 6] = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
    ];
    EXACT.contains(&name)
        || name.starts_with("CARGO_BUILD_")
        || name.starts_with("CARGO_PROFILE_")
        || (name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS"))
}
