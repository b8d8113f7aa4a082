//! The volumes of an app, which outlive it unless they are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_contract::{
    Code, Problem, RestoreVolume, Snapshot, SnapshotList, Volume, VolumeDeed, VolumeList, VolumeSizes,
    VolumeWork, route,
};
use berth_control::command::{Command, Wish};
use berth_control::event::{self, Failure};
use berth_control::state::App;
use berth_control::volume::of_instance;
use berth_spec::{
    AppId, AppName, InstanceId, Manifest, ProjectName, SnapshotName, TenantName, Timestamp, VolumeName,
};
use berth_volume::VolumeError;

use super::Api;
use super::apps::{AppPath, app_id, target};
use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Path, Refused};
use super::views;
use crate::machine::{Machine, Measured, in_full};

/// The parameters of a path below a snapshot.
type SnapshotPath = Path<(TenantName, ProjectName, AppName, VolumeName, SnapshotName)>;
/// The parameters of a path below a volume.
type VolumePath = Path<(TenantName, ProjectName, AppName, VolumeName)>;

impl From<VolumeError> for Refused {
    fn from(error: VolumeError) -> Self {
        let code = if error.is_disk_full() { Code::DiskFull } else { Code::StorageFailed };
        Problem::new(code, in_full(&error)).into()
    }
}

/// The app, which may be destroyed: its volumes may be left.
fn former(api: &Api, id: &AppId) -> Result<Arc<App>, Refused> {
    let app = api.desk.read(|state| state.apps.get(id).cloned());
    let gone = || Problem::new(Code::AppNotFound, format!("there is no app {id}"));
    Ok(app.ok_or_else(|| gone().next("`berth apps` lists the apps there are"))?)
}

#[utoipa::path(get, path = route::VOLUMES, tag = "volumes", responses((status = 200, body = VolumeList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<VolumeList>, Refused> {
    let id = app_id(path);
    principal.enter_project(&api, &id.project_id())?;
    let app = former(&api, &id)?;
    let there = api.machine.volumes(&id).await?;
    let named =
        app.serving_release().into_iter().flat_map(|release| release.manifest.volumes.keys().cloned());
    let names: BTreeSet<VolumeName> = there.keys().cloned().chain(named).collect();
    let volumes = names.into_iter().map(|name| shown(&api, &app, name, &there)).collect();
    let work = app.volume_work.as_ref().map(|work| work_shown(work, None));
    let worked = app.volume_worked.as_ref().map(|(work, failure)| work_shown(work, failure.as_ref()));
    let sizes = Some(volume_sizes(&api.machine).await);
    Ok(Json(VolumeList { volumes, work, worked, sizes }))
}

/// Whether volumes are kept to their sizes.
pub(super) async fn volume_sizes(machine: &Machine) -> VolumeSizes {
    let missing = machine.keeps_sizes().await.err();
    let (why, next) = missing.map(|missing| (missing.why, missing.next)).unzip();
    VolumeSizes { enforced: why.is_none(), why, next }
}

/// That the sizes of volumes in the manifest are not kept, where that is so, in words.
pub(crate) async fn unenforced(machine: &Machine, manifest: &Manifest) -> Option<String> {
    let sized = manifest.volumes.iter().filter(|(_, volume)| volume.size.is_some());
    let names: Vec<&str> = sized.map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let missing = machine.keeps_sizes().await.err()?;
    Some(format!("the size of {} is not enforced: {}; {}", names.join(", "), missing.why, missing.next))
}

/// Refuses a release that gives a volume less than it holds, where volumes are kept to their sizes.
pub(crate) async fn check_sizes(machine: &Machine, id: &AppId, manifest: &Manifest) -> Result<(), Refused> {
    let Some((volume, why)) = machine.too_much_for(id, manifest).await? else { return Ok(()) };
    let problem = Problem::new(Code::VolumeTooSmall, format!("the volume {volume} of {id} {why}"));
    Err(problem.next("give it a greater `size`, or remove what it does not need").into())
}

