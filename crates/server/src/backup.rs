//! Saving the platform while it runs: a copy of the journal, and what the state at its end needs.
//!
//! The copy has a last event, and everything else follows from the state at that event: the artifacts of releases that may serve or be rolled
//! back to, their source trees with all chunks, and of each volume a snapshot. Nothing is collected as garbage meanwhile. Logs, caches of builds and what is seen of
//! instances are not saved: instances are started anew.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use berth_backup::{BackupError, Foot, Head, KeyFile, Place, Writer};
use berth_build::{Part, read_artifact};
use berth_clock::Clock;
use berth_control::invariant::kept_artifacts;
use berth_control::state::{App, Life, Phase, State};
use berth_journal::{Journal, ReplayError};
use berth_source::{ChunkId, ChunkStore, StoreError, TreeId};
use berth_spec::{AppId, EnvName, TenantName, VolumeName};
use tokio::runtime::Handle;

use self::snapshot::Taken;
use crate::desk::{Asker, Desk};
use crate::git::bundle::Saved;
use crate::machine::{Machine, in_full};
use crate::replay::{self, Unfoldable};

/// Where git writes a repository that is saved, a file without a name as soon as it is open.
const SCRATCH: &str = "backup.bundle";
/// The copy of the journal, beside it: on the same file system, and swept away by the next backup should this one be killed.
const COPY: &str = "backup.db";

/// Why the platform could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The journal could not be copied.
    #[error("the journal could not be copied")]
    Copy(#[from] berth_journal::BackupError),
    /// The journal could not be read.
    #[error("the journal could not be read")]
    Replay(#[from] Box<ReplayError<Unfoldable>>),
    /// The archive could not be written.
    #[error("the backup could not be written")]
    Archive(#[from] BackupError),
    /// Stored sources could not be read.
    #[error("a stored source could not be read")]
    Store(#[from] StoreError),
    /// A snapshot of a volume could not be read.
    #[error("a snapshot of a volume could not be read")]
    Volume(#[from] berth_volume::VolumeError),
}

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        Self::Archive(error.into())
    }
}

/// What is saved, and from where.
#[derive(Debug)]
pub struct Saving {
    /// The home.
    pub home: PathBuf,
    /// The journal.
    pub journal: Arc<Journal>,
    /// The state that goes with it.
    pub desk: Desk,
    /// The platform's id.
    pub platform: String,
    /// The addresses of edge and of the API.
    pub addresses: [String; 2],
    /// The id of the key that secrets are sealed under.
    pub key_id: String,
    /// The key itself, where it is to be saved too.
    pub key: Option<KeyFile>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who asks, in whose name snapshots are taken.
    pub asker: Asker,
    /// The machine with the repositories, which are saved by git.
    pub machine: Arc<Machine>,
    /// What waits for git.
    pub runtime: Handle,
    /// Whether volumes are saved.
    pub volumes: bool,
}

/// The copy of the journal, gone when it is dropped.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            crate::events::could_not("remove the copy of the journal", &error);
        }
    }
}

