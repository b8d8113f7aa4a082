//! Making one artifact: lay out, run, take the outcome, seal, put into place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_clock::random_bytes;
use berth_process::{Cgroup, Ground, Mark, Program};
use berth_source::lay::{Owner, materialise};
use berth_spec::manifest::Builder as Kind;
use berth_spec::{Command, RelativeDir};
use serde::{Deserialize, Serialize};

use super::{Inside, Plan, blocking};
use crate::cargo::{self, Programs};
use crate::error::{BuildError, failed};
use crate::remove::{make_writable, open_dir, open_dir_at, remove_all};
use crate::run::Run;
use crate::seal::{SealedOwner, seal};
use crate::toolchain::Toolchain;

/// Where programs of the system are looked for by a build that runs as a user of its own; our own `PATH` may lead into
/// folders that it cannot read.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A disk with less than so many bytes left is taken for the reason why a command failed.
const NEARLY_FULL: u64 = 1024 * 1024;

/// What is written down of an artifact beside its files.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    bytes: u64,
}

/// The work directory of a build.
pub(super) struct Work {
    src: PathBuf,
    tmp: PathBuf,
    cache: PathBuf,
    mark: Mark,
    cgroup: Option<Cgroup>,
    toolchain: Option<Toolchain>,
}

/// The bytes that a note tells of; none when there is no note.
pub(super) fn noted_bytes(note: &Path) -> u64 {
    let read = fs::read(note).ok().and_then(|json| serde_json::from_slice::<Note>(&json).ok());
    read.map_or(0, |note| note.bytes)
}

impl Inside {
    /// Makes the artifact and gives its bytes. Whatever happens, the work directory is gone afterwards.
    pub(super) async fn make(self: &Arc<Self>, plan: &Arc<Plan>) -> Result<u64, BuildError> {
        let outcome = self.try_make(plan).await;
        let (inside, cleaned) = (Arc::clone(self), Arc::clone(plan));
        let clean = blocking(move || inside.clean(&cleaned)).await;
        if let Err(error) = &clean {
            // The artifact stands or does not; what is left over goes with the next sweep.
            tracing::warn!(app = %plan.request.app, %error, "a build's work directory could not be removed");
        }
        outcome
    }

    async fn try_make(self: &Arc<Self>, plan: &Arc<Plan>) -> Result<u64, BuildError> {
        let (inside, planned) = (Arc::clone(self), Arc::clone(plan));
        let work = Arc::new(blocking(move || inside.prepare(&planned)).await?);
        if plan.request.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        if let Some(command) = &plan.request.manifest.build.command {
            plan.log.say(format!("running {command}"));
            let ran = self.run_command(plan, &work, command).await;
            ran.map_err(|error| self.blame_disk(error))?;
        }
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
        blocking(move || inside.place(&planned, &work, &programs)).await
    }

    /// Makes the work directory with the source in it.
    ///
    /// The directory itself is ours, so that the build can neither replace what is in it nor read the mark of another
    /// build; `src` and `tmp` are the build's.
    fn prepare(&self, plan: &Plan) -> Result<Work, BuildError> {
        let request = &plan.request;
        let dir = self.layout.work(&request.app, request.number);
        remove_all(&dir).map_err(failed(&dir, "removed"))?;
        self.layout.make(&self.layout.builds, &dir)?;
        let mark = Mark(random_bytes(&*self.clock));
        let mark_path = dir.join("mark");
        fs::write(&mark_path, mark.0).map_err(failed(&mark_path, "written"))?;
        set_mode(&mark_path, 0o600)?;
        let cache = self.layout.cache(&request.app);
        let (src, tmp) = (dir.join("src"), dir.join("tmp"));
        for own in [&src, &tmp] {
            self.make_own(plan, own)?;
        }
        let toolchain = match &plan.toolchain {
            None => None,
            Some(toolchain) => {
                self.layout.make(&self.layout.builds, &cache)?;
                for own in [cache.join("cargo"), cache.join("target")] {
                    self.make_own(plan, &own)?;
                }
                Some(toolchain.clone().reachable(&self.layout, request.user.is_some())?)
            }
        };
        let owner = request.user.as_ref().map(|user| Owner { uid: user.uid, gid: user.gid });
        let open = open_dir(&src).map_err(failed(&src, "read"))?;
        materialise(&plan.tree, &plan.store, open.as_fd(), owner)?;
        let cgroup = self.config.cgroups.as_ref().map(|groups| groups.create(&cgroup_name(&dir)));
        let cgroup = cgroup.transpose().map_err(failed(&dir, "given a control group"))?;
        Ok(Work { src, tmp, cache, mark, cgroup, toolchain })
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

    async fn run_command(&self, plan: &Plan, work: &Work, command: &Command) -> Result<(), BuildError> {
        let env = self.env(plan, work);
        let ground = ground(plan, work)?;
        let refuse = |error: berth_spec::CommandError| BuildError::Start(error.into());
        let (program, args) = match command {
            Command::Shell(line) => (Some(ground.shell(line)), Vec::new()),
            Command::Argv(_) | Command::Line(_) | Command::StaticSite { .. } => {
                let mut argv = command.argv(&env).map_err(refuse)?;
                let args = argv.split_off(1);
                let name = argv.pop().unwrap_or_default();
                (ground.program(&name, env.get("PATH").map_or("", String::as_str).as_ref()), args)
            }
        };
        let shown = command.to_string();
        let Some(program) = program else {
            let outcome = "is not installed: no folder of PATH has it".to_owned();
            return Err(BuildError::Failed { command: shown, outcome, tail: Vec::new() });
        };
        self.run(plan, work, program, args, shown, env).complete(None).await
    }

    async fn run_cargo(
        &self,
        plan: &Plan,
        work: &Work,
        toolchain: &Toolchain,
        programs: &mut Programs,
    ) -> Result<(), BuildError> {
        let mut env = self.env(plan, work);
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

    fn run<'a>(
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
            own_user: plan.request.user.is_some(),
            limit: self.config.timeout,
            cancel: &plan.request.cancel,
            clock: &self.clock,
            log: &plan.log,
        }
    }

