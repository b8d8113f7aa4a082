//! Dockerfiles, built by each engine that there is: the same tests with a dockerd of the tests' own, a service of Podman, and buildah.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stdout, reason = "what was not tested is said")]

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_build::{
    BuildError, Builder, BuiltImage, Config, DockerfileRequest, EngineKind, Engines, Keeping, LogLine,
    Platform, Sink, ToolchainPlaces,
};
use berth_clock::SystemClock;
use berth_docker::testing::{Daemon, Podman};
use berth_image::{Limits, Ownership, Store};
use berth_process::{Cgroups, procfs};
use berth_source::{ChunkStore, walk};
use berth_spec::{AppId, Millis};
use tokio_util::sync::CancellationToken;

/// What was said, line by line.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, line: LogLine) {
        self.0.lock().unwrap().push(line.text);
    }
}

/// An engine with a builder of its own.
struct Yard {
    dir: tempfile::TempDir,
    kind: EngineKind,
    builder: Builder,
    groups: Option<Cgroups>,
    app: AppId,
    /// What the engine needs to be there.
    _running: Box<dyn Any>,
}

/// A source and what to do with it.
struct Order {
    path: &'static str,
    files: Vec<(&'static str, String)>,
    target: Option<String>,
    args: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    offline: bool,
}

impl Order {
    fn new(dockerfile: &str) -> Self {
        let dockerfile = dockerfile.replace("SH ", "RUN [\"/bin/busybox\", \"sh\", \"-c\", ");
        let files = vec![("Dockerfile", dockerfile)];
        Self {
            path: "Dockerfile",
            files,
            target: None,
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            offline: true,
        }
    }
}

impl Yard {
    /// Everything, or why it cannot be had.
    fn new(kind: EngineKind, change: impl FnOnce(&mut Config)) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let (sockets, running): (_, Box<dyn Any>) = match kind {
            EngineKind::Docker => {
                let daemon = Daemon::get()?;
                (vec![daemon.socket.clone()], Box::new(daemon))
            }
            EngineKind::Podman => {
                let home = dir.path().join("podman");
                fs::create_dir(&home).unwrap();
                let podman = Podman::start(&home)?;
                (vec![podman.socket.clone()], Box::new(podman))
            }
            EngineKind::Buildah => (Vec::new(), Box::new(())),
        };
        let engines = Engines { wish: Some(kind), sockets };
        if engines.here().is_none() {
            return Err(format!("{} is not installed: apt-get install {0}", kind.name()));
        }
        let own = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let groups = Cgroups::discover(&format!("berth-dockerfile-test-{own}"));
        let mut config = Config {
            chunks: dir.path().join("chunks"),
            artifacts: dir.path().join("artifacts"),
            builds: dir.path().join("builds"),
            passage_gid: None,
            sealed_uid: None,
            parallel: 2,
            timeout: Millis::from_secs(300),
            toolchains: ToolchainPlaces::from_env(),
            platform: Platform::current(),
            cgroups: groups.clone(),
            enclosure: None,
            memory_max: Some(1 << 30),
            env: BTreeMap::new(),
            processes_max: 4_096,
            weight_max: 1 << 34,
            reserve: 0,
            low_water: 0,
            keeping: Keeping { per_app: 1 << 34, in_all: 1 << 34, unused: Millis::from_secs(3_600) },
            engines,
        };
        change(&mut config);
        let builder = Builder::new(config, Arc::new(SystemClock::new()));
        let app = "default/default/shop".parse().unwrap();
        Ok(Self { dir, kind, builder, groups, app, _running: running })
    }

    /// Builds, and gives what came of it and what was said.
    async fn build(&self, order: Order) -> (Result<BuiltImage, BuildError>, String) {
        let source = tempfile::tempdir().unwrap();
        fs::copy("/bin/busybox", source.path().join("busybox")).unwrap();
        for (path, text) in &order.files {
            fs::write(source.path().join(path), text).unwrap();
        }
        let packed = walk::pack(source.path()).unwrap();
        let store = ChunkStore::open(&self.dir.path().join("chunks"), &self.app.tenant).unwrap();
        for chunk in packed.tree().chunks() {
            store.put(&chunk, &packed.read(&chunk).unwrap()).unwrap();
        }
        let lines = Arc::new(Lines::default());
        let request = DockerfileRequest {
            app: self.app.clone(),
            name: format!("berth/build:test-{}", std::process::id()),
            tree: store.put_tree(packed.tree()).unwrap(),
            path: order.path.to_owned(),
            masked: order.secrets.values().cloned().collect(),
            target: order.target,
            args: order.args,
            secrets: order.secrets,
            offline: order.offline,
            sink: lines.clone(),
            cancel: CancellationToken::new(),
        };
        let built = self.builder.dockerfile(request).await;
        let said = lines.0.lock().unwrap().join("\n");
        (built, said)
    }

