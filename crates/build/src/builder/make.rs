//! Making one artifact: lay out, run, take the outcome, seal, put into place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_process::{Cgroup, Ground, Mark, Program};
use berth_source::lay::{Owner, materialise};
use berth_spec::manifest::Builder as Kind;
use berth_spec::{Command, RelativeDir};
use serde::{Deserialize, Serialize};

use super::garbage::touch;
use super::{Inside, Plan, Size, blocking};
use crate::cargo::{self, Programs};
use crate::error::{BuildError, failed};
use crate::kept;
use crate::layer::{Layers, Shared};
use crate::layout::{KEPT, write_synced};
use crate::relocate::relocate;
use crate::remove::{open_dir, open_dir_at, remove_all};
use crate::run::{Run, Sight, Watch};
use crate::seal::{SealedOwner, seal};
use crate::toolchain::Toolchain;
use crate::tools::{self, Private};
use crate::within::Spot;

/// A disk with less than so many bytes left is taken for the reason why a command failed.
const NEARLY_FULL: u64 = 1024 * 1024;

/// What is written down of an artifact beside its files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    format: u32,
    bytes: u64,
    /// Bytes of the files that it shares with a layer.
    #[serde(default)]
    shared: u64,
    /// The layers that it shares files with.
    #[serde(default)]
    pub(super) layers: BTreeSet<String>,
    /// The mirrors of tools that its processes need.
    #[serde(default)]
    pub(super) mirrors: BTreeSet<String>,
}

impl Note {
    pub(super) fn size(&self) -> Size {
        Size { bytes: self.bytes, shared: self.shared }
    }
}

/// The work directory of a build.
pub(super) struct Work {
    pub(super) src: PathBuf,
    pub(super) tmp: PathBuf,
    pub(super) cache: PathBuf,
    pub(super) layers: Layers,
    sight: Sight,
    mark: Mark,
    cgroup: Option<Cgroup>,
    toolchain: Option<Toolchain>,
    /// When its commands have to be done.
    deadline: Duration,
}

/// What a note tells; nothing when there is none.
pub(super) fn noted(note: &Path) -> Note {
    let read = fs::read(note).ok().and_then(|json| serde_json::from_slice(&json).ok());
    read.unwrap_or_default()
}

impl Inside {
    /// Makes the artifact and gives its bytes. Whatever happens, the work directory is gone afterwards.
    pub(super) async fn make(self: &Arc<Self>, plan: &Arc<Plan>) -> Result<Size, BuildError> {
        let turn = self.take_turn(&plan.request.app);
        let outcome = self.try_make(plan, &turn.dir).await;
        let (inside, cleaned, dir) = (Arc::clone(self), Arc::clone(plan), turn.dir.clone());
        let clean = blocking(move || inside.clean(&cleaned, &dir)).await;
        if let Err(error) = &clean {
            // The artifact stands or does not; what is left over goes with the next sweep.
            tracing::warn!(app = %plan.request.app, %error, "a build's work directory could not be removed");
        }
        drop(turn);
        if matches!(outcome, Err(BuildError::DiskFull(_))) {
            let (inside, needed) = (Arc::clone(self), self.config.low_water);
            let collected = blocking(move || inside.collect(needed)).await?;
            plan.log.say(format!("the disk is full: {collected}"));
        }
        outcome
    }

    async fn try_make(self: &Arc<Self>, plan: &Arc<Plan>, dir: &Path) -> Result<Size, BuildError> {
        let (inside, planned, dir) = (Arc::clone(self), Arc::clone(plan), dir.to_owned());
        let work = Arc::new(blocking(move || inside.prepare(&planned, dir)).await?);
        if plan.request.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let ran = self.run_steps(plan, &work).await;
        let (planned, worked) = (Arc::clone(plan), Arc::clone(&work));
        blocking(move || keep(&planned, &worked)).await?;
        let shared = ran.map_err(|error| self.blame_disk(error))?;
        let mut programs = Programs::default();
        if let Some(toolchain) = &work.toolchain {
            plan.log.say(format!("building with Rust {}", toolchain.version));
            let ran = self.run_cargo(plan, &work, toolchain, &mut programs).await;
            ran.map_err(|error| self.blame_disk(error))?;
        }
        if plan.request.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let (inside, planned) = (Arc::clone(self), Arc::clone(plan));
        blocking(move || inside.place(&planned, &work, &programs, shared)).await
    }

