//! Images: what a name means is pinned when a release is submitted; to build such a release is to pull it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use berth_build::ImageRequest;
use berth_clock::Clock;
use berth_contract::{Code, Problem};
use berth_control::command::Deploy;
use berth_control::event::{Artifact, Failure, Image, ImageCheck};
use berth_control::state::{App, Life, Release, State};
use berth_control::world::Build;
use berth_control::{format, healthcheck};
use berth_image::hosted::Kept;
use berth_image::registry::Config;
use berth_image::{
    Digest, Healthcheck, ImageConfig, ImageError, Limits, Overrides, Ownership, Platform, Reference,
    Registries, Step, Store, Wanted,
};
use berth_runtime::{Root, User};
use berth_spec::health::asked_path;
use berth_spec::manifest::CheckPath;
use berth_spec::{AppId, Command, Manifest, Millis, ProcessName, ReleaseNumber, Timestamp};
use tokio_util::sync::CancellationToken;

use super::building::{BUILD_TIMEOUT, RESERVE};
use super::output::BuildOutput;
use super::{Machine, in_full};
use crate::api::Refused;
use crate::config::UidPlan;
use crate::git::{PASS_FOR_MS, Pass};
use crate::secrets::Vault;
use crate::{events, registry, tasks};

/// Below the home: who the platform says that it is, to each registry, in the form of Docker's `config.json`, and how it reaches them.
const REGISTRIES: &str = "keys/registries.json";
/// The longest such file, in bytes.
const REGISTRIES_MAX: u64 = 1 << 20;

/// Images on this machine, and where they come from.
#[derive(Debug, Clone)]
pub(super) struct Images {
    store: Store,
    settings: PathBuf,
    /// As root, the user outside that is every image's root.
    uid_base: Option<u32>,
    own: OwnRegistry,
}

/// The registry that we are ourselves, and what opens it.
#[derive(Debug, Clone)]
pub(super) struct OwnRegistry {
    pub(super) address: SocketAddr,
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Arc<dyn Clock>,
}

/// How an image is run.
pub(super) struct Runnable {
    pub(super) root: Root,
    /// As whom, in the image's own numbers; as an ordinary user as ourselves.
    pub(super) user: Option<User>,
    /// The home directory of that user, where it has one.
    pub(super) home: Option<String>,
    /// The directory that it runs in.
    pub(super) dir: PathBuf,
}

impl Images {
    pub(super) fn open(home: &Path, users: Option<UidPlan>, own: OwnRegistry) -> Result<Self, ImageError> {
        let limits = Limits { reserve: RESERVE, ..Limits::default() };
        let store = Store::open(&home.join("images"), limits)?;
        Ok(Self { store, settings: home.join(REGISTRIES), uid_base: users.map(UidPlan::images), own })
    }

    /// Whose the files of unpacked layers are.
    fn ownership(&self) -> Ownership {
        self.uid_base.map_or(Ownership::Own, |base| Ownership::Mapped { base })
    }

    /// How an image that was pulled is run.
    pub(super) fn runnable(&self, image: &Image) -> Result<Runnable, String> {
        let manifest: Digest = image.manifest.parse().map_err(|error| format!("{error}"))?;
        let stands = self.store.image(&manifest, self.ownership()).map_err(|error| in_full(&error))?;
        let stands = stands.ok_or_else(|| {
            format!("the layers of {} are not there; deploy {} again", image.manifest, image.reference)
        })?;
        let user =
            berth_image::user::resolve(&stands.layers, &image.user).map_err(|error| in_full(&error))?;
        let workdir = Path::new(&image.workdir);
        Ok(Runnable {
            root: Root::Layers { lower: stands.layers, uid_base: self.uid_base.unwrap_or(0) },
            user: self.uid_base.map(|_| User { uid: user.uid, gid: user.gid, groups: user.groups }),
            home: user.home,
            dir: if workdir.is_absolute() { workdir.to_owned() } else { Path::new("/").join(workdir) },
        })
    }

