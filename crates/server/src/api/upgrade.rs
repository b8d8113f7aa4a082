//! Upgrades: another program in place of this one, and the word that there is no way back.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use berth_contract::{Code, Problem, Upgrade, UpgradeBegun, UpgradeCommitted, route};

use super::Api;
use super::auth::Peer;
use super::mutation::{Mutation, NoBody};
use super::problem::{Body, Refused};
use crate::formats;
use crate::machine::{Unfit, in_full};

#[utoipa::path(post, path = route::PLATFORM_UPGRADE, tag = "platform", request_body = Upgrade,
    responses((status = 202, description = "It takes over; the platform's `program` says when it has", body = UpgradeBegun)),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn upgrade(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    mutation: Mutation<Body<Upgrade>>,
) -> Result<(StatusCode, Json<UpgradeBegun>), Refused> {
    mutation.principal.own_platform()?;
    if peer == Peer::Network {
        let problem = Problem::new(Code::Forbidden, "the platform is upgraded over its Unix socket alone");
        return Err(problem.next("run `berth upgrade` on the platform's own machine").into());
    }
    let path = PathBuf::from(&mutation.body.0.from);
    if !path.is_absolute() {
        return Err(Problem::new(Code::RequestInvalid, "the path of the program is not absolute").into());
    }
    let (machine, format) = (Arc::clone(&api.machine), api.journal.format());
    let staging = tokio::task::spawn_blocking(move || machine.stage(&path, format)).await;
    let staged =
        staging.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())).map_err(refused)?;
    if !staged.runs {
        api.machine.ask_upgrade(&staged);
    }
    let before = env!("CARGO_PKG_VERSION").to_owned();
    let begun = UpgradeBegun { program: staged.name, version: staged.version, before, runs: staged.runs };
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

fn refused(unfit: Unfit) -> Refused {
    let next = match &unfit {
        Unfit::Copy { .. } | Unfit::NotBerth { .. } => "give the path of a `berth` for this kind of machine",
        Unfit::TooOld { .. } => {
            "what was committed is not taken back: give a newer one, or restore a backup into another home with this one"
        }
        Unfit::TooNew { .. } => "run `berth upgrade commit` first, or upgrade to a version between",
    };
    Problem::new(Code::UpgradeRefused, in_full(&unfit)).next(next).into()
}

#[utoipa::path(post, path = route::PLATFORM_UPGRADE_COMMIT, tag = "platform",
    responses((status = 200, description = "The journal is written in the newest format from here on", body = UpgradeCommitted)),
    params(("Idempotency-Key" = String, Header)))]
pub(super) async fn commit_upgrade(
    State(api): State<Arc<Api>>,
    mutation: Mutation<NoBody>,
) -> Result<Json<UpgradeCommitted>, Refused> {
    mutation.principal.own_platform()?;
    if api.machine.may_fall_back() {
        let problem = Problem::new(
            Code::UpgradeRefused,
            "the platform is not up yet, and the program before this one may take over again",
        );
        return Err(problem.next("ask again in a moment; `berth status` shows the processes").into());
    }
    let [before, format] = formats::commit(&api.journal, &api.desk)
        .await
        .map_err(|error| Problem::new(Code::Internal, in_full(&error)))?;
    Ok(Json(UpgradeCommitted { before, format }))
}