    /// Makes the work directory with the source in it.
    ///
    /// The directory itself is ours, so that the build can neither replace what is in it nor read the mark of another
    /// build; `src` and `tmp` are the build's.
    fn prepare(&self, plan: &Plan, dir: PathBuf) -> Result<Work, BuildError> {
        let request = &plan.request;
        self.make_room(&plan.log)?;
        let mark = self.begin_work(&dir)?;
        let cache = self.layout.cache(&request.app);
        let (src, tmp) = (dir.join("src"), dir.join("tmp"));
        for own in [&src, &tmp] {
            self.make_own(plan, own)?;
        }
        let recipe = &plan.detection.recipe;
        let caches = plan.caches(&cache);
        let kept = self.layout.kept(&request.app);
        if !caches.is_empty() || !recipe.kept.is_empty() {
            self.layout.make(&self.layout.builds, &kept)?;
        }
        for own in &caches {
            self.make_own(plan, own)?;
        }
        let toolchain = plan.toolchain.clone();
        let toolchain = toolchain.map(|it| it.reachable(&self.layout, request.user.is_some())).transpose()?;
        let owner = request.user.as_ref().map(|user| Owner { uid: user.uid, gid: user.gid });
        let open = open_dir(&src).map_err(failed(&src, "read"))?;
        materialise(&plan.tree, &plan.store, open.as_fd(), owner)?;
        kept::move_in(&kept, recipe.kept.clone(), &src, owner).map_err(failed(&kept, "moved"))?;
        let layers = Layers::new(&self.layout, &request.app, self.sealed_owner(plan), owner);
        let cgroup = self.limited_group(&dir)?;
        let deadline = self.clock.monotonic() + self.config.timeout.as_duration();
        let writable = caches.into_iter().chain([src.clone(), tmp.clone()]).collect();
        let sight = self.sight(plan, &dir, toolchain.as_ref(), writable)?;
        Ok(Work { src, tmp, cache, layers, sight, mark, cgroup, toolchain, deadline })
    }

    /// What a build in the work directory `dir` sees of the machine, with what that takes.
    fn sight(
        &self,
        plan: &Plan,
        dir: &Path,
        toolchain: Option<&Toolchain>,
        writable: BTreeSet<PathBuf>,
    ) -> Result<Sight, BuildError> {
        let (root, scratch) = (dir.join("root"), dir.join("scratch"));
        self.make_own(plan, &scratch)?;
        fs::create_dir(&root).map_err(failed(&root, "made"))?;
        let installed = &self.config.toolchains;
        let home = installed.managers.get("home").map(PathBuf::as_path);
        let private = Private { home, builds: &self.layout.builds };
        let mut readable = tools::places(&plan.tools, toolchain, &private);
        readable.extend(self.config.env.values().flat_map(|value| paths_in(value)));
        if plan.request.user.is_none() {
            readable.extend(tools::own_folders(installed, &private));
        }
        Ok(Sight { root, scratch, readable, writable })
    }

    /// Whom what is sealed belongs to.
    fn sealed_owner(&self, plan: &Plan) -> Option<SealedOwner> {
        let (uid, gid) = self.config.sealed_uid.zip(plan.request.app_gid)?;
        Some(SealedOwner { uid, gid })
    }

