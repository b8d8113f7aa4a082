//! What must always hold: each with an id, one definition, and the same check for simulation and production.
//!
//! The ids and their words are in docs/invariants.md. A check returns the breaches it found; the simulation stops at the first, a debug
//! build panics, a release build counts and writes [`crate::event::Event::InvariantBroken`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use berth_routing::wire::Health;
use berth_routing::{AppRoute, Backend, Endpoint, Generation, Role, Snapshot};
use berth_spec::{AppId, ProcessName, ReleaseNumber};

use crate::event::{CronRun, Event, Ordinal, WarmEnd};
use crate::plan::stop_is_safe;
use crate::sleep::{freeze_is_safe, is_put_to_sleep, may_sleep, may_stand_still};
use crate::state::{App, Life, Phase, Position, State};
use crate::volume::{in_the_way, is_worked_on};
use crate::world::{AppWorld, Listener};

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// DUR-1: what was acknowledged is in the journal.
    AcknowledgedIsDurable,
    /// DUR-2: replaying the journal gives the state that was served.
    ReplayGivesServedState,
    /// RTE-1: no request can reach an instance that is told to stop.
    StoppedIsUnreachable,
    /// RTE-2: no release stops serving before its successor serves.
    SomethingServes,
    /// RTE-3: edge never goes back to an older snapshot, and a snapshot is durable before it is sent.
    SnapshotsGoForward,
    /// RTE-4: only living instances of the serving release or of the one being activated are routed.
    RoutedIsAlive,
    /// RTE-5: what is meant for one instance never reaches another.
    EndpointsAreNotShared,
    /// RTE-6: a host leads to one app.
    HostsAreNotShared,
    /// RTE-7: requests are shared between releases that are routed to, a hundred percent in all.
    SharesAreWhole,
    /// DEP-1: at most one deployment of an app moves traffic.
    OneMovesTraffic,
    /// DEP-2: releases are activated in submit order.
    ActivatedInOrder,
    /// DEP-3: what may be rolled back to exists.
    RollbackExists,
    /// NUM-1: numbers of releases and instances are never given twice.
    NumbersAreUnique,
    /// CRON-1: a moment at which a cron entry is due is run at most once.
    MomentsRunOnce,
    /// VOL-1: of the instances that have one volume no two are of different releases, and no two of one process.
    VolumesAreExclusive,
    /// SLP-1: nothing is under way to an instance that stands still, and nothing can come.
    StillIsUnreachable,
    /// SLP-2: what is routed goes on, and what sleeps is routed nowhere.
    RoutedGoesOn,
    /// INS-1: no instance outlives its app, or what wanted it, by more than one pass of the reconciler.
    NothingLeaks,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AcknowledgedIsDurable,
        Self::ReplayGivesServedState,
        Self::StoppedIsUnreachable,
        Self::SomethingServes,
        Self::SnapshotsGoForward,
        Self::RoutedIsAlive,
        Self::EndpointsAreNotShared,
        Self::HostsAreNotShared,
        Self::SharesAreWhole,
        Self::OneMovesTraffic,
        Self::ActivatedInOrder,
        Self::RollbackExists,
        Self::NumbersAreUnique,
        Self::MomentsRunOnce,
        Self::VolumesAreExclusive,
        Self::StillIsUnreachable,
        Self::RoutedGoesOn,
        Self::NothingLeaks,
    ];

    /// The id that docs/invariants.md explains.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::AcknowledgedIsDurable => "DUR-1",
            Self::ReplayGivesServedState => "DUR-2",
            Self::StoppedIsUnreachable => "RTE-1",
            Self::SomethingServes => "RTE-2",
            Self::SnapshotsGoForward => "RTE-3",
            Self::RoutedIsAlive => "RTE-4",
            Self::EndpointsAreNotShared => "RTE-5",
            Self::HostsAreNotShared => "RTE-6",
            Self::SharesAreWhole => "RTE-7",
            Self::OneMovesTraffic => "DEP-1",
            Self::ActivatedInOrder => "DEP-2",
            Self::RollbackExists => "DEP-3",
            Self::NumbersAreUnique => "NUM-1",
            Self::MomentsRunOnce => "CRON-1",
            Self::VolumesAreExclusive => "VOL-1",
            Self::StillIsUnreachable => "SLP-1",
            Self::RoutedGoesOn => "SLP-2",
            Self::NothingLeaks => "INS-1",
        }
    }
}

