//! How an app's requests are shared between two of its releases, and how a rollout is ended by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{Rollout, Traffic, TrafficChanged, TrafficSet, TrafficShare, route};
use berth_control::command::{Command, Wish};
use berth_control::plan::APPLY_DEADLINE;
use berth_control::state::App;
use berth_spec::ReleaseNumber;

use super::Api;
use super::apps::{AppPath, find, target};
use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Refused};

#[utoipa::path(get, path = route::TRAFFIC, tag = "releases", responses((status = 200, body = Traffic)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<Traffic>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(traffic(&api, &app)))
}

#[utoipa::path(put, path = route::TRAFFIC, tag = "releases", request_body = TrafficSet,
    responses((status = 200, body = TrafficChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<TrafficSet>>,
) -> Result<Json<TrafficChanged>, Refused> {
    let TrafficSet { release, percent } = mutation.body.0;
    change(&api, path, &mutation, Wish::SetTraffic { release, percent }).await
}

#[utoipa::path(post, path = route::PROMOTE, tag = "releases", responses((status = 200, body = TrafficChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn promote(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<NoBody>,
) -> Result<Json<TrafficChanged>, Refused> {
    change(&api, path, &mutation, Wish::Promote).await
}

#[utoipa::path(post, path = route::ABORT, tag = "releases", responses((status = 200, body = TrafficChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn abort(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<NoBody>,
) -> Result<Json<TrafficChanged>, Refused> {
    change(&api, path, &mutation, Wish::Abort).await
}

async fn change<T>(
    api: &Api,
    path: AppPath,
    mutation: &Mutation<T>,
    wish: Wish,
) -> Result<Json<TrafficChanged>, Refused> {
    let app = target(api, mutation, path)?;
    let command = Command::App { app: app.clone(), wish };
    let outcome = mutation.submit(api, command, None).await?;
    // Edge has taken it over when this is answered, so that whoever asked sees what he asked for.
    let applied = !outcome.changed || api.edge.follows(outcome.position, APPLY_DEADLINE.as_duration()).await;
    let app = api.desk.app(&app);
    let traffic = app.map_or_else(nothing, |app| traffic(api, &app));
    Ok(Json(TrafficChanged { traffic, applied }))
}

fn nothing() -> Traffic {
    Traffic { shares: Vec::new(), rollout: None, evidence: Vec::new() }
}

fn traffic(api: &Api, app: &App) -> Traffic {
    let Some(serving) = app.serving else { return nothing() };
    let share = |release: ReleaseNumber, percent| {
        let routed = app.routed.iter().filter(|it| app.instances[*it].release == release).count();
        TrafficShare { release, percent, instances: u32::try_from(routed).unwrap_or(u32::MAX) }
    };
    let other = app.split.map(|split| share(split.release, split.percent));
    let rest = 100 - app.split.map_or(0, |split| split.percent.min(100));
    let rollout = app.rollout().and_then(|split| {
        let canary = &app.release(split.release)?.manifest.deploy.canary;
        let (steps, interval_ms) = (canary.steps.clone(), canary.interval.0);
        Some(Rollout { release: split.release, steps, interval_ms, held: split.held })
    });
    let evidence = api
        .edge
        .compared(app)
        .map(|compared| compared.evidence.sentences(&compared.release.to_string(), &serving.to_string()));
    Traffic {
        shares: other.into_iter().chain([share(serving, rest)]).collect(),
        rollout,
        evidence: evidence.unwrap_or_default(),
    }
}
