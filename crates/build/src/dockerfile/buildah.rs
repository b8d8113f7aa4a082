//! A Dockerfile built by buildah, which is a program: started by argument vector, with a storage of the app's own below the platform's home.
//!
//! Commands run in containers that runc or crun makes, in a control group below the build's; where neither is installed buildah itself keeps
//! them in a root of their own and nothing more. As root the storage is a cache of the app's like others, and goes when those go. As an
//! ordinary user its files belong to that user's subordinate ids, whom only buildah can remove, so that nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_process::{Cgroup, CgroupKind, Program};
use berth_source::lay::materialise;

use super::{MADE_BELOW, Order};
use crate::artifact::ArtifactId;
use crate::builder::workplace::Workplace;
use crate::builder::{Inside, blocking, unless_cancelled};
use crate::error::{BuildError, failed};
use crate::log::{Log, LogLine, Sink};
use crate::remove::{open_dir, remove_all};
use crate::run::{Run, Sight, Watch};
use crate::unmount::unmount_below;

/// Programs that make containers, in the order in which buildah looks for them.
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// Of the platform's environment buildah gets these: what it and those that it starts are found by, and where it looks for credentials.
const ENVIRONMENT: [&str; 7] =
    ["PATH", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE"];

/// The variable that says which registries there are, and the file of a build that it names.
const REGISTRIES_VARIABLE: &str = "CONTAINERS_REGISTRIES_CONF";
const REGISTRIES: &str = "registries.conf";

/// Buildah, as it is installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buildah {
    /// What makes its containers; nothing where neither is installed.
    runtime: Option<&'static str>,
}

impl fmt::Display for Buildah {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.runtime {
            Some(runtime) => write!(f, "buildah, with {runtime}"),
            None => f.write_str("buildah, whose commands are in a root of their own and nothing more, for want of crun or runc"),
        }
    }
}

/// The name of the storage among an app's caches. One that begins with a dot is no cache.
pub(super) fn kept_as() -> &'static str {
    if is_root() { "buildah" } else { ".buildah" }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Takes lines that nobody wants to read.
struct Unread;

impl Sink for Unread {
    fn line(&self, _line: LogLine) {}
}

/// One build.
struct Building<'a> {
    buildah: Buildah,
    inside: &'a Arc<Inside>,
    order: &'a Order,
    place: &'a Workplace,
    /// The group that buildah itself is in.
    group: Option<Cgroup>,
    driver: &'static str,
}

impl Buildah {
    pub(super) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = |name: &&str| {
            std::env::split_paths(&path).any(|folder| folder.is_absolute() && folder.join(name).is_file())
        };
        let runtime = RUNTIMES.into_iter().find(installed);
        Program::Buildah.path().is_ok().then_some(Self { runtime })
    }

    /// Builds it, and gives the image as an archive.
    pub(super) async fn build(
        self,
        inside: &Arc<Inside>,
        order: Order,
        place: &Workplace,
    ) -> Result<File, BuildError> {
        if order.request.offline && self.runtime.is_none() {
            return Err(BuildError::Outcome(
                "`network = false` takes crun or runc with buildah, and neither is installed: `apt-get install crun`"
                    .to_owned(),
            ));
        }
        // The storage is one for all builds of the app, and cleared after one that was ended.
        let app = &order.request.app;
        let turn_id = ArtifactId::of_image(app, kept_as());
        let turn = inside.turn(app, &turn_id);
        let built = async {
            let _held = unless_cancelled(&order.request.cancel, turn.lock()).await?;
            let group = engine_group(inside, place)?;
            let mut building =
                Building { buildah: self, inside, order: &order, place, group, driver: "overlay" };
            building.prepare().await?;
            building.choose_driver().await?;
            let made = building.make().await;
            building.clear(made.is_ok()).await;
            made
        };
        let built = built.await;
        inside.leave(turn, app, &turn_id);
        built
    }
}

/// The group for buildah itself: where containers are below it in one hierarchy, a group that limits may hold no process of its own.
fn engine_group(inside: &Inside, place: &Workplace) -> Result<Option<Cgroup>, BuildError> {
    let (Some(groups), Some(group)) = (&inside.config.cgroups, &place.group) else { return Ok(None) };
    if groups.kind() != CgroupKind::Unified {
        return Ok(Some(group.clone()));
    }
    let name = crate::builder::cgroup_name(&place.dir);
    groups.create(&format!("{name}/engine")).map(Some).map_err(failed(&place.dir, "given a control group"))
}