    /// Makes a directory that belongs to the build's user. One of an earlier user of that name is made anew.
    fn make_own(&self, plan: &Plan, dir: &Path) -> Result<(), BuildError> {
        let user = plan.request.user.as_ref();
        match fs::symlink_metadata(dir) {
            Ok(found) if found.is_dir() && user.is_none_or(|user| user.uid == found.uid()) => return Ok(()),
            Ok(_) => remove_all(dir).map_err(failed(dir, "removed"))?,
            Err(_) => {}
        }
        fs::create_dir(dir).map_err(failed(dir, "made"))?;
        set_mode(dir, 0o700)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid)).map_err(failed(dir, "made"))?;
        }
        Ok(())
    }

    async fn run_cargo(
        &self,
        plan: &Plan,
        work: &Work,
        toolchain: &Toolchain,
        programs: &mut Programs,
    ) -> Result<(), BuildError> {
        let mut env = self.env(plan, work, &BTreeMap::new());
        env.extend(cargo::env(toolchain, &work.cache));
        let bin = toolchain.root.join("bin");
        let path = env.entry("PATH".to_owned()).or_default();
        *path = format!("{}:{path}", bin.display());
        let ground = ground(plan, work)?;
        let cargo_path = bin.join("cargo");
        let program = ground
            .program(&cargo_path.to_string_lossy(), "".as_ref())
            .expect("a program named by its path needs no looking up");
        let args = cargo::args(plan.tree.node("Cargo.lock").is_some());
        let shown = "cargo build --release".to_owned();
        let mut take = |line: &str| programs.read(line);
        self.run(plan, work, program, args, shown, env).complete(Some(&mut take)).await
    }

    pub(super) fn run<'a>(
        &'a self,
        plan: &'a Plan,
        work: &Work,
        program: Program,
        args: Vec<String>,
        shown: String,
        env: BTreeMap<String, String>,
    ) -> Run<'a> {
        Run {
            program,
            args,
            shown,
            env,
            mark: work.mark,
            cgroup: work.cgroup.clone(),
            processes_max: self.config.processes_max,
            memory_max: self.config.memory_max,
            own_user: plan.request.user.is_some(),
            limit: self.config.timeout,
            left: work.deadline.saturating_sub(self.clock.monotonic()),
            offline: plan.request.manifest.build.offline,
            enclosure: self.config.enclosure.as_ref(),
            sight: work.sight.clone(),
            watch: Watch {
                dirs: vec![
                    work.src.clone(),
                    work.tmp.clone(),
                    work.sight.scratch.clone(),
                    work.cache.clone(),
                ],
                weight_max: self.config.weight_max,
                disk: self.layout.builds.clone(),
                reserve: self.config.reserve,
            },
            cancel: &plan.request.cancel,
            clock: &self.clock,
            log: &plan.log,
        }
    }

    /// A command that failed on a full disk failed of that, whatever it printed.
    fn blame_disk(&self, error: BuildError) -> BuildError {
        let full = || {
            let stat = rustix::fs::statvfs(&self.layout.builds).ok()?;
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            // Some file systems do not count inodes and say nought of nought.
            Some(free < NEARLY_FULL || (stat.f_files > 0 && stat.f_ffree == 0))
        };
        match error {
            BuildError::Failed { .. } if full() == Some(true) => {
                BuildError::DiskFull(self.layout.builds.clone())
            }
            other => other,
        }
    }

    /// Makes what the build left the artifact. Nothing of the build runs any more.
    fn place(
        &self,
        plan: &Plan,
        work: &Work,
        programs: &Programs,
        shared: Shared,
    ) -> Result<Size, BuildError> {
        let (request, recipe) = (&plan.request, &plan.detection.recipe);
        if plan.detection.builder == Kind::Cargo {
            let builder = request.user.as_ref().map(|user| user.uid);
            let made = programs.collect(&work.cache.join("target"), &work.src, builder)?;
            if made.is_empty() {
                return Err(BuildError::Outcome("the Cargo project made no program".to_owned()));
            }
            // Whatever the processes are, for the artifact's id does not tell of them. A file or link called `target`
            // in the source stays what it is.
            if plan.tree.node("target").is_none() {
                cargo::link_where_cargo_puts_them(&work.src, &made)?;
            }
            plan.log.say(format!("made bin/{}", made.into_iter().collect::<Vec<_>>().join(", bin/")));
        }
        let folder = self.layout.artifacts_of(&request.app);
        self.layout.make(&self.layout.artifacts, &folder)?;
        let staging = self.layout.staging(&request.app, &plan.id);
        remove_all(&staging).map_err(failed(&staging, "removed"))?;
        let given = request.manifest.build.output.as_ref().or(recipe.output.as_ref());
        let output = given.cloned().unwrap_or_else(RelativeDir::here);
        take_output(&work.src, &output, &staging)?;
        check_roots(plan, &staging)?;
        let target = self.layout.artifact(&request.app, &plan.id);
        let was =
            if output == RelativeDir::here() { work.src.clone() } else { work.src.join(output.as_str()) };
        for dir in &recipe.relocated {
            // A folder that the artifact does not have holds no path.
            if let Ok(open) = Spot::find(&staging, dir).and_then(|spot| spot.open()) {
                relocate(open.as_fd(), &was, &target).map_err(failed(&staging, "relocated"))?;
            }
        }
        let sealed = seal(&staging, self.sealed_owner(plan), &shared.inodes, &plan.log)?;
        let at_run = plan.tools.iter().filter(|tool| tool.at_run);
        let mirrors = at_run.filter_map(|tool| tool.mirror_name().map(str::to_owned)).collect();
        let (bytes, layers) = (sealed.bytes, shared.layers);
        let note = Note { format: 1, bytes, shared: sealed.shared, layers, mirrors };
        write_synced(&self.layout.note(&request.app, &plan.id), &note)?;
        // As an ordinary user the sealed directory itself is read-only, and moving one writes its `..`; within one
        // parent it does not.
        fs::rename(&staging, &target).map_err(failed(&target, "put into place"))?;
        File::open(&folder).and_then(|dir| dir.sync_all()).map_err(failed(&folder, "synced"))?;
        Ok(note.size())
    }

    /// Removes the work directory, and the staging directory of a build that failed.
    fn clean(&self, plan: &Plan, dir: &Path) -> Result<(), BuildError> {
        if let Some(groups) = &self.config.cgroups {
            groups.group(&cgroup_name(dir)).remove().map_err(failed(dir, "freed of its control group"))?;
        }
        let staging = self.layout.staging(&plan.request.app, &plan.id);
        for path in [&*staging, dir] {
            remove_all(path).map_err(failed(path, "removed"))?;
        }
        let (recipe, cache) = (&plan.detection.recipe, self.layout.cache(&plan.request.app));
        let caches = recipe.caches.values().map(|name| cache.join(name));
        let kept = recipe.kept.iter().map(|dir| kept::place(&self.layout.kept(&plan.request.app), dir));
        for used in caches.chain(kept).chain([cache.join("target"), cache.join("cargo")]) {
            if used.is_dir() {
                touch(&used, self.clock.now());
            }
        }
        self.weigh_caches(&plan.request.app)
    }
}