    /// Registries as `app` may ask them for `reference`, by the settings as they are now: whoever changes the file restarts nothing.
    fn registries(&self, app: &AppId, reference: &Reference) -> Result<Registries, ImageError> {
        let unreadable = |why: String| ImageError::Denied { registry: REGISTRIES.to_owned(), why };
        let mut config = match std::fs::metadata(&self.settings) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Config::default(),
            Err(error) => return Err(unreadable(error.to_string())),
            Ok(stat) if stat.len() > REGISTRIES_MAX => return Err(unreadable("it is too long".to_owned())),
            Ok(_) => {
                let text =
                    std::fs::read_to_string(&self.settings).map_err(|error| unreadable(error.to_string()))?;
                Config::from_file(&text)?
            }
        };
        if registry::is_own(reference, self.own.address) {
            config.credentials.set(reference.registry(), "berth", self.own.pass(app, reference)?.into());
        }
        Ok(Registries::new(config))
    }

    /// The name, held to what it means now.
    async fn pin(&self, app: &AppId, name: &str) -> Result<Reference, ImageError> {
        let reference: Reference = name.parse()?;
        let digest = self.registries(app, &reference)?.resolve(&reference).await?;
        Ok(reference.pinned(digest))
    }

    /// Takes over the image of an archive.
    pub(super) async fn load(&self, archive: std::fs::File) -> Result<berth_image::Pulled, ImageError> {
        let loaded = self.store.load(archive, self.ownership()).await?;
        // A user that is not in the image would be found when the first instance starts.
        berth_image::user::resolve(&loaded.image.layers, &loaded.image.config.user)?;
        Ok(loaded)
    }

    /// Has an image stand, and gives how it is run.
    async fn pull(
        &self,
        app: &AppId,
        name: &str,
        had: BTreeSet<Digest>,
        output: &BuildOutput,
    ) -> Result<(Image, ImageConfig, u64), ImageError> {
        let reference: Reference = name.parse()?;
        let (registries, platform) = (self.registries(app, &reference)?, Platform::current());
        let wanted = Wanted { reference, platform, ownership: self.ownership(), had };
        let progress = |step: Step| output.push(&told(step));
        output.push(&format!("pulling {}", wanted.reference));
        let pulled = self.store.pull(&registries, &wanted, &progress).await?;
        let config = pulled.image.config;
        let image = described(name.to_owned(), pulled.image.manifest.to_string(), &config);
        // A user that is not in the image would be found when the first instance starts.
        berth_image::user::resolve(&pulled.image.layers, &config.user)?;
        Ok((image, config, pulled.image.bytes))
    }
}

impl OwnRegistry {
    /// What opens the repository of `reference` to a pull for `app`: those of its own project, and no other.
    fn pass(&self, app: &AppId, reference: &Reference) -> Result<String, ImageError> {
        let of = registry::app_of(reference.repository()).filter(|of| of.project_id() == app.project_id());
        let denied = || ImageError::Denied {
            registry: reference.registry().to_owned(),
            why: format!("{} is not a repository of {}'s project", reference.repository(), app),
        };
        let until = Timestamp(self.clock.now().0 + PASS_FOR_MS);
        let pass = Pass { name: "platform:pull".to_owned(), app: of.ok_or_else(denied)?, until };
        Ok(pass.write(&self.vault))
    }
}

fn told(step: Step) -> String {
    let short = |digest: Digest| digest.hex().chars().take(12).collect::<String>();
    match step {
        Step::Found { layers: 1, bytes } => format!("1 layer, {bytes} bytes as sent"),
        Step::Found { layers, bytes } => format!("{layers} layers, {bytes} bytes as sent"),
        Step::Had(layer) => format!("layer {} stands already", short(layer)),
        Step::Unpacking(layer) => format!("layer {} arrived and is verified", short(layer)),
        Step::Done(layer) => format!("layer {} is unpacked", short(layer)),
    }
}

impl Machine {
    /// Holds the image of a release, where it has one, to what its name means now.
    ///
    /// # Errors
    /// When the name is none, or its registry does not say.
    pub(crate) async fn pin_image(&self, app: &AppId, deploy: &mut Deploy) -> Result<(), Refused> {
        let Some(name) = &deploy.manifest.build.image else { return Ok(()) };
        match self.images.pin(app, name).await {
            Ok(pinned) => deploy.manifest.build.image = Some(pinned.to_string()),
            Err(error) => {
                let code = Code::from_text(error.code()).unwrap_or(Code::Internal);
                return Err(Problem::new(code, in_full(&error)).into());
            }
        }
        Ok(())
    }

