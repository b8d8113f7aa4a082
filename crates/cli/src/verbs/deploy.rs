//! `deploy`.

use std::cell::Cell as Counter;
use std::path::Path;

use berth_contract::{ChunkHash, Code, ExitStatus, ReleaseState, Strategy, SubmitRelease, TreeId};
use berth_source::walk::{Packed, pack};
use berth_source::{ChunkId, detect};
use berth_spec::manifest::Build;
use berth_spec::{AppId, Manifest};
use serde::Serialize;

use super::seen::Seen;
use super::{Session, app_of_directory, read_file};
use crate::args::{DeployArgs, StrategyChoice, Waiting};
use crate::failure::Failure;
use crate::figures::{counted, size};

/// What the directory holds.
pub(super) struct Source {
    packed: Packed,
    manifest_text: Option<String>,
    procfile_text: Option<String>,
    manifest: Manifest,
    chunks: Vec<ChunkHash>,
}

/// What `--dry-run` tells.
#[derive(Debug, Serialize)]
struct Plan {
    app: AppId,
    exists: bool,
    tree: String,
    entries: u64,
    bytes: u64,
    #[serde(flatten)]
    seen: Seen,
    chunks: usize,
    chunks_to_send: usize,
    active: Option<String>,
    change: String,
}

impl Session<'_> {
    pub(super) async fn deploy(&mut self, args: DeployArgs) -> Result<ExitStatus, Failure> {
        let path = self.source_directory(&args.path)?;
        let app = match &args.of.app {
            Some(app) => self.project.app(app.clone()),
            None => self.project.app(app_of_directory(&path)?),
        };
        self.screen.status("reading the source")?;
        let source = read_source(&path, args.image.as_deref())?;
        if args.dry_run {
            return self.dry_run(app, &source).await;
        }
        if args.image.is_none() {
            self.check_alone(&path, &source, &app)?;
        }
        let exists = self.is_there(&app).await?;
        if !exists {
            self.make(&app).await?;
        }
        let said = Said {
            image: args.image,
            strategy: args.strategy.map(strategy),
            description: args.message,
            commit: args.commit.or_else(|| commit_of(&path)),
        };
        self.deploy_source(&app, &source, Some(said), args.waiting).await
    }

    /// Uploads the source of an app that is there, and makes a release of it.
    pub(super) async fn deploy_source(
        &mut self,
        app: &AppId,
        source: &Source,
        said: Option<Said>,
        waiting: Waiting,
    ) -> Result<ExitStatus, Failure> {
        let tree = self.upload(app, source).await?;
        let Said { image, strategy, description, commit } = said.unwrap_or_default();
        let submit = SubmitRelease {
            tree,
            manifest: source.manifest_text.clone(),
            procfile: source.procfile_text.clone(),
            image,
            strategy,
            description,
            commit,
        };
        let release = self.client.submit(app, &submit).await?;
        self.screen.clear_status()?;
        if !self.json {
            self.screen.line(&format!("deploying {} as {}", app.app, release.number))?;
            self.warn_of_sizes(&source.manifest).await?;
        }
        self.follow(app, release, waiting).await
    }

    /// A directory of which a compose file with several services is the only description is not one app.
    fn check_alone(&self, path: &Path, source: &Source, app: &AppId) -> Result<(), Failure> {
        if source.manifest_text.is_some() || source.procfile_text.is_some() {
            return Ok(());
        }
        let Some((file, count)) = super::stack::described_by(path)? else { return Ok(()) };
        if count < 2 || detect(&source.packed, &source.manifest, &app.app).is_ok() {
            return Ok(());
        }
        let detail =
            format!("{file} describes {count} services, and nothing else here says what one app would run");
        Err(Failure::local(
            Code::NothingToRun,
            detail,
            "`berth stack up` runs each of them as an app, `berth stack up --dry-run` shows how",
        ))
    }

    pub(super) async fn is_there(&mut self, app: &AppId) -> Result<bool, Failure> {
        match self.client.app(app).await {
            Ok(_) => Ok(true),
            Err(problem) if problem.code() == Code::AppNotFound => Ok(false),
            Err(problem) => Err(problem.into()),
        }
    }

    pub(super) async fn make(&mut self, app: &AppId) -> Result<(), Failure> {
        match self.client.create_app(&app.project_id(), app.app.clone()).await {
            Ok(_) => self.hint(&format!("made the app {}", app.app)),
            // Another deploy was quicker.
            Err(problem) if problem.code() == Code::AppExists => Ok(()),
            Err(problem) => Err(problem.into()),
        }
    }

    async fn upload(&mut self, app: &AppId, source: &Source) -> Result<TreeId, Failure> {
        let client = self.client.clone();
        let missing = client.missing_chunks(&app.tenant, &source.chunks).await?;
        let (sent, count) = (Counter::new(0_u64), Counter::new(0_usize));
        // The display belongs to the session while the upload reports from inside, so it is lent to the callback.
        let screen = std::cell::RefCell::new(&mut *self.screen);
        let total = missing.len();
        let pieces = u64::try_from(total).unwrap_or(u64::MAX);
        let report = |length: usize| {
            sent.set(sent.get() + u64::try_from(length).unwrap_or(0));
            count.set(count.get() + 1);
            let text = format!("sending the source: {} of {total} pieces, {}", count.get(), size(sent.get()));
            // A display that cannot be drawn must not end an upload; the next line that matters will tell.
            drop(screen.borrow_mut().status(&text));
        };
        let read = |hash: &ChunkHash| {
            let id: ChunkId = hash.as_str().parse().map_err(std::io::Error::other)?;
            source.packed.read(&id).map_err(std::io::Error::other)
        };
        client.upload_chunks(&app.tenant, &missing, read, report).await?;
        if total > 0 && !self.json && !self.screen.live {
            self.screen.line(&format!(
                "sent {} of the source, {}",
                counted(pieces, "piece"),
                size(sent.get())
            ))?;
        }
        Ok(client.put_tree(&app.tenant, source.packed.tree().canonical_json()).await?)
    }

    async fn dry_run(&mut self, app: AppId, source: &Source) -> Result<ExitStatus, Failure> {
        let tree = source.packed.tree();
        let detection = detect(&source.packed, &source.manifest, &app.app);
        let exists = self.is_there(&app).await?;
        let releases = if exists { self.client.releases(&app).await?.releases } else { Vec::new() };
        let active = releases.iter().find(|release| release.state == ReleaseState::Active);
        let missing = self.client.missing_chunks(&app.tenant, &source.chunks).await?;
        let id = tree.id().to_string();
        let change = match active {
            None => "nothing serves yet: it would be the first release to serve".to_owned(),
            Some(active) if active.tree.as_ref().is_some_and(|tree| tree.as_str() == id) => {
                format!("the source is the same as that of {}", active.number)
            }
            Some(active) => format!("the source differs from that of {}", active.number),
        };
        let plan = Plan {
            exists,
            entries: u64::try_from(tree.entries().len()).unwrap_or(u64::MAX),
            bytes: tree.size(),
            tree: id,
            seen: Seen::new(&detection, &source.manifest),
            chunks: source.chunks.len(),
            chunks_to_send: missing.len(),
            active: active.map(|active| active.number.to_string()),
            change,
            app,
        };
        let runs = plan.seen.problem.is_none();
        self.screen.clear_status()?;
        self.show(&plan, |session| session.show_plan(&plan))?;
        Ok(if runs { ExitStatus::Ok } else { ExitStatus::Refused })
    }

    fn show_plan(&mut self, plan: &Plan) -> Result<(), Failure> {
        let app = format!("{}{}", plan.app.app, if plan.exists { "" } else { " (would be made)" });
        let mut facts = vec![
            ("app", app),
            ("source", format!("{}, {}", counted(plan.entries, "entry"), size(plan.bytes))),
            ("to send", format!("{} of {} pieces", plan.chunks_to_send, plan.chunks)),
        ];
        facts.extend(plan.seen.facts());
        facts.push(("change", plan.change.clone()));
        self.facts(&facts)?;
        self.hint("nothing was done")
    }
}