/// The control group of the build in a work directory: `build.default.default.shop.7`.
pub(crate) fn cgroup_name(work: &Path) -> String {
    let mut names: Vec<_> = work.iter().rev().take(4).map(|name| name.to_string_lossy()).collect();
    names.reverse();
    format!("build.{}", names.join("."))
}

/// Moves what is kept between builds out of the tree.
fn keep(plan: &Plan, work: &Work) -> Result<(), BuildError> {
    let kept = work.cache.join(KEPT);
    let dirs = plan.detection.recipe.kept.clone();
    kept::move_out(&kept, dirs, &work.src).map_err(failed(&kept, "moved"))
}

/// Moves the directory `output` of the tree at `src` to `staging`, through no link.
fn take_output(src: &Path, output: &RelativeDir, staging: &Path) -> Result<(), BuildError> {
    let absent = || BuildError::Outcome(format!("the build made no directory `{output}`"));
    let spot = Spot::find(src, output).and_then(|spot| spot.open().map(|_there| spot));
    let spot = spot.ok().ok_or_else(absent)?;
    spot.move_to(staging).map_err(failed(staging, "put into place"))
}

pub(super) fn ground(plan: &Plan, work: &Work) -> Result<Ground, BuildError> {
    Ground::new(&work.src, plan.request.user.clone()).map_err(|error| BuildError::Start(error.into()))
}

impl Plan {
    /// The folders, in that of the app's caches, that are kept for the commands of this build.
    fn caches(&self, cache: &Path) -> BTreeSet<PathBuf> {
        let own = self.detection.recipe.caches.values().map(String::as_str);
        let of_cargo: &[&str] = if self.toolchain.is_some() { &["cargo", "target"] } else { &[] };
        own.chain(of_cargo.iter().copied()).map(|name| cache.join(name)).collect()
    }
}

/// The files and folders of this machine that a variable names which says how a network is reached: certificates, and mirrors on the disk.
fn paths_in(value: &str) -> Vec<PathBuf> {
    let parts = value.split([',', '|']).map(|part| part.strip_prefix("file://").unwrap_or(part));
    let paths =
        parts.filter(|part| part.starts_with('/')).flat_map(|part| part.split(':')).map(PathBuf::from);
    paths.filter(|path| path.is_absolute() && path.parent().is_some() && fs::metadata(path).is_ok()).collect()
}

/// A static site whose directory is not there would be an app that answers 404 to everything.
fn check_roots(plan: &Plan, staging: &Path) -> Result<(), BuildError> {
    for command in plan.detection.processes.values() {
        if let Command::StaticSite { root, .. } = command {
            let mut dir = open_dir(staging).map_err(failed(staging, "read"))?;
            for segment in root.as_str().split('/').filter(|segment| *segment != ".") {
                let below = open_dir_at(&dir, segment).ok();
                dir = below
                    .ok_or_else(|| BuildError::Outcome(format!("the build made no directory `{root}`")))?;
            }
        }
    }
    Ok(())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), BuildError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(failed(path, "made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_and_mirrors_on_the_disk_are_found_in_variables() {
        let found = |value: &str| paths_in(value);
        assert_eq!(found("/etc/passwd"), [PathBuf::from("/etc/passwd")]);
        assert_eq!(found("/usr:/nowhere:/etc"), [PathBuf::from("/usr"), "/etc".into()]);
        assert_eq!(found("file:///usr/lib,direct"), [PathBuf::from("/usr/lib")]);
        for none in ["http://proxy:3128", "https://usr/simple", "off", "", "/", "a,b|c"] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
