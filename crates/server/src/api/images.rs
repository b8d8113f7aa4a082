//! What was pushed to an app's repository of images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{Code, ImageTag, Images, Problem, route};
use berth_image::hosted::Named;

use super::Api;
use super::apps::{AppPath, find};
use super::auth::Principal;
use super::problem::Refused;
use crate::git::short;
use crate::machine::in_full;

#[utoipa::path(get, path = route::APP_IMAGES, tag = "images", responses((status = 200, body = Images)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<Images>, Refused> {
    let app = find(&api, &principal, path)?;
    let repository = api.machine.repository_of_images(&app.id);
    let read = tokio::task::spawn_blocking(move || {
        let mut tags = Vec::new();
        for tag in repository.tags()? {
            // One that is deleted at this moment is not there.
            if let Some(held) = repository.manifest(&Named::Tag(tag.clone()))? {
                tags.push(ImageTag { tag, digest: held.digest.to_string() });
            }
        }
        Ok::<_, berth_image::hosted::HostedError>(tags)
    });
    let failed = |why: String| Problem::new(Code::StorageFailed, why);
    let tags =
        read.await.map_err(|error| failed(in_full(&error)))?.map_err(|error| failed(in_full(&error)))?;
    Ok(Json(Images { repository: format!("{}/{}", api.identity.api, short(&app.id)), tags }))
}
