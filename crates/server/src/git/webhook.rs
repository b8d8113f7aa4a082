//! Webhooks: a forge tells of a push, and the branch's newest commit is fetched from the connected repository and deployed.
//!
//! What a webhook says is believed as far as that something was pushed to a branch. Which commit is deployed the repository says, so a delivery
//! that is repeated or comes late deploys nothing old. One that made a release before is answered and makes none again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_contract::{Code, Problem};
use berth_control::command::{Command, Fact};
use berth_control::event::Failure;
use berth_control::state::Life;
use berth_spec::AppId;
use serde::Deserialize;
use serde_json::json;

use super::commit::{Commit, ObjectId};
use super::release;
use super::signature::{Event, HookSecret};
use crate::api::{Api, Refused, Whole};
use crate::desk::{Asker, RequestKey};
use crate::events;
use crate::machine::in_full;
use crate::tasks;

/// The longest body that is read, in bytes: a push of some thousand commits.
pub(crate) const BODY_MAX: usize = 8 << 20;

/// The parts of a push that all forges send alike.
#[derive(Debug, Deserialize)]
struct Pushed {
    #[serde(rename = "ref")]
    branch: String,
    #[serde(default)]
    after: String,
}

/// A delivery that is to be deployed.
#[derive(Debug, Clone)]
struct Delivery {
    branch: String,
    asker: Asker,
    key: RequestKey,
}

/// The apps that are being deployed by a webhook, with the delivery that came last meanwhile: since the newest commit is fetched, it stands for
/// all. As many as there are connected apps.
#[derive(Debug, Default)]
pub(crate) struct Fetching(Mutex<BTreeMap<AppId, Option<Delivery>>>);

impl Fetching {
    /// Whether this delivery is the one to begin with; else whoever is at it goes on with it.
    fn begin(&self, app: &AppId, delivery: &Delivery) -> bool {
        let mut fetching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fetching.get_mut(app) {
            Some(next) => {
                *next = Some(delivery.clone());
                false
            }
            None => {
                fetching.insert(app.clone(), None);
                true
            }
        }
    }

    /// The delivery that came meanwhile; when there is none, the app is no longer being deployed.
    fn next(&self, app: &AppId) -> Option<Delivery> {
        let mut fetching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = fetching.get_mut(app).and_then(Option::take);
        if next.is_none() {
            fetching.remove(app);
        }
        next
    }
}

/// The secret of the webhook `hook` of an app: made from the platform's key, so that nothing is kept.
pub(crate) fn secret_text(api: &Api, app: &AppId, hook: &str) -> String {
    secret(api, app, hook).text()
}

fn secret(api: &Api, app: &AppId, hook: &str) -> HookSecret {
    HookSecret::new(api.vault.fingerprint(&[format!("git-hook/{app}/{hook}").as_bytes()]))
}

/// `/hooks/APP/ID` or `/hooks/TENANT/PROJECT/APP/ID`, the path that a forge calls.
pub(crate) fn path(app: &AppId, hook: &str) -> String {
    format!("/hooks/{}/{hook}", super::short(app))
}

/// Takes a delivery.
pub(crate) async fn receive(State(api): State<Arc<Api>>, request: Request) -> Response {
    match take(&api, request).await {
        Ok((status, text)) => (status, Json(json!({ "message": text }))).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn take(api: &Arc<Api>, request: Request) -> Result<(StatusCode, String), Refused> {
    let unknown = || Problem::new(Code::RouteNotFound, "there is no such webhook");
    let (app, hook) = super::address::hook(request.uri().path()).ok_or_else(unknown)?;
    let known = api.desk.app(&app).filter(|app| app.life == Life::Alive).ok_or_else(unknown)?;
    let connection = known.git.connection.as_ref().filter(|it| it.hook == hook).ok_or_else(unknown)?;
    let headers = request.headers().clone();
    let Whole(body) = Whole::from_request(request, api).await?;
    let sender = secret(api, &app, &connection.hook).sender(&headers, &body, api.clock.now());
    let Some(sender) = sender else {
        let detail = "the webhook's signature is missing or wrong";
        return Err(Problem::new(Code::SignatureInvalid, detail)
            .next("give the forge the secret that `berth git connect` printed; connect again for a new one")
            .into());
    };
    match sender.event(&headers) {
        Event::Ping => return Ok((StatusCode::OK, "the webhook works".to_owned())),
        Event::Other => return Ok((StatusCode::OK, "only pushes are deployed".to_owned())),
        Event::Push => {}
    }
    let pushed: Pushed = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(Code::RequestInvalid, format!("the webhook is not the JSON of a push: {error}"))
            .next("set the content type of the webhook to application/json")
    })?;
    let branches = super::deploy_branches(&known);
    let branch = pushed.branch.strip_prefix("refs/heads/").filter(|branch| branches.contains(branch));
    let Some(branch) = branch else {
        return Ok((StatusCode::OK, format!("{} is not deployed", pushed.branch)));
    };
    if ObjectId::read(&pushed.after).is_none_or(|after| after.is_nothing()) {
        return Ok((StatusCode::OK, format!("{branch} was deleted; what serves goes on serving")));
    }
    let fingerprint = api.vault.fingerprint(&[b"git-delivery/", &body]);
    let delivery = Delivery {
        branch: branch.to_owned(),
        asker: Asker { actor: sender.actor().to_owned(), correlation: correlation(&headers) },
        key: RequestKey { scope: format!("hook:{app}"), key: hex::encode(fingerprint), hash: fingerprint },
    };
    if is_known(api, &delivery).await? {
        return Ok((StatusCode::OK, "this delivery was deployed before".to_owned()));
    }
    if api.machine.repositories().fetching().begin(&app, &delivery) {
        let api = Arc::clone(api);
        tasks::run("deploying from a webhook", async move { deploy_all(&api, &app, delivery).await });
    }
    Ok((StatusCode::ACCEPTED, format!("the newest commit of {branch} is fetched and deployed")))
}

