//! What people want of an app.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_spec::manifest::{Manifest, Strategy};
use berth_spec::{AppId, EnvName, HostName, ProcessName, ReleaseNumber, SnapshotName, VolumeName};

use super::{MAX_DOMAINS, MAX_INSTANCES, MAX_RUNS, MAX_SLOTS, MAX_VARIABLES, next_secret_version, traffic};
use crate::command::{Deploy, Refusal, RunWish, Sharing, Wish};
use crate::cron;
use crate::event::{Artifact, Event, Reason, ReleaseSubmitted, SealedSecret, VolumeWork, WarmEnd};
use crate::route::{claims, default_host, named_by_default};
use crate::state::{App, Life, Phase, Release, State};

pub(super) fn decide(state: &State, id: &AppId, wish: &Wish) -> Result<Vec<Event>, Refusal> {
    match wish {
        Wish::Create => create(state, id).map(|(_, created)| created.into_iter().collect()),
        Wish::Deploy(submission) => deploy(state, id, submission),
        Wish::ChangeConfig { set, unset } => {
            let (app, created) = app_for(state, id, set.is_empty())?;
            Ok(created.into_iter().chain(change_config(&app, set, unset)?).collect())
        }
        Wish::ChangeSecrets { set, unset } => {
            let (app, created) = app_for(state, id, set.is_empty())?;
            Ok(created.into_iter().chain(change_secrets(&app, set, unset)?).collect())
        }
        Wish::Rollback { to, keep_config } => rollback(state, alive(state, id)?, *to, *keep_config),
        Wish::Scale { processes } => scale(alive(state, id)?, processes),
        Wish::ChangeDomains { add, remove } => {
            let (app, created) = app_for(state, id, add.is_empty())?;
            Ok(created.into_iter().chain(change_domains(state, &app, add, remove)?).collect())
        }
        Wish::ChangeGate { gate } => {
            let app = alive(state, id)?;
            Ok(if app.gate == *gate { Vec::new() } else { vec![Event::GateChanged { gate: *gate }] })
        }
        Wish::SetTraffic { release, percent } => traffic::set(alive(state, id)?, *release, *percent),
        Wish::Promote => traffic::promote(alive(state, id)?),
        Wish::Abort => traffic::abort(alive(state, id)?),
        Wish::Run(wish) => run(alive(state, id)?, wish),
        Wish::RunCron { entry, token } => cron::run_now(alive(state, id)?, entry, token),
        Wish::WorkOnVolume { work } => work_on_volume(alive(state, id)?, work),
        Wish::RemoveVolume { volume, snapshot } => remove_volume(state, id, volume, snapshot.as_ref()),
        Wish::ChangeGit { git } => {
            let app = alive(state, id)?;
            Ok(if app.git == *git { Vec::new() } else { vec![Event::GitChanged { git: git.clone() }] })
        }
        Wish::Destroy { volumes } => destroy(state, id, *volumes),
    }
}

fn alive<'a>(state: &'a State, id: &AppId) -> Result<&'a App, Refusal> {
    match state.apps.get(id) {
        Some(app) if app.life == Life::Alive => Ok(app),
        Some(app) if app.life == Life::Destroying => Err(Refusal::BeingDestroyed(id.clone())),
        _ => Err(Refusal::NoSuchApp(id.clone())),
    }
}

/// The app to change. Whoever sets something may do so before the first deploy; who only takes away has mistaken the name.
fn app_for(state: &State, id: &AppId, only_takes_away: bool) -> Result<(App, Option<Event>), Refusal> {
    if only_takes_away { Ok((App::clone(alive(state, id)?), None)) } else { create(state, id) }
}

/// The app as it is, or as it will be right after the event that creates it.
fn create(state: &State, id: &AppId) -> Result<(App, Option<Event>), Refusal> {
    if !state.platform.projects.contains(&id.project_id()) {
        return Err(Refusal::NoSuchProject(id.project_id()));
    }
    match state.apps.get(id) {
        Some(app) if app.life == Life::Alive => Ok((App::clone(app), None)),
        Some(app) if app.life == Life::Destroying => Err(Refusal::BeingDestroyed(id.clone())),
        former => {
            let slot = match former {
                Some(app) => app.slot,
                None => state.platform.next_slot,
            };
            if slot >= MAX_SLOTS {
                return Err(Refusal::SlotsExhausted(MAX_SLOTS));
            }
            let app = former.map_or_else(|| App::new(id.clone()), |app| App::clone(app));
            Ok((app, Some(Event::AppCreated { slot })))
        }
    }
}

