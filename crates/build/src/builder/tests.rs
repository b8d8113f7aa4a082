//! Recipes followed, with recipes written by hand: what a rule of detection would write is another crate's matter.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use berth_clock::SystemClock;
use berth_source::recipe::{Layer, Recipe, Step, Tool, ToolNeed};
use berth_source::walk;

use super::*;
use crate::log::LogLine;

const BUILD_UID: u32 = 2_100_000_017;
const APP_GID: u32 = 2_100_000_016;
const SEALED_UID: u32 = 2_100_000_002;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, line: LogLine) {
        self.0.lock().unwrap().push(line.text);
    }
}

impl Lines {
    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
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
        let as_root = rustix::process::geteuid().is_root();
        let mut config = Config {
            chunks: dir.path().join("chunks"),
            artifacts: dir.path().join("artifacts"),
            builds: dir.path().join("builds"),
            passage_gid: None,
            sealed_uid: as_root.then_some(SEALED_UID),
            parallel: 2,
            timeout: Millis::from_secs(300),
            toolchains: ToolchainPlaces::from_env(),
            platform: Platform::current(),
            cgroups: None,
            env: BTreeMap::new(),
        };
        change(&mut config);
        let builder = Builder::new(config, Arc::new(SystemClock::new()));
        Self { dir, builder, app: "default/default/shop".parse().unwrap() }
    }

    /// Builds `files` by `recipe`, and gives what came of it and what was said.
    async fn build(&self, files: &[(&str, &str)], recipe: &Recipe) -> (Result<Built, BuildError>, String) {
        let source = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let packed = walk::pack(source.path()).unwrap();
        let store = ChunkStore::open(&self.dir.path().join("chunks"), &self.app.tenant).unwrap();
        for chunk in packed.tree().chunks() {
            store.put(&chunk, &packed.read(&chunk).unwrap()).unwrap();
        }
        let tree = store.put_tree(packed.tree()).unwrap();
        let lines = Arc::new(Lines::default());
        let as_root = rustix::process::geteuid().is_root();
        let request = BuildRequest {
            app: self.app.clone(),
            tree,
            manifest: Manifest::default(),
            user: as_root.then_some(User { uid: BUILD_UID, gid: BUILD_UID, groups: vec![APP_GID] }),
            app_gid: as_root.then_some(APP_GID),
            secrets: Vec::new(),
            sink: lines.clone(),
            cancel: CancellationToken::new(),
        };
        let detection = Detection {
            builder: Kind::Node,
            recipe: recipe.clone(),
            release_command: None,
            processes: [("web".parse().unwrap(), Command::parse("run").unwrap())].into(),
            why: Vec::new(),
        };
        let built = self.builder.build_as(request, move |_, _| Ok(detection)).await;
        (built, lines.text())
    }

    async fn must_build(&self, files: &[(&str, &str)], recipe: &Recipe) -> (Built, String) {
        let (built, said) = self.build(files, recipe).await;
        (built.unwrap_or_else(|error| panic!("{error:?}\n{said}")), said)
    }
}

fn step(does: &str, line: &str) -> Step {
    Step { does: does.to_owned(), command: Command::parse(line).unwrap(), env: BTreeMap::new(), layer: None }
}

fn dir(path: &str) -> RelativeDir {
    RelativeDir::new(path).unwrap()
}

fn layer(step: Step, inputs: &[&str], makes: &[&str]) -> Step {
    let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
    Step { layer: Some(Layer { inputs, makes: makes.iter().map(|path| dir(path)).collect() }), ..step }
}

/// An install as package managers do it: it takes its time once, prints the number of times it ran into a cache.
fn install() -> Recipe {
    let line = "mkdir -p deps/bin && cat lock > deps/data && echo ran >> $RUNS/count && \
                printf '#!%s/deps/bin/x' $PWD > deps/bin/tool && chmod +x deps/bin/tool && ln -s data deps/link";
    Recipe {
        steps: vec![
            layer(step("installing", line), &["lock"], &["deps"]),
            step("building", "cat app deps/data > made"),
        ],
        caches: [("RUNS".to_owned(), "runs".to_owned())].into(),
        relocated: [dir("deps")].into(),
        path: vec![dir("deps/bin")],
        ..Recipe::default()
    }
}

#[tokio::test]
async fn an_unchanged_lock_file_costs_no_install_and_no_bytes() {
    let (place, recipe) = (Place::new(), install());
    let large = "d".repeat(50_000);
    let (first, said) = place.must_build(&[("lock", &large), ("app", "one")], &recipe).await;
    assert!(said.contains("installing\nbuilding"), "{said}");
    let (second, said) = place.must_build(&[("lock", &large), ("app", "two")], &recipe).await;
    assert!(said.contains("installing: unchanged"), "{said}");
    assert_ne!(first.artifact, second.artifact);
    assert!(second.shared >= 50_000 && second.bytes - second.shared < 50_000 * 2 + 200, "{second:?}");
    let inode = |built: &Built| fs::metadata(built.dir.join("deps/data")).unwrap().ino();
    assert_eq!(inode(&first), inode(&second));
    for built in [&first, &second] {
        let tool = fs::read_to_string(built.dir.join("deps/bin/tool")).unwrap();
        assert_eq!(tool, format!("#!{}/deps/bin/x", built.dir.display()));
        assert_eq!(fs::read_link(built.dir.join("deps/link")).unwrap(), Path::new("data"));
        let found = fs::metadata(built.dir.join("deps/data")).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (SEALED_UID, APP_GID, 0o640));
        } else {
            assert_eq!(found.mode() & 0o7777, 0o440);
        }
    }
    let count = place.dir.path().join("builds/.cache/default/default/shop/runs/count");
    assert_eq!(fs::read_to_string(&count).unwrap(), "ran\n");
    let (third, _) = place.must_build(&[("lock", "other"), ("app", "two")], &recipe).await;
    assert_eq!(fs::read_to_string(&count).unwrap(), "ran\nran\n");
    assert_ne!(inode(&third), inode(&second));
    assert_eq!(first.path, [dir("deps/bin")]);
}