/// A breach of an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.invariant.id(), self.invariant, self.detail)
    }
}

type Checked = Result<(), Breach>;

fn hold(invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Breach { invariant, detail: detail() }) }
}

/// An answer that rests on `position` is about to be given while the journal is durable up to `durable`.
///
/// # Errors
/// [`Invariant::AcknowledgedIsDurable`].
pub fn check_answer(position: Position, durable: Position) -> Checked {
    hold(Invariant::AcknowledgedIsDurable, position <= durable, || {
        format!("an answer rests on position {position}, and only {durable} is durable")
    })
}

/// The journal was replayed.
///
/// # Errors
/// [`Invariant::ReplayGivesServedState`].
pub fn check_replay(served: &State, replayed: &State) -> Checked {
    hold(Invariant::ReplayGivesServedState, served == replayed, || {
        let differs = served.apps.iter().find(|(id, app)| replayed.apps.get(*id) != Some(*app));
        let what =
            differs.map_or_else(|| "the platform or the position".to_owned(), |(id, _)| id.to_string());
        format!("served {}, replayed {}: {what} differs", served.position, replayed.position)
    })
}

/// Somebody is about to stop `ordinal`.
///
/// # Errors
/// [`Invariant::StoppedIsUnreachable`].
pub fn check_stop(app: &App, ordinal: Ordinal, world: &AppWorld, drain_over: bool) -> Checked {
    hold(Invariant::StoppedIsUnreachable, stop_is_safe(app, ordinal, world, drain_over), || {
        format!(
            "{} instance {ordinal} was to be stopped while edge may still reach it: {:?}",
            app.id, world.edge
        )
    })
}

/// Edge, which uses `applied`, is about to be sent `next`, while `durable` is on the disk.
///
/// # Errors
/// [`Invariant::SnapshotsGoForward`].
pub fn check_snapshot(applied: Generation, durable: Generation, next: &Snapshot) -> Checked {
    let next = next.generation;
    hold(Invariant::SnapshotsGoForward, applied <= next && next <= durable, || {
        format!("edge uses {applied} and was to be sent {next} while {durable} is durable")
    })
}

/// Somebody is about to start `ordinal`.
///
/// # Errors
/// [`Invariant::VolumesAreExclusive`].
pub fn check_start(app: &App, ordinal: Ordinal, world: &AppWorld) -> Checked {
    let other = in_the_way(app, ordinal, world);
    hold(Invariant::VolumesAreExclusive, other.is_none(), || {
        format!("{} instance {ordinal} was to be started while {other:?} has a volume of its", app.id)
    })
}

/// Somebody is about to have `ordinal` stand still.
///
/// # Errors
/// [`Invariant::StillIsUnreachable`].
pub fn check_freeze(app: &App, ordinal: Ordinal, world: &AppWorld) -> Checked {
    hold(Invariant::StillIsUnreachable, freeze_is_safe(app, ordinal, world), || {
        format!("{} instance {ordinal} was to stand still while edge may reach it: {:?}", app.id, world.edge)
    })
}

