//! The certificates that edge shows, with their keys, as files that edge alone reads.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_control::state::State;
use berth_routing::{CertificateRoute, Snapshot};

use super::write_durably;
use crate::certificates::key_label;
use crate::events;
use crate::secrets::Vault;

/// The directory of certificates, below that of the snapshot.
#[derive(Debug)]
pub struct CertificateShelf {
    routing: PathBuf,
    group: Option<u32>,
    vault: Arc<Vault>,
}

impl CertificateShelf {
    /// The directory below `routing`, made when it is not there; files are readable for `group`, edge's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(routing: &Path, group: Option<u32>, vault: Arc<Vault>) -> io::Result<Self> {
        let dir = routing.join(CertificateRoute::DIRECTORY);
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(group) = group {
            std::os::unix::fs::chown(&dir, None, Some(group))?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750))?;
        }
        Ok(Self { routing: routing.to_owned(), group, vault })
    }

    /// Writes the certificates of `snapshot` that are not there yet. One whose key does not open is left out; its hosts have no HTTPS then.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn put(&self, snapshot: &Snapshot, state: &State) -> io::Result<()> {
        for route in &snapshot.certificates {
            let path = self.routing.join(CertificateRoute::file(&route.id));
            let Some(certificate) = state.platform.certificates.held.get(&route.id) else { continue };
            if path.try_exists()? {
                continue;
            }
            match self.vault.open_text(&key_label(&route.id), &certificate.key) {
                Ok(key) => {
                    write_durably(&path, format!("{}{key}", certificate.chain).as_bytes(), self.group)?
                }
                Err(error) => events::could_not("open the key of a certificate", &error),
            }
        }
        Ok(())
    }

    /// Removes what `snapshot`, which is durable, does not name.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        let file = |route: &CertificateRoute| self.routing.join(CertificateRoute::file(&route.id));
        let named: BTreeSet<PathBuf> = snapshot.certificates.iter().map(file).collect();
        let Ok(entries) = std::fs::read_dir(self.routing.join(CertificateRoute::DIRECTORY)) else { return };
        for entry in entries.flatten() {
            if !named.contains(&entry.path())
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                events::could_not("remove a certificate that is not shown any more", &error);
            }
        }
    }
}
