//! The state as the wire types show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_contract::{
    App, AppState, AppSummary, Asleep, Code, Exit, Failure, Instance, InstanceState, ProcessCount, Reason,
    Release, ReleaseState, Scale, SleepDepth, SourceError,
};
use berth_control::event::{self, Ordinal, Reason as KnownReason};
use berth_control::route::serving_hosts;
use berth_control::sleep::is_put_to_sleep;
use berth_control::state::{self, App as KnownApp, Life, Phase, Release as KnownRelease};
use berth_control::world::{Life as SeenLife, Seen, Verdict};
use berth_routing::wire::Health;
use berth_spec::{Command, Manifest, Problems, ProcessName, ReleaseNumber};

use super::Api;

/// An app in a list.
pub(super) fn summary(api: &Api, app: &Arc<KnownApp>) -> AppSummary {
    let processes = counts(api, app);
    AppSummary {
        gate: app.gate,
        id: app.id.clone(),
        name: app.id.app.clone(),
        state: state(app, &processes),
        urls: urls(api, app),
        release: app.serving,
        processes,
        asleep: asleep(app),
        stack: app.releases.values().next_back().and_then(|newest| newest.manifest.stack.clone()),
    }
}

/// Its sleep, while it sleeps.
pub(super) fn asleep(app: &KnownApp) -> Option<Asleep> {
    let sleep = app.asleep?;
    let depth = match sleep.depth {
        event::Depth::Frozen => SleepDepth::Frozen,
        event::Depth::Stopped => SleepDepth::Stopped,
    };
    Some(Asleep { since: sleep.since, depth })
}

/// One app.
pub(super) fn app(api: &Api, app: &Arc<KnownApp>) -> App {
    let coming = app.releases.values().rev().find(|release| !release.phase.is_settled());
    App {
        summary: summary(api, app),
        created_at: app.created_at,
        deploying: coming.map(|release| release.number),
        warm: app.warm,
        trouble: trouble(api, app),
    }
}

/// Where the app is reached, when it has a web process.
pub(crate) fn urls(api: &Api, app: &KnownApp) -> Vec<String> {
    let has_web = app
        .serving_release()
        .and_then(|release| release.processes())
        .is_some_and(|processes| processes.keys().any(ProcessName::is_web));
    if !has_web {
        return Vec::new();
    }
    let port = api.identity.edge.port();
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    // Nobody can visit a wildcard itself.
    let hosts = serving_hosts(app).into_iter().filter(|host| !host.starts_with('*'));
    hosts.map(|host| format!("http://{host}{port}")).collect()
}

fn counts(api: &Api, app: &KnownApp) -> BTreeMap<ProcessName, ProcessCount> {
    let Some(release) = app.serving_release() else {
        return BTreeMap::new();
    };
    let seen = api.machine.seen(&app.id);
    let names = release.processes().into_iter().flat_map(|processes| processes.keys());
    let count = |process: &ProcessName| {
        let ready = app.running(release.number, process).filter(|(ordinal, instance)| {
            let runs = seen.get(ordinal).is_some_and(|seen| seen.life == SeenLife::Running);
            // What stands still was ready when edge last looked, and is not now.
            runs && (!process.is_web() || (app.asleep.is_none() && is_ready(api, app, *ordinal, instance)))
        });
        ProcessCount {
            wanted: app.wanted(process),
            running: u32::try_from(ready.count()).unwrap_or(u32::MAX),
        }
    };
    names.map(|process| (process.clone(), count(process))).collect()
}

fn is_ready(api: &Api, app: &KnownApp, ordinal: Ordinal, instance: &state::Instance) -> bool {
    api.edge.is_ready(&app.id.instance(instance.process.clone(), ordinal))
}

fn state(app: &KnownApp, processes: &BTreeMap<ProcessName, ProcessCount>) -> AppState {
    let (wanted, running) =
        processes.values().fold((0, 0), |sum, it| (sum.0 + it.wanted, sum.1 + it.running.min(it.wanted)));
    match (app.life, app.serving) {
        (Life::Destroying | Life::Destroyed, _) => AppState::Destroying,
        (Life::Alive, None) => AppState::Empty,
        (Life::Alive, Some(_)) if wanted == 0 => AppState::Stopped,
        (Life::Alive, Some(_)) if app.asleep.is_some() => AppState::Asleep,
        (Life::Alive, Some(_)) if running == wanted => AppState::Running,
        (Life::Alive, Some(_)) if running == 0 => AppState::Down,
        (Life::Alive, Some(_)) => AppState::Degraded,
    }
}

