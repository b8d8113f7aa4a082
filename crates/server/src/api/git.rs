//! How an app is deployed by git: its remote, the branch, a repository elsewhere; and passes for its owner's own git.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_clock::random_bytes;
use berth_contract::{
    Code, ConnectGit, Git, GitBranch, GitConnected, GitConnection, GitPass, Problem, route,
};
use berth_control::command::{Command, Wish};
use berth_control::event::{GitConnection as KnownConnection, GitSettings};
use berth_control::state::App;
use berth_spec::{AppId, Timestamp};

use super::Api;
use super::apps::{AppPath, find, target};
use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Refused};
use crate::git::{PASS_FOR_MS, Pass, check_url, deploy_branches, hook_path, hook_secret, short, token_bound};

#[utoipa::path(get, path = route::APP_GIT, tag = "git", responses((status = 200, body = Git)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<Git>, Refused> {
    let app = find(&api, &principal, path)?;
    Ok(Json(shown(&api, &app)))
}

#[utoipa::path(put, path = route::GIT_BRANCH, tag = "git", request_body = GitBranch, responses((status = 200, body = Git)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change_branch(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<GitBranch>>,
) -> Result<Json<Git>, Refused> {
    let id = target(&api, &mutation, path)?;
    let before = known(&api, &id)?;
    let git = GitSettings { branch: mutation.body.0.branch.clone(), ..before.git.clone() };
    let app = change(&api, &id, &mutation, git).await?;
    Ok(Json(shown(&api, &app)))
}

#[utoipa::path(put, path = route::GIT_CONNECTION, tag = "git", request_body = ConnectGit,
    responses((status = 200, body = GitConnected)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn connect(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<ConnectGit>>,
) -> Result<Json<GitConnected>, Refused> {
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    check_url(&sent.url, sent.allow_http)?;
    let token = sent.token.as_ref().map(|token| token.expose());
    if token
        .is_some_and(|token| token.is_empty() || token.len() > 4_096 || token.chars().any(char::is_control))
    {
        return Err(Problem::new(
            Code::RequestInvalid,
            "the token is empty, too long or holds control characters",
        )
        .into());
    }
    let before = known(&api, &id)?;
    // Every connection has a webhook of its own: connecting again is how a secret is changed.
    let hook = hex::encode(random_bytes::<8>(&*api.clock));
    let token = token.map(|token| api.vault.seal_text(&*api.clock, &token_bound(&id, &hook), token));
    let git = GitSettings {
        branch: sent.branch.clone().or_else(|| before.git.branch.clone()),
        connection: Some(KnownConnection { hook, url: sent.url.clone(), token }),
    };
    let app = change(&api, &id, &mutation, git).await?;
    let gone = || Problem::new(Code::Conflict, "it was disconnected at the same time").next("ask again");
    let connection = app.git.connection.as_ref().ok_or_else(gone)?;
    let secret = hook_secret(&api, &id, &connection.hook);
    Ok(Json(GitConnected { connection: connected(&id, connection), secret }))
}

#[utoipa::path(delete, path = route::GIT_CONNECTION, tag = "git", responses((status = 200, body = Git)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn disconnect(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<NoBody>,
) -> Result<Json<Git>, Refused> {
    let id = target(&api, &mutation, path)?;
    let before = known(&api, &id)?;
    let git = GitSettings { connection: None, ..before.git.clone() };
    let app = change(&api, &id, &mutation, git).await?;
    Ok(Json(shown(&api, &app)))
}

#[utoipa::path(post, path = route::GIT_PASS, tag = "git", responses((status = 200, body = GitPass)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn pass(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<NoBody>,
) -> Result<Json<GitPass>, Refused> {
    let app = find(&api, &mutation.principal, path)?;
    let until = Timestamp(api.clock.now().0 + PASS_FOR_MS);
    let pass = Pass { name: mutation.principal.name.clone(), app: app.id.clone(), until };
    Ok(Json(GitPass { username: "berth".to_owned(), password: pass.write(&api.vault), expires_at: until }))
}

fn known(api: &Api, id: &AppId) -> Result<Arc<App>, Refused> {
    let gone = || Problem::new(Code::AppNotFound, format!("there is no app {id}"));
    Ok(api.desk.app(id).ok_or_else(|| gone().next("`berth apps` lists the apps there are"))?)
}

async fn change<T>(
    api: &Api,
    id: &AppId,
    mutation: &Mutation<T>,
    git: GitSettings,
) -> Result<Arc<App>, Refused> {
    mutation.submit(api, Command::App { app: id.clone(), wish: Wish::ChangeGit { git } }, None).await?;
    known(api, id)
}

fn shown(api: &Api, app: &App) -> Git {
    Git {
        remote: format!("http://{}{}{}.git", api.identity.api, route::GIT_PREFIX, short(&app.id)),
        branches: deploy_branches(app).iter().filter_map(|it| it.parse().ok()).collect(),
        connection: app.git.connection.as_ref().map(|it| connected(&app.id, it)),
    }
}

fn connected(id: &AppId, connection: &KnownConnection) -> GitConnection {
    GitConnection {
        url: connection.url.clone(),
        hook: hook_path(id, &connection.hook),
        has_token: connection.token.is_some(),
    }
}
