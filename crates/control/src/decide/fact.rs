//! What a reconciler found: true still, or stale.
//!
//! These checks are what keeps the order of a rollout, whoever asks and however late: a reconciler that planned on an
//! older state, or two of them at once, get nothing worse than [`Refusal::Stale`].

use std::collections::BTreeSet;

use berth_spec::{Millis, ProcessName, ReleaseNumber};

use crate::command::{Fact, Refusal};
use crate::event::{Artifact, Depth, Event, Failure, Ordinal, StopReason, WakeReason, WarmEnd};
use crate::sleep::may_sleep;
use crate::state::{Activation, App, Life, Phase};
use crate::volume;

use super::traffic;

type Outcome = Result<Vec<Event>, Refusal>;

pub(super) fn decide(app: &App, fact: &Fact) -> Outcome {
    if app.life == Life::Destroyed {
        return Err(Refusal::Stale("the app is destroyed"));
    }
    match fact {
        Fact::HookFailed { branch, failure } => {
            Ok(vec![Event::HookFailed { branch: branch.clone(), failure: failure.clone() }])
        }
        Fact::Cron { entry, at, token } => crate::cron::decide(app, entry, *at, token),
        Fact::Built { release, artifact } => built(app, *release, artifact),
        Fact::Failed { release, failure } => failed(app, *release, failure),
        Fact::BeginActivation { release } => begin_activation(app, *release),
        Fact::Supersede { by } => supersede(app, *by),
        Fact::CommandFinished { release } => {
            let activation = activating(app, *release)?;
            if activation.command_done {
                return Ok(Vec::new());
            }
            Ok(vec![Event::ReleaseCommandFinished { number: *release }])
        }
        Fact::AdoptWarm { release } => adopt_warm(app, *release),
        Fact::HandOver { release, processes } => {
            let activation = activating(app, *release)?;
            let new: BTreeSet<ProcessName> = processes.difference(&activation.handed_over).cloned().collect();
            if new.is_empty() {
                return Ok(Vec::new());
            }
            Ok(vec![Event::ProcessesHandedOver { number: *release, processes: new }])
        }
        Fact::Assign { release, process, tokens } => assign(app, *release, process, tokens),
        Fact::Started { ordinal, port, dialer } => started(app, *ordinal, *port, dialer.as_ref()),
        Fact::Route { ordinals } => route(app, ordinals),
        Fact::Shift { release, percent, evidence } => {
            activating(app, *release)?;
            traffic::step(app, *release, *percent, evidence.as_ref())
        }
        Fact::Activate { release } => activate(app, *release),
        Fact::EndWarm { release, .. } if app.warm != Some(*release) => {
            Err(Refusal::Stale("the release is not warm"))
        }
        Fact::EndWarm { release, why } => Ok(vec![Event::WarmEnded { number: *release, why: *why }]),
        Fact::Stop { ordinal, why } => stop(app, *ordinal, *why),
        Fact::Exited { ordinal, exit, more } => match app.instances.get(ordinal) {
            Some(_) => Ok(vec![Event::InstanceExited { ordinal: *ordinal, exit: *exit, more: *more }]),
            None => Err(Refusal::Stale("the instance is gone")),
        },
        Fact::Gone { ordinal, cause } => match app.instances.get(ordinal) {
            Some(_) => Ok(vec![Event::InstanceGone { ordinal: *ordinal, cause: cause.clone() }]),
            None => Err(Refusal::Stale("the instance is gone already")),
        },
        Fact::RunEnded { run, end } => match app.runs.get(run) {
            Some(_) => Ok(vec![Event::RunEnded { run: *run, end: end.clone() }]),
            None => Err(Refusal::Stale("the one-off command is over already")),
        },
        Fact::VolumeWorked { work, failure } => {
            if app.volume_work.as_ref() != Some(work) {
                return Err(Refusal::Stale("the volume is not to be worked on"));
            }
            Ok(vec![Event::VolumeWorkEnded { work: work.clone(), failure: failure.clone() }])
        }
        Fact::Sleep { depth, idle } => sleep(app, *depth, *idle),
        Fact::Wake { why, ordinals } => wake(app, *why, ordinals),
        Fact::Destroyed => {
            let left = !app.instances.is_empty() || !app.runs.is_empty();
            if app.life != Life::Destroying || left {
                return Err(Refusal::Stale("something of the app is left"));
            }
            Ok(vec![Event::AppDestroyed {}])
        }
    }
}

fn activating(app: &App, release: ReleaseNumber) -> Result<&Activation, Refusal> {
    app.activation
        .as_ref()
        .filter(|activation| activation.release == release)
        .ok_or(Refusal::Stale("it is not this release's turn"))
}

