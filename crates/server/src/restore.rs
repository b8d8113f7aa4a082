//! Laying a backup out as the parts of a home: journal, sources, artifacts, volumes. Whoever calls makes the rest of the home, and makes it count only
//! once this has ended well.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use berth_backup::{BackupError, Entry, KeyFile, Kind, Place, Reader};
use berth_build::{ArtifactId, BuildError, Relocation, Shelf, Unsealed};
use berth_control::invariant::kept_artifacts;
use berth_control::state::{Life, State};
use berth_journal::{Journal, OpenError, Options, Position, ReadError, ReplayError};
use berth_source::{ChunkStore, StoreError, Tree};
use berth_spec::{AppId, TenantName, VolumeName};

use crate::config::UidPlan;
use crate::git::bundle;
use crate::replay::{self, Unfoldable};

/// The longest chunk and the longest tree.
const CHUNK_MAX: u64 = berth_source::chunk::CHUNK_MAX as u64;
const TREE_MAX: u64 = berth_source::tree::JSON_MAX as u64;
/// The longest note of an artifact.
const NOTE_MAX: u64 = 64 << 10;

/// Why a backup could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive is not one that can be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file could not be written.
    #[error("{} could not be written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal in it cannot be opened.
    #[error("the journal in the backup cannot be opened")]
    Journal(#[from] Box<OpenError>),
    /// The journal in it cannot be read.
    #[error("the journal in the backup cannot be read")]
    Read(#[from] ReadError),
    /// The journal in it holds what this version does not understand.
    #[error("the journal in the backup cannot be replayed")]
    Replay(#[from] Box<ReplayError<Unfoldable>>),
    /// The journal in it is not whole.
    #[error("the journal in the backup is damaged: {0}")]
    Unsound(String),
    /// A source could not be kept.
    #[error("a source of the backup could not be kept")]
    Source(#[from] StoreError),
    /// An artifact could not be laid out.
    #[error("an artifact of the backup could not be laid out")]
    Artifact(#[from] BuildError),
    /// A volume could not be laid out.
    #[error("a volume of the backup could not be laid out")]
    Volume(#[from] berth_volume::VolumeError),
    /// Something that the journal needs is not there.
    #[error("the backup lacks {0}, which its journal needs")]
    Incomplete(String),
}

/// What was laid out.
#[derive(Debug)]
pub struct LaidOut {
    /// The state at the end of the journal.
    pub state: State,
    /// The key, if the archive had it.
    pub key: Option<KeyFile>,
    /// Apps whose artifacts hold paths of the home that was saved which lead nowhere in this one.
    pub elsewhere: BTreeSet<AppId>,
    /// What was not there when the backup was made.
    pub missing: Vec<String>,
}

/// Lays the archive out below `at`. Artifacts are sealed as `plan` says. `home` is where all this will lie in the end.
///
/// # Errors
/// [`RestoreError`]; what was laid out by then is good for nothing.
pub fn lay_out(
    mut reader: Reader<impl Read>,
    at: &Path,
    home: &Path,
    plan: Option<UidPlan>,
) -> Result<LaidOut, RestoreError> {
    let shelf = Shelf::new(at.join("artifacts"), plan.map(UidPlan::platform_gid), plan.map(UidPlan::sealed));
    let saved = PathBuf::from(&reader.head().home);
    // Tools that builds made reachable are not saved; where the home is another one, no path of the old one leads anywhere.
    let mut gone = vec![format!("{}/builds/.", saved.display())];
    if saved != home {
        gone.push(format!("{}/artifacts/", saved.display()));
    }
    let mut laying = Laying {
        at,
        home,
        saved,
        shelf,
        plan,
        gone,
        state: None,
        key: None,
        open: None,
        elsewhere: BTreeSet::new(),
        laid: BTreeSet::new(),
    };
    while let Some(entry) = reader.next()? {
        laying.take(entry, &mut reader)?;
    }
    laying.close()?;
    let missing = reader.foot().map(|foot| foot.missing.clone()).unwrap_or_default();
    let state = laying.state.ok_or_else(|| RestoreError::Incomplete("a journal".to_owned()))?;
    for app in state.apps.values().filter(|app| app.life != Life::Destroyed) {
        for id in kept_artifacts(app) {
            let name = Place::Artifact(app.id.clone(), id.clone(), String::new()).name();
            if !laying.laid.contains(&(app.id.clone(), id)) && !missing.contains(&name) {
                return Err(RestoreError::Incomplete(name));
            }
        }
    }
    Ok(LaidOut { state, key: laying.key, elsewhere: laying.elsewhere, missing })
}

struct Laying<'a> {
    at: &'a Path,
    home: &'a Path,
    /// The home that was saved.
    saved: PathBuf,
    shelf: Shelf,
    plan: Option<UidPlan>,
    /// What paths begin with that lead nowhere in the restored home.
    gone: Vec<String>,
    state: Option<State>,
    key: Option<KeyFile>,
    open: Option<(AppId, ArtifactId, Unsealed)>,
    elsewhere: BTreeSet<AppId>,
    laid: BTreeSet<(AppId, String)>,
}

impl Laying<'_> {
    fn take(&mut self, entry: Entry, reader: &mut Reader<impl Read>) -> Result<(), RestoreError> {
        let size = match &entry.kind {
            Kind::File { size, .. } => *size,
            Kind::Link { .. } | Kind::Directory => 0,
        };
        match entry.place {
            Place::Head | Place::Foot => Ok(()),
            Place::Journal => self.journal(reader),
            Place::Key => {
                self.key = Some(KeyFile::decode(&reader.whole(size, KeyFile::MAX)?)?);
                Ok(())
            }
            Place::Chunk(tenant, hash) => {
                let id = hash.parse().map_err(|_no_hash| lost(&hash))?;
                Ok(self.store(&tenant)?.put(&id, &reader.whole(size, CHUNK_MAX)?)?)
            }
            Place::Tree(tenant, id) => {
                let json = reader.whole(size, TREE_MAX)?;
                let tree = Tree::from_json(&json).map_err(StoreError::from)?;
                if tree.id().to_string() != id {
                    return Err(BackupError::Damaged { what: id }.into());
                }
                self.store(&tenant)?.put_tree(&tree)?;
                Ok(())
            }
            Place::Bundle(app) => self.repository(&app, 0, reader),
            Place::Shallow(app) if size <= bundle::SHALLOW_MAX => self.repository(&app, 1, reader),
            Place::Shallow(app) => Err(lost(&app.to_string()).into()),
            Place::Volume(app, volume) => self.volume(&app, &volume, reader),
            Place::Note(app, id) => {
                let id: ArtifactId = id.parse().map_err(|_no_id| lost(&id))?;
                let path = self.shelf.note(&app, &id)?;
                write_new(&path, &mut &reader.whole(size, NOTE_MAX)?[..])
            }
            Place::Artifact(app, id, path) => self.artifact(app, id, &path, entry.kind, reader),
        }
    }

    fn store(&self, tenant: &TenantName) -> Result<ChunkStore, StoreError> {
        ChunkStore::open(&self.at.join("chunks"), tenant)
    }

    /// Lays the journal out, checks it, and folds it: what follows is laid out as the state says.
    fn journal(&mut self, reader: &mut Reader<impl Read>) -> Result<(), RestoreError> {
        let dir = self.at.join("journal");
        fs::create_dir(&dir).map_err(failed(&dir))?;
        let (path, expected) = (dir.join("journal.db"), reader.head().position);
        write_new(&path, reader)?;
        let journal = Journal::open(&dir, Options::default()).map_err(Box::new)?;
        if let Some(problem) = journal.check()?.into_iter().next() {
            return Err(RestoreError::Unsound(problem));
        }
        if journal.head() != Position(expected) {
            return Err(RestoreError::Unsound(format!(
                "it ends at {}, and should at {expected}",
                journal.head()
            )));
        }
        let mut state = State::default();
        let folded = journal.replay(Position::START.next(), journal.head(), |event| {
            replay::fold(&mut state, &event).map(drop)
        });
        folded.map_err(Box::new)?;
        journal.close().map_err(|error| RestoreError::Unsound(error.to_string()))?;
        self.state = Some(state);
        Ok(())
    }

    fn artifact(
        &mut self,
        app: AppId,
        id: String,
        path: &str,
        kind: Kind,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), RestoreError> {
        let id: ArtifactId = id.parse().map_err(|_no_id| lost(&id))?;
        if self.open.as_ref().is_none_or(|(open_app, open_id, _)| (open_app, open_id) != (&app, &id)) {
            self.close()?;
            let unsealed = self.shelf.begin(&app, &id)?;
            self.open = Some((app.clone(), id.clone(), unsealed));
        }
        let Some((_, _, unsealed)) = &self.open else { return Ok(()) };
        let place = |home: &Path| home.join("artifacts").join(app.to_string()).join(id.to_string());
        // As where it was built: texts and links that name the artifact's own place follow it.
        let (was, is) = (place(&self.saved), place(self.home));
        let relocation = Relocation::new(&was, &is);
        let written = match kind {
            Kind::Directory if path.is_empty() => Ok(()),
            Kind::Directory => unsealed.directory(path),
            Kind::Link { target } => {
                let moved =
                    relocation.target(target.as_bytes()).and_then(|moved| String::from_utf8(moved).ok());
                let target = moved.unwrap_or(target);
                if self.gone.iter().any(|gone| target.starts_with(gone.as_str())) {
                    self.elsewhere.insert(app.clone());
                }
                unsealed.link(path, &target)
            }
            Kind::File { exec, size } => {
                let text = if size <= Relocation::TEXT_MAX { reader.whole(size, size)? } else { Vec::new() };
                let text = relocation.text(&text).unwrap_or(text);
                // What was read whole is not there to be read any more, and of what is longer nothing was read.
                let inner = &mut (&text[..]).chain(&mut *reader);
                let mut content = Looking { inner, wanted: &self.gone, tail: Vec::new(), found: false };
                let written = unsealed.file(path, exec, &mut content);
                if content.found {
                    self.elsewhere.insert(app.clone());
                }
                written
            }
        };
        let name = Place::Artifact(app, id.to_string(), path.to_owned()).name();
        written.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Short { at: name }.into(),
            _ => RestoreError::Io { path: name.into(), source },
        })
    }

    /// Lays out a part of an app's repository, which is unpacked when it is first needed.
    fn repository(
        &self,
        app: &AppId,
        part: usize,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), RestoreError> {
        let app = self.state.as_ref().and_then(|state| state.apps.get(app));
        let app = app.ok_or_else(|| RestoreError::Incomplete("the app of a repository".to_owned()))?;
        let path = &bundle::waiting(self.at, app)[part];
        let dir = path.parent().unwrap_or(self.at);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        write_new(path, reader)
    }

    fn volume(
        &self,
        app: &AppId,
        volume: &VolumeName,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), RestoreError> {
        let slot = self.state.as_ref().and_then(|state| state.apps.get(app)).map(|app| app.slot);
        let slot = slot.ok_or_else(|| RestoreError::Incomplete(format!("the app {app} of a volume")))?;
        let numbers = self.plan.and_then(|plan| plan.of_volumes(slot));
        let path = berth_volume::Store::new(self.at.join("volumes")).ensure(app, volume, None)?;
        Ok(berth_volume::unpack(&path, numbers.as_ref(), reader)?)
    }

    /// Seals the artifact that was being laid out.
    fn close(&mut self) -> Result<(), RestoreError> {
        let Some((app, id, unsealed)) = self.open.take() else { return Ok(()) };
        let slot = self.state.as_ref().and_then(|state| state.apps.get(&app)).map(|app| app.slot);
        let slot = slot.ok_or_else(|| RestoreError::Incomplete(format!("the app {app} of an artifact")))?;
        self.shelf.finish(unsealed, self.plan.and_then(|plan| plan.app(slot)))?;
        self.laid.insert((app, id.to_string()));
        Ok(())
    }
}

/// Passes a content on and looks for texts in it.
struct Looking<'a, R> {
    inner: &'a mut R,
    wanted: &'a [String],
    /// The end of what went by, which one of them may have begun in.
    tail: Vec<u8>,
    found: bool,
}

impl<R: Read> Read for Looking<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if !self.found {
            self.tail.extend_from_slice(buffer.get(..length).unwrap_or_default());
            let is_in = |wanted: &String| memchr::memmem::find(&self.tail, wanted.as_bytes()).is_some();
            self.found = self.wanted.iter().any(is_in);
            let keep = self.tail.len().min(self.wanted.iter().map(String::len).max().unwrap_or(0));
            self.tail.drain(..self.tail.len() - keep);
        }
        Ok(length)
    }
}

fn lost(name: &str) -> BackupError {
    BackupError::Damaged { what: name.to_owned() }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RestoreError + '_ {
    move |source| RestoreError::Io { path: path.to_owned(), source }
}

/// Writes a file that must not be there yet, and syncs it.
fn write_new(path: &Path, content: &mut impl Read) -> Result<(), RestoreError> {
    let write = |content: &mut dyn Read| -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(content, &mut file)?;
        file.sync_all()
    };
    write(content).map_err(failed(path))
}
