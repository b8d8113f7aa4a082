//! Events in words: what `timeline`, `why` and the progress of a deployment say.

use std::collections::BTreeSet;

use berth_control::event::{
    Depth, Event, Exit, GitSettings, GoneCause, Ordinal, Reason, RunEnd, RunMode, RunNumber, RunStop,
    ShiftWhy, StopReason, VolumeDeed, VolumeWork, WakeReason, WarmEnd,
};
use berth_rollout::Evidence;
use berth_spec::{Command, Gate, Millis, ReleaseNumber};

/// What happened, in one line that reads after its time and its actor.
#[must_use]
pub(super) fn say(event: &Event) -> String {
    match event {
        Event::TenantCreated { tenant } => format!("created the tenant {tenant}"),
        Event::ProjectCreated { project } => format!("created the project {project}"),
        Event::TokenIssued { token, .. } => format!("issued the token {token}"),
        Event::TokenRevoked { token } => format!("revoked the token {token}"),
        Event::CertificatesChanged { change } => super::certificates::say(change),
        Event::InvariantBroken { invariant, detail } => format!("found {invariant} broken: {detail}"),
        Event::AppCreated { .. } => "created the app".to_owned(),
        Event::ConfigChanged { set, unset } => changes("configuration", set.keys(), unset.iter()),
        Event::SecretsChanged { set, unset } => changes("secrets", set.keys(), unset.iter()),
        Event::ScaleChanged { processes } => {
            let counts: Vec<String> =
                processes.iter().map(|(name, count)| format!("{name}={count}")).collect();
            format!("scaled to {}", counts.join(" "))
        }
        Event::DomainsChanged { added, removed } => {
            let added = added.iter().map(|host| format!("added the domain {host}"));
            let removed = removed.iter().map(|host| format!("removed the domain {host}"));
            added.chain(removed).collect::<Vec<String>>().join(", ")
        }
        Event::GateChanged { gate } => gate_is(*gate).to_owned(),
        Event::RunAssigned { run, release, command, cron: Some(cron), .. } => {
            let what = format!("ran {} as run.{run} in {release}", cron.entry);
            let late = missed(cron.missed);
            let due = if cron.due.is_some() { "by its schedule" } else { "at once" };
            format!("{what}, {due}{late}: {}", in_words(command))
        }
        Event::CronSkipped { entry, due: _, why, missed: before } => {
            format!("left {entry} out: {}{}", super::cron::skipped(*why), missed(*before))
        }
        Event::CronSetBack { .. } => {
            "found the clock set back by hours: cron entries are due by what it says now".to_owned()
        }
        Event::RunAssigned { run, release, command, mode, cron: None, within, .. } => {
            ran(*run, *release, command, *mode, *within)
        }
        Event::RunEnded { run, end } => format!("run.{run} {}", run_ended(end)),
        Event::GitChanged { git } => deploys(git),
        Event::HookFailed { branch, failure } => {
            format!("did not deploy a push to {branch} elsewhere: {}", failure.summary)
        }
        Event::AppSlept { .. } | Event::AppWoken { .. } => of_sleep(event),
        Event::VolumeWorkBegan { .. }
        | Event::VolumeWorkEnded { .. }
        | Event::VolumeRemoved { .. }
        | Event::AppDestroying { .. }
        | Event::AppDestroyed {} => of_end(event),
        Event::ReleaseSubmitted(_)
        | Event::ReleaseBuilt { .. }
        | Event::ReleaseCommandFinished { .. }
        | Event::ActivationBegan { .. }
        | Event::ProcessesHandedOver { .. }
        | Event::TrafficShifted { .. }
        | Event::ReleaseActivated { .. }
        | Event::ReleaseFailed { .. }
        | Event::ReleaseSuperseded { .. }
        | Event::WarmEnded { .. } => of_release(event),
        Event::InstanceAssigned { .. }
        | Event::InstanceStarted { .. }
        | Event::InstancesAdopted { .. }
        | Event::Routed { .. }
        | Event::InstanceStopping { .. }
        | Event::InstanceExited { .. }
        | Event::InstanceGone { .. } => of_instance(event),
    }
}

fn of_sleep(event: &Event) -> String {
    match event {
        Event::AppSlept { depth: Depth::Frozen, idle } => {
            format!("fell asleep: nobody asked for the app for {}; what it runs stands still", roughly(*idle))
        }
        Event::AppSlept { depth: Depth::Stopped, idle } => {
            format!(
                "fell fast asleep: nobody asked for the app for {}; what it runs is stopped",
                roughly(*idle)
            )
        }
        Event::AppWoken { why, ordinals } => woken(*why, ordinals),
        _ => event.kind().replace('_', " "),
    }
}

