//! Builds as they happen: laid out, run as the build's user, sealed; failed, cancelled, twice at once, on a full disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_build::{BuildError, Builder};
use berth_clock::SystemClock;
use berth_process::{Ground, Group, Launch, Mark, User};
use berth_spec::{Command, Millis};
use std::sync::Arc;

use crate::place::{APP_GID, BUILD_UID, Place, SEALED_UID, as_root, config, is_running, names};

#[tokio::test]
async fn a_static_directory_is_sealed_and_not_built_again() {
    let place = Place::new();
    let files = [("index.html", "hello"), ("css/a.css", "x")];
    let (built, _) = place.build(&files, "").await;
    let built = built.unwrap();
    assert!(!built.unchanged);
    assert_eq!(built.bytes, 6);
    assert!(matches!(built.processes["web"], Command::StaticSite { .. }));
    assert_eq!(fs::read_to_string(built.dir.join("index.html")).unwrap(), "hello");
    let (index, css) =
        (fs::metadata(built.dir.join("index.html")).unwrap(), fs::metadata(built.dir.join("css")).unwrap());
    if as_root() {
        assert_eq!((index.uid(), index.gid(), index.mode() & 0o7777), (SEALED_UID, APP_GID, 0o640));
        assert_eq!((css.uid(), css.gid(), css.mode() & 0o7777), (SEALED_UID, APP_GID, 0o750));
    } else {
        assert_eq!((index.mode() & 0o7777, css.mode() & 0o7777), (0o440, 0o700));
    }
    place.assert_clean();
    let (again, lines) = place.build(&files, "").await;
    let again = again.unwrap();
    assert!(again.unchanged);
    assert_eq!((again.artifact.clone(), again.bytes), (built.artifact.clone(), built.bytes));
    assert!(lines.text().contains("unchanged"));
    assert_eq!(place.builder.list(&place.app).await.unwrap(), [(built.artifact.clone(), 6)]);
    place.builder.remove(&place.app, &built.artifact).await.unwrap();
    place.builder.remove(&place.app, &built.artifact).await.unwrap();
    assert!(place.builder.list(&place.app).await.unwrap().is_empty());
    assert_eq!(names(&place.path("artifacts/default/default/shop")), [""; 0]);
    assert!(!place.build(&files, "").await.0.unwrap().unchanged);
    place.builder.remove_app(&place.app).await.unwrap();
    assert!(!place.path("artifacts/default/default/shop").try_exists().unwrap());
}

#[tokio::test]
async fn a_command_runs_as_the_builds_user_with_nothing_of_ours() {
    let place = Place::new();
    let manifest = r#"
[build]
command = "mkdir -p dist && id -u > dist/uid && env > dist/env && ln a.txt dist/linked && echo token=hunter2"
output = "dist"
[processes]
web = "bin/x"
"#;
    let (built, lines) = place.build(&[("a.txt", "abc")], manifest).await;
    let built = built.unwrap_or_else(|error| panic!("{error:?}\n{}", lines.text()));
    let read = |name: &str| fs::read_to_string(built.dir.join(name)).unwrap();
    let uid = if as_root() { BUILD_UID } else { rustix::process::geteuid().as_raw() };
    assert_eq!(read("uid").trim(), uid.to_string());
    assert_eq!(read("linked"), "abc");
    let env = read("env");
    assert!(env.contains(&format!("ARTIFACT_DIR={}", built.dir.display())), "{env}");
    assert!(env.contains("APP_NAME=shop") && !env.contains("CARGO"), "{env}");
    assert!(lines.text().contains("token=[masked]") && !lines.text().contains("hunter2"));
    place.assert_clean();
}