/// What needs somebody's eye.
fn trouble(api: &Api, app: &KnownApp) -> Option<String> {
    let seen = api.machine.seen(&app.id);
    let crashing = seen.iter().find(|(_, seen)| seen.life == SeenLife::BackingOff);
    if let Some((ordinal, seen)) = crashing {
        let mut exit = seen.last_exit.map_or_else(String::new, |exit| format!(" It {exit}."));
        // What the check said is what there is to know of one that was ended for it.
        let said = seen.check.as_ref().map(|check| check.evidence.join("; ")).unwrap_or_default();
        if seen.last_exit.is_some_and(|exit| exit.unhealthy) && !said.is_empty() {
            exit.push_str(&format!(" Before, {said}."));
        }
        return Some(format!(
            "Instance {ordinal} keeps ending and is started again, {} times so far.{exit}",
            seen.restarts
        ));
    }
    let serves = |ordinal| app.instances.get(ordinal).is_some_and(|it| app.serving == Some(it.release));
    let mut unwell = seen.iter().filter(|(ordinal, seen)| serves(ordinal) && !seen.is_well());
    if let Some((ordinal, seen)) = unwell.next() {
        let evidence = seen.check.as_ref().map(|check| check.evidence.join("; ")).unwrap_or_default();
        let evidence = if evidence.is_empty() { "its health check has not passed yet" } else { &evidence };
        return Some(format!("Instance {ordinal} is not well: {evidence}."));
    }
    let newest = app.releases.values().next_back()?;
    match &newest.failure {
        Some(failure) => Some(format!("{} failed: {}.", newest.number, failure.summary)),
        None => out_of_memory(api, app).or_else(|| super::cron::trouble(app)),
    }
}

/// That memory ran out in an instance that serves, which went on without what the kernel killed, or was started again.
fn out_of_memory(api: &Api, app: &KnownApp) -> Option<String> {
    let lives = api.machine.lives(&app.id);
    let (ordinal, killed, instance) = lives.iter().find_map(|(ordinal, lived)| {
        let instance = app.instances.get(ordinal).filter(|it| app.serving == Some(it.release))?;
        (lived.oom_kills > 0).then_some((ordinal, lived.oom_kills, instance))
    })?;
    let what = if killed == 1 { "a process".to_owned() } else { format!("{killed} processes") };
    Some(format!(
        "Memory ran out in instance {ordinal}: the kernel has killed {what} of it. `resources.{}.memory` in berth.toml says how much it may have.",
        instance.process
    ))
}

/// A release.
pub(super) fn release(api: &Api, app: &KnownApp, release: &KnownRelease) -> Release {
    let (reason, rollback_of) = match release.reason {
        KnownReason::Deploy => (Reason::Deploy, None),
        KnownReason::Config => (Reason::Config, None),
        KnownReason::Secrets => (Reason::Secrets, None),
        KnownReason::Rollback { of, .. } => (Reason::Rollback, Some(of)),
    };
    let state = match release.phase {
        Phase::Submitted if api.machine.is_building(&app.id, release.number) => ReleaseState::Building,
        Phase::Submitted => ReleaseState::Submitted,
        Phase::Built => ReleaseState::Built,
        Phase::Activating if app.routed.iter().any(|it| app.instances[it].release == release.number) => {
            ReleaseState::Activating
        }
        Phase::Activating => ReleaseState::Starting,
        Phase::Activated if app.serving == Some(release.number) => ReleaseState::Active,
        Phase::Activated => ReleaseState::Retired,
        Phase::Failed => ReleaseState::Failed,
        Phase::Superseded => ReleaseState::Superseded,
    };
    Release {
        number: release.number,
        state,
        reason,
        rollback_of,
        created_at: release.submitted_at,
        created_by: release.submitted_by.clone(),
        description: release.description.clone(),
        commit: release.commit.clone(),
        tree: release.tree.parse().ok(),
        artifact: release.artifact.as_ref().map(|artifact| artifact.id.clone()),
        image: release.manifest.build.image.clone(),
        config_names: release.config.keys().cloned().collect(),
        secret_versions: release.secrets.clone(),
        failure: release.failure.as_ref().map(failure),
        took_ms: release.settled_at.map(|settled| settled - release.submitted_at),
    }
}

