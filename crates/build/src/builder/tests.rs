//! Recipes followed, with recipes written by hand: what a rule of detection would write is another crate's matter.

mod limits;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use berth_clock::SystemClock;
use berth_source::recipe::{Layer, Recipe, Step, Tool, ToolNeed};
use berth_source::walk;

use super::*;
use crate::collect::Collected;
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
            enclosure: None,
            memory_max: None,
            env: BTreeMap::new(),
            processes_max: 4_096,
            weight_max: 1 << 34,
            reserve: 0,
            low_water: 0,
            keeping: Keeping { per_app: 1 << 34, in_all: 1 << 34, unused: Millis::from_secs(3_600) },
            engines: Engines::default(),
        };
        change(&mut config);
        let builder = Builder::new(config, Arc::new(SystemClock::new()));
        Self { dir, builder, app: "default/default/shop".parse().unwrap() }
    }

    /// Builds `files` by `recipe`, and gives what came of it and what was said.
    async fn build(&self, files: &[(&str, &str)], recipe: &Recipe) -> (Result<Built, BuildError>, String) {
        self.build_with(files, recipe, |_| {}).await
    }

    async fn build_with(
        &self,
        files: &[(&str, &str)],
        recipe: &Recipe,
        change: impl FnOnce(&mut BuildRequest),
    ) -> (Result<Built, BuildError>, String) {
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
        let mut request = BuildRequest {
            app: self.app.clone(),
            tree,
            manifest: Manifest::default(),
            user: as_root.then_some(User { uid: BUILD_UID, gid: BUILD_UID, groups: vec![APP_GID] }),
            app_gid: as_root.then_some(APP_GID),
            env: BTreeMap::new(),
            secrets: vec!["hunter2".to_owned()],
            sink: lines.clone(),
            cancel: CancellationToken::new(),
        };
        change(&mut request);
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

/// A recipe of one step.
fn only(line: &str) -> Recipe {
    Recipe { steps: vec![step("running", line)], ..Recipe::default() }
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_build() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: the processes of a user that is not the build's own cannot be counted");
        return;
    }
    let place = Place::with(|config| config.processes_max = 48);
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 0.2; exit 3";
    let (outcome, _) = place.build(&[("app", "x")], &only(bomb)).await;
    assert!(outcome.is_err());
    let left = berth_process::procfs::all().unwrap();
    let of_build = |pid: u32| {
        let found = fs::metadata(format!("/proc/{pid}"));
        found.is_ok_and(|found| found.uid() == BUILD_UID)
    };
    // Other tests build as the same user: only what is a shell that forks is of the bomb.
    let named = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(
        !left.iter().any(|stat| !stat.is_dead() && of_build(stat.pid) && named(stat.pid).contains("bomb"))
    );
}

#[tokio::test]
async fn endless_output_is_cut_and_blocks_nothing() {
    let place = Place::new();
    let (built, said) = place.build(&[("app", "x")], &only("yes | head -c 30000000; echo end > made")).await;
    assert_eq!(fs::read_to_string(built.unwrap().dir.join("made")).unwrap(), "end\n");
    assert!(said.len() < 5 << 20 && said.ends_with("the rest is left out"), "{}", said.len());
}

#[tokio::test]
async fn a_build_that_fills_the_disk_is_ended() {
    let place = Place::with(|config| config.weight_max = 8 << 20);
    let line = "i=0; while true; do i=$((i+1)); head -c 1000000 /dev/zero > file$i; done";
    let (outcome, _) = place.build(&[("app", "x")], &only(line)).await;
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with("the files of the build weigh more than 8 MiB"), "{error}");
    let full = Place::with(|config| config.reserve = u64::MAX);
    assert_eq!(full.build(&[("app", "x")], &only("true")).await.0.unwrap_err().code(), "disk_full");
}

#[tokio::test]
async fn a_secret_is_masked_however_it_is_written() {
    let place = Place::new();
    let line = "printf 'token=hun'; sleep 0.1; printf 'ter2\\n'; printf 'hunter2' >&2";
    let (built, said) = place.build(&[("app", "x")], &only(line)).await;
    built.unwrap();
    assert!(said.contains("token=[masked]") && !said.contains("hun"), "{said}");
}