    /// Builds what can be built, and takes it over into a store of images, with every check that this makes.
    async fn image(&self, order: Order) -> (Files, berth_image::ImageConfig, String) {
        let (built, said) = self.build(order).await;
        let built = built.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
        let store = Store::open(&self.dir.path().join("images"), Limits::default()).unwrap();
        let pulled = store.load(built.archive, Ownership::Own).await.unwrap();
        let files = Files(pulled.image.layers.iter().rev().map(|layer| layer.to_path_buf()).collect());
        (files, pulled.image.config.clone(), said)
    }

    /// Nothing of a build is left but caches: no work directory and no group.
    fn assert_clear(&self) {
        let left: Vec<_> =
            fs::read_dir(self.dir.path().join("builds/default/default/shop")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let groups = self.groups.as_ref().map(|groups| groups.names().unwrap()).unwrap_or_default();
        assert_eq!(groups, Vec::<String>::new());
    }

    /// Waits until no process of the machine has this in its arguments.
    fn assert_ended(command: &str) {
        let runs = |stat: &procfs::Stat| {
            let line = fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(command)
        };
        for _ in 0..300 {
            if !procfs::all().unwrap().iter().any(runs) {
                return;
            }
            // wait: for Docker to end what nobody listens to.
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        panic!("`{command}` still runs");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Some(groups) = &self.groups {
            drop(groups.remove());
        }
    }
}

/// The files of an image, the topmost layer first.
struct Files(Vec<PathBuf>);

impl Files {
    fn text(&self, path: &str) -> Option<String> {
        self.0.iter().find_map(|layer| fs::read_to_string(layer.join(path)).ok())
    }

    /// Whether any file of any layer has this in it.
    fn holds(&self, text: &str) -> bool {
        fn below(folder: &Path, text: &[u8]) -> bool {
            fs::read_dir(folder).unwrap().any(|entry| {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    return below(&entry.path(), text);
                }
                let held = || fs::read(entry.path()).unwrap().windows(text.len()).any(|part| part == text);
                kind.is_file() && held()
            })
        }
        self.0.iter().any(|layer| below(layer, text.as_bytes()))
    }
}

async fn an_image_is_made_and_says_what_the_dockerfile_says(yard: Yard) {
    let mut order = Order::new(
        "FROM scratch\nCOPY . /srv/\nCOPY busybox /bin/busybox\nARG COLOUR\nENV SHADE=dark\n\
         SH \"echo it is $COLOUR and $SHADE > /srv/page; echo made a page\"]\n\
         HEALTHCHECK --interval=7s CMD [\"/bin/busybox\", \"true\"]\nUSER 1000:1000\nWORKDIR /srv\nCMD [\"/bin/busybox\", \"cat\", \"page\"]\n",
    );
    order.args.insert("COLOUR".to_owned(), "blue".to_owned());
    order.files.push((".dockerignore", "left-out\n".to_owned()));
    order.files.push(("left-out", "not for the image\n".to_owned()));
    let (files, config, said) = yard.image(order).await;
    assert_eq!(files.text("srv/page").unwrap(), "it is blue and dark\n");
    assert_eq!(files.text("srv/left-out"), None);
    assert_eq!(config.cmd, ["/bin/busybox", "cat", "page"]);
    assert_eq!((config.user.as_str(), config.workdir()), ("1000:1000", "/srv"));
    assert!(config.env.contains(&"SHADE=dark".to_owned()), "{:?}", config.env);
    let check = config.healthcheck.unwrap();
    assert_eq!(
        (check.command, check.interval),
        (["/bin/busybox", "true"].map(str::to_owned).to_vec(), 7_000_000_000)
    );
    assert!(said.contains("made a page") && said.contains("ARG COLOUR"), "{said}");
    yard.assert_clear();
}

async fn a_stage_gives_what_is_copied_from_it_and_nothing_else(yard: Yard) {
    let dockerfile = "FROM scratch AS first\nCOPY busybox /bin/busybox\nSH \"echo made > /made; echo more > /more\"]\n\
                      FROM scratch\nCOPY --from=first /made /taken\nCMD [\"/taken\"]\n";
    let (files, _, _) = yard.image(Order::new(dockerfile)).await;
    assert_eq!(files.text("taken").unwrap(), "made\n");
    assert!(files.text("more").is_none() && !files.holds("more\n"));
    let first = Order { target: Some("first".to_owned()), ..Order::new(dockerfile) };
    let (files, _, _) = yard.image(first).await;
    assert_eq!((files.text("made").as_deref(), files.text("taken")), (Some("made\n"), None));
    // Again, with what the engine kept.
    let (files, _, _) = yard.image(Order::new(dockerfile)).await;
    assert_eq!(files.text("taken").unwrap(), "made\n");
}

async fn a_secret_is_in_the_command_that_mounts_it_and_in_no_layer(yard: Yard) {
    let mut order = Order::new(
        "FROM scratch\nCOPY . /all/\nCOPY busybox /bin/busybox\n\
         RUN --mount=type=secret,id=TOKEN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /run/secrets/TOKEN | /bin/busybox wc -c > /length; /bin/busybox cat /run/secrets/TOKEN\"]\n\
         CMD [\"/length\"]\n",
    );
    order.secrets.insert("TOKEN".to_owned(), "hush-hush-9431".to_owned());
    for rules in [".containerignore", "Dockerfile.dockerignore", ".dockerignore"] {
        order.files.push((rules, "!**\n".to_owned()));
    }
    if yard.kind == EngineKind::Docker {
        let (built, _) = yard.build(order).await;
        assert!(matches!(built.unwrap_err(), BuildError::SecretArgument(name) if name == "TOKEN"));
        return;
    }
    let (files, config, said) = yard.image(order).await;
    assert_eq!(files.text("length").unwrap().trim(), "14");
    assert!(files.text("all/Dockerfile").is_some());
    assert!(!files.holds("hush-hush-9431"), "a layer has the secret");
    assert!(!format!("{config:?}").contains("hush-hush-9431"));
    assert!(said.contains("[masked]") && !said.contains("hush-hush-9431"), "{said}");
}

async fn an_argument_is_the_dockerfiles_and_not_the_engines(yard: Yard) {
    let mut order = Order::new("FROM scratch\nARG LD_PRELOAD\nCOPY page /page\nCMD [\"/page\"]\n");
    order.files.push(("page", "a page\n".to_owned()));
    // What an engine that had them in its environment would load, and whom it would talk to.
    for (name, value) in
        [("LD_PRELOAD", "/of-the-app.so"), ("BUILDAH_FORMAT", "oci"), ("STORAGE_DRIVER", "none")]
    {
        order.args.insert(name.to_owned(), value.to_owned());
    }
    let (files, _, said) = yard.image(order).await;
    assert_eq!(files.text("page").unwrap(), "a page\n");
    assert!(!said.contains("ld.so"), "{said}");
}

async fn one_that_a_preprocessor_would_read_is_refused(yard: Yard) {
    let word = "of-the-machine-7714";
    let secret = yard.dir.path().join("secret");
    fs::write(&secret, word).unwrap();
    let mut order = Order::new("FROM scratch\n");
    let text = format!("FROM scratch\n#include \"{}\"\n", secret.display());
    order.files.push(("Dockerfile.in", text));
    order.path = "Dockerfile.in";
    let (built, said) = yard.build(order).await;
    let BuildError::Outcome(message) = built.unwrap_err() else { panic!("{said}") };
    assert!(message.contains("C preprocessor") && !said.contains(word), "{message} {said}");
}

async fn a_command_that_fails_is_told_by_its_line(yard: Yard) {
    let order = Order::new(
        "FROM scratch\nCOPY busybox /bin/busybox\nSH \"echo about to fail; exit 37\"]\nCMD [\"/x\"]\n",
    );
    let (built, said) = yard.build(order).await;
    let BuildError::Dockerfile { message, tail } = built.unwrap_err() else { panic!("{said}") };
    assert!(message.contains("about to fail; exit 37"), "{message}");
    assert!(message.contains("37") && tail.iter().any(|line| line == "about to fail"), "{message} {tail:?}");
    yard.assert_clear();
}

async fn a_build_that_takes_too_long_is_ended_with_its_commands(yard: Yard) {
    // Of this test alone.
    let sleep = format!("sleep 4{}{}", std::process::id(), yard.kind.name().len());
    let order = Order::new(&format!(
        "FROM scratch\nCOPY busybox /bin/busybox\nSH \"exec /bin/busybox {sleep}\"]\nCMD [\"/x\"]\n"
    ));
    let (built, said) = yard.build(order).await;
    assert!(matches!(built, Err(BuildError::Timeout(_))), "{built:?} {said}");
    Yard::assert_ended(&sleep);
    yard.assert_clear();
    // What it leaves behind is in nobody's way.
    let (files, _, _) = yard.image(Order::new("FROM scratch\nCOPY busybox /kept\nCMD [\"/kept\"]\n")).await;
    assert!(files.0.iter().any(|layer| layer.join("kept").is_file()));
}

async fn a_command_has_no_network_where_the_manifest_says_so(yard: Yard) {
    let order = Order::new(
        "FROM scratch\nCOPY busybox /bin/busybox\nSH \"/bin/busybox cat /proc/net/route /proc/net/ipv6_route > /routes\"]\nCMD [\"/routes\"]\n",
    );
    let (files, _, _) = yard.image(order).await;
    let routes = files.text("routes").unwrap();
    // Over the title of the one table; the loopback's routes are in the other.
    let away: Vec<&str> = routes.lines().skip(1).filter(|line| !line.ends_with(" lo")).collect();
    assert_eq!(away, Vec::<&str>::new());
}

/// What `ADD` names is fetched by the engine, which has the machine's network whatever its commands have.
async fn the_engine_fetches_nothing_from_the_machine_and_nothing_at_all_without_a_network(yard: Yard) {
    let machines = TcpListener::bind("127.0.0.1:0").unwrap();
    machines.set_nonblocking(true).unwrap();
    let address = format!("http://{}/x", machines.local_addr().unwrap());
    for (added, offline) in [(&*address, true), (&*address, false), ("$FROM", true)] {
        let dockerfile = format!("FROM scratch\nARG FROM={address}\nADD {added} /x\nCMD [\"/x\"]\n");
        let (built, said) = yard.build(Order { offline, ..Order::new(&dockerfile) }).await;
        let Err(BuildError::Outcome(why)) = built else { panic!("{built:?} {said}") };
        assert!(why.starts_with(&format!("`ADD {added}`")), "{why}");
    }
    assert_eq!(machines.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

async fn a_command_has_no_more_memory_than_builds_may_have(yard: Yard) {
    if yard.kind == EngineKind::Docker || yard.groups.is_none() {
        // Docker limits by itself, at two gibibytes, which is too much to take in a test.
        return;
    }
    let order = Order::new(
        "FROM scratch\nCOPY busybox /bin/busybox\nSH \"/bin/busybox dd if=/dev/zero of=/dev/null bs=200M count=1\"]\nCMD [\"/x\"]\n",
    );
    let (built, said) = yard.build(order).await;
    assert!(matches!(built, Err(BuildError::Dockerfile { .. })), "{built:?} {said}");
    yard.assert_clear();
}

fn run<F: Future<Output = ()>>(
    kind: EngineKind,
    change: impl FnOnce(&mut Config),
    test: impl FnOnce(Yard) -> F,
) {
    match Yard::new(kind, change) {
        Ok(yard) => {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(yard))
        }
        Err(why) => println!("!! NOT TESTED: {why}"),
    }
}

macro_rules! by_each_engine {
    ($($test:ident: $change:expr;)*) => {
        by_each_engine!(@ docker Docker $($test: $change;)*);
        by_each_engine!(@ podman Podman $($test: $change;)*);
        by_each_engine!(@ buildah Buildah $($test: $change;)*);
    };
    (@ $engine:ident $kind:ident $($test:ident: $change:expr;)*) => {
        mod $engine {
            $(#[test]
            fn $test() {
                super::run(berth_build::EngineKind::$kind, $change, super::$test);
            })*
        }
    };
}

by_each_engine! {
    an_image_is_made_and_says_what_the_dockerfile_says: |_| {};
    a_stage_gives_what_is_copied_from_it_and_nothing_else: |_| {};
    a_secret_is_in_the_command_that_mounts_it_and_in_no_layer: |_| {};
    an_argument_is_the_dockerfiles_and_not_the_engines: |_| {};
    one_that_a_preprocessor_would_read_is_refused: |_| {};
    a_command_that_fails_is_told_by_its_line: |_| {};
    a_build_that_takes_too_long_is_ended_with_its_commands: |config| config.timeout = berth_spec::Millis::from_secs(8);
    a_command_has_no_network_where_the_manifest_says_so: |_| {};
    the_engine_fetches_nothing_from_the_machine_and_nothing_at_all_without_a_network: |_| {};
    a_command_has_no_more_memory_than_builds_may_have: |config| config.memory_max = Some(96 << 20);
}