async fn is_known(api: &Api, delivery: &Delivery) -> Result<bool, Refused> {
    let (journal, key) = (Arc::clone(&api.journal), delivery.key.clone());
    let found = crate::api::blocking(move || journal.idempotent(&key.scope, &key.key)).await?;
    Ok(found.is_some())
}

/// The delivery's own id, by which it is found in the forge; it is not signed, so nothing but words depends on it.
fn correlation(headers: &HeaderMap) -> String {
    let names = ["x-github-delivery", "x-gitea-delivery", "x-gitlab-webhook-uuid", "webhook-id"];
    let id = names.iter().find_map(|name| headers.get(*name)?.to_str().ok()).unwrap_or("unnamed");
    let plain: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    format!("hook-{plain}")
}

async fn deploy_all(api: &Arc<Api>, app: &AppId, first: Delivery) {
    let mut next = Some(first);
    while let Some(delivery) = next {
        if let Err(problem) = Box::pin(deploy(api, app, &delivery)).await {
            note(api, app, &delivery, &problem).await;
        }
        next = api.machine.repositories().fetching().next(app);
    }
}

/// Fetches the branch and submits its newest commit. How the release gets on is seen as with any other.
async fn deploy(api: &Arc<Api>, app: &AppId, delivery: &Delivery) -> Result<(), Problem> {
    let gone = || Problem::new(Code::AppNotFound, format!("{app} was destroyed meanwhile"));
    let known = api.desk.app(app).ok_or_else(gone)?;
    let Some(connection) = &known.git.connection else { return Ok(()) };
    let token = match &connection.token {
        None => None,
        Some(sealed) => {
            Some(api.vault.open_text(&token_bound(app, &connection.hook), sealed).map_err(|error| {
                Problem::new(Code::CloneFailed, in_full(&error)).next("connect the repository again")
            })?)
        }
    };
    let repositories = api.machine.repositories();
    let _turn = repositories.turn().await?;
    let fetched = repositories.fetch(&known, &connection.url, token.as_deref(), &delivery.branch).await?;
    let commit = Commit::new(&fetched.repository, None, &fetched.commit);
    let subject = commit.subject().await?;
    let store = api.machine.store(&app.tenant).map_err(Refused::into_problem)?;
    let source = commit.import(store).await?;
    let known = api.desk.app(app).ok_or_else(gone)?;
    if release::under_way(&known, &fetched.commit, &source.tree.to_string()).is_some() {
        return Ok(());
    }
    let (asker, key) = (delivery.asker.clone(), Some(delivery.key.clone()));
    let submitted = release::submit(api, &known, asker, key, (&fetched.commit, subject), source).await;
    submitted.map(drop).map_err(Refused::into_problem)
}

/// What a token for cloning is bound to.
pub(crate) fn token_bound(app: &AppId, hook: &str) -> String {
    format!("git-token:{app}/{hook}")
}

/// Writes down why a delivery made no release: nobody waits for the answer.
async fn note(api: &Api, app: &AppId, delivery: &Delivery, problem: &Problem) {
    let detail: Vec<String> =
        problem.errors.iter().map(|it| format!("line {}: {}", it.line, it.message)).collect();
    let summary = problem.detail.chars().take(1_000).collect();
    let (code, next) = (problem.code.to_string(), problem.next.clone());
    let failure = Failure { code, summary, detail, log: Vec::new(), next };
    let command = Command::Fact {
        app: app.clone(),
        fact: Fact::HookFailed { branch: delivery.branch.clone(), failure },
    };
    if let Err(error) = api.desk.submit(command, delivery.asker.clone(), None, None).await {
        events::could_not("write down why a webhook's push was not deployed", &error);
    }
}