fn shown(
    api: &Api,
    app: &App,
    name: VolumeName,
    there: &BTreeMap<VolumeName, Result<Measured, String>>,
) -> Volume {
    let written = app.serving_release().and_then(|release| release.manifest.volumes.get(&name));
    let has = |instance: &&berth_control::state::Instance| of_instance(app, instance).any(|it| *it == name);
    let instances: Vec<InstanceId> = app
        .instances
        .iter()
        .filter(|(_, instance)| instance.started && has(instance))
        .filter_map(|(&ordinal, _)| app.instance_id(ordinal))
        .collect();
    let used = there.get(&name);
    let counted = used.and_then(|used| used.as_ref().ok());
    let size = written.and_then(|volume| volume.size);
    Volume {
        path: written.map(|volume| volume.path.to_string()),
        processes: written.map(|volume| volume.processes.iter().cloned().collect()).unwrap_or_default(),
        size: size.map(|size| size.0),
        enforced: size.zip(counted).is_some_and(|(size, counted)| counted.is_kept_to(size)),
        used: counted.map(|counted| counted.used.bytes),
        entries: counted.map(|counted| counted.used.entries),
        problem: used.and_then(|used| used.as_ref().err().cloned()),
        instances,
        place: api.machine.volume_place(&app.id, &name).to_string_lossy().into_owned(),
        name,
    }
}