#[tokio::test]
async fn a_step_that_writes_to_what_is_shared_gets_copies_and_harms_nobody() {
    let place = Place::new();
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: an ordinary user's build may write to whatever is its own");
        return;
    }
    let mut recipe = install();
    recipe.steps[1] = step("generating", "echo more >> deps/data");
    let (first, said) = place.must_build(&[("lock", "l"), ("app", "one")], &recipe).await;
    assert!(said.contains("once more, with copies"), "{said}");
    let (second, _) = place.must_build(&[("lock", "l"), ("app", "two")], &recipe).await;
    for built in [&first, &second] {
        assert_eq!(fs::read_to_string(built.dir.join("deps/data")).unwrap(), "lmore\n");
        assert_eq!(built.shared, 0);
    }
}

#[tokio::test]
async fn what_a_framework_keeps_comes_back_to_the_same_place() {
    let place = Place::new();
    let recipe = Recipe {
        steps: vec![step(
            "building",
            "mkdir -p out/cache && pwd >> out/cache/seen && cp out/cache/seen made",
        )],
        kept: [dir("out/cache")].into(),
        ..Recipe::default()
    };
    let (first, _) = place.must_build(&[("app", "one")], &recipe).await;
    let (second, _) = place.must_build(&[("app", "two")], &recipe).await;
    let seen = fs::read_to_string(second.dir.join("made")).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.len(), 2, "{seen}");
    assert_eq!(lines[0], lines[1]);
    assert!(!first.dir.join("out/cache").try_exists().unwrap());
    // A build that fails loses nothing of it.
    let broken = Recipe { steps: vec![step("failing", "exit 1")], ..recipe.clone() };
    assert!(place.build(&[("app", "three")], &broken).await.0.is_err());
    let (third, _) = place.must_build(&[("app", "four")], &recipe).await;
    assert_eq!(fs::read_to_string(third.dir.join("made")).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn steps_find_tools_caches_and_the_recipes_environment() {
    let place = Place::with(|config| {
        config.env = [("HTTPS_PROXY".to_owned(), "http://127.0.0.1:1".to_owned())].into();
    });
    let mut running = step("running", "env > seen");
    running.env = [("ONLY".to_owned(), "here".to_owned())].into();
    let recipe = Recipe {
        tools: vec![ToolNeed { tool: Tool::Make, wanted: None, at_run: true }],
        steps: vec![running, step("making", "make --version")],
        env: [("ROOT".to_owned(), "$ARTIFACT/x".to_owned())].into(),
        caches: [("npm_config_cache".to_owned(), "npm".to_owned())].into(),
        path: vec![dir("bin")],
        ..Recipe::default()
    };
    let (built, _) = place.must_build(&[("app", "one")], &recipe).await;
    let seen = fs::read_to_string(built.dir.join("seen")).unwrap();
    let src = place.dir.path().join("builds/default/default/shop/0/src");
    let cache = place.dir.path().join("builds/.cache/default/default/shop/npm");
    for line in [
        "ONLY=here".to_owned(),
        "HTTPS_PROXY=http://127.0.0.1:1".to_owned(),
        format!("ROOT={}/x", src.display()),
        format!("npm_config_cache={}", cache.display()),
        format!("PATH={}/bin:", src.display()),
    ] {
        assert!(seen.contains(&line), "{line} is not in {seen}");
    }
    assert_eq!(built.env["ROOT"], "$ARTIFACT/x");
    let none = Recipe { tools: vec![ToolNeed { tool: Tool::Make, wanted: None, at_run: false }], ..recipe };
    let nowhere = Place::with(|config| config.toolchains = ToolchainPlaces::default());
    let error = nowhere.build(&[("app", "x")], &none).await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "make is not installed: `make` is in no folder of PATH; install `apt-get install make`"
    );
}

#[tokio::test]
async fn hostile_folders_are_no_layers_and_lead_nowhere() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir_all(outside.join("deps")).unwrap();
    fs::write(outside.join("deps/x"), "precious").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::metadata(outside.join("deps/x")).unwrap();
    let there = outside.display();
    let lines = [
        format!("ln -s {there}/deps deps; true"),
        format!("rm -rf a; ln -s {there} a; true"),
        format!("mkdir -p deps; ln -s {there}/deps/x deps/soft; ln {there}/deps/x deps/hard || true"),
    ];
    for line in &lines {
        let recipe = Recipe {
            steps: vec![
                layer(step("installing", line), &["lock"], &["deps", "a/deps"]),
                step("building", "true"),
            ],
            relocated: [dir("deps"), dir("a/deps")].into(),
            kept: [dir("deps"), dir("a/deps")].into(),
            ..Recipe::default()
        };
        for app in ["one", "two"] {
            drop(place.build(&[("lock", "l"), ("app", app), ("a/file", "x")], &recipe).await);
        }
    }
    let after = fs::metadata(outside.join("deps/x")).unwrap();
    assert_eq!((after.uid(), after.mode(), after.ino()), (before.uid(), before.mode(), before.ino()));
    assert_eq!(fs::read_to_string(outside.join("deps/x")).unwrap(), "precious");
}