    /// Pulls the image of a release, in a task of its own.
    pub(super) fn build_image(&self, app: &App, release: &Release, name: String, cancel: CancellationToken) {
        let id = app.id.release(release.number);
        let (images, builder) = (self.images.clone(), self.builder.clone());
        let (jobs, desk, output) = (Arc::clone(&self.jobs), self.desk.clone(), self.jobs.output(&id));
        let gid = self.app_user(app.slot).map(|user| user.gid);
        // What another project has is not had by its digest.
        let project = app.id.project_id();
        let had: BTreeSet<Digest> = self.desk.read(|state| {
            let own = state.apps.values().filter(|it| it.id.project_id() == project);
            own.flat_map(|app| had(app)).collect()
        });
        let (app, wished) = (app.id.clone(), Wished::of(&release.manifest));
        tasks::run("a pull", async move {
            let making = async {
                let (image, config, bytes) =
                    images.pull(&app, &name, had, &output).await.map_err(|error| failure(&error))?;
                let processes = wished.processes(&config)?;
                let description = serde_json::to_vec_pretty(&image).expect("plain data has a JSON");
                let (manifest, why) =
                    (image.manifest.clone(), format!("it is the image {}", image.reference));
                let request = ImageRequest { app, manifest, description, bytes, app_gid: gid };
                let artifact = builder.image(request).await;
                let artifact = artifact.map_err(|error| Failure::new(error.code(), in_full(&error)))?;
                Ok(Artifact {
                    id: artifact.as_str().to_owned(),
                    processes,
                    bytes,
                    why: vec![why],
                    env: environment(&config),
                    image: Some(Box::new(image)),
                    ..Artifact::default()
                })
            };
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Failure::new("build_cancelled", "the pull was cancelled")),
                made = tokio::time::timeout(BUILD_TIMEOUT.as_duration(), making) => made.unwrap_or_else(|_elapsed| {
                    Err(Failure::new("build_timed_out", format!("the pull was ended after {BUILD_TIMEOUT}")))
                }),
            };
            jobs.end_build(&id, ended.map_or_else(Build::Failed, Build::Done));
            desk.changed().add(id.app);
        });
    }

    /// The builds of an app. What the journal does not take of an image that was built goes unsaid, as before there was such a thing.
    pub(super) fn builds_of(&self, app: &App) -> BTreeMap<ReleaseNumber, Build> {
        let mut builds = self.jobs.builds_of(&app.id);
        for build in builds.values_mut() {
            if let Build::Done(Artifact { image: Some(image), .. }) = build
                && self.desk.format() < format::CHECKS
            {
                image.check = None;
            }
        }
        builds
    }

    /// Removes what was pushed to repositories of apps that are gone, and what neither a tag nor a release needs in the others.
    pub(super) async fn sweep_hosted(&self) {
        // Before the apps: a repository that is made meanwhile must not be taken for one whose app is gone.
        let hosted = self.hosted.clone();
        let names = match tokio::task::spawn_blocking(move || hosted.names()).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => return events::could_not("list the registry", &error),
            Err(error) => return events::could_not("list the registry", &error),
        };
        let kept = self.desk.read(kept);
        let (hosted, now) = (self.hosted.clone(), UNIX_EPOCH + Duration::from_millis(self.clock.now().0));
        match tokio::task::spawn_blocking(move || hosted.sweep(&names, &kept, now)).await {
            Ok((_, failed)) => {
                for (repository, error) in failed {
                    events::could_not(&format!("sweep the repository {repository}"), &in_full(&error));
                }
            }
            Err(error) => events::could_not("sweep the registry", &error),
        }
    }

    /// Removes the layers that no release needs which may run or be rolled back to.
    pub(super) async fn sweep_images(&self) {
        let kept: Option<BTreeSet<Digest>> = self.desk.read(|state| {
            let images = state.apps.values().flat_map(|app| {
                let kept = berth_control::invariant::kept_artifacts(app);
                let artifacts = app.releases.values().filter_map(|release| release.artifact.clone());
                artifacts.filter(move |it| kept.contains(&it.id)).filter_map(|it| it.image)
            });
            images.map(|image| image.manifest.parse().ok()).collect()
        });
        // One that cannot be read would be one that nobody keeps.
        let Some(kept) = kept else { return };
        let store = self.images.store.clone();
        match tokio::task::spawn_blocking(move || store.sweep(&kept)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => events::could_not("sweep images", &error),
            Err(error) => events::could_not("sweep images", &error),
        }
    }
}