impl Building<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    /// Lays the source out, with a file for each secret that the platform alone reads.
    async fn prepare(&self) -> Result<(), BuildError> {
        let (source, secrets, tmp) = (self.at("src"), self.at("secrets"), self.at("tmp"));
        let (tree, store) = (self.order.tree.clone(), Arc::clone(&self.order.store));
        let values = self.order.request.secrets.clone();
        let (kept, registries) = (self.place.kept.clone(), self.at(REGISTRIES));
        blocking(move || {
            // Nobody but the platform looks into them, whatever is in there.
            for dir in [&source, &secrets, &tmp, &kept] {
                DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir, "made"))?;
            }
            for (name, value) in values {
                let path = secrets.join(name);
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
                file.and_then(|mut file| file.write_all(value.as_bytes()))
                    .map_err(failed(&path, "written"))?;
            }
            unmount_below(&kept);
            write_registries(&registries)?;
            let open = open_dir(&source).map_err(failed(&source, "read"))?;
            Ok(materialise(&tree, &store, open.as_fd(), None)?)
        })
        .await
    }

    /// How layers are stored: by the kernel's overlay where that can be had, else as copies. What the storage has stays.
    async fn choose_driver(&mut self) -> Result<(), BuildError> {
        let has = |driver: &str| self.place.kept.join(format!("root/{driver}-layers")).is_dir();
        if has("vfs") && !has("overlay") {
            self.driver = "vfs";
        } else if !has("overlay") && self.quiet(vec!["info".to_owned()]).await.is_err() {
            remove_all(&self.place.kept).map_err(failed(&self.place.kept, "removed"))?;
            self.driver = "vfs";
            self.quiet(vec!["info".to_owned()]).await?;
        }
        Ok(())
    }

    /// Builds, and takes the image out.
    async fn make(&self) -> Result<File, BuildError> {
        let log = &self.order.log;
        let made = self.run(self.build_args(), log).complete(None).await;
        made.map_err(|error| match error {
            BuildError::Failed { outcome, tail, .. } => {
                BuildError::Dockerfile { message: said(&tail, outcome), tail }
            }
            other => other,
        })?;
        let (named, archive) = (self.at("image"), self.at("image.tar"));
        let image = fs::read_to_string(&named).map_err(failed(&named, "read"))?;
        let to = format!("docker-archive:{}", archive.display());
        self.quiet(["push", "--quiet", image.trim(), &to].map(str::to_owned).to_vec()).await?;
        File::open(&archive).map_err(failed(&archive, "read"))
    }

    fn build_args(&self) -> Vec<String> {
        let request = &self.order.request;
        let source = self.at("src");
        let isolation = match self.buildah.runtime {
            None => "chroot",
            Some(_) if is_root() => "oci",
            Some(_) => "rootless",
        };
        // Docker's format: the other has no HEALTHCHECK.
        let mut args: Vec<String> =
            ["build", "--isolation", isolation, "--format", "docker", "--layers"].map(str::to_owned).to_vec();
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--iidfile", self.at("image").display().to_string());
        flag("--file", source.join(&request.path).display().to_string());
        if let Some(stage) = &request.target {
            flag("--target", stage.clone());
        }
        if request.offline {
            flag("--network", "none".to_owned());
        }
        if let Some(group) = self.place.group.as_ref().filter(|_| is_root() && isolation == "oci") {
            flag("--cgroup-parent", format!("{}/{MADE_BELOW}", group.from_top()));
        }
        for (name, value) in &request.args {
            // Never by buildah's environment, although others can read its arguments: what an app sets there, such as LD_PRELOAD, would be obeyed by
            // a program that runs as the platform does. What nobody may read is a secret.
            flag("--build-arg", format!("{name}={value}"));
        }
        for name in request.secrets.keys() {
            flag("--secret", format!("id={name},src={}", self.at("secrets").join(name).display()));
        }
        args.push(source.display().to_string());
        args
    }

    /// The environment of buildah itself, and of nothing that it starts in a container but for the proxies.
    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.inside.config.env.clone();
        env.extend(
            ENVIRONMENT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))),
        );
        env.insert("TMPDIR".to_owned(), self.at("tmp").display().to_string());
        env.insert(REGISTRIES_VARIABLE.to_owned(), self.at(REGISTRIES).display().to_string());
        env
    }

    /// A command of buildah's whose output goes to `log`.
    fn run<'a>(&'a self, args: Vec<String>, log: &'a Log) -> Run<'a> {
        let (config, kept) = (&self.inside.config, &self.place.kept);
        let mut all = Vec::new();
        for (flag, folder) in [("--root", "root"), ("--runroot", "run")] {
            all.extend([flag.to_owned(), kept.join(folder).display().to_string()]);
        }
        all.extend(["--storage-driver".to_owned(), self.driver.to_owned()]);
        let shown = format!("buildah {}", args.first().map_or("", String::as_str));
        let env = self.env();
        all.extend(args);
        Run {
            program: Program::Buildah,
            args: all,
            shown,
            env,
            mark: self.place.mark,
            cgroup: self.group.clone(),
            processes_max: config.processes_max,
            memory_max: config.memory_max,
            own_user: false,
            limit: config.timeout,
            left: self.order.deadline.saturating_sub(self.inside.clock.monotonic()),
            offline: false,
            enclosure: None,
            sight: Sight {
                root: PathBuf::new(),
                scratch: PathBuf::new(),
                readable: BTreeSet::new(),
                writable: BTreeSet::new(),
            },
            watch: Watch {
                dirs: vec![self.place.dir.clone(), kept.clone()],
                weight_max: config.weight_max,
                disk: self.inside.disk(),
                reserve: config.reserve,
            },
            cancel: &self.order.request.cancel,
            clock: &self.inside.clock,
            log,
        }
    }

    /// A command whose output is read when it fails.
    async fn quiet(&self, args: Vec<String>) -> Result<(), BuildError> {
        let log = Log::new(Arc::new(Unread), &self.order.request.masked);
        self.run(args, &log).complete(None).await
    }

    /// Leaves the storage as the next build takes it: with layers and without containers, mounts or, for an ordinary user, anything.
    async fn clear(&self, is_whole: bool) {
        if is_whole && is_root() {
            return;
        }
        let kept = self.place.kept.clone();
        let group = self.place.group.clone();
        // A container outlives buildah, when that was killed.
        let ended = blocking(move || {
            if let Some(group) = group {
                group.kill().map_err(failed(&kept, "freed of processes"))?;
            }
            unmount_below(&kept);
            Ok(())
        });
        let cleared = async {
            ended.await?;
            let verb: &[&str] = if is_root() { &["rm", "--all"] } else { &["rmi", "--all", "--force"] };
            self.to_the_end(verb.iter().map(|word| (*word).to_owned()).collect()).await?;
            if is_root() {
                Ok(())
            } else {
                remove_all(&self.place.kept).map_err(failed(&self.place.kept, "removed"))
            }
        };
        if let Err(error) = cleared.await {
            tracing::warn!(%error, "the storage of buildah could not be cleared; it is begun anew");
            if let Err(error) = remove_all(&self.place.kept) {
                tracing::warn!(%error, "the storage of buildah could not be removed");
            }
        }
    }

    /// A command that a build's end does not end.
    async fn to_the_end(&self, args: Vec<String>) -> Result<(), BuildError> {
        let (log, never) = (Log::new(Arc::new(Unread), &[]), tokio_util::sync::CancellationToken::new());
        let run = Run { left: CLEAR_WITHIN, cancel: &never, ..self.run(args, &log) };
        run.complete(None).await
    }
}