    /// The environment of every build. Nothing of ours is handed on but, to a build that runs as ourselves, where programs are.
    fn env(&self, plan: &Plan, work: &Work) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let path = match plan.request.user {
            Some(_) => SYSTEM_PATH.to_owned(),
            None => self.config.toolchains.path.to_string_lossy().into_owned(),
        };
        BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), text(&work.tmp)),
            ("TMPDIR".to_owned(), text(&work.tmp)),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("APP_NAME".to_owned(), plan.request.app.app.to_string()),
            ("ARTIFACT_DIR".to_owned(), text(&self.layout.artifact(&plan.request.app, &plan.id))),
        ])
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
    fn place(&self, plan: &Plan, work: &Work, programs: &Programs) -> Result<u64, BuildError> {
        let request = &plan.request;
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
        let output = request.manifest.build.output.clone().unwrap_or_else(RelativeDir::here);
        take_output(&work.src, &output, &staging)?;
        check_roots(plan, &staging)?;
        let owner = match (self.config.sealed_uid, request.app_gid) {
            (Some(uid), Some(gid)) => Some(SealedOwner { uid, gid }),
            _ => None,
        };
        let sealed = seal(&staging, owner, &plan.log)?;
        let note = self.layout.note(&request.app, &plan.id);
        write_synced(&note, &Note { format: 1, bytes: sealed.bytes })?;
        let target = self.layout.artifact(&request.app, &plan.id);
        // As an ordinary user the sealed directory itself is read-only, and moving one writes its `..`; within one
        // parent it does not.
        fs::rename(&staging, &target).map_err(failed(&target, "put into place"))?;
        File::open(&folder).and_then(|dir| dir.sync_all()).map_err(failed(&folder, "synced"))?;
        Ok(sealed.bytes)
    }

    /// Removes the work directory, and the staging directory of a build that failed.
    fn clean(&self, plan: &Plan) -> Result<(), BuildError> {
        let dir = self.layout.work(&plan.request.app, plan.request.number);
        if let Some(groups) = &self.config.cgroups {
            groups.group(&cgroup_name(&dir)).remove().map_err(failed(&dir, "freed of its control group"))?;
        }
        let staging = self.layout.staging(&plan.request.app, &plan.id);
        for path in [staging, dir] {
            remove_all(&path).map_err(failed(&path, "removed"))?;
        }
        Ok(())
    }
}

/// The control group of the build in a work directory: `build.default.default.shop.7`.
pub(super) fn cgroup_name(work: &Path) -> String {
    let mut names: Vec<_> = work.iter().rev().take(4).map(|name| name.to_string_lossy()).collect();
    names.reverse();
    format!("build.{}", names.join("."))
}

fn ground(plan: &Plan, work: &Work) -> Result<Ground, BuildError> {
    Ground::new(&work.src, plan.request.user.clone()).map_err(|error| BuildError::Start(error.into()))
}

/// Moves the directory `output` of the tree at `src` to `staging`, through no link.
fn take_output(src: &Path, output: &RelativeDir, staging: &Path) -> Result<(), BuildError> {
    let absent = || BuildError::Outcome(format!("the build made no directory `{output}`"));
    let mut at = src.parent().unwrap_or(src).to_owned();
    let mut above = open_dir(&at).map_err(failed(&at, "read"))?;
    let mut last = "src";
    for segment in output.as_str().split('/').filter(|segment| *segment != ".") {
        at.push(last);
        above = open_dir_at(&above, last).ok().ok_or_else(absent)?;
        last = segment;
    }
    open_dir_at(&above, last).ok().ok_or_else(absent)?;
    make_writable(&above, last).map_err(failed(&at, "moved"))?;
    rustix::fs::renameat(&above, last, rustix::fs::CWD, staging).map_err(failed(staging, "put into place"))
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

fn set_mode(path: &Path, mode: u32) -> Result<(), BuildError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(failed(path, "made"))
}

fn write_synced(path: &Path, note: &Note) -> Result<(), BuildError> {
    let json = serde_json::to_vec(note).expect("two numbers have a JSON");
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&json)?;
        file.sync_all()
    });
    written.map_err(failed(path, "written"))
}
