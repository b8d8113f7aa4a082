//! Who has which volume: at no time two releases, and at no time two instances of one process.
//!
//! A volume is a directory that outlives releases. Two versions of a program that write to it at once are what its owner never
//! tried, and neither are two copies of one. Processes of one release that share a volume are what berth.toml says.

use std::collections::BTreeSet;

use berth_spec::{ProcessName, ReleaseNumber, SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};

use crate::event::Ordinal;
use crate::state::{App, Instance, Release, Run};
use crate::world::{AppWorld, Life};

/// Something that is done with a volume while nobody writes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeWork {
    /// The volume.
    pub volume: VolumeName,
    /// The snapshot that is taken or brought back.
    pub snapshot: SnapshotName,
    /// What is done.
    pub what: VolumeDeed,
}

/// What is done with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeDeed {
    /// A snapshot of it is taken.
    Snapshot,
    /// It becomes what a snapshot has.
    Restore,
}

/// The volumes that an instance has: those of the release that it was started for.
pub fn of_instance<'a>(
    app: &'a App,
    instance: &'a Instance,
) -> impl Iterator<Item = &'a VolumeName> + use<'a> {
    let release = app.release(instance.started_as).into_iter();
    release.flat_map(|release| release.manifest.volumes_of(&instance.process).map(|(name, _)| name))
}

/// The instance for which `ordinal` has to wait before it is started, because both may not have one volume at once. One that was
/// assigned first goes first; what the state does not know may have anything. While a volume is worked on everything waits for itself.
#[must_use]
pub fn in_the_way(app: &App, ordinal: Ordinal, world: &AppWorld) -> Option<Ordinal> {
    let instance = app.instances.get(&ordinal)?;
    let wanted: BTreeSet<&VolumeName> = of_instance(app, instance).collect();
    if wanted.is_empty() {
        return None;
    }
    if is_wanted_for_work(app, instance) {
        return Some(ordinal);
    }
    let lives = |life: &Life| !matches!(life, Life::Gone | Life::NotStarted { .. });
    let runs = |other: Ordinal, it: &Instance| {
        let seen = world.instances.get(&other).filter(|seen| seen.token == it.token);
        it.started || seen.is_some_and(|seen| lives(&seen.life)) || (it.is_wanted() && other < ordinal)
    };
    let others = app.instances.iter().filter(|(other, _)| **other != ordinal);
    let known =
        others.filter(|(_, it)| it.started_as != instance.started_as || it.process == instance.process);
    let mut holders = known.filter(|(other, it)| {
        of_instance(app, it).any(|volume| wanted.contains(volume)) && runs(**other, it)
    });
    let strays = || {
        let stray = |ordinal: &Ordinal, token: &str| {
            app.instances.get(ordinal).is_none_or(|instance| instance.token != token)
        };
        world.instances.iter().find(|(ordinal, seen)| stray(ordinal, &seen.token) && lives(&seen.life))
    };
    holders.next().map(|(other, _)| *other).or_else(|| strays().map(|(other, _)| *other))
}

/// Whether one of these processes of the release that serves has a volume that is to be worked on.
pub(crate) fn is_worked_on<'a>(app: &'a App, mut processes: impl Iterator<Item = &'a ProcessName>) -> bool {
    let (Some(work), Some(serving)) = (&app.volume_work, app.serving_release()) else { return false };
    let volume = serving.manifest.volumes.get(&work.volume);
    volume.is_some_and(|volume| processes.any(|process| volume.is_of(process)))
}

/// Whether the instance has the volume that is to be worked on.
pub(crate) fn is_wanted_for_work(app: &App, instance: &Instance) -> bool {
    app.volume_work
        .as_ref()
        .is_some_and(|work| of_instance(app, instance).any(|volume| *volume == work.volume))
}

/// Whether a one-off command would have the volume that is to be worked on.
pub(crate) fn keeps_waiting(app: &App, run: &Run) -> bool {
    let release = app.release(run.release);
    let has =
        |volume: &VolumeName| release.is_some_and(|release| release.manifest.volumes.contains_key(volume));
    app.volume_work.as_ref().is_some_and(|work| has(&work.volume))
}

/// The processes of `old` that have a volume which `new` has, too.
pub(crate) fn given_up(old: &Release, new: &Release) -> BTreeSet<ProcessName> {
    let has = |release: &Release, volume: &VolumeName| {
        let of =
            |process: &ProcessName| release.manifest.volumes.get(volume).is_some_and(|it| it.is_of(process));
        release.processes().is_some_and(|processes| processes.keys().any(of))
    };
    let all = old.processes().into_iter().flat_map(|processes| processes.keys());
    all.filter(|process| old.manifest.volumes_of(process).any(|(volume, _)| has(new, volume)))
        .cloned()
        .collect()
}

/// Whether `number` takes a volume over that a web process has now, or will have: then nothing of the old release may run beside it.
pub(crate) fn is_exchanged_by_web(app: &App, number: ReleaseNumber) -> bool {
    let (Some(old), Some(new)) = (app.serving_release(), app.release(number)) else { return false };
    let web = |processes: BTreeSet<ProcessName>| processes.iter().any(ProcessName::is_web);
    web(given_up(old, new)) || web(given_up(new, old))
}