/// How long the clearing of a storage may take.
const CLEAR_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Writes which registries there are: what the machine says, and that a name without a registry is one of Docker Hub's, as it is to Docker,
/// unless the machine says that, too.
fn write_registries(path: &Path) -> Result<(), BuildError> {
    let own =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/registries.conf"));
    let said = std::env::var_os(REGISTRIES_VARIABLE).map(PathBuf::from);
    let places =
        said.into_iter().chain(own.filter(|_| !is_root())).chain(["/etc/containers/registries.conf".into()]);
    let machines = places.into_iter().find_map(|place| fs::read_to_string(place).ok()).unwrap_or_default();
    fs::write(path, with_docker_hub(&machines)).map_err(failed(path, "written"))
}

fn with_docker_hub(registries: &str) -> String {
    let says = |line: &str| {
        line.starts_with("unqualified-search-registries") || line.starts_with("[registries.search]")
    };
    if registries.lines().any(|line| says(line.trim_start())) {
        return registries.to_owned();
    }
    format!("unqualified-search-registries = [\"docker.io\"]\n{registries}")
}

/// What buildah says of its failure: its last line that tells of one, else how it ended.
fn said(tail: &[String], outcome: String) -> String {
    let told = tail.iter().rev().find_map(|line| line.strip_prefix("Error: "));
    told.map_or_else(|| format!("buildah {outcome}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_registry_is_docker_hubs_unless_the_machine_says_otherwise() {
        let mirror = "# unqualified-search-registries = []\n[[registry]]\nprefix = \"docker.io\"\n";
        assert_eq!(
            with_docker_hub(mirror),
            format!("unqualified-search-registries = [\"docker.io\"]\n{mirror}")
        );
        let own = "unqualified-search-registries = [\"registry.example.com\"]\n";
        assert_eq!(with_docker_hub(own), own);
    }

    #[test]
    fn the_failure_of_a_dockerfile_is_told_in_buildahs_words() {
        let tail = ["STEP 2/3: RUN x", "Error: building at STEP \"RUN x\"", "later"].map(str::to_owned);
        assert_eq!(said(&tail, "exited with 1".to_owned()), "building at STEP \"RUN x\"");
        assert_eq!(said(&[], "exited with 1".to_owned()), "buildah exited with 1");
    }
}