#[tokio::test]
async fn a_failed_command_says_so_and_leaves_nothing() {
    let place = Place::new();
    let manifest = "[build]\ncommand = \"echo one; echo hunter2 >&2; exit 3\"\n[processes]\nweb = \"x\"";
    let (failed, _) = place.build(&[("a", "x")], manifest).await;
    let error = failed.unwrap_err();
    assert_eq!(error.code(), "build_failed");
    let BuildError::Failed { outcome, mut tail, .. } = error else { panic!("{error:?}") };
    tail.sort();
    assert_eq!((outcome.as_str(), tail), ("exited with 3", vec!["[masked]".to_owned(), "one".to_owned()]));
    place.assert_clean();
    let absent = "[build]\ncommand = \"no-such-program a\"\n[processes]\nweb = \"x\"";
    let error = place.build(&[("a", "x")], absent).await.0.unwrap_err();
    assert_eq!(error.to_string(), "no-such-program a is not installed: no folder of PATH has it");
    let (nothing, _) = place.build(&[("a", "x")], "").await;
    assert_eq!(nothing.unwrap_err().code(), "nothing_to_run");
    place.assert_clean();
}

#[tokio::test]
async fn hostile_outcomes_never_reach_outside() {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(outside.join("x"), "precious").unwrap();
    let before = fs::metadata(outside.join("x")).unwrap();
    let there = outside.display();
    let commands = [
        ("dist", format!("ln -s {there} dist")),
        ("a/dist", format!("ln -s {there} a")),
        ("dist", "touch dist".to_owned()),
        ("dist", "true".to_owned()),
        (".", format!("cd .. && rm -rf src; ln -s {there} src; true")),
    ];
    for (output, command) in &commands {
        let manifest =
            format!("[build]\ncommand = {command:?}\noutput = {output:?}\n[processes]\nweb = \"x\"");
        let (outcome, _) = place.build(&[("f", "x")], &manifest).await;
        if let Ok(built) = &outcome {
            // As root, or where something stands around it, the work directory is not the build's: `src` stays what it was, only emptied, and the link
            // lands in it. A link leads no reader of an artifact anywhere that its own user may not go.
            assert!((as_root() || crate::ENCLOSED) && *output == ".", "{command}");
            assert_eq!(names(&built.dir), ["outside"]);
        }
        place.assert_clean();
    }
    let after = fs::metadata(outside.join("x")).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    assert_eq!(names(&outside), ["x"]);
}

#[tokio::test]
async fn what_takes_too_long_is_ended_with_all_it_started() {
    let place = Place::with(|config| config.timeout = Millis(400));
    // By its pid it would not be known out here.
    let sleeper = format!("1000.{}", std::process::id());
    let manifest = format!(
        "[build]\ncommand = \"setsid sleep {sleeper} & echo started; wait\"\n[processes]\nweb = \"x\""
    );
    let (outcome, lines) = place.build(&[("a", "x")], &manifest).await;
    assert_eq!(outcome.unwrap_err().code(), "build_timed_out");
    lines.wait_for("started").await;
    assert!(!is_running(&sleeper), "it still runs");
    place.assert_clean();
}

#[tokio::test]
async fn a_cancelled_build_ends_at_once() {
    let place = Place::new();
    let manifest = "[build]\ncommand = \"echo started; sleep 1000\"\n[processes]\nweb = \"x\"";
    let (request, lines) = place.request(place.tree(&[("a", "x")]), manifest);
    let cancel = request.cancel.clone();
    let (outcome, ()) = tokio::join!(place.builder.build(request), async {
        lines.wait_for("started").await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap_err().code(), "build_cancelled");
    place.assert_clean();
}

#[tokio::test]
async fn two_builds_of_the_same_are_one() {
    let place = Place::new();
    let tree = place.tree(&[("a", "x")]);
    let manifest = "[build]\ncommand = \"date +%N > stamp\"\n[processes]\nweb = \"x\"";
    let (one, two) = (place.request(tree, manifest), place.request(tree, manifest));
    let (first, second) = tokio::join!(place.builder.build(one.0), place.builder.build(two.0));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.artifact, second.artifact);
    assert_ne!(first.unchanged, second.unchanged);
    place.assert_clean();
}