/// The reconciler is about to wake the app, with requests to `ordinals`: nothing of it stands still, and those are ready or were before.
///
/// # Errors
/// [`Invariant::RoutedGoesOn`] and [`Invariant::RoutedIsAlive`].
pub fn check_wake(app: &App, ordinals: &BTreeSet<Ordinal>, world: &AppWorld) -> Checked {
    let still = may_stand_still(app, world);
    hold(Invariant::RoutedGoesOn, still.is_empty(), || {
        format!("{} was to wake while {still:?} may stand still", app.id)
    })?;
    let slept = |ordinal: &Ordinal| {
        app.instances.get(ordinal).is_some_and(|it| it.proven && is_put_to_sleep(app, it))
    };
    let fresh: BTreeSet<Ordinal> = ordinals.iter().filter(|it| !slept(it)).copied().collect();
    check_newly_routed(app, &fresh, world)
}

/// A snapshot that is about to be published routes to what the state routes to, and no two of its backends are at one endpoint, no two
/// of its apps at one host.
///
/// # Errors
/// [`Invariant::RoutedIsAlive`], [`Invariant::SomethingServes`], [`Invariant::EndpointsAreNotShared`] and
/// [`Invariant::HostsAreNotShared`].
pub fn check_routes(state: &State, snapshot: &Snapshot) -> Checked {
    check_hosts(snapshot)?;
    let mut endpoints = BTreeMap::new();
    for (id, route) in &snapshot.apps {
        let routed = |backend: &&Backend| backend.role == Role::Routed;
        for backend in route.backends.iter().filter(routed) {
            let known = state.apps.get(id).is_some_and(|app| app.routed.contains(&backend.instance.ordinal));
            hold(Invariant::RoutedIsAlive, known, || {
                format!("{} is in the snapshot only", backend.instance)
            })?;
        }
        check_shares(id, route)?;
        for backend in &route.backends {
            // Who is behind a dialer is one instance, whatever its port.
            let place = match &backend.endpoint {
                Endpoint::Tcp { addr } => addr.to_string(),
                Endpoint::Dialer { name, .. } => name.clone(),
            };
            let other = endpoints.insert(place, &backend.instance);
            hold(Invariant::EndpointsAreNotShared, other.is_none(), || {
                format!("{} and {other:?} are both at {:?}", backend.instance, backend.endpoint)
            })?;
        }
    }
    for app in state.apps.values() {
        let backends = snapshot.apps.get(&app.id).map(|route| &route.backends[..]).unwrap_or_default();
        let missing = app.routed.iter().find(|&&ordinal| {
            !backends.iter().any(|it| it.instance.ordinal == ordinal && it.role == Role::Routed)
        });
        hold(Invariant::SomethingServes, missing.is_none(), || {
            format!("{} routes to {missing:?}, and the snapshot does not", app.id)
        })?;
    }
    Ok(())
}

/// The shares are whole, and of instances that are routed.
fn check_shares(id: &AppId, route: &AppRoute) -> Checked {
    let whole: u32 = route.shares.iter().map(|share| u32::from(share.percent)).sum();
    let routed = |ordinal: &Ordinal| {
        route.backends.iter().any(|it| it.instance.ordinal == *ordinal && it.role == Role::Routed)
    };
    let alive = route.shares.iter().flat_map(|share| &share.instances).all(routed);
    hold(Invariant::SharesAreWhole, route.shares.is_empty() || (whole == 100 && alive), || {
        format!("{id} shares its requests by {:?}", route.shares)
    })
}

/// One host, one app; and what a wildcard of one tenant stands for belongs to no other tenant.
fn check_hosts(snapshot: &Snapshot) -> Checked {
    let mut owners: BTreeMap<&str, &AppId> = BTreeMap::new();
    for (id, route) in &snapshot.apps {
        for host in &route.hosts {
            let other = owners.insert(&host.0, id).filter(|other| *other != id);
            hold(Invariant::HostsAreNotShared, other.is_none(), || {
                format!("{} leads to {id} and to {other:?}", host.0)
            })?;
        }
    }
    for (host, id) in &owners {
        let wildcard = host.split_once('.').map(|(_, below)| format!("*.{below}"));
        let over = wildcard.and_then(|wildcard| owners.get(&*wildcard).copied());
        hold(Invariant::HostsAreNotShared, over.is_none_or(|over| over.tenant == id.tenant), || {
            format!("{host} leads to {id}, and a wildcard over it to {over:?}")
        })?;
    }
    Ok(())
}