/// A failure; a code that this version does not know is shown as `internal`, with its summary.
pub(crate) fn failure(failure: &event::Failure) -> Failure {
    let code = Code::from_text(&failure.code).unwrap_or(Code::Internal);
    // Before there was a place of its own for what a program printed, it stood among the facts.
    let printed = matches!(code, Code::BuildFailed | Code::ReleaseCommandFailed) && failure.log.is_empty();
    let (details, log) = if printed {
        (Vec::new(), failure.detail.clone())
    } else {
        (failure.detail.clone(), failure.log.clone())
    };
    Failure {
        code,
        summary: failure.summary.clone(),
        details,
        log,
        changed: Vec::new(),
        changed_since: None,
        next: failure.next.clone().or_else(|| after_failure(code).map(str::to_owned)),
    }
}

/// What to do about a release that failed, where the failure itself does not say it.
fn after_failure(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::NeverListened | Code::ListensElsewhere => {
            "let the app listen on 127.0.0.1 or 0.0.0.0, on the port that it finds in the variable PORT"
        }
        Code::CrashedAtStart => "`berth logs` shows what it printed; correct it and deploy again",
        Code::HealthCheckFailed => {
            "let it pass: a path below [[http.checks]] has to answer with a status from 200 to 299, a command of [healthcheck] or of the image to end with 0"
        }
        Code::ReleaseCommandFailed => {
            "`berth logs -p release-command` shows what it printed; correct it and deploy again"
        }
        Code::DeployTimedOut | Code::BuildTimedOut => {
            "if it needs more time, give it with `timeout` in the section [deploy] of berth.toml"
        }
        Code::RolloutWorse | Code::RolloutFailed => {
            "the release before serves all requests; `berth logs` shows what the new one printed; correct it and deploy again"
        }
        Code::DiskFull => "make room and deploy again; what served before still serves",
        _ => return None,
    })
}

/// How many instances of each process are wanted.
pub(super) fn scale(app: &KnownApp) -> Scale {
    let named = app.scale.keys().cloned();
    let runs = app.serving_release().and_then(|release| release.processes());
    let all = named.chain(runs.into_iter().flat_map(|processes| processes.keys().cloned()));
    Scale(all.map(|process| (process.clone(), app.wanted(&process))).collect())
}

/// The app's instances.
pub(super) fn instances(api: &Api, app: &KnownApp) -> Vec<Instance> {
    let lives = api.machine.lives(&app.id);
    let seen = api.machine.seen(&app.id);
    let mut instances: Vec<Instance> = app
        .instances
        .iter()
        .map(|(&ordinal, it)| {
            let seen = seen.get(&ordinal);
            let lived = lives.get(&ordinal).copied().unwrap_or_default();
            Instance {
                id: app.id.instance(it.process.clone(), ordinal),
                process: it.process.clone(),
                release: it.release,
                state: instance_state(api, app, ordinal, it, seen),
                started_at: lived.running.map(|(_, since)| since),
                pid: lived.running.map(|(pid, _)| pid),
                port: it.port,
                restarts: seen.map_or(0, |seen| seen.restarts),
                exit: seen.and_then(|seen| seen.last_exit).zip(lived.ended).map(|(exit, at)| Exit {
                    status: exit.status,
                    signal: exit.signal,
                    at,
                    unhealthy: exit.unhealthy,
                    oom: exit.oom == Some(true),
                }),
                oom_kills: lived.oom_kills,
            }
        })
        .collect();
    instances.extend(runs(api, app));
    instances.sort_by(|a, b| (&a.process, a.id.ordinal).cmp(&(&b.process, b.id.ordinal)));
    instances
}

/// The one-off commands that are not over.
fn runs(api: &Api, app: &KnownApp) -> impl Iterator<Item = Instance> {
    let lives = api.machine.run_lives(&app.id);
    app.runs.iter().map(move |(&number, run)| {
        let id = crate::machine::runs::run_id(&app.id, number);
        let (stopping, running) = lives.get(&number).copied().unwrap_or_default();
        Instance {
            process: id.process.clone(),
            id,
            release: run.release,
            state: match (stopping, running) {
                (true, _) => InstanceState::Stopping,
                (false, Some(_)) => InstanceState::Ready,
                (false, None) => InstanceState::Starting,
            },
            started_at: running.map(|(_, since)| since),
            // That of one within an instance its shim alone knows.
            pid: running.map(|(pid, _)| pid).filter(|pid| *pid > 0),
            port: None,
            restarts: 0,
            exit: None,
            oom_kills: 0,
        }
    })
}

