//! Where builds and artifacts lie, and who may pass through.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use berth_spec::AppId;
use serde::Serialize;

use crate::artifact::ArtifactId;
use crate::error::{BuildError, failed};

/// Below the folder of builds: what is kept from one build to the next, per app. No tenant's name begins with a dot.
const CACHE: &str = ".cache";
/// Below the folder of builds: toolchains made readable for build users.
const TOOLCHAINS: &str = ".toolchains";
/// Below an app's artifacts: what they share.
pub(crate) const LAYERS: &str = ".layers";
/// Below an app's cache: what is moved into its trees.
pub(crate) const KEPT: &str = ".kept";
/// An artifact being sealed.
pub(crate) const NEW: &str = ".new-";
/// An artifact being removed.
pub(crate) const GONE: &str = ".gone-";

/// The folders of a platform that builds use.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) artifacts: PathBuf,
    pub(crate) builds: PathBuf,
    /// As root, the group whose members may pass through the folders to what is theirs; everybody when not given.
    pub(crate) passage: Option<u32>,
}

impl Layout {
    pub(crate) fn artifacts_of(&self, app: &AppId) -> PathBuf {
        below(&self.artifacts, app)
    }

    pub(crate) fn artifact(&self, app: &AppId, id: &ArtifactId) -> PathBuf {
        self.artifacts_of(app).join(id.as_str())
    }

    /// What is known of an artifact beside its files.
    pub(crate) fn note(&self, app: &AppId, id: &ArtifactId) -> PathBuf {
        self.artifacts_of(app).join(format!("{id}.json"))
    }

    pub(crate) fn staging(&self, app: &AppId, id: &ArtifactId) -> PathBuf {
        self.artifacts_of(app).join(format!("{NEW}{id}"))
    }

    pub(crate) fn leaving(&self, app: &AppId, id: &ArtifactId) -> PathBuf {
        self.artifacts_of(app).join(format!("{GONE}{id}"))
    }

    pub(crate) fn layers(&self, app: &AppId) -> PathBuf {
        self.artifacts_of(app).join(LAYERS)
    }

    /// The work directory of the build of `app` that has this turn of those that run at once. It is not named by the release: what tools keep
    /// from one build to the next holds paths of the tree, and has to fit the next tree.
    pub(crate) fn work(&self, app: &AppId, turn: u32) -> PathBuf {
        below(&self.builds, app).join(turn.to_string())
    }

    pub(crate) fn builds_of(&self, app: &AppId) -> PathBuf {
        below(&self.builds, app)
    }

    pub(crate) fn caches(&self) -> PathBuf {
        self.builds.join(CACHE)
    }

    pub(crate) fn cache(&self, app: &AppId) -> PathBuf {
        below(&self.caches(), app)
    }

    /// What is kept of folders that are moved into an app's trees.
    pub(crate) fn kept(&self, app: &AppId) -> PathBuf {
        self.cache(app).join(KEPT)
    }

    pub(crate) fn toolchains(&self) -> PathBuf {
        self.builds.join(TOOLCHAINS)
    }

    /// Makes `dir` and what leads to it from `base`, each passable for those who may.
    pub(crate) fn make(&self, base: &Path, dir: &Path) -> Result<(), BuildError> {
        let mut at = base.to_owned();
        self.make_one(&at)?;
        for segment in dir.strip_prefix(base).unwrap_or(Path::new("")).components() {
            at.push(segment);
            self.make_one(&at)?;
        }
        Ok(())
    }

    fn make_one(&self, dir: &Path) -> Result<(), BuildError> {
        let as_root = rustix::process::geteuid().is_root();
        let mode = match self.passage {
            _ if !as_root => 0o700,
            Some(_) => 0o710,
            None => 0o711,
        };
        match DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.map_err(failed(dir, "made"))?,
        }
        if as_root {
            std::os::unix::fs::chown(dir, None, self.passage).map_err(failed(dir, "made"))?;
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(dir, permissions).map_err(failed(dir, "made"))
    }

    /// The directories of apps below `base`: those three names deep.
    pub(crate) fn apps_below(base: &Path) -> Vec<PathBuf> {
        let mut level = vec![base.to_owned()];
        for _ in 0..3 {
            level = level.iter().flat_map(|dir| entries(dir)).filter(|path| !is_hidden(path)).collect();
        }
        level
    }

    /// Whether `path` is what a killed build or removal left in a folder of artifacts.
    pub(crate) fn is_leftover(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let orphan = name
            .strip_suffix(".json")
            .is_some_and(|id| matches!(path.with_file_name(id).try_exists(), Ok(false)));
        name.starts_with(NEW) || name.starts_with(GONE) || orphan
    }
}

/// Writes what is known of a thing beside it, on disk for good.
pub(crate) fn write_synced(path: &Path, note: &impl Serialize) -> Result<(), BuildError> {
    let json = serde_json::to_vec(note).expect("plain data has a JSON");
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&json)?;
        file.sync_all()
    });
    written.map_err(failed(path, "written"))
}

fn below(base: &Path, app: &AppId) -> PathBuf {
    base.join(app.tenant.as_str()).join(app.project.as_str()).join(app.app.as_str())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// What lies in `dir`; nothing when it is none.
pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
