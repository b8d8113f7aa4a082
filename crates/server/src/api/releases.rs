//! Releases: list, submit, roll back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_contract::{
    Code, Problem, Release, ReleaseList, RollBack, SourceError, Strategy, SubmitRelease, route,
};
use berth_control::command::{Command, Deploy, Wish};
use berth_spec::manifest::{Build, Manifest, Strategy as ManifestStrategy};
use berth_spec::{AppId, AppName, ProjectName, ReleaseNumber, TenantName};

use super::apps::{AppPath, find, target};
use super::auth::Principal;
use super::mutation::Mutation;
use super::problem::{Body, Path, Refused};
use super::volumes::check_sizes;
use super::{Api, report, views};
use crate::desk::Outcome;

/// The parameters of a path below a release.
pub(super) type ReleasePath = Path<(TenantName, ProjectName, AppName, String)>;

/// The release in the path.
pub(super) fn find_release(
    api: &Api,
    principal: &Principal,
    path: ReleasePath,
) -> Result<(AppId, ReleaseNumber), Refused> {
    let Path((tenant, project, app, number)) = path;
    let known = find(api, principal, Path((tenant, project, app)))?;
    let number: ReleaseNumber =
        number.parse().map_err(|error| Problem::new(Code::RequestInvalid, format!("{error}")))?;
    if known.release(number).is_none() {
        let problem = Problem::new(Code::ReleaseNotFound, format!("{} has no release {number}", known.id));
        return Err(problem.next("`berth releases` lists them").into());
    }
    Ok((known.id.clone(), number))
}

#[utoipa::path(get, path = route::RELEASES, tag = "releases", responses((status = 200, body = ReleaseList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<ReleaseList>, Refused> {
    let app = find(&api, &principal, path)?;
    let releases = app.releases.values().rev().map(|release| views::release(&api, &app, release)).collect();
    Ok(Json(ReleaseList { releases }))
}

#[utoipa::path(get, path = route::RELEASE, tag = "releases", responses((status = 200, body = Release)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("number" = String, Path)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: ReleasePath,
) -> Result<Json<Release>, Refused> {
    let (id, number) = find_release(&api, &principal, path)?;
    shown(&api, &id, number).await.map(Json)
}

async fn shown(api: &Api, id: &AppId, number: ReleaseNumber) -> Result<Release, Refused> {
    let app = api.desk.app(id);
    let release = app.as_deref().and_then(|app| Some((app, app.release(number)?)));
    let gone = || Problem::new(Code::ReleaseNotFound, format!("{id} has no release {number}"));
    let (app, release) = release.ok_or_else(gone)?;
    Ok(report::release(api, app, release).await)
}

async fn made(api: &Api, id: &AppId, outcome: &Outcome) -> Result<(StatusCode, Json<Release>), Refused> {
    let number = outcome.release.ok_or_else(|| Problem::new(Code::Internal, "no release was made"))?;
    Ok((StatusCode::ACCEPTED, Json(shown(api, id, number).await?)))
}

#[utoipa::path(post, path = route::RELEASES, tag = "releases", request_body = SubmitRelease,
    responses((status = 202, body = Release)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<SubmitRelease>>,
) -> Result<(StatusCode, Json<Release>), Refused> {
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    let mut deploy = read_deploy(&id, sent)?;
    if let Some(why) = api.machine.too_little(&deploy.manifest) {
        let next = "`berth doctor` says what is missing for more";
        return Err(Problem::new(Code::IsolationTooLow, format!("{id}: {why}")).next(next).into());
    }
    check_sizes(&api.machine, &id, &deploy.manifest).await?;
    if deploy.manifest.build.image.is_some() {
        // A repeat may find another image under the name, or no registry any more.
        if let Some(earlier) = mutation.earlier(&api).await? {
            return made(&api, &id, &earlier).await;
        }
        api.machine.pin_image(&id, &mut deploy).await?;
    }
    api.machine.check_tree(&id.tenant, sent.tree.as_str()).await?;
    let command = Command::App { app: id.clone(), wish: Wish::Deploy(Box::new(deploy)) };
    let outcome = mutation.submit(&api, command, sent.description.clone()).await?;
    made(&api, &id, &outcome).await
}

/// The release that was sent for the app `id`, with its manifest read.
///
/// # Errors
/// When the manifest or the Procfile is not valid, or is of another app.
pub(crate) fn read_deploy(id: &AppId, sent: &SubmitRelease) -> Result<Deploy, Refused> {
    let mut manifest = read_manifest(sent)?;
    if let Some(named) = manifest.app.as_ref().filter(|named| **named != id.app) {
        let detail = format!("berth.toml is of the app {named}, and the release was sent to {id}");
        return Err(Problem::new(Code::ManifestInvalid, detail)
            .next("leave out --app, or change `app` in berth.toml")
            .into());
    }
    if let Some(strategy) = sent.strategy {
        manifest.deploy.strategy = Some(match strategy {
            Strategy::Bluegreen => ManifestStrategy::BlueGreen,
            Strategy::Rolling => ManifestStrategy::Rolling,
            Strategy::Canary => ManifestStrategy::Canary,
            Strategy::Recreate => ManifestStrategy::Recreate,
        });
    }
    if let Some(image) = &sent.image {
        manifest.build = Build { image: Some(image.clone()), ..Build::default() };
    }
    Ok(Deploy {
        tree: sent.tree.to_string(),
        manifest,
        description: sent.description.clone(),
        commit: sent.commit.clone(),
    })
}

fn read_manifest(sent: &SubmitRelease) -> Result<Manifest, Refused> {
    Manifest::read(sent.manifest.as_deref(), sent.procfile.as_deref()).map_err(|problems| {
        let file = if sent.manifest.is_some() { "berth.toml" } else { "Procfile" };
        let places: Vec<SourceError> = views::source_errors(file, &problems);
        let count = places.len();
        let detail =
            format!("{count} error{} in the source's own description", if count == 1 { "" } else { "s" });
        Problem::new(Code::ManifestInvalid, detail).at(places).into()
    })
}

#[utoipa::path(post, path = route::ROLLBACK, tag = "releases", request_body = RollBack,
    responses((status = 202, body = Release), (status = 200, body = Release)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn roll_back(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<RollBack>>,
) -> Result<(StatusCode, Json<Release>), Refused> {
    let id = target(&api, &mutation, path)?;
    let app = find(&api, &mutation.principal, Path((id.tenant.clone(), id.project.clone(), id.app.clone())))?;
    let sent = &mutation.body.0;
    let none = || {
        let problem = match app.serving {
            None => Problem::new(Code::NeverDeployed, format!("{id} has no release yet")),
            Some(serving) => {
                let detail = format!("{serving} of {id} is the first release that served");
                Problem::new(Code::NoRollbackTarget, detail)
            }
        };
        problem.next("`berth releases` shows what there is")
    };
    let Some(to) = sent.to.or_else(|| app.rollback_target()) else {
        // A repeat that comes after the rollback may find nothing before the release that serves now.
        let earlier = mutation.earlier(&api).await?.ok_or_else(none)?;
        return made(&api, &id, &earlier).await;
    };
    if let Some(release) = app.release(to) {
        check_sizes(&api.machine, &id, &release.manifest).await?;
    }
    let wish = Wish::Rollback { to, keep_config: sent.keep_config };
    let outcome = mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    match (outcome.release, api.desk.app(&id).and_then(|app| app.serving)) {
        // It serves already: nothing was decided.
        (None, Some(serving)) => Ok((StatusCode::OK, Json(shown(&api, &id, serving).await?))),
        _ => made(&api, &id, &outcome).await,
    }
}