/// The reconciler is about to have requests sent to `ordinals`: those that got none before are ready.
///
/// # Errors
/// [`Invariant::RoutedIsAlive`].
pub fn check_newly_routed(app: &App, ordinals: &BTreeSet<Ordinal>, world: &AppWorld) -> Checked {
    for ordinal in ordinals.difference(&app.routed) {
        let runs = world.instances.get(ordinal).is_some_and(|seen| {
            seen.life == crate::world::Life::Running && seen.listener == Listener::Expected && seen.is_well()
        });
        let ready = world.health.get(ordinal).is_some_and(|probed| probed.health == Health::Ready);
        hold(Invariant::RoutedIsAlive, runs && ready, || {
            format!("{} was to route to {ordinal}, which is not ready", app.id)
        })?;
    }
    Ok(())
}

/// The state of one app, whenever.
///
/// # Errors
/// The first breach found.
pub fn check_app(app: &App) -> Checked {
    let activating = app.activation.as_ref().map(|activation| activation.release);
    for ordinal in &app.routed {
        let instance = app.instances.get(ordinal);
        let alive =
            instance.is_some_and(|it| it.is_wanted() && it.port.is_some() && app.may_route_to(it.release));
        hold(Invariant::RoutedIsAlive, alive, || format!("{} routes to {ordinal}: {instance:?}", app.id))?;
    }
    let stands = |number: ReleaseNumber| {
        Some(number) != app.serving && (Some(number) == activating || Some(number) == app.warm)
    };
    let shared = app.split.is_none_or(|split| split.percent <= 100 && stands(split.release));
    hold(Invariant::SharesAreWhole, shared, || {
        format!("{} shares by {:?}; {activating:?} is activated, {:?} warm", app.id, app.split, app.warm)
    })?;
    hold(Invariant::RoutedGoesOn, app.asleep.is_none() || app.routed.is_empty(), || {
        format!("{} sleeps and routes to {:?}", app.id, app.routed)
    })?;
    let moving: BTreeSet<ReleaseNumber> = app
        .releases
        .values()
        .filter(|release| release.phase == Phase::Activating)
        .map(|release| release.number)
        .collect();
    let one = moving.len() <= 1 && (app.life != Life::Alive || moving.first().copied() == activating);
    hold(Invariant::OneMovesTraffic, one, || {
        format!("{} is activating {moving:?}, and {activating:?} has the turn", app.id)
    })
}

/// The artifact of every release that may be rolled back to, for a check of what is on the disk.
#[must_use]
pub fn kept_artifacts(app: &App) -> BTreeSet<String> {
    let kept = app.releases.values().filter(|release| {
        !release.phase.is_settled()
            || release.phase == Phase::Activated
            || app.instances.values().any(|it| it.release == release.number)
            || app.runs.values().any(|run| run.release == release.number)
    });
    kept.filter_map(|release| release.artifact.as_ref().map(|artifact| artifact.id.clone())).collect()
}

/// What is on the disk has all that may be rolled back to.
///
/// # Errors
/// [`Invariant::RollbackExists`].
pub fn check_artifacts(app: &App, on_disk: &BTreeSet<String>) -> Checked {
    let missing = kept_artifacts(app).into_iter().find(|id| !on_disk.contains(id));
    hold(Invariant::RollbackExists, missing.is_none(), || format!("{} has lost {missing:?}", app.id))
}