/// The repositories of apps that live, each with what releases need of it: those of its own app, and of others that were given its images.
fn kept(state: &State) -> Kept {
    let alive = || state.apps.values().filter(|app| app.life == Life::Alive);
    let mut kept: Kept = alive().map(|app| (app.id.to_string(), BTreeSet::new())).collect();
    for (of, digest) in alive().flat_map(|app| pinned(app)) {
        if let Some(digests) = kept.get_mut(&of.to_string()) {
            digests.insert(digest);
        }
    }
    kept
}

/// The manifests and indexes of images that releases of an app need which may run or be rolled back to, or are to be pulled yet, with the
/// app in whose repository each is. That is one of the app's project, since no other is opened to it; at which address our registry was
/// when the release was submitted is not asked.
fn pinned(app: &App) -> Vec<(AppId, Digest)> {
    let kept = berth_control::invariant::kept_artifacts(app);
    let mut pinned = Vec::new();
    for release in app.releases.values() {
        let artifact = release.artifact.as_ref().filter(|it| kept.contains(&it.id));
        let built = artifact.and_then(|it| it.image.as_deref());
        let built = built.map(|image| (image.reference.as_str(), image.manifest.parse().ok()));
        let wanted = release.manifest.build.image.as_deref().filter(|_| !release.phase.is_settled());
        for (name, manifest) in built.into_iter().chain(wanted.map(|name| (name, None))) {
            let Ok(reference) = name.parse::<Reference>() else { continue };
            let of = registry::app_of(reference.repository());
            let Some(of) = of.filter(|of| of.project_id() == app.id.project_id()) else { continue };
            let digests = [manifest, reference.digest().copied()].into_iter().flatten();
            pinned.extend(digests.map(|digest| (of.clone(), digest)));
        }
    }
    pinned
}

/// The manifests and indexes of images that an app was given: those of releases that were made, whatever became of them, and not of one that asks for another's.
fn had(app: &App) -> impl Iterator<Item = Digest> {
    let artifacts = app.releases.values().filter_map(|release| release.artifact.as_ref());
    artifacts.filter_map(|artifact| artifact.image.as_deref()).flat_map(|image| {
        let reference = image.reference.parse::<Reference>().ok();
        [image.manifest.parse().ok(), reference.and_then(|it| it.digest().copied())].into_iter().flatten()
    })
}

/// Why a release of an image is not started: a program out of an image expects the image's files around it.
pub(super) fn unsupported(number: ReleaseNumber) -> (String, String) {
    let detail =
        format!("{number} is an image, and what runs instances here cannot give them a root of their own");
    (Code::ImagesUnsupported.as_str().to_owned(), detail)
}

/// What a manifest says that an image runs: whole commands, and what its entrypoint is given.
#[derive(Debug, Clone, Default)]
pub(super) struct Wished {
    processes: BTreeMap<ProcessName, Command>,
    args: BTreeMap<ProcessName, Vec<String>>,
}

impl Wished {
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self { processes: manifest.processes.clone(), args: manifest.args.clone() }
    }

    /// What runs: what the manifest says, else what the image does.
    fn processes(self, config: &ImageConfig) -> Result<BTreeMap<ProcessName, Command>, Failure> {
        let command = |cmd: Option<Vec<String>>| {
            let overrides = Overrides { cmd, ..Overrides::default() };
            Command::from_argv(config.command(&overrides)).map_err(|error| Failure {
                detail: vec![error.to_string()],
                next: Some("name a process below [processes] in berth.toml".to_owned()),
                ..Failure::new("image_invalid", "the image names nothing to run")
            })
        };
        let mut all = self.processes;
        for (process, words) in self.args {
            all.insert(process, command(Some(words))?);
        }
        if all.is_empty() {
            all.insert(ProcessName::new("web").expect("it is a name"), command(None)?);
        }
        Ok(all)
    }
}

