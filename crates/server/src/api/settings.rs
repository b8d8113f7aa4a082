//! Configuration and secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{
    Code, Config, ConfigChanged, ConfigPatch, Problem, SecretNames, SecretsChanged, SecretsPatch, route,
};
use berth_control::command::{Command, Wish};
use berth_control::decide::next_secret_version;
use berth_control::event::SealedSecret;
use berth_control::state::App;
use berth_spec::manifest::ENV_VALUE_MAX;
use berth_spec::{AppId, EnvName};

use super::Api;
use super::apps::{AppPath, find, target};
use super::auth::Principal;
use super::mutation::Mutation;
use super::problem::{Body, Refused};
use crate::secrets::Label;

#[utoipa::path(get, path = route::CONFIG, tag = "settings", responses((status = 200, body = Config)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn config(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<Config>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(Config { config: app.config.clone(), release: app.serving, unreleased: unreleased(&app) }))
}

/// The variables that the release that serves does not have as they are set.
fn unreleased(app: &App) -> Vec<EnvName> {
    let Some(serving) = app.serving_release() else { return Vec::new() };
    let names: BTreeSet<&EnvName> = app.config.keys().chain(serving.config.keys()).collect();
    names.into_iter().filter(|name| app.config.get(*name) != serving.config.get(*name)).cloned().collect()
}

#[utoipa::path(patch, path = route::CONFIG, tag = "settings", request_body = ConfigPatch,
    responses((status = 200, body = ConfigChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change_config(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<ConfigPatch>>,
) -> Result<Json<ConfigChanged>, Refused> {
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    let unset = distinct(&sent.set, &sent.unset)?;
    for (name, value) in &sent.set {
        check_value(name, value)?;
    }
    let wish = Wish::ChangeConfig { set: sent.set.clone(), unset };
    let outcome = mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    let app = changed(&api, &id)?;
    Ok(Json(ConfigChanged { config: app.config.clone(), release: outcome.release }))
}

#[utoipa::path(get, path = route::SECRETS, tag = "settings", responses((status = 200, body = SecretNames)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn secrets(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<SecretNames>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(SecretNames { secrets: app.secret_versions(), release: app.serving }))
}

#[utoipa::path(patch, path = route::SECRETS, tag = "settings", request_body = SecretsPatch,
    responses((status = 200, body = SecretsChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change_secrets(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<SecretsPatch>>,
) -> Result<Json<SecretsChanged>, Refused> {
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    let unset = distinct(&sent.set, &sent.unset)?;
    for (name, value) in &sent.set {
        check_value(name, value.expose())?;
    }
    let ahead = api.desk.app_ahead(&id);
    let sealed = sent.set.iter().map(|(name, value)| {
        let version = next_secret_version(ahead.as_deref(), name);
        let sealed = api.vault.seal(&*api.clock, Label { app: &id, name, version }, value.expose());
        (name.clone(), SealedSecret { version, sealed })
    });
    let wish = Wish::ChangeSecrets { set: sealed.collect(), unset };
    let outcome = mutation.submit(&api, Command::App { app: id.clone(), wish }, None).await?;
    let app = changed(&api, &id)?;
    Ok(Json(SecretsChanged { secrets: app.secret_versions(), release: outcome.release }))
}

fn changed(api: &Api, id: &AppId) -> Result<Arc<App>, Refused> {
    let gone = || Problem::new(Code::AppNotFound, format!("{id} was destroyed meanwhile"));
    Ok(api.desk.app(id).ok_or_else(gone)?)
}

fn distinct<V>(set: &BTreeMap<EnvName, V>, unset: &[EnvName]) -> Result<BTreeSet<EnvName>, Refused> {
    if let Some(both) = unset.iter().find(|name| set.contains_key(*name)) {
        let detail = format!("{both} is to be set and unset at once");
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    Ok(unset.iter().cloned().collect())
}

/// An environment variable ends at a NUL, and the kernel limits one to 128 KiB.
pub(super) fn check_value(name: &EnvName, value: &str) -> Result<(), Refused> {
    if value.contains('\0') {
        return Err(
            Problem::new(Code::RequestInvalid, format!("the value of {name} holds a NUL character")).into()
        );
    }
    if value.len() > ENV_VALUE_MAX {
        let detail = format!("the value of {name} has {} bytes, more than {ENV_VALUE_MAX}", value.len());
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    Ok(())
}
