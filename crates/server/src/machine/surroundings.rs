//! What stands around an instance: its root, its user, and what it has of the machine beside its artifact.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_build::installation;
use berth_contract::Code;
use berth_control::state::{App, Release};
use berth_runtime::{Mount, Network, Resources, Root, User};
use berth_spec::name::{RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use berth_spec::{Command, Isolation, Manifest, ProcessName};

use super::images::{self, Runnable};
use super::instances::START_FAILED;
use super::{Machine, NotStarted};

/// What stands around every instance of a release, whichever of its processes it runs.
pub(super) struct Surroundings {
    pub(super) root: Root,
    pub(super) dir: PathBuf,
    pub(super) user: Option<User>,
    pub(super) mounts: Vec<Mount>,
    pub(super) resources: Resources,
    pub(super) network: Network,
}

impl Machine {
    /// What stands around an instance of `release` that runs `process`, or something once under that name, and what of that its
    /// environment says. `dir` is where the artifact lies.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(super) fn surroundings(
        &self,
        app: &App,
        release: &Release,
        process: &ProcessName,
        dir: PathBuf,
        env: &mut BTreeMap<String, String>,
    ) -> Result<Surroundings, NotStarted> {
        if let Some(why) = self.too_little(&release.manifest) {
            return Err((Code::IsolationTooLow.as_str().to_owned(), format!("{}: {why}", release.number)));
        }
        // What runs once has the volumes of all processes.
        let once = [RELEASE_COMMAND_PROCESS, RUN_PROCESS].contains(&process.as_str());
        let of = (!once).then_some(process);
        let network = self.network();
        let resources: Resources = release.manifest.resources.get(process).copied().unwrap_or_default();
        if let Some(image) = release.artifact.as_ref().and_then(|artifact| artifact.image.as_ref()) {
            if self.runtime.capabilities().isolation < Isolation::Namespaces {
                return Err(images::unsupported(release.number));
            }
            let Runnable { root, user, home, dir } =
                self.images.runnable(image).map_err(|why| (START_FAILED.to_owned(), why))?;
            env.extend(home.filter(|_| !env.contains_key("HOME")).map(|home| ("HOME".to_owned(), home)));
            let mounts = self.mount_volumes(app, release, of, (&root, user.as_ref()), env)?;
            return Ok(Surroundings { root, dir, user, mounts, resources, network });
        }
        let (root, user) = (Root::Host, self.app_user(app.slot));
        let tools = self.tools(release).into_iter();
        let tools = tools.map(|place| Mount { source: place.clone(), target: place, writable: false });
        let volumes = self.mount_volumes(app, release, of, (&root, user.as_ref()), env)?;
        let mounts = tools.chain(volumes).collect();
        Ok(Surroundings { root, dir, user, mounts, resources, network })
    }

    /// Why this platform isolates less than the manifest asks for, when it does.
    pub(crate) fn too_little(&self, manifest: &Manifest) -> Option<String> {
        let has = self.runtime.capabilities().isolation;
        let wants = manifest.isolation.filter(|wants| has < *wants)?;
        Some(format!("its manifest asks for the isolation `{wants}` at least, and this platform has `{has}`"))
    }

    /// Why what stands around the commands of a build is less than the manifest asks for, when it is. Where instances are in containers their
    /// level is another one.
    pub(super) fn builds_too_little(&self, manifest: &Manifest) -> Option<String> {
        let has = self.build_isolation;
        let wants = manifest.isolation.filter(|wants| has < *wants)?;
        Some(format!(
            "its manifest asks for the isolation `{wants}` at least, and builds of this platform have `{has}`"
        ))
    }

    /// Folders of the machine that the processes of a release need beside their artifact.
    fn tools(&self, release: &Release) -> BTreeSet<PathBuf> {
        let tools = release.artifact.iter().flat_map(|artifact| &artifact.tools);
        let mut places: BTreeSet<PathBuf> =
            tools.filter_map(|folder| installation(Path::new(folder))).collect();
        let serves_files = |command: &Command| matches!(command, Command::StaticSite { .. });
        if release.processes().is_some_and(|processes| processes.values().any(serves_files)) {
            places.insert(self.places.exe.clone());
        }
        places
    }
}
