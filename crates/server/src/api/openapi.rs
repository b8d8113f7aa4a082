//! The OpenAPI document: contract's schemas and the paths of the handlers.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

#[derive(OpenApi)]
#[openapi(paths(
    super::platform::status,
    super::platform::down,
    super::upgrade::upgrade,
    super::upgrade::commit_upgrade,
    super::backup::save,
    super::history::platform_timeline,
    super::upload::missing,
    super::upload::put_chunk,
    super::upload::put_tree,
    super::apps::list,
    super::apps::create,
    super::apps::show,
    super::apps::destroy,
    super::apps::instances,
    super::apps::scale,
    super::apps::change_scale,
    super::releases::list,
    super::releases::show,
    super::releases::submit,
    super::releases::roll_back,
    super::diff::show,
    super::progress::follow,
    super::settings::config,
    super::settings::change_config,
    super::settings::secrets,
    super::settings::change_secrets,
    super::runs::start,
    super::cron::list,
    super::cron::history,
    super::cron::run,
    super::certificates::list,
    super::certificates::upload,
    super::certificates::remove,
    super::certificates::renew,
    super::certificates::set_acme,
    super::certificates::unset_acme,
    super::certificates::authority,
    super::domains::list,
    super::domains::change,
    super::gate::change,
    super::traffic::show,
    super::traffic::set,
    super::traffic::promote,
    super::traffic::abort,
    super::volumes::list,
    super::volumes::remove,
    super::volumes::snapshots,
    super::volumes::take_snapshot,
    super::volumes::remove_snapshot,
    super::volumes::restore,
    super::git::show,
    super::git::change_branch,
    super::git::connect,
    super::git::disconnect,
    super::git::pass,
    super::images::list,
    super::logs::lines,
    super::history::app_timeline,
    super::history::why,
))]
struct Paths;

/// The whole document.
#[must_use]
pub fn document() -> Document {
    let mut document = berth_contract::openapi::document();
    document.merge(Paths::openapi());
    document
}

/// Serves it.
pub(super) async fn serve() -> Json<Document> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// contracts/openapi.json is what clients are generated from; refresh it with BERTH_UPDATE_GOLDENS=1.
    #[test]
    fn golden_openapi() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/openapi.json");
        let text = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert!(golden == text, "contracts/openapi.json is stale: run with BERTH_UPDATE_GOLDENS=1");
    }
}
