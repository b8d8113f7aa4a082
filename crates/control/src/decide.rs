//! A command and a state give events or a refusal.

mod fact;
mod traffic;
mod wish;

use berth_spec::EnvName;

use crate::command::{Command, Decision, Refusal};
use crate::event::{Event, Stream};
use crate::state::{App, State};

/// The most instances that one process of an app may have.
pub const MAX_INSTANCES: u32 = 100;
/// The most environment variables, and the most secrets, that one app may have.
pub const MAX_VARIABLES: usize = 1_000;
/// The most hosts that one app may have beside those of its manifest; each is a route at edge.
pub const MAX_DOMAINS: usize = 100;
/// The most one-off commands that one app may have at a time.
pub const MAX_RUNS: usize = 10;
/// The number of uid slots: two uids each out of the platform's block, less sixteen for the platform itself.
pub const MAX_SLOTS: u32 = (65_536 - 16) / 2;

/// Decides on `command` given `state`.
///
/// # Errors
/// [`Refusal`] says why not; nothing follows from the command then.
pub fn decide(state: &State, command: &Command) -> Result<Decision, Refusal> {
    match command {
        Command::EnsureProject { project } => {
            let tenant = berth_spec::TenantId { tenant: project.tenant.clone() };
            let mut events = Vec::new();
            if !state.platform.tenants.contains(&tenant) {
                events.push(Event::TenantCreated { tenant });
            }
            if !state.platform.projects.contains(project) {
                events.push(Event::ProjectCreated { project: project.clone() });
            }
            Ok(Decision { stream: Stream::Platform, events })
        }
        Command::IssueToken { token, sha256, grants } => {
            let event =
                Event::TokenIssued { token: token.clone(), sha256: sha256.clone(), grants: grants.clone() };
            Ok(Decision { stream: Stream::Platform, events: vec![event] })
        }
        Command::ChangeCertificates { change } => {
            let changes = state.platform.certificates.changes(change);
            let events = changes.then(|| Event::CertificatesChanged { change: change.clone() });
            Ok(Decision { stream: Stream::Platform, events: events.into_iter().collect() })
        }
        Command::ReportBreach { invariant, detail } => {
            let event = Event::InvariantBroken { invariant: invariant.clone(), detail: detail.clone() };
            Ok(Decision { stream: Stream::Platform, events: vec![event] })
        }
        Command::App { app, wish } => {
            let events = wish::decide(state, app, wish)?;
            Ok(Decision { stream: Stream::App(app.clone()), events })
        }
        Command::Fact { app, fact } => {
            let known = state.apps.get(app).ok_or(Refusal::Stale("the app was never there"))?;
            let events = fact::decide(known, fact)?;
            Ok(Decision { stream: Stream::App(app.clone()), events })
        }
    }
}

/// The version that the next value of a secret will have; part of what it is sealed with.
#[must_use]
pub fn next_secret_version(app: Option<&App>, name: &EnvName) -> u64 {
    app.and_then(|app| app.secrets.get(name))
        .and_then(|secret| secret.values.last_key_value())
        .map_or(1, |(version, _)| version + 1)
}

#[cfg(test)]
mod tests;
