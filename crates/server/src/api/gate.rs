//! Whether requests get to an app.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{GateChange, GateChanged, route};
use berth_control::command::{Command, Wish};
use berth_control::plan::APPLY_DEADLINE;

use super::Api;
use super::apps::{AppPath, target};
use super::mutation::Mutation;
use super::problem::{Body, Refused};

#[utoipa::path(put, path = route::GATE, tag = "settings", request_body = GateChange,
    responses((status = 200, body = GateChanged)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path),
        ("Idempotency-Key" = String, Header)))]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    path: AppPath,
    mutation: Mutation<Body<GateChange>>,
) -> Result<Json<GateChanged>, Refused> {
    let id = target(&api, &mutation, path)?;
    let gate = mutation.body.0.gate;
    let command = Command::App { app: id, wish: Wish::ChangeGate { gate } };
    let outcome = mutation.submit(&api, command, None).await?;
    // Edge has taken it over when this is answered, so that whoever asked may go on with what nobody shall see.
    let applied = !outcome.changed || api.edge.follows(outcome.position, APPLY_DEADLINE.as_duration()).await;
    Ok(Json(GateChanged { gate, applied }))
}