fn ran(
    run: RunNumber,
    release: ReleaseNumber,
    command: &Command,
    mode: RunMode,
    within: Option<Ordinal>,
) -> String {
    let how = match mode {
        RunMode::Attached { terminal: true } => "in a terminal",
        RunMode::Attached { terminal: false } => "through pipes",
        RunMode::Detached => "detached",
    };
    let at = within.map(|ordinal| format!("instance {ordinal} of ")).unwrap_or_default();
    format!("ran run.{run} in {at}{release}, {how}: {}", in_words(command))
}

/// What is done with volumes, and what goes for ever.
fn of_end(event: &Event) -> String {
    match event {
        Event::VolumeRemoved { volume, snapshot: None } => format!("removed the volume {volume}"),
        Event::VolumeRemoved { volume, snapshot: Some(snapshot) } => {
            format!("removed the snapshot {snapshot} of the volume {volume}")
        }
        Event::VolumeWorkBegan { work } => format!("began to {}", deed(work)),
        Event::VolumeWorkEnded { work, failure: None } => format!("is done with it: to {}", deed(work)),
        Event::VolumeWorkEnded { work, failure: Some(failure) } => {
            format!("could not {}: {}", deed(work), failure.summary)
        }
        Event::AppDestroying { volumes: true } => "began to destroy the app with its volumes".to_owned(),
        Event::AppDestroying { volumes: false } => "began to destroy the app".to_owned(),
        Event::AppDestroyed {} => "destroyed the app".to_owned(),
        _ => event.kind().replace('_', " "),
    }
}

fn of_release(event: &Event) -> String {
    match event {
        Event::ReleaseSubmitted(it) => match &it.reason {
            Reason::Deploy => format!("submitted {} from source", it.number),
            Reason::Config => format!("submitted {} with changed configuration", it.number),
            Reason::Secrets => format!("submitted {} with changed secrets", it.number),
            Reason::Rollback { of, keep_config: false } => {
                format!("submitted {}, a rollback to {of}", it.number)
            }
            Reason::Rollback { of, keep_config: true } => {
                format!("submitted {}, a rollback to {of} with today's configuration", it.number)
            }
        },
        Event::ReleaseBuilt { number, artifact } => format!("built {number}: {}", artifact.why.join("; ")),
        Event::ReleaseCommandFinished { number } => {
            format!("cleared {number} to start: its release command, if it has one, is done")
        }
        Event::ActivationBegan { number } => format!("began to activate {number}"),
        Event::ProcessesHandedOver { number, processes } => {
            let names: Vec<&str> = processes.iter().map(berth_spec::ProcessName::as_str).collect();
            format!("handed {} over to {number}: the old ones stop first", names.join(", "))
        }
        Event::TrafficShifted { number, percent, why, evidence } => {
            shifted(*number, *percent, *why, evidence.as_ref())
        }
        Event::ReleaseActivated { number, previous: Some(previous) } => {
            format!("activated {number}; {previous} stays warm")
        }
        Event::ReleaseActivated { number, previous: None } => format!("activated {number}"),
        Event::ReleaseFailed { number, failure } => format!("{number} failed: {}", failure.summary),
        Event::ReleaseSuperseded { number, by } => format!("{number} was superseded by {by}"),
        Event::WarmEnded { number, why } => {
            let why = match why {
                WarmEnd::Expired => "its time is over",
                WarmEnd::Displaced => "a newer release is the previous one now",
                WarmEnd::Used => "it serves again",
                WarmEnd::MemoryPressure => "memory is short",
                WarmEnd::SecretRevoked => "it holds a secret that was revoked",
                WarmEnd::Gone => "none of its instances is left",
            };
            format!("{number} is no longer kept warm: {why}")
        }
        _ => event.kind().replace('_', " "),
    }
}