/// The image's environment. An entry without a value has none to give.
fn environment(config: &ImageConfig) -> BTreeMap<String, String> {
    let pairs = config.env.iter().filter_map(|entry| entry.split_once('='));
    pairs
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What is kept of an image's configuration.
fn described(reference: String, manifest: String, config: &ImageConfig) -> Image {
    let command = config.healthcheck.as_ref().map(|check| check.command.join(" "));
    // What is no path of ours is not asked for, but run.
    let port = config.ports.iter().find(|port| !port.udp).map(|port| port.number);
    let path = command.and_then(|command| asked_path(&command, port));
    let path = path.filter(|path| path.parse::<CheckPath>().is_ok());
    let check = config.healthcheck.as_ref().map(checked);
    Image {
        reference,
        manifest,
        user: config.user.clone(),
        workdir: config.workdir.clone(),
        port,
        stop_signal: config.stop_signal,
        health_path: path,
        check,
    }
}

/// An image's check with what Docker takes for granted where the image says nothing.
fn checked(check: &Healthcheck) -> ImageCheck {
    let millis = |nanos: u64| Millis(nanos.div_ceil(1_000_000));
    let or = |nanos: u64, default: Millis| if nanos == 0 { default } else { millis(nanos) };
    let interval = or(check.interval, healthcheck::INTERVAL);
    ImageCheck {
        command: check.command.clone(),
        interval,
        timeout: or(check.timeout, healthcheck::TIMEOUT),
        start_period: millis(check.start_period),
        start_interval: or(check.start_interval, healthcheck::START_INTERVAL.min(interval)),
        retries: if check.retries == 0 { healthcheck::RETRIES } else { check.retries },
    }
}

/// The artifact of an image that was built here, still without an id, and what is kept of it.
pub(super) fn artifact_of(
    built: &berth_image::Pulled,
    name: &str,
    wished: Wished,
) -> Result<(Artifact, Vec<u8>), Failure> {
    let config = &built.image.config;
    let image = described(format!("{name}@{}", built.digest), built.digest.to_string(), config);
    let description = serde_json::to_vec_pretty(&image).expect("plain data has a JSON");
    let artifact = Artifact {
        processes: wished.processes(config)?,
        bytes: built.image.bytes,
        env: environment(config),
        image: Some(Box::new(image)),
        ..Artifact::default()
    };
    Ok((artifact, description))
}

pub(super) fn failure(error: &ImageError) -> Failure {
    let detail = std::error::Error::source(error).map(in_full).into_iter().collect();
    Failure { detail, ..Failure::new(error.code(), error.to_string()) }
}

#[cfg(test)]
mod tests {
    use berth_control::event::{Event, Reason, ReleaseSubmitted, Stream};
    use berth_control::fold::Stamp;

    use super::*;

    #[test]
    fn what_a_release_needs_is_kept_in_the_repository_that_it_is_from() {
        let mut state = State::default();
        let stamp = Stamp { position: 1, at: Timestamp(1), actor: "test".to_owned() };
        let [shop, staging, blog, other] =
            ["default/default/shop", "default/default/shop-staging", "default/default/blog", "a/b/other"]
                .map(|id| id.parse::<AppId>().unwrap());
        let digest = |text: &str| Digest::of(text.as_bytes());
        let image = |repository: &str, text: &str| format!("127.0.0.1:7070/{repository}@{}", digest(text));
        let mut submit = |app: &AppId, number, name: String, built: Option<&str>| {
            let mut manifest = Manifest::default();
            manifest.build.image = Some(name.clone());
            let artifact = built.map(|text| Artifact {
                id: text.to_owned(),
                image: Some(Box::new(Image {
                    reference: name,
                    manifest: digest(text).to_string(),
                    ..Image::default()
                })),
                ..Artifact::default()
            });
            let number = ReleaseNumber(number);
            let submitted = ReleaseSubmitted {
                number,
                reason: Reason::Deploy,
                tree: "t".to_owned(),
                manifest,
                artifact,
                config: BTreeMap::new(),
                secrets: BTreeMap::new(),
                description: None,
                commit: None,
            };
            state.apply(&Stream::App(app.clone()), &Event::ReleaseSubmitted(Box::new(submitted)), &stamp);
        };
        // An index of which one manifest was pulled; one that is pulled just now; one that no release needs.
        submit(&shop, 1, image("shop-staging", "index"), Some("manifest"));
        submit(&shop, 2, image("default/default/shop:v2", "next"), None);
        submit(&blog, 1, image("blog", "failed"), None);
        // Nothing is had from repositories of another project, and nothing of ours is elsewhere.
        submit(&blog, 2, image("a/b/other", "strange"), None);
        submit(&blog, 3, format!("shop@{}", digest("hub")), None);
        submit(&other, 1, image("shop", "strange"), None);
        let failure = Failure::new("build_failed", "it does not build");
        let failed = Event::ReleaseFailed { number: ReleaseNumber(1), failure };
        state.apply(&Stream::App(blog.clone()), &failed, &stamp);
        for app in [&shop, &staging, &blog, &other] {
            let app = state.apps.entry(app.clone()).or_insert_with(|| Arc::new(App::new(app.clone())));
            Arc::make_mut(app).life = Life::Alive;
        }
        let mut expected: Kept =
            [&shop, &staging, &blog, &other].map(|app| (app.to_string(), BTreeSet::new())).into();
        expected.insert(staging.to_string(), [digest("index"), digest("manifest")].into());
        expected.insert(shop.to_string(), [digest("next")].into());
        assert_eq!(kept(&state), expected);
        // What is destroyed goes, whoever was given its images.
        Arc::make_mut(state.apps.get_mut(&staging).unwrap()).life = Life::Destroyed;
        expected.remove(&staging.to_string());
        assert_eq!(kept(&state), expected);
    }

    #[test]
    fn a_check_is_asked_by_edge_or_run_and_what_it_leaves_open_is_filled_in() {
        let of = |command: &[&str], interval, retries| {
            let healthcheck = Some(Healthcheck {
                command: command.iter().map(|it| (*it).to_owned()).collect(),
                interval,
                timeout: 0,
                start_period: 2_500_000,
                start_interval: 0,
                retries,
            });
            described(String::new(), String::new(), &ImageConfig { healthcheck, ..ImageConfig::default() })
        };
        let asked = of(&["/bin/sh", "-c", "curl -f http://localhost:3000/up"], 0, 0);
        assert_eq!((asked.health_path.as_deref(), asked.check.is_some()), (Some("/up"), true));
        let run = of(&["pg_isready", "-q"], 0, 0);
        assert_eq!(run.health_path, None);
        let check = run.check.unwrap();
        assert_eq!(check.command, ["pg_isready", "-q"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (healthcheck::INTERVAL, healthcheck::TIMEOUT, 3)
        );
        assert_eq!((check.start_period, check.start_interval), (Millis(3), Millis(1_000)));
        let quick = of(&["true"], 200_000_000, 7).check.unwrap();
        assert_eq!((quick.interval, quick.start_interval, quick.retries), (Millis(200), Millis(200), 7));
        let none = described(String::new(), String::new(), &ImageConfig::default());
        assert_eq!((none.health_path, none.check), (None, None));
    }

    #[test]
    fn the_manifest_says_what_runs_before_the_image_does() {
        let config = ImageConfig {
            entrypoint: vec!["/bin/server".to_owned()],
            cmd: vec!["--fast".to_owned()],
            env: ["PATH=/bin", "EMPTY=", "BARE", "=x", "A=b=c"].map(str::to_owned).into(),
            ..ImageConfig::default()
        };
        let run = Wished::default().processes(&config).unwrap();
        let argv = Command::Argv(vec!["/bin/server".to_owned(), "--fast".to_owned()]);
        assert_eq!(run.values().collect::<Vec<_>>(), [&argv]);
        let worker = [(ProcessName::new("worker").unwrap(), Command::parse("work").unwrap())];
        let whole = Wished { processes: worker.clone().into(), ..Wished::default() };
        assert_eq!(whole.clone().processes(&config).unwrap(), worker.clone().into());
        let args = [(ProcessName::new("web").unwrap(), vec!["--slow".to_owned()])].into();
        let both = Wished { args, ..whole }.processes(&config).unwrap();
        let slow = Command::Argv(vec!["/bin/server".to_owned(), "--slow".to_owned()]);
        assert_eq!(both.values().collect::<Vec<_>>(), [&slow, &worker[0].1]);
        let empty = Wished::default().processes(&ImageConfig::default()).unwrap_err();
        assert_eq!(empty.code, "image_invalid");
        let env = environment(&config);
        let pairs: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "b=c"), ("EMPTY", ""), ("PATH", "/bin")]);
    }
}