fn instance_state(
    api: &Api,
    app: &KnownApp,
    ordinal: Ordinal,
    instance: &state::Instance,
    seen: Option<&Seen>,
) -> InstanceState {
    let Some(seen) = seen else {
        return InstanceState::Starting;
    };
    match seen.life {
        SeenLife::Gone | SeenLife::NotStarted { .. } => return InstanceState::Exited,
        SeenLife::Stopping => return InstanceState::Stopping,
        SeenLife::BackingOff => return InstanceState::Backoff,
        SeenLife::Starting | SeenLife::Running => {}
    }
    if !instance.is_wanted() {
        return InstanceState::Draining;
    }
    if app.warm == Some(instance.release) {
        return InstanceState::Warm;
    }
    if app.asleep.is_some() && is_put_to_sleep(app, instance) {
        return if seen_still(api, app, ordinal) { InstanceState::Frozen } else { InstanceState::Draining };
    }
    match seen.check.as_ref().map(|check| check.verdict) {
        Some(Verdict::Unhealthy) => return InstanceState::Unhealthy,
        Some(Verdict::Starting) => return InstanceState::Starting,
        Some(Verdict::Healthy) | None => {}
    }
    if !instance.process.is_web() {
        return InstanceState::Ready;
    }
    let id = app.id.instance(instance.process.clone(), ordinal);
    match api.edge.health(&id).map(|probed| probed.health) {
        Some(Health::Ready) => InstanceState::Ready,
        Some(Health::Failing) => InstanceState::Unhealthy,
        Some(Health::Unready) | None => InstanceState::Starting,
    }
}

fn seen_still(api: &Api, app: &KnownApp, ordinal: Ordinal) -> bool {
    app.instance_id(ordinal).is_some_and(|id| api.machine.stands_still(&id))
}

/// The app as it is, in a sentence or two.
pub(super) fn state_in_words(api: &Api, app: &Arc<KnownApp>) -> String {
    let shown = summary(api, app);
    let counts: Vec<String> = shown
        .processes
        .iter()
        .map(|(name, count)| format!("{} of {} {name}", count.running, count.wanted))
        .collect();
    let base = match (app.serving, app.life) {
        (_, Life::Destroying | Life::Destroyed) => format!("{} is being destroyed.", app.id.app),
        (None, Life::Alive) => format!("{} has no release that serves yet.", app.id.app),
        (Some(serving), Life::Alive) if shown.state == AppState::Stopped => stopped_in_words(app, serving),
        (Some(serving), Life::Alive) if shown.state == AppState::Asleep => {
            let how = match shown.asleep.map(|it| it.depth) {
                Some(SleepDepth::Frozen) => "its web instances stand still",
                _ => "its web instances are stopped",
            };
            let name = &app.id.app;
            format!("{serving} of {name} sleeps, since nobody asked for it: {how} until somebody does.")
        }
        (Some(serving), Life::Alive) => {
            let sleeps = app.serving_release().is_some_and(|release| release.manifest.sleep().is_some());
            let awake = match app.warm.filter(|_| sleeps) {
                Some(warm) => format!(" It does not sleep while {warm} is kept warm, by `deploy.warm`."),
                None => String::new(),
            };
            format!("{serving} of {} serves, with {} running.{awake}", app.id.app, counts.join(", "))
        }
    };
    match trouble(api, app) {
        Some(trouble) => format!("{base} {trouble}"),
        None => base,
    }
}

/// Why nothing of an app runs, though it has a release that serves.
fn stopped_in_words(app: &KnownApp, serving: ReleaseNumber) -> String {
    let name = &app.id.app;
    let release = app.release(serving);
    if let Some(command) = release.and_then(|release| job_of(&release.manifest)) {
        return format!(
            "{serving} of {name} ran `{command}` to its end, once, and nothing of it goes on; the next release runs it again."
        );
    }
    let processes = release.and_then(|release| release.processes());
    let first = processes.and_then(|all| all.keys().min_by_key(|name| !name.is_web()));
    let first = first.map_or(ProcessName::WEB, ProcessName::as_str);
    format!(
        "{serving} of {name} is stopped: everything is scaled to 0, and `berth scale {first}=1` starts it again."
    )
}