fn built(app: &App, number: ReleaseNumber, artifact: &Artifact) -> Outcome {
    match app.release(number) {
        Some(release) if release.phase == Phase::Submitted => {
            Ok(vec![Event::ReleaseBuilt { number, artifact: artifact.clone() }])
        }
        _ => Err(Refusal::Stale("the release does not wait for a build")),
    }
}

fn failed(app: &App, number: ReleaseNumber, failure: &Failure) -> Outcome {
    let phase = app.release(number).map(|release| release.phase);
    if phase.is_none_or(Phase::is_settled) {
        return Err(Refusal::Stale("the release is settled already"));
    }
    let failed = Event::ReleaseFailed { number, failure: failure.clone() };
    Ok([failed].into_iter().chain(route_back(app, number)).collect())
}

fn begin_activation(app: &App, number: ReleaseNumber) -> Outcome {
    let ready = app.release(number).is_some_and(|release| release.phase == Phase::Built);
    if !ready || app.activation.is_some() || app.volume_work.is_some() || app.life != Life::Alive {
        return Err(Refusal::Stale("it is not this release's turn"));
    }
    // In submit order: whatever is older and not settled has been overtaken, and will never be activated.
    let older = app.releases.range(..number).filter(|(_, release)| !release.phase.is_settled());
    let superseded = older.map(|(&older, _)| Event::ReleaseSuperseded { number: older, by: number });
    Ok(superseded.chain([Event::ActivationBegan { number }]).collect())
}

/// Those that wait behind an activation are told as soon as a newer one is built: it is certain then, and a build that goes on would be for
/// nothing. Without an activation the newer one takes its turn, which supersedes them too.
fn supersede(app: &App, by: ReleaseNumber) -> Outcome {
    let waits = app.release(by).is_some_and(|release| release.phase == Phase::Built);
    if !waits || app.activation.is_none() {
        return Err(Refusal::Stale("the newer release does not wait for its turn"));
    }
    let overtaken = app.overtaken(by);
    Ok(overtaken.map(|number| Event::ReleaseSuperseded { number, by }).collect())
}

fn started(app: &App, ordinal: Ordinal, port: Option<u16>, dialer: Option<&String>) -> Outcome {
    match app.instances.get(&ordinal) {
        // A port once known stays: whoever does not see it has not looked yet.
        Some(it) if it.started && (port.is_none() || (it.port == port && it.dialer.as_ref() == dialer)) => {
            Ok(Vec::new())
        }
        Some(_) => Ok(vec![Event::InstanceStarted { ordinal, port, dialer: dialer.cloned() }]),
        None => Err(Refusal::Stale("the instance is gone")),
    }
}

fn adopt_warm(app: &App, number: ReleaseNumber) -> Outcome {
    activating(app, number)?;
    let Some(warm) = app.warm.filter(|&warm| crate::plan::can_adopt(app, number, warm)) else {
        return Err(Refusal::Stale("there is nothing warm to adopt"));
    };
    let ordinals: BTreeSet<Ordinal> = app
        .instances
        .iter()
        .filter(|(_, it)| it.release == warm && it.is_wanted())
        .map(|(&o, _)| o)
        .collect();
    Ok(vec![
        Event::InstancesAdopted { number, ordinals },
        Event::WarmEnded { number: warm, why: WarmEnd::Used },
    ])
}

fn assign(app: &App, number: ReleaseNumber, process: &ProcessName, tokens: &[String]) -> Outcome {
    let activating = app.activation.as_ref().is_some_and(|activation| activation.release == number);
    let serves = app.serving == Some(number) && app.holds(number, process);
    let runs = app.release(number).is_some_and(|release| release.runs(process));
    if app.life != Life::Alive || !runs || !(activating || serves) {
        return Err(Refusal::Stale("the process is not this release's to run"));
    }
    // Never more than are wanted, however often the same lack was seen.
    let lacking = (app.wanted(process) as usize).saturating_sub(app.running(number, process).count());
    let first = app.last_ordinal + 1;
    Ok((first..)
        .zip(tokens.iter().take(lacking))
        .map(|(ordinal, token)| Event::InstanceAssigned {
            ordinal,
            process: process.clone(),
            release: number,
            token: token.clone(),
        })
        .collect())
}

fn route(app: &App, ordinals: &BTreeSet<Ordinal>) -> Outcome {
    if *ordinals == app.routed {
        return Ok(Vec::new());
    }
    if app.asleep.is_some() {
        return Err(Refusal::Stale("the app sleeps"));
    }
    can_be_routed(app, ordinals)?;
    if ordinals.is_empty() && !may_go_dark(app) {
        return Err(Refusal::Stale("nothing else serves yet"));
    }
    Ok(vec![Event::Routed { ordinals: ordinals.clone() }])
}