impl Saving {
    /// Writes the archive to `out`. Blocks.
    ///
    /// # Errors
    /// [`SaveError`]; what was written is no backup then.
    pub fn save(&self, out: impl Write) -> Result<Foot, SaveError> {
        let path = self.home.join("journal").join(COPY);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // Not behind the copy, and so never ahead of it.
        let mut state = self.desk.read(State::clone);
        let end = self.journal.backup_to(&path)?;
        let copy = Copy(path);
        let next = berth_journal::Position(state.position).next();
        let caught_up = self.journal.replay(next, end, |event| replay::fold(&mut state, &event).map(drop));
        caught_up.map_err(Box::new)?;
        let (journal_bytes, journal_sha256) = hashed(&copy.0)?;
        let head = Head { journal_bytes, journal_sha256, position: end.0, ..self.head(&state) };
        let mut writer = Writer::begin(out, &head)?;
        writer.file(&Place::Journal, false, journal_bytes, File::open(&copy.0)?)?;
        drop(copy);
        if let Some(key) = &self.key {
            let text = key.encode();
            writer.file(&Place::Key, false, text.len() as u64, &text[..])?;
        }
        let live = || state.apps.values().filter(|app| app.life != Life::Destroyed);
        let mut trees: BTreeMap<TenantName, BTreeSet<TreeId>> = BTreeMap::new();
        for app in live() {
            trees.entry(app.id.tenant.clone()).or_default().extend(needed_trees(app));
        }
        for (tenant, trees) in trees {
            self.sources(&tenant, &trees, &mut writer)?;
        }
        for app in live() {
            for id in kept_artifacts(app) {
                self.artifact(&app.id, &id, &mut writer)?;
            }
        }
        for app in live() {
            self.repository(app, &mut writer)?;
        }
        for app in live().filter(|_| self.volumes) {
            self.volumes(app, &mut writer)?;
        }
        Ok(writer.finish()?.1)
    }

    fn head(&self, state: &State) -> Head {
        let live = || state.apps.values().filter(|app| app.life != Life::Destroyed);
        let names = |app: &App| app.secret_versions().into_keys().collect::<Vec<EnvName>>();
        let secrets = live().map(|app| (app.id.clone(), names(app))).filter(|(_, names)| !names.is_empty());
        let [edge, api] = self.addresses.clone();
        Head {
            format: Head::FORMAT,
            platform: self.platform.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: self.clock.now(),
            home: self.home.display().to_string(),
            edge: Some(edge),
            api: Some(api),
            key_id: self.key_id.clone(),
            apps: live().count() as u64,
            secrets: secrets.collect(),
            ..Head::default()
        }
    }

