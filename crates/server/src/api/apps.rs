//! Apps, their instances, and how many are wanted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_contract::{
    App, AppList, AppsQuery, Code, CreateApp, DestroyQuery, InstanceList, Problem, Scale, route,
};
use berth_control::command::{Command, Wish};
use berth_control::state::App as KnownApp;
use berth_spec::{AppId, AppName, ProjectId, ProjectName, TenantName};

use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Path, Query, Refused};
use super::{Api, views};

/// The most apps of one page: each takes some 300 bytes of JSON.
const PAGE_MAX: u32 = 1_000;

/// The parameters of a path below an app.
pub(super) type AppPath = Path<(TenantName, ProjectName, AppName)>;

/// The id in the path.
pub(super) fn app_id(path: AppPath) -> AppId {
    let Path((tenant, project, app)) = path;
    AppId { tenant, project, app }
}

/// The app in the path, if whoever asks may see it.
pub(super) fn find(api: &Api, principal: &Principal, path: AppPath) -> Result<Arc<KnownApp>, Refused> {
    find_app(api, principal, &app_id(path))
}

/// The app of this id, if whoever asks may see it.
pub(crate) fn find_app(api: &Api, principal: &Principal, id: &AppId) -> Result<Arc<KnownApp>, Refused> {
    principal.enter_project(api, &id.project_id())?;
    let gone = || Problem::new(Code::AppNotFound, format!("there is no app {id}"));
    Ok(api.desk.app(id).ok_or_else(|| gone().next("`berth apps` lists the apps there are"))?)
}

/// The id in the path, if whoever asks may change what is below it; the app need not be there.
pub(super) fn target<T>(api: &Api, mutation: &Mutation<T>, path: AppPath) -> Result<AppId, Refused> {
    let id = app_id(path);
    mutation.principal.enter_project(api, &id.project_id())?;
    Ok(id)
}

#[utoipa::path(get, path = route::APPS, tag = "apps", responses((status = 200, body = AppList)),
    params(("tenant" = String, Path), ("project" = String, Path), AppsQuery))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Path((tenant, project)): Path<(TenantName, ProjectName)>,
    Query(query): Query<AppsQuery>,
) -> Result<Json<AppList>, Refused> {
    let project = ProjectId { tenant, project };
    principal.enter_project(&api, &project)?;
    let limit = query.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as usize;
    let fits = |app: &Arc<KnownApp>| query.q.as_ref().is_none_or(|text| app.id.app.as_str().contains(text));
    // One more than the page holds tells whether another page follows.
    let mut apps: Vec<Arc<KnownApp>> = api.desk.read(|state| {
        let after = state.live_apps_after(&project, query.after.as_ref());
        after.filter(|app| fits(app)).take(limit + 1).cloned().collect()
    });
    let more = apps.len() > limit;
    apps.truncate(limit);
    let next = apps.last().filter(|_| more).map(|app| app.id.app.clone());
    Ok(Json(AppList { apps: apps.iter().map(|app| views::summary(&api, app)).collect(), next }))
}

#[utoipa::path(post, path = route::APPS, tag = "apps", request_body = CreateApp, responses((status = 201, body = App)),
    params(("tenant" = String, Path), ("project" = String, Path), ("Idempotency-Key" = String, Header)))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Path((tenant, project)): Path<(TenantName, ProjectName)>,
    mutation: Mutation<Body<CreateApp>>,
) -> Result<(StatusCode, Json<App>), Refused> {
    let project = ProjectId { tenant, project };
    mutation.principal.enter_project(&api, &project)?;
    let id = project.app(mutation.body.0.name.clone());
    let made = mutation.submit(&api, Command::App { app: id.clone(), wish: Wish::Create }, None).await?;
    if !made.changed {
        return Err(Problem::new(Code::AppExists, format!("the app {id} exists already")).into());
    }
    Ok((StatusCode::CREATED, Json(shown(&api, &id)?)))
}

#[utoipa::path(get, path = route::APP, tag = "apps", responses((status = 200, body = App)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<App>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(views::app(&api, &app)))
}

#[utoipa::path(delete, path = route::APP, tag = "apps",
    responses((status = 202, description = "It is being taken down; its numbers are never used again")),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        DestroyQuery, ("Idempotency-Key" = String, Header)))]
pub(super) async fn destroy(
    State(api): State<Arc<Api>>,
    path: AppPath,
    Query(query): Query<DestroyQuery>,
    mutation: Mutation<NoBody>,
) -> Result<StatusCode, Refused> {
    let id = target(&api, &mutation, path)?;
    let wish = Wish::Destroy { volumes: query.volumes };
    mutation.submit(&api, Command::App { app: id, wish }, None).await?;
    Ok(StatusCode::ACCEPTED)
}

#[utoipa::path(get, path = route::INSTANCES, tag = "apps", responses((status = 200, body = InstanceList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn instances(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<InstanceList>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(InstanceList { instances: views::instances(&api, &app), asleep: views::asleep(&app) }))
}

#[utoipa::path(get, path = route::SCALE, tag = "apps", responses((status = 200, body = Scale)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn scale(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<Scale>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(views::scale(&app)))
}

#[utoipa::path(put, path = route::SCALE, tag = "apps", request_body = Scale, responses((status = 200, body = Scale)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change_scale(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<Scale>>,
) -> Result<Json<Scale>, Refused> {
    let id = target(&api, &mutation, path)?;
    let wish = Wish::Scale { processes: mutation.body.0.0.clone() };
    mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    let app = api.desk.app(&id).ok_or_else(|| Problem::new(Code::AppNotFound, format!("{id} is gone")))?;
    Ok(Json(views::scale(&app)))
}

fn shown(api: &Api, id: &AppId) -> Result<App, Refused> {
    let app = api.desk.app(id).ok_or_else(|| Problem::new(Code::AppNotFound, format!("{id} is gone")))?;
    Ok(views::app(api, &app))
}