/// What whoever deploys says beside the source.
#[derive(Debug, Default)]
pub(super) struct Said {
    image: Option<String>,
    strategy: Option<Strategy>,
    description: Option<String>,
    commit: Option<String>,
}

impl Source {
    pub(super) fn new(
        packed: Packed,
        manifest_text: Option<String>,
        procfile_text: Option<String>,
        manifest: Manifest,
    ) -> Self {
        let chunks = packed.tree().chunks();
        let chunks =
            chunks.iter().map(|id| id.to_string().parse().expect("both are 64 hex digits")).collect();
        Self { packed, manifest_text, procfile_text, manifest, chunks }
    }
}

fn read_source(path: &Path, image: Option<&str>) -> Result<Source, Failure> {
    let manifest_text = read_file(path, berth_spec::manifest::FILE_NAME)?;
    let procfile_text = match image {
        Some(_) => None,
        None => read_file(path, berth_spec::procfile::FILE_NAME)?,
    };
    let mut manifest =
        Manifest::read(manifest_text.as_deref(), procfile_text.as_deref()).map_err(Failure::Manifest)?;
    if let Some(image) = image {
        manifest.build = Build { image: Some(image.to_owned()), ..Build::default() };
    }
    // Nothing of the source is in an image's release.
    let packed = if manifest.build.image.is_some() { Packed::default() } else { pack(path)? };
    Ok(Source::new(packed, manifest_text, procfile_text, manifest))
}