fn of_instance(event: &Event) -> String {
    match event {
        Event::InstanceAssigned { ordinal, process, release, .. } => {
            format!("assigned {process}.{ordinal} to {release}")
        }
        Event::InstanceStarted { ordinal, port: Some(port), .. } => {
            format!("started instance {ordinal} on port {port}")
        }
        Event::InstanceStarted { ordinal, port: None, .. } => format!("started instance {ordinal}"),
        Event::InstancesAdopted { number, ordinals } => {
            let warm: Vec<String> = ordinals.iter().map(u64::to_string).collect();
            let noun = if warm.len() == 1 { "instance" } else { "instances" };
            format!("{number} took over the warm {noun} {}", warm.join(", "))
        }
        Event::Routed { ordinals } if ordinals.is_empty() => "routed requests to no instance".to_owned(),
        Event::Routed { ordinals } => format!("routed requests to {}", web(ordinals)),
        Event::InstanceStopping { ordinal, why } => {
            let why = match why {
                StopReason::Retired => "its release no longer serves",
                StopReason::ReleaseFailed => "its release failed",
                StopReason::ScaledDown => "fewer are wanted",
                StopReason::Replaced => "the new release takes its place",
                StopReason::Destroyed => "the app is being destroyed",
                StopReason::VolumeWork => "a volume of its is worked on",
                StopReason::Asleep => "the app sleeps",
            };
            format!("instance {ordinal} is to stop: {why}")
        }
        Event::InstanceExited { ordinal, exit, more: 0 } => format!("instance {ordinal} {exit}"),
        Event::InstanceExited { ordinal, exit, more } => {
            let exits = if *more == 1 { "exit before it was" } else { "exits before it were" };
            format!("instance {ordinal} {exit}; {more} {exits} not written down")
        }
        Event::InstanceGone { ordinal, cause } => match cause {
            GoneCause::Stopped => format!("instance {ordinal} has stopped"),
            GoneCause::Lost => format!("instance {ordinal} was lost"),
            GoneCause::NotStarted { detail } => format!("instance {ordinal} could not be started: {detail}"),
            GoneCause::PlatformDown => format!("instance {ordinal} was stopped with the platform"),
        },
        _ => event.kind().replace('_', " "),
    }
}

fn web(ordinals: &BTreeSet<Ordinal>) -> String {
    ordinals.iter().map(|ordinal| format!("web.{ordinal}")).collect::<Vec<String>>().join(", ")
}

/// A span of time in seconds, where it has some.
fn roughly(span: Millis) -> Millis {
    if span.0 < 1_000 { span } else { Millis(span.0 / 1_000 * 1_000) }
}

fn woken(why: WakeReason, ordinals: &BTreeSet<Ordinal>) -> String {
    let why = match why {
        WakeReason::Requested => "woke: somebody asked for the app",
        WakeReason::Deployed => "woke: a new release takes over",
        WakeReason::ScaledDown => "woke: it is scaled to nothing on purpose",
        WakeReason::VolumeWork => "woke: a volume of its is worked on",
    };
    if ordinals.is_empty() { why.to_owned() } else { format!("{why}; routed requests to {}", web(ordinals)) }
}

/// How an app is deployed by git from now on.
fn deploys(git: &GitSettings) -> String {
    let branch = git.branch.as_ref().map_or("main or master", berth_spec::BranchName::as_str);
    match &git.connection {
        Some(connection) => format!("deploys {branch} by git, also of {}", connection.url),
        None => format!("deploys {branch} by git"),
    }
}

fn deed(work: &VolumeWork) -> String {
    let VolumeWork { volume, snapshot, what } = work;
    match what {
        VolumeDeed::Snapshot => format!("take the snapshot {snapshot} of the volume {volume}"),
        VolumeDeed::Restore => format!("bring the snapshot {snapshot} of the volume {volume} back"),
    }
}

/// A command as somebody would type it; words that a shell would take apart are quoted.
pub(super) fn in_words(command: &berth_spec::Command) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&it))
    };
    match command {
        berth_spec::Command::Argv(words) => {
            let quoted = words.iter().map(|word| {
                if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
            });
            quoted.collect::<Vec<String>>().join(" ")
        }
        berth_spec::Command::Line(line) | berth_spec::Command::Shell(line) => line.clone(),
        berth_spec::Command::StaticSite { .. } => "a static site".to_owned(),
    }
}

/// How many moments before one were missed; nothing when none was.
fn missed(count: u64) -> String {
    let most = u64::try_from(berth_control::cron::MISSED_MAX).unwrap_or(u64::MAX);
    match count {
        0 => String::new(),
        1 => ", the one time before it that was missed left out".to_owned(),
        many if many >= most - 1 => format!(", {many} or more times before it that were missed left out"),
        many => format!(", the {many} times before it that were missed left out"),
    }
}

fn run_ended(end: &RunEnd) -> String {
    let text = run_end(end.exit, end.why);
    match end.detail.last() {
        Some(last) => format!("{text}; at the end: {last}"),
        None => text,
    }
}

/// How a one-off command ended.
pub(super) fn run_end(exit: Option<Exit>, why: Option<RunStop>) -> String {
    match (exit, why) {
        (Some(exit), None) => exit.to_string(),
        // It was the platform that ended it, so a signal has nothing to explain.
        (Some(exit), Some(why)) => {
            format!("ended after {}.{:03} s: {}", exit.after.0 / 1_000, exit.after.0 % 1_000, run_stop(why))
        }
        (None, Some(why)) => format!("ended: {}", run_stop(why)),
        (None, None) => "ended".to_owned(),
    }
}