fn deploy(state: &State, id: &AppId, submission: &Deploy) -> Result<Vec<Event>, Refusal> {
    let (app, created) = create(state, id)?;
    check_hosts(state, id, &submission.manifest.http.hosts)?;
    check_volumes(&app, &submission.manifest)?;
    let release = ReleaseSubmitted {
        number: app.next_number(),
        reason: Reason::Deploy,
        tree: submission.tree.clone(),
        manifest: submission.manifest.clone(),
        artifact: None,
        config: app.config.clone(),
        secrets: app.secret_versions(),
        description: submission.description.clone(),
        commit: submission.commit.clone(),
    };
    Ok(created.into_iter().chain([Event::ReleaseSubmitted(Box::new(release))]).collect())
}

/// What the manifest and the counts say together keeps each volume to one instance of a process at a time.
fn check_volumes(app: &App, manifest: &Manifest) -> Result<(), Refusal> {
    let web = ProcessName::new(ProcessName::WEB).expect("it is a name");
    let beside = manifest.deploy.strategy.filter(|strategy| *strategy != Strategy::Recreate);
    if let Some((strategy, (volume, _))) = beside.zip(manifest.volumes_of(&web).next()) {
        let how = Sharing::Strategy(strategy);
        return Err(Refusal::VolumeExclusive { app: app.id.clone(), volume: volume.clone(), how });
    }
    one_instance_each(app, manifest, &app.scale)
}

/// Of a process that has a volume there is one instance. Where only the builder knows the processes, all that were ever scaled count.
fn one_instance_each(
    app: &App,
    manifest: &Manifest,
    counts: &BTreeMap<ProcessName, u32>,
) -> Result<(), Refusal> {
    let known =
        |process: &ProcessName| manifest.processes.is_empty() || manifest.processes.contains_key(process);
    for (process, &count) in counts.iter().filter(|(process, count)| **count > 1 && known(process)) {
        if let Some((volume, _)) = manifest.volumes_of(process).next() {
            let how = Sharing::Instances { process: process.clone(), count };
            return Err(Refusal::VolumeExclusive { app: app.id.clone(), volume: volume.clone(), how });
        }
    }
    Ok(())
}

/// A host belongs to the app that claims it first, and no wildcard of one tenant takes names from another.
fn check_hosts<'h>(
    state: &State,
    id: &AppId,
    wanted: impl IntoIterator<Item = &'h HostName>,
) -> Result<(), Refusal> {
    for host in wanted {
        // The hosts that Berth itself makes up are an app's own, whether or not the app exists yet.
        let below_localhost = host.is_wildcard() && host.as_str().ends_with(".localhost");
        if below_localhost || named_by_default(host).is_some_and(|owner| owner != *id) {
            return Err(Refusal::HostReserved { host: host.clone(), app: id.clone() });
        }
        let others = state.apps.values().filter(|other| other.life != Life::Destroyed && other.id != *id);
        let clashes = |other: &App| {
            let foreign = other.id.tenant != id.tenant;
            claims(other)
                .any(|claim| claim == host || (foreign && (claim.covers(host) || host.covers(claim))))
        };
        if let Some(owner) = others.map(|other| &**other).find(|other| clashes(other)) {
            return Err(Refusal::HostTaken { host: host.clone(), owner: owner.id.clone() });
        }
    }
    Ok(())
}

fn change_domains(
    state: &State,
    app: &App,
    add: &BTreeSet<HostName>,
    remove: &BTreeSet<HostName>,
) -> Result<Vec<Event>, Refusal> {
    if let Some(host) = remove.iter().find(|host| !app.domains.contains(*host)) {
        let why = if default_host(&app.id) == host.as_str() {
            "it is the host that every app has"
        } else if claims(app).any(|claim| claim == host) {
            "berth.toml names it; take it out under [http] and deploy"
        } else {
            return Err(Refusal::NoSuchDomain { app: app.id.clone(), host: host.clone() });
        };
        return Err(Refusal::DomainFixed { host: host.clone(), why });
    }
    check_hosts(state, &app.id, add)?;
    let is_new = |host: &&HostName| !app.domains.contains(*host) && host.as_str() != default_host(&app.id);
    let added: BTreeSet<HostName> = add.iter().filter(is_new).cloned().collect();
    if added.is_empty() && remove.is_empty() {
        return Ok(Vec::new());
    }
    let count = app.domains.len() + added.len() - remove.len();
    if count > MAX_DOMAINS {
        return Err(Refusal::TooMany { app: app.id.clone(), what: "domains", count, max: MAX_DOMAINS });
    }
    Ok(vec![Event::DomainsChanged { added, removed: remove.clone() }])
}