#[tokio::test]
async fn a_cargo_project_is_built_for_real() {
    let place = Place::new();
    let main = "fn main() { println!(\"one\"); }";
    let cargo = "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    let files = |main| [("Cargo.toml", cargo), ("src/main.rs", main), ("templates/a.html", "x")];
    let (built, lines) = place.build(&files(main), "").await;
    let built = built.unwrap_or_else(|error| panic!("{error:?}\n{}", lines.text()));
    assert_eq!(built.processes["web"].to_string(), "[\"bin/hello\"]");
    let program = built.dir.join("bin/hello");
    assert!(fs::read(&program).unwrap().starts_with(b"\x7fELF"));
    assert_ne!(fs::metadata(&program).unwrap().mode() & 0o110, 0);
    assert_eq!(fs::read_link(built.dir.join("target/release/hello")).unwrap(), Path::new("../../bin/hello"));
    assert!(built.dir.join("templates/a.html").try_exists().unwrap());
    let (changed, _) = place.build(&files("fn main() { println!(\"two\"); }"), "").await;
    assert_ne!(changed.unwrap().artifact, built.artifact);
    let (broken, lines) = place.build(&files("fn main() { oops }"), "").await;
    assert_eq!(broken.unwrap_err().code(), "build_failed");
    assert!(lines.text().contains("cannot find value `oops`"), "{}", lines.text());
    place.assert_clean();
}

#[tokio::test]
async fn a_missing_toolchain_says_what_to_do() {
    let place = Place::with(|config| config.toolchains.path = "/nowhere".into());
    let files = [("Cargo.toml", "[package]\nname = \"a\"\n"), ("src/main.rs", "fn main() {}")];
    let error = place.build(&files, "").await.0.unwrap_err();
    assert_eq!(error.code(), "toolchain_missing");
    assert!(error.to_string().contains("https://rustup.rs"), "{error}");
}

#[tokio::test]
async fn the_sweep_ends_a_build_that_outlived_its_control() {
    let place = Place::new();
    let work = place.path("builds/default/default/shop/9");
    fs::create_dir_all(work.join("src")).unwrap();
    let mark = Mark([7; 16]);
    fs::write(work.join("mark"), mark.0).unwrap();
    let staging = place.path("artifacts/default/default/shop/.new-x");
    fs::create_dir_all(&staging).unwrap();
    let user = as_root().then(|| User { uid: BUILD_UID, gid: APP_GID, groups: vec![] });
    fs::set_permissions(work.join("src"), fs::Permissions::from_mode(0o755)).unwrap();
    let ground = Ground::new(&work.join("src"), user).unwrap();
    let mut orphan =
        Launch::new(ground.shell("sleep 1000")).mark(mark).group(Group::Session).start().unwrap();
    place.builder.sweep().await.unwrap();
    assert!(!orphan.ended().await.unwrap().success());
    assert!(!work.try_exists().unwrap() && !staging.try_exists().unwrap());
}

/// A small file system of its own, as root.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, options: &std::ffi::CStr) -> Option<Self> {
        fs::create_dir(at).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options).ok()?;
        Some(Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing_half_done() {
    let mut place = Place::new();
    let small = place.path("small");
    let Some(_mounted) = Tmpfs::mount(&small, c"size=2m,mode=711") else {
        println!("SKIPPED: only root can mount a small file system");
        return;
    };
    let large = "x".repeat(3 * 1024 * 1024);
    let tree = place.tree(&[("index.html", &large)]);
    let writes = place.tree(&[("index.html", "small")]);
    let config = config(&place.path(""), &small);
    place.builder = Builder::new(config, Arc::new(SystemClock::new()));
    let (laying, _) = place.request(tree, "");
    assert_eq!(place.builder.build(laying).await.unwrap_err().code(), "disk_full");
    let manifest = "[build]\ncommand = \"cat /dev/zero > big\"\n[processes]\nweb = \"x\"";
    let (running, _) = place.request(writes, manifest);
    assert_eq!(place.builder.build(running).await.unwrap_err().code(), "disk_full");
    for dir in ["builds/default/default/shop", "artifacts/default/default/shop"] {
        assert_eq!(names(&small.join(dir)), [""; 0]);
    }
    let (fits, _) = place.request(writes, "");
    place.builder.build(fits).await.unwrap();
}