const fn strategy(choice: StrategyChoice) -> Strategy {
    match choice {
        StrategyChoice::Bluegreen => Strategy::Bluegreen,
        StrategyChoice::Canary => Strategy::Canary,
        StrategyChoice::Rolling => Strategy::Rolling,
        StrategyChoice::Recreate => Strategy::Recreate,
    }
}

/// The commit that a git repository in the directory is at. Its files are read as they are; no program is started, and what
/// cannot be read is simply not known.
fn commit_of(directory: &Path) -> Option<String> {
    let git = directory.join(".git");
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let is_commit = |text: &str| text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let head = head.trim();
    let Some(name) = head.strip_prefix("ref: ") else { return is_commit(head).then(|| head.to_owned()) };
    if !name.starts_with("refs/") || name.split('/').any(|part| part.is_empty() || part == "..") {
        return None;
    }
    let loose = std::fs::read_to_string(git.join(name)).ok().map(|text| text.trim().to_owned());
    let found = loose.or_else(|| {
        let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
        packed.lines().find_map(|line| Some(line.strip_suffix(name)?.strip_suffix(' ')?.to_owned()))
    });
    found.filter(|commit| is_commit(commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_read_without_git() {
        let directory = tempfile::tempdir().unwrap();
        let git = directory.path().join(".git");
        assert_eq!(commit_of(directory.path()), None);
        std::fs::create_dir_all(git.join("refs/heads")).unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        std::fs::write(git.join("packed-refs"), format!("# pack\n{two} refs/heads/main\n")).unwrap();
        assert_eq!(commit_of(directory.path()).as_deref(), Some(two.as_str()));
        std::fs::write(git.join("refs/heads/main"), format!("{one}\n")).unwrap();
        assert_eq!(commit_of(directory.path()).as_deref(), Some(one.as_str()));
        std::fs::write(git.join("HEAD"), "ref: refs/../../../etc/passwd\n").unwrap();
        assert_eq!(commit_of(directory.path()), None);
        std::fs::write(git.join("HEAD"), &two).unwrap();
        assert_eq!(commit_of(directory.path()).as_deref(), Some(two.as_str()));
    }
}