    /// The chunks of `trees`, then the trees: what is laid out in this order is never a tree without its chunks.
    fn sources(
        &self,
        tenant: &TenantName,
        trees: &BTreeSet<TreeId>,
        writer: &mut Writer<impl Write>,
    ) -> Result<(), SaveError> {
        let store = ChunkStore::open(&self.home.join("chunks"), tenant)?;
        let mut chunks: BTreeSet<ChunkId> = BTreeSet::new();
        let mut whole: Vec<TreeId> = Vec::new();
        for id in trees {
            match store.get_tree(id) {
                Ok(tree) => {
                    chunks.extend(tree.chunks());
                    whole.push(*id);
                }
                Err(StoreError::NoTree(_) | StoreError::Damaged { .. }) => {
                    writer.missing(&Place::Tree(tenant.clone(), id.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut lost: BTreeSet<ChunkId> = BTreeSet::new();
        for id in chunks {
            let place = Place::Chunk(tenant.clone(), id.to_string());
            match store.get(&id) {
                Ok(bytes) => writer.file(&place, false, bytes.len() as u64, &bytes[..])?,
                Err(StoreError::Missing(_) | StoreError::Damaged { .. }) => {
                    writer.missing(&place);
                    lost.insert(id);
                }
                Err(error) => return Err(error.into()),
            }
        }
        // One at a time: a tree may have 32 MiB.
        for id in whole {
            let tree = store.get_tree(&id)?;
            let place = Place::Tree(tenant.clone(), id.to_string());
            if tree.chunks().iter().any(|chunk| lost.contains(chunk)) {
                writer.missing(&place);
                continue;
            }
            let json = tree.canonical_json();
            writer.file(&place, false, json.len() as u64, &json[..])?;
        }
        Ok(())
    }

    /// The repository of an app, if it was ever pushed to. One that git cannot read is no reason to save nothing.
    fn repository(&self, app: &App, writer: &mut Writer<impl Write>) -> Result<(), SaveError> {
        let place = Place::Bundle(app.id.clone());
        let scratch = self.home.join("journal").join(SCRATCH);
        match self.runtime.block_on(self.machine.repositories().save(app, &scratch)) {
            Ok(None) => {}
            Ok(Some(Saved { bundle, shallow })) => {
                writer.file(&place, false, bundle.metadata()?.len(), bundle)?;
                let length = shallow.len() as u64;
                writer.file(&Place::Shallow(app.id.clone()), false, length, &shallow[..])?;
            }
            Err(error) => {
                crate::events::could_not("save a repository", &in_full(&error));
                writer.missing(&place);
            }
        }
        Ok(())
    }

    /// The volumes of an app. One of which no snapshot can be taken is no reason to save nothing.
    fn volumes(&self, app: &App, writer: &mut Writer<impl Write>) -> Result<(), SaveError> {
        for volume in self.machine.volumes_to_save(app).0.list(&app.id)? {
            match self.runtime.block_on(self.take(&app.id, &volume)) {
                Ok(taken) => {
                    let saved = self.volume(app, &volume, &taken, writer);
                    self.runtime.block_on(self.remove(&app.id, &volume, taken));
                    saved?;
                }
                Err(error) => {
                    crate::events::could_not("take a snapshot of a volume to save it", &error);
                    writer.missing(&Place::Volume(app.id.clone(), volume));
                }
            }
        }
        Ok(())
    }

    fn volume(
        &self,
        app: &App,
        volume: &VolumeName,
        taken: &Taken,
        writer: &mut Writer<impl Write>,
    ) -> Result<(), SaveError> {
        let (store, numbers) = self.machine.volumes_to_save(app);
        let which = (&app.id, volume, &taken.name);
        // A tar says how long a file is before the file comes, and a second copy may have no room.
        let size = store.packed_size(which, numbers.as_ref())?;
        std::thread::scope(|scope| {
            let (content, packed) = io::pipe()?;
            let pack = || store.pack(which, numbers.as_ref(), packed);
            let packing = std::thread::Builder::new().name("volume".to_owned()).spawn_scoped(scope, pack)?;
            let written = writer.file(&Place::Volume(app.id.clone(), volume.clone()), false, size, content);
            let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // When nobody reads on, the other one fails too, and is not the reason.
            written?;
            Ok(packed?)
        })
    }

    fn artifact(&self, app: &AppId, id: &str, writer: &mut Writer<impl Write>) -> Result<(), SaveError> {
        let folder = self.home.join("artifacts").join(app.to_string());
        let dir = folder.join(id);
        let part = |path: &str| Place::Artifact(app.clone(), id.to_owned(), path.to_owned());
        if !dir.try_exists()? {
            writer.missing(&part(""));
            return Ok(());
        }
        match File::open(folder.join(format!("{id}.json"))) {
            Ok(note) => {
                let place = Place::Note(app.clone(), id.to_owned());
                writer.file(&place, false, note.metadata()?.len(), note)?;
            }
            // It only says how large the artifact is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        read_artifact::<BackupError>(&dir, &mut |path, found| {
            let place = part(path);
            match found {
                Part::Directory => writer.directory(&place),
                Part::File { file, exec, size } => writer.file(&place, exec, size, file),
                Part::Link { target } => writer.link(&place, &target),
            }
        })?;
        Ok(())
    }
}

/// The source of every release that may be built, rolled back to, or made another release of.
fn needed_trees(app: &App) -> BTreeSet<TreeId> {
    let needed = app.releases.values().filter(|it| !it.phase.is_settled() || it.phase == Phase::Activated);
    needed.filter_map(|release| release.tree.parse().ok()).collect()
}

/// The length and SHA-256 of a file.
fn hashed(path: &Path) -> io::Result<(u64, String)> {
    struct Hashing(Context);
    impl Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hashing(Context::new(&SHA256));
    let length = io::copy(&mut File::open(path)?, &mut hash)?;
    Ok((length, hex::encode(hash.0.finish().as_ref())))
}
