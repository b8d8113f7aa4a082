//! The API: REST under `/api/v1`, problems, server-sent events.

mod accept;
mod apps;
mod auth;
mod backup;
mod certificates;
mod cron;
mod diff;
mod domains;
mod gate;
mod git;
mod history;
mod images;
mod logs;
mod mutation;
mod openapi;
mod platform;
mod problem;
mod progress;
mod releases;
mod report;
mod runs;
mod settings;
mod traffic;
mod upgrade;
mod upload;
mod views;
mod volumes;
mod whole;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post, put};
use berth_clock::Clock;
use berth_contract::route;
use berth_journal::Journal;
use berth_spec::Timestamp;
use tokio::sync::watch;

pub(crate) use accept::serve_at;
pub(crate) use apps::find_app;
pub(crate) use auth::Principal;
pub use auth::new_token;
pub(crate) use history::blocking;
pub use openapi::document;
pub use problem::Refused;
pub(crate) use progress::Follower;
pub(crate) use releases::read_deploy;
pub(crate) use views::{failure as release_failure, urls};
pub(crate) use volumes::{check_sizes, unenforced};
pub(crate) use whole::Whole;

use crate::desk::Desk;
use crate::edge_link::EdgeLink;
use crate::git::webhook;
use crate::machine::Machine;
use crate::secrets::Vault;

/// The longest body of a request that is no upload. A manifest and a Procfile have 256 KiB each at most.
const BODY_MAX: usize = 1 << 20;

/// Everything that a handler may need.
#[derive(Debug)]
pub struct Api {
    pub desk: Desk,
    pub journal: Arc<Journal>,
    pub edge: Arc<EdgeLink>,
    pub machine: Arc<Machine>,
    pub vault: Arc<Vault>,
    pub clock: Arc<dyn Clock>,
    pub identity: Identity,
    /// Turned on to take the platform down.
    pub down: watch::Sender<bool>,
}

/// What the platform says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    pub platform: String,
    pub home: std::path::PathBuf,
    pub socket: std::path::PathBuf,
    pub edge: std::net::SocketAddr,
    pub https: Option<std::net::SocketAddr>,
    pub api: std::net::SocketAddr,
    pub supervisor_pid: Option<u32>,
    pub as_root: bool,
    pub owner_uid: u32,
    pub started_at: Timestamp,
    pub started: std::time::Duration,
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route(route::PLATFORM, get(platform::status))
        .route(route::PLATFORM_DOWN, post(platform::down))
        .route(route::PLATFORM_UPGRADE, post(upgrade::upgrade))
        .route(route::PLATFORM_UPGRADE_COMMIT, post(upgrade::commit_upgrade))
        .route(route::PLATFORM_BACKUP, get(backup::save))
        .route(route::PLATFORM_TIMELINE, get(history::platform_timeline))
        .route(route::CERTIFICATES, get(certificates::list).post(certificates::upload))
        .route(route::CERTIFICATE, delete(certificates::remove))
        .route(route::CERTIFICATE_RENEWALS, post(certificates::renew))
        .route(route::ACME, put(certificates::set_acme).delete(certificates::unset_acme))
        .route(route::AUTHORITY, get(certificates::authority))
        .route(route::OPENAPI, get(openapi::serve))
        .route(route::CHUNKS_MISSING, post(upload::missing))
        .route(route::CHUNK, put(upload::put_chunk).layer(DefaultBodyLimit::max(upload::CHUNK_MAX)))
        .route(route::TREES, post(upload::put_tree).layer(DefaultBodyLimit::max(upload::TREE_MAX)))
        .route(route::APPS, get(apps::list).post(apps::create))
        .route(route::APP, get(apps::show).delete(apps::destroy))
        .route(route::RELEASES, get(releases::list).post(releases::submit))
        .route(route::RELEASE, get(releases::show))
        .route(route::DIFF, get(diff::show))
        .route(route::PROGRESS, get(progress::follow))
        .route(route::ROLLBACK, post(releases::roll_back))
        .route(route::CONFIG, get(settings::config).patch(settings::change_config))
        .route(route::SECRETS, get(settings::secrets).patch(settings::change_secrets))
        .route(route::LOGS, get(logs::lines))
        .route(route::INSTANCES, get(apps::instances))
        .route(route::SCALE, get(apps::scale).put(apps::change_scale))
        .route(route::GATE, put(gate::change))
        .route(route::TRAFFIC, get(traffic::show).put(traffic::set))
        .route(route::PROMOTE, post(traffic::promote))
        .route(route::ABORT, post(traffic::abort))
        .route(route::DOMAINS, get(domains::list).patch(domains::change))
        .route(route::VOLUMES, get(volumes::list))
        .route(route::VOLUME, delete(volumes::remove))
        .route(route::SNAPSHOTS, get(volumes::snapshots).post(volumes::take_snapshot))
        .route(route::SNAPSHOT, delete(volumes::remove_snapshot))
        .route(route::VOLUME_RESTORE, post(volumes::restore))
        .route(route::RUNS, post(runs::start))
        .route(route::CRON, get(cron::list))
        .route(route::CRON_RUNS, get(cron::history).post(cron::run))
        .route(route::TIMELINE, get(history::app_timeline))
        .route(route::WHY, get(history::why))
        .route(route::APP_IMAGES, get(images::list))
        .route(route::APP_GIT, get(git::show))
        .route(route::GIT_BRANCH, put(git::change_branch))
        .route(route::GIT_CONNECTION, put(git::connect).delete(git::disconnect))
        .route(route::GIT_PASS, post(git::pass))
        .route(route::GIT, any(crate::git::http::serve))
        .route(route::REGISTRY_PREFIX, any(crate::registry::http::serve))
        .route(route::REGISTRY, any(crate::registry::http::serve))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), auth::admit))
        // Behind the layer, and so before it: a forge has no token, its signature says who it is.
        .route(route::HOOKS, post(webhook::receive).layer(DefaultBodyLimit::max(webhook::BODY_MAX)))
        .with_state(api)
}

#[cfg(test)]
mod tests;
