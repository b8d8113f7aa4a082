//! The artifact of an image: nothing is built, and what is kept is which image it is. Its layers lie in the store of images.

use std::sync::Arc;

use berth_spec::AppId;

use crate::artifact::ArtifactId;
use crate::builder::{Builder, blocking};
use crate::error::{BuildError, failed};
use crate::export::Shelf;
use crate::layout::write_synced;

/// The file of the artifact that says which image it is.
pub const IMAGE_FILE: &str = "image.json";

/// An image that stands, unpacked, and is to be an artifact of an app.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Of which app.
    pub app: AppId,
    /// The digest of its manifest, which makes the artifact's id.
    pub manifest: String,
    /// What [`IMAGE_FILE`] says.
    pub description: Vec<u8>,
    /// The bytes of its layers' files.
    pub bytes: u64,
    /// As root, the group of the app, which may read the artifact.
    pub app_gid: Option<u32>,
}

impl Builder {
    /// Makes the artifact of an image, or takes the one that stands. Its id is the same for the same app and manifest.
    ///
    /// # Errors
    /// [`BuildError`] when it cannot be written; then there is no artifact and nothing half done.
    pub async fn image(&self, request: ImageRequest) -> Result<ArtifactId, BuildError> {
        let id = ArtifactId::of_image(&request.app, &request.manifest);
        let turn = self.inside.turn(&request.app, &id);
        let held = turn.lock().await;
        let app = request.app.clone();
        let (inside, made) = (Arc::clone(&self.inside), id.clone());
        let outcome = blocking(move || {
            let dir = inside.layout.artifact(&request.app, &made);
            if dir.try_exists().map_err(failed(&dir, "read"))? {
                return Ok(());
            }
            let config = &inside.config;
            let shelf = Shelf::new(config.artifacts.clone(), config.passage_gid, config.sealed_uid);
            let unsealed = shelf.begin(&request.app, &made)?;
            unsealed.file(IMAGE_FILE, false, &mut &*request.description).map_err(failed(&dir, "written"))?;
            let note = shelf.note(&request.app, &made)?;
            // Shared to the last byte: the layers are those of the store.
            write_synced(
                &note,
                &serde_json::json!({ "format": 1, "bytes": request.bytes, "shared": request.bytes }),
            )?;
            shelf.finish(unsealed, request.app_gid)
        })
        .await;
        drop(held);
        self.inside.leave(turn, &app, &id);
        outcome.map(|()| id)
    }
}