#[utoipa::path(delete, path = route::VOLUME, tag = "volumes",
    responses((status = 204, description = "It is gone, with all that was in it and its snapshots")),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("volume" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path((tenant, project, app, volume)): VolumePath,
    mutation: Mutation<NoBody>,
) -> Result<StatusCode, Refused> {
    let id = target(&api, &mutation, Path((tenant, project, app)))?;
    former(&api, &id)?;
    let names = api.machine.volume_names(&id).await?;
    if !names.contains(&volume) {
        // A repeat finds that it is gone.
        if mutation.earlier(&api).await?.is_some() {
            return Ok(StatusCode::NO_CONTENT);
        }
        let problem = Problem::new(Code::VolumeNotFound, format!("{id} has no volume {volume}"));
        return Err(problem.next("`berth volumes` lists those that the app has").into());
    }
    let wish = Wish::RemoveVolume { volume: volume.clone(), snapshot: None };
    mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    api.machine.remove_volume(&id, &volume, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn work_shown(work: &event::VolumeWork, failure: Option<&Failure>) -> VolumeWork {
    VolumeWork {
        volume: work.volume.clone(),
        snapshot: work.snapshot.clone(),
        what: match work.what {
            event::VolumeDeed::Snapshot => VolumeDeed::Snapshot,
            event::VolumeDeed::Restore => VolumeDeed::Restore,
        },
        failure: failure.map(views::failure),
    }
}

fn no_snapshot(volume: &VolumeName, snapshot: &SnapshotName) -> Refused {
    let problem = Problem::new(Code::SnapshotNotFound, format!("{volume} has no snapshot {snapshot}"));
    problem.next(format!("`berth volumes snapshots {volume}` lists those that it has")).into()
}

#[utoipa::path(get, path = route::SNAPSHOTS, tag = "volumes", responses((status = 200, body = SnapshotList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("volume" = String, Path)))]
pub(super) async fn snapshots(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Path((tenant, project, app, volume)): VolumePath,
) -> Result<Json<SnapshotList>, Refused> {
    let id = AppId { tenant, project, app };
    principal.enter_project(&api, &id.project_id())?;
    former(&api, &id)?;
    let all = api.machine.snapshots(&id, &volume).await?.into_iter();
    let shown = all.map(|(name, used)| Snapshot { name, used: used.bytes, entries: used.entries });
    Ok(Json(SnapshotList { snapshots: shown.collect() }))
}

#[utoipa::path(post, path = route::SNAPSHOTS, tag = "volumes",
    responses((status = 202, description = "It is being taken; the list of volumes says when that is over", body = VolumeWork)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("volume" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn take_snapshot(
    State(api): State<Arc<Api>>,
    Path((tenant, project, app, volume)): VolumePath,
    mutation: Mutation<NoBody>,
) -> Result<(StatusCode, Json<VolumeWork>), Refused> {
    let id = target(&api, &mutation, Path((tenant, project, app)))?;
    former(&api, &id)?;
    if !api.machine.volume_names(&id).await?.contains(&volume) {
        let problem = Problem::new(Code::VolumeNotFound, format!("{id} has no volume {volume}"));
        return Err(problem.next("`berth volumes` lists those that the app has").into());
    }
    let snapshot = moment(api.clock.now());
    begin(&api, &mutation, id, event::VolumeWork { volume, snapshot, what: event::VolumeDeed::Snapshot })
        .await
}

#[utoipa::path(post, path = route::VOLUME_RESTORE, tag = "volumes", request_body = RestoreVolume,
    responses((status = 202, description = "It is being brought back; the list of volumes says when that is over", body = VolumeWork)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("volume" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn restore(
    State(api): State<Arc<Api>>,
    Path((tenant, project, app, volume)): VolumePath,
    mutation: Mutation<Body<RestoreVolume>>,
) -> Result<(StatusCode, Json<VolumeWork>), Refused> {
    let id = target(&api, &mutation, Path((tenant, project, app)))?;
    former(&api, &id)?;
    let snapshot = mutation.body.0.snapshot.clone();
    if !api.machine.snapshots(&id, &volume).await?.iter().any(|(name, _)| *name == snapshot) {
        return Err(no_snapshot(&volume, &snapshot));
    }
    begin(&api, &mutation, id, event::VolumeWork { volume, snapshot, what: event::VolumeDeed::Restore }).await
}

async fn begin<T>(
    api: &Api,
    mutation: &Mutation<T>,
    id: AppId,
    work: event::VolumeWork,
) -> Result<(StatusCode, Json<VolumeWork>), Refused> {
    let wish = Wish::WorkOnVolume { work: work.clone() };
    mutation.submit(api, Command::App { app: id.clone(), wish }, None).await?;
    // A repeat that comes later was answered with what the first one began.
    let app = former(api, &id)?;
    let known = [app.volume_work.as_ref(), app.volume_worked.as_ref().map(|(work, _)| work)];
    let same = |it: &&event::VolumeWork| it.volume == work.volume && it.what == work.what;
    let begun = known.into_iter().flatten().find(same).unwrap_or(&work);
    Ok((StatusCode::ACCEPTED, Json(work_shown(begun, None))))
}

#[utoipa::path(delete, path = route::SNAPSHOT, tag = "volumes", responses((status = 204, description = "It is gone")),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("volume" = String, Path),
        ("snapshot" = String, Path), ("Idempotency-Key" = String, Header)))]
pub(super) async fn remove_snapshot(
    State(api): State<Arc<Api>>,
    Path((tenant, project, app, volume, snapshot)): SnapshotPath,
    mutation: Mutation<NoBody>,
) -> Result<StatusCode, Refused> {
    let id = target(&api, &mutation, Path((tenant, project, app)))?;
    former(&api, &id)?;
    if !api.machine.snapshots(&id, &volume).await?.iter().any(|(name, _)| *name == snapshot) {
        if mutation.earlier(&api).await?.is_some() {
            return Ok(StatusCode::NO_CONTENT);
        }
        return Err(no_snapshot(&volume, &snapshot));
    }
    let wish = Wish::RemoveVolume { volume: volume.clone(), snapshot: Some(snapshot.clone()) };
    mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    api.machine.remove_volume(&id, &volume, Some(snapshot)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The name of a snapshot that is taken now.
fn moment(now: Timestamp) -> SnapshotName {
    SnapshotName::at(now)
}