/// The events of one decision took `before` to `after`.
///
/// # Errors
/// The first breach found.
pub fn check_step(before: &App, events: &[Event], after: &App) -> Checked {
    let mut last_ordinal = before.last_ordinal;
    for event in events {
        match event {
            Event::ReleaseSubmitted(release) => {
                let fresh = release.number >= before.next_number();
                hold(Invariant::NumbersAreUnique, fresh, || format!("{} again", release.number))?;
            }
            Event::InstanceAssigned { ordinal, .. } => {
                hold(Invariant::NumbersAreUnique, *ordinal > last_ordinal, || format!("{ordinal} again"))?;
                last_ordinal = *ordinal;
            }
            Event::RunAssigned { run, cron, .. } => {
                let fresh = *run > before.last_run;
                hold(Invariant::NumbersAreUnique, fresh, || format!("run.{run} again"))?;
                check_moment(before, cron.as_ref())?;
            }
            Event::ReleaseActivated { number, .. } => {
                let newest = before
                    .releases
                    .values()
                    .filter(|it| it.phase == Phase::Activated)
                    .map(|it| it.number)
                    .max();
                let forward = newest.is_none_or(|newest| newest < *number);
                hold(Invariant::ActivatedInOrder, forward, || format!("{number} after {newest:?}"))?;
                let own = after.routed.iter().all(|it| after.instances[it].release == *number);
                hold(Invariant::SomethingServes, own, || {
                    format!("{number} is active, and others are routed")
                })?;
            }
            _ => {}
        }
    }
    hold(Invariant::SomethingServes, gap_is_wanted(before, events, after), || {
        format!("{} went from {:?} to nothing by {events:?}", before.id, before.routed)
    })?;
    check_app(after)
}

/// What is run by a schedule was not decided before.
fn check_moment(before: &App, cron: Option<&CronRun>) -> Checked {
    let Some(CronRun { entry, due: Some(due), .. }) = cron else { return Ok(()) };
    let until = before.cron.get(entry).map(|it| it.decided_until);
    hold(Invariant::MomentsRunOnce, until.is_some_and(|until| until < *due), || {
        format!("{entry} of {} was due at {due:?}, and decided until {until:?}", before.id)
    })
}

/// Whether nothing is routed any more only where that was asked for, or where what was routed is gone or failed.
fn gap_is_wanted(before: &App, events: &[Event], after: &App) -> bool {
    if before.routed.is_empty() || !after.routed.is_empty() {
        return true;
    }
    let scaled_to_nothing = after.scale.iter().any(|(process, &count)| process.is_web() && count == 0);
    // A release without a web process, or one that recreates it, takes the old one's away first.
    let taken_away = before.activation.as_ref().is_some_and(|activation| {
        let has_web = before
            .release(activation.release)
            .and_then(|release| release.processes())
            .is_some_and(|processes| processes.keys().any(ProcessName::is_web));
        !has_web || activation.handed_over.iter().any(ProcessName::is_web)
    });
    // What a stop is said to be for does not excuse it: that is what a wrong plan would say too.
    let lost = |event: &Event| {
        matches!(
            event,
            Event::InstanceGone { .. }
                | Event::ReleaseFailed { .. }
                | Event::AppDestroying { .. }
                | Event::TrafficShifted { percent: 0, .. }
                | Event::WarmEnded { why: WarmEnd::SecretRevoked, .. }
        )
    };
    let serving = before.serving_release().and_then(|release| release.processes());
    let web = serving.into_iter().flat_map(|processes| processes.keys()).filter(|process| process.is_web());
    let fell_asleep = after.asleep.is_some() && may_sleep(before).is_some();
    fell_asleep || scaled_to_nothing || taken_away || is_worked_on(before, web) || events.iter().any(lost)
}

/// What the runtime has beyond the state was there already when the reconciler last looked.
///
/// # Errors
/// [`Invariant::NothingLeaks`].
pub fn check_leaks(app: &App, seen_twice: &BTreeSet<Ordinal>) -> Checked {
    let leaked = seen_twice.iter().find(|ordinal| !app.instances.contains_key(ordinal));
    hold(Invariant::NothingLeaks, leaked.is_none(), || {
        format!("{} still has {leaked:?}, which nothing wants", app.id)
    })
}

#[cfg(test)]
mod tests;
