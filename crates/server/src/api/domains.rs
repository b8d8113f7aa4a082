//! The hosts that lead to an app.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{Code, Domain, DomainList, DomainSource, DomainsChanged, DomainsPatch, Problem, route};
use berth_control::command::{Command, Wish};
use berth_control::plan::APPLY_DEADLINE;
use berth_control::route::{default_host, serving_hosts};
use berth_control::state::App;

use super::Api;
use super::apps::{AppPath, find, target};
use super::auth::Principal;
use super::mutation::Mutation;
use super::problem::{Body, Refused};

#[utoipa::path(get, path = route::DOMAINS, tag = "settings", responses((status = 200, body = DomainList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<DomainList>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(DomainList { domains: shown(&app) }))
}

#[utoipa::path(patch, path = route::DOMAINS, tag = "settings", request_body = DomainsPatch,
    responses((status = 200, body = DomainsChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<DomainsPatch>>,
) -> Result<Json<DomainsChanged>, Refused> {
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    let (add, remove): (BTreeSet<_>, BTreeSet<_>) =
        (sent.add.iter().cloned().collect(), sent.remove.iter().cloned().collect());
    if let Some(both) = add.intersection(&remove).next() {
        let detail = format!("{both} is to be added and removed at once");
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    let wish = Wish::ChangeDomains { add, remove };
    let outcome = mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    // Edge has taken it over when this is answered, so that whoever asked may use the host at once.
    let applied = !outcome.changed || api.edge.follows(outcome.position, APPLY_DEADLINE.as_duration()).await;
    let gone = || Problem::new(Code::AppNotFound, format!("{id} was destroyed meanwhile"));
    let app = api.desk.app(&id).ok_or_else(gone)?;
    Ok(Json(DomainsChanged { domains: shown(&app), applied }))
}

fn shown(app: &App) -> Vec<Domain> {
    let default = default_host(&app.id);
    let all = serving_hosts(app).into_iter().filter_map(|host| host.parse().ok());
    all.map(|host: berth_spec::HostName| {
        let source = if host.as_str() == default {
            DomainSource::Default
        } else if app.domains.contains(&host) {
            DomainSource::Added
        } else {
            DomainSource::Manifest
        };
        Domain { host, source }
    })
    .collect()
}