/// Why the platform ended a one-off command.
pub(super) fn run_stop(why: RunStop) -> &'static str {
    match why {
        RunStop::Unattended => "the connection of whoever ran it was lost",
        RunStop::TimeOver => "its time was over",
        RunStop::Destroyed => "the app is being destroyed",
        RunStop::PlatformDown => "the platform was shut down",
        RunStop::NotStarted => "it could not be started",
        RunStop::Replaced => "its cron entry was due again, and a new run takes its place",
        RunStop::Lost => "what watched it was killed, or the machine was started again",
    }
}

fn changes<'a>(
    what: &str,
    set: impl Iterator<Item = &'a berth_spec::EnvName>,
    unset: impl Iterator<Item = &'a berth_spec::EnvName>,
) -> String {
    let list = |names: Vec<&str>| names.join(", ");
    let set: Vec<&str> = set.map(berth_spec::EnvName::as_str).collect();
    let unset: Vec<&str> = unset.map(berth_spec::EnvName::as_str).collect();
    match (set.is_empty(), unset.is_empty()) {
        (false, true) => format!("changed the {what}: set {}", list(set)),
        (true, false) => format!("changed the {what}: unset {}", list(unset)),
        _ => format!("changed the {what}: set {}, unset {}", list(set), list(unset)),
    }
}

/// The event's data without what only the platform may know: sealed values, hashes of tokens, tokens of instances.
#[must_use]
pub(super) fn shown(event: &Event) -> serde_json::Value {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    let Some(data) = value.get_mut("data") else {
        return serde_json::Value::Null;
    };
    if let Some(object) = data.as_object_mut() {
        match event {
            Event::TokenIssued { .. } => drop(object.remove("sha256")),
            Event::CertificatesChanged { .. } => {
                let change = object.get_mut("change").and_then(serde_json::Value::as_object_mut);
                change.into_iter().for_each(super::certificates::without_secrets);
            }
            Event::InstanceAssigned { .. } | Event::RunAssigned { .. } => drop(object.remove("token")),
            Event::GitChanged { .. } => {
                let connection = object.get_mut("git").and_then(|git| git.get_mut("connection"));
                if let Some(connection) = connection.and_then(serde_json::Value::as_object_mut) {
                    connection.remove("token");
                }
            }
            Event::SecretsChanged { set, .. } => {
                let versions: serde_json::Map<String, serde_json::Value> =
                    set.iter().map(|(name, value)| (name.to_string(), value.version.into())).collect();
                object.insert("set".to_owned(), versions.into());
            }
            _ => {}
        }
    }
    data.take()
}

fn shifted(number: ReleaseNumber, percent: u8, why: ShiftWhy, evidence: Option<&Evidence>) -> String {
    let gave = match (why, percent) {
        (ShiftWhy::Promoted, _) => format!("promoted {number} to all requests"),
        (_, 0) => format!("gave {number} no more requests"),
        (_, 100) => format!("gave {number} all requests"),
        (ShiftWhy::Step, percent) => format!("gave {number} {percent} % of the requests"),
        (ShiftWhy::Asked, percent) => format!("set the share of {number} to {percent} % of the requests"),
    };
    match evidence {
        None => gave,
        Some(evidence) => {
            format!("{gave}: {}", evidence.sentences(&number.to_string(), "the one before").join("; "))
        }
    }
}

fn gate_is(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "let requests through",
        Gate::Paused => "had requests wait",
        Gate::Maintenance => "turned requests away: under maintenance",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::event::{GitConnection, SealedSecret};

    #[test]
    fn what_is_sealed_or_secret_is_not_shown() {
        let sealed = SealedSecret { version: 3, sealed: "ENVELOPE".to_owned() };
        let set = [("TOKEN".parse().unwrap(), sealed)].into();
        for (event, secret) in [
            (Event::SecretsChanged { set, unset: [].into() }, "ENVELOPE"),
            (
                Event::GitChanged {
                    git: GitSettings {
                        branch: None,
                        connection: Some(GitConnection {
                            hook: "h".into(),
                            url: "https://x/y".into(),
                            token: Some("SEALEDTOKEN".into()),
                        }),
                    },
                },
                "SEALEDTOKEN",
            ),
            (Event::TokenIssued { token: "ci".into(), sha256: "HASH".into(), grants: vec![] }, "HASH"),
            (
                Event::InstanceAssigned {
                    ordinal: 1,
                    process: "web".parse().unwrap(),
                    release: berth_spec::ReleaseNumber(1),
                    token: "TOKEN16".into(),
                },
                "TOKEN16",
            ),
        ] {
            let text = format!("{} {}", shown(&event), say(&event));
            assert!(!text.contains(secret), "{text}");
        }
    }
}
