//! Snapshots: a cache of a state folded from the journal, to start sooner.
//!
//! A snapshot is used only if everything about it is right: its checksum, the schema it was asked for, and
//! the event at its position, whose fingerprint it carries. The last matters after a restored backup, when
//! the same positions may hold another history. Anything else about it and it is ignored, since the journal
//! can always be replayed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{ReadError, SnapshotError};
use crate::events;
use crate::journal::Journal;
use crate::record::{Position, Recorded};

const PREFIX: &str = "snapshot.";
const MAGIC: &[u8; 16] = b"berth snapshot 1";

/// Magic, key, position, fingerprint of the event there, checksum of all that and the bytes.
const HEADER_BYTES: usize = 16 + 32 + 8 + 32 + 32;

/// A state at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The latest event folded into it.
    pub position: Position,
    /// The state, opaque to the journal.
    pub bytes: Vec<u8>,
}

impl Journal {
    /// Keeps `bytes`, the state after `position`, under `schema_key`, a hash of everything that shapes it.
    /// Snapshots under other keys and older ones are deleted. Writes and syncs on the current thread.
    ///
    /// # Errors
    /// When the position is ahead of the head or the disk refuses.
    pub fn save_snapshot(
        &self,
        schema_key: [u8; 32],
        position: Position,
        bytes: &[u8],
    ) -> Result<(), SnapshotError> {
        let head = self.head();
        if position > head {
            return Err(SnapshotError::Ahead { position, head });
        }
        let fingerprint = self.fingerprint(position).map_err(|source| SnapshotError::Event { source })?;
        let path = self.dir().join(format!("{PREFIX}{}", hex::encode(schema_key)));
        let header = header(&schema_key, position, &fingerprint, bytes);
        write_atomically(&path, &header, bytes)
            .map_err(|source| SnapshotError::File { path: path.clone(), source })?;
        delete_others(self.dir(), &path);
        Ok(())
    }

    /// The snapshot under `schema_key`, if there is one that is right in every respect. Reads on the current
    /// thread.
    #[must_use]
    pub fn load_snapshot(&self, schema_key: [u8; 32]) -> Option<Snapshot> {
        let path = self.dir().join(format!("{PREFIX}{}", hex::encode(schema_key)));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                events::snapshot_ignored(&path, &error.to_string());
                return None;
            }
        };
        match self.verify(&mut file, &schema_key) {
            Ok(snapshot) => Some(snapshot),
            Err(why) => {
                events::snapshot_ignored(&path, &why);
                None
            }
        }
    }

    fn verify(&self, file: &mut File, schema_key: &[u8; 32]) -> Result<Snapshot, String> {
        let mut found = [0; HEADER_BYTES];
        file.read_exact(&mut found).map_err(|error| error.to_string())?;
        let position = found[48..56].try_into().expect("a range of eight bytes");
        let position = Position(u64::from_le_bytes(position));
        if position > self.head() {
            return Err(format!("it stands at {position}, ahead of the journal"));
        }
        let fingerprint = self.fingerprint(position).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if found != header(schema_key, position, &fingerprint, &bytes) {
            return Err("it is damaged or belongs to another history".to_owned());
        }
        Ok(Snapshot { position, bytes })
    }

    /// A hash of the event at `position`; noughts for the place before the first.
    fn fingerprint(&self, position: Position) -> Result<[u8; 32], ReadError> {
        if position == Position::START {
            return Ok([0; 32]);
        }
        let events = self.read(position, 1)?;
        let Some(Recorded { stream, version, kind, schema, body, meta, .. }) = events.first() else {
            return Err(ReadError::Damaged { what: format!("event {position} is missing") });
        };
        let mut hash = Sha256::new();
        let texts = [
            stream.as_str(),
            kind,
            &meta.actor,
            &meta.correlation,
            meta.reason.as_deref().unwrap_or_default(),
        ];
        for part in texts.into_iter().map(str::as_bytes).chain([body.as_slice()]) {
            hash.update(u64::try_from(part.len()).expect("a length fits 64 bits").to_le_bytes());
            hash.update(part);
        }
        for number in [version.0, u64::from(*schema), meta.at.0] {
            hash.update(number.to_le_bytes());
        }
        Ok(hash.finalize().into())
    }
}

fn header(
    schema_key: &[u8; 32],
    position: Position,
    fingerprint: &[u8; 32],
    bytes: &[u8],
) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..16].copy_from_slice(MAGIC);
    header[16..48].copy_from_slice(schema_key);
    header[48..56].copy_from_slice(&position.0.to_le_bytes());
    header[56..88].copy_from_slice(fingerprint);
    let checksum = Sha256::new().chain_update(&header[..88]).chain_update(bytes).finalize();
    header[88..].copy_from_slice(&checksum);
    header
}

/// The directory is not synced: an older snapshot, or none, after a loss of power is as good.
fn write_atomically(path: &Path, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(header)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| delete(&unfinished))
}

fn delete_others(dir: &Path, kept: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let of_snapshots = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(PREFIX)) && path != kept
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(of_snapshots) {
        delete(&path);
    }
}

fn delete(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        events::leftover(path, &error);
    }
}
