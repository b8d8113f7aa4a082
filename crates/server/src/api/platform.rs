//! The platform as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_contract::{Platform, PlatformDown, Role, route};
use berth_control::state::{App, Life};
use berth_runtime::Capabilities;
use berth_spec::{Isolation, Millis};

use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::Refused;
use super::volumes::volume_sizes;
use super::{Api, views};
use crate::events::BREACHES;
use crate::formats::Formats;

/// So many apps are part of the status; the rest is a question of their own.
const APPS_SHOWN: usize = 100;

#[utoipa::path(get, path = route::PLATFORM, tag = "platform", responses((status = 200, body = Platform)))]
pub(super) async fn status(State(api): State<Arc<Api>>, principal: Principal) -> Json<Platform> {
    let (apps, app_count): (Vec<Arc<App>>, usize) = api.desk.read(|state| {
        let seen =
            || state.apps.values().filter(|app| app.life != Life::Destroyed && principal.may_see(&app.id));
        (seen().take(APPS_SHOWN).cloned().collect(), seen().count())
    });
    let identity = &api.identity;
    let owner = principal.owns_platform();
    let to_owner = |path: &std::path::Path| if owner { path.display().to_string() } else { String::new() };
    let capabilities = api.machine.capabilities();
    let dockerfiles = api.machine.dockerfile_engine().await;
    let written = api.desk.read(|state| state.platform.breaches);
    let role = |name: &str, pid: u32| Role { name: name.to_owned(), pid };
    let roles = identity
        .supervisor_pid
        .map(|pid| role("supervisor", pid))
        .into_iter()
        .chain([role("control", std::process::id())])
        .chain(api.edge.pids().into_iter().map(|pid| role("edge", pid)));
    let up = api.clock.monotonic().saturating_sub(identity.started);
    Json(Platform {
        platform: identity.platform.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        home: to_owner(&identity.home),
        program: std::fs::read_link("/proc/self/exe").map(|path| to_owner(&path)).unwrap_or_default(),
        edge: identity.edge.to_string(),
        https: identity.https.map(|address| address.to_string()),
        api: identity.api.to_string(),
        socket: to_owner(&identity.socket),
        backend: backend(&capabilities),
        isolation: capabilities.isolation.into(),
        isolation_words: words(capabilities.isolation, capabilities.users).to_owned(),
        names: capabilities.names,
        network: network(&capabilities),
        isolation_missing: if owner { missing(&capabilities) } else { Vec::new() },
        limits: capabilities.limits.into_iter().map(str::to_owned).collect(),
        cgroups: capabilities.cgroup.map(|kind| kind.to_string()),
        build_processes: api.machine.build_processes(),
        build_network: api.machine.build_network().to_owned(),
        dockerfiles: dockerfiles.unwrap_or_else(|| Platform::NOTHING.to_owned()),
        volume_sizes: Some(volume_sizes(&api.machine).await),
        breaches: BREACHES.total().max(written),
        started_at: identity.started_at,
        uptime_ms: Millis(u64::try_from(up.as_millis()).unwrap_or(u64::MAX)),
        position: api.journal.head().0,
        journal_format: api.journal.format(),
        newest_format: Formats::OWN.newest,
        roles: roles.filter(|_| owner).collect(),
        apps: apps.iter().map(|app| views::summary(&api, app)).collect(),
        app_count: app_count as u64,
    })
}

fn backend(capabilities: &Capabilities) -> String {
    match &capabilities.daemon {
        Some(daemon) => format!("{} {daemon}", capabilities.backend),
        None => capabilities.backend.to_owned(),
    }
}

/// What a level of isolation is, in words.
fn words(level: Isolation, users: bool) -> &'static str {
    match (level, users) {
        (Isolation::Plain, false) => "nothing: every app runs as the platform's own user",
        (Isolation::Plain, true) => "a user of its own for every app, and nothing else",
        (Isolation::Confined, false) => "few system calls and no files but its own",
        (Isolation::Confined, true) => {
            "a user of its own for every app, few system calls and no files but its own"
        }
        (Isolation::Namespaces, false) => {
            "a root, processes and few system calls of its own for every instance"
        }
        (Isolation::Namespaces, true) => {
            "a user for every app, a root, processes and few system calls of its own for every instance"
        }
        (Isolation::Full, _) => {
            "a user for every app; a root, processes, few system calls and limits of its own for every instance"
        }
    }
}

fn network(capabilities: &Capabilities) -> String {
    if !capabilities.own_network {
        return "the machine's for all instances: each reaches the ports of the others".to_owned();
    }
    let names = if capabilities.names { "reaches other apps by name" } else { "no names of other apps" };
    match &capabilities.no_egress {
        None => format!("one of its own for every instance, with a way out; {names}"),
        Some(why) => format!("one of its own for every instance; {names}; without a way out: {why}"),
    }
}

/// What keeps instances from more, a sentence each.
fn missing(capabilities: &Capabilities) -> Vec<String> {
    let no_egress = capabilities.no_egress.as_ref().filter(|_| capabilities.own_network);
    let no_egress = no_egress.map(|why| format!("instances have no way out: {why}"));
    capabilities.missing.iter().cloned().chain(no_egress).collect()
}

#[utoipa::path(post, path = route::PLATFORM_DOWN, tag = "platform", responses((status = 202, body = PlatformDown)),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn down(
    State(api): State<Arc<Api>>,
    mutation: Mutation<NoBody>,
) -> Result<(StatusCode, Json<PlatformDown>), Refused> {
    mutation.principal.own_platform()?;
    let instances: usize = api.desk.read(|state| state.apps.values().map(|app| app.instances.len()).sum());
    api.machine.ask_down();
    Ok((StatusCode::ACCEPTED, Json(PlatformDown { instances: u32::try_from(instances).unwrap_or(u32::MAX) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_that_is_not_there_is_told_with_what_is_missing() {
        let why = "ufw drops what instances send; `ufw route allow in on bv+` lets them out";
        let capabilities = Capabilities {
            backend: "native",
            daemon: None,
            isolation: Isolation::Full,
            missing: vec!["no limits on memory".to_owned()],
            limits: Vec::new(),
            users: true,
            cgroup: None,
            freezes: false,
            own_network: true,
            no_egress: Some(why.to_owned()),
            names: true,
        };
        assert!(network(&capabilities).ends_with(&format!("without a way out: {why}")));
        let told = ["no limits on memory".to_owned(), format!("instances have no way out: {why}")];
        assert_eq!(missing(&capabilities), told);
        let shared = Capabilities { own_network: false, ..capabilities };
        assert_eq!(missing(&shared).len(), 1);
    }
}