fn can_be_routed(app: &App, ordinals: &BTreeSet<Ordinal>) -> Result<(), Refusal> {
    if app.life != Life::Alive {
        return Err(Refusal::Stale("the app is being destroyed"));
    }
    let fit = |ordinal: &Ordinal| {
        app.instances.get(ordinal).is_some_and(|it| {
            app.may_route_to(it.release) && it.process.is_web() && it.is_wanted() && it.port.is_some()
        })
    };
    if !ordinals.iter().all(fit) {
        return Err(Refusal::Stale("an instance cannot be routed to"));
    }
    Ok(())
}

fn sleep(app: &App, depth: Depth, idle: Millis) -> Outcome {
    match app.asleep {
        Some(asleep) if depth <= asleep.depth => return Ok(Vec::new()),
        Some(_) => {}
        None if may_sleep(app).is_none() => return Err(Refusal::Stale("the app may not sleep")),
        None => {}
    }
    Ok(vec![Event::AppSlept { depth, idle }])
}

fn wake(app: &App, why: WakeReason, ordinals: &BTreeSet<Ordinal>) -> Outcome {
    if app.asleep.is_none() {
        return Err(Refusal::Stale("the app is awake"));
    }
    can_be_routed(app, ordinals)?;
    Ok(vec![Event::AppWoken { why, ordinals: ordinals.clone() }])
}

/// Whether it was asked for that nothing is routed: the app is scaled to nothing, or the release that is being activated has no web
/// process or replaces it.
fn may_go_dark(app: &App) -> bool {
    let web = web_processes(app, app.serving).next();
    web.is_some_and(|web| app.wanted(web) == 0)
        || volume::is_worked_on(app, web_processes(app, app.serving))
        || app.activation.as_ref().is_some_and(|activation| {
            let release = Some(activation.release);
            web_processes(app, release).next().is_none()
                || activation.handed_over.iter().any(ProcessName::is_web)
        })
}

/// The web process of a release, if it has one.
fn web_processes(app: &App, release: Option<ReleaseNumber>) -> impl Iterator<Item = &ProcessName> {
    let processes = release.and_then(|number| app.release(number)).and_then(|release| release.processes());
    processes.into_iter().flat_map(|processes| processes.keys()).filter(|process| process.is_web())
}

/// What requests go to once `number` has failed: the serving release's instances again, where traffic had moved. Only those that served
/// before: one that was started since may never get ready, and the planner routes to it when it is.
pub(super) fn route_back(app: &App, number: ReleaseNumber) -> Option<Event> {
    let of = |release: Option<ReleaseNumber>| -> BTreeSet<Ordinal> {
        let fit = app.instances.iter().filter(|(_, it)| {
            let serves = Some(it.release) == release && it.process.is_web() && it.proven;
            serves && it.is_wanted() && it.port.is_some()
        });
        fit.map(|(&ordinal, _)| ordinal).collect()
    };
    let moved = app.routed.iter().any(|ordinal| app.instances[ordinal].release == number);
    moved.then(|| Event::Routed { ordinals: of(app.serving) })
}

fn activate(app: &App, number: ReleaseNumber) -> Outcome {
    activating(app, number)?;
    if app.routed.iter().any(|ordinal| app.instances[ordinal].release != number) {
        return Err(Refusal::Stale("requests still go to the release before"));
    }
    let wanted: usize = web_processes(app, Some(number)).map(|process| app.wanted(process) as usize).sum();
    if app.routed.len() < wanted {
        return Err(Refusal::Stale("one of its instances was lost just now"));
    }
    let now = app.secret_versions();
    // Instances that hold a value which was revoked or replaced since must not come back by a rollback.
    let previous = app.serving_release().filter(|before| {
        let warm = app.release(number).is_some_and(|new| new.manifest.deploy.warm.0 > 0);
        let alive = app.instances.values().any(|it| it.release == before.number && it.is_wanted());
        warm && alive && before.secrets.iter().all(|(name, version)| now.get(name) == Some(version))
    });
    let mut events = Vec::new();
    if let Some(displaced) = app.warm {
        events.push(Event::WarmEnded { number: displaced, why: WarmEnd::Displaced });
    }
    let previous = previous.map(|release| release.number);
    events.push(Event::ReleaseActivated { number, previous });
    Ok(events)
}

fn stop(app: &App, ordinal: Ordinal, why: StopReason) -> Outcome {
    let Some(instance) = app.instances.get(&ordinal) else {
        return Err(Refusal::Stale("the instance is gone"));
    };
    if !instance.is_wanted() {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    if app.routed.contains(&ordinal) {
        let mut rest = app.routed.clone();
        rest.remove(&ordinal);
        if rest.is_empty() && !may_go_dark(app) {
            return Err(Refusal::Stale("nothing else serves yet"));
        }
        events.push(Event::Routed { ordinals: rest });
    }
    events.push(Event::InstanceStopping { ordinal, why });
    Ok(events)
}
