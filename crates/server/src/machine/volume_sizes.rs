//! Sizes of volumes: kept to by the file system where it can, and said where it cannot.

use berth_spec::{AppId, Bytes, Isolation, Manifest, VolumeName};
use berth_volume::{Kept, Limit, NotKept, Store, Used, VolumeError, entries_of, size_kept};

use super::Machine;
use super::volumes::blocking;
use crate::events;

/// What a volume takes, and what the file system keeps it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) used: Used,
    /// How many bytes it may take; nothing where the file system keeps it to none.
    size: Option<u64>,
}

impl Measured {
    /// By the file system's own count where it keeps one for the volume, and else by going through it. `None` when it is not there. Blocks.
    pub(super) fn of(store: &Store, app: &AppId, name: &VolumeName) -> Result<Option<Self>, VolumeError> {
        if let Some(Kept { used, size, entries: _ }) = store.kept(app, name)? {
            return Ok(Some(Self { used, size: Some(size) }));
        }
        Ok(store.used(app, name)?.map(|used| Self { used, size: None }))
    }

    /// Whether the file system keeps the volume to this very size.
    pub(crate) fn is_kept_to(&self, size: Bytes) -> bool {
        self.size == Some(size_kept(size.0))
    }

    /// Why it does not fit into `size`, if it does not.
    fn too_much_for(&self, size: Bytes) -> Option<String> {
        let room = entries_of(size.0);
        if self.used.bytes > size.0 {
            return Some(format!("holds {} bytes, and berth.toml gives it {size}", self.used.bytes));
        }
        let entries = self.used.entries;
        (entries >= room).then(|| {
            format!("holds {entries} files, and {size} in berth.toml has room for {room}: one for each 16Ki")
        })
    }
}

impl Machine {
    /// Whether volumes are kept to their sizes.
    ///
    /// # Errors
    /// Why they are not, and what to do about it.
    pub async fn keeps_sizes(&self) -> Result<(), NotKept> {
        self.apps_keep_to_limits()?;
        let store = self.volumes.clone();
        blocking(move || store.keeps_sizes()).await
    }

    /// An app may say of its own files whose they count as, unless it is kept from that system call.
    fn apps_keep_to_limits(&self) -> Result<(), NotKept> {
        if self.runtime.capabilities().isolation >= Isolation::Confined {
            return Ok(());
        }
        Err(NotKept {
            why: "at the isolation `plain` an app can take its files out of any limit".to_owned(),
            next: "start Berth without `--isolation plain`".to_owned(),
        })
    }

    /// Has the file system keep a volume to its size, where it can. `alone` is whoever starts with it: what runs once has it beside others, from
    /// whom it takes nothing. That it cannot be done keeps no app from starting. Blocks.
    pub(super) fn keep_to_size(&self, app: &AppId, name: &VolumeName, size: Option<Bytes>, alone: bool) {
        let limit = match size {
            Some(size) if alone => Limit::Exactly(size.0),
            Some(size) => Limit::AtLeast(size.0),
            None if alone => Limit::None,
            None => return,
        };
        if self.apps_keep_to_limits().and_then(|()| self.volumes.keeps_sizes()).is_err() {
            return;
        }
        if let Err(error) = self.volumes.limit(app, name, limit) {
            events::could_not("keep a volume to its size", &error);
        }
    }

    /// Why a volume of the app does not fit into the size that the manifest gives it, if one does not.
    ///
    /// # Errors
    /// When they cannot be measured.
    pub(crate) async fn too_much_for(
        &self,
        app: &AppId,
        manifest: &Manifest,
    ) -> Result<Option<(VolumeName, String)>, VolumeError> {
        let sizes = manifest.volumes.iter();
        let sizes: Vec<(VolumeName, Bytes)> =
            sizes.filter_map(|(name, volume)| Some((name.clone(), volume.size?))).collect();
        if sizes.is_empty() || self.keeps_sizes().await.is_err() {
            return Ok(None);
        }
        let (store, app) = (self.volumes.clone(), app.clone());
        blocking(move || {
            for (name, size) in sizes {
                let Some(measured) = Measured::of(&store, &app, &name)? else { continue };
                if measured.is_kept_to(size) {
                    continue;
                }
                if let Some(why) = measured.too_much_for(size) {
                    return Ok(Some((name, why)));
                }
            }
            Ok(None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_by_bytes_and_by_files() {
        let holds = |bytes, entries| Measured { used: Used { bytes, entries }, size: Some(8 << 20) };
        let size = Bytes(2 << 20);
        assert_eq!(holds(2 << 20, 1_023).too_much_for(size), None);
        let by_bytes = holds(3_000_000, 1).too_much_for(size);
        assert_eq!(by_bytes.as_deref(), Some("holds 3000000 bytes, and berth.toml gives it 2Mi"));
        let by_files = holds(1, 1_024).too_much_for(size).unwrap();
        assert!(
            by_files.starts_with("holds 1024 files, and 2Mi in berth.toml has room for 1024"),
            "{by_files}"
        );
        assert!(holds(1, 1).is_kept_to(Bytes(8 << 20)) && !holds(1, 1).is_kept_to(size));
    }
}
