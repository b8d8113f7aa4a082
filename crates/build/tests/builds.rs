//! Builds as they happen: laid out, run as the build's user, sealed; failed, cancelled, twice at once, on a full disk.
//!
//! As root they run under a uid of their own, as they do on a platform; as an ordinary user under our own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_build::{
    BuildError, BuildRequest, Builder, Built, Config, Keeping, LogLine, Platform, Sink, ToolchainPlaces,
};
use berth_clock::SystemClock;
use berth_process::{Ground, Group, Launch, Mark, User};
use berth_source::{ChunkStore, TreeId, walk};
use berth_spec::{AppId, Command, Manifest, Millis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Far from any platform's block of uids.
const BUILD_UID: u32 = 2_100_000_017;
const APP_GID: u32 = 2_100_000_016;
const SEALED_UID: u32 = 2_100_000_002;

fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Keeps lines, and lets a test wait for one.
struct Lines {
    all: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl Sink for Lines {
    fn line(&self, line: LogLine) {
        let mut all = self.all.lock().unwrap();
        all.push(line.text);
        self.count.send_replace(all.len());
    }
}

impl Lines {
    async fn wait_for(&self, prefix: &str) -> String {
        let mut count = self.count.subscribe();
        loop {
            if let Some(line) = self.all.lock().unwrap().iter().find(|line| line.starts_with(prefix)) {
                return line.clone();
            }
            count.changed().await.unwrap();
        }
    }

    fn text(&self) -> String {
        self.all.lock().unwrap().join("\n")
    }
}

struct Place {
    dir: tempfile::TempDir,
    builder: Builder,
    app: AppId,
}

impl Place {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut config = Config {
            chunks: dir.path().join("chunks"),
            artifacts: dir.path().join("artifacts"),
            builds: dir.path().join("builds"),
            passage_gid: None,
            sealed_uid: as_root().then_some(SEALED_UID),
            parallel: 2,
            timeout: Millis::from_secs(300),
            toolchains: ToolchainPlaces::from_env(),
            platform: Platform::current(),
            cgroups: None,
            env: BTreeMap::new(),
            processes_max: 4_096,
            weight_max: 1 << 34,
            reserve: 0,
            low_water: 0,
            keeping: Keeping { per_app: 1 << 34, in_all: 1 << 34, unused: Millis::from_secs(3_600) },
        };
        change(&mut config);
        let builder = Builder::new(config, Arc::new(SystemClock::new()));
        Self { dir, builder, app: "default/default/shop".parse().unwrap() }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Packs files and keeps their tree as the CLI and the server do.
    fn tree(&self, files: &[(&str, &str)]) -> TreeId {
        let source = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let packed = walk::pack(source.path()).unwrap();
        let store = ChunkStore::open(&self.path("chunks"), &self.app.tenant).unwrap();
        for chunk in packed.tree().chunks() {
            store.put(&chunk, &packed.read(&chunk).unwrap()).unwrap();
        }
        store.put_tree(packed.tree()).unwrap()
    }

    fn request(&self, tree: TreeId, manifest: &str) -> (BuildRequest, Arc<Lines>) {
        let lines = Arc::new(Lines { all: Mutex::default(), count: watch::Sender::new(0) });
        let user = User { uid: BUILD_UID, gid: APP_GID, groups: vec![] };
        let request = BuildRequest {
            app: self.app.clone(),
            tree,
            manifest: Manifest::parse(manifest).unwrap(),
            user: as_root().then_some(user),
            app_gid: as_root().then_some(APP_GID),
            env: BTreeMap::new(),
            secrets: vec!["hunter2".to_owned()],
            sink: lines.clone(),
            cancel: CancellationToken::new(),
        };
        (request, lines)
    }

    async fn build(&self, files: &[(&str, &str)], manifest: &str) -> (Result<Built, BuildError>, Arc<Lines>) {
        let (request, lines) = self.request(self.tree(files), manifest);
        (self.builder.build(request).await, lines)
    }

    /// What must hold after every build: nothing is left of the work, and nothing half done stands.
    fn assert_clean(&self) {
        let works = self.path("builds/default/default/shop");
        assert_eq!(names(&works), [""; 0]);
        let artifacts = names(&self.path("artifacts/default/default/shop"));
        assert!(artifacts.iter().all(|name| !name.starts_with('.')), "{artifacts:?}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

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
            // As root the work directory is not the build's: `src` stays what it was, only emptied, and the link
            // lands in it. A link leads no reader of an artifact anywhere that its own user may not go.
            assert!(as_root() && *output == ".", "{command}");
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
    let manifest = "[build]\ncommand = \"setsid sleep 1000 & echo pid $!; wait\"\n[processes]\nweb = \"x\"";
    let (outcome, lines) = place.build(&[("a", "x")], manifest).await;
    assert_eq!(outcome.unwrap_err().code(), "build_timed_out");
    let pid = lines.wait_for("pid ").await;
    let left = berth_process::procfs::stat(pid.trim_start_matches("pid ").parse().unwrap()).unwrap();
    // Its orphans are reaped by whoever is the reaper here; dead is enough.
    assert!(left.is_none_or(|stat| stat.is_dead()), "{pid} still runs");
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
    let config = Config {
        chunks: place.path("chunks"),
        artifacts: small.join("artifacts"),
        builds: small.join("builds"),
        passage_gid: None,
        sealed_uid: Some(SEALED_UID),
        parallel: 1,
        timeout: Millis::from_secs(60),
        toolchains: ToolchainPlaces::from_env(),
        platform: Platform::current(),
        cgroups: None,
        env: BTreeMap::new(),
        processes_max: 4_096,
        weight_max: 1 << 34,
        reserve: 0,
        low_water: 0,
        keeping: Keeping { per_app: 1 << 34, in_all: 1 << 34, unused: Millis::from_secs(3_600) },
    };
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