/// What an app is there to run once for each release: a service of a stack for whose end another waits.
fn job_of(manifest: &Manifest) -> Option<&Command> {
    let once = manifest.deploy.release_command.as_ref()?;
    let processes = &manifest.processes;
    let is_all = !processes.is_empty() && processes.values().all(|command| command == once);
    (manifest.stack.is_some() && is_all).then_some(once)
}

/// A release, in a sentence or two.
pub(super) fn release_in_words(app: &KnownApp, release: &KnownRelease, failure: Option<&Failure>) -> String {
    let number = release.number;
    match release.phase {
        Phase::Submitted => format!("{number} waits for its build."),
        Phase::Built => format!("{number} is built and waits for its turn."),
        Phase::Activating => format!("{number} is taking over."),
        Phase::Activated if app.serving == Some(number) => format!("{number} serves."),
        Phase::Activated if app.warm == Some(number) => format!("{number} served before and is kept warm."),
        Phase::Activated => format!("{number} served and was followed by another release."),
        Phase::Superseded => format!("{number} never served: a newer release was ready first."),
        Phase::Failed => match failure {
            Some(failure) => {
                let first = format!("{number} failed: {}.", failure.summary);
                [first].into_iter().chain(failure.report()).collect::<Vec<_>>().join("\n")
            }
            None => format!("{number} failed."),
        },
    }
}

/// An instance, in a sentence or two.
pub(super) fn instance_in_words(api: &Api, app: &KnownApp, ordinal: Ordinal) -> String {
    let shown = instances(api, app).into_iter().find(|it| it.id.ordinal == ordinal);
    let Some(shown) = shown else {
        return format!("Instance {ordinal} of {} is gone.", app.id.app);
    };
    let evidence = api.edge.health(&shown.id).map(|probed| probed.evidence).unwrap_or_default();
    let mut text = format!("{} of {} is {}.", shown.id.short(), shown.release, shown.state.as_str());
    if let Some(last) = evidence.last() {
        text.push_str(&format!(" Its last probe: {last}."));
    }
    text
}

/// Where a manifest or a Procfile is wrong.
pub(super) fn source_errors(file: &str, problems: &Problems) -> Vec<SourceError> {
    let place = |problem: &berth_spec::Problem| SourceError {
        file: Some(if problem.file.is_empty() { file.to_owned() } else { problem.file.clone() }),
        line: problem.line,
        column: problem.column,
        message: problem.what.clone(),
        context: Some(problem.context.clone()).filter(|context| !context.is_empty()),
        instead: problem.instead.clone(),
    };
    problems.0.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_from_an_app_that_is_scaled_to_nothing() {
        let manifest = |text: &str| Manifest::parse(text).unwrap();
        let job = "stack = \"shop\"\n[processes]\nmigrate = \"bin/migrate\"\n[deploy]\nrelease_command = \"bin/migrate\"\n";
        assert_eq!(job_of(&manifest(job)).map(ToString::to_string).as_deref(), Some("bin/migrate"));
        for other in [
            job.replace("stack = \"shop\"\n", ""),
            job.replace("migrate = \"bin/migrate\"", "web = \"bin/serve\""),
            job.replace("release_command = \"bin/migrate\"\n", ""),
        ] {
            assert!(job_of(&manifest(&other)).is_none(), "{other}");
        }
    }

    /// A failure's code is text, since it is kept for ever; one that the contract does not know would be shown as `internal`.
    #[test]
    fn every_code_that_a_release_fails_with_is_in_the_contract() {
        let sources = [
            include_str!("../../../control/src/plan/activation.rs"),
            include_str!("../../../control/src/plan/failing.rs"),
            include_str!("../../../control/src/decide/wish.rs"),
            include_str!("../../../build/src/error.rs"),
            include_str!("../../../source/src/store.rs"),
            include_str!("../machine/releases.rs"),
        ];
        let is_code = |text: &&str| {
            text.contains('_') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let mut met = 0;
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap();
            for text in code.split('"').skip(1).step_by(2).filter(is_code) {
                assert!(Code::from_text(text).is_some(), "{text} is no code of the contract");
                met += 1;
            }
        }
        assert!(met >= 20, "{met}");
    }
}