#[tokio::test]
async fn a_build_sees_the_configuration_that_it_names() {
    let (place, recipe) = (Place::new(), only("echo $API > made"));
    let with = |value: &str| {
        let env = BTreeMap::from([("API".to_owned(), value.to_owned())]);
        move |request: &mut BuildRequest| request.env = env
    };
    let files = [("app", "x")];
    let one = place.build_with(&files, &recipe, with("one")).await.0.unwrap();
    let two = place.build_with(&files, &recipe, with("two")).await.0.unwrap();
    assert_ne!(one.artifact, two.artifact);
    assert_eq!(fs::read_to_string(two.dir.join("made")).unwrap(), "two\n");
    assert!(place.build_with(&files, &recipe, with("one")).await.0.unwrap().unchanged);
}

#[tokio::test]
async fn network_is_forbidden_when_asked_or_the_build_refused() {
    let place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = format!(
        "cat /proc/net/dev > made; (exec 3<>/dev/tcp/127.0.0.1/{port}) && echo reached >> made; true"
    );
    let mut recipe = only("true");
    recipe.steps[0].command = Command::from_argv(vec!["bash".to_owned(), "-c".to_owned(), line]).unwrap();
    let open = place.build(&[("app", "x")], &recipe).await.0.unwrap();
    assert!(fs::read_to_string(open.dir.join("made")).unwrap().contains("reached"));
    let offline = |request: &mut BuildRequest| request.manifest.build.offline = true;
    match place.build_with(&[("app", "x")], &recipe, offline).await.0 {
        Ok(built) => {
            let made = fs::read_to_string(built.dir.join("made")).unwrap();
            assert!(made.contains("lo:") && !made.contains("reached") && !made.contains("eth0"), "{made}");
        }
        Err(error) => assert!(matches!(error, BuildError::NotOffline(_)), "{error:?}"),
    }
}

#[tokio::test]
async fn nothing_of_another_apps_build_can_be_read() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: as an ordinary user all builds are of one user");
        return;
    }
    let mut place = Place::with(|config| config.passage_gid = None);
    place.must_build(&[("lock", "precious"), ("app", "one")], &install()).await;
    place.app = "default/default/other".parse().unwrap();
    let there = place.dir.path().display();
    let line = format!(
        "for at in artifacts builds builds/.cache; do for app in {there}/$at/default/default/shop; do \
         ls $app && exit 1; ls $app/.layers && exit 1; cat $app/*/* && exit 1; cat $app/runs/count && exit 1; done; done; \
         ls {there}/chunks && exit 1; true"
    );
    let other = |request: &mut BuildRequest| {
        request.user = Some(User { uid: BUILD_UID + 2, gid: BUILD_UID + 2, groups: vec![APP_GID + 2] });
        request.app_gid = Some(APP_GID + 2);
    };
    let (built, said) = place.build_with(&[("app", "x")], &only(&line), other).await;
    built.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert!(!said.contains("precious"), "{said}");
}

#[tokio::test]
async fn garbage_goes_and_what_artifacts_need_stays() {
    let mut place = Place::with(|config| {
        config.keeping = Keeping { per_app: 0, in_all: 0, unused: Millis::from_secs(3_600) };
    });
    let large = "d".repeat(50_000);
    let (first, _) = place.must_build(&[("lock", &large), ("app", "one")], &install()).await;
    let (second, _) = place.must_build(&[("lock", "other"), ("app", "one")], &install()).await;
    let layers = place.dir.path().join("artifacts/default/default/shop/.layers");
    let cache = place.dir.path().join("builds/.cache/default/default/shop/runs");
    assert_eq!(crate::layout::entries(&layers).len(), 2);
    place.builder.remove(&place.app, &first.artifact).await.unwrap();
    let collected = place.builder.collect(0).await.unwrap();
    assert_eq!(collected.things, 2, "{collected:?}");
    assert!(collected.bytes >= 50_000, "{collected:?}");
    assert_eq!(crate::layout::entries(&layers).len(), 1);
    assert!(!cache.try_exists().unwrap());
    assert_eq!(fs::read_to_string(second.dir.join("deps/data")).unwrap(), "other");
    assert_eq!(place.builder.collect(u64::MAX).await.unwrap(), Collected::default());
    // What is in use stays, too.
    place.builder.remove(&place.app, &second.artifact).await.unwrap();
    let taken = BTreeSet::from([0]);
    place.builder.inside.works.lock().unwrap().insert(place.app.clone(), taken);
    assert_eq!(place.builder.collect(0).await.unwrap(), Collected::default());
    place.builder.inside.works.lock().unwrap().clear();
    assert_eq!(place.builder.collect(0).await.unwrap().things, 1);
    place.app = "default/default/other".parse().unwrap();
    place.must_build(&[("lock", "l"), ("app", "one")], &install()).await;
}
