//! Formats of the journal: which program reads what another one wrote.
//!
//! A format is a number that the journal carries. Each format has all that the one before it has, and more: kinds of events, fields, values. A
//! program reads every format from [`OLDEST`] to [`NEWEST`] and writes the one that the journal has, so that after an upgrade the program
//! before it can go on with the very same journal, until `upgrade commit` has the journal written in the newest.
//!
//! Whoever adds a kind, a field or a value says here from which format on it is written. `contracts/formats.txt` is the list of what each format
//! has; that of a format that was ever released is never changed, so that something new makes a new format.

use berth_spec::manifest::{Build, Deploy, Http, Strategy};
use berth_spec::{HttpProtocol, Manifest, RequestConcurrency};

use crate::event::{Event, Exit, ReleaseSubmitted, StopReason};

/// The oldest format that this program reads, and can go on writing.
pub const OLDEST: u32 = 1;
/// The newest one, in which a journal begins.
pub const NEWEST: u32 = 2;

/// Something that programs of older formats do not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newer {
    /// The format from which on it is written.
    pub format: u32,
    /// What it is, in words.
    pub what: &'static str,
}

/// The format from which on the checks of images are written that are commands.
pub const CHECKS: u32 = 2;
const CHECK: &str = "an image's check that is a command";

/// What of these events a journal of `format` does not take, if anything.
#[must_use]
pub fn beyond(format: u32, events: &[Event]) -> Option<Newer> {
    events.iter().filter_map(of_event).find(|newer| newer.format > format)
}

/// What of the event is newer than the oldest format: the newest of it.
#[must_use]
pub fn of_event(event: &Event) -> Option<Newer> {
    let newer = |format, what| Some(Newer { format, what });
    match event {
        Event::CertificatesChanged { .. } => newer(2, "certificates"),
        Event::TrafficShifted { .. } => newer(2, "requests that two releases share"),
        Event::AppSlept { .. } | Event::AppWoken { .. } => newer(2, "an app that sleeps"),
        Event::InstanceStopping { why: StopReason::Asleep, .. } => newer(2, "an app that sleeps"),
        Event::ReleaseSubmitted(release) => of_release(release),
        Event::InstanceExited { exit: Exit { unhealthy: true, .. }, .. } => newer(CHECKS, CHECK),
        Event::RunAssigned { within: Some(_), .. } => newer(2, "a command within an instance"),
        Event::ReleaseBuilt { artifact, .. }
            if artifact.image.as_ref().is_some_and(|image| image.check.is_some()) =>
        {
            newer(CHECKS, CHECK)
        }
        Event::TenantCreated { .. }
        | Event::ProjectCreated { .. }
        | Event::TokenIssued { .. }
        | Event::TokenRevoked { .. }
        | Event::InvariantBroken { .. }
        | Event::AppCreated { .. }
        | Event::ConfigChanged { .. }
        | Event::SecretsChanged { .. }
        | Event::ScaleChanged { .. }
        | Event::DomainsChanged { .. }
        | Event::GateChanged { .. }
        | Event::GitChanged { .. }
        | Event::HookFailed { .. }
        | Event::ReleaseBuilt { .. }
        | Event::ReleaseCommandFinished { .. }
        | Event::ActivationBegan { .. }
        | Event::ProcessesHandedOver { .. }
        | Event::InstanceAssigned { .. }
        | Event::InstanceStarted { .. }
        | Event::InstancesAdopted { .. }
        | Event::Routed { .. }
        | Event::ReleaseActivated { .. }
        | Event::ReleaseFailed { .. }
        | Event::ReleaseSuperseded { .. }
        | Event::WarmEnded { .. }
        | Event::InstanceStopping {
            why:
                StopReason::Retired
                | StopReason::ReleaseFailed
                | StopReason::ScaledDown
                | StopReason::Replaced
                | StopReason::Destroyed
                | StopReason::VolumeWork,
            ..
        }
        | Event::InstanceExited { .. }
        | Event::InstanceGone { .. }
        | Event::RunAssigned { .. }
        | Event::RunEnded { .. }
        | Event::CronSkipped { .. }
        | Event::CronSetBack { .. }
        | Event::VolumeRemoved { .. }
        | Event::VolumeWorkBegan { .. }
        | Event::VolumeWorkEnded { .. }
        | Event::AppDestroying { .. }
        | Event::AppDestroyed {} => None,
    }
}

fn of_release(release: &ReleaseSubmitted) -> Option<Newer> {
    let ReleaseSubmitted {
        number: _,
        reason: _,
        tree: _,
        manifest,
        artifact: _,
        config: _,
        secrets: _,
        description: _,
        commit: _,
    } = release;
    of_manifest(manifest)
}

/// Taken apart without `..`, so that a section or a key that is added does not compile before it has its format.
fn of_manifest(manifest: &Manifest) -> Option<Newer> {
    let Manifest {
        format: _,
        app: _,
        stack,
        build:
            Build {
                builder: _,
                command: _,
                output: _,
                offline: _,
                env: _,
                image: _,
                dockerfile: _,
                target,
                args: build_args,
            },
        processes: _,
        args,
        env: _,
        deploy: Deploy { release_command: _, strategy, timeout: _, warm: _, canary },
        http:
            Http {
                port: _,
                protocol,
                hosts: _,
                internal: _,
                force_https,
                hsts,
                request_timeout,
                concurrency,
                rate_limits,
                routes,
                cache,
                readiness: _,
            },
        shutdown: _,
        cron: _,
        network: _,
        resources: _,
        isolation: _,
        volumes: _,
        scale,
        healthcheck,
    } = manifest;
    let parts = [
        (2, *strategy == Some(Strategy::Canary), "`strategy = \"canary\"` in berth.toml"),
        (2, *canary != Deploy::default().canary, "`[deploy.canary]` in berth.toml"),
        (2, force_https.is_some(), "`force_https` in berth.toml"),
        (2, hsts.is_some(), "`hsts` in berth.toml"),
        (2, *protocol != HttpProtocol::default(), "`protocol` in berth.toml"),
        (2, request_timeout.is_some(), "`request_timeout` in berth.toml"),
        (2, *concurrency != RequestConcurrency::default(), "`[http.concurrency]` in berth.toml"),
        (2, !rate_limits.is_empty(), "`[[http.rate_limit]]` in berth.toml"),
        (2, !routes.is_empty(), "`[[http.route]]` in berth.toml"),
        (2, cache.is_some(), "`[http.cache]` in berth.toml"),
        (2, !scale.is_empty(), "`[scale]` in berth.toml"),
        (CHECKS, !healthcheck.is_empty(), "`[healthcheck]` in berth.toml"),
        (2, stack.is_some(), "a service of a stack"),
        (2, target.is_some(), "`target` in berth.toml"),
        (2, !build_args.is_empty(), "`[build.args]` in berth.toml"),
        (2, !args.is_empty(), "`[args]` in berth.toml"),
    ];
    let there = parts.into_iter().filter(|(_, is_there, _)| *is_there);
    there.map(|(format, _, what)| Newer { format, what }).max_by_key(|newer| newer.format)
}

#[cfg(test)]
mod tests;