/// The release whose source a change of configuration goes with: the newest that is on its way, else the one that serves.
fn current(app: &App) -> Option<&Release> {
    let coming = app.releases.values().rev().find(|release| !release.phase.is_settled());
    coming.or_else(|| app.serving_release()).map(|release| &**release)
}

/// A release that differs from the current one in configuration or secrets alone.
fn reconfigured(
    app: &App,
    reason: Reason,
    config: BTreeMap<EnvName, String>,
    secrets: BTreeMap<EnvName, u64>,
) -> Option<Event> {
    let base = current(app)?;
    // What a build was told has gone into the artifact, so that another value needs another one.
    let told = |name: &EnvName| {
        base.config.get(name) != config.get(name) || base.secrets.get(name) != secrets.get(name)
    };
    let artifact = base.artifact.clone().filter(|_| !base.manifest.build.env.iter().any(told));
    Some(Event::ReleaseSubmitted(Box::new(ReleaseSubmitted {
        number: app.next_number(),
        reason,
        tree: base.tree.clone(),
        manifest: base.manifest.clone(),
        artifact,
        config,
        secrets,
        description: None,
        commit: base.commit.clone(),
    })))
}

fn within_limit(app: &App, what: &'static str, count: usize) -> Result<(), Refusal> {
    if count > MAX_VARIABLES {
        return Err(Refusal::TooMany { app: app.id.clone(), what, count, max: MAX_VARIABLES });
    }
    Ok(())
}

fn change_config(
    app: &App,
    set: &BTreeMap<EnvName, String>,
    unset: &BTreeSet<EnvName>,
) -> Result<Vec<Event>, Refusal> {
    let mut config = app.config.clone();
    config.retain(|name, _| !unset.contains(name));
    config.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    if config == app.config {
        return Ok(Vec::new());
    }
    within_limit(app, "environment variables", config.len())?;
    let changed = Event::ConfigChanged { set: set.clone(), unset: unset.clone() };
    let release = reconfigured(app, Reason::Config, config, app.secret_versions());
    Ok([changed].into_iter().chain(release).collect())
}

fn change_secrets(
    app: &App,
    set: &BTreeMap<EnvName, SealedSecret>,
    unset: &BTreeSet<EnvName>,
) -> Result<Vec<Event>, Refusal> {
    for (name, value) in set {
        if value.version != next_secret_version(Some(app), name) {
            return Err(Refusal::SecretRace { name: name.clone() });
        }
    }
    let mut versions = app.secret_versions();
    versions.retain(|name, _| !unset.contains(name));
    versions.extend(set.iter().map(|(name, value)| (name.clone(), value.version)));
    if versions == app.secret_versions() {
        return Ok(Vec::new());
    }
    within_limit(app, "secrets", versions.len())?;
    let mut events = vec![Event::SecretsChanged { set: set.clone(), unset: unset.clone() }];
    // A warm instance that holds a value which was revoked or replaced must not be able to come back.
    let warm = app.warm.and_then(|number| app.release(number));
    if let Some(warm) = warm.filter(|warm| warm.secrets.iter().any(|(name, v)| versions.get(name) != Some(v)))
    {
        events.extend(super::fact::route_back(app, warm.number));
        events.push(Event::WarmEnded { number: warm.number, why: WarmEnd::SecretRevoked });
    }
    events.extend(reconfigured(app, Reason::Secrets, app.config.clone(), versions));
    Ok(events)
}

