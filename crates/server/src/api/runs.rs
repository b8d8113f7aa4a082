//! One-off commands: started by a request, and spoken to over the connection that the request came on.

mod session;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_clock::random_bytes;
use berth_contract::run::{LIMIT_DEFAULT, PROTOCOL};
use berth_contract::{Code, Problem, Run, StartRun, route};
use berth_control::command::{Command as ControlCommand, RunWish, Wish};
use berth_control::event::{Ordinal, RunMode};
use berth_runtime::{Attach, Size};
use berth_spec::{AppId, Command, Millis};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::Api;
use super::apps::{AppPath, target};
use super::mutation::Mutation;
use super::problem::{Body, Refused};
use super::settings::check_value;
use crate::machine::runs::Order;
use crate::tasks;

/// How long a start may take on a machine that does anything at all.
const START_WITHIN: Duration = Duration::from_secs(120);

#[utoipa::path(post, path = route::RUNS, tag = "apps", request_body = StartRun,
    responses((status = 101, description = "Not detached, with the header `Upgrade: berth-run/1`: the connection carries frames"),
        (status = 201, description = "Detached: it runs by itself", body = Run)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn start(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mut request: Request,
) -> Result<Response, Refused> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let wanted = asks_for_upgrade(request.headers());
    let mutation = Mutation::<Body<StartRun>>::from_request(request, &api).await?;
    let id = target(&api, &mutation, path)?;
    let sent = &mutation.body.0;
    for (name, value) in &sent.env {
        check_value(name, value)?;
    }
    let attach = match (sent.detach, sent.terminal) {
        (true, _) => None,
        (false, None) => Some(Attach::Pipes),
        (false, Some(size)) => Some(Attach::Terminal(Size { rows: size.rows, columns: size.columns })),
    };
    let upgrade = match (attach, upgrade) {
        (None, _) => None,
        (Some(_), Some(upgrade)) if wanted => Some(upgrade),
        (Some(_), _) => {
            let detail = format!("a command that is not detached needs the header `Upgrade: {PROTOCOL}`");
            return Err(Problem::new(Code::RequestInvalid, detail).into());
        }
    };
    match mutation.earlier(&api).await? {
        // The same request came before: what it began then is what it gets.
        Some(earlier) if upgrade.is_none() => {
            return Ok((StatusCode::CREATED, Json(shown(&id, earlier.run)?)).into_response());
        }
        Some(_) => {
            let detail = "this command was started already, and nobody can connect to it a second time";
            return Err(Problem::new(Code::Conflict, detail).next("run it again").into());
        }
        None => {}
    }
    let token = hex::encode(random_bytes::<16>(&*api.clock));
    let wish = wish(&api, &id, sent, attach, &token)?;
    let (begun, started) = oneshot::channel();
    let order = Order { env: sent.env.clone(), attach, begun };
    let attendance = api.machine.expect_run(&id, &token, order);
    let command = ControlCommand::App { app: id.clone(), wish };
    let outcome = mutation.submit(&api, command, None).await?;
    if upgrade.is_none() && !is_ours(&api, &id, outcome.run, &token) {
        return Ok((StatusCode::CREATED, Json(shown(&id, outcome.run)?)).into_response());
    }
    let began = match tokio::time::timeout(START_WITHIN, started).await {
        Ok(Ok(Ok(began))) => began,
        Ok(Ok(Err(detail))) => return Err(Problem::new(Code::StartFailed, detail).into()),
        Ok(Err(_)) | Err(_) => {
            let detail = "the command was not started in time";
            return Err(Problem::new(Code::Overloaded, detail).next("run it again").into());
        }
    };
    let run = shown(&id, outcome.run)?;
    let (Some(upgrade), Some((attached, ended))) = (upgrade, began.attached) else {
        return Ok((StatusCode::CREATED, Json(run)).into_response());
    };
    let machine = Arc::clone(&api.machine);
    tasks::run("a connection to a one-off command", async move {
        // A client that went away before it was answered has no connection to be upgraded.
        if let Ok(upgraded) = upgrade.await {
            session::run(upgraded, run, attached, ended, &machine).await;
        }
        drop(attendance);
    });
    Ok(switching())
}

fn switching() -> Response {
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(PROTOCOL));
    response
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let named = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    named.is_some_and(|named| named.split(',').any(|it| it.trim().eq_ignore_ascii_case(PROTOCOL)))
}

fn wish(
    api: &Api,
    app: &AppId,
    sent: &StartRun,
    attach: Option<Attach>,
    token: &str,
) -> Result<Wish, Refused> {
    let within = sent.within.as_deref().map(|name| within(api, app, name, sent)).transpose()?;
    let command = match &sent.command[..] {
        [line] => Command::parse(line),
        _ => Command::from_argv(sent.command.clone()),
    };
    let command = command.map_err(|wrong| Problem::new(Code::RequestInvalid, wrong.to_string()))?;
    let limit = sent.limit_s.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_DEFAULT {
        let detail = format!("a command may run for 1 to {LIMIT_DEFAULT} seconds, not for {limit}");
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    let mode = match attach {
        None => RunMode::Detached,
        Some(how) => RunMode::Attached { terminal: matches!(how, Attach::Terminal(_)) },
    };
    Ok(Wish::Run(Box::new(RunWish {
        release: sent.release,
        within,
        command,
        variables: sent.env.keys().cloned().collect(),
        mode,
        token: token.to_owned(),
        limit: Millis::from_secs(limit),
    })))
}

/// The number of the instance of that name.
fn within(api: &Api, app: &AppId, name: &str, sent: &StartRun) -> Result<Ordinal, Refused> {
    if sent.detach || sent.release.is_some() {
        let detail = "a command within an instance is of that instance's release, and ends with whoever is connected to it";
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    let known = api.desk.app(app);
    let mut names = known.iter().flat_map(|app| {
        app.instances.iter().map(|(ordinal, it)| (*ordinal, app.id.instance(it.process.clone(), *ordinal)))
    });
    let found = names.find(|(_, id)| id.short() == name).map(|(ordinal, _)| ordinal);
    found.ok_or_else(|| {
        let problem = Problem::new(Code::InstanceNotFound, format!("{app} has no instance {name}"));
        problem.next("`berth ps` shows the instances there are").into()
    })
}

/// Whether the run is the one of this request, or is over already.
pub(super) fn is_ours(api: &Api, app: &AppId, run: Option<u64>, token: &str) -> bool {
    let known = api.desk.app(app);
    let run = known.as_ref().zip(run).and_then(|(app, run)| app.runs.get(&run));
    run.is_none_or(|run| run.token == token)
}

pub(super) fn shown(app: &AppId, run: Option<u64>) -> Result<Run, Refused> {
    let run = run.ok_or_else(|| Problem::new(Code::Internal, "a run was made without a number"))?;
    Ok(Run { id: crate::machine::runs::run_id(app, run) })
}
