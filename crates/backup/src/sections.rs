//! What stands at the two ends of an archive, and the hashes in between.

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::{AppId, EnvName, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The name of the first file.
pub(crate) const HEAD: &str = "berth-backup.json";
/// The name of the last file.
pub(crate) const FOOT: &str = "manifest.json";
/// The longest head: the names of 500,000 secrets.
pub(crate) const HEAD_MAX: u64 = 64 << 20;
/// The longest foot: the sections of 300,000 artifacts.
pub(crate) const FOOT_MAX: u64 = 64 << 20;

/// What is known before anything is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The format of the archive.
    pub format: u32,
    /// The platform's id.
    pub platform: String,
    /// The version of Berth that wrote it.
    pub version: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// The position of the last event in it.
    pub position: u64,
    /// The home that was saved: artifacts may hold paths below it.
    pub home: String,
    /// Where the platform's apps and its API answered.
    pub edge: Option<String>,
    /// See `edge`.
    pub api: Option<String>,
    /// The length of the journal in bytes.
    pub journal_bytes: u64,
    /// SHA-256 of the journal, in hex.
    pub journal_sha256: String,
    /// The id of the key that the secrets are sealed under, in hex; the key itself is not here.
    pub key_id: String,
    /// How many apps there are.
    pub apps: u64,
    /// The secrets that are set, by app: what is lost without the key.
    pub secrets: BTreeMap<AppId, Vec<EnvName>>,
}

impl Head {
    /// The format that this version writes; it reads those before, which had no volumes and no repositories, too.
    pub const FORMAT: u32 = 3;
}

/// What is known once all is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foot {
    /// Every section between head and foot, in order.
    pub sections: Vec<Section>,
    /// What should be here and was not there: artifacts and sources that went while they were saved.
    pub missing: Vec<String>,
}

/// A part of the archive that is whole or damaged by itself: the journal, a tenant's sources, an artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its name: `artifacts/default/default/shop/a0123...`.
    pub name: String,
    /// How many files, links and directories it has.
    pub entries: u64,
    /// How many bytes its files have.
    pub bytes: u64,
    /// SHA-256 of its part of the archive, heads of files and padding included, in hex.
    pub sha256: String,
}

/// Hashes an archive section by section, as it goes by.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    done: Vec<Section>,
    names: BTreeSet<String>,
    open: Option<(Section, Sha256)>,
}

impl Sections {
    /// An entry of `section` begins, whose file has so many bytes. Gives whether that may be: a section that was left does not come again,
    /// so that what counts for one is in one place.
    pub(crate) fn enter(&mut self, section: &str, bytes: u64) -> bool {
        if self.open.as_ref().is_none_or(|(open, _)| open.name != section) {
            self.close();
            if !self.names.insert(section.to_owned()) {
                return false;
            }
            self.open = Some((Section { name: section.to_owned(), ..Section::default() }, Sha256::new()));
        }
        if let Some((open, _)) = &mut self.open {
            open.entries += 1;
            open.bytes = open.bytes.saturating_add(bytes);
        }
        true
    }

    /// These bytes of the archive went by.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if let Some((_, hash)) = &mut self.open {
            hash.update(bytes);
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some((section, hash)) = self.open.take() {
            self.done.push(Section { sha256: hex::encode(hash.finalize()), ..section });
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Section> {
        self.close();
        self.done
    }

    pub(crate) fn done(&self) -> &[Section] {
        &self.done
    }
}
