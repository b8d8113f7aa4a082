//! What an app runs by a schedule: the entries, what became of them, and running one at once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_clock::random_bytes;
use berth_contract::{CronEntry, CronHistory, CronList, CronPast, CronState, Run, route};
use berth_control::command::{Command, Refusal, Wish};
use berth_control::cron::{self, CronOutcome, CronProgress};
use berth_control::event::CronSkip;
use berth_control::state::App;
use berth_spec::{AppId, AppName, CronName, ProjectName, TenantName, Timestamp};

use super::Api;
use super::apps::{AppPath, find, find_app, target};
use super::auth::Principal;
use super::mutation::{Mutation, NoBody};
use super::problem::{Path, Refused};
use super::runs::{is_ours, shown};
use super::words::{in_words, run_end};
use crate::machine::runs::run_id;

/// The parameters of a path below an entry.
type EntryPath = Path<(TenantName, ProjectName, AppName, CronName)>;

#[utoipa::path(get, path = route::CRON, tag = "cron", responses((status = 200, body = CronList)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
) -> Result<Json<CronList>, Refused> {
    let app = find(&api, &principal, path)?;
    let now = api.clock.now();
    let release = app.serving_release();
    let all = release.iter().flat_map(|release| &release.manifest.cron);
    let entries =
        all.filter_map(|(name, entry)| Some(described(&app, name, entry, app.cron.get(name)?, now)));
    Ok(Json(CronList { release: app.serving, stopped: cron::is_stopped(&app), entries: entries.collect() }))
}

#[utoipa::path(get, path = route::CRON_RUNS, tag = "cron", responses((status = 200, body = CronHistory)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("entry" = String, Path)))]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: EntryPath,
) -> Result<Json<CronHistory>, Refused> {
    let (id, entry) = entry_of(path);
    let app = find_app(&api, &principal, &id)?;
    let Some(progress) = app.cron.get(&entry) else {
        let has = app.cron.keys().cloned().collect();
        return Err(Refusal::NoSuchCron { app: id, entry, has }.into());
    };
    Ok(Json(CronHistory { past: progress.past.iter().rev().map(|it| past(&app.id, it)).collect() }))
}

#[utoipa::path(post, path = route::CRON_RUNS, tag = "cron",
    responses((status = 201, description = "It runs, or will when the one that it replaces has ended", body = Run)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("entry" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn run(
    State(api): State<Arc<Api>>,
    path: EntryPath,
    mutation: Mutation<NoBody>,
) -> Result<(StatusCode, Json<Run>), Refused> {
    let (id, entry) = entry_of(path);
    let Path((tenant, project, app)) = Path((id.tenant.clone(), id.project.clone(), id.app.clone()));
    let id = target(&api, &mutation, Path((tenant, project, app)))?;
    let token = hex::encode(random_bytes::<16>(&*api.clock));
    api.machine.order_cron(&token);
    let command = Command::App { app: id.clone(), wish: Wish::RunCron { entry, token: token.clone() } };
    let submitted = mutation.submit(&api, command, None).await;
    let ours = submitted.as_ref().is_ok_and(|outcome| is_ours(&api, &id, outcome.run, &token));
    if !ours {
        // It was refused, or the same request came before.
        api.machine.forget_order(&token);
    }
    Ok((StatusCode::CREATED, Json(shown(&id, submitted?.run)?)))
}

fn entry_of(path: EntryPath) -> (AppId, CronName) {
    let Path((tenant, project, app, entry)) = path;
    (AppId { tenant, project, app }, entry)
}

fn described(
    app: &App,
    name: &CronName,
    entry: &berth_spec::manifest::CronEntry,
    progress: &CronProgress,
    now: Timestamp,
) -> CronEntry {
    // What was decided for a time that has not come yet is not due again.
    let after = now.max(progress.decided_until);
    let next = entry.schedule.next_after(after, &entry.timezone);
    CronEntry {
        name: name.clone(),
        schedule: entry.schedule.to_string(),
        in_words: entry.schedule.in_words(),
        timezone: entry.timezone.to_string(),
        command: in_words(&entry.command),
        concurrency: entry.concurrency.name().to_owned(),
        timeout_s: entry.timeout.0 / 1_000,
        catch_up_s: entry.catch_up.0 / 1_000,
        next: next.filter(|_| !cron::is_stopped(app)),
        last: progress.past.back().map(|it| past(&app.id, it)),
    }
}

fn past(app: &AppId, it: &cron::CronPast) -> CronPast {
    let (state, run, ended_at, why) = match &it.outcome {
        CronOutcome::Skipped(why) => (CronState::Skipped, None, None, Some(skipped(*why))),
        CronOutcome::Running(run) => (CronState::Running, Some(*run), None, None),
        CronOutcome::Ended { run, at, exit, why } => {
            let well = why.is_none() && exit.is_some_and(|exit| exit.status == Some(0));
            let state = if well { CronState::Succeeded } else { CronState::Failed };
            (state, Some(*run), Some(*at), Some(run_end(*exit, *why)))
        }
    };
    CronPast {
        due: it.due,
        at: it.at,
        state,
        run: run.map(|run| run_id(app, run)),
        ended_at,
        why,
        missed: it.missed,
    }
}

/// Why an entry that was due was left out.
pub(super) fn skipped(why: CronSkip) -> String {
    match why {
        CronSkip::TooLate => {
            "the platform did not run at its time, and it was too late to catch up".to_owned()
        }
        CronSkip::StillRunning { run } => format!("run.{run} of it had not ended"),
        CronSkip::TooMany => format!("{} runs of it had not ended", cron::RUNS_MAX),
    }
}

/// The entries that failed when they last ran, in a sentence each.
pub(super) fn trouble(app: &App) -> Option<String> {
    let failed = app.cron.iter().filter_map(|(name, progress)| {
        let ended = progress.past.iter().rev().find(|it| matches!(it.outcome, CronOutcome::Ended { .. }))?;
        let it = past(&app.id, ended);
        let run = it.run.filter(|_| it.state == CronState::Failed)?.short();
        let why = it.why.unwrap_or_default();
        Some(format!("The cron entry {name} failed when it last ran: {run} {why}; `berth why {run}` shows its last lines."))
    });
    let told: Vec<String> = failed.collect();
    (!told.is_empty()).then(|| told.join(" "))
}