fn rollback(state: &State, app: &App, to: ReleaseNumber, keep_config: bool) -> Result<Vec<Event>, Refusal> {
    let id = &app.id;
    let target = app.release(to).ok_or_else(|| Refusal::NoSuchRelease { app: id.clone(), number: to })?;
    let artifact: &Artifact = match (&target.artifact, target.phase) {
        (Some(artifact), Phase::Activated) => artifact,
        _ => return Err(Refusal::NeverServed { app: id.clone(), number: to }),
    };
    // Another app may have taken since what the old release had.
    check_hosts(state, id, &target.manifest.http.hosts)?;
    check_volumes(app, &target.manifest)?;
    let set_now = app.secret_versions();
    let (config, secrets) = if keep_config {
        (app.config.clone(), set_now.clone())
    } else {
        (target.config.clone(), target.secrets.clone())
    };
    if serves_already(app, to, &config, &secrets) {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    if config != app.config {
        let unset = app.config.keys().filter(|name| !config.contains_key(*name)).cloned().collect();
        let set = config.iter().filter(|(name, value)| app.config.get(*name) != Some(value));
        let set = set.map(|(name, value)| (name.clone(), value.clone())).collect();
        events.push(Event::ConfigChanged { set, unset });
    }
    events.extend(restore_secrets(app, &secrets));
    events.push(Event::ReleaseSubmitted(Box::new(ReleaseSubmitted {
        number: app.next_number(),
        reason: Reason::Rollback { of: to, keep_config },
        tree: target.tree.clone(),
        manifest: target.manifest.clone(),
        artifact: Some(artifact.clone()),
        config,
        secrets,
        description: None,
        commit: target.commit.clone(),
    })));
    Ok(events)
}

/// Whether a rollback to `to` would change nothing: it serves, by itself or as what was rolled back to, and nothing is on its way that
/// it would stop.
fn serves_already(
    app: &App,
    to: ReleaseNumber,
    config: &BTreeMap<EnvName, String>,
    secrets: &BTreeMap<EnvName, u64>,
) -> bool {
    let Some(serving) = app.serving_release() else { return false };
    let is_it = serving.number == to || matches!(serving.reason, Reason::Rollback { of, .. } if of == to);
    let settled = || app.releases.values().all(|release| release.phase.is_settled());
    let as_now = || app.config == *config && app.secret_versions() == *secrets;
    is_it && serving.config == *config && serving.secrets == *secrets && as_now() && settled()
}

/// Makes the app's secrets be what the release that is rolled back to had, without a new value: a value that was
/// replaced comes back under its old version, one that was added since is unset.
fn restore_secrets(app: &App, wanted: &BTreeMap<EnvName, u64>) -> Option<Event> {
    let now = app.secret_versions();
    if now == *wanted {
        return None;
    }
    let unset: BTreeSet<EnvName> = now.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
    let set = wanted.iter().filter(|(name, version)| now.get(*name) != Some(version));
    let set = set.filter_map(|(name, version)| {
        let sealed = app.secrets.get(name)?.values.get(version)?.clone();
        Some((name.clone(), SealedSecret { version: *version, sealed }))
    });
    Some(Event::SecretsChanged { set: set.collect(), unset })
}

fn scale(app: &App, processes: &BTreeMap<ProcessName, u32>) -> Result<Vec<Event>, Refusal> {
    let known =
        app.serving_release().or_else(|| app.releases.values().rev().find(|it| it.artifact.is_some()));
    if let Some(known) = known {
        let has: Vec<ProcessName> =
            known.processes().into_iter().flat_map(|processes| processes.keys().cloned()).collect();
        if let Some(process) = processes.keys().find(|process| !has.contains(process)) {
            return Err(Refusal::NoSuchProcess { app: app.id.clone(), process: process.clone(), has });
        }
    }
    if let Some((process, &count)) = processes.iter().find(|(_, count)| **count > MAX_INSTANCES) {
        return Err(Refusal::TooManyInstances { process: process.clone(), count, max: MAX_INSTANCES });
    }
    let current =
        app.serving_release().into_iter().chain(app.releases.values().filter(|it| !it.phase.is_settled()));
    for release in current {
        one_instance_each(app, &release.manifest, processes)?;
    }
    let changed: BTreeMap<ProcessName, u32> = processes
        .iter()
        .filter(|(process, count)| app.wanted(process) != **count)
        .map(|(process, count)| (process.clone(), *count))
        .collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ScaleChanged { processes: changed }])
}

