//! A platform's folders of a test's own, and a builder of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_build::{
    BuildError, BuildRequest, Builder, Built, Config, Engines, Keeping, LogLine, Platform, Sink,
    ToolchainPlaces,
};
use berth_clock::SystemClock;
use berth_process::User;
use berth_source::{ChunkStore, TreeId, walk};
use berth_spec::{AppId, Manifest, Millis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Far from any platform's block of uids.
pub(crate) const BUILD_UID: u32 = 2_100_000_017;
pub(crate) const APP_GID: u32 = 2_100_000_016;
pub(crate) const SEALED_UID: u32 = 2_100_000_002;

pub(crate) fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Keeps lines, and lets a test wait for one.
pub(crate) struct Lines {
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
    pub(crate) async fn wait_for(&self, prefix: &str) -> String {
        let mut count = self.count.subscribe();
        loop {
            if let Some(line) = self.all.lock().unwrap().iter().find(|line| line.starts_with(prefix)) {
                return line.clone();
            }
            count.changed().await.unwrap();
        }
    }

    pub(crate) fn text(&self) -> String {
        self.all.lock().unwrap().join("\n")
    }
}

pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) builder: Builder,
    pub(crate) app: AppId,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), change)
    }

    /// One in this folder.
    pub(crate) fn at(dir: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut config = config(dir.path(), dir.path());
        change(&mut config);
        let builder = Builder::new(config, Arc::new(SystemClock::new()));
        Self { dir, builder, app: "default/default/shop".parse().unwrap() }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Packs files and keeps their tree as the CLI and the server do.
    pub(crate) fn tree(&self, files: &[(&str, &str)]) -> TreeId {
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

    pub(crate) fn request(&self, tree: TreeId, manifest: &str) -> (BuildRequest, Arc<Lines>) {
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

    pub(crate) async fn build(
        &self,
        files: &[(&str, &str)],
        manifest: &str,
    ) -> (Result<Built, BuildError>, Arc<Lines>) {
        let (request, lines) = self.request(self.tree(files), manifest);
        (self.builder.build(request).await, lines)
    }

    /// What must hold after every build: nothing is left of the work, and nothing half done stands.
    pub(crate) fn assert_clean(&self) {
        let works = self.path("builds/default/default/shop");
        assert_eq!(names(&works), [""; 0]);
        let artifacts = names(&self.path("artifacts/default/default/shop"));
        assert!(artifacts.iter().all(|name| !name.starts_with('.')), "{artifacts:?}");
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// How a platform builds whose source is at `home`, and whose builds are at `disk`.
pub(crate) fn config(home: &Path, disk: &Path) -> Config {
    Config {
        chunks: home.join("chunks"),
        artifacts: disk.join("artifacts"),
        builds: disk.join("builds"),
        passage_gid: None,
        sealed_uid: as_root().then_some(SEALED_UID),
        parallel: 2,
        timeout: Millis::from_secs(300),
        toolchains: ToolchainPlaces::from_env(),
        platform: Platform::current(),
        cgroups: None,
        enclosure: crate::enclosure(home),
        memory_max: None,
        env: BTreeMap::new(),
        processes_max: 4_096,
        weight_max: 1 << 34,
        reserve: 0,
        low_water: 0,
        keeping: Keeping { per_app: 1 << 34, in_all: 1 << 34, unused: Millis::from_secs(3_600) },
        engines: Engines::default(),
    }
}

/// Whether a process runs whose command line has `word` in it, wherever its namespace is.
pub(crate) fn is_running(word: &str) -> bool {
    let all = berth_process::procfs::all().unwrap();
    let has =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(word));
    all.iter().any(|stat| !stat.is_dead() && stat.pid != std::process::id() && has(stat.pid))
}