fn run(app: &App, wish: &RunWish) -> Result<Vec<Event>, Refusal> {
    let id = &app.id;
    let within = match wish.within {
        Some(ordinal) => {
            let instance = app.instances.get(&ordinal).filter(|it| it.is_wanted());
            Some(instance.ok_or_else(|| Refusal::NoSuchInstance { app: id.clone(), ordinal })?.started_as)
        }
        None => wish.release.or(app.serving),
    };
    let number = within.ok_or_else(|| Refusal::NothingServes(id.clone()))?;
    let release = app.release(number).ok_or_else(|| Refusal::NoSuchRelease { app: id.clone(), number })?;
    // What failed or was superseded is not kept, even where it still is there.
    let kept = release.phase == Phase::Activated || !release.phase.is_settled();
    if release.artifact.is_none() || !kept {
        return Err(Refusal::ReleaseGone { app: id.clone(), number });
    }
    let count = app.runs.values().filter(|run| run.cron.is_none()).count() + 1;
    if count > MAX_RUNS {
        let what = "one-off commands at a time";
        return Err(Refusal::TooMany { app: id.clone(), what, count, max: MAX_RUNS });
    }
    Ok(vec![Event::RunAssigned {
        run: app.last_run + 1,
        release: number,
        command: wish.command.clone(),
        variables: wish.variables.clone(),
        mode: wish.mode,
        limit: wish.limit,
        token: wish.token.clone(),
        cron: None,
        within: wish.within,
    }])
}

/// One work at a time, and none beside an activation, which has orders of its own, or beside one-off commands that have the volume.
fn work_on_volume(app: &App, work: &VolumeWork) -> Result<Vec<Event>, Refusal> {
    let busy = |why: String| Err(Refusal::VolumeBusy { app: app.id.clone(), why });
    if let Some(other) = &app.volume_work {
        return if other == work { Ok(Vec::new()) } else { busy(format!("{} is worked on", other.volume)) };
    }
    if let Some(activation) = &app.activation {
        return busy(format!("{} is being deployed", activation.release));
    }
    let has = |number: ReleaseNumber| {
        app.release(number).is_some_and(|release| release.manifest.volumes.contains_key(&work.volume))
    };
    if let Some((run, _)) = app.runs.iter().find(|(_, run)| has(run.release)) {
        return busy(format!("run.{run} has the volume"));
    }
    Ok(vec![Event::VolumeWorkBegan { work: work.clone() }])
}

fn remove_volume(
    state: &State,
    id: &AppId,
    volume: &VolumeName,
    snapshot: Option<&SnapshotName>,
) -> Result<Vec<Event>, Refusal> {
    let app = state.apps.get(id).ok_or_else(|| Refusal::NoSuchApp(id.clone()))?;
    if app.volume_work.as_ref().is_some_and(|work| work.volume == *volume) {
        return Err(Refusal::VolumeBusy { app: id.clone(), why: format!("{volume} is worked on") });
    }
    let removed = Event::VolumeRemoved { volume: volume.clone(), snapshot: snapshot.cloned() };
    if snapshot.is_some() {
        return Ok(vec![removed]);
    }
    let lives = |number: ReleaseNumber| {
        app.serving == Some(number)
            || app.release(number).is_some_and(|release| !release.phase.is_settled())
            || app.instances.values().any(|it| it.release == number || it.started_as == number)
            || app.runs.values().any(|run| run.release == number)
    };
    let has =
        |release: &&Arc<Release>| release.manifest.volumes.contains_key(volume) && lives(release.number);
    match app.releases.values().rev().find(has) {
        Some(release) => {
            let (app, volume) = (id.clone(), volume.clone());
            Err(Refusal::VolumeInUse { app, volume, release: release.number })
        }
        None => Ok(vec![removed]),
    }
}

fn destroy(state: &State, id: &AppId, volumes: bool) -> Result<Vec<Event>, Refusal> {
    match state.apps.get(id) {
        // Asked again while it goes: so it is already, but for volumes that were to stay.
        Some(app) if app.life == Life::Destroying => {
            let more = volumes && !app.volumes_go;
            Ok(more.then_some(Event::AppDestroying { volumes }).into_iter().collect())
        }
        _ => {
            let app = alive(state, id)?;
            let unsettled = app.releases.values().filter(|release| !release.phase.is_settled());
            let failed = unsettled.map(|release| Event::ReleaseFailed {
                number: release.number,
                failure: crate::event::Failure::new(
                    "app_destroying",
                    "the app was destroyed before this release served",
                ),
            });
            Ok(failed.chain([Event::AppDestroying { volumes }]).collect())
        }
    }
}
